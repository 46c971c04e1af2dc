"""A job takes a free GPU, waits for one, or takes the processor."""

import logging
import os
import signal
import stat
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lorary.base.frozen import can_pack
from lorary.core import device, stop
from lorary.core.device import count_gpus, take_device, take_one
from lorary.core.errors import LoraryError

HOLD = """import sys, time
from lorary.core.device import take_one
with take_one(sys.argv[2].split(","), sys.argv[1], wait=0.01) as i:
    print(i, flush=True)
    time.sleep(60)
"""
COUNT = """import os, sys
from lorary.core.device import take_one
for _ in range(100):
    with take_one(["a", "b"], sys.argv[1], wait=0.001) as i:
        mine = os.path.join(sys.argv[1], f"held-{i}")
        os.close(os.open(mine, os.O_CREAT | os.O_EXCL))  # fails while another process holds the same
        os.unlink(mine)
"""


def test_two_processes_never_hold_one_name(start, tmp_path):
    processes = [start(COUNT, tmp_path) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4


def test_each_takes_another_name_and_a_killed_holder_gives_it_back(start, tmp_path, monkeypatch):
    first = start(HOLD, tmp_path, "a,b")
    assert first.stdout.readline() == "0\n"
    with take_one(["a", "b"], str(tmp_path)) as i:
        assert i == 1
    second = start(HOLD, tmp_path, "a,b")
    assert second.stdout.readline() == "1\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    monkeypatch.setattr(device.time, "sleep", lambda _: pytest.fail("it waits"))
    with take_one(["a", "b"], str(tmp_path)) as i:
        assert i == 0


def test_waits_while_all_are_taken_and_then_gets_one(start, tmp_path, caplog, monkeypatch):
    holder = start(HOLD, tmp_path, "a")
    assert holder.stdout.readline() == "0\n"
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            holder.kill()
            holder.wait()

    monkeypatch.setattr(device.time, "sleep", sleep)
    with caplog.at_level(logging.INFO, "lorary"), take_one(["a"], str(tmp_path), wait=0.2) as i:
        assert i == 0
    assert waits == [0.2] * 3
    assert [record.message for record in caplog.records] == ["waiting for a free GPU (1 there, all taken)"]


def test_name_is_free_after_an_error_which_is_not_swallowed(tmp_path):
    for error in (ValueError, BlockingIOError):  # the latter is also what a lock that is taken raises
        with pytest.raises(error, match="mine"), take_one(["a"], str(tmp_path)):
            raise error("mine")
    with take_one(["a"], str(tmp_path)) as i:
        assert i == 0


def test_planted_symlink_is_not_followed(tmp_path):
    target = tmp_path / "target"
    (tmp_path / "lorary-a.lock").symlink_to(target)
    with pytest.raises((OSError, LoraryError), match=r"lorary-a\.lock"), take_one(["a"], str(tmp_path)):
        pass
    assert not target.exists()


def test_lock_file_of_another_user_will_do(tmp_path, monkeypatch):
    """In a sticky folder such as /tmp Linux refuses O_CREAT on another user's file (fs.protected_regular)."""
    with take_one(["a"], str(tmp_path)):
        pass
    lock = tmp_path / "lorary-a.lock"
    plain = os.open

    def protected(path, flags, *arguments):
        if os.fspath(path) == str(lock) and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, flags, *arguments)

    monkeypatch.setattr(os, "open", protected)
    with take_one(["a"], str(tmp_path)) as i:
        assert i == 0


def test_lock_file_can_be_opened_by_every_user(tmp_path):
    mask = os.umask(0o077)
    try:
        with take_one(["a"], str(tmp_path)):
            pass
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "lorary-a.lock").stat().st_mode) & 0o444 == 0o444


@pytest.mark.parametrize(
    ("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("0,2", 2), (" 0, 2 ", 2), ("GPU-abc", 1), ("MIG-1,MIG-2", 2)]
)
def test_gpus_are_those_that_cuda_may_see(monkeypatch, visible, count):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


def test_gpus_are_counted_by_their_device_files(monkeypatch, tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device, "Path", lambda path: tmp_path if path == "/dev" else None)
    assert count_gpus() == 3


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("asked", "cores", "used"), [(1, 8, 1), (3, 8, 3), (64, 3, 3)])
def test_processor_gets_the_jobs_threads_and_no_more_than_there_are(monkeypatch, threads, asked, cores, used):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    with take_device(asked) as (where, name):
        assert where == torch.device("cpu")
        assert torch.get_num_threads() == used
        assert name == f"processor, {used} threads"


