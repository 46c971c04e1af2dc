"""A folder of documents, cut into passages once and again only where a document changes."""

import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError, report
from ..core.values import UNFIT, is_text
from . import kept
from .cut import cut
from .passages import RawPassage
from .readers import ENDINGS
from .readers import read as read_document

log = logging.getLogger(__name__)

# To be raised with whatever changes the passages of a document: the readers, the splitter's pin, how pieces are joined.
VERSION = 1
KINDS = "text (.txt), Markdown (.md), HTML (.html, .htm) and PDF (.pdf)"
SHOWN = 100  # documents to cut, from which on it is said
WRITERS = 16  # that wait for the disk at once: alone, that takes four times as long as the cutting


@dataclass(frozen=True)
class Found:
    name: str  # its path in the folder
    path: Path
    stamp: list[int]


def outline(folder: str, passage_words: int, cache: str) -> dict[str, int]:
    """The documents of a folder, in the order of `read`, each with how many passages it has. Light where none has
    changed.

    `cache`: the folder to keep it in. Raises LoraryError that names every fault of every document.
    """
    documents, others = _documents(folder)
    place = kept.place(cache, "outline", VERSION, folder, passage_words)
    made_of = [[[document.name, *document.stamp] for document in documents], others]
    counts = kept.get(place, made_of)
    if not (isinstance(counts, list) and len(counts) == len(documents)):
        if others:
            log.warning("%s: read are %s; left out: %s", folder, KINDS, _listed(others))
        counts = [len(passages) for passages in _all_cut(folder, documents, passage_words, cache)]
        kept.put(place, made_of, counts)
    return {str(document.path): count for document, count in zip(documents, counts, strict=True)}


def read(folder: str, passage_words: int, cache: str) -> list[list[RawPassage]]:
    """The passages of each document, in the order of the documents' paths. Raises LoraryError as `outline` does."""
    return _all_cut(folder, _documents(folder)[0], passage_words, cache)


def _documents(folder: str) -> tuple[list[Found], dict[str, int]]:
    """The documents in a folder, and how many files there are of other kinds."""
    root = Path(folder)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "there is no such folder"
        raise LoraryError(f"{folder}: {what}. Name one with documents: {KINDS}.")
    faults: list[str] = []
    others: Counter[str] = Counter()
    documents = []
    for path in _files(root, faults):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() not in ENDINGS:
            others[path.suffix.lower() or "no ending"] += 1
            continue
        try:
            if fault := _refused(root, path, name):
                faults.append(fault)
                continue
            status = path.stat()
        except OSError as error:
            faults.append(f"{name} cannot be read ({error.strerror}).")
            continue
        documents.append(Found(name, path, kept.stamp(status)))
    if faults:
        raise _report(folder, faults)
    if not documents:
        there = f"there is {_listed(others)}. Convert them, or name another folder" if others else "it is empty"
        raise LoraryError(f"{folder}: no document in this folder; {there}. Read are {KINDS}.")
    return sorted(documents, key=lambda document: document.name), dict(sorted(others.items()))


def _files(root: Path, faults: list[str]) -> Iterator[Path]:
    """All files below a folder that are not hidden."""

    def tell(error: OSError) -> None:
        faults.append(f"{os.path.relpath(error.filename, root)} cannot be read ({error.strerror}).")

    for folder, folders, files in os.walk(root, onerror=tell):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            path = Path(folder, name)
            if path.is_symlink() and (fault := _refused(root, path, path.relative_to(root).as_posix())):
                faults.append(fault)  # a link inside is not followed: what it leads to is found by itself
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _refused(root: Path, path: Path, name: str) -> str:
    """Why a file or a link is not read; empty where it is. Raises OSError."""
    if not is_text(name):
        return f"{name.encode(errors='replace').decode()}: this name is not UTF-8. Rename it."
    if UNFIT.search(name):
        return f"{name!r}: this name has braces or control characters, which Snakemake cannot take. Rename it."
    if path.is_symlink():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # a circle
            return f"{name} is a link that leads nowhere. Remove it."
        if not target.is_relative_to(root.resolve()):
            return f"{name} is a link that leads out of the folder. Copy there what it leads to."
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return f"{name} is no file. Remove it."
    return ""


def _all_cut(folder: str, documents: list[Found], passage_words: int, cache: str) -> list[list[RawPassage]]:
    faults: list[str] = []
    places = [kept.place(cache, "document", VERSION, str(found.path), passage_words) for found in documents]
    passages = [_kept(place, found) for place, found in zip(places, documents, strict=True)]
    if (new := sum(not found for found in passages)) >= SHOWN:
        log.warning("%s: %d documents are cut into passages, which is kept for the next time", folder, new)
    with ThreadPoolExecutor(WRITERS) as writers:
        for i, found in enumerate(documents):
            if passages[i]:
                continue
            try:
                passages[i] = cut(read_document(found.path), found.name, passage_words)
            except LoraryError as error:
                faults.append(f"{found.name}: {error}")
            except OSError as error:
                faults.append(f"{found.name} cannot be read ({error.strerror}).")
            else:
                rows = [[made.text, made.title, made.extra] for made in passages[i]]
                writers.submit(kept.put, places[i], found.stamp, rows)
    if faults:
        raise _report(folder, faults)
    return passages


def _kept(place: Path, document: Found) -> list[RawPassage]:
    """A document's passages as they are kept; none where they are not."""
    rows: Any = kept.get(place, document.stamp)
    try:
        return [RawPassage(text, title, dict(extra)) for text, title, extra in rows or []]
    except (TypeError, ValueError):
        return []


def _report(folder: str, faults: list[str]) -> LoraryError:
    return report(faults, f"{folder}: {len(faults)} fault{'s' if len(faults) > 1 else ''} in these documents:")


def _listed(others: dict[str, int]) -> str:
    return ", ".join(f"{count} × {ending}" for ending, count in sorted(others.items()))
