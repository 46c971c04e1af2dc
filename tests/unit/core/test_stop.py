"""A job ends when it is asked to, and when its Snakemake is gone; a lock of the dead is removed, of the living not."""

import errno
import os
import signal
import time

import pytest

from lorary.core import stop
from lorary.core.errors import LoraryError


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_what_is_in_hand_is_finished(number):
    before = signal.getsignal(number)
    said = []
    with stop.after_what_is_in_hand(said.append) as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
    assert said == ["stopping after what is in hand"]
    assert signal.getsignal(number) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_what_takes_longer_than_the_patience_is_interrupted(monkeypatch):
    monkeypatch.setattr(stop, "PATIENCE", 0.1)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), stop.after_what_is_in_hand(print):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    assert time.monotonic() - began < 10


def test_sigterm_may_come_twice():
    """From Slurm to all processes, and passed on by Snakemake."""
    with stop.after_what_is_in_hand(print) as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        assert asked()


def test_a_second_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), stop.after_what_is_in_hand(print):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)


FOLLOWER = """import signal, sys, time
from lorary.core import stop
def told(*_):
    print("told", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, told)
stop.follow_snakemake()
print("here", flush=True)
time.sleep(60)
"""
# as with conda, a shell stands between Snakemake and its job
LEADER = """import subprocess, sys, time
from lorary.core import stop
stop.lead_jobs()
subprocess.run(["bash", "-c", '"$@"; true', "bash", sys.executable, "-c", sys.argv[1]])
"""


def test_a_job_is_told_when_its_snakemake_was_killed(start):
    leader = start(LEADER, FOLLOWER)
    assert leader.stdout.readline() == "here\n"
    leader.kill()
    assert leader.stdout.read() == "told\n"  # the follower's, on the same pipe


HOLD = """import sys, time
from pathlib import Path
from lorary.core import stop
print(stop.remove_stale_lock(sys.argv[1]), flush=True)
Path(sys.argv[1], "locks").mkdir(exist_ok=True)
Path(sys.argv[1], "locks/0.input.lock").write_text("x")
print("locked", flush=True)
time.sleep(60)
"""


def test_a_job_whose_snakemake_is_gone_already_is_told_at_once(start, monkeypatch):
    gone = start("pass")
    gone.wait()
    monkeypatch.setenv(stop.PARENT, str(gone.pid))
    assert start(FOLLOWER).stdout.read() == "told\n"


def test_a_lock_is_stale_when_its_holder_is_dead(start, tmp_path):
    folder = tmp_path / ".snakemake"
    first = start(HOLD, folder)
    assert [first.stdout.readline() for _ in "ab"] == ["False\n", "locked\n"]
    second = start(HOLD, folder)  # say, a dry run
    assert second.stdout.readline() == "False\n"
    first.kill()
    first.wait()
    third = start(HOLD, folder)
    assert third.stdout.readline() == "False\n"  # the second is alive, and may hold it
    for process in (second, third):
        process.kill()
        process.wait()
    assert (folder / "locks/0.input.lock").exists()
    (folder / "lorary.lock").write_text("another-host")  # which may not know of our locks, nor we of its
    fourth = start(HOLD, folder)
    assert fourth.stdout.readline() == "False\n"
    fourth.kill()
    fourth.wait()
    fifth = start(HOLD, folder)
    assert fifth.stdout.readline() == "True\n"


def test_a_folder_without_locks_is_left_to_snakemake(tmp_path, monkeypatch):
    def no_lock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(stop.fcntl, "flock", no_lock)
    assert stop.remove_stale_lock(str(tmp_path / ".snakemake")) is False


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(LoraryError, match=r"Snakemake keeps its records in this folder.*No such file or directory"):
        stop.remove_stale_lock(str(tmp_path / "gone/.snakemake"))
