"""Which passages of a run go with a question: the same index as that of a corpus, made at the first question."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import LoraryError
from ..plan import layout
from ..raw.index import Index, digest, make
from ..raw.passages import RawPassage


def best(passages: list[RawPassage], question: str, top: int) -> list[tuple[int, float]]:
    """The positions of the `top` passages that go best with the question, and their scores; none where they share no
    word. Stop words count only where the question has nothing else."""
    with _index(passages) as index:
        return index.search(question, top)


@contextlib.contextmanager
def _index(passages: list[RawPassage]) -> Iterator[Index]:
    """Kept for the next question where something can be kept."""
    folder = layout.index_folder(digest(passages)[:16])
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
