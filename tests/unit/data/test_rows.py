"""Augmented data: which files are read, how types are merged, what a row becomes, and how faults are told."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

import tiny
from lorary.core.errors import LoraryError
from lorary.data import questions
from lorary.data import rows as dataset


def write(folder, **types):
    """Files `<type>.json` of a folder, from rows or from bytes as they are."""
    folder.mkdir(exist_ok=True)
    for kind, content in types.items():
        (folder / f"{kind}.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def names(types):
    return {kind: [path.name for path in paths] for kind, paths in types.items()}


def load(tmp_path, rows, sample=-1):
    return dataset.load_all([write(tmp_path, total=rows) / "total.json"], sample, "aug")


def refusal(tmp_path, rows, function=dataset.load_all, sample=-1):
    with pytest.raises(LoraryError) as caught:
        function([write(tmp_path, total=rows) / "total.json"], sample, "aug")
    return str(caught.value)


@pytest.mark.parametrize("data_type", [None, "total"])
def test_one_file_is_total(tmp_path, data_type):
    assert names(questions.type_files(write(tmp_path, total=[]), data_type)) == {"total": ["total.json"]}


def test_several_files(tmp_path):
    write(tmp_path, total=[], bridge=[], comparison=[])
    (tmp_path / ".bridge.json").touch()  # what editors leave
    (tmp_path / "notes.txt").touch()
    both = {"bridge": ["bridge.json"], "comparison": ["comparison.json"]}
    assert names(questions.type_files(tmp_path, None)) == both
    assert names(questions.type_files(tmp_path, "bridge")) == {"bridge": ["bridge.json"]}
    merged = {"total": ["total.json", "bridge.json", "comparison.json"]}
    assert names(questions.type_files(tmp_path, "total")) == merged


@pytest.mark.parametrize(
    ("files", "data_type", "words"),
    [
        ([], None, "no .json file"),
        (["bridge"], None, "holds total.json, but this one holds bridge.json"),
        (["bridge"], "bridge", "holds total.json, but this one holds bridge.json"),
        (["total"], "bridge", "data_type bridge is not here; there is total"),
        (["bridge", "comparison"], "total", "data_type total is not here; there is bridge, comparison"),
        (["bridge", "total"], "bridg", "data_type bridg is not here; there is bridge, total"),
    ],
)
def test_folders_that_do_not_hold_what_is_asked_for(tmp_path, files, data_type, words):
    with pytest.raises(LoraryError, match=words):
        questions.type_files(write(tmp_path, **{name: [] for name in files}), data_type)


def test_a_missing_folder_says_where_data_lies(tmp_path):
    with pytest.raises(LoraryError, match=r"nowhere: no such data folder.*<data_dir>/<dataset>/<augment_model>"):
        questions.type_files(tmp_path / "nowhere", None)


@pytest.mark.parametrize(
    ("other", "data_type"),
    [("total_backup", None), ("total_backup", "total"), ("bak", None), ("2024-11-25", "total")],
)
def test_a_copy_beside_total_does_not_take_its_place(tmp_path, other, data_type):
    rows = tiny.make_rows(3)
    write(tmp_path, total=rows, **{other: rows[:1]})
    with pytest.raises(LoraryError) as caught:
        questions.type_files(tmp_path, data_type)
    assert str(caught.value) == (
        f"{tmp_path}: question 0 of total.json has passages of its own and none of the types {other}, which would be"
        f" solved in its place. Is {other}.json a copy? Move it away, or name a type in data_type."
    )
    assert names(questions.type_files(tmp_path, other)) == {other: [f"{other}.json"]}


def test_other_questions_beside_a_whole_total_do_not_take_its_place_either(tmp_path):
    b, dev = ([{**row, "question": f"{kind} {i}"} for i, row in enumerate(tiny.make_rows(2))] for kind in ("b", "dev"))
    write(tmp_path, total=[{**b[0], "type": "b"}, {**b[1], "type": "c"}], b=b, dev=dev)
    with pytest.raises(
        LoraryError, match=r"question 1 of total\.json has passages of its own and none of the types b, dev"
    ):
        questions.type_files(tmp_path, None)
    write(tmp_path, total=[{**row, "type": "b"} for row in b])  # each of which is in b.json
    assert list(questions.type_files(tmp_path, None)) == ["b", "dev"]
    write(tmp_path, total=[{"question": "of a type that was taken away", "type": "c"}])
    assert list(questions.type_files(tmp_path, None)) == ["b", "dev"]


@pytest.mark.parametrize("kind", ["total_old", "b_old"])
def test_a_copy_beside_types_is_no_type(tmp_path, kind):
    b, c = numbered("b", 3), numbered("c", 3)
    listed = typed("bcbc", ["b0", "c0", "b1", "c1"])
    copied = {"total_old": listed[:3], "b_old": numbered("b", 2)}[kind]
    write(tmp_path, total=listed, b=b, c=c, **{kind: [*copied, *numbered("new", 1)]})
    with pytest.raises(
        LoraryError, match=rf"{kind}\.json has questions of total\.json, which has no type {kind}: a copy\?"
    ):
        questions.type_files(tmp_path, None)
    assert list(questions.type_files(tmp_path, "total")) == ["total"]
    write(tmp_path, **{kind: numbered("new", 3)})  # of its own, as those beyond a sample are
    assert set(questions.type_files(tmp_path, None)) == {"b", "c", kind}


def test_a_total_that_nobody_needs_is_not_read(tmp_path):
    write(tmp_path, total=b"[", bridge=[], comparison=[])
    assert list(questions.type_files(tmp_path, None)) == ["bridge", "comparison"]


def typed(kinds, questions):
    """Rows of total.json, which has no augmentation."""
    return [{"question": question, "type": kind} for kind, question in zip(kinds, questions, strict=True)]


def merged(folder, sample=-1):
    return [row["question"] for row in dataset.load_all(questions.type_files(folder, "total")["total"], sample, "aug")]


def numbered(kind, count):
    rows = tiny.make_rows(count, passages=1)
    for i, row in enumerate(rows):
        row["question"] = f"{kind}{i}"
    return rows


def test_total_takes_the_nth_row_of_each_type_in_its_own_order(tmp_path):
    order = ["b0", "c0", "c1", "b1", "c2"]
    write(tmp_path, total=typed("bccbc", order), b=numbered("b", 2), c=numbered("c", 9))
    assert merged(tmp_path) == order
    assert merged(tmp_path, sample=3) == order[:3]
    b, c = numbered("b", 2), numbered("c", 3)
    table = dataset.load_all(questions.type_files(tmp_path, "total")["total"], -1, "aug")
    assert [row["passage"] for row in table] == [row["augment"][0]["passage"] for row in (b[0], c[0], c[1], b[1], c[2])]
    assert [row["did"] for row in table] == [0, 1, 2, 3, 4]


def test_total_stops_at_the_first_type_that_has_run_out(tmp_path):
    order = ["b0", "c0", "b1", "c1", "b2"]
    write(tmp_path, total=typed("bcbcb", order), b=numbered("b", 1), c=numbered("c", 9))
    assert merged(tmp_path) == ["b0", "c0"]  # and c1 after it is not taken


def test_a_total_is_read_to_its_end(tmp_path):
    write(tmp_path, total=typed("bbb", ["b0", "b1", "b2"]), b=numbered("b", 1))
    total = tmp_path / "total.json"
    total.write_text(total.read_text(encoding="utf-8")[:-1], encoding="utf-8")  # cut off behind what is solved
    with pytest.raises(LoraryError, match=r"total\.json: this is not JSON"):
        merged(tmp_path)


def test_faults_of_a_merge_name_file_and_question(tmp_path):
    order = ["b0", "another", "x0", "c1", "b1"]
    rows = [*typed("bcxcb", order), {"question": "untyped"}]
    write(tmp_path, total=rows, b=numbered("b", 2), c=numbered("c", 2))
    with pytest.raises(LoraryError) as caught:
        merged(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}: the data has 3 faults:",
        '  total.json, question 1, question: expected that of c.json, question 0 ("c0"), found "another"',
        '  total.json, question 2, type: expected one of b, c, found "x"',
        "  total.json, question 5, type: expected one of b, c, found null",
    ]


def test_faults_of_rows_name_the_file_of_their_type(tmp_path):
    c = numbered("c", 2)
    del c[1]["augment"][0]["passage"]
    write(tmp_path, total=typed("bcc", ["b0", "c0", "c1"]), b=numbered("b", 1), c=c)
    with pytest.raises(LoraryError, match=r"c\.json, question 1, passage 0, passage: missing"):
        merged(tmp_path)


def test_sample_takes_the_first_questions(tmp_path):
    path = write(tmp_path, total=tiny.make_rows(3)) / "total.json"
    for sample, taken in ((1, 1), (3, 3), (300, 3), (-1, 3)):
        assert [r["did"] for r in dataset.load_all([path], sample, "aug")] == [
            did for did in range(taken) for _ in "01"
        ]
        assert dataset.outline([path], sample, "aug") == ([2] * taken, True)


def test_the_outline_of_large_files_is_kept_until_they_change(tmp_path, monkeypatch):
    path, cache = write(tmp_path, total=tiny.make_rows(3)) / "total.json", tmp_path / "cache"

    def outline(sample=-1):
        return dataset.outline([path], sample, "aug", cache=str(cache))

    assert outline() == ([2, 2, 2], True)
    assert not cache.exists()  # it is small
    monkeypatch.setattr(dataset, "LARGE", 1)
    assert (outline(), outline(2)) == (([2, 2, 2], True), ([2, 2], True))
    monkeypatch.setattr(dataset, "_checked", None)  # which reads them
    assert (outline(), outline(2)) == (([2, 2, 2], True), ([2, 2], True))
    monkeypatch.undo()
    monkeypatch.setattr(dataset, "LARGE", 1)
    tiny.write_rows(path, tiny.make_rows(4))
    assert outline() == ([2] * 4, True)
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(LoraryError):
        outline()


def test_a_row_a_passage_by_position_with_all_that_it_carried(tmp_path):
    rows = tiny.make_rows(2, passages=2, pairs=1)
    rows[0] |= {"answer": "one", "qid": 77, "test_id": {"a": [1, None]}}
    rows[1]["answer"] = ["one", "two"]
    rows[0]["augment"][1] |= {"pid": 9, "score": 0.5, "other_rewrite": "x"}
    rows[0]["augment"][1]["aug_qa"][0]["source"] = "dropped"
    table = load(tmp_path, rows)
    assert [(row["did"], row["pid"]) for row in table] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [row["answers"] for row in table] == [["one"], ["one"], ["one", "two"], ["one", "two"]]
    augment = rows[0]["augment"][1]
    row = table[1]
    assert (row["question"], row["passages"]) == (rows[0]["question"], rows[0]["passages"])
    assert (row["passage"], row["rewrite"]) == (augment["passage"], augment["aug_rewrite"])
    assert [list(pair) for pair in row["pairs"]] == [["question", "answer", "full_answer"]]
    assert json.loads(row["extra"]) == {
        "question": {"qid": 77, "test_id": {"a": [1, None]}},
        "passage": {"pid": 9, "score": 0.5, "other_rewrite": "x"},
    }


def test_all_faults_at_once_with_their_places(tmp_path):
    rows = tiny.make_rows(8, passages=2, pairs=2)
    del rows[0]["answer"]
    rows[1]["answer"] = []
    rows[2]["answer"] = ["a", 3]
    rows[3]["augment"][1]["aug_qa"][0]["full_answer"] = None
    rows[4]["augment"][0]["aug_qa"] = []
    rows[4]["augment"][1] = {"pid": 0, "passage": "p", "other_rewrite": "r", "other_qa": []}
    rows[5]["augment"] = []
    rows[6] = "text"
    rows[7]["passages"] = "x" * 10_000
    told = refusal(tmp_path, rows).splitlines()
    there = "(the keys there: other_qa, other_rewrite, passage, pid)"
    assert told[0] == f"{tmp_path}: the data has 10 faults:"
    assert sorted(told[1:]) == [
        "  total.json, question 0, answer: missing (the keys there: augment, passages, question)",
        "  total.json, question 1, answer: expected a string, or a list of at least one, found []",
        "  total.json, question 2, answer 1: expected a string, found 3 (lenient_answers: true reads it)",
        "  total.json, question 3, passage 1, aug_qa 0, full_answer: expected a string, found null"
        " (lenient_answers: true reads it)",
        "  total.json, question 4, passage 0, aug_qa: expected a list of at least one question-answer pair, found []",
        f"  total.json, question 4, passage 1, aug_qa: missing {there}",
        f"  total.json, question 4, passage 1, aug_rewrite: missing {there}",
        "  total.json, question 5, augment: expected a list with an object for each passage, found []",
        '  total.json, question 6: expected an object, found "text"',
        f'  total.json, question 7, passages: expected a list of strings, found "{"x" * 59}...',
    ]
    assert sorted(refusal(tmp_path, rows, dataset.outline).splitlines()) == sorted(told)


def test_passages_and_augment_are_the_same_passages(tmp_path):
    """Else passages are put into the prompt that no adapter is of, or none at all."""
    rows = tiny.make_rows(5, passages=2)
    rows[0]["passages"].append("third")
    rows[1]["passages"] = []
    rows[2]["passages"].reverse()
    rows[3]["passages"][1] += "s"
    rows[4]["passages"][0] = rows[4]["passages"][0].replace(" ", "\n ") + " "  # blanks apart, it is the same
    told = refusal(tmp_path, rows).splitlines()
    texts = [[json.dumps(passage["passage"]) for passage in row["augment"]] for row in rows]
    short = [[text if len(text) <= 60 else text[:60] + "..." for text in row] for row in texts]
    assert told == [
        f"{tmp_path}: the data has 5 faults:",
        "  total.json, question 0, passages: expected the 2 passages of augment, found 3",
        "  total.json, question 1, passages: expected the 2 passages of augment, found 0",
        f"  total.json, question 2, passages 0: expected passage 0 of augment ({short[2][0]}), found {short[2][1]}",
        f"  total.json, question 2, passages 1: expected passage 1 of augment ({short[2][1]}), found {short[2][0]}",
        f"  total.json, question 3, passages 1: expected passage 1 of augment ({short[3][1]}), found {found(rows[3])}",
    ]
    assert refusal(tmp_path, rows, dataset.outline).splitlines() == told


def found(row):
    text = json.dumps(row["passages"][1])
    return text if len(text) <= 60 else text[:60] + "..."


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: row["augment"][1]["aug_qa"][2].update(answer=3.5),
        lambda row: row.update(answer=[]),
        lambda row: row.update(augment=[row["augment"][0], []]),
        lambda row: row["augment"][0].update(aug_rewrite="\ud800"),
        lambda row: row.update(score=1e999),
    ],
)
def test_what_is_wrong_is_found_before_anything_runs(tmp_path, spoil):
    """outline is what is read with the Snakefile."""
    rows = tiny.make_rows(3)
    spoil(rows[2])
    content = json.dumps(rows).replace("Infinity", "1e999").encode()
    assert refusal(tmp_path, content, dataset.outline) == refusal(tmp_path, content)


@pytest.mark.parametrize("key", ["answer", "full_answer"])
@pytest.mark.parametrize(
    ("given", "text"),
    [(3.5, "3.5"), (7, "7"), (True, "True"), (None, "Unknown"), (["a", "b"], "a, b"), (["a", 2], "a, 2"), ([], "")],
    ids=repr,
)
def test_answers_that_are_no_text_are_read_where_the_config_says_so(tmp_path, key, given, text):
    """As the reference's augmentation writes them: numbers as text, lists joined, null as Unknown."""
    rows = tiny.make_rows(2)
    rows[1]["augment"][0]["aug_qa"][2][key] = given
    place = f"total.json, question 1, passage 0, aug_qa 2, {key}: expected a string, found {json.dumps(given)}"
    told = f"  {place} (lenient_answers: true reads it)"
    assert refusal(tmp_path, rows).splitlines()[1:] == [told]
    path = tmp_path / "total.json"
    assert dataset.outline([path], -1, "aug", lenient_answers=True) == ([2, 2], True)
    table = dataset.load_all([path], -1, "aug", lenient_answers=True)
    rows[1]["augment"][0]["aug_qa"][2][key] = text
    assert table == load(tmp_path, rows)


