"""What of a text is scored, and how."""

import pytest

from lorary.answer.score import cut, ended, first_line, holds, normalise, score


@pytest.mark.parametrize(
    ("text", "with_cot", "prediction"),
    [
        (" Paris. It is the capital.", False, "Paris"),
        ("\n\nParis\nand so on", False, "Paris"),
        ("Paris, France", False, "Paris"),
        ("so the answer is Paris.", False, "so the answer is Paris"),
        ("He lived in Rome. So the answer is Paris.\n\nthe answer is Rome", True, "Paris"),
        ("Paris. He died there.", True, "Paris"),
        ("the answer is", True, ""),
        ("", False, ""),
    ],
)
def test_what_is_scored(text, with_cot, prediction):
    assert cut(text, with_cot) == prediction


@pytest.mark.parametrize(
    ("text", "with_cot", "line"),
    [
        ("\n The Tower is in Paris, France. It is old.\nWho?", False, "The Tower is in Paris, France. It is old."),
        ("Rome\nSo the answer is Paris, France.\n\nthe answer is Rome", True, "Paris, France."),
        ("Rome, Italy\nOslo", True, "Rome, Italy"),
        ("", False, ""),
    ],
)
def test_an_answer_is_looked_for_in_the_first_line(text, with_cot, line):
    assert first_line(text, with_cot) == line


@pytest.mark.parametrize("with_cot", [False, True])
@pytest.mark.parametrize(
    ("text", "lines"),
    [("\n\nParis, he said.\nand so on", 1), ("He.\nSo the answer is Rome, the answer is Oslo.\n ", 2), ("a, b.", 0)],
)
def test_nothing_that_follows_what_has_ended_is_scored(text, lines, with_cot):
    ends = [i for i in range(len(text) + 1) if ended(text[:i], with_cot)]
    assert all(first_line(text[:i], with_cot) == first_line(text, with_cot) for i in ends)
    assert bool(ends) == (lines > int(with_cot))


def test_normalised_answers():
    assert normalise(" The  U.S. Navy's\tan anthem ") == "us navys anthem"


def test_words_are_counted_as_often_as_they_come():
    assert score("the big big dog", ["big dog dog"]) == {"em": 0, "f1": 2 / 3, "prec": 2 / 3, "recall": 2 / 3}
    assert score("a dog", ["big dog"]) == {"em": 0, "f1": 2 / 3, "prec": 1, "recall": 0.5}
    assert score("cat", ["dog"]) == {"em": 0, "f1": 0, "prec": 0, "recall": 0}
    assert score("", ["dog"]) == {"em": 0, "f1": 0, "prec": 0, "recall": 0}


def test_each_measure_is_the_best_over_the_aliases():
    scores = score("New York City", ["New York", "New York City in the state of New York"])
    assert scores["recall"] == 1
    assert scores["prec"] == 1
    assert scores["em"] == 0
    assert score("the Big Apple!", ["New York", "Big apple"]) == {"em": 1, "f1": 1, "prec": 1, "recall": 1}


@pytest.mark.parametrize(("prediction", "answer"), [("yes", "yes it is"), ("yes it is", "yes"), ("no", "no one")])
def test_yes_and_no_count_only_when_they_are_equal(prediction, answer):
    assert score(prediction, [answer])["f1"] == 0
    assert score("Yes.", ["yes"])["f1"] == 1


def test_a_sentence_may_hold_the_answer():
    assert holds("The capital of France is Paris", ["Lutetia", "paris"])
    assert holds("There are 7 days in a week.", ["seven", "7 days"])
    assert not holds("There are 17 days in a week", ["7 days", "week day"])
    assert not holds("", ["Paris"])
