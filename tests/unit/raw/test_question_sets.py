"""Sets of questions: each known by its content, and what is wrong told by its place."""

import datetime
import decimal
import json
import os

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorary.core.errors import LoraryError
from lorary.raw import question_sets
from lorary.raw.question_sets import Question, files, load

PLAIN = [{"question": "Who?", "answer": "Ann"}, {"question": "Where?", "answer": ["here", "there", "here"], "tag": 3}]
AS_PLAIN = [Question("Who?", ["Ann"], {"test_id": 0}), Question("Where?", ["here", "there"], {"tag": 3, "test_id": 1})]


def multi_hop(number, kind, **more):
    """A row as HotpotQA and 2WikiMultihopQA have them."""
    context = [["Onnet", ["It flows.", " It ends."]], ["Other", ["Nothing."]], ["Drauvenel", ["Keys."]]]
    facts = [["Drauvenel", 0], ["Onnet", 0], ["Onnet", 1]]
    row = {"_id": f"id{number}", "question": f"q{number}?", "answer": "yes", "type": kind}
    return {**row, "context": context, "supporting_facts": facts, "level": "hard", **more}


def complex_web(number, kind, answers):
    return {"ID": f"cwq-{number}", "question": f"q{number}?", "answers": answers, "compositionality_type": kind}


def count(path, sample=-1):
    return question_sets.count(str(path), sample, os.path.join(os.path.dirname(path), "cache"))


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def refusal(path, content, sample=-1):
    told = []
    for function in (load, count):
        with pytest.raises(LoraryError) as caught:
            function(write(path, content), sample)
        told.append(str(caught.value).replace(str(path), "PATH"))
        told[-1].encode()
    assert told[0] == told[1]
    return told[0]


@pytest.mark.parametrize("name", ["q.json", "q.tsv", "q"])  # the name says nothing
def test_a_plain_list_in_every_form(tmp_path, name):
    path = tmp_path / name
    for content in (PLAIN, lines(PLAIN), lines(PLAIN).replace(b"\n", b"\r\n\r\n"), b"\xef\xbb\xbf" + lines(PLAIN)):
        assert load(write(path, content)) == {"total": AS_PLAIN}
        assert count(str(path)) == {"total": 2}
    assert load(str(path), 1) == {"total": AS_PLAIN[:1]}
    assert count(str(path), 1) == {"total": 1}


def test_a_table_in_every_form(tmp_path):
    path = tmp_path / "q"
    text = 'question,answer,tag\nWho?,Ann,x\n"Where, and ""when""?\nSay.","[""a"", ""b""]",y\nWhat?,[sic] a,z\n'
    expected = [
        Question("Who?", ["Ann"], {"tag": "x", "test_id": 0}),
        Question('Where, and "when"?\nSay.', ["a", "b"], {"tag": "y", "test_id": 1}),
        Question("What?", ["[sic] a"], {"tag": "z", "test_id": 2}),
    ]
    for content in (text, text.replace("\n", "\r\n").replace("?\r\n", "?\n"), text.rstrip()):
        assert load(write(path, content.encode())) == {"total": expected}
    tabs = "question\tanswer\nWho, or what?\tA, b\n"
    assert load(write(path, tabs.encode()))["total"] == [Question("Who, or what?", ["A, b"], {"test_id": 0})]
    pd.DataFrame(PLAIN[:1]).to_parquet(path)
    assert load(str(path)) == {"total": AS_PLAIN[:1]}
    pd.DataFrame({"question": ["Where?"], "answer": [["here", "there"]], "tag": [3]}).to_parquet(path)
    assert load(str(path))["total"] == [Question("Where?", ["here", "there"], {"tag": 3, "test_id": 0})]


def test_popqa(tmp_path):
    text = (
        "id\tsubj\tobj\to_aliases\tpossible_answers\tquestion\n"
        '42\tAnn\tpolitician\t"[""leader"", ""pol""]"\t"[""politician"", ""leader""]"\tWhat does Ann do?\n'
        "43\tBob\tcook\t['chef', \"d'or\"]\t\tWhat does Bob do?\n"
        "44\tEve\tspy\t[]\t[]\tWhat does Eve do?\n"
    )
    assert load(write(tmp_path / "popQA.tsv", text.encode())) == {
        "total": [
            Question("What does Ann do?", ["politician", "leader", "pol"], {"qid": "42", "test_id": 0}),
            Question("What does Bob do?", ["cook", "chef", "d'or"], {"qid": "43", "test_id": 1}),
            Question("What does Eve do?", ["spy"], {"qid": "44", "test_id": 2}),
        ]
    }
    code = text.replace("['chef', \"d'or\"]", "__import__('os').abort()")
    assert "row 2 (line 3): o_aliases: expected a list of texts" in refusal(tmp_path / "popQA.tsv", code.encode())


