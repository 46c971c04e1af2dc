"""Several adapters as one: what servers take that activate one adapter a request (PEFT's `cat`, weights 1)."""

import json
import logging
from pathlib import Path

from ..core.errors import LoraryError
from . import files as adapters

log = logging.getLogger(__name__)

PASSAGES = "passages.json"  # beside the merged adapter: which ones it holds


def merge_adapters(directories: list[str], destination: str, mean: bool = False) -> None:
    """Write one adapter whose update is the sum of those of `directories`: their matrices side by side, rank and alpha
    the sums of theirs. Or the `mean` of them: then its scale, alpha / rank, is divided by their number. Raises
    LoraryError where they do not fit together."""
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
        alpha = config["lora_alpha"] / len(read)
        config["lora_alpha"] = int(alpha) if alpha.is_integer() else alpha  # whole, where all have the same rank
    folder = Path(destination)
    adapters.write_adapter(folder, adapters.config_bytes(config), adapters.tensors_bytes(merged))
    (folder / PASSAGES).write_text(json.dumps(directories, indent=2) + "\n", encoding="utf-8")
    log.info("%s: %d adapters, rank %d, alpha %g", destination, len(directories), config["r"], config["lora_alpha"])
