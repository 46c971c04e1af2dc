"""What every script does around its function: log to the rule's file and to the terminal, and end in words."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import LoraryError


@contextmanager
def job(log_file: str, label: str, network: bool = False) -> Iterator[None]:
    """Everything goes to the log file; what a person wants to see goes to the terminal too, under `label`.

    A LoraryError ends the process with its message; any other exception with its traceback, as it is a bug.
    """
    if not network:
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # Snakemake runs as many jobs as there are cores
    warnings.simplefilter("ignore", FutureWarning)  # of the libraries to their own callers
    log = logging.getLogger("lorary")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    file, terminal = logging.FileHandler(log_file, mode="w"), logging.StreamHandler()
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal.setFormatter(logging.Formatter(f"[{label}] %(message)s"))
    terminal.setLevel(logging.INFO)
    log.addHandler(file)
    log.addHandler(terminal)
    try:
        yield
    except LoraryError as error:
        log.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        log.error("interrupted")
        sys.exit(130)
    except Exception:
        log.exception("this is a bug in lorary")
        sys.exit(1)
