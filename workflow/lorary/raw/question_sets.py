"""Sets of questions as people bring them: a plain list or table, or the files of PopQA, ComplexWebQuestions,
2WikiMultihopQA and HotpotQA as they are published. What a file is, its content says.
"""

import ast
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError
from ..core.values import NAME, UNFIT, is_text
from . import kept, rows
from .rows import short

VERSION = 1  # to be raised with what makes a set a good one, and with the types of one
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
    kind = None
    for number, (place, row) in enumerate(rows.good(_rows(file), faults)):
        kind = kind or _kind(row, file)
        try:
            questions = found.setdefault(_named(kind.type(row)), [])
            if sample == -1 or len(questions) < sample:
                questions.append(Question(_question(row), _distinct(kind.answers(row)), _extra(row, kind, number)))
        except Fault as fault:
            faults.append(f"{place}: {fault}")
    if faults:
        raise rows.report(file, faults, "these questions")
    if not found:
        raise LoraryError(f"{file}: there is no question in this file.")
    return found


def files(path: str) -> list[str]:
    """The files that `load` reads. Raises LoraryError where it is not to be told which."""
    file = _file(Path(path))
    aliases = file.with_name(ALIASES)
    return [str(file), *([str(aliases)] if aliases.is_file() else [])]


def count(path: str, sample: int, cache: str) -> dict[str, int]:
    """How many questions each type has, with the same faults: what is wrong is told before anything runs. The set is
    read at first, and again when it changes.

    `cache`: the folder to keep the numbers in.
    """
    stamps = [[file, *kept.stamp(Path(file).stat())] for file in files(path)]
    place = kept.place(cache, "questions", VERSION, path, sample)
    counts = kept.get(place, stamps)
    if not isinstance(counts, dict):
        counts = {kind: len(questions) for kind, questions in load(path, sample).items()}
        kept.put(place, stamps, counts)
    return counts


def _kind(row: Row, file: Path) -> Kind:
    """Of a set, by the keys of its first row."""
    keys = set(row)
    if {"supporting_facts", "context"} <= keys:
        aliases = _aliases(file.with_name(ALIASES)) if "answer_id" in keys else {}
        glue = " " if "answer_id" in keys else ""  # as each set has its sentences, so that they are the paragraph
        return Kind(lambda row: _renamed(row, aliases), lambda row: _golden(row, glue), lambda row: _get(row, "type"))
    if "compositionality_type" in keys:
        return Kind(_of_complex, lambda row: {}, lambda row: TOTAL)
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
            raise Fault(f"answers: expected objects, found {short(answer)}")
        if answer.get("answer") is not None:  # some have only other names
            answers.append(answer["answer"])
        answers += _get(answer, "aliases", list) if answer.get("aliases") else []
    return answers


def _renamed(row: Row, aliases: dict[str, list[str]]) -> list[str]:
    others = aliases.get(_get(row, "answer_id")) if row.get("answer_id") is not None else None
    return others or [_get(row, "answer")]


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
    aliases: dict[str, list[str]] = {}
    faults: list[str] = []
    for place, row in rows.good(rows.of_json(rows.found(path, "these names")), faults):
        try:
            aliases[_get(row, "Q_id")] = _get(row, "aliases", list)
        except Fault as fault:
            faults.append(f"{place}: {fault}")
    if faults:
        raise rows.report(path, faults, "these names")
    return aliases


def _question(row: Row) -> str:
    if not _get(row, "question").strip():
        raise Fault("question: this is empty")
    return row["question"]


def _distinct(answers: list[Any]) -> list[str]:
    for answer in answers:
        if not is_text(answer) or not answer.strip():
            raise Fault(f"answer: expected texts that are not empty, found {short(answer)}")
    if not answers:
        raise Fault("answer: there is none")
    return list(dict.fromkeys(answers))


def _extra(row: Row, kind: Kind, number: int) -> Row:
    ids = [row[key] for key in IDS if row.get(key) not in (None, "")]
    return {**({"qid": ids[0]} if ids else {}), **kind.kept(row), "test_id": number}


def _named(kind: str) -> str:
    if not re.fullmatch(NAME, kind):
        raise Fault(f"type: expected what may be a folder's name (letters, digits and ._+=@-), found {short(kind)}")
    return kind


def _get(row: Row, key: str, kinds: Any = str) -> Any:
    """A value that is text, or of the other `kinds`. Raises Fault."""
    if key not in row or row[key] is None:
        there = ", ".join(str(name) for name in row if row[name] is not None)
        raise Fault(f"{key}: this is missing; there is {there or 'nothing'}")
    value = row[key]
    if not isinstance(value, kinds) or (isinstance(value, str) and not is_text(value)):
        what = "text" if kinds is str else "a list" if kinds is list else "text or a list of texts"
        raise Fault(f"{key}: expected {what}, found {short(value)}")
    return value


def _list(row: Row, key: str) -> list[Any]:
    """A list that a table has as text, in JSON or as Python writes it; empty where there is none. Raises Fault."""
    value = row.get(key) or []
    if isinstance(value, list):
        return value
    for read in (json.loads, ast.literal_eval) if isinstance(value, str) else ():
        try:
            if isinstance(found := read(value), list):
                return found
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    raise Fault(f"{key}: expected a list of texts, found {short(value)}")


def _without(row: Row, keys: set[str]) -> Row:
    return {key: value for key, value in row.items() if key not in keys}


def _file(path: Path) -> Path:
    """The file itself, or the only one in a folder that may hold questions. Raises LoraryError."""
    if not path.is_dir():
        return rows.found(path, "a set of questions")
    try:
        names = sorted(file.name for file in path.iterdir())
    except OSError as error:
        raise LoraryError(f"{path} cannot be read ({error.strerror}).") from None
    there = [name for name in names if name.endswith(ENDINGS) and not name.startswith(".") and name != ALIASES]
    if len(there) != 1:
        what = f"several files ({', '.join(there)})" if there else "no file"
        raise LoraryError(f"{path}: there is {what} of questions in this folder; name one.")
    if UNFIT.search(there[0]) or not is_text(there[0]):
        raise LoraryError(f"{path}: {there[0]!r}: this name has braces, control characters or is not UTF-8. Rename it.")
    return rows.found(path / there[0], "a set of questions")


def _rows(path: Path) -> Iterator[rows.Row]:
    """By what a file begins with. Raises LoraryError where it is empty."""
    start = rows.start(path)
    if not start:
        raise LoraryError(f"{path}: this file is empty.")
    if start.startswith("PAR1"):
        return rows.of_parquet(path, _lacking)
    if start.startswith(("[", "{")):
        return rows.of_json(path)
    delimiter = "\t" if "\t" in start.partition("\n")[0] else ","
    return ((place, _with_answers(row)) for place, row in rows.of_csv(path, delimiter, _lacking))


def _with_answers(row: Row | str) -> Row | str:
    """A row of a table of texts, in which a list stands for several right answers."""
    if isinstance(row, dict) and row.get("answer", "").startswith("["):
        with contextlib.suppress(Fault):  # a text that begins so
            return {**row, "answer": _list(row, "answer")}
    return row


def _lacking(columns: list[str]) -> str:
    if "question" in columns and {"answer", "obj"} & set(columns):
        return ""
    return f"expected the columns question and answer (or obj), found {short(columns)}."
