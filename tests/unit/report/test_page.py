"""The summary page of what is there: which adapters are named, and what is left out."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from lorary.answer import heldout, knowledge
from lorary.plan import layout
from lorary.report import page
from lorary.report.labels import KEYS, labels
from lorary.train.records import COLUMNS


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


def test_what_is_not_there_is_left_out(tmp_path, monkeypatch):
    """After a run in which a passage failed, with no index, no predictions and half of the records."""
    monkeypatch.chdir(tmp_path)
    line = {**dict.fromkeys(COLUMNS, 1), "path": "x", "losses": "2.5"}
    pd.DataFrame([line]).to_csv("0.tsv", sep="\t", index=False)
    failed = {"dataset": "toy", "type": "total", "did": 3, "pid": 1, "path": "x", "reason": "<loss> is nan", "log": "l"}
    pd.DataFrame([failed]).to_csv("failed.tsv", sep="\t", index=False)
    run = page.ShownRun(
        title="m, toy, lr=1.0_epoch=1_direct",
        folder="adapters/m",
        about="adapters/m/run.json",
        records=["0.tsv", "1.tsv"],
        knowledge="knowledge.tsv",
        predictions=[{"file": "prag/total/predict.json", "type": "total", "method": "prag"}],
        answers="answers",
    )
    page.build([run], [], "failed.tsv")
    text = Path(layout.REPORT).read_text(encoding="utf-8")
    assert "1 passage failed" in text
    assert "total/data_3/passage_1" in text
    assert "&lt;loss&gt; is nan" in text
    assert 'alt="Training loss by step"' in text
    assert "<h2>Scores" not in text
    assert "Probability of the answers" not in text
    # and with none of it
    page.build([], [], "none.tsv")
    assert "<h1>What the adapters taught</h1>" in Path(layout.REPORT).read_text(encoding="utf-8")


def test_what_was_held_out_comes_first_or_it_is_said_that_nothing_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = {**dict.fromkeys(COLUMNS, 1), "path": "x", "losses": "2.5"}
    pd.DataFrame([line]).to_csv("0.tsv", sep="\t", index=False)
    learnt((0.01, 0.5, 0.01, 0.0, 0.0)).to_csv("knowledge.tsv", sep="\t", index=False)
    run = page.ShownRun("m", "adapters/m", "run.json", ["0.tsv"], "knowledge.tsv", [], "answers")
    trained = "The trained pairs themselves"
    page.build([run], [])
    text = Path(layout.REPORT).read_text(encoding="utf-8")
    assert "beyond the pairs that they were trained on was not measured" in text
    assert trained in text
    about = {"type": "total", "did": 0, "pid": 0, "question": "q", "nll_bare": 5.0, "nll_own": 1.0}
    lines = [{**about, "kind": "general", "hit_bare": 0.8, "hit_own": 0.6}]
    lines += [{**about, "kind": "untrained", "did": i, "f1_bare": 0, "f1_own": i / 2} for i in range(3)]
    pd.DataFrame(lines).reindex(columns=heldout.COLUMNS).to_csv("heldout.tsv", sep="\t", index=False)
    page.build([page.replace(run, heldout="heldout.tsv")], [])
    text = Path(layout.REPORT).read_text(encoding="utf-8")
    assert "was not measured" not in text
    untrained, general, after = map(text.index, ("Facts of the passage that no", "General questions, which", trained))
    assert untrained < general < after
    assert "with the passage&#39;s own adapter (0 % to 100 %)" in text
    assert "with an adapter (60 % to 60 %)" in text
    assert "(3 questions, 3 passages)" in text
    assert '<td>general</td><td>right answers, in whatever words</td><td class="n"><b>-20.0</b>' in text


def test_passages_with_too_few_pairs_to_keep_out_are_counted(tmp_path, monkeypatch):
    """heldout_pairs is set, and nothing or not all that it asks for could be kept out."""
    monkeypatch.chdir(tmp_path)
    line = {**dict.fromkeys(COLUMNS, 1), "path": "x", "losses": "2.5"}
    pd.DataFrame([line]).to_csv("0.tsv", sep="\t", index=False)
    learnt(*[(0.01, 0.5, 0.01, 0.0, 0.0)] * 3).to_csv("knowledge.tsv", sep="\t", index=False)
    about = {
        "config": [{"heldout_pairs": 2, "num_train_epochs": 1}],
        "versions": {},
        "git": None,
        "tables": {"total": "none"},
    }
    Path("run.json").write_text(json.dumps(about), encoding="utf-8")
    run = page.ShownRun("m", "adapters/m", "run.json", ["0.tsv"], "knowledge.tsv", [], "answers", "heldout.tsv")

    def shown(*kept):
        about = {"type": "total", "pid": 0, "kind": "kept", "question": "q", "f1_bare": 0.0, "f1_own": 1.0}
        lines = pd.DataFrame([{**about, "did": did} for did in kept])
        lines.reindex(columns=heldout.COLUMNS).to_csv("heldout.tsv", sep="\t", index=False)
        page.build([run], [])
        return Path(layout.REPORT).read_text(encoding="utf-8")

    lacking = "passages kept fewer pairs out of training than heldout_pairs asks for"
    text = shown()
    assert f"3 of 3 {lacking}" in text
    assert "was not measured" in text
    assert "heldout_pairs keeps some pairs" not in text  # which is set
    text = shown(0, 0, 1)
    assert f"2 of 3 {lacking}" in text
    assert "was not measured" not in text
    assert lacking not in shown(0, 0, 1, 1, 2, 2)


def test_passages_that_have_learnt_next_to_nothing_are_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [{**dict.fromkeys(COLUMNS, 1), "path": "x", "losses": losses} for losses in ("2 3 2 3", "2 3 0.5 0.2")]
    pd.DataFrame(lines).to_csv("0.tsv", sep="\t", index=False)
    run = page.ShownRun("m", "adapters/m", "run.json", ["0.tsv"], None, [], "answers")
    for epochs, told in ((2, True), (1, False)):
        about = {"config": [{"num_train_epochs": epochs}], "versions": {}, "git": None, "tables": {"total": "none"}}
        Path("run.json").write_text(json.dumps(about), encoding="utf-8")
        page.build([run], [])
        text = Path(layout.REPORT).read_text(encoding="utf-8")
        assert ("1 of 2 passages have learnt next to nothing" in text) is told


@pytest.mark.filterwarnings("error")
def test_adapters_that_were_translated_have_no_losses_and_their_pairs_were_not_trained_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = []
    for name in ("a", "b"):
        lines = [{**dict.fromkeys(COLUMNS, 1), "path": "x", "first_loss": None, "last_loss": None, "losses": ""}]
        pd.DataFrame(lines).to_csv(f"{name}.tsv", sep="\t", index=False)
        about = {"config": [{"num_train_epochs": 3}], "versions": {}, "git": None, "tables": {"total": "none"}}
        Path(f"{name}.json").write_text(json.dumps(about | {"translator": {"path": "t"}}), encoding="utf-8")
        learnt((0.01, 0.5, 0.01, 0.0, 0.0)).to_csv(f"{name}-knowledge.tsv", sep="\t", index=False)
        of_run = f"{name}.json", [f"{name}.tsv"], f"{name}-knowledge.tsv"
        runs.append(page.ShownRun(name, f"adapters/{name}", *of_run, [], "answers"))
    page.build(runs, [])
    text = Path(layout.REPORT).read_text(encoding="utf-8")
    assert Path(layout.PLOTS["losses"]).is_file()  # which its rule promises
    assert "Training loss by step" not in text
    assert "learnt next to nothing" not in text
    assert "Seconds against tokens" in text
    assert text.count("The pairs of the passages, which their adapters were not trained on") == 2
    assert "The translator has learnt from" not in text  # as far as is known
    assert "trained pairs" not in text.partition("<small>Facts asked for")[0]


def test_passages_that_a_translator_has_learnt_from_are_counted_over_all_types(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [{**dict.fromkeys(COLUMNS, 1), "path": "x", "first_loss": None, "last_loss": None, "losses": ""}]
    pd.DataFrame(20 * lines).to_csv("r.tsv", sep="\t", index=False)

    def about(**known):
        learnt_from = {kind: {"passages": number, "of": 9, "first": []} for kind, number in known.items()}
        translator = {"path": "t", **({"learnt_from": learnt_from} if known else {})}
        return {"config": [], "versions": {}, "git": None, "records": [], "tables": known, "translator": translator}

    others = {"b": about(b=1, c=5), "c": about(b=1, c=5), "d": about()}
    Path("run.json").write_text(json.dumps(about(a=2) | {"other_types": others}), encoding="utf-8")
    page.build([page.ShownRun("m", "adapters/m", "run.json", ["r.tsv"], None, [], "answers")], [])
    assert "The translator has learnt from 8 of these 20 passages" in Path(layout.REPORT).read_text(encoding="utf-8")


@pytest.mark.filterwarnings("error")  # matplotlib's, where a plot has no room left
def test_runs_with_long_names_leave_their_plots_room(tmp_path):
    name = "invented total, " + ", ".join(f"{key}=results/of/{key}" for key in page.plots.METHODS)
    scores = pd.DataFrame([{"method": "prag", "f1": 0.5, "f1_low": 0.4, "f1_high": 0.6}])
    page.plots.scores(scores, [name], str(tmp_path / "scores.svg"))
    table = pd.DataFrame({f"nll_{adapter}": [1.0, 2.0] for adapter in ("bare", "own", "other")})
    page.plots.knowledge({name: table, "b": table}, str(tmp_path / "knowledge.svg"))


def test_the_same_plots_have_the_same_bytes(tmp_path):
    table = learnt((0.01, 0.5, 0.01, 0.0, 0.0))
    plots = [page.plots.knowledge({"a": table}, str(tmp_path / f"{i}.svg")) for i in range(2)]
    first, second = (Path(plot).read_bytes() for plot in plots)
    assert first == second


def test_lines_are_labelled_by_what_differs():
    line = dict.fromkeys(KEYS, "m") | {"dataset": "toy", "type": "total"}
    apart = {
        "learning_rate": (0.1, 0.2),
        "adapter_dir": ("results/adapters", "results/warmed_up"),
        "objective": ("reference", "answers"),
        "distill_top_k": (8, 64),
        "distill_temperature": (1.0, 2.0),
        "distill_answers": ("given", "own"),
    }
    for key, others in apart.items():
        lines = [{**line, key: other} for other in others]
        assert labels(lines) == [f"toy total, {key}={other}" for other in others]
        assert labels(lines[:1]) == ["toy total"]
