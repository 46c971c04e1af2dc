"""Several adapters as one: what servers take that activate one adapter a request (PEFT's `cat`, weights 1)."""

import json
import logging
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError
from . import files as adapters
from .digest import digested

log = logging.getLogger(__name__)

PASSAGES = "passages.json"  # beside the merged adapter: which ones it holds
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what its --max-lora-rank may be: any rank up to it is taken


def merge_adapters(
    directories: list[str], destination: str, mean: bool = False, task_adapter: dict[str, str] | None = None
) -> None:
    """Write one adapter whose update is the sum of those of `directories`: their matrices side by side, rank and alpha
    the sums of theirs. Or the `mean` of them: then its scale, alpha / rank, is divided by their number. A
    `task_adapter` (its `path`, and `sha256` where that was known before) is added once to either, its own scale in its
    B. Raises LoraryError where they do not fit together."""
    import torch

    read = [adapters.read_adapter(directory) for directory in directories]
    config, first = read[0]
    for directory, (other, tensors) in zip(directories, read, strict=True):
        if other["lora_alpha"] * config["r"] != config["lora_alpha"] * other["r"] or tensors.keys() != first.keys():
            raise LoraryError(f"{directory} does not go with {directories[0]}: another scale, or other layers.")
    merged = {
        name: torch.cat([tensors[name] for _, tensors in read], dim=0 if ".lora_A." in name else 1) for name in first
    }
    config = {**config, **{key: sum(other[key] for other, _ in read) for key in ("r", "lora_alpha")}}
    if mean:
        config["lora_alpha"] = _whole(config["lora_alpha"] / len(read))  # where all have the same rank
    held = directories
    if task_adapter:
        config, merged = _over(task_adapter, config, merged)
        held = [*directories, task_adapter["path"]]
    folder = Path(destination)
    adapters.write_adapter(folder, adapters.config_bytes(config), adapters.tensors_bytes(merged))
    (folder / PASSAGES).write_text(json.dumps(held, indent=2) + "\n", encoding="utf-8")
    log.info("%s: %d adapters, rank %d, alpha %g", destination, len(held), config["r"], config["lora_alpha"])
    limit = next((rank for rank in VLLM_RANKS if rank >= config["r"]), None)
    if limit:
        log.info("vLLM takes it with --max-lora-rank %d", limit)
    else:
        log.warning("vLLM takes no adapter of a rank above %d: export fewer passages at once", VLLM_RANKS[-1])


def _over(task_adapter: dict[str, str], config: dict[str, Any], tensors: dict) -> tuple[dict[str, Any], dict]:
    """Config and tensors of an adapter, with a task adapter beside it: PEFT has one scale for both, which is this
    adapter's, so what the task adapter's differs by goes into its B. Layers that only one of them changes get zeros."""
    import torch

    from .task import read_task_adapter

    task, scale = read_task_adapter(digested(task_adapter)), config["lora_alpha"] / config["r"]
    merged = {}
    for name in tensors.keys() | task.tensors.keys():
        dim, factor = (0, 1.0) if ".lora_A." in name else (1, task.scale / scale)
        some = tensors[name] if name in tensors else task.tensors[name]
        parts = []
        for of, rank in ((tensors, config["r"]), (task.tensors, task.rank)):
            shape = (rank, some.shape[1]) if dim == 0 else (some.shape[0], rank)
            parts.append(of[name] if name in of else torch.zeros(shape))
        merged[name] = torch.cat([parts[0], parts[1] * factor], dim=dim)
    rank = config["r"] + task.rank
    config = {**config, "r": rank, "lora_alpha": _whole(scale * rank)}
    if tensors.keys() != merged.keys():  # then they are named one by one
        config["target_modules"] = sorted(adapters.layer_of(name) for name in merged if ".lora_A." in name)
    return config, merged


def _whole(alpha: float) -> int | float:
    return int(alpha) if alpha == int(alpha) else alpha
