"""The benchmark of scale: what each stage of a run takes, by the number of its passages, in processor time and memory.

Nothing is trained; `benchmarks.towns` says what the runs are made of. Each stage is a process of its own (`python -m
benchmarks.scale`, which reads the arguments of `measure` as JSON) in the folder of a run. Processor time is the user's
and the system's, with the start of Python, since a job has that too.
"""

import contextlib
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import towns
from benchmarks.calls import numbers
from benchmarks.machine import in_a_process, machine

log = logging.getLogger("lorary.benchmarks")

COLUMNS = ("stage", "passages", "cpu_seconds", "seconds_a_thousand", "peak_mb")
SNAKEFILE = Path(__file__).parents[2] / "Snakefile"
QUESTION = "Who founded Place7?"
# In the order in which they are measured.
TITLES = {
    "plan": "`snakemake -n`, the first",
    "plan_again": "the same again",
    "load_data": "the table of the data",
    "build_prompts": "prompt ids, a job",
    "train_adapters": "training, a job, up to its first passage",
    "link_adapters": "training, a job that finds all in the store",
    "index_adapters": "the index of adapters",
    "report": "the report",
    "summary": "the summary of a call",
    "verify": "`snakemake verify`",
    "prune": "`snakemake prune`",
    "ask": "`ask` and `serve`, up to the base model, the first",
    "ask_again": "the same again",
}
OF_A_JOB = ("build_prompts", "train_adapters", "link_adapters")  # of which a few are measured


def bench_scale(model: str, sizes: list[str], folder: str, output: str) -> str:
    """Measure runs of so many passages, one after the other, in `folder`, which goes afterwards. `model`: the directory
    of a base model, for its tokenizer. Writes TSV, and returns a table for reading. Raises LoraryError where a size is
    no number."""
    lines: list[dict[str, Any]] = []
    for size in numbers("SIZES", sizes, least=1):
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        try:
            lines += _measured(str(Path(model).resolve()), size, Path(folder, str(size)).resolve())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    rows = ["\t".join(COLUMNS), *("\t".join(f"{line[key]}" for key in COLUMNS) for line in lines)]
    Path(output).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return _table(lines)


def measure(stage: str, folder: str, **arguments: Any) -> dict[str, float]:
    """What a stage takes in this process and in those that it starts."""
    os.chdir(folder)
    STAGES[stage](**arguments)
    taken = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024  # bytes, of what getrusage counts in
    return {
        "cpu_seconds": sum(of.ru_utime + of.ru_stime for of in taken),
        "peak_mb": max(of.ru_maxrss for of in taken) * unit / 1e6,
    }


def _measured(model: str, size: int, folder: Path) -> list[dict[str, Any]]:
    folder.mkdir(parents=True)
    jobs = towns.sampled(size)

    def run(stage: str, **arguments: Any) -> dict[str, Any]:
        log.info("%s passages: %s", f"{size:,}", stage)
        return in_a_process("benchmarks.scale", {"stage": stage, "folder": str(folder), **arguments})

    run("lay_out", model=model, passages=size)
    lines = []
    for stage in TITLES:
        if stage == "load_data":
            run("prepare")
        if stage == "train_adapters":  # those of the jobs that are measured are not there yet
            run("fill", without=jobs)
        if stage == "link_adapters":
            run("fill", without=[])
        taken = [run(stage, job=job) for job in jobs] if stage in OF_A_JOB else [run(stage)]
        seconds = sum(one["cpu_seconds"] for one in taken) / len(taken)
        passages = min(size, towns.PER_JOB) if stage in OF_A_JOB else size
        lines.append(
            {
                "stage": stage,
                "passages": size,
                "cpu_seconds": round(seconds, 3),
                "seconds_a_thousand": round(1000 * seconds / passages, 4),
                "peak_mb": round(max(one["peak_mb"] for one in taken)),
            }
        )
    return lines


def _table(lines: list[dict[str, Any]]) -> str:
    told = [
        f"On {machine(1)}. Seconds are processor time; of a job, those of one job of {towns.PER_JOB:,} passages in a"
        " run of so many:",
        "",
        "| | passages | seconds | a thousand passages | memory at most |",
        "|" + " --- |" * 5,
    ]
    for stage, title in TITLES.items():
        for line in (line for line in lines if line["stage"] == stage):
            told.append(
                f"| {title} | {line['passages']:,} | {line['cpu_seconds']:,.1f} s | {line['seconds_a_thousand']:.3f} s"
                f" | {line['peak_mb'] / 1000:.2f} GB |"
            )
            title = ""
    return "\n".join(told) + "\n"


def _plan() -> None:
    command = [sys.executable, "-m", "snakemake", "-n", "-q", "all", "-s", str(SNAKEFILE), "--cores", "1"]
    subprocess.run([*command, "--configfile", towns.CONFIG], check=True, stdout=subprocess.DEVNULL)


def _load_data() -> None:
    from lorary.data import rows

    files, output, settings = towns.arguments("load_data")
    rows.save(rows.load([Path(file) for file in files], **settings), output)


def _train_adapters(job: int) -> None:
    """Up to where the first passage is about to be trained."""
    from lorary.train import encode

    class FirstPassage(Exception):
        pass

    def train(self, passages, items, count):
        item = next(iter(items))
        next(passage for passage in passages if passage.position == item.content)
        raise FirstPassage

    try:
        with mock.patch.object(encode.Encoder, "train", train):
            encode.train_adapters(**towns.batch(job))
    except FirstPassage:
        return
    raise AssertionError("it has found all of its adapters")


def _link_adapters(job: int) -> None:
    from lorary.core.pack import pack_of
    from lorary.train.encode import train_adapters

    batch = towns.batch(job)
    pack = pack_of(batch["outputs"][0])
    assert pack is not None
    for file in (Path(batch["record"]), pack):
        file.unlink()
    train_adapters(**batch)


def _index_adapters() -> None:
    from lorary.train.index import index_adapters
    from lorary.train.provenance import describe_run

    run, arguments = towns.arguments("index_adapters")
    index_adapters(about=describe_run(**run), **arguments)


def _report() -> None:
    from lorary.report.page import ShownRun, build

    runs, augmented = towns.arguments("report")
    build([ShownRun(**run) for run in runs], augmented)


def _summary() -> None:
    from lorary.report.summary import summarize

    summarize(towns.arguments("summary"), 0, 1)


def _verify() -> None:
    from lorary.upkeep.verify import verify

    verify(**towns.arguments("verify"))


def _prune() -> None:
    from lorary.upkeep.prune import Wanted, prune

    prune([Wanted(**batch) for batch in towns.arguments("prune")], ask=False)


def _ask() -> None:
    from lorary.answer.ask import open_run

    with contextlib.closing(open_run("results/adapters", None)) as opened:
        found = opened.search(QUESTION, 3)
        assert found
        opened.setting(passage.kind for passage in found)


STAGES: dict[str, Callable[..., None]] = {
    "lay_out": towns.lay_out,
    "plan": _plan,
    "plan_again": _plan,
    "prepare": towns.prepare,
    "load_data": _load_data,
    "build_prompts": towns.build_prompts,
    "fill": towns.fill,
    "train_adapters": _train_adapters,
    "link_adapters": _link_adapters,
    "index_adapters": _index_adapters,
    "report": _report,
    "summary": _summary,
    "verify": _verify,
    "prune": _prune,
    "ask": _ask,
    "ask_again": _ask,
}

if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.stdin.read()))))
