"""What a passage is trained on: which sequences an objective makes of it, and what of them is predicted.

What is computed from them, the loss, is a row of `train.objective.OBJECTIVES`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Sequences:
    """What of a passage becomes training sequences."""

    contexts: str  # before its questions, where the config says nothing else: a name of CONTEXTS
    answers_only: bool  # what is predicted of a question and its answer: the answer, and not the prompt
    texts: bool  # passage and rewrite are texts to be known, too
    teacher: bool = False  # the bare model, with the passage in its prompt, says what is to be learnt


SEQUENCES = {
    "reference": Sequences(contexts="both", answers_only=False, texts=False),
    "answers": Sequences(contexts="none", answers_only=True, texts=False),
    "mixed": Sequences(contexts="none", answers_only=True, texts=True),
    "distill": Sequences(contexts="none", answers_only=True, texts=False, teacher=True),
}
# What stands in the prompts of the first half of a passage's pairs, rounded up, each once; the others come without.
CONTEXTS: dict[str, tuple[str, ...]] = {"none": (), "passage": ("passage",), "both": ("passage", "rewrite")}

WORDS = 6  # of a passage without a title, which stand for it


def passage_sequences(
    row: dict[str, Any], with_cot: bool, contexts: str = "both"
) -> Iterator[tuple[str, str | None, str]]:
    """(question, context, answer) of each question-answer sequence of a passage, in order.

    The first half of the pairs, rounded up, give one for each of these contexts (of CONTEXTS): the passage, its
    rewrite. The others give one, without; so do all where there is no context, or no passage (None).
    """
    pairs = row["pairs"]
    shown = [] if row["passage"] is None else [row[name] for name in CONTEXTS[contexts]]
    with_context = (len(pairs) + 1) // 2 if shown else 0
    for i, pair in enumerate(pairs):
        answer = pair["full_answer"] if with_cot else pair["answer"]
        for context in shown if i < with_context else (None,):
            yield pair["question"], context, answer


def texts(row: dict[str, Any], title: str) -> list[tuple[str, str]]:
    """(title, text) of what is to be known of a passage: its text, and its rewrite. Where there is no title, the first
    words stand for it; where there is no passage (None), or not a word in it, there is nothing."""
    there = [text.strip() for text in (row["passage"], row["rewrite"]) if text and text.strip()]
    beginning = " ".join(there[0].split()[:WORDS])[:80] if there else ""
    return [(title.strip() or f'"{beginning} ..."', text) for text in there]


def taking_turns(some: list[T], others: list[T]) -> list[T]:
    """Both in their order, each spread evenly over the whole: three and two are 1 a 2 b 3."""
    placed = [((i + 0.5) / len(items), item) for items in (some, others) for i, item in enumerate(items)]
    return [item for _, item in sorted(placed, key=lambda pair: pair[0])]
