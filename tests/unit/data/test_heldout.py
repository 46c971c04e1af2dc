"""What is kept out of training, and questions that people write: what a file may hold, and what of it is asked."""

import json
import re

import pytest

import tiny
from lorary.answer.score import cut, normalise
from lorary.core.errors import LoraryError
from lorary.data import heldout, prompts
from lorary.data import rows as dataset

GENERAL = tiny.ROOT / "resources/general_questions.json"
DEMO = tiny.DEMO.parents[2] / "heldout.json"
GOOD = {"did": 0, "pid": 1, "kind": "paraphrase", "question": "Who?", "answer": "She"}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("pairs", "heldout_pairs", "kept"), [(3, 0, 0), (3, 1, 1), (3, 2, 2), (3, 3, 2), (3, 9, 2), (1, 1, 0), (0, 1, 0)]
)
def test_the_last_pairs_are_kept_out_and_one_remains(pairs, heldout_pairs, kept):
    whole = list(range(pairs))
    assert heldout.kept(whole, heldout_pairs) == whole[pairs - kept :]
    assert heldout.trained(whole, heldout_pairs) == whole[: pairs - kept]


def test_no_prompt_ids_have_a_pair_that_is_kept_out(tmp_path):
    tiny.make_tokenizer(tmp_path / "model")
    prompter = prompts.load_prompter(str(tmp_path / "model"), tiny.PROMPTS)
    rows = dataset.load_all([tiny.write_rows(tmp_path / "total.json", tiny.make_rows(2, pairs=4))], -1, "aug")
    for row in rows:
        for i, pair in enumerate(row["pairs"]):  # as no other text
            pair |= {"question": f"Question {i} {row['did']}{row['pid']}?", "answer": f"answer{i}{row['did']}"}
    table = prompts.build(heldout.training_rows(rows, 2), prompter, 3000).to_pylist()
    for row in rows:
        own = [line for line in table if (line["did"], line["pid"]) == (row["did"], row["pid"])]
        text = "".join(prompter.tokenizer.decode(line["input_ids"]) for line in own)
        for i, pair in enumerate(row["pairs"]):
            assert (pair["question"] in text) == (pair["answer"] in text) == (i < 2)
        # as where there were just these
        alone = prompts.build([{**row, "pairs": row["pairs"][:2]}], prompter, 3000).to_pylist()
        assert [line["input_ids"] for line in own] == [line["input_ids"] for line in alone]
        assert len(own) == 3  # the first with its passage and its rewrite
    assert all(len(row["pairs"]) == 4 for row in rows)  # which are as they were


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is not a list of questions with at least one entry"),
        (GOOD, "is not a list of questions"),
        ([GOOD, 3], "entry 1, expected an object, found 3"),
        ('[{"did": 0, "did": 1}]', "did is given twice"),
        ([{**GOOD, "did": -1}], "entry 0, did: expected a whole number from 0, found -1"),
        ([{**GOOD, "pid": True}], "entry 0, pid: expected a whole number from 0, found true"),
        ([{**GOOD, "kind": "general"}], 'entry 0, kind: expected paraphrase or untrained, found "general"'),
        ([GOOD, {**GOOD, "question": " "}], 'entry 1, question: expected text, found " "'),
        ([{**GOOD, "answer": []}], "entry 0, answer: expected text, or a list of texts, found []"),
        ([{**GOOD, "answer": ["a", 3]}], 'entry 0, answer: expected text, or a list of texts, found ["a", 3]'),
        ([{**GOOD, "type": 3}], "entry 0, type: expected text, found 3"),
        ([{**GOOD, "anwser": "x"}], "entry 0, anwser: unknown key"),
        ([{"question": "Who?", "answer": "x"}], "entry 0, did: expected a whole number from 0, found nothing"),
        ([{**GOOD, "question": "\ud800"}], "entry 0, question: expected text"),
    ],
)
def test_faults_of_written_questions(tmp_path, content, fault):
    path = write(tmp_path / "mine.json", content)
    with pytest.raises(LoraryError, match=f"(?s)heldout_questions: {re.escape(path)} .*{re.escape(fault)}"):
        heldout.read_written(path)


