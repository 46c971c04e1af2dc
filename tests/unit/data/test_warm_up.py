"""Data of a warm-up: which questions of a set become pairs, what is left out, and what nobody's data are lost by."""

import json
import sys

import pytest

from lorary import __main__
from lorary.core.errors import LoraryError
from lorary.data import rows, warm_up


@pytest.fixture
def write(tmp_path):
    """Write the warm-up of sets of questions, and return what was said and the questions of its pairs."""

    def write(*sets, after=2, take=None):
        paths = []
        for i, content in enumerate(sets):
            paths.append(str(tmp_path / f"set{i}.json"))
            (tmp_path / f"set{i}.json").write_text(json.dumps(content), encoding="utf-8")
        said = warm_up.write(paths, after, take, str(tmp_path / "data"), "toy", "none")
        return said, [pair["question"] for pair in pairs_there(tmp_path)]

    return write


def pairs_there(tmp_path):
    (row,) = rows.load_all([tmp_path / "data/toy/none/total.json"], -1, "none")
    assert (row["question"], row["answers"], row["passages"]) == (None, [], [None])
    return row["pairs"]


def plain(*questions, answer="a"):
    return [{"question": question, "answer": answer} for question in questions]


def bridges(*kinds):
    """Of HotpotQA, each of one of two types."""
    return [
        {"question": f"q{i}", "answer": "a", "type": kind, "supporting_facts": [], "context": []}
        for i, kind in enumerate(kinds)
    ]


def test_the_first_right_answer_without_passages(write, tmp_path):
    set_ = [*plain("q0", "q1", "q2", answer=["one", "two"]), {"question": "q3", "answer": "x", "full_answer": "So, x"}]
    said, questions = write(set_, after=1)
    assert said == f"{tmp_path}/data/toy/none/total.json: 3 questions, without passages"
    assert questions == ["q1", "q2", "q3"]
    assert pairs_there(tmp_path)[1:] == [
        {"question": "q2", "answer": "one", "full_answer": "one"},
        {"question": "q3", "answer": "x", "full_answer": "So, x"},
    ]


def test_the_first_of_each_type_are_for_testing_and_the_others_stay_in_order(write):
    assert write(bridges(*"bbcbcbc"), after=2)[1] == ["q3", "q5", "q6"]
    assert write(bridges(*"bbcbcbc"), after=2, take=2)[1] == ["q3", "q5"]
    assert write(bridges(*"bbcbb"), after=0)[1] == ["q0", "q1", "q2", "q3", "q4"]


def test_so_many_of_each_file(write):
    assert write(plain(*"abcd"), plain(*"efg"), after=1, take=2)[1] == ["b", "c", "f", "g"]


def test_what_is_asked_among_the_first_is_left_out(write):
    """In another set and another writing too."""
    said, questions = write(plain("Who  is it?", "b", "c"), plain("d", "e", "who is it ", "f", "B?"), after=2)
    assert questions == ["c", "f"]
    assert said.splitlines()[1:] == ["2 questions left out: also asked among the first 2"]


@pytest.mark.parametrize("set_", [plain("a", "b"), plain("a", "b", "A", "b?")], ids=["none behind", "all asked before"])
def test_where_nothing_remains(write, tmp_path, set_):
    with pytest.raises(
        LoraryError, match=rf"set1.json: no question remains behind the first 2 .* \(total {len(set_)}\)"
    ):
        write(plain("x", "y", "z"), set_)
    assert not (tmp_path / "data").exists()


def test_a_full_answer_is_text(write):
    set_ = [*plain("a", "b", "c"), {"question": "d", "answer": "x", "full_answer": 3}]
    set_[2]["full_answer"] = None
    with pytest.raises(LoraryError, match=r"1 fault:\n  question 3: full_answer: expected text, found 3$"):
        write(set_)


def test_the_same_data_are_left_as_they_are_and_others_replaced(write, tmp_path):
    write(plain(*"abcd"))
    file = tmp_path / "data/toy/none/total.json"
    before = file.stat().st_mtime_ns, file.stat().st_ino
    write(plain(*"abcd"))
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before
    assert write(plain(*"abcde"))[1] == ["c", "d", "e"]
    assert [path.name for path in file.parent.iterdir()] == ["total.json"]


@pytest.mark.parametrize("content", ["[", "[]", '[{"question": "q", "passages": ["p"]}]', "\xff"])
def test_augmented_data_of_passages_are_not_written_over(write, tmp_path, content):
    file = tmp_path / "data/toy/none/total.json"
    file.parent.mkdir(parents=True)
    file.write_text(content, encoding="latin-1")
    with pytest.raises(LoraryError, match=r"is no warm-up's\. Choose another --out"):
        write(plain(*"abcd"))
    assert file.read_text(encoding="latin-1") == content


def test_names_that_are_no_folder(tmp_path):
    with pytest.raises(LoraryError, match=r"at most 64 letters.*:\n  --dataset: '../x'\n  --augment-model: ''"):
        warm_up.write([], 0, None, str(tmp_path), "../x", "")


def test_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.json").write_text(json.dumps(plain(*map(str, range(302)))), encoding="utf-8")
    command = ["lorary", "warm-up", "mine.json", "--out", "data", "--dataset", "toy", "--augment-model", "none"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", command)
    assert __main__.main() == 0
    assert capsys.readouterr().out == "data/toy/none/total.json: 2 questions, without passages\n"
    monkeypatch.setattr(sys, "argv", [*command, "--after", "302"])
    assert __main__.main() == 1
    assert "no question remains behind the first 302" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*command, "--after", "-1"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "a whole number from 0" in capsys.readouterr().err