def test_what_no_reading_makes_text_of_stays_a_fault(tmp_path):
    rows = tiny.make_rows(3)
    pairs = rows[1]["augment"][0]["aug_qa"]
    pairs[0]["answer"], pairs[1]["answer"], pairs[2]["question"] = {"text": "a"}, [["a"]], 3
    rows[0]["answer"] = ["a", 1984]
    rows[1]["answer"], rows[2]["answer"] = 1984, None  # what is scored by
    path = write(tmp_path, total=rows) / "total.json"
    with pytest.raises(LoraryError) as caught:
        dataset.load_all([path], -1, "aug", lenient_answers=True)
    assert sorted(str(caught.value).splitlines()[1:]) == [
        '  total.json, question 1, passage 0, aug_qa 0, answer: expected a string, found {"text": "a"}',
        '  total.json, question 1, passage 0, aug_qa 1, answer: expected a string, found [["a"]]',
        "  total.json, question 1, passage 0, aug_qa 2, question: expected a string, found 3",
        "  total.json, question 2, answer: expected a string, or a list of at least one, found null",
    ]
    rows[1]["augment"], rows[2]["answer"] = tiny.make_rows(2)[1]["augment"], "a"
    table = dataset.load_all([write(tmp_path, total=rows) / "total.json"], -1, "aug", lenient_answers=True)
    assert [row["answers"] for row in table[::2]] == [["a", "1984"], ["1984"], ["a"]]


