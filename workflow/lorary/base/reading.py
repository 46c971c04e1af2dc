"""Prompts read into a cache: some at a time, and once what several of them begin with."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .attention import Cache
from .decoder import Decoder

# Tokens that are read together, padding among them: enough to keep a device busy.
AT_ONCE = {"cpu": 1024, "cuda": 16384}
# A beginning of fewer tokens is read with each prompt: the same for all prompts of a template, it would save little.
SHORTEST = 32


def read(model: Decoder, prompts: list[list[int]], most: int) -> tuple[list[int], Cache, Tensor]:
    """Read prompts, of which rows of no more than `most` tokens are to be made. What some begin with is read once.

    Returns their positions in the order of the rows, the cache, and the hidden state of each row's last token (B, C).
    """
    order, cache, rests = _begun(model, prompts, prompts, most)
    return order, cache, fill(model, cache, rests)


def ends(model: Decoder, sequences: list[tuple[list[int], int]]) -> list[Tensor]:
    """Of each sequence (ids, and where its end begins, which is not at 0), the hidden states that the tokens of its end
    are predicted from (len(ids) - begin, C). What some begin with is read once."""
    prompts = [ids[:begin] for ids, begin in sequences]
    order, cache, rests = _begun(model, prompts, [ids[:-1] for ids, _ in sequences], 0)
    states: dict[int, Tensor] = {}
    for rows in groups(rests, cache.keys[0].device):
        ids, _ = padded(rests[rows], cache.keys[0].device)
        for i, rest, hidden in zip(order[rows], rests[rows], model.hidden(ids, cache.part(rows)), strict=True):
            whole, begin = sequences[i]
            states[i] = hidden[len(rest) - (len(whole) - begin) : len(rest)]
    return [states[i] for i in range(len(sequences))]


def _begun(
    model: Decoder, prompts: list[list[int]], sequences: list[list[int]], most: int
) -> tuple[list[int], Cache, list[list[int]]]:
    """Read what some of these sequences begin with, of their prompts at most, into a cache with rows of `most` tokens
    and all that it takes. Returns their positions in the order of its rows, the cache, and the rest of each row."""
    beginnings, whose = shared(prompts)
    rests = [ids[len(beginnings[i]) :] for ids, i in zip(sequences, whose, strict=True)]
    order = sorted(range(len(sequences)), key=lambda i: len(rests[i]))
    room = max(most, max(map(len, beginnings)) + len(rests[order[-1]]))  # where padding is put, too
    cache = empty(model, len(beginnings), max(map(len, beginnings)) or room)
    if len(beginnings) > 1:
        fill(model, cache.part(slice(1, None)), beginnings[1:])
    cache.take([whose[i] for i in order], room)
    return order, cache, [rests[i] for i in order]


def shared(prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """The beginnings that several prompts share, sorted by length, so that the fewest tokens are read; the first is
    empty. And for each prompt the position of its own. Every prompt has a token after it."""
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])  # those that begin alike are neighbours
    common = [_common(prompts[i], prompts[j]) for i, j in pairwise(order)]
    # of the first prompts, 0, 1, 2, ...: the tokens saved; and the last group, where it begins and what it shares
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for end in range(1, len(order) + 1):
        best.append((best[end - 1][0], end - 1, 0))
        length = len(prompts[order[end - 1]])
        for begin in range(end - 2, -1, -1):
            length = min(length, common[begin])
            if length < SHORTEST:
                break
            best[end] = max(best[end], (best[begin][0] + (end - 1 - begin) * length, begin, length))
    groups, end = [], len(order)
    while end:
        _, begin, length = best[end]
        if length:
            groups.append((prompts[order[begin]][:length], order[begin:end]))
        end = begin
    groups.sort(key=lambda group: len(group[0]))
    whose = dict.fromkeys(range(len(prompts)), 0)
    for i, (_, members) in enumerate(groups, start=1):
        whose |= dict.fromkeys(members, i)
    return [[], *(beginning for beginning, _ in groups)], list(whose.values())


def _common(a: list[int], b: list[int]) -> int:
    """How many tokens both begin with, but the last."""
    most = min(len(a), len(b)) - 1
    return next((i for i, (x, y) in enumerate(zip(a[:most], b, strict=False)) if x != y), most)


def empty(model: Decoder, rows: int, room: int) -> Cache:
    first = model.model.layers[0].self_attn
    return Cache(len(model.model.layers), (rows, first.groups, room, first.head_dim), model.model.norm.weight)


def fill(
    model: Decoder, cache: Cache, sequences: list[list[int]], select: Callable[[slice], None] = lambda rows: None
) -> Tensor:
    """Read what comes next of each row, sorted by length; `select` is told which rows, before they are read. Returns
    the hidden state of the last token of each (B, C)."""
    last = []
    for rows in groups(sequences, cache.keys[0].device):
        select(rows)
        ids, lengths = padded(sequences[rows], cache.keys[0].device)
        part = cache.part(rows)
        last.append(model.hidden(ids, part)[torch.arange(len(ids), device=ids.device), lengths - 1])
        part.lengths += [len(sequence) for sequence in sequences[rows]]
    return torch.cat(last)


def groups(sequences: list[list[int]], device: torch.device) -> Iterator[slice]:
    """Slices of sequences that are read together, which are sorted by their length."""
    most = AT_ONCE.get(device.type, AT_ONCE["cuda"])
    start = 0
    while start < len(sequences):
        stop = start + 1
        while stop < len(sequences) and (stop + 1 - start) * len(sequences[stop]) <= most:
            stop += 1
        yield slice(start, stop)
        start = stop


def padded(sequences: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """ids (B, T), padded on the right with 0, and the lengths (B,)"""
    ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    lengths = [len(sequence) for sequence in sequences]
    return torch.from_numpy(ids).to(device), torch.tensor(lengths, device=device)
