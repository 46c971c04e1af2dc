"""What the summary page says of augmentation: how much was asked, what stood the checks, and some of it to look at."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.errors import damaged
from ..core.files import read_json
from ..plan import layout

SHOWN, MOST_FAULTS = 6, 8


def describe(types: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Of each type whose data were made here (`title`, the table `about`, and `part`, what its first job has made), the
    figures and examples that the page shows. What is not there yet is left out. Raises LoraryError."""
    return [_describe(one) for one in types if Path(one["about"]).is_file()]


def published() -> dict[str, Any]:
    """What the same checks say of data that others have published (`augment.quality.measure`), and `what` they are."""
    return read_json(layout.PUBLISHED)


def _describe(one: dict[str, str]) -> dict[str, Any]:
    try:
        table = pd.read_csv(one["about"], sep="\t", keep_default_na=False, dtype=str)
        numbers = table[
            ["pairs", "wanted", "clean", "known", "asked", "requests", "prompt_tokens", "tokens", "seconds"]
        ]
        sums = numbers.apply(pd.to_numeric, errors="coerce").sum()
        missing = table["error"] != ""
    except (OSError, ValueError, LookupError) as error:
        raise damaged(one["about"], error) from None
    return {
        "title": one["title"],
        "table": one["about"],
        "passages": len(table),
        "pairs": int(sums["pairs"]),
        "wanted": int(sums["wanted"]),
        "clean": sums["clean"] / sums["pairs"] if sums["pairs"] else 0.0,
        "known": int(sums["known"]),
        "asked": int(sums["asked"]),
        "by_rule": int((table["pairs_by"] == "rule").sum()),
        "unrewritten": int((table["rewrite_by"] == "passage").sum()),
        "failed": int(missing.sum()),
        "tokens": int(sums["prompt_tokens"] + sums["tokens"]),
        "seconds": sums["seconds"] / max(len(table), 1),
        "models": sorted({model for model in table["model"] if model}),
        "dates": sorted({date for date in table["date"] if date}),
        "faults": _faults(table["faults"]).most_common(MOST_FAULTS),
        "examples": _examples(one["part"]),
    }


def _faults(column: pd.Series) -> Counter[str]:
    counts: Counter[str] = Counter()
    for cell in column:
        for entry in filter(None, cell.split("; ")):
            fault, _, number = entry.rpartition(": ")
            counts[fault] += int(number)
    return counts


def _examples(part: str) -> list[dict[str, Any]]:
    """Of the first passages: pairs that stood, and questions that did not."""
    path = Path(part)
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8") as file:
            lines = [json.loads(line) for _, line in zip(range(SHOWN), file, strict=False)]
    except (OSError, ValueError) as error:
        raise damaged(part, error) from None
    return [
        {
            "place": layout.place(line["did"], line["pid"]),
            "rewrite": line["rewrite"] if line["made_by"]["rewrite"] == "model" else None,
            "pairs": line["pairs"],
            "by_rule": line["made_by"]["pairs"] == "rule",
            "rejected": line["notes"]["rejected"],
        }
        for line in lines
        if "error" not in line
    ]