def test_a_long_list_of_faults_is_cut_with_a_count(tmp_path):
    told = refusal(tmp_path, [{} for _ in range(10)]).splitlines()
    assert told[0].endswith("the data has 40 faults:")
    assert told[21:] == ["  ... and 20 more"]


def test_half_a_surrogate_pair_is_named_by_its_place(tmp_path):
    rows = tiny.make_rows(2)
    rows[1]["augment"][0]["aug_rewrite"] = "half \ud83d"
    rows[0]["\ude00"] = "a key"
    rows[0]["question"] = "whole \U0001f600"  # JSON writes it as a pair
    told = refusal(tmp_path, rows)
    assert "total.json, question 1, passage 0, aug_rewrite: expected text, found half a surrogate pair" in told
    assert "the data has 2 faults" in told
    told.encode()


NAN = json.dumps([*tiny.make_rows(1), {"score": float("nan")}]).encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b'[{"question": "q"', "is not JSON"),
        (NAN, "NaN is no JSON value"),
        (b"[Infinity]", "Infinity is no JSON value"),
        (b"[1" + b"0" * 5000 + b"]", "is not JSON"),
        ('["é"]'.encode("latin-1"), "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"question": "q"}', "expected a list of questions, found {"),
        (b"null", "expected a list of questions, found null"),
        (b"[]", "the list of questions is empty"),
    ],
    ids=["empty", "broken", "NaN", "Infinity", "5000 digits", "latin-1", "deep", "object", "null", "no questions"],
)
@pytest.mark.parametrize("function", [dataset.load_all, dataset.outline])
def test_files_that_hold_no_questions(tmp_path, content, words, function):
    told = refusal(tmp_path, content, function)
    assert told.startswith(f"{tmp_path}/total.json: ")
    assert words in told


