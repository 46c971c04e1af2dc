"""The summary that a call of snakemake ends with, and failed.tsv."""

import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ..core.files import written_whole
from ..core.pack import is_there
from ..plan import layout
from ..plan.whole import Plan
from .labels import labels

COLUMNS = ["dataset", "type", "did", "pid", "path", "reason", "log"]  # of failed.tsv


def of_call(plan: Plan, since: float) -> str:
    """What a call has done that began at `since` (seconds of the epoch); writes failed.tsv."""
    told = summarize(plan.outcomes(), since, time.time() - since)
    folders = "\n".join(f"  {run.path}" for run in plan.encoding.indexes)
    answered = summarize_scores(layout.SCORES, since, plan.predictions) if plan.predictions else ""
    heldout = [gathered.result.outputs["summary"] for gathered in plan.answering.heldout]
    return f"\n{told}\n{folders}\n{answered}{''.join(summarize_heldout(path, since) for path in heldout)}"


def draw_unfinished_page(plan: Plan) -> None:
    """The summary page of what is there, with the passages that have failed: its own rule has not run."""
    if not plan.report or not Path(layout.FAILED).exists():
        return
    try:
        from .page import ShownRun, build

        build([ShownRun(**run) for run in plan.shown_runs()], plan.shown_augmentation(), failed=layout.FAILED)
        os.utime(layout.REPORT, (0, 0))  # so old that its rule draws it anew
    except Exception as error:  # the failure itself has been told
        print(f"{layout.REPORT} could not be drawn: {error}", file=sys.stderr)


def summarize(outcomes: list[dict[str, Any]], since: float, seconds: float) -> str:
    """What the jobs of this call did that make adapters; and in failed.tsv (none where none has) each passage that has
    failed, in this call or before, and has no adapter yet.

    `outcomes`: of each job the file that it leaves (`outcome`), its `log`, `dataset` and `type`, and its `adapters`.
    Files older than `since` (seconds of the epoch) belong to earlier calls.
    """
    trained = translated = linked = there = 0
    failed: list[dict[str, Any]] = []
    standing: list[dict[str, Any]] = []
    for job in outcomes:
        in_place = sum(map(is_there, job["adapters"]))
        there += in_place
        try:
            outcome = json.loads(Path(job["outcome"]).read_bytes())
            rows = [_failed_row(job, **failure) for failure in outcome["failed"]]
            of_this_call = Path(job["outcome"]).stat().st_mtime >= since
            trained_here, translated_here = outcome["trained"], outcome.get("translated", 0)
        except (OSError, ValueError, LookupError, TypeError):
            continue
        standing += [row for row in rows if row["path"] in job["adapters"] and not is_there(row["path"])]
        if of_this_call:
            trained += trained_here
            translated += translated_here
            linked += max(0, in_place - trained_here - translated_here)
            failed += rows
    total = sum(len(job["adapters"]) for job in outcomes)
    made = f"{trained} trained, {translated} translated" if translated else f"{trained} trained"
    lines = [
        f"{there} of {total} adapters are in place: {made} and {linked} linked from the store by this call,"
        f" {len(failed)} failed, in {_duration(seconds)}.",
    ]
    if to_do := total - there - len(standing):
        lines.append(f"{to_do} are still to do: `snakemake` with the same config goes on, and trains nothing again.")
    lines += [f"FAILED {row['path']}: {row['reason']}" for row in failed[:20]]
    if len(failed) > 20:
        lines.append(f"... and {len(failed) - 20} more")
    try:
        _write(standing + _of_other_types({(job["dataset"], job["type"]) for job in outcomes}))
    except OSError as error:
        lines.append(f"{layout.FAILED} could not be written: {error.strerror}")
    if standing:
        lines.append(f"All that have failed are in {layout.FAILED}; the same command tries just these again.")
    return "\n".join(lines)


def summarize_scores(path: str, since: float, predictions: list[str]) -> str:
    """The scores of this call's `predictions`, a line each, where it has made any (`since`: seconds of the epoch)."""
    try:
        if Path(path).stat().st_mtime < since:
            return ""
        with open(path, newline="", encoding="utf-8") as file:
            own = {layout.folder_of(prediction) for prediction in predictions}
            lines = [line for line in csv.DictReader(file, delimiter="\t") if line["path"] in own]
    except OSError:
        return ""
    names = [(label, line["method"]) for label, line in zip(labels(lines), lines, strict=True)][:20]
    width = max((len(name) for name, _ in names), default=0)
    most = max(7, *(len(method) for _, method in names)) if names else 7
    told = [
        f"  {name:{width}}  {method:{most}}  F1 {100 * float(line['f1']):5.1f}  ({100 * float(line['f1_low']):.1f} to"
        f" {100 * float(line['f1_high']):.1f})"
        for (name, method), line in zip(names, lines, strict=False)
    ]
    told += [f"  ... and {len(lines) - 20} more"] if len(lines) > 20 else []
    return "\n".join([f"Scores ({path}; to look at: {layout.REPORT}):", *told]) + "\n"


def summarize_heldout(path: str, since: float) -> str:
    """What was learnt beyond the trained pairs, in a line, where this call has asked any of it."""
    try:
        if Path(path).stat().st_mtime < since:
            return ""
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
    except OSError:
        return ""
    told = []
    for line in lines:
        measure, name = ("hit", "general answers right") if line["kind"] == "general" else ("f1", f"{line['kind']} F1")
        told.append(f"{name} {100 * float(line[f'{measure}_bare']):.1f} to {100 * float(line[f'{measure}_own']):.1f}")
    return f"Held out, from the bare model to the own adapter: {', '.join(told)} ({path})\n" if told else ""


def _failed_row(job: dict[str, Any], path: str, reason: str) -> dict[str, Any]:
    did, pid = layout.position_of(path)
    about = {"dataset": job["dataset"], "type": job["type"], "did": did, "pid": pid, "path": path}
    return {**about, "reason": " ".join(reason.split()), "log": job["log"]}


def _of_other_types(own: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """What calls for other types have written into failed.tsv, of passages that have no adapter yet."""
    try:
        with open(layout.FAILED, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        rows = [row | {"did": int(row["did"]), "pid": int(row["pid"])} for row in rows]
        return [row for row in rows if (row["dataset"], row["type"]) not in own and not is_there(row["path"])]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _write(failed: list[dict[str, Any]]) -> None:
    path = Path(layout.FAILED)
    if not failed:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(str(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(failed, key=lambda row: (row["dataset"], row["type"], row["did"], row["pid"])))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
