"""What a run leaves to be read: the table of its adapters, and the summary of a call."""

import json
import os

import pandas as pd
import pytest

from lorary.core.errors import LoraryError
from lorary.report.summary import FAILED, summarize
from lorary.train.encode import RECORD
from lorary.train.index import COLUMNS, index_adapters


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
    pd.DataFrame(lines, columns=RECORD).to_csv(path, sep="\t", index=False)
    return str(path)


def write_table(path, questions, passages):
    lines = [(did, pid, question, "x") for did, question in enumerate(questions) for pid in range(passages)]
    pd.DataFrame(lines, columns=["did", "pid", "question", "passage"]).to_parquet(path)
    return str(path)


def test_index_joins_types_and_questions_in_order(tmp_path):
    compare = write_table(tmp_path / "compare.parquet", ["Which is\tlonger?", 'The "oldest"?'], 2)
    bridge = write_table(tmp_path / "bridge.parquet", ["NA", "Who?", "Never trained?"], 1)
    records = [
        write_record(tmp_path / "1.tsv", "compare", [(1, 0), (1, 1)]),
        write_record(tmp_path / "2.tsv", "bridge", [(1, 0), (0, 0)]),
        write_record(tmp_path / "3.tsv", "compare", [(0, 1), (0, 0)]),
    ]
    index_adapters(records, [compare, bridge, compare], str(tmp_path / "index.tsv"))
    index = pd.read_csv(tmp_path / "index.tsv", sep="\t", keep_default_na=False)
    assert list(index.columns) == COLUMNS
    assert index[["type", "did", "pid", "question"]].to_numpy().tolist() == [
        ["bridge", 0, 0, "NA"],
        ["bridge", 1, 0, "Who?"],
        ["compare", 0, 0, "Which is\tlonger?"],
        ["compare", 0, 1, "Which is\tlonger?"],
        ["compare", 1, 0, 'The "oldest"?'],
        ["compare", 1, 1, 'The "oldest"?'],
    ]
    first = index.iloc[0]
    assert (first.path, first.digest) == ("adapters/bridge/data_0/passage_0", "bridge00")
    assert first[["sequences", "tokens", "first_loss", "last_loss", "seconds"]].tolist() == [5, 700, 4.1, 1.1, 2.5]


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
    pd.DataFrame([line], columns=RECORD).to_csv(tmp_path / "1.tsv", sep="\t", index=False)
    index_adapters([str(tmp_path / "1.tsv")], [table], str(tmp_path / "index.tsv"))
    assert "\t4.064177989959717\t1.1381151676177979\t" in (tmp_path / "index.tsv").read_text()


def test_a_passage_with_two_records_is_a_bug_that_shows(tmp_path):
    table = write_table(tmp_path / "total.parquet", ["Who?"], 1)
    records = [write_record(tmp_path / f"{i}.tsv", "total", [(0, 0)]) for i in range(2)]
    with pytest.raises(pd.errors.MergeError):
        index_adapters(records, [table, table], str(tmp_path / "index.tsv"))


@pytest.mark.parametrize("content", [None, b"", b"did\tpid\n", b"\xff\xfe", b"a\tb\n1\t2\t3\n"])
def test_a_damaged_record_is_named(tmp_path, content):
    table = write_table(tmp_path / "total.parquet", ["Who?"], 1)
    if content is not None:
        (tmp_path / "1.tsv").write_bytes(content)
    with pytest.raises(LoraryError, match=r"1\.tsv is damaged .* Delete it, and the next call makes it again"):
        index_adapters([str(tmp_path / "1.tsv")], [table], str(tmp_path / "index.tsv"))


@pytest.fixture
def leave(tmp_path):
    """Leaves what a job of so many adapters does, at a time: the outcome file, and the adapters unless one failed."""
    outcomes = {}

    def leave(name, adapters, when, trained=0, failed=(), in_place=None):
        path = tmp_path / f"{name}.json"
        paths = [tmp_path / f"toy/lr=1/aug_model=a/{name}/data_0/passage_{i}" for i in range(adapters)]
        faults = [{"path": str(paths[i]), "reason": f"reason {i}"} for i in failed]
        path.write_text(json.dumps({"trained": trained, "failed": faults}))
        os.utime(path, (when, when))
        for adapter in paths[: (0 if failed else adapters) if in_place is None else in_place]:
            adapter.mkdir(parents=True)
        outcomes[str(path)] = [str(adapter) for adapter in paths]
        return outcomes

    return leave


