"""Routing: which of a question's passages go best with it, so that only their adapters answer; how often those are the
right ones, where that is known; and the same as a table for whoever serves adapters."""

import csv
import json
import logging
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

from ..core.errors import damaged
from ..core.files import written_whole
from ..data import rows
from ..plan import layout
from ..raw.index import Index, make
from ..raw.passages import RawPassage
from ..train.outputs import unpack
from . import search

log = logging.getLogger(__name__)

# did and pid of a passage, its rank among those of its question (from 1), its BM25 score, and whether it is a right one
COLUMNS = ["did", "pid", "rank", "score", "right"]
EXPORTED = ["type", "did", "question", "rank", "adapter"]


def route(table: str, by: str, output: str) -> None:
    """Put the passages of each question of a table in order, and write a line for each (COLUMNS, TSV).

    `by`: `bm25`, their scores for the question, whose statistics are those of all passages of the table; passages with
    the same score, and those that share no word with the question or have no text, keep the order they are given in; or
    `rank`: all keep it. `right` is 1 or 0 where the question has `golden_passages` and one of its passages is among
    them, else empty. Raises LoraryError.
    """
    passages = rows.read(table, 0, None, ["did", "pid", "question", "passage", "extra"])
    questions = [list(group) for _, group in groupby(passages, key=lambda row: row["did"])]
    lines = []
    for of_question, order in zip(questions, _orders(questions, by), strict=True):
        right = _right(of_question)
        for rank, (i, score) in enumerate(order, start=1):
            did, pid = of_question[i]["did"], of_question[i]["pid"]
            lines.append([did, pid, rank, "" if score is None else score, int(pid in right) if right else ""])
    _write(output, COLUMNS, lines)
    log.info("%d questions", len(questions))


def read(path: str) -> dict[int, list[int]]:
    """By did, the pids of its passages, best first. Raises LoraryError."""
    return {did: [pid for pid, _ in lines] for did, lines in _questions(path)}


def right(path: str, top: int, questions: int) -> tuple[int, int]:
    """Of the first so many questions, and of those of which it is known which passages are the right ones: for how many
    one is among the `top` that are active; and how many these are. A question that has no more passages than are active
    is none of them. Raises LoraryError."""
    known = [
        any(is_right == "1" for _, is_right in lines[:top])
        for did, lines in _questions(path)
        if did < questions and len(lines) > top and lines[0][1]
    ]
    return sum(known), len(known)


def export(
    types: dict[str, dict[str, str]], names: list[str], folder: str, output: str, packed: list[str] | None = None
) -> None:
    """Write a table from question to adapter (EXPORTED, TSV), the best first: of the passages of these `names`
    (<type>/data_<did>/passage_<pid>), whose adapters lie in `folder`. `types`: of each its `table` and its `routes`;
    `packed`: where these adapters are in packs, out of which they get directories there. Raises LoraryError."""
    for adapter in packed or ():
        unpack(adapter)
    wanted, lines = set(names), []
    for kind, files in types.items():
        questions = {row["did"]: row["question"] for row in rows.read(files["table"], 0, None, ["did", "question"])}
        for did, pids in read(files["routes"]).items():
            ordered = [name for pid in pids if (name := layout.passage_name(kind, did, pid)) in wanted]
            lines += [[kind, did, questions[did], rank, f"{folder}/{name}"] for rank, name in enumerate(ordered, 1)]
    _write(output, EXPORTED, lines)
    log.info("%s: %d adapters", output, len(lines))


def _orders(questions: list[list[dict[str, Any]]], by: str) -> list[list[search.Ranked]]:
    """Of each question the positions of its passages, best first, and their scores."""
    if by == "rank":
        return [[(i, None) for i in range(len(of_question))] for of_question in questions]
    own = [
        [None if row["passage"] is None else RawPassage(row["passage"], rows.title_of(row)) for row in of_question]
        for of_question in questions
    ]
    passages = [passage for some in own for passage in some if passage is not None]
    known = iter(search.numbers(passages))
    numbers = [[None if passage is None else next(known) for passage in some] for some in own]
    asked = zip([of_question[0]["question"] for of_question in questions], numbers, strict=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(Path(temporary, "index"))
        make(passages, folder)
        return list(search.in_order(Index(folder), asked))


def _right(passages: list[dict[str, Any]]) -> set[int]:
    """The pids of a question's passages that are among its golden ones: blanks and case apart, the one text holds the
    other, since a corpus cuts its pages at other places."""
    golden = json.loads(passages[0]["extra"])["question"].get("golden_passages")
    texts = [_plain(text) for text in golden if isinstance(text, str)] if isinstance(golden, list) else []
    here = {row["pid"]: _plain(row["passage"] or "") for row in passages}
    return {
        pid for pid, text in here.items() if text and any(text in other or other in text for other in texts if other)
    }


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _questions(path: str) -> list[tuple[int, list[tuple[int, str]]]]:
    """Of each question the pids in order of rank, and what is said of them under `right`."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = [
                (int(line["did"]), int(line["pid"]), line["right"]) for line in csv.DictReader(file, delimiter="\t")
            ]
        return [(did, [line[1:] for line in group]) for did, group in groupby(lines, key=lambda line: line[0])]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise damaged(path, error) from None


def _write(path: str, columns: list[str], lines: list[list[Any]]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(lines)
