"""A user's checkout in a temporary folder, with a tiny model and small data, and snakemake called in it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import tiny
from lorary.data import rows
from lorary.plan import encode
from lorary.plan.config import resolve

CHECKOUT = ("Snakefile", "config.yaml", "workflow", "profiles", "envs")
SETTINGS = {
    "model_name": "tiny",
    "model_path": "tiny-model",
    "data_dir": "data",
    "dataset": "toy",
    "augment_model": "aug",
    "learning_rate": 0.01,
    "num_train_epochs": 1,
    "inference_methods": [],
}


class Project:
    """`Project(folder, model)` makes it, with a copy of the model directory as `tiny-model`; None: the demo.

    What no run writes to are links to this checkout, so that its modules are compiled once for all tests.
    """

    BASE = "tiny/rank=2_alpha=32"  # where the adapters of the tiny model lie, below results/adapters

    def __init__(self, folder: Path, model: Path | None):
        self.folder = folder
        (folder / "resources").mkdir(parents=True, exist_ok=True)
        kept = [path for path in (tiny.ROOT / "resources").iterdir() if path.name != "models"]  # models are written
        for source in [*(tiny.ROOT / name for name in CHECKOUT), *kept]:
            (folder / source.relative_to(tiny.ROOT)).symlink_to(source)
        if model:
            shutil.copytree(model, folder / "tiny-model")
        self.settings = dict(SETTINGS) if model else {}

    @classmethod
    def found(cls, folder: Path, settings: dict) -> "Project":
        """One that lies there already."""
        project = cls.__new__(cls)
        project.folder, project.settings = folder, settings
        return project

    def copy(self, folder: Path) -> "Project":
        """In a folder that is not there yet."""
        subprocess.run(["cp", "-a", self.folder, folder], check=True)  # hard links stay hard links
        return Project.found(folder, dict(self.settings))

    def write_rows(self, rows: list[dict], kind: str = "total") -> Path:
        return tiny.write_rows(self.folder / f"data/toy/aug/{kind}.json", rows)

    def snakemake(self, *arguments: str, check: bool = True, **settings) -> subprocess.CompletedProcess:
        """As a user calls it; `settings` go into a config file. Returns the process with its output as text."""
        process = self.start(*arguments, **settings)
        output, _ = process.communicate()
        assert not check or process.returncode == 0, output
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def start(
        self, *arguments: str, prefix: tuple[str, ...] = (), cores: int = 1, gpus: int = 1, env=None, **settings
    ) -> subprocess.Popen:
        """The same, not waited for: in a process group of its own, as in a terminal.

        One core, since tests run side by side; with another number where it is about that.
        """
        (self.folder / "mine.yaml").write_text(json.dumps({**self.settings, **settings}))  # JSON is YAML
        command = [*prefix, sys.executable, "-m", "snakemake", *arguments, "--cores", str(cores)]
        return subprocess.Popen(
            [*command, "--resources", f"gpu={gpus}", "--configfile", "mine.yaml"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env or {**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )

    def edit_config(self, **settings) -> None:
        """What a user may do while a run goes on that was given that file."""
        edited = self.folder / "edited.yaml"
        edited.write_text(json.dumps({**self.settings, **settings}))
        edited.replace(self.folder / "mine.yaml")  # a job may be reading it

    def reads(self, **settings) -> None:
        """Read config and data as snakemake does, without it; in this process, whose folder is the project's. Raises
        LoraryError."""
        for table in encode.make(resolve({**self.settings, **settings})).tables.values():
            rows.load_all([Path(file) for file in table.inputs["files"]], **table.params)

    def adapters(self) -> dict[str, str]:
        """sha256 of each trained adapter's tensors, by its path below the model's folder."""
        root = self.folder / "results/adapters"
        files = sorted(root.glob("*/*/*/**/data_*/*/adapter_model.safetensors"))
        return {str(f.parent.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    @property
    def store(self) -> str:
        return str(self.folder / "results/store")

    def trained(self) -> int:
        """How many trainings there have been: each puts one entry into the store."""
        return len(list((self.folder / "results/store").glob("??/*")))


def wait_until(condition, run) -> None:
    """Until something is so that a run, which is still going, brings about."""
    deadline = time.monotonic() + 120
    while not condition():
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
