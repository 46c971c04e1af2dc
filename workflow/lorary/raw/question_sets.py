"""Sets of questions as people bring them: a plain list or table, or the files of PopQA, ComplexWebQuestions,
2WikiMultihopQA and HotpotQA as they are published. What a file is, its content says.
"""

import ast
import contextlib
import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError, report
from ..core.twice import Twice, known_twice
from ..core.values import NAME, is_text

TOTAL = "total"  # the type of a set without types
ALIASES = "id_aliases.json"  # beside the questions of 2WikiMultihopQA
ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")  # of what is looked for in a folder
IDS = ("qid", "_id", "ID", "id")

Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    question: str
    answers: list[str]  # any of them is right; the first is the set's own
    extra: dict[str, Any] = field(default_factory=dict)  # test_id (position in its file), qid, golden_passages, ...


@dataclass(frozen=True)
class Kind:
    """How the rows of one set are read. Each function raises Fault, with the keys to the place and what is there."""

    answers: Callable[[Row], list[str]]
    kept: Callable[[Row], Row]  # into extra
    type: Callable[[Row], str]


class Fault(Exception):
    """What is wrong with a row, and where in it."""


def load(path: str, sample: int = -1) -> dict[str, list[Question]]:
    """The questions of a file (or of the only one in a folder) by their type: the first `sample` of each, -1: all. A
    set without types has one, `total`.

    Raises LoraryError that names each fault by its place.
    """
    file = _file(Path(path))
    found: dict[str, list[Question]] = {}
    faults: list[str] = []
    rows = iter(_rows(file))
    if (first := next(rows, None)) is None:
        raise LoraryError(f"{file}: there is no question in this file.")
    kind = _kind(first[1], file)
    for number, (place, row) in enumerate(itertools.chain([first], rows)):
        try:
            _refuse_twice(row)
            questions = found.setdefault(_named(kind.type(row)), [])
            if sample == -1 or len(questions) < sample:
                questions.append(Question(_question(row), _distinct(kind.answers(row)), _extra(row, kind, number)))
        except Fault as fault:
            faults.append(f"{place}: {fault}")
    if faults:
        raise report(faults, f"{file}: the questions have {len(faults)} fault{'s' if len(faults) > 1 else ''}:")
    return found


def files(path: str) -> list[str]:
    """The files that `load` reads. Raises LoraryError where it is not to be told which."""
    file = _file(Path(path))
    aliases = file.with_name(ALIASES)
    return [str(file), *([str(aliases)] if aliases.is_file() else [])]


def count(path: str, sample: int = -1) -> dict[str, int]:
    """How many questions each type has, with the same faults: what is wrong is told before anything runs."""
    return {kind: len(questions) for kind, questions in load(path, sample).items()}


def _kind(row: Any, file: Path) -> Kind:
    """Of a set, by the keys of its first row."""
    keys = set(row) if isinstance(row, dict) else set()
    if {"supporting_facts", "context"} <= keys:
        aliases = _aliases(file.with_name(ALIASES)) if "answer_id" in keys else {}
        glue = " " if "answer_id" in keys else ""  # as each set has its sentences, so that they are the paragraph
        return Kind(lambda row: _renamed(row, aliases), lambda row: _golden(row, glue), lambda row: _get(row, "type"))
    if "compositionality_type" in keys:
        return Kind(_of_complex, lambda row: {}, lambda row: _get(row, "compositionality_type"))
    if "obj" in keys:
        return Kind(_of_pop, lambda row: {}, lambda row: TOTAL)
    return Kind(_of_plain, lambda row: _without(row, {"question", "answer"}), lambda row: TOTAL)


def _of_plain(row: Row) -> list[str]:
    answer = _get(row, "answer", (str, list))
    return answer if isinstance(answer, list) else [answer]


def _of_pop(row: Row) -> list[str]:
    return [_get(row, "obj"), *(name for key in ("o_aliases", "possible_answers") for name in _list(row, key))]


def _of_complex(row: Row) -> list[str]:
    answers = []
    for answer in _get(row, "answers", list):
        if not isinstance(answer, dict):
            raise Fault(f"answers: expected objects, found {_short(answer)}")
        if answer.get("answer") is not None:  # some have only other names
            answers.append(answer["answer"])
        answers += _get(answer, "aliases", list) if answer.get("aliases") else []
    return answers


def _renamed(row: Row, aliases: dict[str, list[str]]) -> list[str]:
    return aliases.get(row.get("answer_id") or "") or [_get(row, "answer")]


def _golden(row: Row, glue: str) -> Row:
    try:
        contexts = {title: glue.join(sentences) for title, sentences in row["context"]}
        golden = list(dict.fromkeys(contexts[title] for title, _ in row["supporting_facts"]))
    except (LookupError, TypeError, ValueError) as error:
        raise Fault(
            f"supporting_facts, context: expected [title, sentence] of [title, sentences], found {error}"
        ) from None
    return {"type": row["type"], "golden_passages": golden}


def _aliases(path: Path) -> dict[str, list[str]]:
    """The names of each answer of 2WikiMultihopQA, by its id."""
    if not path.is_file():
        raise LoraryError(f"{path}: the answers' other names are not there: 2WikiMultihopQA comes with this file.")
    aliases, faults = {}, []
    for place, row in _rows(path):
        try:
            aliases[_get(row, "Q_id")] = _get(row, "aliases", list)
        except Fault as fault:
            faults.append(f"{place}: {fault}")
    if faults:
        raise report(faults, f"{path}: there are faults:")
    return aliases


