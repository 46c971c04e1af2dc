"""Long work goes on from the last finished item; one that fails, or fits no memory, does so alone."""

import contextlib
import json
import os
import signal

import pytest
import torch

from lorary.core import work
from lorary.core.errors import LoraryError

ITEMS = [work.Item(f"key{i}", f"place {i}", i) for i in range(8)]
RESULTS = {f"key{i}": 2 * i for i in range(8)}


class Work:
    """Doubles what items hold, two at a time, notes what it was asked, and fails or is struck where told to."""

    def __init__(self, fails=(), struck=None, kind=LoraryError, fits=99):
        self.asked, self.begun, self.fails, self.struck, self.kind, self.fits = [], 0, fails, struck, kind, fits

    @contextlib.contextmanager
    def begin(self):
        self.begun += 1
        size = 4 if self.fits < 99 else 2
        yield work.in_batches(size, self.double, "things", lambda item: f"{item.content} is too large")

    def double(self, items):
        numbers = [item.content for item in items]
        self.asked.append(numbers)
        if len(numbers) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if self.struck in numbers:
            os.kill(os.getpid(), signal.SIGTERM)
        for number in numbers:
            if number in self.fails:
                raise self.kind(f"{number} is bad")
        return [2 * number for number in numbers]


@pytest.fixture
def finish(tmp_path):
    """Finishes items, a call at a time: returns what failed, and all results that are kept."""

    def finish(doubling, items=ITEMS):
        kept, failed = work.Journal(str(tmp_path / "j.jsonl")), {}
        work.finish(items, kept, failed, doubling.begin, ("thing", "things"))
        return failed, kept.results

    return finish


def test_what_is_there_is_not_done_again(finish, tmp_path, caplog):
    caplog.set_level("INFO")
    first, second = Work(), Work()
    assert finish(first) == finish(second) == ({}, RESULTS)
    assert (len(first.asked), second.begun) == (4, 0)
    # another key, beside one whose batch was finished: that one alone
    third = Work()
    changed = [*ITEMS[:7], work.Item("new", "place 7", 7)]
    failed, results = finish(third, changed)
    assert (failed, results["new"], third.asked) == ({}, 14, [[7]])
    assert "1 thing; the others are done" in caplog.text


def test_items_alike_are_worked_on_once(finish):
    once = Work()
    assert finish(once, [*ITEMS, work.Item("key3", "again", 33)]) == ({}, RESULTS)
    assert sorted(number for numbers in once.asked for number in numbers) == list(range(8))


def test_what_nobody_asks_for_goes(finish, tmp_path):
    finish(Work())
    work.Journal(str(tmp_path / "j.jsonl")).keep_only(["key5", "key2", "key5"])
    lines = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert lines == [{"key": "key5", "result": 10}, {"key": "key2", "result": 4}]


@pytest.mark.parametrize("torn", [b'{"key": "key6", "resu', b"\xff", b"null\n", b'{"key": 3}\n'])
def test_after_a_kill_what_was_finished_counts(finish, tmp_path, torn):
    with pytest.raises(RuntimeError):  # as a kill: nothing is tidied up
        finish(Work(fails=[4], kind=RuntimeError))
    with (tmp_path / "j.jsonl").open("ab") as file:
        file.write(torn)
    second = Work(fails=[6], kind=RuntimeError)
    with pytest.raises(RuntimeError):
        finish(second)
    third = Work()
    assert finish(third) == ({}, RESULTS)
    assert (second.asked, third.asked) == ([[4, 5], [6, 7]], [[6, 7]])


def test_a_stop_is_after_what_is_in_hand(finish):
    struck = Work(struck=2)
    with pytest.raises(LoraryError, match="Stopped after 4 of 8 things: they are kept, and the same command goes on"):
        finish(struck)
    assert struck.asked == [[0, 1], [2, 3]]
    rest = Work()
    assert finish(rest) == ({}, RESULTS)
    assert rest.asked == [[4, 5], [6, 7]]


