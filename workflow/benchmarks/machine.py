"""The machine that is measured: its name, its rates, and processes of their own on it."""

import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def machine(threads: int) -> str:
    """The machine in words, for a table's caption."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {threads} threads"


def matrix_rates(precision: str, device) -> dict[str, float]:
    """FLOP a second of square matrix products on this device: torch's own, and oneDNN's of packed weights."""
    import torch

    from lorary.base.frozen import FrozenLinear, can_pack

    best: dict[str, float] = {}
    dtype = getattr(torch, precision)
    for size in (1024, 2048) if device.type == "cpu" else (4096, 8192):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        products = {"torch": lambda a=a, b=b: a @ b}
        if can_pack(device, dtype):
            packed = FrozenLinear(b, None)
            packed.pack()
            products["packed"] = lambda a=a, packed=packed: packed.product(a)
        for name, product in products.items():
            product()
            synchronize(device)
            began, times = time.perf_counter(), 0
            while time.perf_counter() - began < 0.25:
                product()
                synchronize(device)
                times += 1
            best[name] = max(best.get(name, 0.0), 2 * size**3 * times / (time.perf_counter() - began))
    return best


def in_a_process(module: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a module makes of arguments, in a process of its own; both as JSON."""
    return json.loads(python("-m", module, given=arguments))


def python(*command: str, given: dict[str, Any]) -> str:
    """The last line that a Python process prints, which finds `lorary` and gets its arguments as JSON."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TQDM_DISABLE": "1"}
    output = subprocess.check_output(
        [sys.executable, "-W", "ignore", *command], input=json.dumps(given), env=environment, encoding="utf-8"
    )
    return output.splitlines()[-1]


def peak_memory(device) -> float:
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1000  # bytes, of what getrusage counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


@contextlib.contextmanager
def own_memory() -> Iterator[list[float]]:
    """What this process has of its own at most, in GB, as the last item when it is over; files that are mapped do not
    count, since the system takes them back."""
    import psutil

    process, seen, over = psutil.Process(), [0.0], threading.Event()

    def look() -> None:
        while True:
            memory = process.memory_info()
            seen[-1] = max(seen[-1], (memory.rss - getattr(memory, "shared", 0)) / 1e9)
            if over.wait(0.02):
                return

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def synchronize(device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
