"""run.json: what it takes to make the adapters of a run again."""

import hashlib
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from ..adapters.digest import digest_base_weight, digested
from ..base.fetch import fingerprint
from ..plan import keep
from ..plan.encode import NUMERICS

ROOT = Path(__file__).parents[3]


def describe_run(
    runs: list[dict[str, Any]],
    model: str,
    base_weight: str,
    data: list[str],
    tables: dict[str, str],
    task_adapter: dict[str, str] | None = None,
) -> dict[str, Any]:
    """What run.json says of a call: the resolved config of each run that wrote into this folder; the table of each type
    (`tables`); versions; the git revision of this workflow, where there is one; and sha256 of base model, base weight,
    task adapter (where there is one), data, templates, few-shot examples and questions to keep."""
    files = {path for run in runs for path in (run["prompt_templates"], run["with_cot"] and run["fewshot"]) if path}
    files |= {keep.questions_of(run) for run in runs if "keep_directions" in run or "keep_sequences" in run}
    return {
        "config": runs,
        "model": fingerprint(model),
        "base_weight": {"path": base_weight, "sha256": digest_base_weight(base_weight)},
        **({"task_adapter": digested(task_adapter)} if task_adapter else {}),
        "files": {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in sorted({*data, *files})},
        "tables": tables,
        "numerics": NUMERICS,
        "called_in": os.getcwd(),
        "git": git_revision(),
        "versions": versions(),
    }


def git_revision() -> str | None:
    """Of the checkout that this file belongs to, with -dirty where it was changed; None where there is none."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        git = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return git.stdout.strip() or None


def versions() -> dict[str, str]:
    """Of Python and of each package that envs/requirements.txt pins."""
    names = re.findall(r"^([\w-]+)==", (ROOT / "envs/requirements.txt").read_text(encoding="utf-8"), re.M)
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
