"""Adapters as rows of numbers (D,): their tensors in the order of their names, B transposed, as stacks train them and
translators make them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """How adapters lie in rows that are all alike."""

    names: list[str]
    shapes: list[torch.Size]  # (rank, what the layer reads or writes)

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Rows":
        """Of adapters like this one."""
        names = sorted(tensors)
        return cls(names, [_transposed(name, tensors[name]).shape for name in names])

    @property
    def sizes(self) -> list[int]:
        return [shape.numel() for shape in self.shapes]

    def flat(self, tensors: dict[str, Tensor]) -> Tensor:
        """An adapter by PEFT's names -> (D,)"""
        return torch.cat([_transposed(name, tensors[name]).flatten() for name in self.names])

    def views(self, flat: Tensor) -> list[Tensor]:
        """flat (..., D) -> a view of each tensor (..., *shape)"""
        parts = zip(flat.split(self.sizes, dim=-1), self.shapes, strict=True)
        return [part.unflatten(-1, shape) for part, shape in parts]

    def tensors(self, flat: Tensor) -> dict[str, Tensor]:
        """(D,) -> an adapter by PEFT's names"""
        return {name: _transposed(name, view) for name, view in zip(self.names, self.views(flat), strict=True)}

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


def partner(name: str) -> str:
    """The name of the B that belongs to this A."""
    return name.replace(".lora_A.", ".lora_B.")


def is_b(name: str) -> bool:
    return ".lora_B." in name


def _transposed(name: str, tensor: Tensor) -> Tensor:
    return tensor.mT if is_b(name) else tensor
