"""What the checks say of a file of augmented data, whoever made it."""

import json

import pytest

import tiny
from lorary.augment import gather, quality
from lorary.core.errors import LoraryError
from lorary.raw import table
from lorary.raw.passages import RawPassage

TITLE, TEXT = tiny.tower(0)
GOOD = [
    {"question": "Which river does Ambera Light stand on?", "answer": "Asquill", "full_answer": "Asquill."},
    {"question": "How tall is the tower of Ambera Light?", "answer": "20 metres", "full_answer": "20 metres."},
]
BAD = {"question": "What is it?", "answer": "a lighthouse", "full_answer": "A lighthouse."}
REWRITE = TEXT.replace("stands on the river Asquill", "is found beside the Asquill, a river").replace(" tall", " high")


def row(pairs, rewrite, question="Who built it?", text=TEXT, **more):
    passage = {"passage": text, "aug_rewrite": rewrite, "aug_qa": pairs, **more}
    return {"question": question, "answer": ["x"] if question else [], "passages": [text], "augment": [passage]}


@pytest.fixture
def said(tmp_path):
    def said(*rows):
        return quality.describe([str(tiny.write_rows(tmp_path / "total.json", list(rows)))], "aug").splitlines()[1:]

    return said


def test_pairs_and_rewrites_are_counted_and_faults_are_named(said):
    lines = said(row([*GOOD, BAD], REWRITE))
    assert lines[0] == "2 of 3 pairs stand the checks (67 %)"
    assert lines[1].startswith("  1 ")
    assert lines[2] == "1 of 1 rewrites keep the facts (100 %)"
    lines = said(row(GOOD, REWRITE.replace("20", "21")))
    assert lines[0] == "2 of 2 pairs stand the checks (100 %)"
    assert lines[1] == "0 of 1 rewrites keep the facts (0 %)"
    assert lines[2] in ("  1 loses", "  1 invents")


def test_what_a_question_is_about_may_be_in_the_title_alone(said):
    text = TEXT.replace("Ambera stands", "It stands")
    pair = {"question": "How tall is Zorrun Light?", "answer": "20 metres", "full_answer": "20 metres."}
    assert said(row([pair], text, text=text))[0].startswith("0 of 1 pairs")
    assert said(row([pair], text, text=text, title="Zorrun Light"))[0].startswith("1 of 1 pairs")
    assert said(row([pair], text, text=text, title=7))[0].startswith("0 of 1 pairs")


def test_the_same_question_twice_is_a_fault_and_the_same_passage_twice_is_not(said):
    assert "  1 asked before" in said(row([GOOD[0], GOOD[0]], REWRITE))
    assert said(row(GOOD, REWRITE), row(GOOD, REWRITE, "Another?")) == said(row(GOOD, REWRITE))


def test_a_passage_that_stands_in_for_its_rewrite_is_no_rewrite(said):
    assert said(row(GOOD, TEXT))[-1] == "0 of 0 rewrites keep the facts"


def test_null_questions_failed_passages_and_answers_of_numbers_are_read(said):
    failed = row([], TEXT, None, error="its prompt is too long")
    number = row([{**GOOD[1], "answer": 20}], REWRITE, None)
    assert said(failed, number)[0] == "1 of 1 pairs stand the checks (100 %)"
    assert said(failed)[0] == "0 of 0 pairs stand the checks"


def test_several_files_are_counted_together_and_a_passage_of_both_once(tmp_path):
    one, other = (tiny.write_rows(tmp_path / name, [row([*GOOD, BAD], REWRITE)]) for name in ("a.json", "b.json"))
    tiny.write_rows(other, [row([*GOOD, BAD], REWRITE), row(GOOD, TEXT)])
    found = quality.measure([str(one), str(other)], "aug")
    assert (found["passages"], found["pairs"]["all"], found["pairs"]["good"]) == (2, 5, 4)
    assert found["rewrites"] == {"all": 1, "good": 1, "faults": {}}


def test_a_file_that_is_none_is_refused(tmp_path, said):
    with pytest.raises(LoraryError, match=r"gone\.json: cannot be read"):
        quality.describe([str(tmp_path / "gone.json")], "aug")
    with pytest.raises(LoraryError, match="other_rewrite"):
        quality.describe([str(tiny.write_rows(tmp_path / "total.json", [row(GOOD, REWRITE)]))], "other")


def test_what_lorary_makes_is_read(tmp_path):
    passage = {"did": 0, "pid": 0, "passage": RawPassage(TEXT, TITLE)}
    table.save(iter([{**passage, "question": None, "answers": [], "question_extra": {}}]), str(tmp_path / "raw"))
    line = {"did": 0, "pid": 0, "error": "too long"}
    (tmp_path / "part").write_text(json.dumps(line) + "\n", encoding="utf-8")
    names = (str(tmp_path / name) for name in ("total.json", "total.tsv"))
    gather.gather(str(tmp_path / "raw"), [str(tmp_path / "part")], *names, "aug", 3)
    assert quality.describe([str(tmp_path / "total.json")], "aug").endswith("0 of 0 rewrites keep the facts")
