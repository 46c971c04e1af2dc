"""What every script does around its function: log to the rule's file and to the terminal, and end in words."""

import atexit
import gc
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from . import stop
from .errors import LoraryError, explain


@contextmanager
def job(log_file: str, label: str, network: bool = False) -> Iterator[None]:
    """Everything goes to the log file; what a person wants to see goes to the terminal too, under `label`.

    A LoraryError ends the process with its message, and so does what the file system refuses; any other exception with
    its traceback, as it is a bug. Ctrl-C and SIGTERM end it at once, unless `train` has something in hand.
    """
    look_for_garbage_seldom()
    if not network:
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # Snakemake runs as many jobs as there are cores
    warnings.simplefilter("ignore", FutureWarning)  # of the libraries to their own callers
    log = logging.getLogger("lorary")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    logging.raiseExceptions = False  # a log on a full disk is no reason to stop
    terminal = logging.StreamHandler()
    terminal.setFormatter(logging.Formatter(f"[{label}] %(message)s"))
    terminal.setLevel(logging.INFO)
    log.addHandler(terminal)
    try:
        file = logging.FileHandler(log_file, mode="w", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)
        slurm = os.environ.get("SLURM_JOB_ID")
        log.debug("on %s%s", socket.gethostname(), f", Slurm job {slurm}" if slurm else "")
        with stop.handled(stop.interrupt):
            stop.follow_snakemake()
            yield
    except LoraryError as error:
        log.error("%s", error)
        sys.exit(1)
    except OSError as error:
        log.debug("where it was refused:", exc_info=True)
        if refused := explain(error):
            log.error("%s", refused)
        else:
            log.exception("this is a bug in lorary")
        sys.exit(1)
    except MemoryError:
        log.debug("where it was refused:", exc_info=True)
        log.error("there is not enough memory; fewer jobs at a time, or a lower passages_per_job, may help")
        sys.exit(1)
    except KeyboardInterrupt:
        log.error("interrupted: the same command goes on from here")
        sys.exit(130)
    except Exception:
        log.exception("this is a bug in lorary")
        sys.exit(1)


def look_for_garbage_seldom() -> None:
    """What importing torch, transformers and peft makes stays to the end: to look through it for garbage again and
    again meanwhile, and once more at the end, takes two fifths as long as these imports."""
    gc.set_threshold(50_000)  # objects between two looks, not 700
    atexit.register(gc.freeze)
