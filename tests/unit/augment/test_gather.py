"""Results put together: augmented data as Lorary and PRAG read them, and the table of how they came about."""

import csv
import json

import pytest

from lorary.augment import gather
from lorary.core.errors import LoraryError
from lorary.data import rows
from lorary.raw import table
from lorary.raw.passages import RawPassage

PAIR = {"question": "Who?", "answer": "Ildra", "full_answer": "Ildra did."}
NOTES = {"tries": 1, "asked": 5, "requests": 17, "prompt_tokens": 170, "tokens": 68, "known": 0, "rejected": []}


def result(**changes):
    return {
        "rewrite": "Another text.",
        "rewritten": True,
        "pairs": [PAIR, PAIR],
        "notes": {**NOTES, "faults": {"asked before": 2}, "rewrite_faults": ["loses 1887"]},
        "made": {"model": "fake", "device": "server", "seconds": 0.5, "date": "2026-01-01"},
        "made_by": {"rewrite": "model", "pairs": "model"},
        **changes,
    }


def asked(did, passages, question="Who built it?", extra=None):
    row = {"question": question, "answers": ["Ildra"] if question else [], "question_extra": extra or {}}
    return [{"did": did, "pid": pid, "passage": passage, **row} for pid, passage in enumerate(passages)]


@pytest.fixture
def made(tmp_path):
    """`made(rows, results, size)` puts them together, from parts of so many passages. Returns what is read of it: the
    JSON, the lines of the TSV."""

    def made(brought, results, size=100, wanted=2):
        raw, data, about = (str(tmp_path / name) for name in ("raw.parquet", "total.json", "total.tsv"))
        table.save(iter(brought), raw)
        parts = []
        for start in range(0, len(results), size):
            parts.append(tmp_path / f"{start}.jsonl")
            places = [{name: row[name] for name in ("did", "pid")} for row in brought]
            whole = [{**place, **one} for place, one in zip(places, results, strict=True)]
            lines = [json.dumps(one, ensure_ascii=False) for one in whole[start:][:size]]
            parts[-1].write_text("\n".join([*lines, ""]), encoding="utf-8")
        gather.gather(raw, map(str, parts), data, about, "aug", wanted)
        with open(about, encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
        return json.loads((tmp_path / "total.json").read_text(encoding="utf-8")), lines

    made.data = tmp_path / "total.json"
    made.about = tmp_path / "total.tsv"
    return made


def read(made):
    return rows.load_all([made.data], -1, "aug")


@pytest.mark.parametrize("size", [1, 2, 100])
def test_questions_with_their_passages_are_read_as_any_augmented_data(made, size):
    brought = asked(0, [RawPassage("One."), RawPassage("Two.")]) + asked(1, [RawPassage("Three.")], "When?")
    data, _ = made(brought, [result(rewrite=str(i)) for i in range(3)], size)
    assert [row["question"] for row in data] == ["Who built it?", "When?"]
    assert data[0]["passages"] == ["One.", "Two."]
    table = read(made)
    assert [(row["did"], row["pid"], row["passage"], row["rewrite"]) for row in table] == [
        (0, 0, "One.", "0"),
        (0, 1, "Two.", "1"),
        (1, 0, "Three.", "2"),
    ]
    assert table[0]["answers"] == ["Ildra"]
    assert table[0]["pairs"] == [PAIR, PAIR]


def test_where_nobody_asks_the_question_is_null(made):
    data, _ = made(asked(0, [RawPassage("One.")], None) + asked(1, [RawPassage("Two.")], None), [result(), result()])
    assert [(row["question"], row["answer"]) for row in data] == [(None, []), (None, [])]
    assert [row["question"] for row in read(made)] == [None, None]


def test_a_passage_that_failed_is_read_as_one(made):
    brought = asked(0, [RawPassage("One.\tand\u2028more"), RawPassage("Two.")], None)
    _, lines = made(brought, [{"error": "too long:\n\r\tfor it"}, result()])
    first, second = read(made)
    assert (first["error"], first["pairs"], first["rewrite"]) == ("too long:\n\r\tfor it", [], "One.\tand\u2028more")
    assert (second["error"], second["pairs"]) == (None, [PAIR, PAIR])
    assert (lines[0]["error"], lines[0]["pairs"], lines[0]["pairs_by"]) == ("too long: for it", "0", "")
    assert (lines[1]["error"], lines[1]["pairs"], lines[1]["wanted"]) == ("", "2", "2")


# What people's own columns are called.
OURS = ["pid", "title", "passage", "aug_rewrite", "aug_qa", "made_by", "error"]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("value", ["7", None, ["x"]], ids=str)
def test_no_column_of_a_table_takes_the_place_of_ours_and_none_is_lost(made, name, value):
    rows, results = asked(0, [RawPassage("One.", "Title", {"id": "a"}), RawPassage("Two.")], None), [result(), result()]
    plain, _ = made(rows, results)
    rows[0]["passage"].extra[name] = value
    data, _ = made(rows, results)
    assert data[0]["augment"] == [{**plain[0]["augment"][0], f"{name}_": value}, plain[0]["augment"][1]]
    first, _ = read(made)
    assert (first["error"], first["passage"], first["pairs"]) == (None, "One.", [PAIR, PAIR])
    assert json.loads(first["extra"])["passage"]["id"] == "a"


@pytest.mark.parametrize("name", ["question", "answer", "passages", "augment"])
def test_nothing_that_a_question_carries_takes_the_place_of_ours(made, name):
    data, _ = made(asked(0, [RawPassage("One.")], extra={"qid": "q1", name: ["x"]}), [result()])
    assert data[0]["passages"] == ["One."]
    assert data[0]["qid"] == "q1"
    (row,) = read(made)
    assert (row["question"], row["answers"], row["passages"]) == ("Who built it?", ["Ildra"], ["One."])


def test_every_passage_has_one_line_whatever_its_texts_hold(made):
    nasty = 'a\nb\r\nc\rd\x0be\x0cf\x1cg\x85h\u2028i\u2029j\tk"l"'
    strange = result(
        notes={**NOTES, "faults": {nasty: 1}, "rewrite_faults": [nasty]},
        made={"model": nasty, "device": nasty, "seconds": 1, "date": "2026-01-01"},
    )
    _, lines = made(asked(0, [RawPassage(nasty, nasty)] * 3), [strange, {"error": nasty}, result()])
    content = made.about.read_text(encoding="utf-8")
    assert len(content.split("\n")) == 1 + 3 + 1
    assert len(content.splitlines()) == 1 + 3
    assert lines[0]["title"] == 'a b c d e f g h i j k"l"'
    assert lines[1]["error"] == lines[0]["title"]


def test_the_table_says_who_made_what(made):
    by_rule = result(pairs=[PAIR], made_by={"rewrite": "passage", "pairs": "rule"})
    good = {"question": "Who built Ormvalk Light?", "answer": "Ildra", "full_answer": "Ildra did."}
    passage = RawPassage("Ildra built Ormvalk Light.")
    _, lines = made(asked(0, [passage] * 2), [result(pairs=[good, PAIR]), by_rule], wanted=4)
    assert list(lines[0]) == gather.COLUMNS
    assert [line["clean"] for line in lines] == ["1", "0"]  # nobody knows who "Who?" is about
    assert [(line["pairs_by"], line["rewrite_by"]) for line in lines] == [("model", "model"), ("rule", "passage")]
    wanted = {"words": "4", "wanted": "4", "faults": "asked before: 2", "rewrite_faults": "loses 1887", "tokens": "68"}
    assert {name: lines[0][name] for name in wanted} == wanted


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]\n",
        '{"did": 0, "pi',
        '{"did": 0}\n',
        '{"did": 1, "pid": 0, "error": "x"}\n',
        '{"did": 0, "pid": 0, "error": "x"}\n' * 2,
    ],
)
def test_a_part_that_is_not_of_these_passages_is_named_and_nothing_is_written(made, tmp_path, content):
    raw, part = str(tmp_path / "raw.parquet"), tmp_path / "0-0.jsonl"
    table.save(iter(asked(0, [RawPassage("One.")])), raw)
    part.write_text(content, encoding="utf-8")
    with pytest.raises(LoraryError, match=r"0-0\.jsonl is damaged"):
        gather.gather(raw, [str(part)], str(made.data), str(made.about), "aug", 2)
    assert not made.data.exists()
    assert not made.about.exists()
    assert not list(tmp_path.glob(".*"))
