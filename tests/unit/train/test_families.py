"""Which model families are trained, shown on tiny random models, and which are refused before their weights come: the
table in docs/models.md."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import reference
import tiny
from lorary.adapters import files as adapter
from lorary.base import decoder
from lorary.base.fetch import get_model
from lorary.core.errors import LoraryError
from lorary.data.sequences import Example, Passage
from lorary.train import trainer

HEAD = {"head_dim": 8}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"]}
GEMMA4 = {**HEAD, **LAYERS, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 512}
GEMMA4 |= {"num_kv_shared_layers": 0}
QWEN3_5 = {**HEAD, "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8}
QWEN3_5 |= {"linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
TEXT = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, **HEAD}
TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION |= {"num_key_value_heads": 4, "image_size": 28, "patch_size": 14, **HEAD}

MLP = tiny.TARGETS
UP_DOWN, JOINED = ["up_proj", "down_proj"], ["gate_up_proj", "down_proj"]
FC, H_4H = ["fc1", "fc2"], ["dense_h_to_4h", "dense_4h_to_h"]
TRAINED = {  # settings that make it tiny, and the layers of its MLP
    "llama": ({}, MLP),
    "mistral": ({"sliding_window": None}, MLP),
    "qwen2": ({}, MLP),
    "qwen3": (HEAD, MLP),
    "apertus": ({}, UP_DOWN),
    "arcee": ({}, UP_DOWN),
    "bloom": ({"n_head": 4, "n_layer": 2}, H_4H),
    "cohere": ({}, MLP),
    "cohere2": (LAYERS, MLP),
    "ernie4_5": ({}, MLP),
    "exaone4": (LAYERS, MLP),
    "falcon": ({"ffn_hidden_size": 64}, H_4H),
    "gemma": (HEAD, MLP),
    "gemma2": (HEAD, MLP),
    "gemma3": ({"text_config": {**TEXT, **LAYERS}, "vision_config": VISION, "mm_tokens_per_image": 4}, MLP),
    "gemma3_text": ({**HEAD, **LAYERS}, MLP),
    "gemma4": ({"text_config": {**TEXT, **GEMMA4}, "vision_config": VISION, "audio_config": None}, MLP),
    "gemma4_text": (GEMMA4, MLP),
    "glm": (HEAD, JOINED),
    "glm4": (HEAD, JOINED),
    "gpt_neox": ({}, H_4H),
    "gptj": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 8}, ["fc_in", "fc_out"]),
    "granite": ({}, MLP),
    "helium": (HEAD, MLP),
    "hunyuan_v1_dense": (HEAD, MLP),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, ["w1", "w2", "w3"]),
    "nemotron": (HEAD, UP_DOWN),
    "olmo": ({}, MLP),
    "olmo2": ({}, MLP),
    "olmo3": (LAYERS, MLP),
    "opt": ({"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64}, FC),
    "phi": ({}, FC),
    "phi3": ({}, JOINED),
    "qwen3_5": ({"text_config": {**TEXT, **QWEN3_5}}, MLP),
    "qwen3_5_text": (QWEN3_5, MLP),
    "seed_oss": (HEAD, MLP),
    "smollm3": ({}, MLP),
    "stablelm": ({}, MLP),
    "starcoder2": ({}, ["c_fc", "c_proj"]),
}
USUAL = {"llama", "mistral", "qwen2", "qwen3", "cohere2", "falcon", "gemma2", "gemma3", "gemma3_text", "gemma4", "glm4"}
USUAL |= {"gemma4_text", "gpt_neox", "granite", "olmo2", "phi", "phi3", "qwen3_5", "smollm3"}
EXPERTS = "is a mixture of experts"
NOT_OFFERED = "transformers offers as no causal language model"
ENCODER = "has an encoder beside its decoder"
REASONS = {EXPERTS: "mixture of experts", NOT_OFFERED: "no causal language model in transformers"}
REASONS |= {ENCODER: "encoder and decoder"}
REFUSED = {  # by the whole config.json, and what is said
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "ernie4_5_moe", "glm4_moe", "gpt_oss", "granitemoe"), EXPERTS),
    **dict.fromkeys(("jamba", "llama4", "minimax", "mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe"), EXPERTS),
    **dict.fromkeys(("qwen3_next", "qwen3_5_moe"), EXPERTS),
    **dict.fromkeys(("idefics3", "llava", "mistral3", "paligemma", "qwen2_5_vl", "qwen3_vl"), NOT_OFFERED),
    **dict.fromkeys(("bart", "t5"), ENCODER),
}
QUANTIZED = ("awq", "bitsandbytes", "compressed-tensors", "fp8", "gptq", "mxfp4")
WITHOUT = {"gpt2": ["c_fc", "c_proj"], "mamba": ["in_proj", "out_proj"]}  # PEFT has no LoRA for these layers
SEQUENCES = [np.arange(n) * 7 % 500 for n in (40, 25)]


def table() -> str:
    rows = ["| `model_type` | | `lora_target_modules` for its MLP |", "| --- | --- | --- |"]
    for kind, (_, targets) in TRAINED.items():
        how = "written out here" if kind in ("llama", "mistral", "qwen2", "qwen3") else "through transformers"
        rows.append(f"| `{kind}` | {how} | {'the default' if targets == MLP else ', '.join(targets)} |")
    for words in dict.fromkeys(REFUSED.values()):
        kinds = ", ".join(f"`{kind}`" for kind, found in REFUSED.items() if found == words)
        rows.append(f"| {kinds} | refused: {REASONS[words]} | |")
    rows.append(f"| any with `quantization_config` ({', '.join(QUANTIZED)}) | refused: quantized weights | |")
    kinds = ", ".join(f"`{kind}`" for kind in WITHOUT)
    rows.append(f"| {kinds} | refused: PEFT has no LoRA for its layers | |")
    return "\n".join(rows)


def test_the_table_in_the_documentation():
    assert table() in (tiny.ROOT / "docs/models.md").read_text()


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in USUAL else pytest.mark.all) for kind in TRAINED]
)
def test_adapters_of_this_family_are_those_of_peft(tmp_path, kind):
    settings, targets = TRAINED[kind]
    tiny.make_model(tmp_path / "source", kind, **settings)
    model, base = str(tmp_path / "model"), tmp_path / "base"
    get_model(str(tmp_path / "source"), None, model)
    adapter.init_base_weight(model, 2, 16, targets, 0, None, str(base))
    ours = decoder.load(model, "float32", torch.device("cpu"))
    assert isinstance(ours, decoder.Decoder) == (kind in ("llama", "mistral", "qwen2", "qwen3"))
    made = trainer.Trainer(ours, adapter.read_adapter(str(base))[1], 8.0, tiny.TRAINING, 1)
    (training,) = made.train([Passage((0, 0), [Example(ids.astype(np.int32)) for ids in SEQUENCES])], 1)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / adapter.TENSORS).write_bytes(adapter.tensors_bytes(training.tensors))
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    losses = reference.train(theirs, base, SEQUENCES, tmp_path / "theirs", 3e-3, 1, 1, None)
    assert training.losses == pytest.approx(losses, rel=1e-4)
    cosine, distance = reference.compare(tmp_path / "ours", tmp_path / "theirs", base)
    assert cosine >= 0.9999
    assert distance <= 1e-3


def refused(tmp_path, config) -> str:
    """What is said of a model directory that holds nothing but this config.json."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoraryError, match=f"^model_path: {tmp_path} ") as caught:
        get_model(str(tmp_path), None, str(tmp_path / "model"))
    assert not list((tmp_path / "model").iterdir())
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("kind", REFUSED)
def test_this_family_is_refused_before_its_weights_come(tmp_path, kind):
    assert REFUSED[kind] in refused(tmp_path, AutoConfig.for_model(kind).to_dict())


