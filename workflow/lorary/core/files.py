"""The folders that a run writes into: nothing is written outside of them, whatever names and links there are, and no
file appears before it is whole."""

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .errors import LoraryError, damaged

T = TypeVar("T")

ABANDONED = 3600  # seconds after which what is half written belongs to nobody any more


def check_folder(key: str, folder: str) -> None:
    """Raises LoraryError where the folder of this key of the config can be none, since a file lies in its way."""
    path = Path(folder)
    for part in (path, *path.parents):
        try:
            part.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise LoraryError(f"{key}: {part}: {error.strerror}. Choose another folder.") from None
        if part.is_symlink() and not part.exists():
            raise LoraryError(
                f"{key}: {part} is a symbolic link that leads nowhere. Remove it, or choose another folder."
            )
        if not part.is_dir():
            raise LoraryError(f"{key}: {part} is a file, and a folder was expected. Choose another folder.")


def refuse_detours(output: str, root: str) -> None:
    """Raises LoraryError where a symbolic link below the folder `root` leads a path (below it too) out of there.

    `root` itself may be a link: that is the user's word, while names below it come from data and config.
    """
    path, real_root = Path(output), Path(root).resolve()
    if not path.resolve().is_relative_to(real_root):
        link = next((part for part in [*reversed(path.parents), path] if part.is_symlink()), path)
        raise LoraryError(
            f"{link} is a symbolic link that leads out of {root}. Remove it, and set adapter_dir to have the adapters"
            " elsewhere."
        )


@contextlib.contextmanager
def written_whole(path: str, new_folder: bool = False) -> Iterator[Path]:
    """Yields the temporary name of a file to write, which gets its own when it is whole and on disk. `new_folder`: its
    folder may not be there yet."""
    target = Path(path)
    if new_folder:
        target.parent.mkdir(parents=True, exist_ok=True)
    remove_left(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(target)
        sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_left(target: Path) -> None:
    """What was left half written under a temporary name of this file, by one that was killed, but maybe is just
    ending."""
    for left in target.parent.glob(f".{target.name}.*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.lstat().st_mtime > ABANDONED:
                left.unlink()


def write_settled(look: Callable[[], T], write: Callable[[T], None]) -> None:
    """Write what is seen, and again for as long as others change that meanwhile: of several processes that do this at
    once, whoever is the last has seen all."""
    seen = look()
    while True:
        write(seen)
        if (now := look()) == seen:
            return
        seen = now


def read_json(path: str | Path) -> Any:
    """Of a file that a job of ours wrote. Raises LoraryError where it cannot be read any more."""
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None


def sha256(path: Path) -> str:
    """Of a file; empty where there is none. Raises OSError where it cannot be read, which is not to say damaged."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
