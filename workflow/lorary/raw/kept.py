"""What was made of files, kept in a folder until they change: a cache, and one that is damaged, gone or read-only costs
nothing but time."""

import functools
import json
import logging
import os
from pathlib import Path
from typing import Any

from ..core.files import written_whole
from ..core.work import key

log = logging.getLogger(__name__)


def place(cache: str, *decides: Any) -> Path:
    """Where it is kept what depends on these values (any that JSON takes)."""
    digest = key(*decides)
    return Path(cache) / digest[:2] / f"{digest}.json"


def stamp(stat: os.stat_result) -> list[int]:
    """What changes with a file."""
    return [stat.st_size, stat.st_mtime_ns]


def get(path: Path, made_of: Any) -> Any:
    """What `put` has kept there for files of these stamps, or None."""
    try:
        entry = json.loads(path.read_bytes())
        return entry["made"] if entry["of"] == made_of else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def put(path: Path, made_of: Any, made: Any) -> None:
    try:
        with written_whole(str(path), new_folder=True) as temporary:
            temporary.write_text(json.dumps({"of": made_of, "made": made}), encoding="utf-8")
    except OSError as error:
        _tell(path.parents[1], error.strerror or type(error).__name__)


@functools.cache  # once for a folder, not for each document
def _tell(cache: Path, reason: str) -> None:
    log.warning("%s cannot be written (%s): data are read anew by each call", cache, reason)