@pytest.fixture
def told(tmp_path):
    """The summary's lines, and the table of failures (None: there is none)."""

    def told(outcomes, since=100, seconds=0):
        lines = summarize(outcomes, since, seconds, str(tmp_path / "failed.tsv")).splitlines()
        table = tmp_path / "failed.tsv"
        return lines, pd.read_csv(table, sep="\t") if table.exists() else None

    return told


def test_summary_counts_what_this_call_did(leave, told, tmp_path):
    leave("mixed", 4, when=100, trained=3)
    leave("failed", 5, when=101, trained=2, failed=[4, 1])
    leave("linked", 2, when=102)
    outcomes = leave("earlier", 8, when=99, trained=8)
    outcomes[str(tmp_path / "not-yet.json")] = [str(tmp_path / "not-yet")]
    lines, failed = told(outcomes, seconds=61.6)
    tree = f"{tmp_path}/toy/lr=1/aug_model=a/failed/data_0"
    assert lines == [
        "14 of 20 adapters are in place: 5 trained and 3 linked from the store by this call, 2 failed, in 1 min 2 s.",
        "4 are still to do: `snakemake` with the same config goes on, and trains nothing again.",
        f"FAILED {tree}/passage_4: reason 4",
        f"FAILED {tree}/passage_1: reason 1",
        f"All that have failed are in {tmp_path}/failed.tsv; the same command tries just these again.",
    ]
    assert list(failed) == FAILED
    assert failed[["dataset", "type", "did", "pid", "reason"]].to_numpy().tolist() == [
        ["toy", "failed", 0, 1, "reason 1"],
        ["toy", "failed", 0, 4, "reason 4"],
    ]
    assert failed.path.tolist() == [f"{tree}/passage_1", f"{tree}/passage_4"]
    assert failed.log.tolist() == [f"{tmp_path}/failed.log"] * 2


def test_failures_of_an_earlier_call_stand_until_their_adapter_is_there(leave, told):
    outcomes = leave("failed", 2, when=99, failed=[0])
    lines, failed = told(outcomes)
    assert lines[0].startswith("0 of 2 adapters are in place: 0 trained and 0 linked")
    assert not any(line.startswith("FAILED") for line in lines)
    assert failed.pid.tolist() == [0]
    ((_, (path, _)),) = outcomes.items()
    os.makedirs(path)
    lines, failed = told(outcomes)
    assert failed is None
    assert "failed.tsv" not in "\n".join(lines)


def test_long_list_of_failures_is_cut_in_the_summary_alone(leave, told):
    lines, failed = told(leave("failed", 30, when=100, failed=range(30)), seconds=3700)
    assert lines[0].endswith("30 failed, in 1 h 1 min.")
    assert len(lines) == 23
    assert lines[-2] == "... and 10 more"
    assert len(failed) == 30


def test_a_reason_of_many_lines_is_one_line_of_the_table(leave, told, tmp_path):
    outcomes = leave("failed", 1, when=100, failed=[0])
    outcome = json.loads((tmp_path / "failed.json").read_text())
    outcome["failed"][0]["reason"] = "first\n\tsecond"
    (tmp_path / "failed.json").write_text(json.dumps(outcome))
    assert told(outcomes, since=0)[1].reason.tolist() == ["first second"]


@pytest.mark.parametrize("content", ['{"trained"', "[]", '{"trained": 1}', '{"trained": 1, "failed": 3}', ""])
def test_outcome_file_that_is_damaged_is_passed_over(leave, told, tmp_path, content):
    outcomes = leave("cut", 2, when=100, trained=2)
    (tmp_path / "cut.json").write_text(content)
    assert told(outcomes, since=0)[0][0].startswith("2 of 2 adapters are in place: 0 trained")


def test_a_table_that_cannot_be_written_does_not_hide_the_summary(leave, tmp_path):
    outcomes = leave("failed", 1, when=100, failed=[0])
    (tmp_path / "file").touch()
    told = summarize(outcomes, 100, 0, str(tmp_path / "file/failed.tsv"))
    assert "reason 0" in told
    assert "failed.tsv could not be written" in told
