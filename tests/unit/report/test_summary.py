"""The summary that a call ends with, and the table of what has failed."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from lorary.plan import layout
from lorary.report.summary import COLUMNS, summarize, summarize_heldout


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()


@pytest.fixture
def leave(tmp_path):
    """Leaves what a job of so many adapters does, at a time: the outcome file, and the adapters unless one failed."""
    outcomes = []

    def leave(name, adapters, when, trained=0, failed=(), in_place=None):
        path = tmp_path / f"{name}.json"
        paths = [tmp_path / f"toy/lr=1/aug_model=a/{name}/data_0/passage_{i}" for i in range(adapters)]
        faults = [{"path": str(paths[i]), "reason": f"reason {i}"} for i in failed]
        path.write_text(json.dumps({"trained": trained, "failed": faults}))
        os.utime(path, (when, when))
        for adapter in paths[: (0 if failed else adapters) if in_place is None else in_place]:
            adapter.mkdir(parents=True)
        files = {"outcome": str(path), "log": str(path.with_suffix(".log"))}
        outcomes.append({**files, "dataset": "toy", "type": name, "adapters": [str(adapter) for adapter in paths]})
        return outcomes

    return leave


@pytest.fixture
def told():
    """The summary's lines, and the table of failures (None: there is none)."""

    def told(outcomes, since=100, seconds=0):
        lines = summarize(outcomes, since, seconds).splitlines()
        table = Path(layout.FAILED)
        return lines, pd.read_csv(table, sep="\t") if table.exists() else None

    return told


def test_summary_counts_what_this_call_did(leave, told, tmp_path):
    leave("mixed", 4, when=100, trained=3)
    leave("failed", 5, when=101, trained=2, failed=[4, 1])
    leave("linked", 2, when=102)
    outcomes = leave("earlier", 8, when=99, trained=8)
    outcomes.append({**outcomes[0], "outcome": str(tmp_path / "not-yet.json"), "adapters": [str(tmp_path / "not-yet")]})
    lines, failed = told(outcomes, seconds=61.6)
    tree = f"{tmp_path}/toy/lr=1/aug_model=a/failed/data_0"
    assert lines == [
        "14 of 20 adapters are in place: 5 trained and 3 linked from the store by this call, 2 failed, in 1 min 2 s.",
        "4 are still to do: `snakemake` with the same config goes on, and trains nothing again.",
        f"FAILED {tree}/passage_4: reason 4",
        f"FAILED {tree}/passage_1: reason 1",
        "All that have failed are in results/failed.tsv; the same command tries just these again.",
    ]
    assert list(failed) == COLUMNS
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
    os.makedirs(outcomes[0]["adapters"][0])
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


def test_what_was_translated_is_not_said_to_be_trained(leave, told, tmp_path):
    leave("trained", 2, when=100, trained=2)
    outcomes = leave("made", 4, when=100)
    (tmp_path / "made.json").write_text(json.dumps({"trained": 0, "translated": 3, "failed": []}))
    lines, _ = told(outcomes, since=0)
    assert lines[0].startswith("6 of 6 adapters are in place: 2 trained, 3 translated and 1 linked from the store")


@pytest.mark.parametrize("content", ['{"trained"', "[]", '{"trained": 1}', '{"trained": 1, "failed": 3}', ""])
def test_outcome_file_that_is_damaged_is_passed_over(leave, told, tmp_path, content):
    outcomes = leave("cut", 2, when=100, trained=2)
    (tmp_path / "cut.json").write_text(content)
    assert told(outcomes, since=0)[0][0].startswith("2 of 2 adapters are in place: 0 trained")


def test_a_table_that_cannot_be_written_does_not_hide_the_summary(leave, tmp_path):
    outcomes = leave("failed", 1, when=100, failed=[0])
    (tmp_path / "results").rmdir()
    (tmp_path / "results").touch()
    told = summarize(outcomes, 100, 0)
    assert "reason 0" in told
    assert "failed.tsv could not be written" in told


def test_of_what_was_held_out_a_line_is_told_where_there_is_any():
    columns = ["kind", "questions", "f1_bare", "f1_own", "hit_bare", "hit_own"]
    lines = [
        dict(zip(columns, line, strict=True)) for line in (("kept", 3, 0, 0.5, 0, 1), ("general", 9, 0, 0, 1, 0.25))
    ]
    pd.DataFrame(lines, columns=columns).to_csv("some.tsv", sep="\t", index=False)
    pd.DataFrame([], columns=columns).to_csv("none.tsv", sep="\t", index=False)
    told = "Held out, from the bare model to the own adapter: kept F1 0.0 to 50.0, general answers right 100.0 to 25.0"
    assert summarize_heldout("some.tsv", 0) == f"{told} (some.tsv)\n"
    assert summarize_heldout("none.tsv", 0) == summarize_heldout("nowhere.tsv", 0) == ""
