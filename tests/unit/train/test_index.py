"""What a run leaves to be read: the table of its adapters."""

import hashlib
import json

import pandas as pd
import pytest

from lorary.core.errors import LoraryError
from lorary.core.files import read_json
from lorary.core.store import Store
from lorary.data.rows import text_sha256
from lorary.plan import layout
from lorary.train import index as index_
from lorary.train import records as records_
from lorary.train.index import COLUMNS, index_adapters, types_of


def write_record(path, kind, positions):
    lines = [
        [
            did,
            pid,
            f"adapters/{kind}/data_{did}/passage_{pid}",
            f"{kind}{did}{pid}",
            5,
            700,
            4.1,
            1.1,
            2.5,
            "processor",
            1,
            "5ha",
            "5hb",
            "4.1 2.2 1.1",
        ]
        for did, pid in positions
    ]
    pd.DataFrame(lines, columns=records_.COLUMNS).to_csv(path, sep="\t", index=False)
    return str(path)


def write_table(path, questions, passages):
    lines = [(did, pid, question, "x") for did, question in enumerate(questions) for pid in range(passages)]
    pd.DataFrame(lines, columns=["did", "pid", "question", "passage"]).to_parquet(path)
    return str(path)


def kind(name, table, *records):
    return {"type": name, "table": table, "records": list(records)}


def index(folder, *types):
    """Of a run in this folder, whose adapters are there."""
    parts = {}
    for each in types:
        (folder / each["type"]).mkdir(exist_ok=True)
        name = f"{folder}/{layout.PARTS}/{each['type']}"
        parts[each["type"]] = {"table": f"{name}.tsv", "run": f"{name}.json"}
    about = {"config": [{"seed": len(types)}], "tables": {each["type"]: each["table"] for each in types}}
    index_adapters(list(types), parts, about, str(folder), str(folder / "index.tsv"), str(folder / "run.json"))


def test_adapters_that_were_not_trained_have_no_losses(tmp_path):
    store, position = Store(str(tmp_path / "store")), (0, 0)
    for digest, losses in (("a" * 64, []), ("b" * 64, [2.0, 1.0])):
        store.put(digest, b"{}", b"0", {"losses": losses, "device": "processor"})
    path = str(tmp_path / "0.tsv")
    assert records_.write_record(path, store, {position: "a" * 64}, {position: "data_0/passage_0"}, b"{}") == [[]]
    records_.write_record(f"{path}b", store, {(0, 1): "b" * 64}, {(0, 1): "data_0/passage_1"}, b"{}")
    (line,) = records_.read_record(path).to_dict("records")
    assert line["sha256"] == store.get("a" * 64)["sha256"]["adapter_model.safetensors"]
    assert pd.isna([line[key] for key in ("first_loss", "last_loss", "losses", "tokens")]).all()
    index(tmp_path, kind("total", write_table(tmp_path / "t.parquet", ["q"], 2), path, f"{path}b"))
    lines = pd.read_csv(tmp_path / "index.tsv", sep="\t", keep_default_na=False)
    assert lines["first_loss"].tolist() == ["", "2.0"]
    assert records_.has_learnt([], epochs=3)


