"""An adapter as llama.cpp reads it, in one GGUF file.

The rules are those of llama.cpp's own convert_lora_to_gguf.py, for the architectures that are written out here. Without
torch.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import LoraryError, report
from ..core.files import written_whole
from ..core.pack import contents
from ..core.values import CONFIG, TENSORS
from .digest import FIRST_CONFIG
from .files import beyond_lora, layer_of

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}  # by transformers' model_type
HALVES_INTERLEAVED = ("self_attn.q_proj", "self_attn.k_proj")  # of each head, in llama.cpp's own form of "llama"


def write_gguf(adapter: str, file: str, model: str | None = None) -> str:
    """Write the adapter of a directory in PEFT's format, or one in a pack by its path there, as `file`. `model`: the
    directory of its base model (default: the one that its config names). Returns what was written, in words. Raises
    LoraryError."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFType, GGUFWriter, Keys, get_tensor_name_map

    config, tensors = _read(adapter)
    about = _model_config(adapter, model or config.get("base_model_name_or_path"))
    name = ARCHITECTURES[about["model_type"]]
    names = get_tensor_name_map(
        next(arch for arch in MODEL_ARCH if MODEL_ARCH_NAMES[arch] == name), about["num_hidden_layers"]
    )
    with written_whole(file, new_folder=True) as temporary:
        writer = GGUFWriter(temporary, name)
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, config["lora_alpha"])
        for key in sorted(tensors):
            layer, letter = layer_of(key), "a" if ".lora_A." in key else "b"
            theirs = names.get_name(layer)
            if theirs is None:
                raise LoraryError(f"{adapter}: llama.cpp knows no layer {layer} in a model of {name}.")
            tensor = tensors[key]
            if letter == "b" and name == "llama" and layer.endswith(HALVES_INTERLEAVED):
                heads = about["num_attention_heads"]
                if layer.endswith("k_proj"):
                    heads = about.get("num_key_value_heads") or heads
                tensor = _interleaved(tensor, heads)
            writer.add_tensor(f"{theirs}.weight.lora_{letter}", tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return f"{file}: {name}, rank {config['r']}, alpha {config['lora_alpha']:g}, {len(tensors) // 2} layers"


def _interleaved(B: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a B (out, r) of queries or keys as llama.cpp has those of the weight: of each head, one of its first
    half and one of its second in turn."""
    halves = B.reshape(heads, 2, -1, B.shape[1])  # (heads, 2, head_dim / 2, r)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(B.shape))


def _read(adapter: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Config and tensors (float32)."""
    from safetensors import SafetensorError, deserialize

    try:
        files = contents(adapter)
        config = json.loads(files[CONFIG])
        tensors = {name: _float32(**tensor) for name, tensor in deserialize(files[TENSORS])}
        faults = beyond_lora(config, FIRST_CONFIG, {})
        config |= {"r": int(config["r"]), "lora_alpha": float(config["lora_alpha"])}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise LoraryError(f"{adapter}: no adapter in PEFT's format ({CONFIG} and {TENSORS}): {reason}") from None
    faults += [f"{name}: not a tensor of LoRA" for name in tensors if ".lora_A." not in name and ".lora_B." not in name]
    if faults:
        raise report(faults, f"{adapter} is no plain LoRA adapter:", most=10)
    return config, tensors


def _float32(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    """Raises LookupError where it is of another type than adapters are."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    types = {name: GGMLQuantizationType[name] for name in ("F32", "F16", "BF16")}
    return dequantize(np.frombuffer(data, np.uint8), types[dtype]).reshape(shape)


def _model_config(adapter: str, model: str | None) -> dict[str, Any]:
    try:
        about = json.loads((Path(str(model)) / "config.json").read_bytes())
        kind, *_ = (about[key] for key in ("model_type", "num_hidden_layers", "num_attention_heads"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LoraryError(
            f"{adapter}: its base model is not at {model} ({type(error).__name__}: {error}). Name the base model's"
            " directory, resources/models/<model_name>, with --model."
        ) from None
    if kind not in ARCHITECTURES:
        raise LoraryError(
            f"{model} is a model of {kind}, whose adapters are not written as GGUF here, only those of"
            f" {', '.join(ARCHITECTURES)}. llama.cpp's own convert_lora_to_gguf.py may know it."
        )
    return about
