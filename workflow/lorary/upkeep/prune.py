"""Prune: what no run of this config refers to goes from the store, and what killed jobs have left half written."""

import contextlib
import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import LoraryError
from ..core.pack import digests_of, is_there
from ..core.store import Store, remove, training_of
from ..core.values import TENSORS
from ..plan.layout import RECORDS_OF_THE_FIRST_RELEASE, position_of, records_below
from ..train.encode import passage_digests
from ..train.kept import read_kept
from ..train.records import read_record

log = logging.getLogger(__name__)

RECENT = 3 * 86400  # seconds


@dataclass(frozen=True)
class Wanted:
    """A batch of passages of a run, by what decides the digests of its adapters; or, where a translator made these, by
    their record, which has them."""

    store: str
    model: str = ""
    base_weight: str = ""
    prompts: str = ""
    settings: dict = field(default_factory=dict)
    adapters: list[str] = field(default_factory=list)  # their directories
    kept: str | None = None
    record: str | None = None


def prune(wanted: list[Wanted], ask: bool = sys.stdin.isatty()) -> None:
    """Remove from the stores of these batches what belongs to none of them. Says how much, and at a terminal asks.

    An entry or a pack that an output shares by a hard link, of whatever run, stays: removing it would free nothing, and
    that run could not link it again. So does one that an output is a copy of, as the records of runs say, and one of
    the last days: it may be of a run that was stopped, and will go on. And so does a pack with an adapter that belongs
    to one of these batches and is kept nowhere else. Raises LoraryError.
    """
    stores: dict[str, set[str]] = {}
    keys: dict[str | None, str] = {}  # of files of what adapters spare
    for batch in wanted:
        if batch.record:
            stores.setdefault(batch.store, set()).update(_recorded(batch.record))
            continue
        positions = set(map(position_of, batch.adapters))
        if batch.kept and batch.kept not in keys:
            keys[batch.kept] = read_kept(batch.kept).key
        kept = keys.get(batch.kept)
        digests, _ = passage_digests(batch.model, batch.base_weight, batch.prompts, batch.settings, positions, kept)
        stores.setdefault(batch.store, set()).update(key for keys in digests.values() for key in keys)
    doomed: list[Path] = []
    for name, referred in stores.items():
        store = Store(name)
        there = list(store.digests())
        others = [store.entry(digest) for digest in there if digest not in referred]
        copied = _copied(store)
        free = [entry for entry in others if _free(entry) and entry.name not in copied] if copied is not None else []
        left = store.abandoned()
        log.info(
            "%s: %d entries: %d of this config's runs, %d that others' outputs share or that are younger than %d days,"
            " and %d (%s) of nobody; %d half written (%s)",
            name, len(there), len(there) - len(others), len(others) - len(free), RECENT / 86400,
            len(free), _size(free), len(left), _size(left),
        )  # fmt: skip
        doomed += free + left
        if (packs := store.packs.files()) and copied is not None:
            whole = {digest for digest in there if training_of(store.entry(digest)) is not None}
            unused = _unused(packs, referred | copied, whole)
            log.info("%s: %d packs: %d (%s) of nobody", name, len(packs), len(unused), _size(unused))
            doomed += unused
    if not doomed:
        log.info("nothing to remove")
        return
    if ask and input(f"Remove these {len(doomed)}, {_size(doomed)}? [y/N] ").strip().lower() not in ("y", "yes"):
        log.info("nothing was removed")
        return
    doomed = [path for path in doomed if path.parent.name == "tmp" or _free(path)]  # it may have taken a while
    size = _size(doomed)
    for path in doomed:
        remove(path)
    log.info("removed %d, %s", len(doomed), size)


def _recorded(record: str) -> list[str]:
    """The digests of the adapters that a record is of; none where it is not there yet. Raises LoraryError."""
    return read_record(record, ["digest"])["digest"].tolist() if Path(record).is_file() else []


def _copied(store: Store) -> set[str] | None:
    """The digests of entries that outputs are copies of; None where that cannot be known."""
    copied: set[str] = set()
    try:
        first_release = Path.cwd(), Path.cwd() / RECORDS_OF_THE_FIRST_RELEASE
        for folder, records in [first_release, *store.noted()]:
            for record in records_below(records):
                lines = read_record(str(record), ["path", "digest"])
                for path, digest in zip(lines["path"], lines["digest"], strict=True):
                    if is_there(folder / path):
                        copied.add(digest)
    except (OSError, LoraryError) as error:
        log.warning("%s: what is of nobody there is not known, and stays: %s", store.directory, error)
        return None
    return copied


def _unused(packs: list[Path], wanted: set[str], entries: set[str]) -> list[Path]:
    """Of packs those that may go: what is wanted of each is a whole entry too, or in one that stays."""
    there: dict[Path, set[str]] = {}  # what is wanted of each
    for path in packs:
        with contextlib.suppress(FileNotFoundError, ValueError):
            there[path] = wanted & set(digests_of(path))
    free = [path for path in there if _free(path)]
    kept = entries.union(*(some for path, some in there.items() if path not in free))
    unused = []
    for path in sorted(free, key=lambda path: -len(there[path])):
        if there[path] <= kept:
            unused.append(path)
        kept |= there[path]
    return unused


def _free(entry: Path) -> bool:
    """Whether no output shares this entry, or pack, and it has lain there for days."""
    try:
        file = entry / TENSORS if entry.is_dir() else entry
        return file.stat().st_nlink == 1 and time.time() - entry.stat().st_mtime > RECENT
    except FileNotFoundError:
        return True  # damaged


def _size(paths: list[Path]) -> str:
    size = 0
    for file in (file for path in paths for file in (path, *(path.rglob("*") if path.is_dir() else ()))):
        with contextlib.suppress(OSError):  # gone meanwhile
            size += file.lstat().st_size
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
