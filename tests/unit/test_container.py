"""The image, as far as it can be checked where nothing builds it."""

import re
import shutil
import subprocess
import sys

import yaml

import tiny

LINES = (tiny.ROOT / "Containerfile").read_text(encoding="utf-8").splitlines()
COPIED = [line.split()[1:] for line in LINES if line.startswith("COPY ")]  # sources, and where to


def test_versions_come_from_the_one_place():
    """Those of packages from envs/requirements.txt, and Python's is that of conda."""
    conda = yaml.safe_load((tiny.ROOT / "envs/lorary.yaml").read_text(encoding="utf-8"))
    (version,) = (each.removeprefix("python=") for each in conda["dependencies"][:-1] if each.startswith("python="))
    assert [line for line in LINES if line.startswith("FROM ")] == [f"FROM python:{version}-slim-bookworm"]
    (installed,) = (line for line in LINES if re.match("RUN pip install", line))
    assert installed.endswith(" -r /opt/lorary/envs/requirements.txt")
    assert not re.search(r"[=<>~]=", installed)


def test_it_does_not_run_as_root():
    *_, user = (line for line in LINES if line.startswith("USER "))
    assert user == "USER lorary"
    assert LINES.index(user) < next(i for i, line in enumerate(LINES) if line.startswith("ENTRYPOINT "))


def test_what_is_copied_reaches_the_builder_and_is_all_that_a_plan_needs(tmp_path):
    ignored = (tiny.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sources = [source for *sources, _ in COPIED for source in sources]
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(sources)
    for *sources, to in COPIED:
        for source in sources:
            there = tmp_path / to.lstrip("/")
            if (tiny.ROOT / source).is_dir():
                skipped = shutil.ignore_patterns("models", "__pycache__")
                shutil.copytree(tiny.ROOT / source, there, symlinks=True, ignore=skipped)
            else:
                there.mkdir(parents=True, exist_ok=True)
                shutil.copy(tiny.ROOT / source, there)
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(tmp_path / "opt/lorary/Snakefile"), "--dry-run"]
    planned = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
    assert "Training invented total" in planned.stdout + planned.stderr
