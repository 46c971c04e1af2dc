"""The index: one table over the adapters of a run."""

from pathlib import Path

import pandas as pd

COLUMNS = [
    "type",
    "did",
    "pid",
    "question",
    "path",
    "digest",
    "sequences",
    "tokens",
    "first_loss",
    "last_loss",
    "seconds",
    "device",
    "adapters_per_step",
]


def index_adapters(records: list[str], tables: list[str], output: str) -> None:
    """Join the records of training jobs with the questions (`tables`: for each record, the table of its passages).

    A line an adapter, in the order of type, did and pid.
    """
    parts = []
    for table in dict.fromkeys(tables):
        questions = pd.read_parquet(table, columns=["did", "pid", "question"])
        lines = pd.concat(pd.read_csv(r, sep="\t") for r, t in zip(records, tables, strict=True) if t == table)
        parts.append(lines.merge(questions, on=["did", "pid"], validate="one_to_one"))
    index = pd.concat(parts)
    index["type"] = [Path(path).parts[-3] for path in index["path"]]
    index.sort_values(["type", "did", "pid"])[COLUMNS].to_csv(output, sep="\t", index=False)