@pytest.mark.parametrize("method", QUANTIZED)
def test_quantized_weights_are_refused_before_they_come(tmp_path, tiny_llama, method):
    config = json.loads((tiny_llama / "config.json").read_text())
    assert f"is quantized ({method})" in refused(tmp_path, {**config, "quantization_config": {"quant_method": method}})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "llava", "text_config": {"quantization_config": {"quant_method": "awq"}}}, "quantized (awq)"),
        ({"model_type": "llama", "quantization": {"group_size": 64, "bits": 4}}, "is quantized (quantization)"),
        ({"model_type": "kimi_vl", "text_config": {"n_routed_experts": 64}}, "experts (n_routed_experts: 64)"),
        ({"model_type": "own", "ffn_config": {"moe_num_experts": 16}}, "experts (moe_num_experts: 16)"),
    ],
)
def test_what_lies_deeper_in_the_config_is_refused_too(tmp_path, config, words):
    assert words in refused(tmp_path, config)


def test_experts_that_the_config_has_no_word_for_are_refused(tmp_path):
    """NemotronH's are in its pattern of layers."""
    config = AutoConfig.for_model("nemotron_h").to_dict()
    assert EXPERTS in refused(tmp_path, {key: value for key, value in config.items() if "experts" not in key})


@pytest.mark.parametrize(
    ("kind", "settings"), [("doge", {"is_moe": False, "num_experts": 4}), ("gemma4_text", {"num_experts": None})]
)
def test_dense_model_whose_config_counts_experts_is_not_refused(tmp_path, kind, settings):
    settings = {**(GEMMA4 if kind == "gemma4_text" else {}), **settings}
    get_model(str(tiny.make_model(tmp_path / "source", kind, **settings)), None, str(tmp_path / "model"))


@pytest.mark.parametrize("kind", WITHOUT)
def test_family_that_peft_has_no_lora_for_is_refused(tmp_path, kind):
    settings = {"n_embd": 32, "n_layer": 2, "n_head": 4, "state_size": 8}
    get_model(str(tiny.make_model(tmp_path / "source", kind, **settings)), None, str(tmp_path / "model"))
    with pytest.raises(LoraryError, match=r"^lora_target_modules: ") as caught:
        adapter.init_base_weight(str(tmp_path / "model"), 2, 16, WITHOUT[kind], 0, None, str(tmp_path / "base"))
    assert len(str(caught.value).splitlines()) == 1


def test_layers_of_another_class_get_no_adapter(tmp_path, caplog):
    """Gemma 4's vision tower has layers named as its text's are, which PEFT does not take."""
    settings, targets = TRAINED["gemma4"]
    get_model(str(tiny.make_model(tmp_path / "source", "gemma4", **settings)), None, str(tmp_path / "model"))
    adapter.init_base_weight(str(tmp_path / "model"), 2, 16, targets, 0, None, str(tmp_path / "base"))
    assert "layers of a class of its own (Gemma4ClippableLinear) get no adapter" in caplog.text
    config, tensors = adapter.read_adapter(str(tmp_path / "base"))
    assert all(".language_model." in name for name in [*config["target_modules"], *tensors])
    given = str(tmp_path / "base")
    adapter.init_base_weight(str(tmp_path / "model"), 2, 16, targets, 0, given, str(tmp_path / "again"))
    assert (tmp_path / "again" / adapter.TENSORS).read_bytes() == (tmp_path / "base" / adapter.TENSORS).read_bytes()
    (mark,) = (tmp_path / "base").glob(f"{adapter.MARK}*")
    assert json.loads(mark.read_bytes())["lora_target_modules"] == targets
