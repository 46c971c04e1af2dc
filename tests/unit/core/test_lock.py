"""A lock of a dead call of this host is removed; one of the living, of another host or of nobody known is not."""

import errno
import json
import shutil
import time

import pytest

from lorary.core import lock
from lorary.core.errors import LoraryError

# A call: it begins, and gets Snakemake's lock, which is two files, the first ones that are free.
CALL = """import sys, time
from pathlib import Path
from lorary.core import lock
own = []
print(lock.take_over(sys.argv[1], lambda: list(own)), flush=True)
if sys.argv[2] == "planning":
    print("planning", flush=True)
    time.sleep(60)
locks = Path(sys.argv[1], "locks")
locks.mkdir(exist_ok=True)
for kind in ("input", "output"):
    number = next(i for i in range(9) if not (locks / f"{i}.{kind}.lock").exists())
    (locks / f"{number}.{kind}.lock").write_text("x")
    own.append(f"{number}.{kind}.lock")
print("locked", flush=True)
time.sleep(60)
"""
REMOVED = "The last call here was killed: its lock is removed, and this call goes on from there.\n"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / ".snakemake"


@pytest.fixture
def call(start, folder):
    """Begins a call, and says what it was told; `locked`: it has its lock, and has seen so."""

    def call(locked=True, until="locked"):
        process = start(CALL, folder, until)
        told = process.stdout.readline()
        assert process.stdout.readline() == f"{until}\n"
        note = folder / "lorary" / f"{lock.socket.gethostname()}-{process.pid}.json"
        while locked and until == "locked" and json.loads(note.read_bytes())["locks"] is None:
            time.sleep(0.05)
        return process, told

    return call


def take_over(folder):
    """As a call that gets no lock."""
    return lock.take_over(str(folder), list)


def names(folder):
    return sorted(path.name for path in (folder / "locks").glob("*"))


def kill(process):
    process.kill()
    process.wait()


@pytest.mark.parametrize("locked", [True, False])
def test_the_lock_of_a_dead_call_is_removed(call, folder, locked):
    first, told = call(locked)
    assert told == "\n"
    kill(first)
    assert take_over(folder) == REMOVED.strip()
    assert names(folder) == []


def test_the_lock_of_a_living_call_stays(call, folder):
    call()
    assert take_over(folder) == ""
    assert names(folder) == ["0.input.lock", "0.output.lock"]


def test_the_lock_of_nobody_known_stays(folder):
    """Another workflow that is live in this folder leaves no note."""
    (folder / "locks").mkdir(parents=True)
    (folder / "locks/0.input.lock").write_text("x")
    assert take_over(folder) == ""
    assert names(folder) == ["0.input.lock"]


def test_only_what_the_dead_call_held_is_removed(call, folder):
    (folder / "locks").mkdir(parents=True)
    (folder / "locks/0.input.lock").write_text("of another workflow")
    first, _ = call()
    kill(first)
    (folder / "locks/2.input.lock").write_text("of a third one, later")
    assert take_over(folder) == REMOVED.strip()
    assert names(folder) == ["0.input.lock", "2.input.lock"]


def test_a_lock_that_was_made_long_after_a_call_died_is_not_its(call, folder):
    first, _ = call(locked=False)
    kill(first)
    time.sleep(lock.UNSEEN + 0.1)
    for path in (folder / "locks").iterdir():  # as another workflow does
        path.write_text("y")
    assert take_over(folder) == ""
    assert names(folder) == ["0.input.lock", "0.output.lock"]


@pytest.mark.parametrize("there", [["another-host", ""], [lock.socket.gethostname(), "another-machine"]])
def test_the_lock_of_another_host_stays_and_is_told(call, folder, there):
    """From here that host's processes cannot be seen, nor, on many cluster file systems, the locks of its files."""
    first, _ = call()
    kill(first)
    (note,) = (folder / "lorary").glob("*.json")
    note.write_text(json.dumps({**json.loads(note.read_bytes()), "host": there}))
    for _ in range(2):
        assert take_over(folder).startswith(f"A call on {there[0]} (process {first.pid}) holds the lock")
    assert names(folder) == ["0.input.lock", "0.output.lock"]
    shutil.rmtree(folder / "locks")
    assert take_over(folder) == ""  # as after snakemake --unlock


def test_a_lock_that_another_workflow_gets_while_a_call_is_planning_is_not_that_calls(call, folder):
    planning, _ = call(until="planning")
    (folder / "locks").mkdir()
    (folder / "locks/0.input.lock").write_text("of another workflow")
    time.sleep(2 * lock.POLL)
    planning.terminate()  # without its last words
    planning.wait()
    assert take_over(folder) == ""
    assert names(folder) == ["0.input.lock"]


@pytest.mark.parametrize("noted", [True, False])
def test_the_lock_of_a_living_call_is_not_taken_for_that_of_one_beside_it_that_died(call, folder, noted):
    planning, _ = call(until="planning")
    call(locked=noted)
    kill(planning)
    assert take_over(folder) == ""
    assert names(folder) == ["0.input.lock", "0.output.lock"]


def test_a_call_that_ends_leaves_no_note(start, folder):
    start(f"from lorary.core import lock; lock.take_over({str(folder)!r}, list)").wait()
    assert list((folder / "lorary").iterdir()) == []


def test_a_folder_without_locks_of_files_has_the_process_numbers(call, folder, monkeypatch):
    def no_lock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_lock)
    first, _ = call()
    assert take_over(folder) == ""
    kill(first)
    assert take_over(folder) == REMOVED.strip()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(LoraryError, match=r"Snakemake keeps its records in this folder.*No such file or directory"):
        take_over(tmp_path / "gone/.snakemake")
