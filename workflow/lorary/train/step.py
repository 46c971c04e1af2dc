"""What a step is computed from: the batches of its passages as tensors, padded no further than to the longest."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.device import to_device
from ..data.sequences import Example


class Step(NamedTuple):
    """R sequences of n passages, of which N tokens are predicted."""

    ids: Tensor  # (R, T), padded on the right with 0
    token: Tensor  # (N,): where each is predicted from, in ids flattened
    targets: Tensor  # (N,): what it is
    owner: Tensor  # (N,): whose it is, 0 to n - 1
    counts: Tensor  # (n,): how many each passage has
    likeliest: Tensor | None = None  # (N, k): what a teacher finds likeliest there
    logarithms: Tensor | None = None  # (N, k): of its probabilities, float32

    def to(self, device: torch.device) -> "Step":
        there = {name: to_device(tensor, device) for name, tensor in self._asdict().items() if tensor is not None}
        return self._replace(**there)


def pad(batches: list[list[Example]]) -> Step:
    """The step of these batches, a list of examples for each passage, all of the same number of examples."""
    examples = [example for batch in batches for example in batch]
    ids = np.zeros((len(examples), max(map(len, examples))), dtype=np.int64)
    for i, example in enumerate(examples):
        ids[i, : len(example)] = example.ids
    begin = np.array([max(1, example.begin) for example in examples])
    end = np.array([len(example) if example.end is None else min(example.end, len(example)) for example in examples])
    lengths = np.maximum(end - begin, 0)
    row = np.repeat(np.arange(len(examples)), lengths)
    before = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths) + np.repeat(begin - 1, lengths)
    owner = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])[row]
    counts = np.bincount(owner, minlength=len(batches))
    parts = ids, row * ids.shape[1] + before, ids[row, before + 1], owner, counts
    step = Step(*(torch.from_numpy(np.ascontiguousarray(part, dtype=np.int64)) for part in parts))
    said = [example.likeliest for example in examples if example.likeliest is not None]
    if not said:
        return step
    likeliest, logarithms = (torch.from_numpy(np.concatenate(some)) for some in zip(*said, strict=True))
    return step._replace(likeliest=likeliest.long(), logarithms=logarithms)
