"""Translators: networks from what the base model holds of a passage to its adapter."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..adapters.rows import Rows, is_b
from ..core.errors import damaged
from .memory import Memory


@dataclass(frozen=True)
class Translator:
    """A network that was trained."""

    network: "Reference | Memory"
    mean: Tensor  # of what it made of the passages that it was trained with (D,)

    @classmethod
    def load(cls, path: str, base_weight: dict[str, Tensor]) -> "Translator":
        """Of a file, for adapters like this base weight. Raises LoraryError."""
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["about"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            mean = tensors.pop("mean")
            network = make(**about, base_weight=base_weight, seed=0)
            network.load_state_dict(tensors)
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
            raise damaged(path, error) from None
        return cls(network.eval().requires_grad_(False), mean)

    def of(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The adapter of a passage, which is a batch of its own, by PEFT's names."""
        return self.network.rows.tensors(self.network(batch)[0])

    def common(self) -> dict[str, Tensor]:
        """What passages' own adapters have in common: nothing, where what they share is an adapter beside them."""
        nothing_own = self.network.shared() is not None
        return self.network.rows.tensors(torch.zeros_like(self.mean) if nothing_own else self.mean)

    def shared(self) -> dict[str, Tensor]:
        """The adapter that all passages share, of a kind that has one."""
        shared = self.network.shared()
        assert shared is not None
        return self.network.rows.tensors(shared.detach())


def make(
    kind: str,
    base_weight: dict[str, Tensor],
    shape: list[int],
    hidden: int,
    scale: float,
    seed: int,
    spared: Sequence[int] = (),
) -> Any:
    """A network (of NETWORKS) as its training begins, for adapters like this base weight, of this `scale` (alpha /
    rank). `shape`: (depths, C) of the states; `hidden`: its width; `spared`: directions of each layer that a memory is
    to spare."""
    torch.manual_seed(seed)
    return NETWORKS[kind](base_weight, *shape, hidden, scale, **({"spared": spared} if spared else {}))


class Reference(nn.Module):
    """DyPRAG's (arXiv 2503.23895): for each tensor a net of its own of two layers without biases,
    W2 relu(W1 [s; layer]), where s is the state of a passage's last token, and the layer a number."""

    layer: Tensor

    def __init__(self, base_weight: dict[str, Tensor], depths: int, width: int, hidden: int, scale: float):
        super().__init__()
        self.rows = rows = Rows.of(base_weight)
        self.groups = _alike(rows)
        self.register_buffer("layer", torch.tensor([float(_layer(name)) for name in rows.names]), persistent=False)
        self.W1, self.W2 = nn.ParameterList(), nn.ParameterList()
        for group in self.groups:
            (r, dim), many = rows.shapes[group[0]], len(group)
            self.W1.append(nn.Parameter(1e-7 * torch.randn(many, hidden, depths * width + 1)))
            self.W2.append(nn.Parameter(1e-7 * torch.randn(many, r * dim, hidden)))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Of n passages one state each, states (n, 1, depths, C) -> (n, D)"""
        s = batch["states"][:, 0].flatten(1).to(self.layer)
        made = [s] * len(self.rows.names)
        for group, W1, W2 in zip(self.groups, self.W1, self.W2, strict=True):
            layer = self.layer[group][:, None, None].expand(-1, len(s), 1)
            read = torch.cat((s.expand(len(group), *s.shape), layer), dim=-1)  # (tensors, n, depths C + 1)
            written = torch.bmm(F.relu(torch.bmm(read, W1.mT)), W2.mT)  # (tensors, n, r dim)
            for place, tensor in zip(group, written, strict=True):
                r, dim = self.rows.shapes[place]
                # its B is (dim, r), as PEFT's is
                made[place] = tensor.view(-1, dim, r).mT.flatten(1) if is_b(self.rows.names[place]) else tensor
        return torch.cat(made, dim=1)

    def shared(self) -> None:
        """Passages share nothing beside what each has in its own."""


NETWORKS: dict[str, Any] = {"reference": Reference, "memory": Memory}


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


def _alike(rows: Rows) -> list[list[int]]:
    """The places of the tensors that are computed together: those of one shape and side (A or B)."""
    groups: dict[tuple[bool, torch.Size], list[int]] = {}
    for place, (name, shape) in enumerate(zip(rows.names, rows.shapes, strict=True)):
        groups.setdefault((is_b(name), shape), []).append(place)
    return list(groups.values())


def _layer(name: str) -> int:
    """Which layer of the model a tensor is of; 0 where its name has no number."""
    numbers = re.findall(r"\.(\d+)\.", name)
    return int(numbers[0]) if numbers else 0