def lines(rows, end="\n"):
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows) + end


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n  \n"], ids=["", "of Windows", "and blank ones"])
@pytest.mark.parametrize("name", ["total.json", "total.jsonl"])
def test_json_lines_are_read_as_a_list_is(tmp_path, end, name):
    rows = tiny.make_rows(3)
    rows[1]["question"] = "Köln\u2028\x85?"  # what Python takes for ends of lines
    expected = load(tmp_path, rows)
    (tmp_path / "total.json").unlink()
    for number, encoding in ((3, "utf-8"), (3, "utf-8-sig"), (1, "utf-8")):
        (tmp_path / name).write_bytes(lines(rows[:number], end).encode(encoding))
        files = questions.type_files(tmp_path, None)
        assert dataset.load_all(files["total"], -1, "aug") == [row for row in expected if row["did"] < number]
        assert dataset.outline(files["total"], -1, "aug") == ([2] * number, True)


LIST = ' \n[ {"a": [1, "x]\\u00fc\\ud83d,"]} , 12 ,"\u00e9\U0001f600", {"a": 1, "b": {"c": 1, "c": 2}},\n[], null ] \n'


@pytest.mark.parametrize("piece", [1, 7, 2**20])
def test_a_list_is_read_in_pieces_as_json_reads_it_whole(tmp_path, monkeypatch, piece):
    """And so is what is none, wherever it is cut off."""
    monkeypatch.setattr(questions, "PIECE", piece)
    path, whole = tmp_path / "total.json", LIST.encode()
    wrong = [LIST + "x", LIST + "]", LIST.replace("12", "1 2"), LIST.replace("null", ""), LIST.replace("null", "NaN")]
    wrong += [
        "[]",
        "[ ]",
        "",
        " ",
        "[,]",
        "12",
        "[" * 20_000,
        '{"augment": []}',
        '{"a": 1}',
        "\ufeff[1]",
        "\ufeff\ufeff[1]",
    ]
    contents = [text.encode() for text in (LIST, *wrong)] + [LIST.encode("utf-16"), b"[1, \xff]"]
    for content in [*contents, *(whole[:end] for end in range(len(whole)))]:
        path.write_bytes(content)
        assert read(questions._items, path) == read(questions._whole, path)
    path.write_bytes(whole)
    faults = []
    assert len(list(questions._read(path, faults))) == 6
    assert faults == ["total.json, question 3, b, c: this key is given twice"]


