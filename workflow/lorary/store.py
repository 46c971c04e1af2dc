"""The store: adapters kept under the digest of everything that decides their content.

An entry is a directory with the adapter and `training.json`. It appears whole or not at all, and outputs are put
together from hard links to its files, so that what was trained once is never trained again.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .adapter import CONFIG, TENSORS

TRAINING = "training.json"


class Store:
    def __init__(self, directory: str):
        self.directory = Path(directory)

    def entry(self, digest: str) -> Path:
        return self.directory / digest[:2] / digest

    def get(self, digest: str) -> dict[str, Any] | None:
        """What `training.json` says of an adapter, or None where the store does not hold it whole."""
        entry = self.entry(digest)
        try:
            training = json.loads((entry / TRAINING).read_bytes())
            whole = all((entry / name).stat().st_size == size for name, size in training["sizes"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return training if whole else None

    def put(self, digest: str, config: bytes, tensors: bytes, training: dict[str, Any]) -> None:
        """Keep an adapter: written under a temporary name, on disk before it gets its own."""
        files = {CONFIG: config, TENSORS: tensors}
        sizes = {name: len(content) for name, content in files.items()}
        training = {**training, "sizes": sizes, "sha256": hashlib.sha256(tensors).hexdigest()}
        files[TRAINING] = (json.dumps(training) + "\n").encode()
        temporary = self.directory / "tmp" / f"{digest}.{os.getpid()}.{secrets.token_hex(4)}"
        temporary.mkdir(parents=True)
        try:
            for name, content in files.items():
                with (temporary / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            _sync(temporary)
            self._give_its_name(temporary, digest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _give_its_name(self, temporary: Path, digest: str) -> None:
        entry, damaged = self.entry(digest), temporary.with_name(f"{temporary.name}.damaged")
        entry.parent.mkdir(exist_ok=True)
        while True:
            try:
                temporary.rename(entry)
                _sync(entry.parent)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if self.get(digest) is not None:  # another job's, and the same
                return
            with contextlib.suppress(FileNotFoundError):  # another job may be replacing it too
                entry.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)

    def link(self, digest: str, output: str) -> None:
        """Make the adapter directory `output` from an entry: hard links, or copies where there can be none."""
        Path(output).mkdir(parents=True, exist_ok=True)
        for name in (CONFIG, TENSORS):
            source, target = self.entry(digest) / name, Path(output) / name
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)


def digest(settings: dict[str, Any], sequences: Iterable[np.ndarray]) -> str:
    """sha256 of what decides an adapter: the settings of its training, and its prompt ids (int32 arrays)."""
    content = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for ids in sequences:
        content.update(len(ids).to_bytes(8, "little"))
        content.update(ids.astype("<i4").tobytes())
    return content.hexdigest()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
