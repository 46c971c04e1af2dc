"""Which base models can be trained here, by what their config.json says; which of them are written out, and how it is
read."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError

# Goes up when another folder is made of the same base model: all are made again then.
MODEL_VERSION = 2

# What a model directory consists of.
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py")
WRITTEN_OUT = ("llama", "mistral", "qwen2", "qwen3")
EXPERTS = re.compile(r"(moe_)?(num|n)_(local_|routed_)?experts")


def check_config(folder: Path, model_path: str) -> None:
    """Raises LoraryError where config.json of the model directory `folder` says that the model cannot be trained
    here. It reads that file alone."""
    if not (folder / "config.json").is_file():
        raise LoraryError(f"model_path: {model_path} has no config.json, so it is no model directory.")
    if reason := unfit(_read(folder)):
        raise LoraryError(f"model_path: {model_path} {reason}")


def unfit(config: dict[str, Any]) -> str | None:
    """Why a model of this config.json cannot be trained here; None where nothing there speaks against it."""
    for key, value in _entries(config):
        if key in ("quantization_config", "compression_config", "quantization") and value:  # the last one is MLX's
            method = value.get("quant_method") if isinstance(value, dict) else None
            return (
                f"is quantized ({method or key}), and adapters are trained beside weights in float32 or bfloat16 alone."
                " Take the model that it was made from."
            )
        if EXPERTS.fullmatch(key) and isinstance(value, int) and value > 1 and config.get("is_moe") is not False:
            return (
                f"is a mixture of experts ({key}: {value}), and a layer that sees only some of the tokens gets no"
                " adapter here. Take a dense model."
            )
    if config.get("is_encoder_decoder"):
        return "has an encoder beside its decoder, and only models of a decoder alone are trained here."
    return None


def check_modules(folder: Path, model_path: str, trust_remote_code: bool) -> None:
    """Raises LoraryError where transformers makes no causal language model of config.json, or one with experts. It
    makes the model without its weights; none of those that are written out here has to be made."""
    if _read(folder).get("model_type") in WRITTEN_OUT:
        return
    skeleton = make_skeleton(folder, model_path, trust_remote_code)
    if experts := next((name for name, _ in skeleton.named_modules() if re.search(r"(^|\.)experts?$", name)), None):
        raise LoraryError(
            f"model_path: {model_path} is a mixture of experts ({experts}), and a layer that sees only some of the"
            " tokens gets no adapter here. Take a dense model."
        )


def make_skeleton(folder: Path, model_path: str, trust_remote_code: bool) -> Any:
    """The model of a directory with a config.json as transformers makes it, with shapes in place of weights. Raises
    LoraryError."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever transformers raises over what lies there
        reason = " ".join(str(error).split()) or type(error).__name__
        if "trust_remote_code" in reason:
            raise LoraryError(
                f"model_path: {model_path} needs Python code of its own to be run. If you trust it, having read its"
                " *.py, set trust_remote_code: true."
            ) from None
        if reason.startswith("Unrecognized configuration class"):
            raise LoraryError(
                f"model_path: {model_path} is a {config.model_type}, which transformers offers as no causal language"
                " model (AutoModelForCausalLM). Take a model of text alone."
            ) from None
        raise LoraryError(
            f"model_path: transformers cannot load config and tokenizer of {model_path}: {reason[:300]}"
        ) from None


def written_out_here(config: dict[str, Any]) -> bool:
    """Whether `decoder.Decoder` computes this model; every other one goes through transformers."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    return (
        config.get("model_type") in WRITTEN_OUT
        and config.get("hidden_act", "silu") == "silu"
        and rope_parameters(config)["rope_type"] in ("default", "llama3")
        and window is None
        and "quantization_config" not in config
    )


def most_positions(config: dict[str, Any]) -> int | None:
    """How many tokens a model has positions for that it looks up in a table; None: they are computed."""
    if any(str(key).startswith(("rope_", "rotary_")) and key != "rotary_dim" for key, _ in _entries(config)):
        return None
    if config.get("alibi"):
        return None
    return config.get("max_position_embeddings") or config.get("n_positions")


def head_dim(config: dict[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """As transformers 5 writes them (rope_parameters) or as 4 did (rope_theta beside rope_scaling)."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    rope.setdefault("rope_type", rope.get("type", "default"))
    return rope


def _read(folder: Path) -> dict[str, Any]:
    """config.json; empty where it is damaged, which transformers says in words."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _entries(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Its entries, and those of every configuration within it."""
    for key, value in config.items():
        yield key, value
        if isinstance(value, dict):
            yield from _entries(value)
