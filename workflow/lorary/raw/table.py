"""The table of passages as they were brought, a row a passage, whichever source they are from."""

import json
from collections.abc import Iterator
from typing import Any

from ..core.errors import damaged
from ..core.files import written_whole
from .passages import RawPassage

ROWS_AT_ONCE = 4096


def save(rows: Iterator[dict[str, Any]], path: str) -> None:
    """Write rows of did, pid, question (None where nobody asks), answers, passage (RawPassage) and question_extra."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    schema = pa.schema(
        [
            *(("did", pa.int32()), ("pid", pa.int32()), ("question", text), ("answers", pa.list_(text))),
            *((name, text) for name in ("title", "text", "question_extra", "passage_extra")),
        ]
    )
    with (
        written_whole(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        some: list[dict[str, Any]] = []
        for row in rows:
            passage = row["passage"]
            some.append(
                {
                    **{key: row[key] for key in ("did", "pid", "question", "answers")},
                    "title": passage.title,
                    "text": passage.text,
                    "question_extra": json.dumps(row["question_extra"]),
                    "passage_extra": json.dumps(passage.extra),
                }
            )
            if len(some) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(some, schema=schema))
                some = []
        writer.write_table(pa.Table.from_pylist(some, schema=schema))


def read(path: str, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
    """The rows that `save` was given, from `start` up to `stop`. Raises LoraryError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if number + size > start and (stop is None or number < stop):
                    for i, row in enumerate(file.read_row_group(group).to_pylist(), start=number):
                        if i >= start and (stop is None or i < stop):
                            yield _row(row)
                number += size
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from None


def _row(row: dict[str, Any]) -> dict[str, Any]:
    extra = json.loads(row.pop("passage_extra"))
    passage = RawPassage(row.pop("text"), row.pop("title"), extra)
    return {**row, "passage": passage, "question_extra": json.loads(row["question_extra"])}
