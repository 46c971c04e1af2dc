"""Which base models are written out here, by what their config.json says, and how that is read."""

from typing import Any

# Goes up when another folder is made of the same base model: all are made again then.
MODEL_VERSION = 2


def written_out_here(config: dict[str, Any]) -> bool:
    """Whether `decoder.Decoder` computes this model; every other one goes through transformers."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    return (
        config.get("model_type") in ("llama", "mistral", "qwen2", "qwen3")
        and config.get("hidden_act", "silu") == "silu"
        and rope_parameters(config)["rope_type"] in ("default", "llama3")
        and window is None
        and "quantization_config" not in config
    )


def head_dim(config: dict[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rope_parameters(config: dict[str, Any]) -> dict[str, Any]:
    """As transformers 5 writes them (rope_parameters) or as 4 did (rope_theta beside rope_scaling)."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    rope.setdefault("rope_type", rope.get("type", "default"))
    return rope
