"""What benchmarks have in common that are one ordinary call of the workflow in a folder of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lorary.core.errors import LoraryError
from lorary.plan.layout import ROOT


def numbers(name: str, words: list[str], least: int) -> list[int]:
    """Of a variable of the environment. Raises LoraryError where one is no whole number from `least`."""
    if wrong := [word for word in words if not (word.isascii() and word.isdigit() and int(word) >= least)]:
        raise LoraryError(f"{name}: {wrong[0]} is no whole number from {least}.")
    return list(dict.fromkeys(map(int, words)))


def write(path: Path, content: list[dict[str, Any]]) -> None:
    """Not where it is there: its time would call what was made of it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def call(folder: str, settings: dict[str, Any], cores: int) -> None:
    """The workflow with these settings. Raises LoraryError where it fails."""
    config = Path(folder, "bench.yaml")
    config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), "--directory", folder]
    command += ["--configfile", str(config), "--cores", str(cores), "--resources", "gpu=1"]
    if subprocess.run(command, check=False).returncode:
        raise LoraryError(f"The call has failed; what is finished is kept in {folder}, and the next one goes on there.")


def head(*cells: str) -> list[str]:
    return [line(*cells), "|" + " --- |" * len(cells)]


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
