"""The passages of a training job, read from files of prompt ids: without pandas, and a few in memory at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import damaged

Position = tuple[int, int]  # did, pid


@dataclass
class Passage:
    position: Position
    sequences: list[np.ndarray]  # prompt ids, int32
    error: str | None = None  # why it has none


def read_passages(prompts: str, positions: set[Position]) -> Iterator[Passage]:
    """The passages at these positions (did, pid) with their prompt ids, in order. Raises LoraryError."""
    passage: Passage | None = None
    for columns in _columns(prompts):
        for did, pid, ids, error in zip(*columns, strict=True):
            position = (did.as_py(), pid.as_py())
            if passage and passage.position != position:
                yield passage
                passage = None
            if position in positions:
                passage = passage or Passage(position, [], error.as_py())
                passage.sequences.append(np.from_dlpack(ids.values))  # to_numpy would import pandas
    if passage:
        yield passage


def _columns(prompts: str) -> Iterator[list[pa.Array]]:
    try:
        for batch in pq.ParquetFile(prompts, page_checksum_verification=True).iter_batches(batch_size=256):
            yield [batch.column(name) for name in ("did", "pid", "input_ids", "error")]
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, LookupError) as error:
        raise damaged(prompts, error) from None
