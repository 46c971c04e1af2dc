"""The summary that a call of snakemake ends with, and failed.tsv."""

import csv
import json
import os
from pathlib import Path
from typing import Any

FAILED = ["dataset", "type", "did", "pid", "path", "reason", "log"]


def summarize(outcomes: dict[str, list[str]], since: float, seconds: float, failed_table: str) -> str:
    """What the training jobs of this call did; and in `failed_table` (a TSV file; none where none has) each passage
    that has failed, in this call or before, and has no adapter yet.

    `outcomes` are the files that jobs leave, each with the adapters of its batch; those older than `since` (seconds
    of the epoch) belong to earlier calls.
    """
    trained = linked = there = 0
    failed: list[dict[str, Any]] = []
    standing: list[dict[str, Any]] = []
    for path, adapters in outcomes.items():
        in_place = sum(Path(adapter).is_dir() for adapter in adapters)
        there += in_place
        try:
            outcome = json.loads(Path(path).read_bytes())
            rows = [_failed_row(path, **failure) for failure in outcome["failed"]]
            of_this_call = Path(path).stat().st_mtime >= since
            trained_here = outcome["trained"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        standing += [row for row in rows if row["path"] in adapters and not Path(row["path"]).is_dir()]
        if of_this_call:
            trained += trained_here
            linked += max(0, in_place - trained_here)
            failed += rows
    total = sum(map(len, outcomes.values()))
    lines = [
        f"{there} of {total} adapters are in place: {trained} trained and {linked} linked from the store by this call,"
        f" {len(failed)} failed, in {_duration(seconds)}.",
    ]
    if to_do := total - there - len(standing):
        lines.append(f"{to_do} are still to do: `snakemake` with the same config goes on, and trains nothing again.")
    lines += [f"FAILED {row['path']}: {row['reason']}" for row in failed[:20]]
    if len(failed) > 20:
        lines.append(f"... and {len(failed) - 20} more")
    try:
        _write(standing, Path(failed_table))
    except OSError as error:
        lines.append(f"{failed_table} could not be written: {error.strerror}")
    if standing:
        lines.append(f"All that have failed are in {failed_table}; the same command tries just these again.")
    return "\n".join(lines)


def summarize_scores(path: str, since: float) -> str:
    """The scores of this call, a line each, where it has made any (`since`: seconds of the epoch)."""
    try:
        if Path(path).stat().st_mtime < since:
            return ""
        with open(path, newline="") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
    except OSError:
        return ""
    names = [(f"{line['dataset']} {line['type']}", line["method"]) for line in lines[:20]]
    width = max((len(name) for name, _ in names), default=0)
    told = [
        f"  {name:{width}}  {method:7}  F1 {100 * float(line['f1']):5.1f}  ({100 * float(line['f1_low']):.1f} to"
        f" {100 * float(line['f1_high']):.1f})"
        for (name, method), line in zip(names, lines, strict=False)
    ]
    told += [f"  ... and {len(lines) - 20} more"] if len(lines) > 20 else []
    return "\n".join([f"Scores ({path}; to look at: results/report.html):", *told]) + "\n"


def _failed_row(outcome: str, path: str, reason: str) -> dict[str, Any]:
    *_, dataset, _, _, kind, data, passage = Path(path).parts
    return {
        "dataset": dataset,
        "type": kind,
        "did": int(data.removeprefix("data_")),
        "pid": int(passage.removeprefix("passage_")),
        "path": path,
        "reason": " ".join(reason.split()),
        "log": str(Path(outcome).with_suffix(".log")),
    }


def _write(failed: list[dict[str, Any]], path: Path) -> None:
    if not failed:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, FAILED, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(failed, key=lambda row: (row["dataset"], row["type"], row["did"], row["pid"])))
    temporary.replace(path)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
