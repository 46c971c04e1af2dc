"""What a run leaves to be read: the table of its adapters, and the summary of a call."""

import json
import os

import pandas as pd
import pytest

from lorary.index import COLUMNS, index_adapters
from lorary.summary import summarize

RECORD = [
    "did",
    "pid",
    "path",
    "digest",
    "sequences",
    "tokens",
    "first_loss",
    "last_loss",
    "seconds",
    "device",
    "adapters_per_step",
]


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
    line = [0, 0, "adapters/total/data_0/passage_0", "d", 5, 700, 4.064177989959717, 1.1381151676177979, 2.5, "gpu", 1]
    pd.DataFrame([line], columns=RECORD).to_csv(tmp_path / "1.tsv", sep="\t", index=False)
    index_adapters([str(tmp_path / "1.tsv")], [table], str(tmp_path / "index.tsv"))
    assert "\t4.064177989959717\t1.1381151676177979\t" in (tmp_path / "index.tsv").read_text()


def test_a_passage_with_two_records_is_a_bug_that_shows(tmp_path):
    table = write_table(tmp_path / "total.parquet", ["Who?"], 1)
    records = [write_record(tmp_path / f"{i}.tsv", "total", [(0, 0)]) for i in range(2)]
    with pytest.raises(pd.errors.MergeError):
        index_adapters(records, [table, table], str(tmp_path / "index.tsv"))


@pytest.fixture
def leave(tmp_path):
    """Leaves what a job of so many adapters does, at a time: the outcome file, and the adapters unless one failed."""
    outcomes = {}

    def leave(name, adapters, when, trained=0, failed=(), in_place=None):
        path = tmp_path / f"{name}.json"
        paths = [tmp_path / name / f"passage_{i}" for i in range(adapters)]
        faults = [{"path": str(paths[i]), "reason": f"reason {i}"} for i in failed]
        path.write_text(json.dumps({"trained": trained, "failed": faults}))
        os.utime(path, (when, when))
        for adapter in paths[: (0 if failed else adapters) if in_place is None else in_place]:
            adapter.mkdir(parents=True)
        outcomes[str(path)] = [str(adapter) for adapter in paths]
        return outcomes

    return leave


def test_summary_counts_what_this_call_did(leave, tmp_path):
    leave("mixed", 4, when=100, trained=3)
    leave("failed", 5, when=101, trained=2, failed=[1, 4])
    leave("linked", 2, when=102)
    outcomes = leave("earlier", 8, when=99, trained=8)
    outcomes[str(tmp_path / "not-yet.json")] = [str(tmp_path / "not-yet")]
    assert summarize(outcomes, since=100, seconds=61.6).splitlines() == [
        "14 of 20 adapters are in place: 5 trained and 3 linked from the store by this call, 2 failed, in 1 min 2 s.",
        f"FAILED {tmp_path}/failed/passage_1: reason 1",
        f"FAILED {tmp_path}/failed/passage_4: reason 4",
    ]


def test_failures_of_an_earlier_call_are_not_told_again(leave):
    outcomes = leave("failed", 2, when=99, failed=[0])
    assert summarize(outcomes, since=100, seconds=0).startswith("0 of 2 adapters are in place: 0 trained and 0 linked")
    assert "FAILED" not in summarize(outcomes, since=100, seconds=0)


def test_long_list_of_failures_is_cut(leave):
    lines = summarize(leave("failed", 30, when=100, failed=range(30)), since=100, seconds=3700).splitlines()
    assert lines[0].endswith("30 failed, in 1 h 1 min.")
    assert len(lines) == 22
    assert lines[-1] == "... and 10 more: see the logs of the training jobs"


def test_outcome_file_cut_short_is_passed_over(leave, tmp_path):
    outcomes = leave("cut", 2, when=100, trained=2)
    (tmp_path / "cut.json").write_text('{"trained"')
    assert summarize(outcomes, since=0, seconds=5).startswith("2 of 2 adapters are in place: 0 trained")
