"""What a job with a GPU asks a cluster for: generous estimates. A job that they fail all the same has lost nothing, and
its next attempt asks for more and does the rest."""

import errno
import math
import os
from dataclasses import dataclass
from pathlib import Path

# FLOP a second in use on a GPU some years old; a newer one is done long before its limit.
RATE = {"float32": 5e12, "tf32": 20e12, "bfloat16": 30e12}
TOKENS = 1250  # of a passage's sequences together, as in the reference's data
SLOWEST_START = 10  # minutes, for imports and the base model from a busy file system
LEAST_SECONDS = 1  # a passage, however small the model


@dataclass(frozen=True)
class Resources:
    """Of a job that trains so many passages, or does work that takes no longer."""

    passages: int
    epochs: int
    precision: str

    def memory_mb(self, model: str, attempt: int) -> int:
        """Megabytes of the host's memory: torch, its GPU libraries, and the base model twice while it is loaded."""
        return attempt * (6000 + 2 * _weights(model) // 10**6)

    def minutes(self, model: str, attempt: int) -> int:
        """Minutes that it takes on a slow GPU."""
        parameters = _weights(model) / 2  # two bytes each, as models come; four would be counted double
        seconds = max(LEAST_SECONDS, 4 * parameters * TOKENS * self.epochs / RATE[self.precision])
        return attempt * (SLOWEST_START + math.ceil(self.passages * seconds / 60))


# A passage's requests: its prompts, and of each pair, two tries among them, what is asked and written.
PROMPT_TOKENS, PAIR_TOKENS = 1500, 1000
SERVER_SECONDS = 20  # a passage, whatever else the server does


@dataclass(frozen=True)
class AugmentResources:
    """Of a job that augments so many passages, with a model here (`precision`) or at a server (None)."""

    passages: int
    pairs: int
    precision: str | None

    def memory_mb(self, model: str, attempt: int) -> int:
        """Megabytes of the host's memory."""
        return attempt * (4000 + (2000 + 2 * _weights(model) // 10**6 if model else 0))

    def minutes(self, model: str, attempt: int) -> int:
        """Minutes that it takes on a slow GPU."""
        seconds = float(SERVER_SECONDS)
        if self.precision:
            tokens = PROMPT_TOKENS + self.pairs * PAIR_TOKENS
            seconds = max(LEAST_SECONDS, 2 * _weights(model) / 2 * tokens / RATE[self.precision])
        return attempt * (SLOWEST_START + math.ceil(self.passages * seconds / 60))


def _weights(model: str) -> int:
    """Bytes of a base model's weights."""
    links = list(Path(model).glob("*.safetensors"))
    if not links:  # not fetched yet: Snakemake asks again then
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), model)
    return sum(path.stat().st_size for path in links if path.exists())
