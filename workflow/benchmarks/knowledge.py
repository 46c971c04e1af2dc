"""`make bench-knowledge`: which recipe knows most of its passages, alone and with others active, at what cost; and how
many pairs it takes.

All of it is one ordinary call of the workflow in a folder of its own: the data as they are, with the questions that are
held out from them; and those that ask a trained fact in other words as questions of data sets in which the passage
stands among others. A call that was ended goes on.
"""

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lorary.answer.tables import bootstrap
from lorary.core.errors import LoraryError
from lorary.core.files import read_json
from lorary.core.store import Store
from lorary.data import heldout, rows
from lorary.data.objectives import SEQUENCES, passage_sequences
from lorary.plan.config import load_schema, resolve
from lorary.plan.layout import RunFolder, run_folder
from lorary.plan.methods import ROUTING, SUM, TOGETHER, variant
from lorary.plan.recipes import RECIPES
from lorary.plan.run import LATER, Augmenting, Raw

from .calls import call, head, line, numbers, write

log = logging.getLogger("lorary.benchmarks")

# What can be a row: what trains each passage.
NAMES = (*SEQUENCES, *(name for name, bundle in RECIPES.items() if bundle and "translator" not in bundle))
AMONG = (3, 10)  # passages of a question, the right one among them
DATASET, WRITER, TYPE, METHOD = "knowledge", "known", "total", "prag"
QUESTIONS = "heldout.json"
TOKENS = "tokens that a passage is trained on"
# What is asked with the own adapter, and what is shown of it: F1; of general questions whether the answer has the right
# one in it, since F1 would count a short form as knowledge.
OWN = {"paraphrase": "own, trained facts", "untrained": "own, other facts", "general": "general, right one in it"}
SHOWN = {"paraphrase": "f1", "untrained": "f1", "general": "hit"}


def bench_knowledge(
    config: dict[str, Any],
    files: list[str],
    recipes: list[str],
    seeds: list[str],
    pairs: list[str],
    folder: str,
    cores: int,
) -> str:
    """Train and ask everything, for the complete config of a run and the `files` of its augmented data: each of
    `recipes` (of NAMES) with each seed, and once more with the first N pairs of each passage, for each N of `pairs`.
    Returns the tables as Markdown. Raises LoraryError where there is no such recipe or number, where no questions are
    held out, and where the call fails."""
    if not config["heldout_questions"]:
        raise LoraryError("heldout_questions: name a file of questions, which this benchmark asks (docs/answers.md).")
    if unknown := [name for name in recipes if name not in NAMES]:
        raise LoraryError(f"RECIPES: there is no {unknown[0]}; there is {', '.join(NAMES)}.")
    all_seeds, all_pairs = numbers("SEEDS", seeds, least=0), numbers("PAIRS", pairs, least=1)
    sample = config["sample"] if config["source"] == "augmented" else -1  # else of documents or the like
    passages = rows.load_all([Path(file) for file in files], sample, config["augment_model"], config["lenient_answers"])
    trained = heldout.training_rows(passages, config["heldout_pairs"])
    cut = {n: [{**passage, "pairs": passage["pairs"][:n]} for passage in trained] for n in all_pairs}
    questions = heldout.read_written(config["heldout_questions"])
    home = Path(folder)
    data = {DATASET: _as_they_are(passages), **{f"{DATASET}_{n}": _among(passages, questions, n) for n in AMONG}}
    data |= {f"{DATASET}_pairs{n}": _as_they_are(some) for n, some in cut.items()}
    for name, table in data.items():
        write(home / "data" / name / WRITER / f"{TYPE}.json", table)
    entries = [{"answer" if k == "answers" else k: v for k, v in q.items() if k != "type"} for q in questions]
    write(home / QUESTIONS, entries)
    chosen = {name: _recipe(name, config, trained) for name in recipes}
    settings = {**_settings(config), "sample": sample, "runs": list(_runs(chosen, config, all_seeds, cut))}
    call(folder, settings, cores)
    tables = [_table(home, settings, chosen, all_seeds)]
    if cut:
        tables.append(_table_of_pairs(home, settings, chosen, all_seeds, cut))
    return "\n".join(tables)


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """What all runs share: the config's, with paths as the call in the folder sees them."""
    kept = {key: str(Path(value).resolve()) for key, value in config.items() if _is_path(key, value)}
    made = {field.name: LATER[field.name] for group in (Raw, Augmenting) for field in dataclasses.fields(group)}
    settings = {**config, **kept, **made, "data_dir": "data", "dataset": DATASET, "augment_model": WRITER}
    settings |= {"data_type": None, "heldout_questions": QUESTIONS}
    settings |= {"general_questions": kept.get("general_questions", "default")}
    settings |= {"inference_methods": [METHOD], "combine_adapters": [*TOGETHER]}
    settings |= {"passages_per_job": 512}  # of which most are linked
    return {**settings, "store_dir": "results/store", "export": None}


