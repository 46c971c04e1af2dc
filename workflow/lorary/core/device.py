"""The device that a training job uses: a GPU that is free, or the processor.

To Snakemake `gpu` is only a counter, so a job finds its own GPU: a lock file for each, held while the job lives.
CUDA_VISIBLE_DEVICES, which Slurm sets, is respected, since torch sees no other GPU.
"""

import ctypes
import fcntl
import logging
import os
import re
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LoraryError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

TOUCHED_EVERY = 3600  # seconds; what cleans /tmp up goes by days
# In what torch says where the device or its libraries have failed, and where they lack memory.
FAULTS = (
    "CUDA error",
    "CUDA driver error",
    "CUDA unknown error",
    "CUBLAS_STATUS",
    "CUDNN_STATUS",
    "CUSOLVER_STATUS",
    "cuDNN Frontend error",
    "nvrtc: error",
    "Triton Error [CUDA]",
    "HIP error",
)
NO_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "NVML_SUCCESS == r INTERNAL ASSERT FAILED",  # as in containers without NVML
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no memory for its own workspace
    "CUDNN_STATUS_ALLOC_FAILED",
)


@contextmanager
def take_device(threads: int) -> Iterator[tuple]:
    """Yields (torch.device, its name for people), and gives the device back at the end. Waits while all are taken.
    Raises LoraryError where the device itself fails meanwhile."""
    try:
        with _taken(threads) as taken:
            yield taken
    except Exception as error:
        if not (fault := device_fault(error)):
            raise
        log.debug("where it failed:", exc_info=True)
        raise LoraryError(f"{fault} What was finished is kept, and the same command goes on.") from None


@contextmanager
def _taken(threads: int) -> Iterator[tuple]:
    import torch

    torch.set_num_threads(min(threads, _allotted_cores()))
    if not torch.cuda.is_available():
        _keep_freed_memory()
        yield torch.device("cpu"), f"processor, {torch.get_num_threads()} threads"
        return
    count = torch.cuda.device_count()
    names = [f"gpu-{torch.cuda.get_device_properties(i).uuid}" for i in range(count)]
    with take_one(names) as i:
        device = torch.device("cuda", i)
        torch.cuda.set_device(device)  # for whatever is not told on which: streams, events, libraries' own buffers
        yield device, torch.cuda.get_device_name(i)


def _allotted_cores() -> int:
    """The cores that this process may use. Not every Slurm binds its jobs to those that it gives them."""
    slurm = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return max(1, min(cores(), int(slurm))) if slurm.isdigit() else cores()


def cores() -> int:
    """Those that the system lets this process use; all, where it does not say (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step. It would give large blocks back to the system, and getting their
    pages anew takes 5 to 10 % of a step."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-4, 0)  # M_MMAP_MAX: no block outside the heap
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap does not shrink


@contextmanager
def limited_memory(device: str) -> Iterator[None]:
    """On a processor, no more memory can be asked for than there is: a sequence that needs more fails alone, with an
    error, where Linux would otherwise kill the whole job. To be used when the base model is loaded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    if device == "cpu":
        with suppress(OSError, ValueError):  # no Linux, or one that does not say
            used, free = _bytes_in("/proc/self/status", "VmData"), _bytes_in("/proc/meminfo", "MemAvailable")
            limits.append(used + min([free, *_cgroup_memory()]))
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits, default=soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _bytes_in(path: str, name: str) -> int:
    """What a file of /proc says under this name, in kilobytes. Raises OSError and ValueError."""
    found = re.search(rf"{name}:\s*(\d+)", Path(path).read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{path} does not say {name}")
    return 1024 * int(found[1])


def _cgroup_memory() -> Iterator[int]:
    """Bytes left in this process's control groups, whose memory Slurm and containers limit."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, group = line.split(":", 2)
        root, limit, usage = Path("/sys/fs/cgroup"), "memory.max", "memory.current"
        if controllers:
            root, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        for folder in (root / group.lstrip("/"), *(root / group.lstrip("/")).parents):
            with suppress(OSError, ValueError):  # "max": none
                stat = (folder / "memory.stat").read_text(encoding="utf-8")
                cached = re.findall(r"^(?:in)?active_file (\d+)", stat, re.M)
                used = int((folder / usage).read_text(encoding="utf-8")) - sum(map(int, cached))  # the cache gives way
                yield int((folder / limit).read_text(encoding="utf-8")) - used
            if folder == root:
                break


@contextmanager
def take_one(names: list[str], folder: str | None = None, wait: float = 0.5) -> Iterator[int]:
    """Yields the position of a name that no other process on this machine holds. The system drops a dead one's lock."""
    folder = folder or tempfile.gettempdir()
    said = False
    while True:
        for i, name in enumerate(names):
            path = Path(folder) / f"lorary-{name}.lock"
            if (descriptor := _lock(path)) is None:
                continue
            try:
                with _touched(descriptor):
                    yield i
                return
            finally:
                os.close(descriptor)
        if not said:
            log.info("waiting for a free GPU (%d there, all taken)", len(names))
            said = True
        time.sleep(wait)


def _lock(path: Path) -> int | None:
    """The descriptor of a lock file, locked. None where another process has it; or where it was removed meanwhile, as
    when /tmp is cleaned up, since the next one would lock another file of that name."""
    descriptor, mine = _open_lock(path), False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if not mine:
            os.close(descriptor)
    return descriptor if mine else None


@contextmanager
def _touched(descriptor: int) -> Iterator[None]:
    """Keep this file young, so that nothing that cleans /tmp up takes it for forgotten."""
    done = threading.Event()

    def touch() -> None:
        while not done.wait(TOUCHED_EVERY):
            try:
                os.utime(descriptor)
            except OSError:  # another user's, whom reading it serves as well
                os.pread(descriptor, 1, 0)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _open_lock(path: Path) -> int:
    """A lock file that every user of the machine can lock, whoever made it."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CREAT)
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.fchmod(descriptor, 0o644)
        return descriptor
    except OSError as error:
        raise LoraryError(f"{path}: this lock of a GPU cannot be opened ({error.strerror}); remove it.") from None


def out_of_memory(error: Exception) -> bool:
    """Whether that is what a computation of torch's has failed of."""
    import torch

    kinds = torch.OutOfMemoryError | MemoryError
    return isinstance(error, kinds) or any(words in str(error) for words in NO_MEMORY)


def device_fault(error: Exception) -> str:
    """What has become of the device; empty where the error is not its own. After such a one a GPU computes nothing more
    in this process, whatever it is given."""
    import torch

    of_device = isinstance(error, torch.AcceleratorError) or any(words in str(error) for words in FAULTS)
    if not of_device or out_of_memory(error) or isinstance(error, LoraryError):
        return ""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"The device has failed ({reason}). Should it do so again, see what the system's log says of it."


def free_memory() -> None:
    """Give what a failed step has left back to the GPU, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def share_of(cores: int) -> int:
    """Of a machine's cores, those of a job: all on the processor, where one trains at a time; else a GPU's share."""
    return max(1, cores // max(1, count_gpus()))


def count_gpus() -> int:
    """How many GPUs this machine shows, without torch: for the Snakefile, which has to be read quickly."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def to_device(tensor: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """A copy that the step does not wait for: from pinned memory, where there is a GPU."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
