"""The base weight is PEFT's own, or a given one that fits; a trained adapter computes and steps as PEFT's would."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import tiny
from lorary.adapters import lora
from lorary.adapters.files import CONFIG, TENSORS, init_base_weight, read_adapter, trained_config
from lorary.base import decoder
from lorary.base.fetch import get_model
from lorary.core.errors import LoraryError

CPU = torch.device("cpu")
MLP = ["down_proj", "gate_proj", "up_proj"]


@pytest.fixture(scope="module")
def model(tiny_llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "tiny-label"
    get_model(str(tiny_llama), None, str(out))
    return str(out)


@pytest.fixture
def make(model, tmp_path):
    """Makes the base weight of that model."""

    def make(given=None, rank=2, alpha=32, targets=MLP, seed=42):
        out = tmp_path / f"made-{rank}-{seed}"
        init_base_weight(model, rank, alpha, targets, seed, given and str(given), str(out))
        return out

    return make


@pytest.fixture(scope="module")
def finished(tiny_llama, tmp_path_factory):
    """A warmed-up adapter of the same shape, as PEFT saves it, with no nought in it."""
    return warm_adapter(tiny_llama, tmp_path_factory.mktemp("warm"))


@pytest.fixture
def given(finished, tmp_path):
    """The same for a test to spoil."""
    return shutil.copytree(finished, tmp_path / "given")


def from_pretrained(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def warm_adapter(folder, out, **settings):
    config = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 32, "target_modules": MLP, **settings})
    model = get_peft_model(from_pretrained(folder), config)
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(out)
    return out


def test_same_bytes_from_a_seed_in_any_process(model, make, tmp_path):
    code = f"from lorary.adapters.files import init_base_weight as f; f({model!r}, 2, 32, {MLP}, 42, None, 'out')"
    processes = []
    for hash_seed in "1", "2":
        (tmp_path / hash_seed).mkdir()
        env = {**os.environ, "PYTHONPATH": str(tiny.ROOT / "workflow"), "PYTHONHASHSEED": hash_seed}
        processes.append(subprocess.Popen([sys.executable, "-c", code], env=env, cwd=tmp_path / hash_seed))
    here = make()
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for name in (CONFIG, TENSORS):
        contents = {(folder / name).read_bytes() for folder in (here, tmp_path / "1" / "out", tmp_path / "2" / "out")}
        assert len(contents) == 1
    assert sorted(path.name for path in here.iterdir()) == [CONFIG, TENSORS, "made_of.json"]


def test_it_is_what_peft_makes_of_that_seed_on_the_whole_model(model, make):
    ours = read_adapter(make(rank=4, alpha=8, seed=7))[1]
    torch.manual_seed(7)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=MLP)
    theirs = get_peft_model_state_dict(get_peft_model(from_pretrained(model), config))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    other = read_adapter(make(rank=4, alpha=8, seed=8))[1]
    assert not any(torch.equal(ours[name], other[name]) for name in ours if "lora_A" in name)


def test_peft_loads_it_and_it_does_nothing_yet(tiny_llama, model, make):
    ids = torch.arange(40)[None]
    before = from_pretrained(model)(ids).logits
    loaded = PeftModel.from_pretrained(from_pretrained(model), make())
    config = loaded.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (2, 32, 0.0, "none")
    assert (config.target_modules, config.base_model_name_or_path) == (set(MLP), str(tiny_llama))
    assert all(not tensor.any() for name, tensor in loaded.named_parameters() if "lora_B" in name)
    assert torch.equal(loaded(ids).logits, before)


def test_it_holds_nothing_but_its_own_tensors(make):
    """PEFT would save the whole layer with an adapter on the output head."""
    assert {name.rsplit(".", 2)[1] for name in read_adapter(make(targets=["lm_head"]))[1]} == {"lora_A", "lora_B"}


def test_given_adapter_becomes_the_base_weight(tiny_llama, given, make):
    made = make(given)
    config, tensors = read_adapter(made)
    _, theirs = read_adapter(given)
    assert sorted(path.name for path in made.iterdir()) == [CONFIG, TENSORS, "made_of.json"]
    assert tensors.keys() == theirs.keys()
    assert all(torch.equal(tensors[name], theirs[name]) for name in tensors)
    assert (config["base_model_name_or_path"], config["target_modules"]) == (str(tiny_llama), MLP)


def test_given_adapter_in_bfloat16_becomes_float32(given, make):
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(given / TENSORS).items()}
    save_file(tensors, given / TENSORS)
    made = load_file(make(given) / TENSORS)
    assert all(torch.equal(made[name], tensor.float()) for name, tensor in tensors.items())


def test_a_trained_adapter_names_the_base_model_as_peft_finds_it(tiny_llama, make, tmp_path, monkeypatch):
    """A local one by its directory: the user's own where that is the same from everywhere, or where it was put."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").symlink_to(tiny_llama)
    adapter = make()
    for source, told in ((str(tiny_llama), str(tiny_llama)), ("mine", "resources/models/m")):
        shutil.rmtree("resources", ignore_errors=True)
        get_model(source, None, "resources/models/m")
        (adapter / CONFIG).write_bytes(trained_config(str(adapter), "resources/models/m"))
        assert json.loads((adapter / CONFIG).read_text())["base_model_name_or_path"] == told
        found = AutoPeftModelForCausalLM.from_pretrained(adapter)
        assert torch.equal(
            found.get_input_embeddings().weight, from_pretrained(tiny_llama).get_input_embeddings().weight
        )


