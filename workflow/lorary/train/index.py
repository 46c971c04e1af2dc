"""The index: one table over the adapters of a run."""

from typing import Any

import pandas as pd
import pyarrow as pa

from ..core.errors import damaged
from . import records

COLUMNS = ["type", "did", "pid", "question", *records.COLUMNS[2:-1]]  # not each step's loss


def index_adapters(types: list[dict[str, Any]], output: str) -> None:
    """Join the records of training jobs with the questions: for each type its name (`type`), the table of its passages
    (`table`) and its records (`records`).

    A line an adapter, in the order of type, did and pid. Raises LoraryError.
    """
    parts = []
    for kind in types:
        lines = pd.concat(records.read_record(record) for record in kind["records"]).assign(type=kind["type"])
        parts.append(lines.merge(read_questions(kind["table"]), on=["did", "pid"], validate="one_to_one"))
    index = pd.concat(parts)
    index["question"] = index["question"].str.replace("\r", " ")  # which pandas would take for the end of a line
    index.sort_values(["type", "did", "pid"])[COLUMNS].to_csv(output, sep="\t", index=False)


def read_questions(table: str) -> pd.DataFrame:
    """did, pid and question of each passage. Raises LoraryError."""
    try:
        return pd.read_parquet(table, columns=["did", "pid", "question"], page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise damaged(table, error) from None
