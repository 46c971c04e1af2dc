"""The campaign of faults: `make faults`, or `PYTHONPATH=workflow python tests/faults.py --help`.

A run is struck at random moments, in random ways, and called again until it ends; and so again and again, until so many
faults are done. In the end every adapter has to be there, byte by byte as an undisturbed run makes it, and no more than
one passage a fault may have been begun again; so also with what is found and augmented of raw text. Then all bad input
(bad_input.py) is tried with snakemake itself.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

import bad_input
import tiny
from lorary.augment.kept import FOLDER, Results
from lorary.core import pack
from lorary.core.store import Store
from project import Project


@dataclass
class Figures:
    faults: Counter = field(default_factory=Counter)
    runs: int = 0  # struck until they ended
    passages: int = 0  # over all runs
    begun: int = 0  # trainings, over all runs
    lost: int = 0  # files, of adapters or of what is augmented, that were missing or others in the end
    longest_stop: float = 0.0  # seconds from SIGTERM or Ctrl-C to the end of the job

    def __str__(self) -> str:
        n = self.faults.total()
        return "\n".join(
            [
                f"{n} faults over {self.runs} runs of {self.passages // max(1, self.runs)} passages:",
                *(f"  {count:4} {name}" for name, count in sorted(self.faults.items())),
                f"files lost, or other than in an undisturbed run: {self.lost}",
                *(
                    [f"passages begun again: {self.begun - self.passages}, of {n} that could have been"]
                    * bool(self.begun)
                ),
                f"longest end of a job after SIGTERM or Ctrl-C: {self.longest_stop:.1f} s",
            ]
        )


def campaign(
    project: Project, faults: int, rng: random.Random, longest_life: float, cores: int = 1, target: str = "all"
) -> Figures:
    """Strike runs of this project `faults` times, and let the last one end. Raises AssertionError."""
    project.snakemake(target, cores=cores)
    expected, digests = tree(project), kept(project)
    passages = len(digests) or len(list(Results(project.store).keys()))
    figures = Figures()
    kinds: list[str] = []
    while figures.faults.total() < faults:
        for name in ("results", "logs", "benchmarks", ".snakemake"):
            shutil.rmtree(project.folder / name, ignore_errors=True)
        struck = begun = 0
        while True:
            run = project.start(target, cores=cores)
            kinds = kinds or rng.sample(list(FAULTS), len(FAULTS))  # each kind as often as any other
            name = kinds[-1] if figures.faults.total() < faults else None
            if name and strikes(name, run, rng.uniform(0.3, longest_life), project, rng, digests, figures):
                struck += 1
                figures.faults[kinds.pop()] += 1
                augmented = len(list(Results(project.store).keys()))
                there = f"{len(kept(project))} adapters and {augmented} augmented in the store"
                print(f"{figures.faults.total():4} {name}: {there}")
            output = finish(run)
            begun += count_begun(project)
            assert "this is a bug" not in output, output
            if run.returncode == 0:
                break
            assert name, output  # what nobody disturbs has to end well
        found = tree(project)
        differing = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
        figures.lost += len(differing)
        assert not differing, differing
        assert not list(project.folder.glob(".snakemake/locks/*"))
        assert begun <= passages + struck, f"{passages} passages were begun {begun} times, with {struck} faults"
        figures.runs, figures.passages, figures.begun = (
            figures.runs + 1,
            figures.passages + passages,
            figures.begun + begun,
        )
    return figures


def strikes(name: str, run: subprocess.Popen, life: float, project: Project, rng, digests, figures: Figures) -> bool:
    """Let the run live so long, then do that to it. False where it had ended before."""
    try:
        run.wait(life)
        return False
    except subprocess.TimeoutExpired:
        pass
    processes = psutil.Process(run.pid).children(recursive=True)
    began = time.monotonic()
    FAULTS[name](run, processes)
    if name == POWER_LOSS:
        tear(project, rng, digests)
    if name in STOPS:
        _, alive = psutil.wait_procs(processes, 60)
        assert not alive, f"{name}: jobs run 60 s later"
        figures.longest_stop = max(figures.longest_stop, time.monotonic() - began)
    return True


def kill_jobs(run: subprocess.Popen, processes: list[psutil.Process]) -> None:
    for process in processes:
        _signal(process, signal.SIGKILL)


def kill_both(run: subprocess.Popen, processes: list[psutil.Process]) -> None:
    run.kill()
    kill_jobs(run, processes)


def ask_jobs(run: subprocess.Popen, processes: list[psutil.Process]) -> None:
    for process in processes:
        _signal(process, signal.SIGTERM)


POWER_LOSS = "power loss in the middle of writing"
FAULTS = {
    "SIGKILL of the job": kill_jobs,
    "SIGKILL of snakemake alone": lambda run, _: run.kill(),
    "SIGKILL of both": kill_both,
    "SIGTERM to the job": ask_jobs,
    "SIGTERM to snakemake": lambda run, _: run.terminate(),
    "SIGTERM to all": lambda run, _: os.killpg(run.pid, signal.SIGTERM),
    "Ctrl-C": lambda run, _: os.killpg(run.pid, signal.SIGINT),
    POWER_LOSS: kill_both,
}
STOPS = {"SIGTERM to the job", "SIGTERM to snakemake", "SIGTERM to all", "Ctrl-C"}


def tear(project: Project, rng: random.Random, digests: list[str]) -> None:
    """What a power loss may leave of what was not yet on disk: half of a temporary file, an entry that got its name
    before its files, a record of Snakemake that is empty."""
    shelf = store(project)
    written = [path for path in shelf.directory.glob("tmp/**/*") if path.is_file()]
    for file in [*written, *Path(project.store, FOLDER).glob("*/.*.part")]:
        os.chmod(file, 0o600)
        os.truncate(file, rng.randrange(file.stat().st_size + 1))
    missing = [digest for digest in digests if not shelf.entry(digest).exists()]
    for digest in rng.sample(missing, min(2, len(missing))):
        shelf.entry(digest).mkdir(parents=True)
        for name in rng.sample(["adapter_config.json", "adapter_model.safetensors", "training.json"], 2):
            (shelf.entry(digest) / name).write_bytes(b"" if rng.random() < 0.5 else rng.randbytes(100))
    for file in (project.folder / ".snakemake").glob("*/*"):
        if file.parent.name in ("metadata", "incomplete") and file.is_file() and time.time() - file.stat().st_mtime < 1:
            file.write_bytes(b"")


def finish(run: subprocess.Popen) -> str:
    """What it said; not waiting for a job that outlives a killed snakemake, as nobody would before calling again."""
    if run.poll() is None:
        output, _ = run.communicate(timeout=900)
        return output
    os.set_blocking(run.stdout.fileno(), False)
    return run.stdout.read() or ""


def count_begun(project: Project) -> int:
    """How many passages the jobs of this call have begun. Takes the logs away, which the next call would write over."""
    logs = project.folder / "logs"
    if not logs.exists():
        return 0
    shutil.rmtree(project.folder / "logs.old", ignore_errors=True)
    logs.rename(project.folder / "logs.old")
    files = (project.folder / "logs.old").glob("train_adapters/**/*.log")
    return sum(file.read_text().count(" begins\n") for file in files)


def tree(project: Project) -> dict[str, str]:
    """sha256 of what lies in the adapter tree, adapters in packs one by one, and of what was found and augmented. Of
    tables only what is not a
    measurement; run.json, what it and the index are made of, and Snakemake's time stamps, which are about the call, are
    left out."""
    content = {}
    root = project.folder / "results"
    there = [path for name in ("adapters", "retrieved", "augmented") for path in (root / name).rglob("*")]
    for file in sorted(path for path in there if path.is_file()):
        name = str(file.relative_to(root))
        if file.suffix == ".tsv" and (file.name == "adapters.tsv" or name.startswith("augmented/")):
            content[name] = pd.read_csv(file, sep="\t").drop(columns=["seconds", "date"], errors="ignore").to_json()
        elif file.parent.name == pack.FOLDER:
            for place in pack.Pack(file).places:
                content[f"{name}/{place}"] = str(pack.sha256(file / place))
        elif file.name not in ("run.json", ".snakemake_timestamp") and "/.lorary/" not in name:
            content[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return content


def kept(project: Project) -> list[str]:
    """The digests of all adapters in the store."""
    shelf = store(project)
    return sorted({*shelf.digests(), *(digest for path in shelf.packs.files() for digest in pack.digests_of(path))})


def store(project: Project) -> Store:
    return Store(project.store)


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def tiny_project(folder: Path, questions: int, pairs: int, **settings) -> Project:
    """Passages of a tiny model that train for a third of a second each (60 pairs), six a job."""
    folder.mkdir(exist_ok=True)
    project = Project(folder / "tiny", tiny.make_model(folder / "model"))
    project.write_rows(tiny.make_rows(questions, passages=3, pairs=pairs))
    project.settings |= {"passages_per_job": 6, "adapters_per_step": 1, **settings}
    return project


def raw_project(folder: Path, documents: int) -> Project:
    """Documents and questions, which a tiny model augments: so few passages a job that it is not found out as too weak,
    and so many that some seconds go by."""
    project = Project(folder / "raw", tiny.make_model(folder / "model-for-raw"))
    tiny.write_documents(project.folder / "docs", documents)
    tiny.write_rows(project.folder / "questions.json", [{"question": tiny.tower(1)[0] + "?", "answer": "a"}])
    for key in ("data_dir", "dataset", "augment_model"):
        del project.settings[key]
    project.settings |= {"source": "documents", "documents": "docs", "questions": "questions.json"}
    project.settings |= {"pairs": 1, "augment_tries": 2, "passages_per_augment_job": 3}
    return project


def smollm2_project(folder: Path) -> Project:
    """Nine passages of the demo with SmolLM2: copied if the demo was run in this checkout, and fetched if not."""
    project = Project(folder / "smollm2", None)
    model = tiny.ROOT / "resources/models/smollm2-135m-instruct"
    if model.exists():
        shutil.copytree(model, project.folder / "resources/models" / model.name, symlinks=True)
    tiny.write_demo_rows(project.folder)
    project.settings = {"data_dir": "data", "sample": 3, "passages_per_job": 3, "adapters_per_step": 1}
    project.settings |= {"max_length": 100, "num_train_epochs": 1, "inference_methods": []}
    return project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=85, help="of runs of 36 passages of a tiny model (default: 85)")
    parser.add_argument("--packed", type=int, default=20, help="of the same, with pack: true (default: 20)")
    parser.add_argument("--raw", type=int, default=20, help="of runs that augment 12 documents (default: 20)")
    parser.add_argument("--smollm2", type=int, default=15, help="of runs of 9 passages of SmolLM2 (default: 15)")
    parser.add_argument("--seed", type=int, help="of what happens when (default: another each time)")
    parser.add_argument("--no-bad-input", action="store_true", help="leave that part out")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parts = []
        if arguments.faults:
            project = tiny_project(folder, questions=12, pairs=60)
            parts.append(("A tiny model", campaign(project, arguments.faults, rng, longest_life=10)))
        if arguments.packed:
            project = tiny_project(folder / "packed", questions=12, pairs=60, pack=True)
            figures = campaign(project, arguments.packed, rng, longest_life=20)
            parts.append(("A tiny model, in packs", figures))
        if arguments.raw:
            project = raw_project(folder, documents=12)
            figures = campaign(project, arguments.raw, rng, longest_life=10, target="augmented")
            parts.append(("Documents, questions and augmentation", figures))
        if arguments.smollm2:
            project = smollm2_project(folder)
            parts.append(("SmolLM2-135M-Instruct", campaign(project, arguments.smollm2, rng, longest_life=25, cores=2)))
        cases = [] if arguments.no_bad_input else bad_input.CONFIG_AND_DATA + bad_input.IN_JOBS
        bare = Project(folder / "bare", tiny.make_model(folder / "model-for-bad-input"))
        bare.write_rows(tiny.make_rows(3))
        with_model = bare.copy(folder / "with-model")
        with_model.snakemake("models")
        for i, case in enumerate(cases, start=1):
            project = (bare if case in bad_input.MODELS else with_model).copy(folder / "case")
            bad_input.refuse(project, case)
            shutil.rmtree(project.folder)
            print(f"{i:4} refused: {case.name}")
    print()
    for title, figures in parts:
        print(f"{title}: {figures}\n")
    print(f"bad inputs tried: {len(cases)}, refused with a message that names the place: {len(cases)}")
    print(f"{(time.monotonic() - began) / 60:.0f} minutes, seed {seed}")


if __name__ == "__main__":
    main()
