"""The likeliest tokens after prompts, many rows at a time."""

import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from .attention import Cache
from .decoder import Decoder
from .reading import padded, read

# Rows that are written together at most. A step of more would be no faster a row on a processor.
ROWS_AT_ONCE = {"cpu": 64, "cuda": 512}


@torch.no_grad()
def greedy(model: nn.Module, prompts: list[list[int]], ends: set[int], most: int) -> list[list[int]]:
    """The likeliest tokens of a model without adapters after each prompt, up to an end token (left out) or `most` of
    them, in the order of the prompts. What some begin with is read once. Raises what torch raises."""
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])  # those that begin alike are neighbours
    answers: dict[int, list[int]] = {}
    for rows in batches(model, [len(prompts[i]) + most for i in order]):
        some = order[rows]
        answers |= zip(some, _greedy(model, [prompts[i] for i in some], ends, most), strict=True)
    return [answers[i] for i in range(len(prompts))]


def _greedy(model: nn.Module, prompts: list[list[int]], ends: set[int], most: int) -> list[list[int]]:
    if not isinstance(model, Decoder):
        written = by_transformers(model, prompts, most, eos_token_id=sorted(ends) or None).tolist()
        return [tokens[: next((t for t, token in enumerate(tokens) if token in ends), most)] for tokens in written]
    order, cache, last = read(model, prompts, max(map(len, prompts)) + most)
    answers = decode(model, cache, model.lm_head(last).argmax(-1), ends, most)
    return [answer for _, answer in sorted(zip(order, answers, strict=True))]


def batches(model: nn.Module, rooms: list[int]) -> Iterator[slice]:
    """Slices of rows that are written together, of which each takes so much room in a cache (tokens): on a GPU no more
    than half of what memory the model leaves holds the keys and values of."""
    device = next(model.parameters()).device
    most_rows, most_tokens = ROWS_AT_ONCE.get(device.type, ROWS_AT_ONCE["cuda"]), math.inf
    if device.type == "cuda" and isinstance(model, Decoder):
        _, memory = torch.cuda.mem_get_info(device)
        most_tokens = (memory - torch.cuda.memory_allocated(device)) / 2 / model.cached_bytes()
    start = longest = 0
    for row, room in enumerate(rooms):
        longest = max(longest, room)
        if row > start and (row - start == most_rows or longest * (row + 1 - start) > most_tokens):
            yield slice(start, row)
            start, longest = row, room
    if start < len(rooms):
        yield slice(start, len(rooms))


def decode(
    model: Decoder,
    cache: Cache,
    step: Tensor,
    ends: set[int],
    most: int,
    ended: Callable[[list[int]], bool] = lambda tokens: False,
    leave: Callable[[list[int]], None] = lambda left: None,
) -> list[list[int]]:
    """The tokens of each row of a cache, the first of which are these (B,), up to an end token (left out), `most` of
    them, or where they have `ended`. Of short answers a few are long: when a quarter of the rows have ended, they are
    let go, and `leave` is told which are left."""
    tokens: list[list[int]] = [[] for _ in range(len(step))]
    rows = list(range(len(step)))  # in the cache
    running = set(rows)
    for i in range(most):
        for row, value in zip(rows, step.tolist(), strict=True):
            if row in running and value in ends:
                running.discard(row)
            elif row in running:
                tokens[row].append(value)
                if ended(tokens[row]):
                    running.discard(row)
        if not running or i == most - 1:
            break
        if 4 * len(running) <= 3 * len(rows):
            left = [at for at, row in enumerate(rows) if row in running]
            cache.take(left, cache.room)
            leave(left)
            rows, step = [rows[at] for at in left], step[left]
        step = model.lm_head(model.hidden(step[:, None], cache)[:, 0]).argmax(-1)  # (rows,)
        cache.lengths += 1
    return tokens


def by_transformers(model: nn.Module, prompts: list[list[int]], most: int, **settings: Any) -> Tensor:
    """What transformers has to follow these prompts, no more than `most` tokens (B, T), greedy but for `settings` of
    its own."""
    from transformers import GenerationConfig

    theirs = cast(Any, model)
    theirs.generation_config = GenerationConfig()  # whatever the model's own file says
    ids, lengths = padded([prompt[::-1] for prompt in prompts], theirs.device)
    ids = ids.flip(1)  # padded on the left
    mask = torch.arange(ids.shape[1], device=ids.device).flip(0) < lengths[:, None]
    output = theirs.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        do_sample=False,
        max_new_tokens=most,
        pad_token_id=0,
        **settings,
    )
    return output[:, ids.shape[1] :]