def test_complex_web_questions(tmp_path):
    ann = {"answer": "Ann", "aliases": ["A.", "Ann"], "answer_id": "m.1"}
    rows = [
        complex_web(0, "composition", [ann, {"answer": "Bob", "aliases": []}]),
        complex_web(1, "conjunction", [{"answer": None, "aliases": ["Eve"]}]),
        complex_web(2, "composition", [ann]),
    ]
    path = write(tmp_path / "ComplexWebQuestions_dev.json", rows)
    assert load(path) == {
        "total": [
            Question("q0?", ["Ann", "A.", "Bob"], {"qid": "cwq-0", "test_id": 0}),
            Question("q1?", ["Eve"], {"qid": "cwq-1", "test_id": 1}),
            Question("q2?", ["Ann", "A."], {"qid": "cwq-2", "test_id": 2}),
        ]
    }
    assert count(path, 1) == {"total": 1}


def test_hotpotqa(tmp_path):
    path = write(tmp_path / "q.json", [multi_hop(0, "bridge"), multi_hop(1, "comparison"), multi_hop(2, "bridge")])
    found = load(path)
    golden = ["Keys.", "It flows. It ends."]
    assert found["comparison"] == [
        Question("q1?", ["yes"], {"qid": "id1", "type": "comparison", "golden_passages": golden, "test_id": 1})
    ]
    assert [question.extra["test_id"] for question in found["bridge"]] == [0, 2]
    assert load(path, 1) == {kind: questions[:1] for kind, questions in found.items()}
    broken = [multi_hop(0, "bridge", supporting_facts=[["Nowhere", 0]]), multi_hop(1, "a/b"), multi_hop(2, "bridge")]
    assert refusal(tmp_path / "q.json", broken).splitlines() == [
        "PATH: 2 faults in these questions:",
        "  row 1: supporting_facts, context: expected [title, sentence] of [title, sentences], found 'Nowhere'",
        '  row 2: type: expected what may be a folder\'s name (letters, digits and ._+=@-), found "a/b"',
    ]


def test_2wikimultihopqa_is_a_folder(tmp_path):
    rows = [multi_hop(0, "comparison", answer_id="Q1"), multi_hop(1, "comparison", answer_id=None)]
    rows.append(multi_hop(2, "comparison", answer_id="Q2"))  # which has no other names
    path = write(tmp_path / "dev.json", rows)
    with pytest.raises(LoraryError, match=r"id_aliases\.json: the answers' other names are not there"):
        load(path)
    assert files(path) == [path]
    write(tmp_path / "id_aliases.json", lines([{"Q_id": "Q1", "aliases": ["Yes", "yes", "Yes"]}]))
    (tmp_path / ".dev.json").touch()
    found = load(str(tmp_path))
    assert found == load(path)
    assert files(str(tmp_path)) == files(path) == [path, str(tmp_path / "id_aliases.json")]
    assert [question.answers for question in found["comparison"]] == [["Yes", "yes"], ["yes"], ["yes"]]
    assert found["comparison"][0].extra["golden_passages"] == ["Keys.", "It flows.  It ends."]
    write(tmp_path / "id_aliases.json", lines([{"Q_id": "Q1"}, {"Q_id": "Q2", "aliases": "a"}]))
    with pytest.raises(LoraryError) as caught:
        load(path)
    assert "line 1: aliases: this is missing; there is Q_id" in str(caught.value)
    assert 'line 2: aliases: expected a list, found "a"' in str(caught.value)


def test_a_folder_names_one_file(tmp_path):
    with pytest.raises(LoraryError, match="there is no file of questions in this folder"):
        load(str(tmp_path))
    for name in ("a.json", "b.csv"):
        write(tmp_path / name, PLAIN)
    with pytest.raises(LoraryError, match=r"several files \(a\.json, b\.csv\) of questions in this folder; name one"):
        load(str(tmp_path))


