"""Tables of passages, a row a passage: JSON lines, TSV in DPR's layout, CSV and Parquet."""

import codecs
import csv
import json
import math
import re
import stat
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError, report
from ..core.twice import refused_twice
from ..core.values import is_text
from . import kept
from .passages import RawPassage
from .text import no_bytes, not_utf8, refuse_utf16

VERSION = 1  # to be raised with what makes a table a good one
TEXT = ("text", "passage", "contents")  # the first of these columns that there is
MOST = 1000  # faults, after which a table is not read on

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON writes half a letter, or a whole one in two halves

Row = tuple[str, dict[str, Any] | str]  # the place, for messages, and the cells by their columns, or what is wrong


def count(path: str, cache: str) -> int:
    """How many passages a table has. It is checked row by row at first, and again when it changes.

    `cache`: the folder to keep the number in. Raises LoraryError that names every fault: row and column.
    """
    stamp = kept.stamp(_found(path).stat())
    place = kept.place(cache, "table", VERSION, path)
    rows = kept.get(place, stamp)
    if not isinstance(rows, int):
        rows = _checked(path)
        kept.put(place, stamp, rows)
    return rows


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
    rows = 0
    for _, passage in _passages(path, faults):
        rows += 1
        if (identity := passage.extra.get("id")) is not None:
            ids.append(hash(str(identity)))
    faults = faults or _ids_alike(path, ids)
    if faults:
        raise _report(path, faults)
    if not rows:
        raise LoraryError(f"{path}: this table of passages has no rows.")
    return rows


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
        f"{', '.join(found[:5])}, column id: all are {_short(identity)}. Give each passage an id of its own."
        for identity, found in places.items()
        if len(found) > 1
    ]


def _report(path: str, faults: list[str]) -> LoraryError:
    many = "at least " if len(faults) >= MOST else ""
    return report(faults, f"{path}: {many}{len(faults)} fault{'s' if len(faults) > 1 else ''} in this table:")


def _found(path: str) -> Path:
    """Raises LoraryError where there is no table of passages."""
    table = Path(path)
    try:
        mode = table.stat().st_mode
    except OSError as error:
        raise LoraryError(f"{path} cannot be read ({error.strerror}). Name a table of passages.") from None
    if stat.S_ISDIR(mode):
        raise LoraryError(f"{path} is a folder, and a table of passages was expected. Name the file in it.")
    if not stat.S_ISREG(mode):
        raise LoraryError(f"{path} is no file that can be read twice. Write one.")
    if table.suffix.lower() not in READERS:
        raise LoraryError(f"{path}: a table of passages ends in {', '.join(READERS)}. Write it as one of these.")
    return table


def _passages(path: str, faults: list[str]) -> Iterator[tuple[str, RawPassage]]:
    """The good rows of a table with their places; `faults` gets what is wrong with the others."""
    table = _found(path)
    try:
        for place, row in READERS[table.suffix.lower()](table):
            passage = row if isinstance(row, str) else _passage(row)
            if isinstance(passage, RawPassage):
                yield place, passage
                continue
            faults.append(f"{place}: {passage}")
            if len(faults) == MOST:
                return
    except LoraryError as error:  # after which no row can be read
        faults.append(str(error))
    except OSError as error:
        faults.append(f"it cannot be read ({error.strerror}).")


def _passage(row: dict[str, Any]) -> RawPassage | str:
    """The passage of a row, or what is wrong with it."""
    column = next((name for name in TEXT if name in row), None)
    if column is None:
        return _no_text_among(list(row))
    text, title = row[column], row.get("title")
    if text is None or (isinstance(text, str) and not text.strip()):
        return f"column {column}: the text is empty. Fill it, or take the row out."
    if not isinstance(text, str):
        return f"column {column}: expected a text, found {_short(text)}."
    extra = {name: value for name, value in row.items() if name not in (column, "title")}
    return RawPassage(text, "" if title is None else str(title), extra)