def read(function, path):
    try:
        return list(function(path, []))
    except LoraryError as error:
        return str(error)


def test_the_items_of_a_list_do_not_wait_for_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(questions, "PIECE", 8)
    (tmp_path / "total.json").write_text("[1, 2, 3, 4, 5, 6, 7 8]")
    items = questions._items(tmp_path / "total.json", [])
    assert [next(items) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(LoraryError, match="this is not JSON"):
        next(items)


def test_a_line_that_is_a_list_is_one_question_and_a_wrong_one(tmp_path):
    rows = tiny.make_rows(3)
    path = tmp_path / "total.jsonl"
    path.write_text(json.dumps(rows[:2]) + "\n" + lines(rows), encoding="utf-8")
    with pytest.raises(LoraryError, match=r"total\.jsonl, question 0: expected an object"):
        dataset.load_all([path], -1, "aug")


def test_a_line_that_is_broken_is_named(tmp_path):
    good = lines(tiny.make_rows(2)).splitlines()
    for broken, words in (
        ("{", "Expecting property name"),
        ('{"a": NaN}', "NaN is no JSON value"),
        (good[0] + good[1], "Extra data"),
    ):
        told = refusal(tmp_path, "\n".join([good[0], "", broken, good[1]]).encode())
        assert told.startswith(f"{tmp_path}/total.json, line 3: this is not JSON ({words}"), told
    assert "total.json, question 1: expected an object, found 3" in refusal(tmp_path, f"{good[0]}\n3\n".encode())


def test_a_type_may_be_json_lines_and_is_one_file(tmp_path):
    write(tmp_path, total=typed("bb", ["b0", "b1"]))
    (tmp_path / "b.jsonl").write_text(lines(numbered("b", 2)), encoding="utf-8")
    assert merged(tmp_path) == ["b0", "b1"]
    write(tmp_path, b=numbered("b", 2))
    with pytest.raises(LoraryError, match=r"b\.json and b\.jsonl are one type: move one of them away"):
        questions.type_files(tmp_path, None)


def test_a_key_that_is_given_twice_is_named_by_its_place(tmp_path):
    rows = json.dumps(tiny.make_rows(3))
    content = rows.replace('"answer": "', '"answer": "old", "answer": "', 2).replace(
        '{"pid": 1,', '{"pid": 1, "pid": 1,', 1
    )
    for function in (dataset.load_all, dataset.outline):
        assert refusal(tmp_path, content.encode(), function).splitlines() == [
            f"{tmp_path}: the data has 3 faults:",
            "  total.json, question 0, passage 0, aug_qa 0, answer: this key is given twice",
            "  total.json, question 0, passage 0, aug_qa 1, answer: this key is given twice",
            "  total.json, question 0, passage 1, pid: this key is given twice",
        ]
    twice = lines(tiny.make_rows(2)).replace('{"question": "question 1', '{"question": "", "question": "question 1')
    assert "  total.json, question 1, question: this key is given twice" in refusal(tmp_path, twice.encode())


@pytest.mark.parametrize("depth", [400, 900, 960, 1000])
@pytest.mark.parametrize("place", ["question", "deep"])
def test_nesting_is_kept_or_refused_and_never_raises_otherwise(tmp_path, depth, place):
    row = json.dumps([{**tiny.make_rows(1)[0], place: 0}])
    content = row.replace(f'"{place}": 0', f'"{place}": ' + "[" * depth + "]" * depth).encode()
    try:
        kept = json.loads(load(tmp_path, content)[0]["extra"])["question"]["deep"]
    except LoraryError:
        assert (depth, place) != (400, "deep")  # what Python reads and writes without more ado
    else:
        assert json.dumps(kept) == "[" * depth + "]" * depth


def test_a_number_beyond_floats_is_a_fault(tmp_path):
    """Python reads it as infinity, which `extra` could write only as Infinity, and that is no JSON."""
    content = json.dumps([{**tiny.make_rows(1)[0], "score": 0.5}]).replace("0.5", "1e999").encode()
    assert "total.json, question 0" in refusal(tmp_path, content)


def test_save_and_read_round_trip_and_pandas(tmp_path):
    rows = tiny.make_rows(3)
    rows[1]["passages"][0] = rows[1]["augment"][0]["passage"] = "ünï \U0001f600\n\x00"
    table = load(tmp_path, rows)
    path = str(tmp_path / "table.parquet")
    dataset.save(table, path)
    assert dataset.read(path, 0, len(table)) == table
    assert dataset.read(path, 2, 5) == table[2:5]
    frame = pd.read_parquet(path)
    assert list(frame.columns) == list(table[0])
    assert frame["passage"].tolist() == [row["passage"] for row in table]
    assert [list(pairs) for pairs in frame["pairs"]] == [row["pairs"] for row in table]


def test_of_a_table_only_the_groups_that_are_wanted_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "GROUP", 4)
    table = load(tmp_path, tiny.make_rows(5))
    path = tmp_path / "table.parquet"
    dataset.save(iter(table), str(path))
    parts = [(0, 4), (3, 5), (4, 8), (7, 10), (0, None), (9, None), (2, 99), (10, None), (12, 14)]
    assert [dataset.read(str(path), *part) for part in parts] == [table[slice(*part)] for part in parts]
    some = dataset.read(str(path), 5, 7, ["did", "passage"])
    assert some == [{key: row[key] for key in ("did", "passage")} for row in table[5:7]]
    column = pq.read_metadata(path).row_group(1).column(5)
    flip(path, column.dictionary_page_offset + 100)
    assert dataset.read(str(path), 0, 4) == table[:4]
    assert dataset.read(str(path), 8, 10) == table[8:]
    with pytest.raises(LoraryError, match="damaged"):
        dataset.read(str(path), 7, 9)


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def without_passage(rows, did=0, pid=0):
    """Pairs that are learnt on their own, as those of a warm-up."""
    rows[did]["passages"][pid] = rows[did]["augment"][pid]["passage"] = None
    del rows[did]["augment"][pid]["aug_rewrite"]
    return rows[did]["augment"][pid]


