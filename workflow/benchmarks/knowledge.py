"""`make bench-knowledge`: which recipe knows most of its passages, alone and with others active, at no more steps.

All of it is one ordinary call of the workflow in a folder of its own: the data as they are, with the questions that are
held out from them; and those that ask a trained fact in other words as questions of data sets in which the passage
stands among others. A call that was ended goes on.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lorary.answer.tables import bootstrap
from lorary.core.errors import LoraryError
from lorary.core.files import read_json
from lorary.data import heldout, rows
from lorary.data.objectives import SEQUENCES, passage_sequences
from lorary.plan.layout import INDEX, ROOT, SCORES
from lorary.plan.methods import SUM, TOGETHER, variant

log = logging.getLogger("lorary.benchmarks")

RECIPES: dict[str, dict[str, Any]] = {name: {"objective": name} for name in ("reference", "answers", "mixed")}
AMONG = (3, 10)  # passages of a question, the right one among them
DATASET, WRITER, METHOD = "knowledge", "known", "prag"
QUESTIONS = "heldout.json"
# What is asked with the own adapter, and what is shown of it: F1; of general questions whether the answer has the right
# one in it, since F1 would count a short form as knowledge.
OWN = {"paraphrase": "own, trained facts", "untrained": "own, other facts", "general": "general, right one in it"}
SHOWN = {"paraphrase": "f1", "untrained": "f1", "general": "hit"}


def bench_knowledge(config: dict[str, Any], files: list[str], seeds: list[int], folder: str, cores: int) -> str:
    """Train and ask everything, for the complete config of a run and the `files` of its augmented data. Returns the
    table as Markdown. Raises LoraryError where no questions are held out, and where the call fails."""
    if not config["heldout_questions"]:
        raise LoraryError("heldout_questions: name a file of questions, which this benchmark asks (docs/answers.md).")
    passages = rows.load(
        [Path(file) for file in files], config["sample"], config["augment_model"], config["lenient_answers"]
    )
    questions = heldout.read_written(config["heldout_questions"])
    home = Path(folder)
    data = {DATASET: _as_they_are(passages), **{f"{DATASET}_{n}": _among(passages, questions, n) for n in AMONG}}
    for name, table in data.items():
        _write(home / "data" / name / WRITER / "total.json", table)
    entries = [{"answer" if k == "answers" else k: v for k, v in q.items() if k != "type"} for q in questions]
    _write(home / QUESTIONS, entries)
    kept = {key: str(Path(value).resolve()) for key, value in config.items() if _is_path(key, value)}
    settings = {**config, **kept, "data_dir": "data", "dataset": DATASET, "augment_model": WRITER, "data_type": None}
    settings |= {"heldout_questions": QUESTIONS, "general_questions": kept.get("general_questions", "default")}
    settings |= {"inference_methods": [METHOD], "combine_adapters": [*TOGETHER]}
    settings |= {"passages_per_job": 512}  # of which most are linked
    settings |= {"store_dir": "results/store", "export": None, "runs": list(_runs(config, passages, seeds))}
    (home / "bench.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), "--directory", folder]
    command += ["--configfile", str(home / "bench.yaml"), "--cores", str(cores), "--resources", "gpu=1"]
    if subprocess.run(command, check=False).returncode:
        raise LoraryError(f"The call has failed; what is finished is kept in {folder}, and the next one goes on there.")
    return _table(home, seeds)


def _is_path(key: str, value: Any) -> bool:
    keys = ("model_path", "prompt_templates", "fewshot", "base_weight", "general_questions")
    return key in keys and isinstance(value, str) and Path(value).exists()


def _runs(config: dict[str, Any], passages: list[dict[str, Any]], seeds: list[int]) -> Iterator[dict[str, Any]]:
    """A recipe takes about as many steps as the config's epochs are with the reference's sequences."""
    steps = {name: sum(_sequences(passage, name) for passage in passages) for name in RECIPES}
    for seed in seeds:
        for name, recipe in RECIPES.items():
            epochs = max(1, int(config["num_train_epochs"] * steps["reference"] / steps[name]))
            shared = {**recipe, "seed": seed, "adapter_dir": f"results/seed_{seed}", "num_train_epochs": epochs}
            yield shared
            others = {"heldout_questions": None, "general_questions": None}
            for n in AMONG:
                yield {**shared, **others, "dataset": f"{DATASET}_{n}"}


def _sequences(passage: dict[str, Any], name: str) -> int:
    texts = 2 if SEQUENCES[name].texts and passage["passage"] is not None else 0
    return texts + sum(1 for _ in passage_sequences(passage, False, SEQUENCES[name].contexts))


def _as_they_are(passages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    questions: dict[int, list[dict[str, Any]]] = {}
    for passage in passages:
        questions.setdefault(passage["did"], []).append(passage)
    return [_row(some[0]["question"], some[0]["answers"], some) for some in questions.values()]


def _among(passages: list[dict[str, Any]], questions: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """A question for each that asks a trained fact in other words, with its passage among n: first those that stand
    with it in a question of the data, then those that follow in the data. The right one has each place in turn."""
    by_place = {(passage["did"], passage["pid"]): passage for passage in passages}
    different = list({passage["passage"]: passage for passage in passages}.values())
    made: list[dict[str, Any]] = []
    for entry in questions:
        if entry["kind"] != "paraphrase" or (entry["did"], entry["pid"]) not in by_place:
            continue
        own = by_place[entry["did"], entry["pid"]]
        with_it = {passage["did"] for passage in passages if passage["passage"] == own["passage"]}
        start = next(i for i, passage in enumerate(different) if passage["passage"] == own["passage"])
        nearest = [passage for passage in passages if passage["did"] in with_it]
        nearest += different[start + 1 :] + different[:start]
        others = list(
            {passage["passage"]: passage for passage in nearest if passage["passage"] != own["passage"]}.values()
        )
        place = len(made) % n
        made.append(_row(entry["question"], entry["answers"], [*others[:place], own, *others[place : n - 1]]))
    return made


def _row(question: str | None, answers: list[str], passages: list[dict[str, Any]]) -> dict[str, Any]:
    augment = [
        {"pid": i, "passage": p["passage"], f"{WRITER}_rewrite": p["rewrite"], f"{WRITER}_qa": p["pairs"]}
        for i, p in enumerate(passages)
    ]
    texts = [p["passage"] for p in passages]
    return {"question": question, "answer": answers, "passages": texts, "augment": augment}


def _write(path: Path, content: list[dict[str, Any]]) -> None:
    """Not where it is there: its time would call what was made of it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _table(home: Path, seeds: list[int]) -> str:
    """F1 in percent, with the 95 % interval over questions, each the mean of the seeds."""
    scores = pd.read_csv(home / SCORES, sep="\t", keep_default_na=False)
    lines = [
        f"F1 in percent (95 % interval over questions), the mean of the seeds {', '.join(map(str, seeds))}:",
        "",
        "| | tokens that a passage is trained on | " + " | ".join(OWN.values()) + " | "
        + " | ".join(f"{n} {way}" for n in AMONG for way in TOGETHER) + " |",
        "|" + " --- |" * (2 + len(OWN) + len(AMONG) * len(TOGETHER)),
    ]  # fmt: skip
    own = _own(home, scores)
    lines.append(_line("bare model", 0, [_of_kind(own, kind, "bare") for kind in OWN]))
    for name in RECIPES:
        mine = own[own["objective"] == name]
        cells = [_of_kind(mine, kind, "own") for kind in OWN]
        for n in AMONG:
            for way in TOGETHER:
                found = scores[
                    (scores["dataset"] == f"{DATASET}_{n}")
                    & (scores["objective"] == name)
                    & (scores["method"] == variant(METHOD, way))
                ]
                each = [[float(row["f1"]) for row in read_json(home / path / "predict.json")] for path in found["path"]]
                cells.append(_interval(np.mean(each, axis=0)))
        lines.append(_line(name, mine["tokens"].mean(), cells))
    return "\n".join(lines) + "\n"


