"""The decoder written out here computes what transformers' own modules do."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import tiny
from lorary.base import decoder
from lorary.base.support import most_positions
from lorary.core.errors import LoraryError

CPU = torch.device("cpu")
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"rope_parameters": LLAMA3_ROPE, "head_dim": 16}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("mistral", {"sliding_window": None, "head_dim": 8}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
    ],
)
def test_logits_are_those_of_transformers(tmp_path, kind, settings):
    tiny.make_model(tmp_path, kind, **settings)
    _randomize(tmp_path)
    ours = decoder.load(tmp_path, "float32", CPU)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(512, (2, 90), generator=torch.Generator().manual_seed(1))
    assert isinstance(ours, decoder.Decoder)
    torch.testing.assert_close(decoder.logits(ours, ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"), [("granite", {"logits_scaling": 3.0}), ("mistral", {"sliding_window": 8})]
)
def test_other_architectures_go_through_transformers(tmp_path, kind, settings):
    tiny.make_model(tmp_path, kind, **settings)
    model = decoder.load(tmp_path, "float32", CPU)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(512, (1, 20))
    assert not isinstance(model, decoder.Decoder)
    torch.testing.assert_close(decoder.logits(model, ids), theirs(ids).logits)


def test_padding_on_the_right_changes_no_logit(tiny_qwen):
    model = decoder.load(tiny_qwen, "float32", CPU)
    ids = torch.randint(512, (1, 12))
    padded = torch.cat((ids, torch.zeros(1, 5, dtype=torch.long)), dim=1)
    torch.testing.assert_close(decoder.logits(model, padded)[:, :12], decoder.logits(model, ids))


def test_bfloat16_keeps_the_base_model_in_bfloat16(tiny_llama):
    model = decoder.load(tiny_llama, "bfloat16", CPU)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_a_device_that_fails_is_not_taken_for_a_model_that_is_wrong(tiny_llama, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(decoder, "load_file", fails)
    with pytest.raises(RuntimeError, match=r"^CUDA error"):
        decoder.load(tiny_llama, "float32", CPU)


def test_configs_of_transformers_4_are_read(tmp_path):
    """rope_theta beside rope_scaling instead of rope_parameters."""
    tiny.make_model(tmp_path, "llama", rope_parameters=LLAMA3_ROPE)
    new = decoder.load(tmp_path, "float32", CPU)
    config = json.loads((tmp_path / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    (tmp_path / "config.json").write_text(json.dumps(config))
    old = decoder.load(tmp_path, "float32", CPU)
    ids = torch.randint(512, (1, 90))
    assert torch.equal(decoder.logits(new, ids), decoder.logits(old, ids))


def _randomize(folder):
    """Norms and biases that matter: transformers initialises them to one and nought."""
    from safetensors.torch import load_file, save_file

    torch.manual_seed(2)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            tensors[name] = 0.5 + torch.rand_like(tensor)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("kind", ["llama", "granite"])
def test_weights_that_are_missing_are_not_made_up(tmp_path, kind):
    """transformers would take random ones, and adapters would be trained on them."""
    tiny.make_model(tmp_path, kind)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoraryError, match=r"do not go together.*model\.layers\.1\.mlp\.up_proj\.weight"):
        decoder.load(str(tmp_path), "float32", torch.device("cpu"))


def test_more_tokens_than_a_model_has_positions_are_found_before_a_gpu_fails(tmp_path):
    tiny.make_model(tmp_path / "opt", "opt", max_position_embeddings=40, ffn_dim=64, word_embed_proj_dim=32)
    model = decoder.load(str(tmp_path / "opt"), "float32", torch.device("cpu"))
    assert decoder.beyond(model, 511, 40) is None
    assert "41 tokens are beyond the 40 positions of the model" in decoder.beyond(model, 0, 41)
    assert "token id 512 is beyond the model's vocabulary of 512" in decoder.beyond(model, 512, 2)


@pytest.mark.parametrize("kind", ["granite", "phi", "gpt_neox", "bloom", "falcon"])
def test_positions_that_are_computed_have_no_end(kind):
    assert most_positions(AutoConfig.for_model(kind).to_dict()) is None
