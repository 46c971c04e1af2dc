"""Which passages of a run go with a question: the same index as that of a corpus, made at the first question."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import LoraryError
from ..core.files import read_json
from ..plan import layout
from ..raw.index import Index, digest, make
from ..raw.passages import RawPassage


def best(passages: list[RawPassage], question: str, top: int) -> list[tuple[int, float]]:
    """The positions of the `top` passages that go best with the question, and their scores; none where they share no
    word. Stop words count only where the question has nothing else."""
    with _index(passages) as index:
        return index.search(question, top)


def scores(passages: list[RawPassage], question: str, positions: list[int]) -> dict[int, float]:
    """Of the passages at these positions those that share a word with the question, with their scores among all."""
    with _index(passages) as index:
        return index.scores(question, positions)


@contextlib.contextmanager
def _index(passages: list[RawPassage]) -> Iterator[Index]:
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