def test_faults_of_general_questions_and_of_a_file_that_is_not_there(tmp_path):
    path = write(tmp_path / "general.json", [{"question": "Who?", "answer": "She", "did": 0}])
    with pytest.raises(LoraryError, match=r"(?s)general_questions: .*entry 0, did: unknown key"):
        heldout.read_general(path)
    with pytest.raises(LoraryError, match=r"general_questions: .*none\.json cannot be read"):
        heldout.read_general(str(tmp_path / "none.json"))


def asked(path, entries, kind, counts, types=("total",), sampled=False):
    return heldout.of_type(write(path, entries), kind, counts, list(types), sampled)


def test_questions_are_asked_of_the_passages_that_they_name(tmp_path):
    path = tmp_path / "mine.json"
    both = [GOOD, GOOD, {**GOOD, "did": 2, "pid": 0}]
    assert asked(path, both, "total", [2, 1, 1]) == {(0, 1): 2, (2, 0): 1}
    typed = [{**GOOD, "type": "a"}, {**GOOD, "type": "b", "pid": 0}]
    assert asked(path, typed, "b", [1], "ab") == {(0, 0): 1}
    assert asked(path, typed, "a", [2], "ab") == {(0, 1): 1}
    assert asked(path, both, "total", [2, 1], sampled=True) == {(0, 1): 2}  # which ends before the third


@pytest.mark.parametrize(
    ("entry", "kind", "counts", "types", "fault"),
    [
        ({"did": 3}, "total", [2, 2, 2], ["total"], "did: total has no question 3; its last one is 2"),
        ({"pid": 2}, "total", [2], ["total"], "pid: question 0 of total has no passage 2; its last one is 1"),
        ({"type": None}, "a", [2], ["a", "b"], "type: missing, and the data have the types a, b"),
        ({"type": "c"}, "a", [2], ["a", "b"], "type: there is no c; there is a, b"),
    ],
)
def test_a_question_about_what_is_not_there_is_refused(tmp_path, entry, kind, counts, types, fault):
    about = {key: value for key, value in {**GOOD, "type": kind, **entry}.items() if value is not None}
    with pytest.raises(LoraryError, match=f"(?s)mine.json asks about what is not there:.*entry 1, {re.escape(fault)}"):
        asked(tmp_path / "mine.json", [{**GOOD, "type": kind}, about], kind, counts, types)


def test_what_comes_with_the_project():
    """General questions that are short and can be scored; of the demo, six questions for each of its passages, in words
    that no pair and no question of the data uses."""
    general = heldout.read_general(str(GENERAL))
    assert len({entry["question"] for entry in general}) == len(general) == 60
    rows = json.loads(tiny.DEMO.read_text(encoding="utf-8"))
    written = heldout.read_written(str(DEMO))
    assert all(cut(answer, False) == answer for entry in [*general, *written] for answer in entry["answers"])
    heldout.of_type(str(DEMO), "total", [len(row["augment"]) for row in rows], ["total"], False)
    pairs = {(d, p): a[f"{tiny.DEMO.parent.name}_qa"] for d, r in enumerate(rows) for p, a in enumerate(r["augment"])}
    used = {row["question"] for row in rows} | {pair["question"] for some in pairs.values() for pair in some}
    assert not used & {entry["question"] for entry in written}
    passages = {}
    for entry in written:
        passages.setdefault((entry["did"], entry["pid"]), []).append(entry)
    texts = {rows[did]["augment"][pid]["passage"] for did, pid in passages}
    assert texts == {augment["passage"] for row in rows for augment in row["augment"]}  # each of the twelve
    assert len(passages) == len(texts) == 12
    for (did, pid), entries in passages.items():
        text, trained = rows[did]["augment"][pid]["passage"], pairs[did, pid]
        answers = {kind: [e["answers"] for e in entries if e["kind"] == kind] for kind in heldout.WRITTEN}
        assert {normalise(some[0]) for some in answers["paraphrase"]} == {normalise(p["answer"]) for p in trained}
        assert len(answers["untrained"]) == 3
        for answer in (answer for some in answers["untrained"] for answer in some):
            assert answer.lower() in text.lower()
            told = [f" {normalise(pair['question'])} {normalise(pair['answer'])} " for pair in trained]
            assert not [text for text in told if f" {normalise(answer)} " in text]
