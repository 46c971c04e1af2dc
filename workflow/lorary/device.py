"""The device that a training job uses: a GPU that is free, or the processor.

To Snakemake `gpu` is only a counter, so a job finds its own GPU: a lock file for each, held while the job lives.
CUDA_VISIBLE_DEVICES, which Slurm sets, is respected, since torch sees no other GPU.
"""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def take_device(threads: int) -> Iterator[tuple]:
    """Yields (torch.device, its name for people), and gives the device back at the end. Waits while all are taken."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(min(threads, len(os.sched_getaffinity(0))))
        yield torch.device("cpu"), f"processor, {torch.get_num_threads()} threads"
        return
    count = torch.cuda.device_count()
    names = [f"gpu-{torch.cuda.get_device_properties(i).uuid}" for i in range(count)]
    with take_one(names) as i:
        yield torch.device("cuda", i), torch.cuda.get_device_name(i)


@contextmanager
def take_one(names: list[str], folder: str | None = None, wait: float = 0.5) -> Iterator[int]:
    """Yields the position of a name that no other process on this machine holds. The system drops a dead one's lock."""
    folder = folder or tempfile.gettempdir()
    said = False
    while True:
        for i, name in enumerate(names):
            # A file of another user can be locked too, though not written.
            flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW
            descriptor = os.open(Path(folder) / f"lorary-{name}.lock", flags, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield i
                return
            except BlockingIOError:
                pass
            finally:
                os.close(descriptor)
        if not said:
            log.info("waiting for a free GPU (%d there, all taken)", len(names))
            said = True
        time.sleep(wait)


def count_gpus() -> int:
    """How many GPUs this machine shows, without torch: for the Snakefile, which has to be read quickly."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