def _own(home: Path, scores: pd.DataFrame) -> pd.DataFrame:
    """What is held out, of every recipe and seed, with the tokens that a passage was trained on."""
    found = scores[(scores["dataset"] == DATASET) & (scores["method"] == variant(METHOD, SUM))]
    tables = []
    for line in found.to_dict("records"):
        answers = Path(line["path"]).parents[1]  # of the run
        adapters = str(answers).replace(f"{line['adapter_dir']}_predictions", line["adapter_dir"], 1)
        trained = pd.read_csv(home / adapters / INDEX, sep="\t")["tokens"] * line["num_train_epochs"]
        asked = pd.read_csv(home / answers / "heldout.tsv", sep="\t", keep_default_na=False)
        tables.append(asked.assign(objective=line["objective"], tokens=trained.mean()))
    return pd.concat(tables)


def _of_kind(asked: pd.DataFrame, kind: str, adapter: str) -> str:
    of_kind = asked[asked["kind"] == kind]
    return _interval(of_kind.groupby(["did", "pid", "question"])[f"{SHOWN[kind]}_{adapter}"].mean().to_numpy())


def _interval(values: np.ndarray) -> str:
    (low,), (high,) = bootstrap(values[:, None])
    return f"{100 * values.mean():.0f} ({100 * low:.0f} to {100 * high:.0f})"


def _line(name: str, tokens: float, cells: list[str]) -> str:
    empty = [""] * (len(OWN) + len(AMONG) * len(TOGETHER) - len(cells))
    return f"| {' | '.join([name, f'{tokens:,.0f}', *cells, *empty])} |"
