"""Versions are pinned in one place: the conda environment repeats the pip requirements."""

import re
import tomllib

import yaml

import tiny


def test_the_conda_environment_has_the_pins_of_pip():
    lines = (tiny.ROOT / "envs/requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9_-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    conda = yaml.safe_load((tiny.ROOT / "envs/lorary.yaml").read_text())
    assert conda["dependencies"][-1] == {"pip": pins}


def test_the_conda_environment_has_a_python_that_lorary_runs_on():
    conda = yaml.safe_load((tiny.ROOT / "envs/lorary.yaml").read_text())
    (version,) = (d.removeprefix("python=") for d in conda["dependencies"][:-1] if d.startswith("python="))
    lowest = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["target-version"]
    assert tuple(map(int, version.split("."))) >= (int(lowest[2]), int(lowest[3:]))
