"""Those that wait together are answered together, up to a number, and those alone that are unlike."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fake_answers import Answers, asked
from lorary.answer.predict import QUESTIONS_PER_BATCH
from lorary.serve.batches import Batches
from lorary.serve.chat import Refused


def with_batches(does, answer, most_waiting=100):
    """What comes of `does(batches)`, in an event loop where batches are answered."""

    async def run():
        with ThreadPoolExecutor(1) as thread:
            batches = Batches(answer, thread, most_waiting)
            task = asyncio.create_task(batches.run())
            try:
                return await does(batches)
            finally:
                task.cancel()

    return asyncio.run(run())


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


def test_what_waits_is_answered_together_where_it_is_alike():
    answers = Answers()
    some = [
        *(asked(f"a{i}") for i in range(QUESTIONS_PER_BATCH + 2)),
        asked("b", max_tokens=9),
        asked("c", method="prag_mixture"),
        asked("d", method="vanilla"),
    ]

    async def does(batches):
        return await asyncio.gather(*map(batches.put, some))

    replies = with_batches(does, answers)
    assert [reply.text for reply in replies] == [f"{one.question} <i>I</i>" for one in some]
    a = [one.question for one in some if one.question.startswith("a")]
    assert answers.batches == [a[:QUESTIONS_PER_BATCH], [*a[QUESTIONS_PER_BATCH:], "d"], ["b"], ["c"]]


def test_while_some_are_answered_others_wait_and_too_many_are_sent_away():
    answers = Answers()
    answers.may.clear()

    async def does(batches):
        first = asyncio.create_task(batches.put(asked("first")))
        await until(lambda: len(batches.in_hand) == 1)
        others = [asyncio.create_task(batches.put(asked(str(i)))) for i in range(3)]
        await until(lambda: len(batches.waiting) == 3)
        with pytest.raises(Refused) as refused:
            await batches.put(asked("too many"))
        assert (refused.value.status, refused.value.code) == (503, "queue_full")
        assert refused.value.wait >= 1
        others[1].cancel()  # whoever asked has gone
        await until(lambda: len(batches.waiting) == 2)
        answers.may.set()
        await asyncio.gather(first, others[0], others[2])
        assert not batches.waiting
        assert len(batches.in_hand) == 0

    with_batches(does, answers, most_waiting=3)
    assert answers.batches == [["first"], ["0", "2"]]


def test_what_is_cancelled_while_it_is_answered_leaves_the_others_theirs():
    answers = Answers()
    answers.may.clear()

    async def does(batches):
        both = [asyncio.create_task(batches.put(asked(str(i)))) for i in range(2)]
        await until(lambda: len(batches.in_hand) == 2)
        both[0].cancel()
        answers.may.set()
        return (await both[1]).text

    assert with_batches(does, answers) == "1 <i>I</i>"


def test_what_nobody_waits_for_is_not_wanted_any_more():
    """By the thread that answers it, which looks at every token."""
    begun, ended = threading.Event(), []

    def answer(batch, wanted):
        begun.set()
        deadline = time.monotonic() + 60
        while wanted() and time.monotonic() < deadline:
            time.sleep(0.001)
        ended.append(wanted())
        return ["too late" for _ in batch]

    async def does(batches):
        both = [asyncio.create_task(batches.put(asked(str(i)))) for i in range(2)]
        await until(begun.is_set)
        both[0].cancel()
        await asyncio.sleep(0.05)
        assert not ended
        both[1].cancel()
        await until(lambda: ended)

    with_batches(does, answer)
    assert ended == [False]


def test_what_is_given_up_is_told_so_and_nothing_more_is_taken():
    answers = Answers()
    answers.may.clear()

    async def does(batches):
        in_hand = asyncio.create_task(batches.put(asked("in hand")))
        await until(lambda: batches.in_hand)
        waits = asyncio.create_task(batches.put(asked("waits")))
        await until(lambda: batches.waiting)
        batches.give_up()
        for one in (in_hand, waits, batches.put(asked("comes"))):
            with pytest.raises(Refused, match="was stopped") as refused:
                await one
            assert (refused.value.status, refused.value.code) == (503, "stopped")
        answers.may.set()
        await until(lambda: not batches.in_hand)
        return batches.asked, batches.answered

    assert with_batches(does, answers) == (2, 0)
    assert answers.batches == [["in hand"]]


def test_one_that_is_refused_is_refused_alone():
    def answer(batch, _):
        return [Refused(400, one.question) if one.question == "bad" else one.question for one in batch]

    async def does(batches):
        return await asyncio.gather(*(batches.put(asked(q)) for q in ("good", "bad", "fine")), return_exceptions=True)

    good, bad, fine = with_batches(does, answer)
    assert (good, str(bad), fine) == ("good", "bad", "fine")


@pytest.mark.parametrize(("error", "ends"), [(ValueError("a bug"), False), (RuntimeError("CUDA error: dead"), True)])
def test_a_failure_is_told_and_what_fails_for_good_ends_the_server(error, ends):
    failing = [error]

    def answer(batch, _):
        if failing:
            raise failing.pop()
        return ["answered"] * len(batch)

    ended = []

    async def does(batches):
        batches.on_fault = lambda: ended.append(True)
        with pytest.raises(Refused, match="see its log") as refused:
            await batches.put(asked())
        assert refused.value.status == 500
        return await batches.put(asked()), batches.fault

    assert with_batches(does, answer) == ("answered", error if ends else None)
    assert ended == [True] * ends
