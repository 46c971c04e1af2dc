"""Predictions in the reference's files, and the table of scores."""

import json

import numpy as np
import pandas as pd
import pytest

from lorary.answer.tables import bootstrap, scores_table, write_predictions
from lorary.core.errors import LoraryError
from lorary.plan.config import resolve
from lorary.report.labels import labels


def write(folder, answers, **settings):
    """A predictions folder <method>/<type> of answers (aliases, text), in two parts."""
    folder.mkdir(parents=True)
    rows = [
        {"did": i, "test_id": i + 7, "question": f"q{i}", "answer": aliases, "text": text}
        for i, (aliases, text) in enumerate(answers)
    ]
    parts = []
    for i, some in enumerate((rows[:1], rows[1:])):
        parts.append(str(folder / f"{i}.json"))
        (folder / f"{i}.json").write_text(json.dumps(some))
    settings = {**resolve({})[0].flat(), "inference_method": "prag", "data_type": "total", **settings}
    write_predictions(parts, settings, *(str(folder / n) for n in ("predict.json", "result.txt", "config.json")))
    return folder


ANSWERS = [(["pale green slate"], "Pale green slate. And"), (["Aurouth", "Kessim Aurouth"], "by Kessim"), (["x"], "")]


def test_files_have_the_references_form(tmp_path):
    folder = write(tmp_path / "prag/total", ANSWERS)
    rows = json.loads((folder / "predict.json").read_text())
    assert rows[0] == {
        "test_id": 7,
        "question": "q0",
        "answer": ["pale green slate"],
        "text": "Pale green slate. And",
        "eval_predict": "Pale green slate",
        "em": "1",
        "f1": "1",
        "prec": "1",
        "recall": "1",
    }
    assert [row["f1"] for row in rows] == ["1", "0.5", "0"]  # half of two words, half of the better alias
    lines = (folder / "result.txt").read_text().splitlines()
    assert lines[:5] == ["em\t0.3333", "f1\t0.5", "prec\t0.5", "recall\t0.5", ""]
    told = json.loads("\n".join(lines[5:]))
    assert list(told) == [
        "model_name",
        "max_new_tokens",
        "dataset",
        "data_type",
        "with_cot",
        "sample",
        "augment_model",
        "num_train_epochs",
        "learning_rate",
        "inference_method",
        "lora_rank",
        "lora_alpha",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["inference_method"] == "prag"
    assert {key: config[key] for key in told} == told


def table_of(folders, output, *runs):
    scores_table([str(folder / "predict.json") for folder in folders], list(runs), str(output))


def test_answers_of_other_types_of_a_run_are_listed_while_their_adapters_are_there(tmp_path):
    for kind in ("a", "b", "c"):
        write(tmp_path / f"answers/prag/{kind}", [(["slate"], "slate")] * 2)
        (tmp_path / f"adapters/{kind}").mkdir(parents=True)
    (tmp_path / "adapters/c").rmdir()
    write(tmp_path / "answers/vanilla/a", [(["slate"], "slate")] * 2)  # of an earlier call with other settings
    run = {"answers": str(tmp_path / "answers"), "adapters": str(tmp_path / "adapters"), "types": ["a"]}
    table_of([tmp_path / "answers/prag/a"], tmp_path / "scores.tsv", run)
    listed = pd.read_csv(tmp_path / "scores.tsv", sep="\t").path.tolist()
    assert listed == [str(tmp_path / "answers/prag/a"), str(tmp_path / "answers/prag/b")]


def test_chain_of_thought_is_scored_by_its_conclusion(tmp_path):
    folder = write(tmp_path / "prag/total", [(["slate"], "It is grey. So the answer is slate.")] * 2, with_cot=True)
    assert [row["em"] for row in json.loads((folder / "predict.json").read_text())] == ["1", "1"]


def test_the_table_has_a_line_for_each_folder_with_intervals(tmp_path):
    folders = [
        write(tmp_path / "a/prag/total", ANSWERS, learning_rate=1e-5),
        write(tmp_path / "b/icl/bridge", ANSWERS[:2], inference_method="icl", data_type="bridge", objective="answers"),
    ]
    table_of(folders, tmp_path / "scores.tsv")
    table = pd.read_csv(tmp_path / "scores.tsv", sep="\t")
    assert table[["method", "type", "questions", "learning_rate"]].to_numpy().tolist() == [
        ["prag", "total", 3, 1e-5],
        ["icl", "bridge", 2, 0.0015],
    ]
    assert table[["objective", "contexts"]].to_numpy().tolist() == [["reference", "both"], ["answers", "none"]]
    assert table.f1.tolist() == [0.5, 0.75]
    for measure in ("em", "f1", "prec", "recall"):
        assert (table[f"{measure}_low"] < table[measure]).all()
        assert (table[f"{measure}_high"] > table[measure]).all()
    assert list(table.path) == [str(folder) for folder in folders]


def test_the_table_tells_apart_what_the_names_of_runs_do(tmp_path):
    runs = [{}, {"objective": "distill"}, {"objective": "distill", "distill_temperature": 2.0}]
    for i, run in enumerate(runs):
        write(tmp_path / f"{i}/prag/total", ANSWERS, **run)
    table_of([tmp_path / f"{i}/prag/total" for i in range(3)], tmp_path / "scores.tsv")
    table = pd.read_csv(tmp_path / "scores.tsv", sep="\t")
    assert table[["objective", "distill_top_k", "distill_temperature"]].to_numpy().tolist() == [
        ["reference", 64, 1.0],
        ["distill", 64, 1.0],
        ["distill", 64, 2.0],
    ]
    assert len(set(labels(table.to_dict("records")))) == 3


def test_the_interval_is_that_of_a_mean():
    rng = np.random.default_rng(1)
    values = np.stack([rng.random(400) < 0.3, np.ones(400)], axis=1).astype(float)
    low, high = bootstrap(values)
    mean, error = values[:, 0].mean(), values[:, 0].std() / 20
    assert low[0] == pytest.approx(mean - 1.96 * error, abs=0.01)
    assert high[0] == pytest.approx(mean + 1.96 * error, abs=0.01)
    assert (low[1], high[1]) == (1, 1)
    assert (bootstrap(values) == (low, high)).all()  # always the same resamples


def test_a_damaged_part_is_named(tmp_path):
    folder = write(tmp_path / "prag/total", ANSWERS)
    (folder / "predict.json").write_text("[")
    with pytest.raises(LoraryError, match=r"predict\.json is damaged"):
        table_of([folder], tmp_path / "scores.tsv")