def test_gpu_that_another_job_holds_is_passed_over(start, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"model {i}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"uuid{i}"))
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert start(HOLD, tmp_path, "gpu-uuid0").stdout.readline() == "0\n"
    with take_device(1) as taken:
        assert taken == (torch.device("cuda", 1), "model 1")
        assert current == [torch.device("cuda", 1)]  # where torch puts what is not told where


ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"


@pytest.mark.parametrize(
    ("error", "faulty", "memory"),
    [
        (torch.AcceleratorError(ASSERT), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"), True, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True, False),
        (RuntimeError("HIP error: the operation cannot be performed in the present state"), True, False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False, True),
        (torch.AcceleratorError("CUDA error: out of memory"), False, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (IndexError("index out of range in self"), False, False),
    ],
)
def test_an_error_of_the_device_is_told_from_others(error, faulty, memory):
    assert bool(device.device_fault(error)) is faulty
    assert device.out_of_memory(error) is memory


def test_an_error_of_the_device_is_told_in_words(monkeypatch, threads):
    """Whatever was done on it, as for `ask`; and any other error is the caller's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = r"^The device has failed \(CUDA error: device-side assert triggered\)\. .* the same command goes on"
    with pytest.raises(LoraryError, match=words), take_device(1):
        raise torch.AcceleratorError(ASSERT)
    with pytest.raises(ZeroDivisionError), take_device(1):
        raise ZeroDivisionError


def test_the_processor_gives_no_more_threads_than_slurm_allotted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    before = torch.get_num_threads()
    try:
        for slurm, threads, expected in (("2", 4, 2), ("16", 4, 4), ("16", 32, 8)):
            monkeypatch.setenv("SLURM_CPUS_ON_NODE", slurm)
            with take_device(threads) as (_, name):
                assert name == f"processor, {expected} threads"
    finally:
        torch.set_num_threads(before)


def test_a_lock_file_that_was_removed_while_it_was_locked_is_no_lock(tmp_path, monkeypatch):
    """As by a clean-up of /tmp: whoever comes next makes the file anew, and would hold the same GPU."""
    lock, plain, removed = tmp_path / "lorary-a.lock", device.fcntl.flock, []

    def flock(descriptor, operation):
        if not removed:
            removed.append(os.fstat(descriptor).st_ino)
            lock.unlink()
            (tmp_path / "another").touch()  # so that the new file is not given the number of the old one
        plain(descriptor, operation)

    monkeypatch.setattr(device.fcntl, "flock", flock)
    with take_one(["a"], str(tmp_path)), lock.open() as file, pytest.raises(BlockingIOError):
        plain(file, device.fcntl.LOCK_EX | device.fcntl.LOCK_NB)


def test_a_lock_file_is_touched_while_it_is_held(tmp_path, monkeypatch):
    """A clean-up of /tmp goes by the age of files."""
    monkeypatch.setattr(device, "TOUCHED_EVERY", 0.01)
    lock, threads = tmp_path / "lorary-a.lock", threading.enumerate()
    with take_one(["a"], str(tmp_path)):
        os.utime(lock, (0, 0))
        wait_until(lambda: lock.stat().st_mtime > 0)
    assert set(threading.enumerate()) <= set(threads)


def test_the_lock_file_of_another_user_is_touched_by_reading_it(tmp_path, monkeypatch):
    """Who may not set its times may read it, which sets one of them."""
    monkeypatch.setattr(device, "TOUCHED_EVERY", 0.01)
    plain, read = os.pread, []

    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    def pread(*arguments):
        read.append(arguments)
        return plain(*arguments)

    monkeypatch.setattr(device.os, "utime", refused)
    monkeypatch.setattr(device.os, "pread", pread)
    with take_one(["a"], str(tmp_path)):
        wait_until(lambda: read)


def wait_until(true):
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    pytest.fail("it did not come true")


def test_on_macos(monkeypatch, threads):
    """Which does not say what cores a process may use, has no /proc, and no mallopt in its C library."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: SimpleNamespace())
    monkeypatch.setattr(device, "Path", lambda path: Path("/nowhere", path.lstrip("/")))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(stop.PARENT, str(os.getppid()))
    stop.follow_snakemake()
    with take_device(64) as (where, name), device.limited_memory(where.type):
        assert name == "processor, 3 threads"
    assert not can_pack(where, torch.bfloat16)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert device.cores() == 1
