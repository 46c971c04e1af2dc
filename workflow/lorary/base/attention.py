"""Causal attention. On a processor short sequences have an own form, whose gradient is 1.2 (float32) to 4 (bfloat16)
times as fast as that of torch's kernel; everything else is torch's."""

import math
from copy import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.private import softmax_backward

SHORT = 512  # tokens: ShortAttention keeps heads x tokens x tokens


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B, heads, T, D), k and v (B, groups, T, D) -> (B, heads, T, D); each group of heads shares a k and a v."""
    if q.device.type == "cpu" and q.shape[2] <= SHORT:
        return ShortAttention.apply(q, k, v)
    if not takes_groups(q):
        k, v = spread(k, q.shape[1]), spread(v, q.shape[1])
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


def takes_groups(x: Tensor) -> bool:
    """Whether torch has a fused attention of grouped heads for such tensors. In float32 on a GPU it has none, and would
    keep tokens x tokens scores of each head: for 3,000 tokens and 32 heads more than 1 GB a layer, several times."""
    return x.device.type == "cpu" or x.dtype != torch.float32


def spread(x: Tensor, heads: int) -> Tensor:
    """x (B, groups, T, D) -> (B, heads, T, D): each group's for each of its heads."""
    return x.unsqueeze(2).expand(-1, -1, heads // x.shape[1], -1, -1).flatten(1, 2)


class Cache:
    """Keys and values of a batch of rows, layer by layer. A pass brings tokens of each row, padded on the right, that
    follow what the row has so far."""

    def __init__(self, layers: int, shape: tuple[int, int, int, int], like: Tensor):
        """Room for `shape` (B, groups, tokens, D) in each layer, in the type and on the device of `like`."""
        self.keys, self.values = ([like.new_zeros(shape) for _ in range(layers)] for _ in range(2))
        self.lengths = np.zeros(shape[0], dtype=np.int64)  # tokens so far; whoever brings some adds how many count
        self.places: Tensor | None = None  # (B, T): of the tokens that a pass brings; None: they are the first ones
        self.seen: Tensor | None = None  # (B, 1, T, tokens): which keys each of them sees; None: those up to itself

    @property
    def room(self) -> int:
        return self.keys[0].shape[2]

    def part(self, rows: slice) -> "Cache":
        """Some rows of it, in the same memory."""
        part = copy(self)
        part.keys, part.values = [k[rows] for k in self.keys], [v[rows] for v in self.values]
        part.lengths = self.lengths[rows]
        return part

    def take(self, rows: list[int], room: int) -> None:
        """From now on these rows, whichever and how often, with room for so many tokens each."""
        self.lengths = self.lengths[rows]
        index = torch.tensor(rows, device=self.keys[0].device)
        kept = min(room, self.room)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):  # one after the other is let go
                tensors[layer] = old.new_zeros(len(rows), old.shape[1], room, old.shape[3])
                tensors[layer][:, :, :kept] = old[index, :, :kept]

    def next(self, width: int) -> Tensor | None:
        """So many tokens of each row come next. Returns their places (B, T); None where they are the first ones."""
        longest = int(self.lengths.max())
        self.places = self.seen = None
        if longest:
            device = self.keys[0].device
            begin = torch.from_numpy(self.lengths).to(device)
            self.places = begin[:, None] + torch.arange(width, device=device)
            self.seen = (torch.arange(longest + width, device=device) <= self.places[:, :, None])[:, None]
        return self.places

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `attend`, with the keys and values that are kept, and keeping these."""
        keys, values = self.keys[layer], self.values[layer]
        if self.places is None or self.seen is None:
            keys[:, :, : k.shape[2]], values[:, :, : v.shape[2]] = k, v
            return attend(q, k, v)
        every = torch.arange(len(keys), device=keys.device)[:, None]
        keys[every, :, self.places], values[every, :, self.places] = k.transpose(1, 2), v.transpose(1, 2)
        longest, groups = self.seen.shape[-1], keys.shape[1]
        heads = q.unflatten(1, (groups, -1)).flatten(2, 3)  # (B, groups, heads of a group x T, D)
        seen = self.seen.repeat(1, 1, q.shape[1] // groups, 1) if q.shape[2] > 1 else self.seen
        y = F.scaled_dot_product_attention(heads, keys[:, :, :longest], values[:, :, :longest], attn_mask=seen)
        return y.view(q.shape)


class ShortAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(D)) v with the probabilities kept, the heads of a group as rows of one matrix."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, length, width = q.shape
        rows = batch * k.shape[1]  # G
        q = q.reshape(rows, -1, width)  # (G, heads of a group x T, D)
        k, v = k.reshape(rows, length, width), v.reshape(rows, length, width)  # (G, T, D)
        scores = torch.bmm(q, k.mT).view(-1, length, length)
        ahead = scores.new_full((length, length), -math.inf).triu_(1)
        p = torch.softmax(scores.mul_(width**-0.5).add_(ahead), dim=-1).view(rows, -1, length)
        ctx.save_for_backward(q, k, v, p)
        return torch.bmm(p, v).view(batch, heads, length, width)

    @staticmethod
    def backward(ctx, dy: Tensor):
        q, k, v, p = ctx.saved_tensors
        batch, _, length, width = dy.shape
        dy = dy.reshape(q.shape)
        dp = torch.bmm(dy, v.mT)
        d_scores = softmax_backward(dp, p).mul_(width**-0.5)
        dq, dk, dv = torch.bmm(d_scores, k), torch.bmm(d_scores.mT, q), torch.bmm(p.mT, dy)
        return tuple(d.view(batch, -1, length, width) for d in (dq, dk, dv))
