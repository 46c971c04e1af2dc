"""A job ends when it is asked to, and when its Snakemake is gone."""

import os
import signal
import time

import pytest

from lorary.core import stop


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_python_swallows_comes_again(monkeypatch):
    """What is raised in a __del__, or in what the garbage collector calls, goes no further."""
    monkeypatch.setattr(stop, "PATIENCE", 0.1)
    monkeypatch.setattr(stop, "AGAIN", 0.1)
    swallowed = []

    class Freed:
        def __del__(self):
            try:
                time.sleep(10)
            finally:
                swallowed.append(True)

    with pytest.raises(KeyboardInterrupt), stop.after_what_is_in_hand(print):
        os.kill(os.getpid(), signal.SIGTERM)
        thing = Freed()
        del thing
        assert swallowed
        time.sleep(3)


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


def test_a_job_whose_snakemake_is_gone_already_is_told_at_once(start, monkeypatch):
    gone = start("pass")
    gone.wait()
    monkeypatch.setenv(stop.PARENT, str(gone.pid))
    assert start(FOLLOWER).stdout.read() == "told\n"
