"""General questions that the base model answers itself, for adapters to keep its answers."""

import json
from pathlib import Path

from ..core.errors import LoraryError, report
from ..core.twice import refused_twice
from ..core.values import is_text
from .questions import short


def read_questions(path: str) -> list[str]:
    """The questions of a JSON file, a list of texts. Raises LoraryError that names every fault."""
    try:
        questions = json.loads(Path(path).read_bytes(), object_pairs_hook=refused_twice)
    except (OSError, ValueError, RecursionError) as error:
        raise LoraryError(f"keep_questions: {path} cannot be read as JSON: {error}") from None
    if not isinstance(questions, list) or not questions:
        raise LoraryError(f"keep_questions: {path} is not a list of questions with at least one entry.")
    faults = [
        f"entry {i}: expected text, found {short(question)}"
        for i, question in enumerate(questions)
        if not is_text(question) or not question.strip()
    ]
    if faults:
        raise report(faults, f"keep_questions: {path} is not a list of texts:")
    return questions


def refuse_asked(kept: list[str], asked: list[str]) -> None:
    """Raises LoraryError where a kept question is one that is asked to see what adapters harm: they would be trained on
    it."""
    there = set(map(_plain, asked))
    if both := [question for question in kept if _plain(question) in there]:
        raise report(both, "general_questions asks what keep_questions has adapters trained on; leave out of one:")


def _plain(question: str) -> str:
    """However it is spaced, and whether or not it ends with a question mark, which prompts add."""
    return " ".join(question.lower().rstrip(" ?").split())
