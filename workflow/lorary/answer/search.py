"""Which passages of a run go with a question: the same index as that of a corpus, made at the first question."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..core.errors import LoraryError
from ..core.files import read_json
from ..plan import layout
from ..raw.index import Index, digest, make
from ..raw.passages import RawPassage

Ranked = tuple[int, float | None]
Asked = tuple[str, Sequence[int | None]]  # a question, and the `numbers` of its own passages; None: one without text


def numbers(passages: Iterable[RawPassage]) -> list[int]:
    """Under which number their index knows each of some passages: of the same title and text, it finds the first."""
    first: dict[tuple[str, str], int] = {}
    return [first.setdefault((passage.title, passage.text), number) for number, passage in enumerate(passages)]


def in_order(index: Index, asked: Iterable[Asked]) -> Iterator[list[Ranked]]:
    """Of each question its own passages, best first: their positions among these, and their scores among all that the
    index is of, or None. Those with the same score, and those that share no word with the question or have no text,
    keep their order."""
    for question, own in asked:
        scores = index.scores(question, [number for number in own if number is not None])
        ranked = [(i, None if number is None else scores.get(number)) for i, number in enumerate(own)]
        yield sorted(ranked, key=lambda one: -(one[1] or 0.0))  # stable


@contextlib.contextmanager
def kept(passages: list[RawPassage]) -> Iterator[Index]:
    """The one that retrieval has made of the same passages; or one that is kept for the next question, where something
    can be kept."""
    content = digest(passages)
    folder = _found(content) or layout.CORPUS_INDEX.format(index=content[:16])
    with tempfile.TemporaryDirectory() as temporary:
        try:
            index = Index(folder)
        except LoraryError:  # there is none, or it is damaged, or another version's
            try:
                make(passages, folder)
            except OSError:  # it is not ours to write in
                folder = str(Path(temporary, "index"))
                make(passages, folder)
            index = Index(folder)
        yield index


def _found(content: str) -> str | None:
    """A folder whose index says that it is of this content."""
    for about in sorted(Path().glob(layout.CORPUS_INDEX.format(index="*/about.json"))):
        with contextlib.suppress(LoraryError, LookupError, TypeError):
            if read_json(about)["sha256"] == content:
                return str(about.parent)
    return None
