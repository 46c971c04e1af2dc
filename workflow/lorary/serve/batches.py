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

Place = tuple[Asked, asyncio.Future[Reply]]
Answer = Callable[[list[Asked], Callable[[], bool]], list[Reply]]  # of a batch, while it is wanted

# Seconds from a question until its batch is taken: clients that were just answered ask again, and go with it.
GATHERING = 0.01


class Batches:
    def __init__(self, answer: Answer, thread: Executor, most_waiting: int):
        """`answer` is called in `thread`, which has one worker. All else is the event loop's."""
        self.answer, self.thread, self.most_waiting = answer, thread, most_waiting
        self.waiting: deque[Place] = deque()
        self.in_hand: list[Place] = []
        self.asked = self.answered = 0  # questions so far: taken, and with an answer
        self.given_up = False
        self.fault: Exception | None = None  # of the device: no more can be answered
        self.on_fault: Callable[[], None] = lambda: None
        self._arrived = asyncio.Event()
        self._seconds = 1.0  # that the last batch took

    async def put(self, asked: Asked) -> Answered:
        """The answer to a question, when it is there. Cancelled while it waits, it is not answered. Raises Refused, at
        once where too many wait."""
        if self.given_up:
            raise _stopped()
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
        self.asked += 1
        self.waiting.append(place)
        self._arrived.set()
        try:
            said = await reply
        finally:
            if place in self.waiting:
                self.waiting.remove(place)
        if isinstance(said, Refused):
            raise said
        self.answered += 1
        return said

    def give_up(self) -> None:
        """Refuse all that were taken and have no answer yet, and whatever comes."""
        self.given_up = True
        for _, reply in [*self.waiting, *self.in_hand]:
            if not reply.done():
                reply.set_result(_stopped())
        self.waiting.clear()

    async def run(self) -> None:
        """Answer what comes, until this is cancelled."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GATHERING)
            if batch := self._take():
                self.in_hand = batch
                await self._answer(batch)
                self.in_hand = []
            if not self.waiting:
                self._arrived.clear()

    def _take(self) -> list[Place]:
        """The question that has waited longest and those that are like it, in their order."""
        batch = []
        if self.waiting:
            first = alike(self.waiting[0][0])
            batch = [place for place in self.waiting if alike(place[0]) == first][:QUESTIONS_PER_BATCH]
            for place in batch:
                self.waiting.remove(place)
        return batch

    async def _answer(self, batch: list[Place]) -> None:
        began, questions = time.monotonic(), [asked for asked, _ in batch]

        def wanted() -> bool:
            return not all(reply.done() for _, reply in batch)  # whoever asked may have gone

        replies: list[Reply]
        try:
            replies = await asyncio.get_running_loop().run_in_executor(self.thread, self.answer, questions, wanted)
        except Exception as error:
            replies = [Refused(500, "The server has failed over this question: see its log.") for _ in batch]
            if device_fault(error):
                self.fault = error
                self.on_fault()
            else:
                log.exception("this is a bug in lorary")
        self._seconds = time.monotonic() - began
        for (_, future), reply in zip(batch, replies, strict=True):
            if not future.done():
                future.set_result(reply)


def _stopped() -> Refused:
    return Refused(503, "The server was stopped before it had the answer.", code="stopped")