def _is_path(key: str, value: Any) -> bool:
    keys = ("model_path", "prompt_templates", "fewshot", "base_weight", "task_adapter", "general_questions")
    return key in (*keys, "keep_questions") and isinstance(value, str) and Path(value).exists()


def _recipe(name: str, config: dict[str, Any], passages: list[dict[str, Any]]) -> dict[str, Any]:
    """Every key of a row's recipe. An objective, which has no epochs of its own, takes about as many steps as the
    config's epochs are with the reference's sequences."""
    properties = load_schema()["properties"]
    bundle = RECIPES.get(name) or {"objective": name}
    recipe = {key: properties[key]["default"] for other in RECIPES.values() for key in other} | bundle
    del recipe["combine_adapters"]  # all of them are asked
    recipe |= {key: LATER[key] for key in config if key.startswith("distill_") and not _teaches(recipe)}
    if not (recipe["keep_directions"] or recipe["keep_sequences"]):
        recipe["keep_questions"] = None
    if "num_train_epochs" not in bundle:
        steps, own = _steps(passages, {**config, "objective": "reference"}), _steps(passages, {**config, **recipe})
        recipe["num_train_epochs"] = max(1, config["num_train_epochs"] * steps // own)
    return recipe


def _teaches(recipe: dict[str, Any]) -> bool:
    return SEQUENCES[recipe["objective"]].teacher


def _steps(passages: list[dict[str, Any]], setting: dict[str, Any]) -> int:
    """Of an epoch of all passages."""
    return sum(_sequences(passage, setting) for passage in passages)


def _sequences(passage: dict[str, Any], setting: dict[str, Any]) -> int:
    made = SEQUENCES[setting["objective"]]
    texts = 2 if made.texts and passage["passage"] is not None else 0
    return texts + sum(1 for _ in passage_sequences(passage, False, setting["contexts"] or made.contexts))


def _runs(
    recipes: dict[str, dict[str, Any]], config: dict[str, Any], seeds: list[int], cut: dict[int, list[dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    for seed in seeds:
        for name, recipe in recipes.items():
            alone = _alone(name, recipe, seed)
            yield alone
            yield from (_among_others(alone, n) for n in AMONG)
            yield from (_with_pairs(alone, n, epochs) for n, epochs in _epochs_of_pairs(recipe, config, cut))


def _alone(name: str, recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    """A run of the data as they are. Objectives tell themselves apart in paths."""
    of_recipe = "" if name in SEQUENCES else f"_{name}"
    return {**recipe, "seed": seed, "adapter_dir": f"results/seed_{seed}{of_recipe}"}


def _among_others(alone: dict[str, Any], n: int) -> dict[str, Any]:
    return {**alone, "heldout_questions": None, "general_questions": None, "dataset": f"{DATASET}_{n}"}


def _with_pairs(alone: dict[str, Any], n: int, epochs: int) -> dict[str, Any]:
    """The held-out pairs are cut off from these data, and of ways one is asked."""
    one_way = {"combine_adapters": [SUM], **{key: LATER[key] for key in ROUTING}}
    return {**alone, **one_way, "heldout_pairs": 0, "dataset": f"{DATASET}_pairs{n}", "num_train_epochs": epochs}


def _epochs_of_pairs(
    recipe: dict[str, Any], config: dict[str, Any], cut: dict[int, list[dict[str, Any]]]
) -> Iterator[tuple[int, int]]:
    """(pairs, epochs): the recipe's own epochs; and as many as take about the steps that these are with the first of
    `cut`, where that is another number."""
    steps = {n: _steps(passages, {**config, **recipe}) for n, passages in cut.items()}
    own = recipe["num_train_epochs"]
    for n in cut:
        equal = max(1, own * next(iter(steps.values())) // steps[n])
        yield from ((n, epochs) for epochs in dict.fromkeys([own, equal]))


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


def _table(home: Path, settings: dict[str, Any], recipes: dict[str, dict[str, Any]], seeds: list[int]) -> str:
    """F1 in percent, with the 95 % interval over questions, each the mean of the seeds."""
    lines = [
        f"F1 in percent (95 % interval over questions), the mean of the seeds {', '.join(map(str, seeds))}:",
        "",
        *head("", TOKENS, *OWN.values(), *(f"{n} {way}" for n in AMONG for way in TOGETHER)),
    ]
    runs = {name: [_alone(name, recipe, seed) for seed in seeds] for name, recipe in recipes.items()}
    own = {name: _own(home, settings, some) for name, some in runs.items()}
    bare = [_of_kind(pd.concat(own.values()), kind, "bare") for kind in OWN]
    lines.append(line("bare model", "", *bare, *[""] * len(AMONG) * len(TOGETHER)))
    for name, mine in own.items():
        cells = [_of_kind(mine, kind, "own") for kind in OWN]
        for n in AMONG:
            folders = [_folder(settings, _among_others(alone, n)) for alone in runs[name]]
            for way in TOGETHER:
                files = [home / made.predictions(variant(METHOD, way), TYPE) / "predict.json" for made in folders]
                each = [[float(row["f1"]) for row in read_json(file)] for file in files]
                cells.append(_interval(np.mean(each, axis=0)))
        lines.append(line(name, f"{mine['tokens'].mean():,.0f}", *cells))
    return "\n".join(lines) + "\n"


def _table_of_pairs(
    home: Path,
    settings: dict[str, Any],
    recipes: dict[str, dict[str, Any]],
    seeds: list[int],
    cut: dict[int, list[dict[str, Any]]],
) -> str:
    """The same of what is asked with the own adapter, for each number of pairs and of epochs."""
    lines = [
        "With the first pairs of each passage only: at a recipe's own epochs, and at about the same number of steps:",
        "",
        *head("", "pairs", "epochs", TOKENS, *OWN.values()),
    ]
    for name, recipe in recipes.items():
        for n, epochs in _epochs_of_pairs(recipe, settings, cut):
            runs = [_with_pairs(_alone(name, recipe, seed), n, epochs) for seed in seeds]
            mine = _own(home, settings, runs)
            pairs = np.mean([len(passage["pairs"]) for passage in cut[n]])
            cells = [_of_kind(mine, kind, "own") for kind in OWN]
            lines.append(line(name, f"{pairs:.3g}", str(epochs), f"{mine['tokens'].mean():,.0f}", *cells))
    return "\n".join(lines) + "\n"


def _own(home: Path, settings: dict[str, Any], runs: list[dict[str, Any]]) -> pd.DataFrame:
    """What is held out, as these runs answered it, with the tokens that a passage was trained on."""
    tables = []
    for run in runs:
        folder = _folder(settings, run)
        trained = pd.read_csv(home / folder.index, sep="\t")
        asked = pd.read_csv(home / folder.learnt("heldout"), sep="\t", keep_default_na=False)
        tables.append(asked.assign(tokens=_tokens(home, settings, trained, run["num_train_epochs"])))
    return pd.concat(tables)


def _tokens(home: Path, settings: dict[str, Any], trained: pd.DataFrame, epochs: int) -> float:
    """How many tokens a passage is trained on in all its epochs, with those of general questions: the mean of a run's
    adapters.tsv."""
    store = Store(str(home / settings["store_dir"]))
    kept = [(store.get(digest) or {}).get("kept_tokens", 0) for digest in trained["digest"]]
    return float((trained["tokens"] * epochs + kept).mean())


def _folder(settings: dict[str, Any], run: dict[str, Any]) -> RunFolder:
    (checked,) = resolve({**settings, "runs": [run]})
    return run_folder(checked)


def _of_kind(asked: pd.DataFrame, kind: str, adapter: str) -> str:
    of_kind = asked[asked["kind"] == kind]
    return _interval(of_kind.groupby(["did", "pid", "question"])[f"{SHOWN[kind]}_{adapter}"].mean().to_numpy())


def _interval(values: np.ndarray) -> str:
    (low,), (high,) = bootstrap(values[:, None])
    return f"{100 * values.mean():.0f} ({100 * low:.0f} to {100 * high:.0f})"