def _no_text_among(columns: list[str]) -> str:
    there = ", ".join(map(str, columns[:20])) or "none"
    return f"no column {', '.join(TEXT[:-1])} or {TEXT[-1]} (there: {there}). Name that of the passages {TEXT[0]}."


def _json_rows(table: Path) -> Iterator[Row]:
    """Of JSON lines, or of a list."""
    with table.open("rb") as file:
        start = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    if table.suffix.lower() == ".json" and not start.startswith(b"{"):
        text = "".join(_lines(table))
        rows, halves = _parsed(text), bool(SURROGATE.search(text))
        if not isinstance(rows, list):
            raise LoraryError(f"expected a list of rows, found {_short(rows)}.")
        yield from ((f"row {number}", _object(row, halves)) for number, row in enumerate(rows, start=1))
        return
    for number, line in enumerate(_lines(table), start=1):
        if line.strip():
            try:
                yield f"line {number}", _object(_parsed(line), bool(SURROGATE.search(line)))
            except LoraryError as error:
                yield f"line {number}", str(error)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=refused_twice)
    except (ValueError, RecursionError) as error:  # no JSON, NaN, a key that is given twice, or nested too deep
        raise LoraryError(f"this is not JSON ({error}).") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _object(row: Any, halves: bool) -> dict[str, Any] | str:
    """A row of JSON, or what is wrong with it. `halves`: there may be halves of letters in it."""
    if not isinstance(row, dict):
        return f"expected a row like {{{json.dumps(TEXT[0])}: ...}}, found {_short(row)}."
    for name, cell in row.items() if halves else ():
        if not is_text(json.dumps([name, cell], ensure_ascii=False)):
            return (
                f"column {_short(name)}: half a letter (a lone surrogate), which UTF-8 cannot write. Mend or remove it."
            )
    return row


def _csv_rows(table: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
    rows = csv.reader(_lines(table), delimiter=delimiter, strict=True)
    header: list[str] = []
    number = 0
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise LoraryError(
                f"line {line}: {error}. A cell that begins with a quotation mark ends with one, and has two for each"
                " inside."
            ) from None
        if not header:
            header = [name.strip() for name in cells]
            _check_header(header, delimiter)
        elif cells:
            number += 1
            ragged = f"{len(cells)} cells, and the header has {len(header)}. Quote cells with line ends and delimiters."
            good = len(cells) == len(header)
            yield f"row {number} (line {line})", dict(zip(header, cells, strict=True)) if good else ragged


def _check_header(header: list[str], delimiter: str) -> None:
    if twice := {name for name in header if header.count(name) > 1}:
        raise LoraryError(f"line 1: two columns are named {_short(min(twice))}. Rename or remove one.")
    if not set(TEXT) & set(header):
        divided = "tabs" if delimiter == "\t" else "commas"
        raise LoraryError(f"line 1: {_no_text_among(header)} The first line names the columns, divided by {divided}.")


def _parquet_rows(table: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(table) as file:
            if not set(TEXT) & set(file.schema_arrow.names):
                raise LoraryError(_no_text_among(file.schema_arrow.names))
            for batch in file.iter_batches(1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", {name: _plain(value) for name, value in row.items()}
    except UnicodeDecodeError:
        raise LoraryError(f"a text after row {number} is not UTF-8. Write the table anew from its source.") from None
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:200]
        raise LoraryError(f"this cannot be read as Parquet ({reason}). Write it anew.") from None


def _plain(value: Any) -> Any:
    """A cell as JSON can have it."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)


def _lines(table: Path) -> Iterator[str]:
    """The lines of a file in UTF-8, with their ends. Raises LoraryError that names one that is not."""
    with table.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                refuse_utf16(line)
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise not_utf8(number, line[error.start]) from None
            if "\0" in text:
                raise no_bytes(number)
            yield text


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:60] + "..."


READERS = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".tsv": _csv_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
