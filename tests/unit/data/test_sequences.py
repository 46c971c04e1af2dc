"""Training examples: which of their ids are predicted, and how they are read from the table of prompt ids."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorary.data.prompts import PROMPT_SCHEMA, TAUGHT_SCHEMA, save
from lorary.data.sequences import Example, read_passages

ROW = {"pid": 0, "sequence": 0, "length": 4, "input_ids": [5, 6, 7, 8], "error": None}


@pytest.mark.parametrize(
    ("begin", "end", "span"),
    [(0, None, None), (1, None, None), (0, 4, None), (1, 9, None), (2, None, (2, 4)), (0, 3, (0, 3)), (2, 3, (2, 3))],
)
def test_a_span_is_said_only_where_it_is_not_everything(begin, end, span):
    """The first id is never predicted, so that leaving it out is everything too."""
    assert Example(np.array([5, 6, 7, 8]), begin, end).span == span


def test_spans_are_read_from_the_table(tmp_path):
    rows = [{"did": 0, **ROW}, {"did": 1, **ROW, "begin": 2, "end": 3}]
    save(pa.Table.from_pylist(rows, schema=PROMPT_SCHEMA), str(tmp_path / "prompts.parquet"))
    whole, part = read_passages(str(tmp_path / "prompts.parquet"), {(0, 0), (1, 0)})
    assert [passage.examples[0].span for passage in (whole, part)] == [None, (2, 3)]
    assert part.examples[0].ids.tolist() == [5, 6, 7, 8]


def test_a_teachers_ids_are_read_where_there_are_some(tmp_path):
    rows = [{"did": 0, **ROW, "begin": 2, "teacher": [1, 2, 7, 8]}, {"did": 1, **ROW}]
    save(pa.Table.from_pylist(rows, schema=TAUGHT_SCHEMA), str(tmp_path / "prompts.parquet"))
    taught, alone = read_passages(str(tmp_path / "prompts.parquet"), {(0, 0), (1, 0)})
    assert taught.examples[0].teacher.tolist() == [1, 2, 7, 8]
    assert alone.examples[0].teacher is None
    assert [passage.examples[0].predicted() for passage in (taught, alone)] == [2, 3]


def test_a_table_of_before_there_were_spans_is_read(tmp_path):
    schema = pa.schema([field for field in PROMPT_SCHEMA if field.name not in ("begin", "end")])
    pq.write_table(
        pa.Table.from_pylist([{"did": 0, **ROW}], schema=schema), tmp_path / "old.parquet", write_page_checksum=True
    )
    (passage,) = read_passages(str(tmp_path / "old.parquet"), {(0, 0)})
    assert passage.examples[0].span is None
