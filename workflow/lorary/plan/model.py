"""The models of a run: the base model, and the one that augments."""

import os
from pathlib import Path

from ..base.support import MODEL_FILES, check_config
from ..core.errors import LoraryError
from . import layout
from .job import Job
from .run import Run


def base_model(run: Run) -> Job:
    """Raises LoraryError where model_path names a directory that is not there, or a model that is not trained."""
    model = run.model
    folder = _check("model_path", model.model_path)
    if os.path.isfile(os.path.join(folder, "config.json")):
        check_config(Path(folder), model.model_path)
    return _job(model.model_name, model.model_path, model.model_revision, model.trust_remote_code)


def augment_model(run: Run) -> Job:
    """The base model, where the run names no other. Raises LoraryError where it is not there."""
    path = run.augmenting.augment_model_path
    if not path:
        return base_model(run)
    _check("augment_model_path", path)
    return _job(run.data.augment_model, path, run.augmenting.augment_model_revision, run.model.trust_remote_code)


def model_files(model_path: str) -> list[str]:
    """The files of a model that lies here: when they change, the model does. A clone's .git changes at other times."""
    folder = Path(os.path.expanduser(model_path))
    if folder.suffix == ".gguf" and folder.is_file():
        return [str(folder)]
    files = {path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()}
    return sorted(str(path) for path in files if not path.name.startswith("."))


def _check(key: str, path: str) -> str:
    model_path = os.path.expanduser(path)
    gguf = model_path.endswith(".gguf")
    there = os.path.isfile(model_path) if gguf else os.path.isdir(model_path)
    if model_path.startswith(("/", "./", "../", "~")) and not there:
        what = "" if gguf else "directory "
        raise LoraryError(f"{key}: there is no {what}{path} (seen from {Path.cwd()}).")
    return model_path


def _job(label: str, path: str, revision: str | None, trust: bool) -> Job:
    return Job(
        rule="get_model",
        label=label,
        inputs={},
        outputs={"model": layout.MODEL.format(model=label)},
        params={"model_path": path, "model_revision": revision, "trust_remote_code": trust},
    )
