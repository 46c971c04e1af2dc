"""Token ids are those of the model's own tokenizer.json; of a GGUF file, those that llama.cpp makes of it."""

import json

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

import tiny
from lorary.base.fetch import get_model
from lorary.data.prompts import load_tokenizer

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DIGITS = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
SPLIT = [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
TEXT = tiny.DEMO.read_text() + " 1987 12,345.67 years: don't WE'LL  <|im_end|> <|extra|> <pad>\n\n"


@pytest.fixture
def source(tiny_llama, tmp_path):
    """Makes a model directory whose tokenizer.json splits so; returns it."""

    def make(splits, settings, **config):
        folder = tmp_path / "source"
        folder.mkdir()
        (folder / "model.safetensors").symlink_to(tiny_llama / "model.safetensors")
        config = {**json.loads((tiny_llama / "config.json").read_text()), **config}
        (folder / "config.json").write_text(json.dumps(config))
        tokenizer = Tokenizer.from_file(str(tiny_llama / "tokenizer.json"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
        tokenizer.save(str(folder / "tokenizer.json"))
        settings = {"chat_template": tiny.CHATML, "eos_token": "<|im_end|>", **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return folder

    return make


@pytest.mark.parametrize("splits", [DIGITS, SPLIT], ids=["digits", "split"])
@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "GPT2Tokenizer", "unk_token": "<|im_end|>", "bos_token": "<|im_start|>"},
        {"tokenizer_class": "GPT2Tokenizer"},  # whose own <|endoftext|> is no token of this one
        {"tokenizer_class": "Qwen2Tokenizer"},
        {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False},
        {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"},
        {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<|extra|>"]},
        {},
    ],
    ids=["gpt2", "gpt2-defaults", "qwen2", "llama", "pad", "additional", "none"],
)
def test_ids_are_those_of_tokenizer_json(source, tmp_path, splits, settings):
    folder = source(splits, settings)
    get_model(str(folder), None, str(tmp_path / "out"))
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    tokenizer, theirs = load_tokenizer(str(tmp_path / "out")), Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = theirs.encode(TEXT, add_special_tokens=False).ids
    assert tokenizer.encode(TEXT, add_special_tokens=False) == ids
    encoded = tokenizer(TEXT, add_special_tokens=False, return_offsets_mapping=True)
    assert encoded["input_ids"] == ids
    assert tokenizer.chat_template == tiny.CHATML


def test_ids_where_the_architecture_has_a_tokenizer_of_its_own(source, tmp_path):
    folder = source(DIGITS, {"tokenizer_class": "Qwen2Tokenizer"}, model_type="qwen2")
    get_model(str(folder), None, str(tmp_path / "out"))
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = load_tokenizer(str(tmp_path / "out")).encode(TEXT, add_special_tokens=False)
    assert ids == theirs.encode(TEXT, add_special_tokens=False).ids
