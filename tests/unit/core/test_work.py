"""Long work in batches goes on from the last finished one."""

import contextlib
import json
import os
import signal

import pytest

from lorary.core import work as journal
from lorary.core.errors import LoraryError

BATCHES = [journal.Batch(f"key{i}", [2 * i, 2 * i + 1]) for i in range(4)]


class Work:
    """Doubles the items, notes what it was asked, and fails or is struck where told to."""

    def __init__(self, fails=(), struck=None, kind=LoraryError):
        self.asked, self.begun, self.fails, self.struck, self.kind = [], 0, fails, struck, kind

    @contextlib.contextmanager
    def begin(self):
        self.begun += 1
        yield self.work

    def work(self, items):
        self.asked.append(items)
        if items[0] == self.struck:
            os.kill(os.getpid(), signal.SIGTERM)
        for item in items:
            if item in self.fails:
                raise self.kind(f"item {item} is bad")
        return [2 * item for item in items]


@pytest.fixture
def finish(tmp_path):
    return lambda work, batches=BATCHES: journal.finish(str(tmp_path / "j.jsonl"), batches, work.begin, "things")


RESULTS = [[0, 2], [4, 6], [8, 10], [12, 14]]


def test_what_is_there_is_not_done_again(finish, tmp_path):
    first, second = Work(), Work()
    assert finish(first) == RESULTS
    assert finish(second) == RESULTS
    assert (len(first.asked), second.begun) == (4, 0)
    # another key: that one; and its old result is gone
    third = Work()
    changed = [*BATCHES[:3], journal.Batch("new", [6, 7])]
    assert finish(third, changed) == RESULTS
    assert third.asked == [[6, 7]]
    keys = [json.loads(line)["key"] for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert keys == ["key0", "key1", "key2", "new"]


@pytest.mark.parametrize("torn", [b'{"key": "key3", "resu', b"\xff", b"null\n", b'{"key": 3}\n'])
def test_after_a_kill_the_finished_batches_count(finish, tmp_path, torn):
    with pytest.raises(RuntimeError):  # as a kill: nothing is tidied up
        finish(Work(fails=[4], kind=RuntimeError))
    with (tmp_path / "j.jsonl").open("ab") as file:
        file.write(torn)
    second = Work(fails=[6], kind=RuntimeError)
    with pytest.raises(RuntimeError):
        finish(second)
    third = Work()
    assert finish(third) == RESULTS
    assert (second.asked, third.asked) == ([[4, 5], [6, 7]], [[6, 7]])


def test_a_stop_is_after_the_batch_in_hand(finish):
    work = Work(struck=2)
    with pytest.raises(LoraryError, match="Stopped with 4 things in 2 batches to go"):
        finish(work)
    assert work.asked == [[0, 1], [2, 3]]
    rest = Work()
    assert finish(rest) == RESULTS
    assert rest.asked == [[4, 5], [6, 7]]


def test_an_item_that_fails_is_named_and_alone_is_tried_again(finish):
    with pytest.raises(LoraryError, match=r"Some things failed.*\n  item 3 is bad$"):
        finish(Work(fails=[3]))
    again = Work(fails=[3])
    with pytest.raises(LoraryError, match=r"\n  item 3 is bad$"):
        finish(again)
    assert again.asked == [[3]]
    work = Work()
    assert finish(work) == RESULTS
    assert work.asked == [[3]]
    assert finish(Work(fails=range(8))) == RESULTS  # all is there


def test_a_key_is_of_all_that_decides():
    assert journal.key([1, "a"], {"x": 2, "y": 3}) == journal.key([1, "a"], {"y": 3, "x": 2})
    assert journal.key([1, "a"]) != journal.key([1, "b"]) != journal.key(["1", "a"])
