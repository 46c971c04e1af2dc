"""Translators: networks from the states of a passage to its adapter.

Each takes the states of n passages and gives their adapters as rows (n, D), laid out as a stack has them: the tensors
in the order of their names, B transposed.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..adapters.files import layer_of
from ..core.errors import damaged

Shape = tuple[int, int]  # of a tensor: (rank, what its layer reads or writes)


@dataclass(frozen=True)
class Layout:
    """How an adapter lies in a row."""

    names: list[str]
    shapes: list[Shape]  # B transposed

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


@dataclass(frozen=True)
class Translator:
    """A network that was trained."""

    network: "Reference | Tokens"
    mean: Tensor  # of what it made of the passages that it was trained with (D,)

    @classmethod
    def load(cls, path: str, base_weight: dict[str, Tensor]) -> "Translator":
        """Of a file, for adapters like this base weight. Raises LoraryError."""
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["about"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            network = make(about["kind"], base_weight, tuple(about["shape"]), about["hidden"], 0)
            mean = tensors.pop("mean")
            network.load_state_dict(tensors)
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
            raise damaged(path, error) from None
        return cls(network.eval().requires_grad_(False), mean)

    def of(self, states: Tensor, there: Tensor) -> dict[str, Tensor]:
        """The adapter of a passage by PEFT's names: its states (1, T, depths, C), there (1, T)."""
        return self.network.layout.tensors(self.network(states, there)[0])

    def common(self) -> dict[str, Tensor]:
        """What passages' own adapters have in common: nothing, where what they share is an adapter beside them."""
        return self.network.layout.tensors(self.mean if self.network.shared is None else torch.zeros_like(self.mean))

    def shared(self) -> dict[str, Tensor]:
        """The adapter that all passages share."""
        assert self.network.shared is not None
        return self.network.layout.tensors(self.network.shared.detach())


def make(kind: str, base_weight: dict[str, Tensor], shape: tuple[int, int], hidden: int, seed: int) -> Any:
    """A network (of NETWORKS) as its training begins, for adapters like this base weight. `shape`: (depths, C) of the
    states; `hidden`: its width."""
    torch.manual_seed(seed)
    return NETWORKS[kind](base_weight, *shape, hidden)


class Reference(nn.Module):
    """DyPRAG's (arXiv 2503.23895): for each tensor a net of its own of two layers without biases,
    W2 relu(W1 [s; layer]), where s is the state of a passage's last token, and the layer a number."""

    layer: Tensor
    shared: Tensor | None = None  # nothing is

    def __init__(self, base_weight: dict[str, Tensor], depths: int, width: int, hidden: int):
        super().__init__()
        self.layout = layout = Layout.of(base_weight)
        self.groups = _alike(layout)
        self.register_buffer("layer", torch.tensor([float(_layer(name)) for name in layout.names]), persistent=False)
        self.W1, self.W2 = nn.ParameterList(), nn.ParameterList()
        for group in self.groups:
            (r, dim), many = layout.shapes[group[0]], len(group)
            self.W1.append(nn.Parameter(1e-7 * torch.randn(many, hidden, depths * width + 1)))
            self.W2.append(nn.Parameter(1e-7 * torch.randn(many, r * dim, hidden)))

    def forward(self, states: Tensor, there: Tensor) -> Tensor:
        """states (n, 1, depths, C), there (n, 1) -> (n, D)"""
        s, made = states[:, 0].flatten(1), [states] * len(self.layout.names)
        for group, W1, W2 in zip(self.groups, self.W1, self.W2, strict=True):
            layer = self.layer[group][:, None, None].expand(-1, len(s), 1)
            read = torch.cat((s.expand(len(group), *s.shape), layer), dim=-1)  # (tensors, n, depths C + 1)
            written = torch.bmm(F.relu(torch.bmm(read, W1.mT)), W2.mT)  # (tensors, n, r dim)
            for place, tensor in zip(group, written, strict=True):
                r, dim = self.layout.shapes[place]
                # its B is (dim, r), as PEFT's is
                made[place] = tensor.view(-1, dim, r).mT.flatten(1) if _is_b(self.layout.names[place]) else tensor
        return torch.cat(made, dim=1)

    def stacked_like(self, base_weight: dict[str, Tensor]) -> dict[str, Tensor]:
        """An adapter of the shapes that are at work."""
        return base_weight

    def at_work(self, flat: Tensor) -> Tensor:
        """Passages' own adapters (n, D) -> what is at work for each (n, D')"""
        return flat


