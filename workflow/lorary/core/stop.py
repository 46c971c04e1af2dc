"""How a run ends before its end: Ctrl-C, SIGTERM, and a Snakemake that was killed (whose lock is `lock`'s).

A job ends at once where nothing is in hand, and after the passages in hand where it trains. `job` and `train` use the
first half, the Snakefile the second.
"""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator

PATIENCE = 20  # seconds for what is in hand: Slurm kills 30 after its SIGTERM
AGAIN = 2  # seconds until it is interrupted again: Python swallows what is raised in a __del__
SIGNALS = signal.SIGINT, signal.SIGTERM
PARENT = "LORARY_SNAKEMAKE"  # environment variable: the process that started the jobs


def interrupt(*_) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def handled(handler: Callable) -> Iterator[None]:
    """Both signals go to `handler`, and then again to whoever had them before."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def after_what_is_in_hand(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether to stop. What still runs then has PATIENCE until a KeyboardInterrupt ends it,
    or until a second Ctrl-C. (SIGTERM may well come twice: from Slurm, and passed on by Snakemake.)"""
    asked: list[int] = []  # the signals

    def ask(number, _) -> None:
        if asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        asked.append(number)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE, AGAIN)
        say("stopping after what is in hand")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with handled(ask):
            yield lambda: bool(asked)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def follow_snakemake() -> None:
    """Ask this job to stop when the Snakemake that started it is gone, so that none trains on unseen."""
    parent = os.environ.get(PARENT, "")
    if not parent.isdigit() or not hasattr(os, "pidfd_open"):
        return
    try:
        descriptor = os.pidfd_open(int(parent))
    except ProcessLookupError:  # killed while this process started
        os.kill(os.getpid(), signal.SIGTERM)
        return
    except OSError:
        return

    def watch() -> None:
        select.select([descriptor], [], [])  # readable when that process has ended
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def lead_jobs() -> None:
    """Called while the Snakefile is read: the jobs that this process starts follow it."""
    os.environ[PARENT] = str(os.getpid())


def pass_sigterm_on() -> None:
    """SIGTERM to Snakemake alone (`kill`, `docker stop`) stops the jobs too, which it would otherwise wait for."""
    import psutil

    before = signal.getsignal(signal.SIGTERM)

    def terminate(number, frame) -> None:
        if callable(before):
            before(number, frame)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.terminate()

    signal.signal(signal.SIGTERM, terminate)
