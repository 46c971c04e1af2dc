"""Adapters as rows of numbers, as translators give them and stacks take them; and passages as batches for these."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, int]  # of a tensor: (rank, what its layer reads or writes)


@dataclass(frozen=True)
class Layout:
    """How an adapter lies in a row: its tensors in the order of their names, B transposed, as in a stack."""

    names: list[str]
    shapes: list[Shape]

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Layout":
        """Of adapters like this one."""
        names = sorted(tensors)
        shapes = [_transposed(name, tensors[name]).shape for name in names]
        return cls(names, [(rank, dim) for rank, dim in shapes])

    @property
    def sizes(self) -> list[int]:
        return [r * dim for r, dim in self.shapes]

    def flat(self, tensors: dict[str, Tensor]) -> Tensor:
        """An adapter by PEFT's names -> (D,)"""
        return torch.cat([_transposed(name, tensors[name]).flatten() for name in self.names])

    def tensors(self, flat: Tensor) -> dict[str, Tensor]:
        """(D,) -> an adapter by PEFT's names"""
        parts = zip(self.names, self.shapes, flat.split(self.sizes), strict=True)
        return {name: _transposed(name, part.view(shape)) for name, shape, part in parts}

    def mean_squares(self, flat: Tensor) -> Tensor:
        """(n, D) -> (n,): the mean square of each tensor, summed over them."""
        return torch.stack([part.square().mean(-1) for part in flat.split(self.sizes, dim=-1)]).sum(0)

    def joined(self, flat: Tensor, shared: Tensor) -> Tensor:
        """Adapters (n, D), and one that all share (D,) -> adapters of twice the rank (n, 2 D)"""
        own, of_all = (x.split(self.sizes, dim=-1) for x in (flat, shared.expand(len(flat), -1)))
        return torch.cat([part for pair in zip(own, of_all, strict=True) for part in pair], dim=-1)


def twice(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """An adapter of the shapes that `joined` makes."""
    return {name: torch.cat((t, t), dim=1 if is_b(name) else 0) for name, t in tensors.items()}


def stacked(passages: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """What is known of n passages, arrays by name whose rows are tokens (T, ...) -> tensors (n, longest T, ...) in
    float32, zero where a passage has no token; and which are `there` (n, T)."""
    lengths = torch.tensor([len(passage["states"]) for passage in passages])
    longest = int(lengths.max())
    made = {"there": torch.arange(longest) < lengths[:, None]}
    for name, first in passages[0].items():
        padded = np.zeros((len(passages), longest, *first.shape[1:]), dtype=np.float32)
        for row, passage in zip(padded, passages, strict=True):
            row[: len(passage[name])] = passage[name]
        made[name] = torch.from_numpy(padded)
    return made


def is_b(name: str) -> bool:
    return ".lora_B." in name


def _transposed(name: str, tensor: Tensor) -> Tensor:
    return tensor.mT if is_b(name) else tensor