@pytest.mark.parametrize("name", ["some/model", "gpt2"])
@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_trained_adapter_names_the_base_model_by_its_id(make, tmp_path, name, revision):
    about = {"name": name, "source": name, "revision": revision, "weights": "", "tokenizer": ""}
    (tmp_path / "label").mkdir()
    (tmp_path / "label/fingerprint.json").write_text(json.dumps(about))
    config = json.loads(trained_config(str(make()), str(tmp_path / "label")))
    assert (config["base_model_name_or_path"], config.get("revision")) == (name, revision)


FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("config", "tensors", "faults"),
    [
        ({"r": 4}, {}, ["r: expected 2, found 4"]),
        ({"lora_alpha": 16}, {}, ["lora_alpha: expected 32, found 16"]),
        ({"target_modules": ["up_proj", "q_proj"]}, {}, [r"target_modules: .*found \['up_proj', 'q_proj'\]"]),
        ({"target_modules": "all-linear"}, {}, ["target_modules: .*found 'all-linear'"]),
        ({"use_dora": True}, {}, ["use_dora: expected False, found True"]),
        ({"use_rslora": True}, {}, ["use_rslora: expected False, found True"]),
        ({"peft_type": "IA3"}, {}, ["peft_type: expected 'LORA', found 'IA3'"]),
        ({"alora_invocation_tokens": [1, 2]}, {}, [r"alora_invocation_tokens: \[1, 2\] is beyond LoRA as PEFT 0.13.2"]),
        ({"use_qalora": True, "new": 1}, {}, ["use_qalora: True is beyond LoRA", "new: 1 is beyond LoRA"]),
        ({"init_lora_weights": "pissa"}, {}, ["init_lora_weights"]),  # PEFT changes the base model when it loads this
        ({}, {FIRST: None}, [f"{FIRST}: missing"]),
        ({}, {FIRST: torch.ones(2, 65)}, [f"{FIRST}: expected shape \\(2, 64\\), found \\(2, 65\\)"]),
        ({}, {"base_model.model.lm_head.weight": torch.ones(1)}, ["lm_head.weight: not a tensor of this adapter"]),
        ({"r": 4, "lora_alpha": 16}, {FIRST: None}, ["r: expected 2", "lora_alpha: expected 32", "missing"]),
    ],
)
def test_given_adapter_that_does_not_fit_is_refused_with_every_fault(given, make, config, tensors, faults):
    changed = {**load_file(given / TENSORS), **tensors}
    save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, given / TENSORS)
    (given / CONFIG).write_text(json.dumps({**json.loads((given / CONFIG).read_text()), **config}))
    with pytest.raises(LoraryError, match=f"base_weight: {given} does not fit lora_rank, lora_alpha") as caught:
        make(given)
    for fault in faults:
        assert caught.match(fault)
    assert len(str(caught.value).splitlines()) == 1 + len(faults)


