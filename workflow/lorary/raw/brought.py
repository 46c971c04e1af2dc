"""The rows of what was brought: of documents, of a table of passages, or of questions with what is found for them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from . import documents, question_sets, retrieve, table, tables
from .index import Index
from .passages import RawPassage

Rows = Iterator[dict[str, Any]]  # as table.save takes them

NOBODY_ASKS: dict[str, Any] = {"question": None, "answers": [], "question_extra": {}}


def of_documents(folder: str, passage_words: int, cache: str, sample: int) -> Rows:
    """The pieces of the first `sample` documents: did is the document, pid the piece. Raises LoraryError."""
    for did, pieces in enumerate(documents.read(folder, passage_words, cache)[:sample]):
        for pid, passage in enumerate(pieces):
            yield {"did": did, "pid": pid, "passage": passage, **NOBODY_ASKS}


def of_table(corpus: str, sample: int) -> Rows:
    """The first `sample` rows of a table, each a passage: did is the row, pid 0. Raises LoraryError."""
    for did, passage in enumerate(islice(tables.read(corpus), sample)):
        yield {"did": did, "pid": 0, "passage": passage, **NOBODY_ASKS}


def of_questions(path: str, kind: str, sample: int, index: str, top_k: int) -> Rows:
    """The first `sample` questions of a type, each with the passages that go best with it: did is the question, pid the
    rank. Raises LoraryError."""
    questions = question_sets.load(path, sample)[kind]
    found = retrieve.retrieve([question.question for question in questions], Index(index), top_k)
    for did, (question, passages) in enumerate(zip(questions, found, strict=True)):
        asked = {"question": question.question, "answers": question.answers, "question_extra": question.extra}
        for pid, passage in enumerate(passages):
            yield {"did": did, "pid": pid, "passage": passage, **asked}


def corpus(path: str, read: bool) -> Iterator[RawPassage]:
    """The passages to be searched: of a user's table, or of one that was `read` before. Raises LoraryError."""
    return (row["passage"] for row in table.read(path)) if read else tables.read(path)
