"""The index: one table over the adapters of a run."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from ..core.errors import damaged
from .encode import RECORD

COLUMNS = ["type", "did", "pid", "question", *RECORD[2:-1]]  # not each step's loss


def index_adapters(records: list[str], tables: list[str], output: str) -> None:
    """Join the records of training jobs with the questions (`tables`: for each record, the table of its passages).

    A line an adapter, in the order of type, did and pid. Raises LoraryError.
    """
    parts = []
    for table in dict.fromkeys(tables):
        questions = read_questions(table)
        lines = pd.concat(read_record(r) for r, t in zip(records, tables, strict=True) if t == table)
        parts.append(lines.merge(questions, on=["did", "pid"], validate="one_to_one"))
    index = pd.concat(parts)
    index["question"] = index["question"].str.replace("\r", " ")  # which pandas would take for the end of a line
    index["type"] = [Path(path).parts[-3] for path in index["path"]]
    index.sort_values(["type", "did", "pid"])[COLUMNS].to_csv(output, sep="\t", index=False)


def read_questions(table: str) -> pd.DataFrame:
    """did, pid and question of each passage. Raises LoraryError."""
    try:
        return pd.read_parquet(table, columns=["did", "pid", "question"], page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise damaged(table, error) from None


def read_record(path: str) -> pd.DataFrame:
    """What a training job wrote of its adapters, a line each. Raises LoraryError."""
    try:
        return pd.read_csv(path, sep="\t", dtype={"losses": str})[RECORD]
    except (OSError, ValueError, LookupError) as error:
        raise damaged(path, error) from None
