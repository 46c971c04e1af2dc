"""Questions that wait, and the one thread that answers them: those that wait together, together."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

from ..answer.predict import QUESTIONS_PER_BATCH
from ..core.device import device_fault
from .chat import Answered, Asked, Refused
from .library import Reply, alike

log = logging.getLogger(__name__)

# Seconds from a question until its batch is taken: clients that were just answered ask again, and go with it.
GATHERING = 0.01


class Batches:
    def __init__(self, answer: Callable[[list[Asked]], list[Reply]], thread: Executor, most_waiting: int):
        """`answer` is called in `thread`, which has one worker. All else is the event loop's."""
        self.answer, self.thread, self.most_waiting = answer, thread, most_waiting
        self.waiting: deque[tuple[Asked, asyncio.Future[Reply]]] = deque()
        self.answering = 0
        self.fault: Exception | None = None  # of the device: no more can be answered
        self.on_fault: Callable[[], None] = lambda: None
        self._arrived = asyncio.Event()
        self._seconds = 1.0  # that the last batch took

    async def put(self, asked: Asked) -> Answered:
        """The answer to a question, when it is there. Cancelled while it waits, it is not answered. Raises Refused, at
        once where too many wait."""
        if len(self.waiting) >= self.most_waiting:
            batches = len(self.waiting) / QUESTIONS_PER_BATCH
            raise Refused(
                503,
                f"{len(self.waiting)} questions are waiting, and that is the most: ask again later.",
                code="queue_full",
                wait=max(1, math.ceil(batches * self._seconds)),
            )
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        place = asked, reply
        self.waiting.append(place)
        self._arrived.set()
        try:
            said = await reply
        finally:
            if place in self.waiting:
                self.waiting.remove(place)
        if isinstance(said, Refused):
            raise said
        return said

    async def run(self) -> None:
        """Answer what comes, until this is cancelled."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GATHERING)
            if batch := self._take():
                await self._answer(batch)
            if not self.waiting:
                self._arrived.clear()

    def _take(self) -> list[tuple[Asked, asyncio.Future[Reply]]]:
        """The question that has waited longest and those that are like it, in their order."""
        batch = []
        if self.waiting:
            first = alike(self.waiting[0][0])
            batch = [place for place in self.waiting if alike(place[0]) == first][:QUESTIONS_PER_BATCH]
            for place in batch:
                self.waiting.remove(place)
        return batch

    async def _answer(self, batch: list[tuple[Asked, asyncio.Future[Reply]]]) -> None:
        began, self.answering = time.monotonic(), len(batch)
        questions = [asked for asked, _ in batch]
        replies: list[Reply]
        try:
            replies = await asyncio.get_running_loop().run_in_executor(self.thread, self.answer, questions)
        except Exception as error:
            replies = [Refused(500, "The server has failed over this question: see its log.") for _ in batch]
            if device_fault(error):
                self.fault = error
                self.on_fault()
            else:
                log.exception("this is a bug in lorary")
        finally:
            self.answering, self._seconds = 0, time.monotonic() - began
        for (_, future), reply in zip(batch, replies, strict=True):
            if not future.done():  # whoever asked may have gone
                future.set_result(reply)
