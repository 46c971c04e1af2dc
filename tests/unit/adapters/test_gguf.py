"""Adapters as llama.cpp reads them."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file

import tiny
from lorary import __main__
from lorary.adapters.files import CONFIG, TENSORS, init_base_weight
from lorary.adapters.gguf import write_gguf
from lorary.base.fetch import get_model
from lorary.core.errors import LoraryError

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_llama, tiny_qwen):
    """By architecture, a base model's directory and an adapter of all its layers, with no nought in it."""
    folder, found = tmp_path_factory.mktemp("gguf"), {}
    for kind, source in (("llama", tiny_llama), ("qwen2", tiny_qwen)):
        get_model(str(source), None, str(folder / kind))
        adapter = folder / f"{kind}-adapter"
        init_base_weight(str(folder / kind), 2, 32, TARGETS, 0, None, str(adapter))
        rng = np.random.default_rng(0)
        tensors = load_file(adapter / TENSORS)
        save_file({k: rng.normal(size=v.shape).astype("f4") for k, v in tensors.items()}, adapter / TENSORS)
        found[kind] = folder / kind, adapter
    return found


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_updates_are_those_of_the_adapter(made, tmp_path, kind):
    """By the names and in the order of llama.cpp's own weights, which has the halves of a llama's heads in turn."""
    model, adapter = made[kind]
    write_gguf(str(adapter), str(tmp_path / "it.gguf"), str(model))
    read = GGUFReader(tmp_path / "it.gguf")
    said = {name: read.fields[name].contents() for name in read.fields if not name.startswith("GGUF.")}
    assert said == {
        "general.architecture": kind,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 32.0,
    }
    theirs = {tensor.name: tensor.data for tensor in read.tensors}
    ours = load_file(adapter / TENSORS)
    assert len(theirs) == len(ours) == 2 * 2 * len(TARGETS)
    heads = {"q": 4, "k": 2}
    for layer in range(2):
        for target in TARGETS:
            letter = target[0]
            place = f"layers.{layer}.{'self_attn' if letter in 'qkvo' and target != 'up_proj' else 'mlp'}.{target}"
            name = f"ffn_{target[:-5]}" if "mlp" in place else {"o": "attn_output"}.get(letter, f"attn_{letter}")
            A, B = (ours[f"base_model.model.model.{place}.lora_{one}.weight"] for one in "AB")
            expected = B.astype("f8") @ A
            if kind == "llama" and letter in heads:
                rows = expected.shape[0] // heads[letter]
                order = [
                    h * rows + half * rows // 2 + i
                    for h in range(heads[letter])
                    for i in range(rows // 2)
                    for half in (0, 1)
                ]
                expected = expected[order]
            A, B = (theirs[f"blk.{layer}.{name}.weight.lora_{one}"] for one in "ab")
            np.testing.assert_allclose(B.astype("f8") @ A, expected, rtol=1e-6)


def test_the_command_finds_the_base_model_by_the_config(made, tmp_path, monkeypatch, capsys):
    model, adapter = made["llama"]
    shutil.copytree(adapter, tmp_path / "one")
    config = json.loads((adapter / CONFIG).read_text())
    (tmp_path / "one" / CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": str(model)}))
    monkeypatch.setattr(sys, "argv", ["lorary", "gguf", str(tmp_path / "one"), str(tmp_path / "new/it.gguf")])
    assert __main__.main() == 0
    assert capsys.readouterr().out == f"{tmp_path}/new/it.gguf: llama, rank 2, alpha 32, 14 layers\n"
    assert (tmp_path / "new/it.gguf").is_file()


@pytest.mark.parametrize(
    ("config", "model", "tensors", "message"),
    [
        ({}, {"model_type": "gemma2"}, {}, "a model of gemma2, whose adapters are not written as GGUF here"),
        ({}, None, {}, "its base model is not at .*/nowhere .* with --model"),
        ({"use_dora": True}, {}, {}, "is no plain LoRA adapter:\n.*use_dora"),
        ({}, {}, {"x.lora_A.weight": np.ones((2, 2), "f4")}, "llama.cpp knows no layer x in a model of llama"),
        ({}, {}, {"lm_head.weight": np.ones((2, 2), "f4")}, "lm_head.weight: not a tensor of LoRA"),
        ({"lora_alpha": None}, {}, {}, "no adapter in PEFT's format"),
    ],
)
def test_what_cannot_be_written_is_refused(made, tmp_path, config, model, tensors, message):
    of, adapter = made["llama"]
    shutil.copytree(adapter, tmp_path / "one")
    said = json.loads((adapter / CONFIG).read_text())
    (tmp_path / "one" / CONFIG).write_text(json.dumps(said | config))
    save_file(load_file(adapter / TENSORS) | tensors, tmp_path / "one" / TENSORS)
    if model is not None:
        (tmp_path / "nowhere").mkdir()
        about = json.loads((of / "config.json").read_text())
        (tmp_path / "nowhere/config.json").write_text(json.dumps(about | model))
    with pytest.raises(LoraryError, match=message):
        write_gguf(str(tmp_path / "one"), str(tmp_path / "it.gguf"), str(tmp_path / "nowhere"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("one", "nowhere")) == []


def test_it_is_written_without_torch():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import lorary.adapters.gguf, gguf; print('torch' in sys.modules)"
    )
    found = subprocess.check_output([sys.executable, "-c", program, str(tiny.ROOT / "workflow")], text=True)
    assert found == "False\n"
