"""Files of augmented data: which are read for each type, and the questions in them with the place of each."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError
from ..core.twice import Twice, known_twice
from ..core.values import NAME

# A question and the place it came from (file name, position), for messages.
Row = tuple[str, int, Any]

ENDINGS = (".json", ".jsonl")

# Of JSON lists.
BLANKS = " \t\n\r"
OPENING, MARK = (re.compile(rf"[{BLANKS}]*({mark})[{BLANKS}]*") for mark in (r"\[", r"[,\]]"))
PIECE = 2**20  # letters that are read at once, at least


def type_files(folder: Path, data_type: str | None) -> dict[str, list[Path]]:
    """The types to solve, each with the files that it is read from.

    A file is a JSON list, or JSON lines. A folder with one file holds total.json. With several, no `data_type` means
    each type but total, and total is merged from all files. Raises LoraryError where the folder does not hold what
    `data_type` asks for.
    """
    files = _files(folder)
    if data_type is not None and data_type not in files:
        raise LoraryError(f"{folder}: data_type {data_type} is not here; there is {', '.join(files)}.")
    if len(files) == 1:
        if "total" not in files:
            raise LoraryError(
                f"{folder}: a folder with one file holds total.json, but this one holds {min(files)}.json."
            )
        return {"total": [files["total"]]}
    if data_type in (None, "total") and "total" in files:
        _refuse_copies(folder, files, data_type)
    if data_type == "total":
        return {"total": [files["total"], *(path for name, path in files.items() if name != "total")]}
    if data_type is not None:
        return {data_type: [files[data_type]]}
    return {name: [path] for name, path in files.items() if name != "total"}


def type_names(folder: Path) -> list[str]:
    """All types that a data_type may name there. Raises LoraryError."""
    return list(_files(folder))


def _files(folder: Path) -> dict[str, Path]:
    """By name, sorted."""
    if not folder.is_dir():
        raise LoraryError(
            f"{folder}: no such data folder. Augmented data lies in <data_dir>/<dataset>/<augment_model>/<type>.json:"
            " put it there, or set data_dir, dataset and augment_model."
        )
    here = [path for ending in ENDINGS for path in sorted(folder.glob(f"*{ending}")) if not path.name.startswith(".")]
    files = {path.stem: path for path in sorted(here, key=lambda path: path.stem)}
    if double := [path for path in here if path != files[path.stem]]:
        both = f"{double[0].name} and {files[double[0].stem].name}"
        raise LoraryError(f"{folder}: {both} are one type: move one of them away.")
    if strange := [path.name for name, path in files.items() if not re.fullmatch(NAME, name)]:
        raise LoraryError(
            f"{folder}: {', '.join(strange)}: a type becomes a folder name, of at most 64 letters, digits"
            " and ._+=@-. Rename it."
        )
    if not files:
        raise LoraryError(f"{folder}: there is no .json file in this data folder.")
    return files


def _refuse_copies(folder: Path, files: dict[str, Path], data_type: str | None) -> None:
    """Raises LoraryError where files beside total.json are not its types: they would be solved in its place, or too."""
    try:
        total = [question for question in _read(files["total"], []) if isinstance(question, dict)]
    except LoraryError:  # which is told where it is needed
        return
    types = [name for name in files if name != "total"]
    for i, question in enumerate(total):
        if question.get("augment") and question.get("type") not in types:
            raise LoraryError(
                f"{folder}: question {i} of total.json has passages of its own and none of the types"
                f" {', '.join(types)}, which would be solved in its place. Is {files[types[-1]].name} a copy? Move it"
                " away, or name a type in data_type."
            )
    if data_type is not None:
        return
    listed = _texts(total, "question")
    for name in types:
        if name not in _texts(total, "type") and listed & _texts(_read(files[name], []), "question"):
            raise LoraryError(
                f"{folder}: {files[name].name} has questions of total.json, which has no type {name}: a copy? Move it"
                " away, or name a type in data_type."
            )


def _texts(questions: Iterable[Any], key: str) -> set[str]:
    found = (question.get(key) for question in questions if isinstance(question, dict))
    return {text for text in found if isinstance(text, str)}


def solve(files: list[Path], sample: int, faults: list[str]) -> Iterator[Row]:
    """The questions to solve, unchecked, with the place of each, one after the other; `faults` gets what was wrong in
    putting them together, and has all of it after the last. Raises LoraryError."""
    if len(files) == 1:
        rows: Iterable[Row] = ((files[0].name, i, question) for i, question in enumerate(_read(files[0], faults)))
    else:
        rows = _merge(files, faults)
    for number, row in enumerate(rows):  # to the last, for its faults
        if sample == -1 or number < sample:
            yield row


def place(file: str, index: int, path: Any) -> str:
    """`bridge.json, question 3, passage 1, m_qa 0, answer` from the path inside a question."""
    parts = [file, f"question {index}"]
    for step in path:
        if isinstance(step, int):
            parts[-1] = f"passage {step}" if parts[-1] == "augment" else f"{parts[-1]} {step}"
        else:
            parts.append(str(step))
    return ", ".join(parts)


def short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _read(path: Path, faults: list[str]) -> Iterator[Any]:
    """The questions of a file, a JSON list or JSON lines, one after the other; `faults` gets the keys that are given
    twice in them."""
    twice, none = list[Twice](), True
    for i, question in enumerate(_items(path, twice)):
        if twice:
            faults += [f"{place(path.name, i, where)}: this key is given twice" for where in _keys_twice(question)]
        none = False
        yield question
    if none:
        raise LoraryError(f"{path}: the list of questions is empty.")


def _items(path: Path, twice: list[Twice]) -> Iterator[Any]:
    """A list is read item by item, since a million questions are gigabytes. What is no list, or has a fault, is read
    whole, for json to say what that is; and so are lines, of which the first may be a list by mistake."""
    count = 0
    for item, last in _items_of_list(path, twice) if path.suffix != ".jsonl" else ():
        yield item
        if last:
            return
        count += 1
    yield from islice(_whole(path, twice), count, None)


def _items_of_list(path: Path, twice: list[Twice]) -> Iterator[tuple[Any, bool]]:
    """Each with whether the file ends after it; up to where this is no list of JSON."""
    decoder, text, opened = json.JSONDecoder(**_how(twice)), "", False
    try:
        with path.open("rb") as file:
            encoding = json.detect_encoding(file.read(4))
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as file:
            while more := file.read(max(PIECE, len(text))):  # twice as much, where what there is ends within an item
                text, begin = (text + more).lstrip(BLANKS), 0
                if not opened:
                    if (opening := OPENING.match(text)) is None:
                        return
                    opened, begin = True, opening.end()
                while item := _item(decoder, text, begin):
                    value, begin, closed = item
                    yield value, closed and not (text[begin:] + file.read()).strip(BLANKS)
                    if closed:
                        return
                text = text[begin:]
    except (OSError, UnicodeDecodeError):
        return


def _item(decoder: json.JSONDecoder, text: str, begin: int) -> tuple[Any, int, bool] | None:
    """The item of a list that begins here, where the next one begins, and whether there is none; None where the text
    ends before that is known, or this is no JSON."""
    try:
        value, end = decoder.raw_decode(text, begin)
    except (ValueError, RecursionError):
        return None
    mark = MARK.match(text, end)
    return (value, mark.end(), mark[1] == "]") if mark else None


def _whole(path: Path, twice: list[Twice]) -> Iterator[Any]:
    text = _text(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if path.suffix == ".jsonl" or (len(lines) > 1 and _is_object(lines[0][1])):
        for number, line in lines:
            yield _parse(f"{path}, line {number}", line, twice)
        return
    questions = _parse(str(path), text, twice)
    if isinstance(questions, dict) and "augment" in questions:  # JSON lines, of which there is one
        questions = [questions]
    if not isinstance(questions, list):
        raise LoraryError(f"{path}: expected a list of questions, found {short(questions)}.")
    yield from questions


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return content.decode(json.detect_encoding(content), "surrogatepass")
    except OSError as error:
        raise LoraryError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise LoraryError(f"{path}: this is not JSON ({error}).") from None


def _is_object(line: str) -> bool:
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _parse(where: str, text: str, twice: list[Twice]) -> Any:
    """A value of JSON; `twice` gets its objects that have a key twice."""
    try:
        return json.loads(text, **_how(twice))
    except (ValueError, RecursionError) as error:  # not JSON, NaN, or nested too deep
        raise LoraryError(f"{where}: this is not JSON ({error}).") from None


def _how(twice: list[Twice]) -> dict[str, Any]:
    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = known_twice(pairs)
        if isinstance(mapping, Twice):
            twice.append(mapping)
        return mapping

    return {"parse_constant": _no_constant, "object_pairs_hook": read}


def _keys_twice(question: Any) -> list[tuple]:
    """The paths of keys inside a question that are given twice, in order."""
    found: list[tuple] = []
    left: list[tuple[tuple, Any]] = [((), question)]
    while left:
        path, value = left.pop()
        if isinstance(value, Twice):
            found += [(*path, key) for key in value.keys_twice]
        items = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else [])
        left += [((*path, step), item) for step, item in items][::-1]
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _merge(files: list[Path], faults: list[str]) -> list[Row]:
    """The types in the order of total.json (first of `files`): its n-th question of a type is that file's n-th row.

    Stops at the first type that has run out.
    """
    total, *types = files
    by_type = {path.stem: (path, list(_read(path, faults))) for path in types}
    used = dict.fromkeys(by_type, 0)
    rows: list[Row] = []
    for i, question in enumerate(list(_read(total, faults))):  # to its end, for its faults
        kind = question.get("type") if isinstance(question, dict) else None
        if not isinstance(kind, str) or kind not in by_type:
            where = place(total.name, i, ["type"])
            faults.append(f"{where}: expected one of {', '.join(by_type)}, found {short(kind)}")
            continue
        path, questions = by_type[kind]
        n = used[kind]
        if n == len(questions):
            break
        used[kind] += 1
        row = questions[n]
        rows.append((path.name, n, row))
        if isinstance(row, dict) and row.get("question") != question.get("question"):
            where = place(total.name, i, ["question"])
            found = short(question.get("question"))
            faults.append(
                f"{where}: expected that of {path.name}, question {n} ({short(row.get('question'))}), found {found}"
            )
    return rows