def test_every_fault_is_told_by_its_place(tmp_path):
    rows = [
        {"question": "Q?", "answer": 3},
        {"question": " ", "answer": "a"},
        {"question": "Q?"},
        {"question": "Q?", "answer": []},
        {"question": "Q?", "answer": ["a", None]},
        {"question": "Q?", "answer": " "},
        {"question": "\ud800", "answer": "a"},
        {"question": "Q?", "answer": "a", "tag": [{"x": "\udfff"}]},
        "Q?",
        {"question": ["Q?"], "answer": "a"},
        {"question": "Q?", "answer": "fine"},
    ]
    expected = [
        "answer: expected text or a list of texts, found 3",
        "question: this is empty",
        "answer: this is missing; there is question",
        "answer: there is none",
        "answer: expected texts that are not empty, found null",
        'answer: expected texts that are not empty, found " "',
        'column "question": half a letter (a lone surrogate), which UTF-8 cannot write. Mend or remove it.',
        'column "tag": half a letter (a lone surrogate), which UTF-8 cannot write. Mend or remove it.',
        'expected an object, found "Q?".',
        'question: expected text, found ["Q?"]',
    ]
    for content, word in ((rows, "row"), (lines(rows), "line")):
        assert refusal(tmp_path / "q", content).splitlines() == [
            "PATH: 10 faults in these questions:",
            *(f"  {word} {number}: {fault}" for number, fault in enumerate(expected, start=1)),
        ]
    twice = b'[{"question": "a?", "question": "b?", "answer": "c"}]'
    assert '  row 1: the key "question" is given twice' in refusal(tmp_path / "q", twice)


def test_lines_and_rows_that_cannot_be_read_are_told_with_the_others(tmp_path):
    content = b'{"question"\n' + lines([{"question": "Q?"}]) + b"[\n" + lines([{"question": "Q?", "answer": "a"}])
    told = refusal(tmp_path / "q", content).splitlines()
    assert told[0] == "PATH: 3 faults in these questions:"
    assert told[1].startswith("  line 1: this is not JSON (")
    assert told[2] == "  line 2: answer: this is missing; there is question"
    assert told[3].startswith("  line 3: this is not JSON (")
    told = refusal(tmp_path / "q", b'question,answer\nWo?,a,b\n ,a\nWo?\n"Wo?,a').splitlines()
    assert [line.partition(". ")[0] for line in told] == [
        "PATH: 4 faults in these questions:",
        "  row 1 (line 2): 3 cells, and the header has 2",
        "  row 2 (line 3): question: this is empty",
        "  row 3 (line 4): 1 cells, and the header has 2",
        "  line 5: unexpected end of data",
    ]


def test_values_of_another_kind_than_a_set_has(tmp_path):
    pop = {"question": "Q?", "obj": "a", "o_aliases": 5}
    assert "row 1: o_aliases: expected a list of texts, found 5" in refusal(tmp_path / "q", [pop])
    assert "row 1: o_aliases: expected a list of texts, found {" in refusal(
        tmp_path / "q", [{**pop, "o_aliases": {"b": 1}}]
    )
    write(tmp_path / "id_aliases.json", lines([{"Q_id": "Q1", "aliases": ["Yes"]}]))
    told = refusal(tmp_path / "q", [multi_hop(0, "comparison", answer_id=["Q1"])])
    assert 'row 1: answer_id: expected text, found ["Q1"]' in told
    halved = multi_hop(0, "comparison", context=[["Onnet", ["\ud800"]], ["Drauvenel", ["Keys."]]])
    assert 'row 1: column "context": half a letter' in refusal(tmp_path / "q", [halved])


def test_cells_of_parquet_become_json(tmp_path):
    more = {"on": datetime.date(2026, 11, 26), "n": decimal.Decimal("1.50"), "bytes": b"x", "score": float("nan")}
    pq.write_table(pa.Table.from_pylist([{"question": "Q?", "answer": ["a"], **more}]), tmp_path / "q")
    [question] = load(str(tmp_path / "q"))["total"]
    assert json.loads(json.dumps(question.extra, allow_nan=False)) == question.extra
    assert question.extra == {"on": "2026-11-26", "n": "1.50", "bytes": "b'x'", "score": None, "test_id": 0}


