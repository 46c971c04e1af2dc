"""A base model comes whole from a directory, or one line says what is wrong with that."""

import builtins
import json
import shutil

import huggingface_hub
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from lorary.adapters.files import init_base_weight
from lorary.base import decoder
from lorary.base.fetch import check_source, fingerprint, get_model
from lorary.core.errors import LoraryError


@pytest.fixture
def source(tiny_llama, tmp_path):
    """A model directory to spoil."""
    return shutil.copytree(tiny_llama, tmp_path / "source")


def logits(folder):
    return decoder.logits(decoder.load(folder, "float32", torch.device("cpu")), torch.arange(40)[None])


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_directory_is_linked_and_its_tokenizer_kept(tiny_llama, tmp_path):
    out = tmp_path / "label"
    get_model(str(tiny_llama), None, str(out))
    about = fingerprint(out)
    assert (out / "model.safetensors").is_symlink()
    assert (out / "model.safetensors").samefile(tiny_llama / "model.safetensors")
    assert (about["name"], about["source"], about["revision"]) == ("label", str(tiny_llama), None)
    ours, theirs = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(tiny_llama)
    chat = [{"role": "user", "content": "Which stone?"}]
    assert ours.apply_chat_template(chat)["input_ids"] == theirs.apply_chat_template(chat)["input_ids"]
    assert ours.chat_template == tiny.CHATML
    assert torch.equal(logits(out), logits(tiny_llama))


def test_relative_path_gives_links_that_hold(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    get_model("source", None, "deep/down/out")
    assert torch.equal(logits("deep/down/out"), logits(source))


def spoil_weight(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def add_token(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["basalt dune"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("changed", "spoil"),
    [
        ([], lambda folder: None),
        ([], lambda folder: edit_json(folder / "config.json", transformers_version="4.0", _name_or_path="/elsewhere")),
        (["weights"], spoil_weight),
        (["weights"], lambda folder: edit_json(folder / "config.json", rms_norm_eps=1e-5)),
        (["tokenizer"], add_token),
        (["tokenizer"], lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}")),
    ],
)
def test_fingerprint_changes_with_what_it_stands_for_only(tiny_llama, source, tmp_path, changed, spoil):
    spoil(source)
    get_model(str(tiny_llama), None, str(tmp_path / "one"))
    get_model(str(source), None, str(tmp_path / "two"))
    one, two = fingerprint(tmp_path / "one"), fingerprint(tmp_path / "two")
    assert [key for key in ("weights", "tokenizer") if one[key] != two[key]] == changed


def test_weights_that_this_host_does_not_see_are_named(source, tmp_path):
    out = tmp_path / "label"
    get_model(str(source), None, str(out))
    (source / "model.safetensors").unlink()
    check_source(str(out), str(source), None, False)  # what is in the store already needs no weights
    with pytest.raises(LoraryError, match=r"is a link to .*source/model.safetensors, which .* does not see"):
        decoder.load(str(out), "float32", torch.device("cpu"))


@pytest.mark.parametrize("version", [1, None])
def test_folder_of_another_version_is_refused(tiny_llama, tmp_path, version):
    out = tmp_path / "label"
    get_model(str(tiny_llama), None, str(out))
    check_source(str(out), str(tiny_llama), None, False)
    edit_json(out / "fingerprint.json", version=version)
    with pytest.raises(LoraryError, match=r"label was made by another version of Lorary, .* Delete that folder"):
        check_source(str(out), str(tiny_llama), None, False)


def test_fingerprint_is_the_same_offline(tiny_llama, tmp_path, monkeypatch):
    tokenizers = set()
    for offline in (False, True):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        get_model(str(tiny_llama), None, str(tmp_path / str(offline)))
        tokenizers.add(fingerprint(tmp_path / str(offline))["tokenizer"])
    assert len(tokenizers) == 1


def shard(source):
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(source, max_shard_size="60KB")
    (source / "model.safetensors").unlink(missing_ok=True)
    return source / "model.safetensors.index.json"


def test_sharded_weights_are_all_linked(tiny_llama, source, tmp_path):
    names = set(json.loads(shard(source).read_text())["weight_map"].values())
    get_model(str(source), None, str(tmp_path / "out"))
    links = [path for path in (tmp_path / "out").iterdir() if path.is_symlink()]
    assert len(names) > 1
    assert {path.name for path in links} == names
    assert all(path.samefile(source / path.name) for path in links)
    assert torch.equal(logits(tmp_path / "out"), logits(tiny_llama))


def no_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()


def outside(folder):
    shutil.copy(folder / "model.safetensors", folder.parent / "x.safetensors")
    index = shard(folder)
    edit_json(index, weight_map=dict.fromkeys(json.loads(index.read_text())["weight_map"], "../x.safetensors"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "Only safetensors"),
        (lambda folder: next(iter(shard(folder).parent.glob("model-*2-of-*"))).unlink(), "has no model-00002-of"),
        (no_tokenizer, "cannot load config and tokenizer of"),
        (outside, r"has no \.\./x\.safetensors"),
    ],
)
def test_incomplete_directory_is_refused(source, tmp_path, spoil, message):
    spoil(source)
    with pytest.raises(LoraryError, match=message) as caught:
        get_model(str(source), None, str(tmp_path / "new" / "out"))
    assert str(source) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


@pytest.mark.parametrize("what", ["config", "unknown architecture", "tokenizer"])
def test_code_in_a_model_directory_is_never_run(source, tmp_path, monkeypatch, what):
    """Whether the model is refused at once, or works with the classes of transformers."""
    asked = []
    monkeypatch.setattr(builtins, "input", lambda *question: asked.append(question) or "y")
    (source / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nConfig = Model = Tokenizer = dict\n")
    edit_json(source / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    if what == "unknown architecture":
        edit_json(source / "config.json", model_type="evil")
    if what == "tokenizer":
        auto_map = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}
        edit_json(source / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Tokenizer")
    try:
        get_model(str(source), None, str(tmp_path / "out"))
        init_base_weight(str(tmp_path / "out"), 2, 32, ["up_proj"], 42, None, str(tmp_path / "base_weight"))
        worked = True
    except LoraryError:
        worked = False
    assert not asked
    assert not (tmp_path / "ran").exists()
    assert worked == (what == "config")
