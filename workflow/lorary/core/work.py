"""Long work in batches: each is written down when it is finished, so that the next call goes on from there.

The journal is a file of JSON lines beside the output, a line a batch, under the digest of everything that decides its
result. It is no output of a rule: Snakemake deletes those before a job begins.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from . import stop
from .errors import LoraryError, report
from .files import written_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    key: str  # digest
    items: list[Any]


def key(*decides: Any) -> str:
    """The digest of what decides a batch's result (anything that JSON takes)."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def finish(
    path: str,
    batches: list[Batch],
    begin: Callable[[], AbstractContextManager[Callable[[list[Any]], Any]]],
    what: str,
) -> list[Any]:
    """The result of each batch: from the journal at `path`, or worked out now and written there.

    `begin` gives what works out a batch, and is called only where one is missing. `what` the items are, for messages.
    An item whose work raises LoraryError does not keep the others from being finished; then, and when it is asked to
    stop, a LoraryError is raised. Work on a batch gives a list, with a result for each item.
    """
    done = _read(path)
    missing = [batch for batch in batches if batch.key not in done]
    failures: list[str] = []
    if missing:
        log.info("%s", _count(missing, what) + ("" if len(missing) == len(batches) else "; the others are done"))
        with stop.after_what_is_in_hand(log.warning) as asked_to_stop:
            try:
                _work(path, missing, begin, what, done, failures, asked_to_stop)
            except KeyboardInterrupt:  # a second one, or what was in hand took too long
                asked_to_stop = _yes
            stopped = asked_to_stop()
        left = [batch for batch in missing if batch.key not in done]
        if stopped and left:
            raise LoraryError(
                f"Stopped with {_count(left, what)} to go: what is finished is kept, and the same command goes on."
            )
        if failures:
            raise report(failures, f"Some {what} failed; the others are kept, and the same command tries just these:")
    results = [done[batch.key] for batch in batches]
    with written_whole(path) as temporary:  # without what nobody asks for any more
        lines = dict.fromkeys(batch.key for batch in batches)
        temporary.write_text("".join(_line(key, done[key]) for key in lines))
    return results


def _work(
    path: str,
    missing: list[Batch],
    begin: Callable,
    what: str,
    done: dict[str, Any],
    failures: list[str],
    asked_to_stop: Callable[[], bool],
) -> None:
    total, finished = sum(len(batch.items) for batch in missing), 0
    with begin() as work, Path(path).open("a") as file:
        if file.tell():
            file.write("\n")  # a line that a killed job has left unfinished ends here
        began = time.monotonic()
        for batch in missing:
            if asked_to_stop():
                return
            try:
                done[batch.key] = _whole(batch, work, file, done) if len(batch.items) > 1 else work(batch.items)
            except LoraryError as error:
                failures += str(error).splitlines()
                continue
            _write(file, batch.key, done)
            finished += len(batch.items)
            seconds = time.monotonic() - began
            left = seconds / finished * (total - finished)
            log.info("%d of %d %s, %.1f s, %.0f s left", finished, total, what, seconds, left)


def _whole(batch: Batch, work: Callable, file: TextIO, done: dict[str, Any]) -> list[Any]:
    """The results of a batch; where an item fails, each by itself, so that the others are kept. Raises LoraryError."""
    keys = [f"{batch.key}/{i}" for i in range(len(batch.items))]
    if not any(key in done for key in keys):
        try:
            return work(batch.items)
        except LoraryError:
            pass
    faults = []
    for key, item in zip(keys, batch.items, strict=True):
        if key in done:
            continue
        try:
            done[key] = work([item])
        except LoraryError as error:
            faults.append(str(error))
            log.error("%s", error)
            continue
        _write(file, key, done)
    if faults:
        raise LoraryError("\n".join(faults))
    return [result for key in keys for result in done[key]]


def _write(file: TextIO, key: str, done: dict[str, Any]) -> None:
    file.write(_line(key, done[key]))
    file.flush()
    os.fsync(file.fileno())


def _read(path: str) -> dict[str, Any]:
    done = {}
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            done[entry["key"]] = entry["result"]
        except (ValueError, LookupError, TypeError):  # the last one of a job that was killed
            continue
    return done


def _line(key: str, result: Any) -> str:
    return json.dumps({"key": key, "result": result}) + "\n"


def _count(batches: list[Batch], what: str) -> str:
    n = len(batches)
    return f"{sum(len(batch.items) for batch in batches)} {what} in {n} batch{'es' if n > 1 else ''}"


def _yes() -> bool:
    return True