def test_a_cell_beyond_the_limit_of_csv(tmp_path):
    long = "a" * 200_000
    assert load(write(tmp_path / "q", f"question,answer\nQ?,{long}\n".encode()))["total"][0].answers == [long]


def test_a_set_is_counted_once_and_when_it_changes(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(question_sets, "load", lambda *given: loaded.append(given) or load(*given))
    path = write(tmp_path / "dev.json", [multi_hop(i, kind, answer_id="Q1") for i, kind in enumerate("bab")])
    names = tmp_path / "id_aliases.json"
    write(names, lines([{"Q_id": "Q1", "aliases": ["Yes"]}]))
    for _ in range(2):
        assert list(count(path).items()) == [("b", 2), ("a", 1)]
        assert count(path, 1) == {"b": 1, "a": 1}
    assert len(loaded) == 2
    write(names, lines([{"Q_id": "Q1", "aliases": []}]))
    assert [count(path), len(loaded)] == [{"b": 2, "a": 1}, 3]
    os.utime(path, ns=(1, 1))
    assert [count(path), count(path), len(loaded)] == [{"b": 2, "a": 1}] * 2 + [4]
    for kept in (tmp_path / "cache").rglob("*.json"):
        kept.write_text("{")
    assert [count(path), len(loaded)] == [{"b": 2, "a": 1}, 5]
    write(names, b"{}")
    for _ in range(2):
        with pytest.raises(LoraryError, match="line 1: aliases: this is missing"):
            count(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "PATH: this file is empty."),
        (b" \n", "PATH: this file is empty."),
        (b"[]", "PATH: there is no question in this file."),
        (b"question,answer\n", "PATH: there is no question in this file."),
        (b"[{]", "PATH: 1 fault in these questions:\n  this is not JSON (Expecting property name"),
        (b'{"question": "a?", "answer": "b"}\n{"', "PATH: 1 fault in these questions:\n  line 2: this is not JSON"),
        (b'[{"question": "a?", "answer": NaN}]', "PATH: 1 fault in these questions:\n  this is not JSON (NaN is no"),
        (b'[{"question": "a?", "answer": "b", "n": 1e999}]', "PATH: 1 fault in these questions:\n  this is not JSON"),
        (
            "question,answer\nWo?,Köln\n".encode("latin-1"),
            "PATH: 1 fault in these questions:\n  line 2 is not UTF-8 (byte 0xf6). Convert the file from the encoding"
            " that it has, maybe so: iconv -f WINDOWS-1252 -t UTF-8",
        ),
        (json.dumps(PLAIN).encode("utf-16"), "PATH: 1 fault in these questions:\n  the text is UTF-16, not UTF-8."),
        (
            b"frage,antwort\nWo?,Hier\n",
            "PATH: 1 fault in these questions:\n  line 1: expected the columns question and answer (or obj), found"
            ' ["frage", "antwort"]. The first line names the columns, divided by commas.',
        ),
        (
            b"question,answer,answer\nWo?,a,b\n",
            'PATH: 1 fault in these questions:\n  line 1: two columns are named "answer". Rename or remove one.',
        ),
        (b"PAR1 and no more", "PATH: 1 fault in these questions:\n  this cannot be read as Parquet ("),
        (b"[" * 100_000, "PATH: 1 fault in these questions:\n  this is not JSON ("),
    ],
)
def test_what_is_no_set_of_questions(tmp_path, content, words):
    assert refusal(tmp_path / "q", content).startswith(words)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(LoraryError, match=r"none\.json cannot be read \(No such file or directory\)"):
        load(str(tmp_path / "none.json"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LoraryError, match="pipe is no file that can be read twice"):
        load(str(tmp_path / "pipe"))
    os.mkdir(tmp_path / "folder")
    write(tmp_path / "folder/{q}.json", PLAIN)
    with pytest.raises(LoraryError, match=r"'\{q\}\.json': this name has braces"):
        load(str(tmp_path / "folder"))


def test_only_what_is_taken_is_read_closely(tmp_path):
    """A set of which the first questions are wanted may have faults behind them."""
    path = write(tmp_path / "q", [*PLAIN, {"question": "Q?"}])
    assert count(path, 2) == {"total": 2}
    with pytest.raises(LoraryError, match="row 3: answer: this is missing"):
        count(path, 3)
