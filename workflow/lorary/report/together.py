"""What the summary page says of ways in which adapters work together: their scores side by side, and how often routing
chose a right passage."""

from pathlib import Path
from typing import Any

import pandas as pd

from ..answer import route
from ..core.files import read_json
from ..plan import layout
from ..plan.methods import METHODS, ROUTED, SUM, TOGETHER, named, variant


def describe(table: pd.DataFrame, labels: list[str], predictions: list[list[dict[str, str]]]) -> dict[str, Any]:
    """Of scores.tsv, whose lines have these `labels`, and the `predictions` of each run (`file`, `type`, `method`):

    `ways`: what each is, by name; `rows`: for each type and method with another way than the sum, its `label`, `method`
    and `lines` of scores by way; `routed`: of each type where passages were chosen by routing, for how many questions a
    right one was (`right`), of those where it is `known` (maybe 0). Raises LoraryError.
    """
    lines = {line["path"]: line for line in table.assign(label=labels).to_dict("records")}
    rows, routed = [], []
    for of_run in predictions:
        by_type: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {}
        for prediction in of_run:
            if line := lines.get(layout.folder_of(prediction["file"])):
                by_type.setdefault(prediction["type"], {})[prediction["method"]] = prediction["file"], line
        for found in by_type.values():
            asked = [name for name in named() if METHODS[name].adapters]
            ways = {name: [way for way in TOGETHER if variant(name, way) in found] for name in asked}
            for name in asked:
                if set(ways[name]) - {SUM}:
                    of_way = {way: found[variant(name, way)][1] for way in ways[name]}
                    rows.append({"label": next(iter(of_way.values()))["label"], "method": name, "lines": of_way})
            if chosen := [found[variant(name, ROUTED)] for name in asked if ROUTED in ways[name]]:
                routed.append(_chosen(*chosen[0]))
    there = {way for row in rows for way in row["lines"]}
    return {"ways": {way: what for way, what in TOGETHER.items() if way in there}, "rows": rows, "routed": routed}


def _chosen(predictions: str, line: dict[str, Any]) -> dict[str, Any]:
    """How often routing chose a right passage, for the questions of a predict.json."""
    beside = Path(layout.config_beside(predictions))
    config = read_json(beside) if beside.is_file() else {}
    right = known = 0
    if "routes" in config and Path(config["routes"]).is_file():
        right, known = route.right(config["routes"], config["routed_top"], line["questions"])
    return {"label": line["label"], "right": right, "known": known}
