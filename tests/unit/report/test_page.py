"""The summary page of what is there: which adapters are named, and what is left out."""

import math
from pathlib import Path

import pandas as pd
import pytest

from lorary.answer import knowledge
from lorary.report import page
from lorary.train.encode import RECORD


def learnt(*lines):
    """A knowledge table of lines (bare, own, other: probabilities; recall bare and other)."""
    rows = []
    for did, (bare, own, other, before, after) in enumerate(lines):
        nll = {f"nll_{name}": -math.log(p) for name, p in (("bare", bare), ("own", own), ("other", other))}
        recall = {"recall_bare": before, "recall_own": 1.0, "recall_other": after}
        about = {"type": "total", "did": did, "pid": 0, "question": "q", "passage": "p", "pairs": 1}
        rows.append({**about, **nll, **recall, "other": f"total/data_{did + 1}/passage_0"})
    return pd.DataFrame(rows)[knowledge.COLUMNS]


def test_adapters_that_teach_nothing_or_harm_are_named():
    found = page._summarize(
        learnt(
            (0.01, 0.5, 0.005, 0.0, 0.0),  # what was not known cannot be lost
            (0.01, 0.0105, 0.01, 0.0, 0.0),  # taught nothing
            (0.4, 0.5, 0.3, 0.0, 0.0),  # a tenth is lost
            (0.4, 0.5, 0.39, 1.0, 0.0),  # an answer is lost
        )
    )
    assert [row["place"] for row in found["idle"]] == ["total/data_1/passage_0"]
    assert [(row["place"], row["of"]) for row in found["harmful"]] == [
        ("total/data_4/passage_0", "total/data_3/passage_0"),
        ("total/data_3/passage_0", "total/data_2/passage_0"),
    ]
    assert found["own"]["probability"] == pytest.approx((0.5**3 * 0.0105) ** 0.25)
    assert found["bare"]["recall"] == 0.25


def test_with_one_passage_there_is_no_other():
    one = learnt((0.01, 0.5, 0.01, 0.0, 0.0))
    found = page._summarize(one.assign(nll_other=math.nan, recall_other=math.nan, other=math.nan))
    assert found["other"] is None
    assert found["own"]["recall"] == 1.0


def test_what_is_not_there_is_left_out(tmp_path):
    """After a run in which a passage failed, with no index, no predictions and half of the records."""
    run = tmp_path / "adapters/m/rank=2_alpha=32/toy/lr=1.0_epoch=1_direct/aug_model=m"
    run.mkdir(parents=True)
    line = {**dict.fromkeys(RECORD, 1), "path": "x", "losses": "2.5"}
    pd.DataFrame([line]).to_csv(tmp_path / "0.tsv", sep="\t", index=False)
    failed = {"dataset": "toy", "type": "total", "did": 3, "pid": 1, "path": "x", "reason": "<loss> is nan", "log": "l"}
    pd.DataFrame([failed]).to_csv(tmp_path / "failed.tsv", sep="\t", index=False)
    files = page.RunFiles(
        index=str(run / "adapters.tsv"),
        records=[str(tmp_path / "0.tsv"), str(tmp_path / "1.tsv")],
        settings=str(run / "run.json"),
        knowledge=str(tmp_path / "knowledge.tsv"),
        predictions=[str(tmp_path / "prag/total")],
    )
    output = tmp_path / "report.html"
    page.build(
        [files], str(tmp_path / "scores.tsv"), str(tmp_path / "failed.tsv"), str(tmp_path / "plots"), str(output)
    )
    text = output.read_text()
    assert "1 passage failed" in text
    assert "total/data_3/passage_1" in text
    assert "&lt;loss&gt; is nan" in text
    assert 'alt="Training loss by step"' in text
    assert "<h2>Scores" not in text
    assert "Probability of the answers" not in text
    # and with none of it
    page.build([], None, str(tmp_path / "none.tsv"), str(tmp_path / "plots"), str(output))
    assert "<h1>What the adapters taught</h1>" in output.read_text()


def test_the_same_plots_have_the_same_bytes(tmp_path):
    table = learnt((0.01, 0.5, 0.01, 0.0, 0.0))
    plots = [page.plots.knowledge({"a": table}, str(tmp_path / f"{i}.svg")) for i in range(2)]
    first, second = (Path(plot).read_bytes() for plot in plots)
    assert first == second


def test_lines_are_labelled_by_what_differs():
    columns = [
        "model_name",
        "lora_rank",
        "lora_alpha",
        "learning_rate",
        "num_train_epochs",
        "with_cot",
        "augment_model",
    ]
    lines = [["m", 2, 32, 0.1, 1, False, "m"], ["m", 2, 32, 0.2, 1, False, "m"]]
    table = pd.DataFrame(lines, columns=columns).assign(dataset="toy", type="total")
    assert page._labels(table) == ["toy total, learning_rate=0.1", "toy total, learning_rate=0.2"]
    assert page._labels(table[:1]) == ["toy total"]
