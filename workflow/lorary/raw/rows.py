"""Rows of tables as people bring them, of passages or of questions: JSON, JSON lines, CSV, TSV and Parquet."""

import codecs
import csv
import json
import math
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..core import errors
from ..core.errors import LoraryError
from ..core.twice import Twice, known_twice
from ..core.values import finite, is_text
from .text import no_bytes, not_utf8, refuse_utf16

MOST = 1000  # faults, after which a file is not read on
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON writes half a letter, or a whole one in two halves

Row = tuple[str, dict[str, Any] | str]  # the place, for messages, and the cells by their columns, or what is wrong
Lacking = Callable[[list[str]], str]  # what is wrong with columns of these names; empty where nothing is


def good(rows: Iterator[Row], faults: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows that can be read, with their places. `faults` gets what is wrong with the others; the caller may add to
    them, and of `MOST` they are enough."""
    try:
        for place, row in rows:
            if isinstance(row, str):
                faults.append(f"{place}: {row}")
            else:
                yield place, row
            if len(faults) >= MOST:
                return
    except LoraryError as error:  # after which no row can be read
        faults.append(str(error))
    except OSError as error:
        faults.append(f"it cannot be read ({error.strerror}).")


def report(path: object, faults: list[str], where: str) -> LoraryError:
    many = "at least " if len(faults) >= MOST else ""
    return errors.report(faults, f"{path}: {many}{len(faults)} fault{'s' if len(faults) > 1 else ''} in {where}:")


def found(path: str | Path, what: str) -> Path:
    """A file that is there. Raises LoraryError that says `what` was expected."""
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise LoraryError(f"{path} cannot be read ({error.strerror}). Name {what}.") from None
    if stat.S_ISDIR(mode):
        raise LoraryError(f"{path} is a folder, and {what} was expected. Name the file in it.")
    if not stat.S_ISREG(mode):
        raise LoraryError(f"{path} is no file that can be read twice. Write one.")
    return Path(path)


def start(path: Path) -> str:
    """How a file begins, without blanks before. Raises LoraryError."""
    try:
        with path.open("rb") as file:
            return file.read(4096).removeprefix(codecs.BOM_UTF8).decode(errors="replace").lstrip()
    except OSError as error:
        raise LoraryError(f"{path} cannot be read ({error.strerror}).") from None


def of_json(path: Path) -> Iterator[Row]:
    """Of a list of objects, or of one object a line. What is wrong with the file as a whole raises LoraryError, here
    and below."""
    if start(path).startswith("["):
        text = "".join(_lines(path))
        halves = bool(SURROGATE.search(text))
        yield from ((f"row {number}", _object(row, halves)) for number, row in enumerate(_parsed(text), start=1))
        return
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            try:
                yield f"line {number}", _object(_parsed(line), bool(SURROGATE.search(line)))
            except LoraryError as error:
                yield f"line {number}", str(error)


def of_csv(path: Path, delimiter: str, lacking: Lacking) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(_lines(path), delimiter=delimiter, strict=True)
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
            if fault := _twice_in(header) or lacking(header):
                divided = "tabs" if delimiter == "\t" else "commas"
                raise LoraryError(f"line 1: {fault} The first line names the columns, divided by {divided}.")
        elif cells:
            number += 1
            ragged = f"{len(cells)} cells, and the header has {len(header)}. Quote cells with line ends and delimiters."
            whole = len(cells) == len(header)
            yield f"row {number} (line {line})", dict(zip(header, cells, strict=True)) if whole else ragged


def of_parquet(path: Path, lacking: Lacking) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if fault := _twice_in(names) or lacking(names):
                raise LoraryError(fault)
            for batch in file.iter_batches(1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", {name: _plain(value) for name, value in row.items()}
    except UnicodeDecodeError:
        raise LoraryError(f"a text after row {number} is not UTF-8. Write the table anew from its source.") from None
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:200]
        raise LoraryError(f"this cannot be read as Parquet ({reason}). Write it anew.") from None
    except (ValueError, OverflowError) as error:  # a day that Python has not
        raise LoraryError(f"a value after row {number} cannot be read ({error}). Write it as text.") from None


def short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:60] + "..."


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=finite, object_pairs_hook=known_twice)
    except (ValueError, RecursionError) as error:  # no JSON, NaN, or nested too deep
        raise LoraryError(f"this is not JSON ({error}).") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _object(row: Any, halves: bool) -> dict[str, Any] | str:
    """A row of JSON, or what is wrong with it. `halves`: there may be halves of letters in it."""
    if not isinstance(row, dict):
        return f"expected an object, found {short(row)}."
    nodes: list[Any] = [row]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Twice):
            return f"the key {short(node.keys_twice[0])} is given twice. Leave one."
        nodes += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    for name, cell in row.items() if halves else ():
        if not is_text(json.dumps([name, cell], ensure_ascii=False)):
            return (
                f"column {short(name)}: half a letter (a lone surrogate), which UTF-8 cannot write. Mend or remove it."
            )
    return row


def _twice_in(header: list[str]) -> str:
    twice = {name for name in header if header.count(name) > 1}
    return f"two columns are named {short(min(twice))}. Rename or remove one." if twice else ""


def _plain(value: Any) -> Any:
    """A cell as JSON can have it."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file in UTF-8, with their ends. Raises LoraryError that names one that is not."""
    with path.open("rb") as file:
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