def _question(row: Row) -> str:
    if not _get(row, "question").strip():
        raise Fault("question: this is empty")
    return row["question"]


def _distinct(answers: list[Any]) -> list[str]:
    for answer in answers:
        if not is_text(answer) or not answer.strip():
            raise Fault(f"answer: expected texts that are not empty, found {_short(answer)}")
    if not answers:
        raise Fault("answer: there is none")
    return list(dict.fromkeys(answers))


def _extra(row: Row, kind: Kind, number: int) -> Row:
    ids = [row[key] for key in IDS if row.get(key) not in (None, "")]
    return {**({"qid": ids[0]} if ids else {}), **kind.kept(row), "test_id": number}


def _named(kind: str) -> str:
    if not re.fullmatch(NAME, kind):
        raise Fault(f"type: expected what may be a folder's name (letters, digits and ._+=@-), found {_short(kind)}")
    return kind


def _get(row: Row, key: str, kinds: Any = str) -> Any:
    """A value that is text, or of the other `kinds`. Raises Fault."""
    if not isinstance(row, dict):
        raise Fault(f"expected an object with question and answer, found {_short(row)}")
    if key not in row or row[key] is None:
        there = ", ".join(str(name) for name in row if row[name] is not None)
        raise Fault(f"{key}: this is missing; there is {there or 'nothing'}")
    value = row[key]
    if not isinstance(value, kinds) or (isinstance(value, str) and not is_text(value)):
        what = "text" if kinds is str else "a list" if kinds is list else "text or a list of texts"
        raise Fault(f"{key}: expected {what}, found {_short(value)}")
    return value


def _list(row: Row, key: str) -> list[Any]:
    """A list that a table has as text, in JSON or as Python writes it; empty where there is none. Raises Fault."""
    value = row.get(key) or []
    if not isinstance(value, str):
        return list(value)
    for read in (json.loads, ast.literal_eval):
        try:
            if isinstance(found := read(value), list):
                return found
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    raise Fault(f"{key}: expected a list of texts, found {_short(value)}")


def _refuse_twice(row: Any) -> None:
    if isinstance(row, Twice):
        raise Fault(f"{', '.join(row.keys_twice)}: this key is given twice")


def _without(row: Row, keys: set[str]) -> Row:
    return {key: value for key, value in row.items() if key not in keys}


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:60] + "..."


def _file(path: Path) -> Path:
    """The file itself, or the only one in a folder that may hold questions."""
    if not path.is_dir():
        return path
    there = [file for file in sorted(path.iterdir()) if file.suffix in ENDINGS and not file.name.startswith(".")]
    questions = [file for file in there if file.name != ALIASES]
    if len(questions) != 1:
        what = f"several files ({', '.join(file.name for file in questions)})" if questions else "no file"
        raise LoraryError(f"{path}: there is {what} of questions in this folder; name one.")
    return questions[0]


def _rows(path: Path) -> Iterable[tuple[str, Any]]:
    """The rows of a file, each with its place. Raises LoraryError where it is none that can be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoraryError(f"{path}: cannot be read ({error.strerror}).") from None
    if not content.strip():
        raise LoraryError(f"{path}: this file is empty.")
    if content[:4] == b"PAR1":
        return _of_parquet(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LoraryError(
            f"{path}: this is not UTF-8 (the byte at {error.start}); save it again with that encoding."
        ) from None
    start = text.lstrip()[:1]
    if start == "[":
        return _of_list(path, text)
    return _of_lines(path, text) if start == "{" else _of_table(path, text)


def _of_list(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(_parsed(str(path), text)):
        yield f"question {number}", row


def _of_lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", _parsed(f"{path}, line {number}", line)


def _parsed(where: str, text: str) -> Any:
    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON value")

    try:
        return json.loads(text, object_pairs_hook=known_twice, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise LoraryError(f"{where}: this is not JSON ({error}).") from None


def _of_table(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise LoraryError(f"{path}: the column {twice[0]} is given twice.")
        _check_columns(path, header)
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                yield f"line {line}", _cells(path, line, header, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise LoraryError(f"{path}, line {reader.line_num}: this is no table ({error}).") from None


def _cells(path: Path, line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise LoraryError(f"{path}, line {line}: expected {len(header)} columns, found {len(cells)}.")
    row: Row = dict(zip(header, cells, strict=True))
    if row.get("answer", "").startswith("["):  # several right ones
        with contextlib.suppress(Fault):  # a text that begins so
            row["answer"] = _list(row, "answer")
    return row


def _of_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        rows = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise LoraryError(f"{path}: this is no Parquet file that can be read ({error}).") from None
    _check_columns(path, table.column_names)
    for number, row in enumerate(rows):
        yield f"row {number}", row


def _check_columns(path: Path, names: list[str]) -> None:
    if "question" not in names or not {"answer", "obj"} & set(names):
        there = _short(names)
        raise LoraryError(f"{path}: expected a table with the columns question and answer (or obj), found {there}.")
