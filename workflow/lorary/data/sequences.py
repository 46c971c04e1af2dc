"""The training examples of passages, read from files of prompt ids: without pandas, and a few in memory at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import damaged
from ..core.values import Position


@dataclass(frozen=True)
class Example:
    """One training sequence: its ids (int32), and which of them are predicted: those from `begin` up to `end`, which is
    left out. The first one of a sequence never is, having nothing before it."""

    ids: np.ndarray
    begin: int = 0
    end: int | None = None  # None: the last one too
    teacher: np.ndarray | None = None  # the teacher's ids (int32), which end with what is predicted
    # What the teacher says of each id that is predicted: its k likeliest (int32), and their log-probabilities (float32)
    likeliest: tuple[np.ndarray, np.ndarray] | None = None  # (predicted, k), both

    def __len__(self) -> int:
        return len(self.ids)

    def predicted(self) -> int:
        """How many of its ids are."""
        return max(0, (len(self) if self.end is None else min(self.end, len(self))) - max(1, self.begin))

    @property
    def span(self) -> tuple[int, int] | None:
        """What is predicted; None where it is everything."""
        end = len(self) if self.end is None else min(self.end, len(self))
        return None if self.begin <= 1 and end == len(self) else (self.begin, end)


@dataclass
class Passage:
    position: Position
    examples: list[Example]
    error: str | None = None  # why it has none


def read_passages(prompts: str, positions: set[Position]) -> Iterator[Passage]:
    """The passages at these positions (did, pid) with their training examples, in order. Raises LoraryError."""
    passage: Passage | None = None
    for columns in _columns(prompts):
        for did, pid, ids, error, begin, end, teacher in zip(*columns, strict=True):
            position = (did.as_py(), pid.as_py())
            if passage and passage.position != position:
                yield passage
                passage = None
            if position in positions:
                passage = passage or Passage(position, [], error.as_py())
                taught = _array(teacher) if teacher.is_valid else None
                passage.examples.append(Example(_array(ids), begin.as_py() or 0, end.as_py(), taught))
    if passage:
        yield passage


def _array(ids: pa.ListScalar) -> np.ndarray:
    return np.from_dlpack(ids.values)  # to_numpy would import pandas


def _columns(prompts: str) -> Iterator[list[pa.Array]]:
    try:
        for batch in pq.ParquetFile(prompts, page_checksum_verification=True).iter_batches(batch_size=256):
            columns = [batch.column(name) for name in ("did", "pid", "input_ids", "error")]
            # in files of before there were spans, and of objectives without a teacher
            absent = {"begin": pa.int32(), "end": pa.int32(), "teacher": pa.list_(pa.int32())}
            others = [
                batch.column(name) if name in batch.schema.names else pa.nulls(len(batch), kind)
                for name, kind in absent.items()
            ]
            yield columns + others
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, LookupError) as error:
        raise damaged(prompts, error) from None
