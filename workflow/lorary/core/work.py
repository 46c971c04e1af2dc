"""Finishing many items: each is kept as soon as it is done, so that the next call goes on from there.

`finish` is what every long job does, whatever it makes of its items and wherever that is kept. `in_batches` is for work
that takes some items at a time; `divided` finds the items for which a step fails.
"""

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from . import stop
from .device import device_fault, free_memory, out_of_memory
from .errors import LoraryError, explain, report
from .files import written_whole

log = logging.getLogger(__name__)

SHOWN_AFTER = 2  # seconds, at least, between two lines of progress on the terminal
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    key: str  # the digest of everything that decides its result
    place: str  # for people
    content: Any = None


@dataclass(frozen=True)
class Fault:
    """Why an item has no result."""

    reason: str


class Kept(Protocol):
    """Where results are kept, under the keys of their items."""

    where: str  # for people: "they are ..."

    def __contains__(self, key: str) -> bool: ...

    def put(self, results: list[tuple[str, Any]]) -> None: ...


Done = list[tuple[Item, Any]]  # items with their results, or with a Fault
Work = Callable[[Iterable[Item]], Iterator[Done]]


def finish(
    items: list[Item],
    kept: Kept,
    failed: dict[str, str],
    begin: Callable[[], AbstractContextManager[Work]],
    what: tuple[str, str],
    describe: Callable[[Item, Any], str] = lambda item, result: "",
) -> None:
    """Work on the items whose results are not kept yet, and keep each. One that fails does not touch the others: its
    key and the reason go into `failed`, at once, so that they are there however this ends.

    `begin` gives the work, and is called only where an item is missing; while it runs, as for waiting for a device,
    nothing is in hand and a stop ends it at once. The work takes items for as long as it is not asked to stop, and
    yields what is done. `what` the items are, one and many, for messages; `describe` adds a word about a result. Raises
    LoraryError when it is asked to stop, after what is in hand, and where the disk refuses or the device fails.
    """
    missing: dict[str, Item] = {}
    for item in items:
        if item.key not in missing and item.key not in kept:
            missing[item.key] = item
    if not missing:
        return
    one, many = what
    others = "" if len(missing) == len({item.key for item in items}) else "; the others are done"
    log.info("%d %s%s", len(missing), one if len(missing) == 1 else many, others)
    with begin() as work:
        progress = Progress(one, len(missing), describe)
        in_hand: dict[str, Item] = {}
        with stop.after_what_is_in_hand(log.warning) as asked_to_stop:
            try:
                for done in work(_until(missing.values(), asked_to_stop, in_hand)):
                    good = [(item, result) for item, result in done if not isinstance(result, Fault)]
                    kept.put([(item.key, result) for item, result in good])
                    for item, result in done:
                        del in_hand[item.key]
                        if isinstance(result, Fault):
                            failed[item.key] = result.reason
                            log.error("%s failed: %s", item.place, result.reason)
                    progress.tell(good, len(done))
                stopped = asked_to_stop()
            except KeyboardInterrupt:  # a second one, or what was in hand took too long
                stopped = True
            except OSError as error:
                if not explain(error):
                    raise
                log.debug("where it was refused:", exc_info=True)
                raise LoraryError(
                    f"{explain(error)} {progress.good} of {len(missing)} {many} are {kept.where}."
                ) from None
            except Exception as error:  # the next call tries again what was in hand
                if not (fault := device_fault(error)):
                    raise
                log.debug("where it failed:", exc_info=True)
                places = ", ".join(item.place for item in in_hand.values())
                raise LoraryError(
                    f"{fault} {progress.good} of {len(missing)} {many} are {kept.where}, and the same command goes on."
                    f" In hand: {places}."
                ) from None
    if stopped and progress.done < len(missing):
        raise LoraryError(
            f"Stopped after {progress.good} of {len(missing)} {many}: they are {kept.where}, and the same command"
            " goes on."
        )


def results(
    path: str,
    items: list[Item],
    begin: Callable[[], AbstractContextManager[Work]],
    what: tuple[str, str],
    failures: list[str],
) -> list[Any]:
    """The result of each item, those that are there already from the journal at `path`. Raises LoraryError that names
    all that failed, after `failures`, of what could not become an item."""
    kept, failed = Journal(path), dict[str, str]()
    finish(items, kept, failed, begin, what)
    failures = failures + [f"{item.place}: {failed[item.key]}" for item in items if item.key in failed]
    if failures:
        raise report(failures, f"Some {what[1]} failed; the others are kept, and the same command tries just these:")
    kept.keep_only(item.key for item in items)
    return [kept.results[item.key] for item in items]


