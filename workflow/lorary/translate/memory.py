"""A translator that makes each passage an associative memory of its tokens, in the layers that its adapter changes.

The update of a layer is the sum over the passage's tokens of gate * value key^T, brought to the adapter's rank. Its key
is what the layer itself read at the token when the base model read the passage, so that the layer meets it again where
a question brings the model into a like state; its value is the output embedding of the token after it, so that the
model then says that. Both have a generated part, and the gate is generated: these are learnt. As it begins, nothing
learnt, it already knows something of its passage.

Sums of outer products as memory: Kohonen (1972); of a passage's states, as an adapter: Generative Adapter (arXiv
2411.05877). What all passages share is an adapter beside, learnt with it, and counted once: Doc-to-LoRA (arXiv
2602.15902).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..adapters.files import layer_of
from ..adapters.rows import Rows, is_b, partner

AROUND = 2  # tokens to either side that a token is seen with
AHEAD = 3  # tokens whose embedding can be the value: its own, the next, and the one after it
GAIN = 0.2  # of a memory as it begins, against what the layer says anyway
EPS = 1e-6


class Memory(nn.Module):
    state_mean: Tensor
    state_deviation: Tensor

    def __init__(
        self,
        base_weight: dict[str, Tensor],
        depths: int,
        width: int,
        hidden: int,
        scale: float,
        spared: Sequence[int] = (),
    ):
        """`depths`, `width`: of the states; `hidden`: the width in which a token is seen; `scale`: alpha / rank;
        `spared`: how many directions of what each layer reads no adapter is to read, of no layer where it is empty."""
        super().__init__()
        self.rows, self.width, self.scale = Rows.of(base_weight), width, scale
        sizes = dict(zip(self.rows.names, self.rows.shapes, strict=True))
        self.targets = [name for name in self.rows.names if not is_b(name)]
        self.shapes = [(*sizes[name], sizes[partner(name)][1]) for name in self.targets]  # rank, in, out
        layers = len(self.targets)
        self.read = nn.Parameter(torch.randn(depths * width, hidden) * (depths * width) ** -0.5)
        self.read_bias = nn.Parameter(torch.zeros(hidden))
        self.around = nn.Parameter(torch.randn(2 * AROUND + 1, hidden, hidden) * ((2 * AROUND + 1) * hidden) ** -0.5)
        self.mix = nn.Parameter(torch.randn(hidden, hidden) * hidden**-0.5)
        self.gate = nn.Parameter(torch.zeros(hidden, layers))
        self.gate_bias = nn.Parameter(torch.full((layers,), 0.5413))  # softplus of it is 1
        self.ahead = nn.Parameter(torch.eye(AHEAD)[1].repeat(layers, 1))  # the next one
        self.key = nn.ParameterList(torch.zeros(hidden, reads) for _, reads, _ in self.shapes)
        self.key_weight = nn.ParameterList(torch.ones(reads) for _, reads, _ in self.shapes)
        self.value = nn.ParameterList(torch.zeros(hidden, writes) for *_, writes in self.shapes)
        self.shared_A = nn.ParameterList(torch.randn(r, reads) * reads**-0.5 for r, reads, _ in self.shapes)
        self.shared_B = nn.ParameterList(torch.zeros(r, writes) for r, _, writes in self.shapes)
        # Measured as training begins: of the states, and of what each layer reads, mean and deviation; and how large
        # is what it writes.
        self.register_buffer("state_mean", torch.zeros(depths, width))
        self.register_buffer("state_deviation", torch.ones(depths, 1))
        for k, (_, reads, _) in enumerate(self.shapes):
            self.register_buffer(f"mean_{k}", torch.zeros(reads))
            self.register_buffer(f"deviation_{k}", torch.ones(reads))
            self.register_buffer(f"size_{k}", torch.ones(()))
            if spared:
                self.register_buffer(f"spared_{k}", torch.zeros(reads, spared[k]))  # orthonormal columns

    def spare(self, directions: Sequence[np.ndarray]) -> None:
        """Of each layer orthonormal columns (in, directions)."""
        for k, each in enumerate(directions):
            getattr(self, f"spared_{k}").copy_(torch.from_numpy(each))

    @torch.no_grad()
    def measure(self, passages: list[dict[str, np.ndarray]]) -> None:
        """Of the tokens of some passages, but for the first ones, which are like no others. Where there are hardly any,
        all stays as if they were normal."""

        def all_of(name: str) -> Tensor:
            return torch.from_numpy(np.concatenate([passage[name][1:] for passage in passages])).to(self.read)

        states = all_of("states")
        if len(states) < 2:
            return
        self.state_mean.copy_(states.mean(0))
        self.state_deviation.copy_((states - self.state_mean).square().mean((0, 2)).sqrt()[:, None] + EPS)
        for k, layer in enumerate(map(layer_of, self.targets)):
            reads, (mean, deviation, size) = all_of(f"reads.{layer}"), self._measured(k)
            mean.copy_(reads.mean(0))
            deviation.copy_(reads.std(0) + 1e-3)
            size.copy_(all_of(f"writes.{layer}").square().mean().sqrt())

    def _measured(self, k: int) -> list[Tensor]:
        return [getattr(self, f"{what}_{k}") for what in ("mean", "deviation", "size")]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Of n passages states (n, T, depths, C), what each layer reads (reads.<layer>: n, T, in), the output
        embeddings of their tokens (words: n, T, C), and which are there (n, T) -> (n, D)"""
        there = batch["there"][..., None].to(self.read)  # (n, T, 1)
        there = F.pad(there[:, 1:], (0, 0, 1, 0))
        h = self._seen(batch["states"], there)  # (n, T, hidden)
        gates = F.softplus(h @ self.gate + self.gate_bias) * there  # (n, T, layers)
        words = batch["words"].to(there)
        following = [F.pad(words, (0, 0, 0, k))[:, k:] for k in range(AHEAD)]
        made: dict[str, Tensor] = {}
        for k, (name, (rank, reads, writes)) in enumerate(zip(self.targets, self.shapes, strict=True)):
            mean, deviation, size = self._measured(k)
            z = (batch[f"reads.{layer_of(name)}"].to(there) - mean) / deviation
            z = z / z.norm(dim=-1, keepdim=True).clamp_min(EPS) * self.key_weight[k]
            # What a question has there is met by this, and is about sqrt(reads) long.
            keys = (z + h @ self.key[k] * (3 / reads**0.5)) * there
            keys = keys - self._read_of_spared(k, keys / deviation) * deviation
            values = h @ self.value[k] * 0.1
            if writes == self.width:  # into the residual stream, where words are known
                values = values + sum(part * word for part, word in zip(self.ahead[k], following, strict=True))
            values = values * gates[..., k, None] * (GAIN * size)
            keys, values = to_rank(keys, values, rank)
            made[name], made[partner(name)] = keys / (deviation * (reads**0.5 * self.scale)), values
        return torch.cat([made[name].flatten(1) for name in self.rows.names], dim=1)

    def _seen(self, states: Tensor, there: Tensor) -> Tensor:
        """Each token with those around it."""
        normal = ((states.to(there) - self.state_mean) / self.state_deviation).clamp(-10, 10)
        h = F.gelu(normal.flatten(2) @ self.read + self.read_bias) * there
        padded, T = F.pad(h, (0, 0, AROUND, AROUND)), h.shape[1]
        around: Any = sum(padded[:, k : k + T] @ part for k, part in enumerate(self.around))
        return F.layer_norm(h + F.gelu(around) @ self.mix, h.shape[-1:])

    def _read_of_spared(self, k: int, rows: Tensor) -> Tensor | float:
        """The part of rows of an A (..., in) that lies in the directions which they are not to read."""
        spared = getattr(self, f"spared_{k}", None)
        return 0.0 if spared is None else (rows @ spared) @ spared.mT

    def shared(self) -> Tensor:
        """What all passages share, an adapter (D,)."""
        made: dict[str, Tensor] = {}
        for k, name in enumerate(self.targets):
            _, deviation, size = self._measured(k)
            A = self.shared_A[k] * (4 / (deviation.norm() * self.scale))
            made[name] = A - self._read_of_spared(k, A)
            made[partner(name)] = self.shared_B[k] * (0.8 * size)
        return torch.cat([made[name].flatten() for name in self.rows.names])


def to_rank(keys: Tensor, values: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """keys (n, T, in), values (n, T, out) -> the same of `rank` rows, whose outer products sum up to the best
    approximation of that rank. The gradient takes it as given which directions of the keys these are."""
    if (T := keys.shape[1]) <= rank:
        keys, values = (F.pad(x, (0, 0, 0, rank - T)) for x in (keys, values))
        return keys, values
    with torch.no_grad():
        k, v = (x.double() @ x.double().mT for x in (keys, values))  # (n, T, T)
        size, Q = torch.linalg.eigh(k)
        kept, root = size > 1e-10 * size[:, -1:], size.clamp_min(0).sqrt()
        S = Q * root[:, None]
        _, U = torch.linalg.eigh(S.mT @ v @ S)
        mixed = (Q * (kept / root.clamp_min(1e-30))[:, None]) @ U[..., -rank:]  # (n, T, rank)
        directions = mixed.to(keys.dtype).mT @ keys  # (n, rank, in), orthonormal
    return directions, (directions @ keys.mT) @ values