def test_pairs_need_no_passage(tmp_path):
    rows = tiny.make_rows(2)
    pairs = without_passage(rows, 1, 0)["aug_qa"]
    rows[1]["augment"][0]["aug_rewrite"] = None  # as a table may have it
    assert all(dataset.is_good(row, "aug") for row in rows)
    table = load(tmp_path, rows)
    assert (table[2]["passage"], table[2]["rewrite"], table[2]["pairs"]) == (None, None, pairs)
    assert table[2]["passages"] == [None, rows[1]["augment"][1]["passage"]]
    del rows[1]["augment"][0]["aug_rewrite"]
    assert all(dataset.is_good(row, "aug") for row in rows)
    assert load(tmp_path, rows) == table
    assert dataset.outline([tmp_path / "total.json"], -1, "aug") == ([2, 2], True)
    path = str(tmp_path / "table.parquet")
    dataset.save(table, path)
    assert dataset.read(path, 0, None) == table
    rows = [rows[1] | {"question": None, "answer": []}]
    assert load(tmp_path, rows)[0]["question"] is None


def test_no_pairs_without_a_reason(tmp_path):
    rows = tiny.make_rows(1)
    rows[0]["augment"][0] |= {"aug_qa": [], "error": "too long"}
    assert dataset.is_good(rows[0], "aug")
    assert load(tmp_path, rows)[0]["error"] == "too long"
    rows[0]["augment"][0]["error"] = ""
    assert not dataset.is_good(rows[0], "aug")
    assert "error: expected a string that says why there are no pairs, found " in refusal(tmp_path, rows)


def test_a_passage_that_is_null_is_null_throughout(tmp_path):
    """Else somebody has lost it."""
    rows = tiny.make_rows(5, passages=1)
    lost = [without_passage(rows, did) for did in range(5)]
    lost[0]["aug_rewrite"] = "a rewrite"
    rows[1]["passages"] = ["a passage"]
    lost[2] |= {"passage": "a passage", "aug_rewrite": "a rewrite"}
    lost[3]["passage"] = "a passage"
    lost[4]["aug_qa"] = []
    told = refusal(tmp_path, rows).splitlines()
    there = "(the keys there: aug_qa, passage, pid)"
    assert told[1:] == [
        "  total.json, question 0, passage 0, aug_rewrite: expected no rewrite, since there is no passage,"
        ' found "a rewrite"',
        '  total.json, question 1, passages 0: expected passage 0 of augment (null), found "a passage"',
        '  total.json, question 2, passages 0: expected passage 0 of augment ("a passage"), found null',
        f"  total.json, question 3, passage 0, aug_rewrite: missing {there}",
        "  total.json, question 4, passage 0, aug_qa: expected a list of at least one question-answer pair, found []",
    ]
    assert refusal(tmp_path, rows, dataset.outline).splitlines() == told
