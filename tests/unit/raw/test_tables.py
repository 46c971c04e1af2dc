"""Tables of passages: how each kind is read, and how what is wrong with one is told."""

import csv
import datetime
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorary.core.errors import LoraryError
from lorary.raw import tables

ROWS = [
    {"id": "7", "text": 'A "quoted" word,\tand a tab.', "title": "First"},
    {"id": "8", "text": "Zwei\nZeilen, caf\u00e9.", "title": ""},
]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def written(path, rows):
    """Rows as the kind of table that a path's ending says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if path.suffix == ".json":
        return write(path, json.dumps(rows))
    if path.suffix == ".jsonl":
        return write(path, "".join(json.dumps(row) + "\n" for row in rows))
    content = io.StringIO()
    writer = csv.DictWriter(content, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return write(path, content.getvalue())


def count(path):
    return tables.count(str(path), str(path.parent / "cache"))


def refusal(path):
    with pytest.raises(LoraryError) as caught:
        count(path)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), path.name)


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".tsv", ".csv", ".parquet", ".CSV"])
def test_every_kind_is_read_alike(tmp_path, ending):
    path = written(tmp_path / f"t{ending.lower()}", ROWS).rename(tmp_path / f"t{ending}")
    assert count(path) == 2
    passages = list(tables.read(str(path)))
    assert [passage.text for passage in passages] == [row["text"] for row in ROWS]
    assert [passage.title for passage in passages] == ["First", ""]
    assert [passage.extra for passage in passages] == [{"id": "7"}, {"id": "8"}]


def test_dprs_layout(tmp_path):
    content = 'id\ttext\ttitle\n1\t"Fu Manchu said ""no"" (1929)."\tThe Return\n2\tPlain\t"A ""title"""\n'
    passages = list(tables.read(str(write(tmp_path / "psgs.tsv", content))))
    assert [(passage.text, passage.title) for passage in passages] == [
        ('Fu Manchu said "no" (1929).', "The Return"),
        ("Plain", 'A "title"'),
    ]


@pytest.mark.parametrize("column", ["text", "passage", "contents"])
def test_columns_of_the_text(tmp_path, column):
    [passage] = tables.read(str(written(tmp_path / "t.jsonl", [{"contents": "c", "n": [1], column: "Text."}])))
    assert passage.text == "Text."
    assert passage.title == ""
    assert passage.extra == ({"n": [1]} if column == "contents" else {"n": [1], "contents": "c"})


def test_json_lines_may_end_in_json(tmp_path):
    path = write(tmp_path / "t.json", '\ufeff {"text": "One."}\n\n{"text": "Two.", "title": 3}\n')
    assert [(passage.text, passage.title) for passage in tables.read(str(path))] == [("One.", ""), ("Two.", "3")]


def test_cells_of_parquet_become_json(tmp_path):
    row = {"text": "Text.", "on": datetime.date(2026, 11, 26), "score": float("nan"), "bytes": b"x", "list": [1.5]}
    [passage] = tables.read(str(written(tmp_path / "t.parquet", [row])))
    assert json.loads(json.dumps(passage.extra, allow_nan=False)) == passage.extra
    assert passage.extra == {"on": "2026-11-26", "score": None, "bytes": "b'x'", "list": [1.5]}


ROW = st.fixed_dictionaries(
    {"id": st.none(), "text": st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map("x{}".format)},
    optional={"title": st.text(st.characters(exclude_categories=["Cs", "Cc"]))},
)