def in_batches(size: int, do: Callable[[list[Item]], list[Any]], many: str, too_large: Callable[[Item], str]) -> Work:
    """Work that takes so many items at a time. Where a batch does not fit into memory, or one of its items is refused
    (LoraryError), it goes on by halves, so that what fails fails alone. `many`: what the items are; `too_large`: why an
    item fails that fits no memory alone."""

    def work(items: Iterable[Item]) -> Iterator[Done]:
        made: list[Any] = []

        def attempt(part: list[Item]) -> Fault | None:
            try:
                made[:] = do(part)
                return None
            except LoraryError as error:
                return Fault(str(error))
            except Exception as error:
                if not out_of_memory(error):
                    raise
            free_memory()
            if len(part) > 1:
                log.warning("%d %s do not fit into memory together: going on by halves", len(part), many)
            return Fault(too_large(part[0]))

        stream = iter(items)
        while batch := list(islice(stream, size)):
            for part, fault in divided(batch, attempt):
                yield [(part[0], fault)] if fault else list(zip(part, made, strict=True))

    return work


def divided(items: list[T], attempt: Callable[[list[T]], Fault | None]) -> Iterator[tuple[list[T], Fault | None]]:
    """Attempt something for all items together; where that fails, for each half of them. Yields the parts for which it
    has not failed, each just after, and the items for which it fails alone, with the fault."""
    fault = attempt(items)
    if fault is None or len(items) == 1:
        yield items, fault
        return
    half = (len(items) + 1) // 2
    for part in (items[:half], items[half:]):
        yield from divided(part, attempt)


class Progress:
    """A line in the log for what is done together, with the seconds left; on the terminal no more than one in two
    seconds."""

    def __init__(self, one: str, total: int, describe: Callable[[Item, Any], str]):
        self.one, self.total, self.describe = one, total, describe
        self.done = self.good = 0
        self.began, self.shown = time.monotonic(), -math.inf

    def tell(self, good: list[tuple[Item, Any]], done: int) -> None:
        """`good` were made, of so many that are done, together."""
        self.done, self.good = self.done + done, self.good + len(good)
        if not good:
            return
        now = time.monotonic()
        left = (now - self.began) / self.done * (self.total - self.done)
        show = self.done == self.total or now - self.shown > SHOWN_AFTER
        self.shown = now if show else self.shown
        about = f", {good[0][0].place}{self.describe(*good[0])}" if len(good) == 1 else ""
        level = logging.INFO if show else logging.DEBUG
        log.log(level, "%s %d of %d%s, %.0f s left", self.one, self.good, self.total, about, left)


class Journal:
    """Results as JSON lines in a file beside the output: no output of a rule, which is deleted before a job begins."""

    where = "kept"

    def __init__(self, path: str):
        self.path = Path(path)
        self.results = dict(_read(self.path))
        self.torn = self.path.is_file() and self.path.stat().st_size > 0

    def __contains__(self, key: str) -> bool:
        return key in self.results

    def put(self, results: list[tuple[str, Any]]) -> None:
        if not results:
            return
        with self.path.open("a", encoding="utf-8") as file:
            if self.torn:
                file.write("\n")  # a line that a killed job has left unfinished ends here
                self.torn = False
            file.writelines(_line(key, result) for key, result in results)
            file.flush()
            os.fsync(file.fileno())
        self.results.update(results)

    def keep_only(self, keys: Iterable[str]) -> None:
        """Without what nobody asks for any more."""
        with written_whole(str(self.path)) as temporary:
            lines = [_line(key, self.results[key]) for key in dict.fromkeys(keys)]
            temporary.write_text("".join(lines), encoding="utf-8")


def key(*decides: Any) -> str:
    """The digest of what decides an item's result (anything that JSON takes)."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _until(items: Iterable[Item], asked_to_stop: Callable[[], bool], in_hand: dict[str, Item]) -> Iterator[Item]:
    for item in items:
        if asked_to_stop():
            return
        in_hand[item.key] = item
        yield item


def _read(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
            yield entry["key"], entry["result"]
        except (ValueError, LookupError, TypeError):  # the last one of a job that was killed
            continue


def _line(key: str, result: Any) -> str:
    return json.dumps({"key": key, "result": result}) + "\n"
