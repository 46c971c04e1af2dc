"""Snakemake's lock of a working directory, after a call that was killed.

That lock does not say who holds it. So each call of ours leaves a note of itself beside it, for as long as it lives:
its host, its process, and which files of the lock are its own. A lock is removed only when such a note says whose it
is, and that was a process of this host that is dead. What another host holds, or nobody known, is left to Snakemake.
"""

import atexit
import contextlib
import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import LoraryError, explain
from .files import sync

NOTES = "lorary"  # the folder of notes, beside Snakemake's `locks`
POLL = 0.2  # seconds between two looks at whether this call has got its lock
UNSEEN = 2  # seconds after the last look in which it may have got it and died

Lock = tuple[str, int]  # a file of a lock: its name, and when it was written (ns)


def take_over(folder: str, own: Callable[[], list[str]]) -> str:
    """Called when a call begins, while it reads the Snakefile: remove what a dead call of this host has left of
    Snakemake's lock in `folder` (.snakemake), and leave a note of this call, whose own lock is the files that `own`
    names (none before it has it).

    Returns what to tell the user, mostly nothing. Raises LoraryError where that folder cannot be written.
    """
    notes, locks = Path(folder) / NOTES, Path(folder) / "locks"
    try:
        Path(folder).mkdir(exist_ok=True)
        notes.mkdir(exist_ok=True)
        there = _files(locks)
        dead, living = [], []
        for path, note in _read(notes):
            if note["host"] == _host() and _is_dead(path, note):
                dead.append((path, note))
            else:
                living.append(note)
        claimed = {tuple(lock) for note in living for lock in note["locks"] or ()}
        alone = not any(note["locks"] is None for note in living)
        removed = False
        for path, note in dead:
            for lock in _held(note, path, there, alone) - claimed:
                removed |= _remove(locks, lock)
            path.unlink()
        elsewhere = [note for note in living if note["host"] != _host() and claimed & set(there)]
        _leave_note(notes, locks, own)
    except OSError as error:
        if refused := explain(error):
            raise LoraryError(f"Snakemake keeps its records in this folder. {refused}") from None
        return ""  # a file system that cannot do this: Snakemake will have its say
    if removed:
        return "The last call here was killed: its lock is removed, and this call goes on from there."
    for note in elsewhere:
        return (
            f"A call on {note['host'][0]} (process {note['process']}) holds the lock here, and this host cannot see"
            " whether it lives. If it has ended, remove its lock: snakemake --unlock"
        )
    return ""


def _leave_note(notes: Path, locks: Path, own: Callable[[], list[str]]) -> None:
    """A note of this call, which goes when it ends. Until the call has its lock the note is touched again and again: a
    lock that was there then is not this call's."""
    import psutil

    path = notes / f"{socket.gethostname()}-{os.getpid()}.json"
    about: dict[str, Any] = {"host": _host(), "process": os.getpid(), "began": psutil.Process().create_time()}
    about["locks"] = None
    path.write_text(json.dumps(about), encoding="utf-8")
    sync(path)
    with contextlib.suppress(OSError):  # a file system without such locks: the process's number has to do
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends, however
    ended = threading.Event()

    def watch() -> None:
        with contextlib.suppress(OSError):
            while not ended.wait(POLL):
                if names := own():
                    ended.wait(POLL)  # it is two files
                    about["locks"] = [lock for lock in _files(locks) if lock[0] in {*names, *own()}]
                    with path.open("r+", encoding="utf-8") as file:  # the same file, which is locked; it gets longer
                        file.write(json.dumps(about))
                    sync(path)
                    return
                os.utime(path)

    @atexit.register
    def end() -> None:
        ended.set()
        with contextlib.suppress(OSError):
            path.unlink()

    threading.Thread(target=watch, daemon=True).start()


def _read(notes: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(notes.glob("*.json")):
        with contextlib.suppress(OSError, ValueError):  # just gone, or just being written
            note = json.loads(path.read_bytes())
            if isinstance(note, dict) and {"host", "process", "began", "locks"} <= note.keys():
                yield path, note


def _held(note: dict[str, Any], path: Path, there: list[Lock], alone: bool) -> set[Lock]:
    """The files of Snakemake's lock, of those that are there, that the call of this note had made. It may have died
    between making them and saying so; that is believed only where no other call (`alone`) may have made them."""
    if note["locks"] is not None:
        return {lock for lock in there if list(lock) in note["locks"]}
    seen = path.stat().st_mtime_ns
    return {lock for lock in there if alone and seen <= lock[1] <= seen + UNSEEN * 10**9}


def _is_dead(path: Path, note: dict[str, Any]) -> bool:
    """Whether the process of a note of this host is gone: by its number, and by its lock on the note, which tells of
    processes in a container too."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(note["process"]).create_time() - note["began"]) < 1:
            return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks
        pass
    finally:
        os.close(descriptor)
    return True


def _host() -> list[str]:
    """This host's name, and the number that its system was given: two may have one name."""
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    return [socket.gethostname(), machine]


def _files(locks: Path) -> list[Lock]:
    found = []
    for path in sorted(locks.glob("*.lock")):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.name, path.stat().st_mtime_ns))
    return found


def _remove(locks: Path, lock: Lock) -> bool:
    path = locks / lock[0]
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_mtime_ns == lock[1]:
            path.unlink()
            return True
    return False
