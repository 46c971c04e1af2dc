"""Objectives: which sequences each makes of a passage, in which order; and that every table of them has the same."""

import pytest

from lorary.data.objectives import CONTEXTS, SEQUENCES, passage_sequences, taking_turns, texts
from lorary.train.objective import OBJECTIVES


def test_each_objective_has_sequences_and_a_loss():
    assert SEQUENCES.keys() == OBJECTIVES.keys()
    assert {how.contexts for how in SEQUENCES.values()} <= CONTEXTS.keys()


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [(1, "0p 0r"), (2, "0p 0r 1-"), (3, "0p 0r 1p 1r 2-"), (4, "0p 0r 1p 1r 2- 3-"), (5, "0p 0r 1p 1r 2p 2r 3- 4-")],
)
@pytest.mark.parametrize("with_cot", [False, True])
def test_the_first_half_of_the_pairs_rounded_up_comes_with_passage_then_rewrite(pairs, expected, with_cot):
    row = {"passage": "p", "rewrite": "r"}
    row["pairs"] = [{"question": f"q{i}", "answer": f"a{i}", "full_answer": f"f{i}"} for i in range(pairs)]
    a = "f" if with_cot else "a"
    sequences = [(f"q{i}", None if context == "-" else context, f"{a}{i}") for i, context in expected.split()]
    assert list(passage_sequences(row, with_cot)) == sequences
    without_rewrites = [sequence for sequence in sequences if sequence[1] != "r"]
    assert list(passage_sequences(row, with_cot, "passage")) == without_rewrites
    alone = [(f"q{i}", None, f"{a}{i}") for i in range(pairs)]
    assert list(passage_sequences(row, with_cot, "none")) == alone


@pytest.mark.parametrize("with_cot", [False, True])
def test_without_a_passage_each_pair_comes_once_and_alone(with_cot):
    row = {"passage": None, "rewrite": None}
    row["pairs"] = [{"question": f"q{i}", "answer": f"a{i}", "full_answer": f"f{i}"} for i in range(3)]
    a = "f" if with_cot else "a"
    assert list(passage_sequences(row, with_cot)) == [(f"q{i}", None, f"{a}{i}") for i in range(3)]
    row |= {"passage": "", "rewrite": ""}  # which the reference pads with, and shows
    assert [context for _, context, _ in passage_sequences(row, with_cot)] == ["", "", "", "", None]


@pytest.mark.parametrize(
    ("some", "others", "turns"),
    [("123", "ab", "1a2b3"), ("1", "ab", "a1b"), ("12", "ab", "1a2b"), ("123456", "ab", "12a345b6"), ("12", "", "12")],
)
def test_answers_and_texts_take_turns(some, others, turns):
    assert "".join(taking_turns(list(some), list(others))) == turns


@pytest.mark.parametrize(
    ("passage", "rewrite", "title", "expected"),
    [
        (" P one. ", "R", "T ", [("T", "P one."), ("T", "R")]),
        ("a b c d e f g h", "R", "", [('"a b c d e f ..."', "a b c d e f g h"), ('"a b c d e f ..."', "R")]),
        ("P", " ", "", [('"P ..."', "P")]),
        ("", "", "T", []),
        (None, None, "", []),
    ],
)
def test_passage_and_rewrite_are_texts_under_a_title(passage, rewrite, title, expected):
    assert texts({"passage": passage, "rewrite": rewrite}, title) == expected
