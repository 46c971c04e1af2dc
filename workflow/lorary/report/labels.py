"""What the lines of scores.tsv are called."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..plan.run import IN_NAMES

KEYS = ["model_name", "lora_rank", "lora_alpha", "learning_rate", "num_train_epochs", "with_cot", "augment_model"]
KEYS += [*IN_NAMES, "adapter_dir"]


def labels(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of the run and type of each line: dataset and type, and what differs between the runs."""
    differing = [key for key in KEYS if len({line.get(key) for line in lines}) > 1]  # get: of before there was it
    return [
        ", ".join([f"{line['dataset']} {line['type']}", *(f"{key}={line[key]}" for key in differing)]) for line in lines
    ]