def test_run_json_names_the_translator_that_made_the_adapters(tmp_path):
    table = write_table(tmp_path / "t.parquet", ["q"], 1)
    record = write_record(tmp_path / "r.tsv", "total", [(0, 0)])
    index(tmp_path, kind("total", table, record))
    assert "translator" not in read_json(tmp_path / "run.json")
    (tmp_path / "t.safetensors").write_bytes(b"weights")
    index(tmp_path, {**kind("total", table, record), "translator": str(tmp_path / "t.safetensors")})
    named = {"path": str(tmp_path / "t.safetensors"), "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert read_json(tmp_path / "run.json")["translator"] == named
    (part,) = (tmp_path / layout.PARTS).rglob("*.json")
    assert read_json(part)["translator"] == named


def test_own_passages_that_the_translator_has_learnt_from_are_told(tmp_path, caplog):
    caplog.set_level("INFO")
    lines = [(did, 0, "q", f"passage {did}\n") for did in range(6)]
    types = []
    for name in ("a", "b"):
        table = tmp_path / f"{name}.parquet"
        pd.DataFrame(lines, columns=["did", "pid", "question", "passage"]).to_parquet(table)
        record = write_record(tmp_path / f"{name}.tsv", name, [(0, 0)])
        types.append({**kind(name, str(table), record), "translator": str(tmp_path / "t.safetensors")})
        lines = [(0, 0, "q", "another"), (1, 0, "q", " passage 5")]
    learnt = [text_sha256(f"passage {i}") for i in range(2, 9)]

    def told(about):
        (tmp_path / "translator.json").write_text(json.dumps(about), encoding="utf-8")
        caplog.clear()
        index(tmp_path, *types)
        return read_json(tmp_path / "run.json")["translator"].get("learnt_from")

    first = [f"a/data_{did}/passage_0" for did in (2, 3, 4)]
    some = {
        "a": {"passages": 4, "of": 6, "first": first},
        "b": {"passages": 1, "of": 2, "first": ["b/data_1/passage_0"]},
    }
    assert told({"passages_sha256": learnt}) == some
    assert (
        f"5 of the 8 passages of this run are among the 7 that its translator has learnt from ({first[0]}"
        in caplog.text
    )
    for path in (tmp_path / layout.PARTS).rglob("*.json"):
        assert read_json(path)["translator"]["learnt_from"] == some
    assert {kind: each["passages"] for kind, each in told({"passages_sha256": ["0"]}).items()} == {"a": 0, "b": 0}
    assert not caplog.text
    assert told({"passages": 7}) is None
    assert "is not known" in caplog.text


def test_index_joins_types_and_questions_in_order(tmp_path):
    compare = write_table(tmp_path / "compare.parquet", ["Which is\tlonger?", 'The "oldest"?'], 2)
    bridge = write_table(tmp_path / "bridge.parquet", ["NA", "Who?", "Never trained?"], 1)
    a = write_record(tmp_path / "1.tsv", "compare", [(1, 0), (1, 1)])
    b = write_record(tmp_path / "2.tsv", "bridge", [(1, 0), (0, 0)])
    c = write_record(tmp_path / "3.tsv", "compare", [(0, 1), (0, 0)])
    index(tmp_path, kind("compare", compare, a, c), kind("bridge", bridge, b))
    found = pd.read_csv(tmp_path / "index.tsv", sep="\t", keep_default_na=False)
    assert list(found.columns) == COLUMNS
    assert found[["type", "did", "pid", "question"]].to_numpy().tolist() == [
        ["bridge", 0, 0, "NA"],
        ["bridge", 1, 0, "Who?"],
        ["compare", 0, 0, "Which is\tlonger?"],
        ["compare", 0, 1, "Which is\tlonger?"],
        ["compare", 1, 0, 'The "oldest"?'],
        ["compare", 1, 1, 'The "oldest"?'],
    ]
    first = found.iloc[0]
    assert (first.path, first.digest) == ("adapters/bridge/data_0/passage_0", "bridge00")
    assert first[["sequences", "tokens", "first_loss", "last_loss", "seconds"]].tolist() == [5, 700, 4.1, 1.1, 2.5]


def test_a_call_for_one_type_keeps_what_others_have_said(tmp_path):
    """docs/cluster.md's way to scale: a call a type."""
    for name in ("b", "a", "c"):
        table = write_table(tmp_path / f"{name}.parquet", ["Who?"], 1)
        index(tmp_path, kind(name, table, write_record(tmp_path / f"{name}.tsv", name, [(0, 0)])))
    found = pd.read_csv(tmp_path / "index.tsv", sep="\t")
    assert found["type"].tolist() == ["a", "b", "c"]
    about = json.loads((tmp_path / "run.json").read_text())
    assert list(about["tables"]) == ["c"]
    others = {kind: other["tables"] for kind, other in about["other_types"].items()}
    assert others == {"a": {"a": str(tmp_path / "a.parquet")}, "b": {"b": str(tmp_path / "b.parquet")}}
    assert list(types_of(about)) == ["c", "a", "b"]

    (tmp_path / "b").rmdir()  # its adapters are gone
    index(tmp_path, kind("a", str(tmp_path / "a.parquet"), str(tmp_path / "a.tsv")))
    assert pd.read_csv(tmp_path / "index.tsv", sep="\t")["type"].tolist() == ["a", "c"]


def test_of_two_calls_at_once_the_last_one_has_seen_both(tmp_path, monkeypatch):
    """Another call writes its part, and a table of its own, while this one is about to write its own table."""
    first = write_table(tmp_path / "a.parquet", ["Who?"], 1), write_record(tmp_path / "a.tsv", "a", [(0, 0)])
    second = write_table(tmp_path / "b.parquet", ["Who?"], 1), write_record(tmp_path / "b.tsv", "b", [(0, 0)])
    join, others = index_.join, iter([lambda: index(tmp_path, kind("b", *second))])

    def meanwhile(parts, output):
        next(others, lambda: None)()
        join(parts, output)

    monkeypatch.setattr(index_, "join", meanwhile)
    index(tmp_path, kind("a", *first))
    assert pd.read_csv(tmp_path / "index.tsv", sep="\t")["type"].tolist() == ["a", "b"]
    assert types_of(json.loads((tmp_path / "run.json").read_text())).keys() == {"a", "b"}


def test_losses_keep_all_their_digits(tmp_path):
    table = write_table(tmp_path / "total.parquet", ["Who?"], 1)
    line = [
        0,
        0,
        "adapters/total/data_0/passage_0",
        "d",
        5,
        700,
        4.064177989959717,
        1.1381151676177979,
        2.5,
        "gpu",
        1,
        "5ha",
        "5hb",
        "4.064 1.138",
    ]
    pd.DataFrame([line], columns=records_.COLUMNS).to_csv(tmp_path / "1.tsv", sep="\t", index=False)
    index(tmp_path, kind("total", table, str(tmp_path / "1.tsv")))
    assert "\t4.064177989959717\t1.1381151676177979\t" in (tmp_path / "index.tsv").read_text()


def test_a_passage_with_two_records_is_a_bug_that_shows(tmp_path):
    table = write_table(tmp_path / "total.parquet", ["Who?"], 1)
    records = [write_record(tmp_path / f"{i}.tsv", "total", [(0, 0)]) for i in range(2)]
    with pytest.raises(pd.errors.MergeError):
        index(tmp_path, kind("total", table, *records))


@pytest.mark.parametrize("content", [None, b"", b"did\tpid\n", b"\xff\xfe", b"a\tb\n1\t2\t3\n"])
def test_a_damaged_record_is_named(tmp_path, content):
    table = write_table(tmp_path / "total.parquet", ["Who?"], 1)
    if content is not None:
        (tmp_path / "1.tsv").write_bytes(content)
    with pytest.raises(LoraryError, match=r"1\.tsv is damaged .* Delete it, and the next call makes it again"):
        index(tmp_path, kind("total", table, str(tmp_path / "1.tsv")))
