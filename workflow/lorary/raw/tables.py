"""Tables of passages, a row a passage: JSON lines, TSV in DPR's layout, CSV and Parquet."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError
from . import kept, rows
from .passages import RawPassage
from .rows import short

VERSION = 1  # to be raised with what makes a table a good one
TEXT = ("text", "passage", "contents")  # the first of these columns that there is
ENDINGS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")


def count(path: str, cache: str) -> int:
    """How many passages a table has. It is checked row by row at first, and again when it changes.

    `cache`: the folder to keep the number in. Raises LoraryError that names every fault: row and column.
    """
    stamp = kept.stamp(_found(path).stat())
    place = kept.place(cache, "table", VERSION, path)
    number = kept.get(place, stamp)
    if not isinstance(number, int):
        number = _checked(path)
        kept.put(place, stamp, number)
    return number


def read(path: str) -> Iterator[RawPassage]:
    """The passages of a table, one after another. Raises LoraryError at the first fault, which `count` would list."""
    faults: list[str] = []
    for _, passage in _passages(path, faults):
        if faults:
            break
        yield passage
    if faults:
        raise _report(path, faults)


def _checked(path: str) -> int:
    faults: list[str] = []
    ids = array("q")  # their hashes, since there may be millions
    number = 0
    for _, passage in _passages(path, faults):
        number += 1
        if (identity := passage.extra.get("id")) is not None:
            ids.append(hash(str(identity)))
    faults = faults or _ids_alike(path, ids)
    if faults:
        raise _report(path, faults)
    if not number:
        raise LoraryError(f"{path}: this table of passages has no rows.")
    return number


def _ids_alike(path: str, hashes: "array[int]") -> list[str]:
    import numpy as np

    ordered = np.sort(np.frombuffer(hashes, dtype=np.int64))
    alike = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    places: dict[str, list[str]] = {}
    for place, passage in _passages(path, []) if alike else ():
        identity = passage.extra.get("id")
        if identity is not None and hash(str(identity)) in alike:
            places.setdefault(str(identity), []).append(place)
    return [
        f"{', '.join(found[:5])}, column id: all are {short(identity)}. Give each passage an id of its own."
        for identity, found in places.items()
        if len(found) > 1
    ]


def _report(path: str, faults: list[str]) -> LoraryError:
    return rows.report(path, faults, "this table")


def _found(path: str) -> Path:
    """Raises LoraryError where there is no table of passages."""
    table = rows.found(path, "a table of passages")
    if table.suffix.lower() not in ENDINGS:
        raise LoraryError(f"{path}: a table of passages ends in {', '.join(ENDINGS)}. Write it as one of these.")
    return table


def _passages(path: str, faults: list[str]) -> Iterator[tuple[str, RawPassage]]:
    """The good rows of a table with their places; `faults` gets what is wrong with the others."""
    for place, row in rows.good(_rows(_found(path)), faults):
        passage = _passage(row)
        if isinstance(passage, RawPassage):
            yield place, passage
        else:
            faults.append(f"{place}: {passage}")


def _rows(table: Path) -> Iterator[rows.Row]:
    ending = table.suffix.lower()
    if ending == ".parquet":
        return rows.of_parquet(table, _lacking)
    if ending in (".tsv", ".csv"):
        return rows.of_csv(table, "\t" if ending == ".tsv" else ",", _lacking)
    return rows.of_json(table)


def _passage(row: dict[str, Any]) -> RawPassage | str:
    """The passage of a row, or what is wrong with it."""
    column = next((name for name in TEXT if name in row), None)
    if column is None:
        return _lacking(list(row))
    text, title = row[column], row.get("title")
    if text is None or (isinstance(text, str) and not text.strip()):
        return f"column {column}: the text is empty. Fill it, or take the row out."
    if not isinstance(text, str):
        return f"column {column}: expected a text, found {short(text)}."
    extra = {name: value for name, value in row.items() if name not in (column, "title")}
    return RawPassage(text, "" if title is None else str(title), extra)


def _lacking(columns: list[str]) -> str:
    if set(TEXT) & set(columns):
        return ""
    there = ", ".join(map(str, columns[:20])) or "none"
    return f"no column {', '.join(TEXT[:-1])} or {TEXT[-1]} (there: {there}). Name that of the passages {TEXT[0]}."