@pytest.mark.parametrize("spoil", ["no folder", "no config", "no tensors", "config", "not a mapping", "truncated"])
def test_folder_that_is_no_adapter_is_refused(given, make, spoil):
    if spoil == "no folder":
        shutil.rmtree(given)
    elif spoil in ("config", "not a mapping"):
        (given / CONFIG).write_text({"config": "{", "not a mapping": "[]"}[spoil])
    elif spoil == "truncated":
        os.truncate(given / TENSORS, 1000)
    else:
        (given / (CONFIG if spoil == "no config" else TENSORS)).unlink()
    with pytest.raises(LoraryError, match=f"{given}: no adapter in PEFT's format"):
        make(given)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("gpt_neox", {}, "has no linear layer down_proj, gate_proj, up_proj; its .* dense, dense_4h_to_h,"),
        ("phi3", {"num_key_value_heads": 4}, "no linear layer gate_proj, up_proj; its .* down_proj, gate_up_proj, lm_"),
    ],
)
def test_model_without_the_targets_is_refused_with_what_it_has(tmp_path, kind, settings, message):
    get_model(str(tiny.make_model(tmp_path / kind, kind, **settings)), None, str(tmp_path / "model"))
    with pytest.raises(LoraryError, match=f"lora_target_modules: .*{message}"):
        init_base_weight(str(tmp_path / "model"), 2, 32, MLP, 42, None, str(tmp_path / "made"))


@pytest.mark.parametrize(
    ("kind", "targets"),
    [("llama", MLP), ("qwen2", ["q_proj", "o_proj", "up_proj"]), ("granite", MLP)],  # granite is transformers' own
)
def test_attached_adapter_computes_what_peft_does(tmp_path, kind, targets):
    folder = tiny.make_model(tmp_path / kind, kind)
    given = warm_adapter(folder, tmp_path / "given", target_modules=targets)
    model = decoder.load(folder, "float32", CPU)
    stack = lora.Stack(model, read_adapter(given)[1], scale=32 / 2)
    stack.make(3)
    stack.begin(2)
    stack.begin(0)
    stack.flat[0] *= 2  # beside it, another adapter
    stack.gather([0, 2])
    theirs = PeftModel.from_pretrained(from_pretrained(folder), given, is_trainable=True)
    ids = torch.randint(512, (4, 30), generator=torch.Generator().manual_seed(1))
    ours, expected = decoder.logits(model, ids)[2:], theirs(ids[2:]).logits
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    ours.square().mean().backward()
    expected.square().mean().backward()
    gradients = {name.replace(".default", ""): p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    assert max(gradient.abs().max() for gradient in gradients.values()) > 1e-3
    for name, gradient in stack.tensors(stack.gradients()[1]).items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-4, atol=1e-6)
    assert not stack.gradient[0].any()
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_begin_goes_back_to_the_base_weight(tiny_llama, finished):
    start = read_adapter(finished)[1]
    model, ids = decoder.load(tiny_llama, "float32", CPU), torch.arange(30)[None]
    stack = lora.Stack(model, start, scale=16)
    stack.make(1)

    def logits():
        stack.gather([0])
        return decoder.logits(model, ids).detach()

    stack.begin(0)
    before = logits()
    stack.flat.add_(0.1)
    assert not torch.allclose(logits(), before)
    stack.begin(0)
    assert torch.equal(logits(), before)
    assert all(torch.equal(tensor, start[name]) for name, tensor in stack.tensors(stack.flat[0]).items())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_adamw_is_that_of_torch_for_each_place(finished, tiny_llama, dtype, tolerance):
    """Two adapters, of which one sits out a step: neither moves then, nor counts it."""
    start = {name: tensor.to(dtype) for name, tensor in read_adapter(finished)[1].items()}
    stack = lora.Stack(decoder.load(tiny_llama, "float32", CPU).to(dtype), start, scale=16)
    stack.make(2)
    generator = torch.Generator().manual_seed(0)
    theirs = [torch.nn.Parameter(stack.start.clone()) for _ in range(2)]
    optimizers = [torch.optim.AdamW([parameter], 3e-4, weight_decay=0.01) for parameter in theirs]
    for place in (0, 1):
        stack.begin(place)
    for places in ([0, 1], [1], [1, 0], [0], [0, 1]):
        stack.gather(places)
        for row, place in enumerate(places):
            gradient = torch.randn(len(stack.start), generator=generator, dtype=dtype)
            gradient[:100] = 0  # never a gradient
            theirs[place].grad = gradient
            stack.gradient[row] = gradient / stack.scale
            optimizers[place].step()
        stack.update(places, 3e-4)
        for place in (0, 1):
            torch.testing.assert_close(stack.flat[place], theirs[place].detach(), rtol=tolerance, atol=1e-9)