class Tokens(nn.Module):
    """Reads all tokens. For each rank of each layer that adapters change a query looks at them, and what it finds
    becomes a row of A and one of B. What all passages share is an adapter beside, learnt with it.

    After Doc-to-LoRA (arXiv 2602.15902), much smaller.
    """

    HEADS = 8

    def __init__(self, base_weight: dict[str, Tensor], depths: int, width: int, hidden: int):
        super().__init__()
        self.layout = layout = Layout.of(base_weight)
        self.groups = _alike(layout)
        self.layers = [name for name in layout.names if not _is_b(name)]
        (self.rank,) = {r for r, _ in layout.shapes}
        self.read = nn.Linear(depths * width, hidden)
        self.queries = nn.Parameter(torch.randn(len(self.layers), self.rank, hidden))
        self.look = nn.MultiheadAttention(hidden, self.HEADS, batch_first=True)
        self.think = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )
        self.norm = nn.LayerNorm(hidden)
        self.write = nn.ParameterList()  # of each group: what is found -> a row (hidden, dim)
        for group in self.groups:
            _, dim = layout.shapes[group[0]]
            begin = 0.0 if _is_b(layout.names[group[0]]) else dim**-0.5 * hidden**-0.5
            self.write.append(nn.Parameter(begin * torch.randn(hidden, dim)))
        self.shared = nn.Parameter(layout.flat(base_weight))

    def forward(self, states: Tensor, there: Tensor) -> Tensor:
        """states (n, T, depths, C), there (n, T) -> (n, D)"""
        x = self.read(states.flatten(2))  # (n, T, hidden)
        queries = self.queries.flatten(0, 1).expand(len(x), -1, -1)  # (n, layers r, hidden)
        z = queries + self.look(queries, x, x, key_padding_mask=~there, need_weights=False)[0]
        z = self.norm(z + self.think(z)).view(len(x), len(self.layers), self.rank, -1)
        made = [z] * len(self.layout.names)
        number = {layer_of(name): i for i, name in enumerate(self.layers)}
        for group, write in zip(self.groups, self.write, strict=True):
            rows = z[:, [number[layer_of(self.layout.names[place])] for place in group]] @ write
            for place, tensor in zip(group, rows.unbind(1), strict=True):
                made[place] = tensor.flatten(1)
        return torch.cat(made, dim=1)

    def stacked_like(self, base_weight: dict[str, Tensor]) -> dict[str, Tensor]:
        """An adapter of the shapes that are at work: of twice the rank."""
        return {name: torch.cat((t, t), dim=1 if _is_b(name) else 0) for name, t in base_weight.items()}

    def at_work(self, flat: Tensor) -> Tensor:
        """Passages' own adapters (n, D) -> each with what is shared (n, 2 D)"""
        shared = self.shared.expand(len(flat), -1).split(self.layout.sizes, dim=-1)
        own = flat.split(self.layout.sizes, dim=-1)
        return torch.cat([part for pair in zip(own, shared, strict=True) for part in pair], dim=-1)


NETWORKS: dict[str, Any] = {"reference": Reference, "tokens": Tokens}


def stacked(passages: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """States of n passages, (T, depths, C) each -> (n, longest T, depths, C) in float32, and which are there (n, T)."""
    longest = max(map(len, passages))
    states = np.zeros((len(passages), longest, *passages[0].shape[1:]), dtype=np.float32)
    for row, passage in zip(states, passages, strict=True):
        row[: len(passage)] = passage
    lengths = torch.tensor([len(passage) for passage in passages])
    return torch.from_numpy(states), torch.arange(longest) < lengths[:, None]


def _alike(layout: Layout) -> list[list[int]]:
    """The places of the tensors that are computed together: those of one shape and side (A or B)."""
    groups: dict[tuple[bool, Shape], list[int]] = {}
    for place, (name, shape) in enumerate(zip(layout.names, layout.shapes, strict=True)):
        groups.setdefault((_is_b(name), shape), []).append(place)
    return list(groups.values())


def _is_b(name: str) -> bool:
    return ".lora_B." in name


def _layer(name: str) -> int:
    """Which layer of the model a tensor is of; 0 where its name has no number."""
    numbers = re.findall(r"\.(\d+)\.", name)
    return int(numbers[0]) if numbers else 0


def _transposed(name: str, tensor: Tensor) -> Tensor:
    return tensor.mT if _is_b(name) else tensor
