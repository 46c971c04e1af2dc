"""How a script ends: in words where the user can mend it, with a traceback where it is a bug."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

import tiny
from lorary.core import errors
from lorary.core.errors import LoraryError
from lorary.core.job import job


@pytest.fixture
def ends(tmp_path, capsys):
    """What a job says on the terminal, and its exit code, when something is raised in it."""

    def ends(error):
        with pytest.raises(SystemExit) as caught, job(str(tmp_path / "log"), "label"):
            if callable(error):
                error()
            raise error
        return capsys.readouterr().err, caught.value.code

    return ends


def refused(number):
    return OSError(number, os.strerror(number), "results/store/tmp/x")


@pytest.mark.parametrize("number", errors.REFUSALS, ids=errno.errorcode.get)
def test_what_the_file_system_refuses_is_told_with_its_place_and_a_remedy(ends, number):
    said, code = ends(refused(number))
    assert said.startswith(f"[label] results/store/tmp/x: {os.strerror(number)}. {errors.REFUSALS[number]}; then ")
    assert "Traceback" not in said
    assert code == 1


def test_what_the_user_can_mend_is_told_alone(ends, tmp_path):
    assert ends(LoraryError("key: wrong")) == ("[label] key: wrong\n", 1)
    assert "ERROR key: wrong" in (tmp_path / "log").read_text()


def test_too_little_memory_is_no_bug(ends):
    said, code = ends(MemoryError())
    assert "there is not enough memory" in said
    assert "Traceback" not in said
    assert code == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), refused(errno.EDOM)])
def test_anything_else_is_a_bug_and_shows_where(ends, error):
    said, code = ends(error)
    assert "this is a bug in lorary" in said
    assert "Traceback" in said
    assert code == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_where_nothing_is_in_hand(ends, number):
    def ask():
        os.kill(os.getpid(), number)
        time.sleep(30)

    assert ends(ask) == ("[label] interrupted: the same command goes on from here\n", 130)


def test_a_log_that_cannot_be_written_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit), job(str(tmp_path / "no/folder/log"), "label"):
        raise AssertionError("not reached")
    said = capsys.readouterr().err
    assert "no/folder/log: No such file or directory" in said
    assert "Traceback" not in said


def test_what_is_imported_is_not_looked_through_for_garbage_until_the_end(tmp_path):
    """Neither again and again while it is imported, nor when the process ends, which takes seconds with peft."""
    code = (
        "import atexit, gc, sys; from lorary.core.job import job\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > len(sys.modules)))\n"  # the first one runs last
        "with job(sys.argv[1], 'label'): print(gc.isenabled(), gc.get_threshold()[0] > 10_000)"
    )
    env = {**os.environ, "PYTHONPATH": str(tiny.ROOT / "workflow")}
    process = [sys.executable, "-c", code, str(tmp_path / "log")]
    assert subprocess.run(process, env=env, capture_output=True, text=True).stdout == "True True\nTrue\n"
