"""What is asked of adapters that they were not trained on: pairs kept out, written questions, and general ones."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError, report
from ..core.twice import refused_twice
from ..core.values import Position, is_text
from .questions import short

# A trained fact in other words, and a fact of the passage that no pair asks.
WRITTEN = ("paraphrase", "untrained")
# Where it says what a file of each of these keys looks like.
PAGES = dict.fromkeys(("heldout_questions", "general_questions"), "docs/answers.md")
PAGES["keep_questions"] = "docs/objectives.md"
KINDS = (*WRITTEN, "kept", "general")  # kept out of training by heldout_pairs


def trained(pairs: list[Any], heldout_pairs: int) -> list[Any]:
    """The pairs of a passage that it is trained on: all but its last `heldout_pairs`, and one at least."""
    return pairs[: max(len(pairs) - heldout_pairs, 1)]


def kept(pairs: list[Any], heldout_pairs: int) -> list[Any]:
    """The pairs of a passage that are kept out of its training."""
    return pairs[len(trained(pairs, heldout_pairs)) :]


def training_rows(rows: list[dict[str, Any]], heldout_pairs: int) -> list[dict[str, Any]]:
    """Rows of a data table with the pairs only that are trained on."""
    return [{**row, "pairs": trained(row["pairs"], heldout_pairs)} for row in rows]


def read_written(path: str) -> list[dict[str, Any]]:
    """The written questions of a JSON file: type (None where it says none), did, pid, question, answers (list) and kind
    of each. Raises LoraryError that names every fault."""
    entries = read_list("heldout_questions", path, _faults_of_written)
    keys = ("did", "pid", "question", "kind")
    return [
        {"type": entry.get("type"), **{key: entry[key] for key in keys}, "answers": _answers(entry)}
        for entry in entries
    ]


def read_general(path: str) -> list[dict[str, Any]]:
    """The general questions of a JSON file: question and answers (list) of each. Raises LoraryError that names every
    fault."""
    entries = read_list("general_questions", path, _faults_of_question)
    return [{"question": entry["question"], "answers": _answers(entry)} for entry in entries]


def of_type(path: str, kind: str, counts: list[int], types: list[str], sampled: bool) -> dict[Position, int]:
    """How many of the written questions are asked of each passage of a type, by (did, pid).

    `counts`: passages of each question of the type; `types`: all types of the data, whichever of them are asked for;
    `sampled`: whether the questions of this type may go on after the last one. Raises LoraryError that names each
    question of what is not there.
    """
    asked, faults = dict[Position, int](), []
    for i, entry in enumerate(read_written(path)):
        did, pid, named = entry["did"], entry["pid"], entry["type"]
        if named is None and len(types) > 1:
            faults.append(f"entry {i}, type: missing, and the data have the types {', '.join(types)}")
        elif named not in (None, *types):
            faults.append(f"entry {i}, type: there is no {named}; there is {', '.join(types)}")
        elif named not in (None, kind) or (did >= len(counts) and sampled):
            continue
        elif did >= len(counts):
            faults.append(f"entry {i}, did: {kind} has no question {did}; its last one is {len(counts) - 1}")
        elif pid >= counts[did]:
            faults.append(
                f"entry {i}, pid: question {did} of {kind} has no passage {pid}; its last one is {counts[did] - 1}"
            )
        else:
            asked[did, pid] = asked.get((did, pid), 0) + 1
    if faults:
        raise report(faults, f"heldout_questions: {path} asks about what is not there:")
    return asked


def read_list(key: str, path: str, faults_of: Callable[[Any], Iterator[str]]) -> list[Any]:
    """The entries of a JSON file, a list of questions in one form or another. Raises LoraryError that names the key of
    the config and every fault."""
    try:
        entries = json.loads(Path(path).read_bytes(), object_pairs_hook=refused_twice)
    except (OSError, ValueError, RecursionError) as error:
        raise LoraryError(f"{key}: {path} cannot be read as JSON: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise LoraryError(f"{key}: {path} is not a list of questions with at least one entry.")
    if faults := [f"entry {i}, {fault}" for i, entry in enumerate(entries) for fault in faults_of(entry)]:
        raise report(faults, f"{key}: {path} is not as it should be ({PAGES[key]} says how):")
    return entries


def _faults_of_written(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"expected an object, found {short(entry)}"
        return
    for key in ("did", "pid"):
        value = entry.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            yield f"{key}: expected a whole number from 0, found {_found(entry, key)}"
    if entry.get("kind") not in WRITTEN:
        yield f"kind: expected {' or '.join(WRITTEN)}, found {_found(entry, 'kind')}"
    if "type" in entry and not is_text(entry["type"]):
        yield f"type: expected text, found {_found(entry, 'type')}"
    yield from _faults_of_question(entry, ("type", "did", "pid", "kind"))


def _faults_of_question(entry: Any, others: tuple[str, ...] = ()) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"expected an object, found {short(entry)}"
        return
    if not is_text(entry.get("question")) or not entry["question"].strip():
        yield f"question: expected text, found {_found(entry, 'question')}"
    answers = _answers(entry)
    if not answers or not all(is_text(answer) and answer.strip() for answer in answers):
        yield f"answer: expected text, or a list of texts, found {_found(entry, 'answer')}"
    for key in entry.keys() - {"question", "answer", *others}:
        yield f"{key}: unknown key"


def _answers(entry: dict[str, Any]) -> list[Any]:
    answer = entry.get("answer")
    return answer if isinstance(answer, list) else [answer]


def _found(entry: dict[str, Any], key: str) -> str:
    return short(entry[key]) if key in entry else "nothing"
