"""Predictions scored: files in the reference's form, and one table of scores over all runs."""

import json
import logging
from typing import Any

import numpy as np
import pandas as pd

from ..core.files import read_json, written_whole
from ..data.objectives import SEQUENCES
from ..plan import layout
from ..plan.run import IN_NAMES, LATER, spelled
from .score import cut, score

log = logging.getLogger(__name__)

MEASURES = ("em", "f1", "prec", "recall")
# What result.txt repeats of the settings, in the reference's names and order.
REFERENCE_SETTINGS = ["model_name", "max_new_tokens", "dataset", "data_type", "with_cot", "sample", "augment_model"]
REFERENCE_SETTINGS += ["num_train_epochs", "learning_rate", "inference_method", "lora_rank", "lora_alpha"]
SETTINGS = ["model_name", "lora_rank", "lora_alpha", "dataset", "learning_rate", "num_train_epochs", "with_cot"]
SETTINGS += ["augment_model", "projector", "adapter_dir"]
RESAMPLES, INTERVAL = 2_000, (2.5, 97.5)  # of the bootstrap; percent


def write_predictions(parts: list[str], settings: dict[str, Any], predictions: str, result: str, config: str) -> None:
    """predict.json, result.txt and config.json out of the answers of prediction jobs. Raises LoraryError."""
    rows = []
    for answer in (answer for part in parts for answer in read_json(part)):
        prediction = cut(answer["text"], settings["with_cot"])
        scores = score(prediction, answer["answer"])
        about = {key: answer[key] for key in ("test_id", "question", "answer", "text")}
        rows.append({**about, "eval_predict": prediction} | {key: _as_text(scores[key]) for key in MEASURES})
    means = {key: round(sum(float(row[key]) for row in rows) / len(rows), 4) for key in MEASURES}
    shown = {key: settings[key] for key in REFERENCE_SETTINGS}
    lines = [*(f"{key}\t{value}" for key, value in means.items()), "", json.dumps(shown, indent=4)]
    contents = {
        result: "\n".join(lines),
        config: json.dumps(settings, indent=4),
        predictions: json.dumps(rows, indent=4, ensure_ascii=False),  # the last: calls for other types look for it
    }
    for path, content in contents.items():
        with written_whole(path) as temporary:
            temporary.write_text(content + "\n", encoding="utf-8")
    log.info("%d questions: %s", len(rows), ", ".join(f"{key} {value:.3f}" for key, value in means.items()))


def scores_table(predictions: list[str], runs: list[dict[str, Any]], output: str) -> None:
    """One line for each run, type and method (a predict.json): the mean of each measure, and its 95 % bootstrap
    interval over the questions (percentiles, 2,000 resamples, always the same ones). After those of this call,
    `predictions`, those that calls for other types have left of its `runs` (`answers` and `adapters`, their folders,
    and this call's `types`)."""
    lines = []
    for predicted in [*predictions, *(path for run in runs for path in _of_other_types(**run))]:
        rows, settings = read_json(predicted), read_json(layout.config_beside(predicted))
        line = {"type": settings["data_type"], "method": settings["inference_method"], "questions": len(rows)}
        values = np.array([[float(row[measure]) for measure in MEASURES] for row in rows])
        for measure, mean, low, high in zip(MEASURES, values.mean(axis=0), *bootstrap(values), strict=True):
            figures = {measure: mean, f"{measure}_low": low, f"{measure}_high": high}
            line |= {name: f"{figure:.4f}" for name, figure in figures.items()}
        shown = {key: settings[key] for key in SETTINGS} | _trained_for(settings)
        lines.append({**shown, **line, "path": layout.folder_of(predicted)})
    pd.DataFrame(lines, dtype=object).to_csv(output, sep="\t", index=False)  # settings as they are: 1e-05, 3


def _trained_for(settings: dict[str, Any]) -> dict[str, Any]:
    """What is in a run's name where it is set; config.json has it only there."""
    aim = {key: spelled(settings.get(key, LATER[key])) for key in IN_NAMES}
    return {**aim, "contexts": aim["contexts"] or SEQUENCES[aim["objective"]].contexts}


def _of_other_types(answers: str, adapters: str, types: list[str]) -> list[str]:
    there = layout.finished_predictions(answers, adapters)
    return [path for path in there if layout.method_and_type(path)[1] not in types]


def bootstrap(values: np.ndarray) -> np.ndarray:
    """Where the interval of the mean of values (N, measures) begins and ends (2, measures), from resamples of them."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean(axis=0) for _ in range(RESAMPLES)]
    return np.percentile(means, INTERVAL, axis=0)


def _as_text(value: float) -> str:
    """As the reference writes a score: 0 and 1 where nothing or everything is right, else all digits."""
    return str(int(value)) if value in (0, 1) else str(value)
