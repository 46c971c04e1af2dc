"""Requests answered by a model on this machine, many at a time."""

import logging
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from ..answer.generate import Answerer
from ..base.decoder import Decoder, beyond
from ..base.greedy import batches, by_transformers
from ..base.reading import read
from ..core.device import free_memory, out_of_memory
from ..core.errors import LoraryError
from ..core.work import Done, Fault, Item, divided
from ..data.prompts import Chat
from .talk import Reply, Request, Talk
from .writing import Row, Writer

log = logging.getLogger(__name__)

TOLD_EVERY = 30  # seconds without a talk that has ended
STILL_WRITTEN = 0.75  # of the rows, or fewer: then the others leave the batch, which copies what is kept of these


class Local:
    def __init__(self, model: str, precision: str, device: torch.device, chat: Chat):
        """`model`: its directory. Raises LoraryError."""
        self.answerer = Answerer(model, precision, device, [])
        self.chat = chat
        self.device = device
        vocabulary = cast(Any, self.answerer.model).get_input_embeddings().num_embeddings
        self.writer = Writer(chat.tokenizer, self.answerer.ends, vocabulary)

    def converse(self, items: Iterable[tuple[Item, Talk]], size: int) -> Iterator[Done]:
        """Have the talks about these items, so many at a time: what they ask next is answered together. Yields the
        items whose talks have ended with what these returned, or with a Fault where one raised LoraryError."""
        stream = iter(items)
        while some := list(islice(stream, size)):
            replies: dict[int, list[Reply | Fault] | None] = dict.fromkeys(range(len(some)))
            answered, told = 0, time.monotonic()
            while replies:
                asked: dict[int, list[Request]] = {}
                ended: Done = []
                for i, answers in replies.items():
                    item, talk = some[i]
                    try:
                        asked[i] = talk.send(answers)  # type: ignore[arg-type]  # None begins a talk
                    except StopIteration as end:
                        ended.append((item, end.value))
                    except LoraryError as error:
                        ended.append((item, Fault(str(error))))
                if ended:
                    yield ended
                    told = time.monotonic()
                elif time.monotonic() - told > TOLD_EVERY:
                    log.info("%d passages in hand, %d replies so far", len(asked), answered)
                    told = time.monotonic()
                written = iter(self.write([request for requests in asked.values() for request in requests]))
                replies = {i: list(islice(written, len(requests))) for i, requests in asked.items()}
                answered += sum(map(len, asked.values()))

    def write(self, requests: list[Request]) -> list[Reply | Fault]:
        """The reply to each, whichever others it is written with; a Fault where there can be none. Raises what torch
        raises where the device fails."""
        replies: dict[int, Reply | Fault] = {}
        rows = []
        for number, request in enumerate(requests):
            row = self._begin(number, request)
            if isinstance(row, Fault):
                replies[number] = row
            else:
                rows.append(row)
        rows.sort(key=lambda row: row.ids)  # those that begin alike are neighbours
        for group in batches(self.answerer.model, [row.most for row in rows]):
            for part, fault in divided(rows[group], self._attempt):
                for row in part:
                    replies[row.number] = fault or Reply(row.text, row.finished, len(row.ids), len(row.tokens))
        return [replies[number] for number in range(len(requests))]

    def _begin(self, number: int, request: Request) -> Row | Fault:
        try:
            ids = self.chat.ids(request.template, request.values)
        except Exception as error:  # whatever this tokenizer or its chat template raises over this text
            return Fault(f"its prompt cannot be made: {type(error).__name__}: {error}")
        if reason := beyond(self.answerer.model, max(ids), len(ids) + request.most_tokens):
            return Fault(reason)
        try:
            return self.writer.row(number, request, ids)
        except LoraryError as error:
            return Fault(str(error))

    def _attempt(self, rows: list[Row]) -> Fault | None:
        for row in rows:
            row.begin()
        try:
            if isinstance(self.answerer.model, Decoder):
                self._decode(self.answerer.model, rows)
            else:
                self._decode_by_transformers(rows)
            return None
        except Exception as error:
            if not out_of_memory(error):
                raise
        free_memory()
        if len(rows) > 1:
            log.warning("%d replies do not fit into memory together: going on by halves", len(rows))
        return Fault(f"its prompt of {len(rows[0].ids)} tokens does not fit into memory")

    @torch.inference_mode()
    def _decode(self, model: Decoder, rows: list[Row]) -> None:
        order, cache, last = read(model, [row.ids for row in rows], max(row.most for row in rows))
        rows = [rows[i] for i in order]
        while True:
            tokens = self.writer.choose(model.lm_head(last), rows)
            live = [i for i, row in enumerate(rows) if not row.ended]
            if not live:
                return
            if len(live) <= STILL_WRITTEN * len(rows):
                rows, tokens = [rows[i] for i in live], [tokens[i] for i in live]
                cache.take(live, max(row.most for row in rows))
                live = list(range(len(rows)))
            last = model.hidden(torch.tensor(tokens, device=self.device)[:, None], cache)[:, 0]
            cache.lengths[live] += 1

    def _decode_by_transformers(self, rows: list[Row]) -> None:
        def choose(ids: Tensor, scores: Tensor) -> Tensor:
            chosen = torch.tensor(self.writer.choose(scores, rows), device=scores.device)
            return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)

        def ended(ids: Tensor, scores: Tensor) -> Tensor:
            return torch.tensor([row.ended for row in rows], device=ids.device)

        by_transformers(
            self.answerer.model,
            [row.ids for row in rows],
            max(row.request.most_tokens for row in rows),
            logits_processor=[choose],
            stopping_criteria=[ended],
        )
