"""Ways of working together, side by side on the page."""

import json

import pandas as pd
import pytest

from lorary.report import together

ROUTES = """did\tpid\trank\tscore\tright
0\t1\t1\t2.0\t1
0\t0\t2\t\t0
1\t0\t1\t1.0\t0
1\t1\t2\t\t1
"""


@pytest.fixture
def described(tmp_path, monkeypatch):
    """`described(*methods, **config)`: of one type, each with an F1 of its own; `config`: of prag_routed."""
    monkeypatch.chdir(tmp_path)

    def described(*methods, **config):
        lines, predictions = [], []
        for i, method in enumerate(methods):
            folder = tmp_path / method / "total"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text(json.dumps(config if method == "prag_routed" else {}))
            lines.append({"path": str(folder), "type": "total", "method": method, "f1": i / 10, "questions": 2})
            predictions.append({"file": f"{folder}/predict.json", "type": "total", "method": method})
        return together.describe(pd.DataFrame(lines), ["toy total"] * len(lines), [predictions])

    return described


def test_the_sum_alone_is_not_compared(described):
    found = described("vanilla", "icl", "prag", "combine")
    assert found == {"ways": {}, "rows": [], "routed": []}


def test_each_way_has_its_place_beside_the_others(described, tmp_path):
    (tmp_path / "routes.tsv").write_text(ROUTES)
    found = described("vanilla", "prag", "prag_routed", "combine", "combine_mean", routes="routes.tsv", routed_top=1)
    assert list(found["ways"]) == ["sum", "mean", "routed"]
    told = [
        (row["label"], row["method"], {way: line["f1"] for way, line in row["lines"].items()}) for row in found["rows"]
    ]
    assert told == [
        ("toy total", "prag", {"sum": 0.1, "routed": 0.2}),
        ("toy total", "combine", {"sum": 0.3, "mean": 0.4}),
    ]
    assert found["routed"] == [{"label": "toy total", "right": 1, "known": 2}]


@pytest.mark.parametrize("config", [{}, {"routes": "gone.tsv", "routed_top": 1}])
def test_without_routes_it_is_not_known_what_was_right(described, config):
    assert described("prag_routed", **config)["routed"] == [{"label": "toy total", "right": 0, "known": 0}]
