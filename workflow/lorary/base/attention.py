"""Causal attention. On a processor short sequences have an own form, whose gradient is 1.2 (float32) to 4 (bfloat16)
times as fast as that of torch's kernel; everything else is torch's."""

import math

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
    """Keys and values of a batch of rows, layer by layer: first the prompts, some rows at a time, padded on the right;
    then a token a row, each row at its own length."""

    def __init__(self, layers: int, shape: tuple[int, int, int, int], like: Tensor):
        """Room for `shape` (B, groups, tokens, D) in each layer, in the type and on the device of `like`."""
        self.keys, self.values = ([like.new_zeros(shape) for _ in range(layers)] for _ in range(2))
        self.lengths = torch.zeros(shape[0], dtype=torch.long, device=like.device)  # tokens so far
        self.longest = 0  # of them, known without asking the device
        self.room = shape[2]
        self.rows = slice(0)  # whose prompt is being read
        self.seen: Tensor | None = None  # (B, 1, 1, tokens): which keys each row sees, once all prompts are read

    @property
    def filled(self) -> bool:
        """All prompts are read."""
        return self.seen is not None

    def begin(self, rows: slice, lengths: Tensor, longest: int) -> None:
        """The prompts of these rows come next, of these lengths."""
        self.rows, self.longest = rows, max(self.longest, longest)
        self.lengths[rows] = lengths

    def next(self) -> None:
        """A token of each row comes next."""
        self.longest += 1
        places = torch.arange(self.longest, device=self.lengths.device)
        self.seen = (places <= self.lengths[:, None])[:, None, None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `attend`, keeping k and v; with those that are kept, once all prompts are read."""
        keys, values = self.keys[layer], self.values[layer]
        if self.seen is None:
            keys[self.rows, :, : k.shape[2]], values[self.rows, :, : v.shape[2]] = k, v
            return attend(q, k, v)
        every = torch.arange(len(keys), device=keys.device)
        keys[every, :, self.lengths], values[every, :, self.lengths] = k[:, :, 0], v[:, :, 0]
        longest = self.seen.shape[-1]
        heads = q.unflatten(1, (keys.shape[1], -1))[:, :, :, 0]  # (B, groups, heads of a group, D)
        y = F.scaled_dot_product_attention(heads, keys[:, :, :longest], values[:, :, :longest], attn_mask=self.seen)
        return y.flatten(1, 2).unsqueeze(2)


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
