"""The passages of each question."""

import dataclasses
import logging

from ..core.errors import LoraryError
from .index import GROUP, Index
from .passages import RawPassage

log = logging.getLogger(__name__)

NAMED = 3  # of the questions that a warning is about


def retrieve(questions: list[str], index: Index, top_k: int) -> list[list[RawPassage]]:
    """For each question its `top_k` best passages, best first, each with its BM25 `score` in extra.

    Where fewer share a word with a question, the first others of the corpus fill up (score 0), and the log says so.
    Raises LoraryError where the corpus has fewer than `top_k` different passages.
    """
    if index.distinct < top_k:
        raise LoraryError(
            f"The corpus has {index.distinct} different passages, and each question is to get {top_k}: add passages to"
            f" the corpus, or set retrieve_top_k to {index.distinct} or less."
        )
    found = [index.search(question, top_k) for question in questions]
    short = [number for number, hits in enumerate(found) if len(hits) < top_k]
    if short:
        _warn([questions[number] for number in short], len(questions), top_k)
        first = _first(index, top_k)
        for number in short:
            there = {passage for passage, _ in found[number]}
            others = [(passage, 0.0) for passage in first if passage not in there]
            found[number] += others[: top_k - len(found[number])]
    numbers = sorted({number for hits in found for number, _ in hits})
    passages = dict(zip(numbers, index.passages(numbers), strict=True))
    return [[_scored(passages[number], score) for number, score in hits] for hits in found]


def _first(index: Index, count: int) -> list[int]:
    """The numbers of the first different passages of the corpus."""
    numbers: dict[tuple[str, str], int] = {}
    for start in range(0, index.count, GROUP):
        here = range(start, min(start + GROUP, index.count))
        for number, passage in zip(here, index.passages(here), strict=True):
            numbers.setdefault((passage.title, passage.text), number)
        if len(numbers) >= count:
            break
    return list(numbers.values())[:count]


def _scored(passage: RawPassage, score: float) -> RawPassage:
    return dataclasses.replace(passage, extra={**passage.extra, "score": score})


def _warn(short: list[str], of: int, top_k: int) -> None:
    named = "; ".join(short[:NAMED]) + ("; ..." if len(short) > NAMED else "")
    log.warning(
        "%d of %d questions share a word with fewer than %d passages, and get the first others of the corpus: %s",
        len(short),
        of,
        top_k,
        named,
    )
