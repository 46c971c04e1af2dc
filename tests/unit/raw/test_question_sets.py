"""Sets of questions: each known by its content, and what is wrong told by its place."""

import json

import pandas as pd
import pytest

from lorary.core.errors import LoraryError
from lorary.raw.question_sets import Question, count, files, load

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
    assert "line 3: o_aliases: expected a list of texts" in refusal(tmp_path / "popQA.tsv", code.encode())


def test_complex_web_questions(tmp_path):
    ann = {"answer": "Ann", "aliases": ["A.", "Ann"], "answer_id": "m.1"}
    rows = [
        complex_web(0, "composition", [ann, {"answer": "Bob", "aliases": []}]),
        complex_web(1, "conjunction", [{"answer": None, "aliases": ["Eve"]}]),
        complex_web(2, "composition", [ann]),
    ]
    path = write(tmp_path / "ComplexWebQuestions_dev.json", rows)
    assert load(path) == {
        "composition": [
            Question("q0?", ["Ann", "A.", "Bob"], {"qid": "cwq-0", "test_id": 0}),
            Question("q2?", ["Ann", "A."], {"qid": "cwq-2", "test_id": 2}),
        ],
        "conjunction": [Question("q1?", ["Eve"], {"qid": "cwq-1", "test_id": 1})],
    }
    assert count(path, 1) == {"composition": 1, "conjunction": 1}


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
        "PATH: the questions have 2 faults:",
        "  question 0: supporting_facts, context: expected [title, sentence] of [title, sentences], found 'Nowhere'",
        '  question 1: type: expected what may be a folder\'s name (letters, digits and ._+=@-), found "a/b"',
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
        'question: expected text, found "\\ud800"',
        'expected an object with question and answer, found "Q?"',
        'question: expected text, found ["Q?"]',
    ]
    for content, word, first in ((rows, "question", 0), (lines(rows), "line", 1)):
        assert refusal(tmp_path / "q", content).splitlines() == [
            "PATH: the questions have 9 faults:",
            *(f"  {word} {number}: {fault}" for number, fault in enumerate(expected, start=first)),
        ]
    twice = b'[{"question": "a?", "question": "b?", "answer": "c"}]'
    assert "  question 0: question: this key is given twice" in refusal(tmp_path / "q", twice)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "PATH: this file is empty."),
        (b" \n", "PATH: this file is empty."),
        (b"[]", "PATH: there is no question in this file."),
        (b"question,answer\n", "PATH: there is no question in this file."),
        (b"[{]", "PATH: this is not JSON (Expecting property name"),
        (b'{"question": "a?", "answer": "b"}\n{"', "PATH, line 2: this is not JSON"),
        (b'[{"question": "a?", "answer": NaN}]', "PATH: this is not JSON (NaN is no JSON value)."),
        ("question,answer\nWo?,Köln\n".encode("latin-1"), "PATH: this is not UTF-8 (the byte at 21); save it again"),
        (json.dumps(PLAIN).encode("utf-16"), "PATH: this is not UTF-8 (the byte at 0)"),
        (b"frage,antwort\nWo?,Hier\n", "PATH: expected a table with the columns question and answer (or obj), found"),
        (b"question,answer,answer\nWo?,a,b\n", "PATH: the column answer is given twice."),
        (b"question,answer\nWo?,a\nWo?,a,b\n", "PATH, line 3: expected 2 columns, found 3."),
        (b'question,answer\nWo?,"a\n', "PATH, line 2: this is no table (unexpected end of data)."),
        (b"PAR1 and no more", "PATH: this is no Parquet file that can be read ("),
        (b"[" * 100_000, "PATH: this is not JSON ("),
    ],
)
def test_what_is_no_set_of_questions(tmp_path, content, words):
    assert refusal(tmp_path / "q", content).startswith(words)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(LoraryError, match=r"none\.json: cannot be read \(No such file or directory\)"):
        load(str(tmp_path / "none.json"))


def test_only_what_is_taken_is_read_closely(tmp_path):
    """A set of which the first questions are wanted may have faults behind them."""
    path = write(tmp_path / "q", [*PLAIN, {"question": "Q?"}])
    assert count(path, 2) == {"total": 2}
    with pytest.raises(LoraryError, match="question 2: answer: this is missing"):
        count(path, 3)
