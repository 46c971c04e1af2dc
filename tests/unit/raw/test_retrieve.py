"""Each question gets its passages: so many, all different, whatever BM25 finds."""

import logging

import pytest

from lorary.core.errors import LoraryError
from lorary.raw import retrieve as retrieve_module
from lorary.raw.index import Index, make
from lorary.raw.passages import RawPassage
from lorary.raw.retrieve import retrieve

CORPUS = [
    RawPassage("nothing of it", "zero", {"id": "a"}),
    RawPassage("nothing of it", "zero"),
    RawPassage("a ferry on the river", "one", {"id": "c"}),
    RawPassage("the ferry, a ferry", "two"),
    RawPassage("bone", "three"),
]


@pytest.fixture(params=[1, 1000])
def index(tmp_path, request, monkeypatch):
    monkeypatch.setattr("lorary.raw.index.GROUP", request.param)
    monkeypatch.setattr(retrieve_module, "GROUP", request.param)
    make(CORPUS, str(tmp_path / "index"))
    return Index(str(tmp_path / "index"))


def titles(found):
    return [[passage.title for passage in passages] for passages in found]


def test_the_best_ones_with_their_scores(index, caplog):
    found = retrieve(["ferry", "bone of a ferry"], index, 2)
    assert titles(found) == [["two", "one"], ["three", "two"]]
    assert found[0][1].text == CORPUS[2].text
    assert found[0][1].extra.keys() == {"id", "score"}
    for passages in found:
        scores = [passage.extra["score"] for passage in passages]
        assert scores == sorted(scores, reverse=True)
        assert scores[-1] > 0
    assert not caplog.records


def test_the_first_others_fill_up_and_the_log_says_so_once(index, caplog):
    with caplog.at_level(logging.WARNING):
        found = retrieve(["zzz", "ferry", "bone", "qqq", "xxx"], index, 4)
    assert titles(found) == [
        ["zero", "one", "two", "three"],
        ["two", "one", "zero", "three"],
        ["three", "zero", "one", "two"],
        ["zero", "one", "two", "three"],
        ["zero", "one", "two", "three"],
    ]
    assert [passage.extra["score"] > 0 for passage in found[1]] == [True, True, False, False]
    assert found[0][0].extra == {"id": "a", "score": 0.0}
    (record,) = caplog.records
    assert record.getMessage() == (
        "5 of 5 questions share a word with fewer than 4 passages, and get the first others of the corpus:"
        " zzz; ferry; bone; ..."
    )


def test_a_corpus_that_is_too_small_says_what_to_do(index):
    with pytest.raises(
        LoraryError, match=r"has 4 different passages, and each question is to get 5.*retrieve_top_k to 4"
    ):
        retrieve(["ferry"], index, 5)


def test_no_questions(index):
    assert retrieve([], index, 3) == []