@given(st.lists(ROW, min_size=1, max_size=5), st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet"]))
def test_any_text_comes_through(tmp_path_factory, rows, ending):
    path = tmp_path_factory.mktemp("any") / f"t{ending}"
    columns = ["id", "text", "title"]
    passages = list(tables.read(str(written(path, [{name: row.get(name, "") for name in columns} for row in rows]))))
    assert [(passage.text, passage.title) for passage in passages] == [
        (row["text"], row.get("title", "")) for row in rows
    ]


LATIN = 'id,text\n1,"a\nb"\n2,caf\u00e9\n'.encode("latin-1")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", '{"text": "x"}\n{"body": "y", "id": 3}\n', ["line 2: no column text", "(there: body, id)"]),
        ("a.jsonl", '{"text": "x"}\n{"text"\n', ["1 fault in this table:", "line 2: this is not JSON"]),
        ("a.jsonl", '{"text": "x", "text": "y"}\n', ['line 1: the key "text" is given twice']),
        ("a.jsonl", '{"text": "x", "n": [{"m": 1, "m": 2}]}\n', ['line 1: the key "m" is given twice']),
        ("a.jsonl", '{"text": "x", "n": NaN}\n', ["line 1: this is not JSON (NaN is no JSON value)"]),
        ("a.jsonl", '{"text": "x", "n": 1e999}\n', ["line 1: this is not JSON (1e999 is too large a number)"]),
        ("a.jsonl", "[" * 100_000, ["this is not JSON"]),
        (
            "a.jsonl",
            '"x"\n["y"]\n',
            ['line 1: expected an object, found "x"', 'line 2: expected an object, found ["y"]'],
        ),
        ("a.jsonl", '{"text": "\\ud800"}\n', ['line 1: column "text": half a letter']),
        ("a.jsonl", '{"text": "x", "n": ["\\udfff"]}\n', ['line 1: column "n": half a letter']),
        (
            "a.jsonl",
            '{"text": 3}\n{"text": null}\n',
            ["line 1: column text: expected a text, found 3", "line 2: column"],
        ),
        ("a.json", '[{"text": "x"}, {"text": " "}]', ["row 2: column text: the text is empty"]),
        ("a.json", '[{"text": "x"}, {"text": "\\ud800"}]', ['row 2: column "text": half a letter']),
        ("a.json", "3", ["line 1: expected an object, found 3"]),
        ("a.json", '[3, {"text": "x", "text": "y"}]', ["row 1: expected an object", 'row 2: the key "text" is given']),
        ("a.json", "[", ["this is not JSON"]),
        ("a.json", "[]", ["has no rows"]),
        ("a.csv", "id,text\n1,x,y\n2\n", ["row 1 (line 2): 3 cells, and the header has 2", "row 2 (line 3): 1 cells"]),
        ("a.csv", 'id,text\n1,"a\nb"\n2,\n', ["row 2 (line 4): column text: the text is empty"]),
        ("a.csv", "id;text\n1;x\n", ["line 1: no column text", "(there: id;text)", "divided by commas"]),
        ("a.csv", "id,text,id\n1,x,2\n", ['two columns are named "id"']),
        ("a.csv", LATIN, ["line 4 is not UTF-8 (byte 0xe9). Convert", "iconv -f WINDOWS-1252 -t UTF-8"]),
        ("a.csv", "text\nx\n".encode("utf-16"), ["the text is UTF-16", "iconv -f UTF-16 -t UTF-8"]),
        ("a.csv", b"text\nx\0\n", ["line 2 has bytes that are no text"]),
        ("a.csv", "", ["has no rows"]),
        ("a.csv", "text\n", ["has no rows"]),
        ("a.tsv", 'id\ttext\n1\tx\n2\t"Yes" he said\n', ["line 3: ", "A cell that begins with a quotation mark"]),
        ("a.tsv", 'id\ttext\n1\tx\n2\t"Yes\n3\ty\n', ["line 3: ", "A cell that begins with a quotation mark"]),
        ("a.parquet", b"PAR1 and no more", ["cannot be read as Parquet"]),
        ("a.parquet", b"", ["cannot be read as Parquet"]),
        ("a.xlsx", b"PK", ["a table of passages ends in .jsonl, .json, .tsv, .csv, .parquet"]),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, name, content, told):
    message = refusal(write(tmp_path / name, content))
    assert message.startswith(name)
    assert [words for words in told if words not in message] == []


def test_parquet_without_its_column_or_rows(tmp_path):
    assert "no column text, passage or contents (there: body)" in refusal(
        written(tmp_path / "a.parquet", [{"body": "x"}])
    )
    assert "row 2: column text" in refusal(written(tmp_path / "b.parquet", [{"text": "x"}, {"text": None}]))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "c.parquet")
    assert "has no rows" in refusal(tmp_path / "c.parquet")
    broken = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xe9"))
    pq.write_table(pa.table({"text": broken}), tmp_path / "d.parquet")
    assert "not UTF-8" in refusal(tmp_path / "d.parquet")
    pq.write_table(pa.table([["x"], ["y"]], ["text", "text"]), tmp_path / "e.parquet")
    assert 'two columns are named "text"' in refusal(tmp_path / "e.parquet")
    pq.write_table(pa.table({"text": ["x"], "on": pa.array([2**30], pa.date32())}), tmp_path / "f.parquet")
    assert "a value after row 0 cannot be read (days=1073741824; " in refusal(tmp_path / "f.parquet")


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_ids_alike(tmp_path, ending):
    rows = [{"id": str(i), "text": "x"} for i in (1, 2, 1, 3, 2, 1)]
    message = refusal(written(tmp_path / f"a{ending}", rows))
    first = {".jsonl": "line 1, line 3, line 6", ".csv": "row 1 (line 2), row 3 (line 4), row 6 (line 7)"}
    assert f'{first.get(ending, "row 1, row 3, row 6")}, column id: all are "1"' in message
    assert 'column id: all are "2"' in message
    assert '"3"' not in message


def test_faults_are_bounded(tmp_path):
    message = refusal(write(tmp_path / "a.jsonl", '{"text": ""}\n' * 5000))
    assert "at least 1000 faults in this table" in message
    assert len(message.splitlines()) == 22


def test_no_file(tmp_path):
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "a.csv")
    (tmp_path / "b.csv").mkdir()
    assert "is a folder" in refusal(tmp_path / "b.csv")
    os.mkfifo(tmp_path / "c.csv")
    assert "is no file that can be read twice" in refusal(tmp_path / "c.csv")


def test_reading_stops_at_a_fault(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n{"text": ""}\n{"text": "z"}\n')
    passages = tables.read(str(path))
    assert next(passages).text == "x"
    with pytest.raises(LoraryError, match=r"1 fault in this table:\n  line 2: column text: the text is empty"):
        next(passages)


def test_a_table_is_checked_once_and_when_it_changes(tmp_path, monkeypatch):
    checked = []
    original = tables._checked
    monkeypatch.setattr(tables, "_checked", lambda path: checked.append(path) or original(path))
    path = written(tmp_path / "a.csv", ROWS)
    assert [count(path), count(path), len(checked)] == [2, 2, 1]
    written(path, [*ROWS, {"id": "9", "text": "x", "title": ""}])
    assert [count(path), len(checked)] == [3, 2]
    os.utime(path, ns=(1, 1))
    assert [count(path), len(checked)] == [3, 3]
    for kept in (tmp_path / "cache").rglob("*.json"):
        kept.write_text("{")
    assert [count(path), count(path), len(checked)] == [3, 3, 4]
