"""A task adapter: what passages have in common, trained once. It lies under the adapters of passages, and counts once
however many of these are active: merged into the frozen weights for training, one more of each set for answering."""

import math
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..base.frozen import FrozenLinear
from ..core.errors import LoraryError, report
from .digest import FIRST_CONFIG, digest_task_adapter
from .files import PREFIX, beyond_lora, layer_of, read_adapter
from .lora import Adapter
from .rows import partner


def read_task_adapter(task: dict[str, str]) -> Adapter:
    """Of the folder `path`, of which `sha256` is the digest. Raises LoraryError where it is another one by now, or
    beyond plain LoRA."""
    path = task["path"]
    if not Path(path).is_dir() or digest_task_adapter(path) != task["sha256"]:
        raise LoraryError(
            f"task_adapter: {path} (seen from {Path.cwd()}) is not there, or changed since adapters were to be"
            " trained over it. `snakemake` with the config of that run trains them over what is there now."
        )
    config, tensors = read_adapter(path)
    faults, alpha = beyond_lora(config, FIRST_CONFIG, {}), config["lora_alpha"]
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        faults.append(f"lora_alpha: {alpha!r} is no number")
    names = {name.replace(*pair) for name in tensors for pair in (("lora_A", "lora_B"), ("lora_B", "lora_A"))}
    faults += [f"{name}: missing" for name in sorted(names - tensors.keys())]
    for name, tensor in sorted(tensors.items()):
        if not name.startswith(PREFIX) or not name.endswith((".lora_A.weight", ".lora_B.weight")):
            faults.append(f"{name}: not a tensor of LoRA")
        elif tensor.ndim != 2 or tensor.shape[0 if "lora_A" in name else 1] != config["r"]:
            faults.append(f"{name}: its shape {tuple(tensor.shape)} is not of rank {config['r']}")
        elif not tensor.isfinite().all():
            faults.append(f"{name}: not finite")
    if faults or not tensors:
        raise report(faults or ["no tensors"], f"task_adapter: {path} is no plain LoRA adapter:", most=10)
    return Adapter(tensors, config["r"], alpha / config["r"])


def load_task_adapter(task: dict[str, str], model: nn.Module) -> Adapter:
    """The same, checked to fit a base model. Raises LoraryError."""
    adapter, faults = read_task_adapter(task), []
    linear = {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | FrozenLinear)
    }
    for name in _of_a(adapter):
        A, B = adapter.tensors[name], adapter.tensors[partner(name)]
        layer, shape = layer_of(name), (B.shape[0], A.shape[1])
        if layer not in linear:
            faults.append(f"{layer}: no linear layer of the base model")
        elif linear[layer] != shape:
            faults.append(f"{layer}: the adapter is of shape {shape}, and the base model's layer of {linear[layer]}")
    if faults:
        raise report(faults, f"task_adapter: {task['path']} is not of this base model:", most=10)
    return adapter


@torch.no_grad()
def merge_task_adapter(model: nn.Module, adapter: Adapter) -> None:
    """Add its update, alpha / rank * B A, to the frozen weights, in float32 (or what is more exact), rounded once. To
    be called before anything is attached to the model."""
    for name in _of_a(adapter):
        layer = model.get_submodule(layer_of(name))
        weight = cast(Tensor, layer.weight)
        exact = torch.promote_types(weight.dtype, torch.float32)
        A, B = (adapter.tensors[tensor].to(weight.device, exact) for tensor in (name, partner(name)))
        merged = torch.addmm(weight.to(exact), B, A, alpha=adapter.scale).to(weight.dtype)
        layer.weight = nn.Parameter(merged, requires_grad=False)  # a new one: the head's may be the embedding's too


def _of_a(adapter: Adapter) -> list[str]:
    return sorted(name for name in adapter.tensors if ".lora_A." in name)