def test_an_item_that_fails_does_so_alone_and_alone_is_tried_again(finish):
    failed, results = finish(Work(fails=[3]))
    assert failed == {"key3": "3 is bad"}
    assert results == {key: result for key, result in RESULTS.items() if key != "key3"}
    again = Work(fails=[3])
    assert finish(again)[0] == failed
    assert again.asked == [[3]]
    assert finish(Work()) == ({}, RESULTS)


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_a_batch_that_does_not_fit_is_halved(finish, fits):
    assert finish(Work(fits=fits)) == ({}, RESULTS)


def test_what_fits_no_memory_fails_alone(finish, monkeypatch):
    double = Work.double

    def greedy(self, items):
        if any(item.content == 5 for item in items):
            raise MemoryError
        return double(self, items)

    monkeypatch.setattr(Work, "double", greedy)
    failed, results = finish(Work())
    assert failed == {"key5": "5 is too large"}
    assert len(results) == 7


def test_an_error_of_the_device_is_no_items_fault(finish):
    class Breaks(Work):
        def double(self, items):
            if any(item.content == 5 for item in items):
                raise torch.AcceleratorError("CUDA error: device-side assert triggered\nand more")
            return super().double(items)

    words = r"device-side assert triggered\).* 4 of 8 things are kept.* In hand: place 4, place 5\.$"
    with pytest.raises(LoraryError, match=words):
        finish(Breaks())
    rest = Work()
    assert finish(rest) == ({}, RESULTS)
    assert rest.asked == [[4, 5], [6, 7]]


def test_what_has_failed_is_told_though_it_is_stopped(tmp_path):
    struck, failed = Work(fails=[1], struck=2), {}
    with pytest.raises(LoraryError, match="Stopped after 3 of 8 things"):
        work.finish(ITEMS, work.Journal(str(tmp_path / "j.jsonl")), failed, struck.begin, ("thing", "things"))
    assert failed == {"key1": "1 is bad"}


def test_while_it_waits_to_begin_a_stop_ends_it_at_once(finish):
    class Waits(Work):
        @contextlib.contextmanager
        def begin(self):
            os.kill(os.getpid(), signal.SIGINT)  # as while all GPUs are taken
            raise AssertionError("it went on")
            yield

    with pytest.raises(KeyboardInterrupt):
        finish(Waits())


def test_progress_counts_what_is_done_together(finish, caplog, monkeypatch):
    caplog.set_level("DEBUG")
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(work.time, "monotonic", lambda: next(clock))  # ten seconds a batch
    finish(Work(fails=[2]))
    told = [line for line in caplog.messages if line.startswith("thing ")]
    assert told == [
        "thing 2 of 8, 30 s left",
        "thing 3 of 8, place 3, 20 s left",
        "thing 5 of 8, 10 s left",
        "thing 7 of 8, 0 s left",
    ]


def test_a_disk_that_refuses_is_named_with_what_is_kept(finish, tmp_path, monkeypatch):
    put = work.Journal.put

    def full(self, results):
        if len(self.results) == 4:
            raise OSError(28, "No space left on device", "j.jsonl")
        put(self, results)

    monkeypatch.setattr(work.Journal, "put", full)
    with pytest.raises(LoraryError, match=r"j.jsonl: No space left on device\. .* 4 of 8 things are kept\."):
        finish(Work())


def test_a_key_is_of_all_that_decides():
    assert work.key([1, "a"], {"x": 2, "y": 3}) == work.key([1, "a"], {"y": 3, "x": 2})
    assert work.key([1, "a"]) != work.key([1, "b"]) != work.key(["1", "a"])


def test_results_come_in_the_order_of_the_items_and_name_all_that_failed(tmp_path):
    path = str(tmp_path / "j.jsonl")
    with pytest.raises(LoraryError, match=r"Some things failed; .*\n  place 8: no item\n  place 3: 3 is bad$"):
        work.results(path, ITEMS, Work(fails=[3]).begin, ("thing", "things"), ["place 8: no item"])
    again = Work()
    assert work.results(path, ITEMS[::-1], again.begin, ("thing", "things"), []) == [*range(14, -2, -2)]
    assert again.asked == [[3]]
