"""Answers of the base model with adapters: many questions at a time, each row of a batch with a set of its own."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ..adapters.lora import Active, Adapter
from ..adapters.task import load_task_adapter
from ..base import decoder
from ..base.fetch import end_tokens
from ..base.frozen import FrozenLinear
from ..base.greedy import by_transformers, decode
from ..base.reading import empty, fill, groups, padded
from ..plan.methods import MEAN, MIXTURE


class Answerer:
    """A base model and the adapters at work on it."""

    def __init__(
        self,
        model: str,
        precision: str,
        device: torch.device,
        adapter_names: list[str],
        task_adapter: dict[str, str] | None = None,
    ):
        """`adapter_names`: of an adapter's tensors; none where it is to answer without. `task_adapter`: what lies under
        every adapter, its `path` and `sha256`. Raises LoraryError."""
        self.model = decoder.load(model, precision, device)
        self.task = load_task_adapter(task_adapter, self.model) if task_adapter else None
        self.active = Active(self.model, adapter_names, self.task)
        decoder.prepare(self.model)
        self.device = device
        self.ends = end_tokens(model)

    def generate(self, prompts: list[list[int]], sets: list[list[Adapter]], max_new_tokens: int) -> list[list[int]]:
        """Greedy: the likeliest tokens that follow each prompt, up to an end token (left out) or `max_new_tokens`.

        `sets`: for each prompt, the adapters that are active together. Raises what torch raises, as out of memory.
        """
        return self.generate_mixed(prompts, [[adapters] for adapters in sets], max_new_tokens)

    @torch.inference_mode()
    def generate_mixed(
        self,
        prompts: list[list[int]],
        mixtures: list[list[list[Adapter]]],
        max_new_tokens: int,
        wanted: Callable[[], bool] = lambda: True,
    ) -> list[list[int]]:
        """The same with several sets a prompt: at every token the probabilities under each of them, each a row of the
        batch, are averaged, and the likeliest token then goes on in all of them. Where the answers are not `wanted` any
        more, they end early."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        whose = [place for place, i in enumerate(order) for _ in mixtures[i]]  # of each row: a prompt, in this order
        self.active.set([adapters for i in order for adapters in mixtures[i]])
        steps = self._steps if isinstance(self.model, decoder.Decoder) else self._steps_of_transformers
        rows = [prompts[order[place]] for place in whose]
        tokens: list[list[int]] = [[] for _ in prompts]
        running = set(range(len(prompts)))
        for step in steps(rows, Mixing(whose, self.device), max_new_tokens):
            values = step.tolist()  # the one thing that waits for a GPU
            for place in list(running):
                if values[place] in self.ends:
                    running.discard(place)
                else:
                    tokens[place].append(values[place])
            if not running or not wanted():
                break
        return [answer for _, answer in sorted(zip(order, tokens, strict=True))]

    @torch.inference_mode()
    def likelihood(self, sequences: list[tuple[list[int], int]], sets: list[list[Adapter]]) -> list[tuple[float, bool]]:
        """For each sequence (ids, and where its answer begins): the mean negative log-likelihood of the answer's
        tokens, and whether each of them is the likeliest, so that greedy decoding would give exactly this answer."""
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]))
        self.active.set([sets[i] for i in order])
        found: dict[int, tuple[float, bool]] = {}
        for rows in groups([sequences[i][0] for i in order], self.device):
            self.active.select(rows)
            some = [sequences[i] for i in order[rows]]
            ids, _ = padded([ids for ids, _ in some], self.device)
            places = [(row, t) for row, (ids_, begin) in enumerate(some) for t in range(begin, len(ids_))]
            row, column = torch.tensor(places, device=self.device).T
            logits = self._logits(ids, row, column - 1).float()  # (N, V): what is said of each token of an answer
            targets = ids[row, column]
            nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none").tolist()
            likeliest = (logits.argmax(-1) == targets).tolist()
            for i, (ids_, begin) in zip(order[rows], some, strict=True):
                n = len(ids_) - begin
                found[i] = (sum(nll[:n]) / n, all(likeliest[:n]))
                nll, likeliest = nll[n:], likeliest[n:]
        return [found[i] for i in range(len(sequences))]

    @torch.inference_mode()
    def likelihood_and_answer(
        self,
        sequences: list[tuple[list[int], int]],
        sets: list[list[Adapter]],
        max_new_tokens: int,
        ended: Callable[[list[int]], bool],
    ) -> list[tuple[float, bool, list[int]]]:
        """What `likelihood` says of each sequence, and what `generate` has follow its ids before the answer, up to
        where the tokens have `ended` too: each prompt is read once for both."""
        prompts = [ids[:begin] for ids, begin in sequences]
        if not isinstance(self.model, decoder.Decoder):
            found = zip(self.likelihood(sequences, sets), self.generate(prompts, sets, max_new_tokens), strict=True)
            return [(*said, tokens) for said, tokens in found]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        self.active.set([sets[i] for i in order])
        wanted, lengths = padded([sequences[i][0][sequences[i][1] :] for i in order], self.device)  # (B, T)
        cache = empty(self.model, len(prompts), len(prompts[order[-1]]) + max(max_new_tokens, wanted.shape[1]))
        hidden = fill(self.model, cache, [prompts[i] for i in order], self.active.select)[:, None]  # (B, 1, C)
        self.active.select(slice(None))
        if wanted.shape[1] > 1:  # in places that the tokens of the greedy answer take afterwards
            hidden = torch.cat([hidden, self.model.hidden(wanted[:, :-1], cache)], dim=1)  # (B, T, C)
        nll, likeliest = torch.zeros_like(wanted, dtype=torch.float32), torch.zeros_like(wanted)  # (B, T)
        for t in range(wanted.shape[1]):
            logits = self.model.lm_head(hidden[:, t]).float()  # (B, V)
            nll[:, t] = torch.nn.functional.cross_entropy(logits, wanted[:, t], reduction="none")
            likeliest[:, t] = logits.argmax(-1)
        there = torch.arange(wanted.shape[1], device=self.device) < lengths[:, None]
        means = ((nll * there).sum(1) / lengths).tolist()
        exact = ((likeliest == wanted) | ~there).all(1).tolist()
        step = likeliest[:, 0]
        tokens = decode(self.model, cache, step, self.ends, max_new_tokens, ended, self.active.take)
        return [(*said,) for _, *said in sorted(zip(order, means, exact, tokens, strict=True))]

    def _logits(self, ids: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """ids (B, T) -> logits (N, V) at these places."""
        if isinstance(self.model, decoder.Decoder) and isinstance(self.model.lm_head, FrozenLinear):
            return self.model.lm_head(self.model.hidden(ids)[row, column])
        return decoder.logits(self.model, ids)[row, column]

    def _steps(self, prompts: list[list[int]], mixing: "Mixing", max_new_tokens: int) -> Iterator[Tensor]:
        """The next token of each question (Q,), step after step; `prompts`: of each row."""
        model = cast(decoder.Decoder, self.model)
        cache = empty(model, len(prompts), len(prompts[-1]) + max_new_tokens)
        last = fill(model, cache, prompts, self.active.select)
        self.active.select(slice(None))  # before the head, which may have adapters too
        tokens = mixing.scores(model.lm_head(last)).argmax(-1)  # (Q,)
        yield tokens
        for _ in range(max_new_tokens - 1):
            hidden = model.hidden(mixing.spread(tokens)[:, None], cache)[:, 0]
            tokens = mixing.scores(model.lm_head(hidden)).argmax(-1)
            cache.lengths += 1
            yield tokens

    def _steps_of_transformers(
        self, prompts: list[list[int]], mixing: "Mixing", max_new_tokens: int
    ) -> Iterator[Tensor]:
        self.active.select(slice(None))
        settings: dict[str, Any] = {"eos_token_id": sorted(self.ends) or None}
        if mixing.mixed:  # each row of a question gets the same scores, and so the same token
            from transformers import LogitsProcessorList

            settings["logits_processor"] = LogitsProcessorList([mixing.of_transformers])
        yield from mixing.first(by_transformers(self.model, prompts, max_new_tokens, **settings)).T.cpu()


def together(adapters: list[Adapter], way: str) -> list[list[Adapter]]:
    """The sets of adapters that answer a question in this way, of those that are active: mostly one, whose updates add
    up; for a mixture one for each adapter."""
    if way == MIXTURE and adapters:
        return [[adapter] for adapter in adapters]
    if way == MEAN:
        return [[replace(adapter, scale=adapter.scale / len(adapters)) for adapter in adapters]]
    return [adapters]


class Mixing:
    """Which rows of a batch are of one question, and answer it together."""

    def __init__(self, whose: list[int], device: torch.device):
        """`whose`: of each row the question, from 0, in order."""
        self.questions = whose[-1] + 1
        self.mixed = self.questions < len(whose)  # else each row is a question of its own
        self.whose = torch.tensor(whose, device=device)  # (B,)

    def scores(self, logits: Tensor) -> Tensor:
        """logits (B, V) of each row -> scores (Q, V) of each question: the sum of its rows' probabilities, greatest
        where their mean is; where each row is a question, its logits."""
        if not self.mixed:
            return logits
        probabilities = logits.float().softmax(-1)
        return probabilities.new_zeros(self.questions, logits.shape[-1]).index_add_(0, self.whose, probabilities)

    def spread(self, values: Tensor) -> Tensor:
        """values (Q, ...) of each question -> (B, ...) of each row"""
        return values[self.whose] if self.mixed else values

    def first(self, values: Tensor) -> Tensor:
        """values (B, ...), the same in all rows of a question -> (Q, ...)"""
        return values[self.whose.diff(prepend=self.whose.new_tensor([-1])) > 0] if self.mixed else values

    def of_transformers(self, ids: Tensor, logits: Tensor) -> Tensor:
        """What transformers chooses the next token of each row by."""
        return self.spread(self.scores(logits))
