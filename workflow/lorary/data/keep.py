"""General questions that the base model answers itself, for adapters to keep its answers."""

from collections.abc import Iterator
from typing import Any

from ..core.errors import report
from ..core.values import is_text
from .heldout import read_list
from .questions import short


def read_questions(path: str) -> list[str]:
    """The questions of a JSON file, a list of texts. Raises LoraryError that names every fault."""
    return read_list("keep_questions", path, _faults_of)


def refuse_asked(kept: list[str], asked: list[str]) -> None:
    """Raises LoraryError where a kept question is one that is asked to see what adapters harm: they would be trained on
    it."""
    there = set(map(_plain, asked))
    if both := [question for question in kept if _plain(question) in there]:
        raise report(both, "general_questions asks what keep_questions has adapters trained on; leave out of one:")


def _plain(question: str) -> str:
    """However it is spaced, and whether or not it ends with a question mark, which prompts add."""
    return " ".join(question.lower().rstrip(" ?").split())


def _faults_of(question: Any) -> Iterator[str]:
    if not is_text(question) or not question.strip():
        yield f"expected text, found {short(question)}"
