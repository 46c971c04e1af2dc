"""`make bench-translator`: what translators know of passages that they never saw, beside what could be mistaken for it.

All of it is one ordinary call of the workflow in a folder of its own, on invented passages: what a translator learns
from is projector data, and what is asked is about others, in words that no pair has. A call that was ended goes on.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lorary.adapters.lora import Adapter, load_adapter
from lorary.adapters.rows import partner
from lorary.answer.tables import bootstrap
from lorary.core.errors import LoraryError
from lorary.core.files import read_json
from lorary.plan.config import resolve
from lorary.plan.layout import RunFolder, run_folder
from lorary.plan.recipes import RECIPES
from lorary.plan.run import LATER, Augmenting, Raw, Translating
from lorary.plan.translate import KINDS

from .calls import call, head, line, numbers, write
from .invented import passages

log = logging.getLogger("lorary.benchmarks")

TESTED = 60  # passages, of which none is learnt from
DATASET, WRITER, TYPE, QUESTIONS = "places", "invented", "total", "heldout.json"
TRAINED = "trained"
BEYOND = (4800, 50_000)  # pairs, for which the fit says what they would bring


def bench_translator(
    config: dict[str, Any], kinds: list[str], pairs: list[str], seeds: list[str], folder: str, cores: int
) -> str:
    """Train and ask everything, with the model and settings of a run: each of `kinds` with the first N of the passages
    to learn from, for each N of `pairs`, and its controls with the most; each with each of `seeds`. The fewer passages
    there are, the more often each is seen: twice as often for a fourth of them. Returns the tables as Markdown. Raises
    LoraryError."""
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise LoraryError(f"KINDS: there is no {unknown[0]}; there is {', '.join(KINDS)}.")
    counts, all_seeds = sorted(numbers("PAIRS", pairs, least=2)), numbers("SEEDS", seeds, least=0)
    home, most = Path(folder), counts[-1]
    made = passages(TESTED + most, seed=0)
    write(home / "data" / DATASET / WRITER / f"{TYPE}.json", [_row(p) for p in made[:TESTED]])
    write(home / "data_projector" / DATASET / WRITER / f"{TYPE}.json", [_row(p) for p in made[TESTED:]])
    asked = [
        {"did": did, "pid": 0, "kind": "paraphrase", "question": question, "answer": answer}
        for did, passage in enumerate(made[:TESTED])
        for question, answer in passage["others"]
    ]
    write(home / QUESTIONS, asked)
    runs = {key: run for seed in all_seeds for key, run in _runs(config, kinds, counts, seed)}
    settings = {**_settings(config), "runs": list(runs.values())}
    call(folder, settings, cores)
    folders = {key: _folder(settings, run) for key, run in runs.items()}
    return "\n".join([_table(home, folders, all_seeds), _growth(home, folders, kinds, counts), _cost(home, folders)])


Key = tuple[int, str, int, str]  # of a run: seed, kind (or TRAINED), pairs, control


def _runs(
    config: dict[str, Any], kinds: list[str], counts: list[int], seed: int
) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Each run with its key."""
    alone = {"seed": seed, "adapter_dir": f"results/seed_{seed}"}
    yield (seed, TRAINED, 0, ""), alone
    for kind in kinds:
        of_kind = RECIPES.get(kind, {})
        for n in counts:
            epochs = round(KINDS[kind].epochs * math.sqrt(counts[-1] / n))
            run = {**alone, **of_kind, "translator": kind, "translator_pairs": n, "translator_epochs": epochs}
            yield (seed, kind, n, ""), run
        for control in ("shared", "shuffled"):
            yield (seed, kind, counts[-1], control), {**run, "translator_control": control}


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """What all runs share: the config's model and training, on the invented passages."""
    paths = ("model_path", "prompt_templates", "fewshot", "base_weight", "task_adapter")
    kept = {key: str(Path(config[key]).resolve()) for key in paths if config[key] and Path(config[key]).exists()}
    made = {field.name: LATER[field.name] for group in (Raw, Augmenting, Translating) for field in fields(group)}
    own = {"data_dir": "data", "projector_data_dir": "data_projector", "projector": False, "dataset": DATASET}
    own |= {"augment_model": WRITER, "data_type": None, "sample": -1, "heldout_pairs": 0, "passages_per_job": 512}
    own |= {"heldout_questions": QUESTIONS, "general_questions": None, "inference_methods": ["icl", "prag"]}
    own |= {"combine_adapters": ["sum"], "store_dir": "results/store", "export": None}
    own |= {"keep_directions": 0.0, "keep_sequences": 0, "keep_questions": None}
    return {**config, **kept, **made, **own}


def _row(passage: dict[str, Any]) -> dict[str, Any]:
    pairs = [{"question": q, "answer": a, "full_answer": f"The answer is {a}"} for q, a in passage["pairs"]]
    augment = {"pid": 0, "passage": passage["text"], f"{WRITER}_rewrite": passage["text"], f"{WRITER}_qa": pairs}
    question, answer = passage["others"][0]
    return {"question": question, "answer": answer, "passages": [passage["text"]], "augment": [augment]}


def _folder(settings: dict[str, Any], run: dict[str, Any]) -> RunFolder:
    (checked,) = resolve({**settings, "runs": [run]})
    return run_folder(checked)


def _asked(home: Path, folder: RunFolder) -> pd.DataFrame:
    asked = pd.read_csv(home / folder.learnt("heldout"), sep="\t", keep_default_na=False)
    return asked.assign(specific=asked["nll_other"].astype(float) - asked["nll_own"].astype(float))


def _table(home: Path, folders: dict[Key, RunFolder], seeds: list[int]) -> str:
    """What is known, with 95 % intervals over passages, each the mean of the seeds."""
    lines = [
        f"Of {TESTED} passages that no translator learnt from, asked in other words; mean of the seeds"
        f" {', '.join(map(str, seeds))} (95 % interval over passages). Negative log-likelihood in nats a token.",
        "",
        *head("", "passages learnt from", "its own adapter", "another's", "another's less own", "F1, own"),
    ]
    first = next(iter(folders.values()))
    bare = _asked(home, first)
    lines.append(line("bare model", "", _mean(bare, "nll_bare"), "", "", _mean(bare, "f1_bare", 100)))
    texts = [float(row["f1"]) for row in read_json(home / first.predictions("icl", TYPE) / "predict.json")]
    lines.append(line("text in the prompt", "", "", "", "", _interval(np.array(texts), 100)))
    for key in dict.fromkeys(key[1:] for key in folders):
        kind, n, control = key
        some = pd.concat([_asked(home, folders[seed, *key]) for seed in seeds])
        cells = [_mean(some, column) for column in ("nll_own", "nll_other", "specific")]
        name = kind + {"": "", "shared": ": what all share, alone", "shuffled": ": learnt from others' pairs"}[control]
        lines.append(line(name, str(n or ""), *cells, _mean(some, "f1_own", 100)))
    return "\n".join(lines) + "\n"


def _growth(home: Path, folders: dict[Key, RunFolder], kinds: list[str], counts: list[int]) -> str:
    """How what is specific to a passage grows with the passages learnt from: a line through its logarithm."""
    if len(counts) < 2:
        return ""
    lines = ["If another's less own goes on to grow with the logarithm of the passages learnt from:", ""]
    lines += head("", "for ten times as many", *(f"{n:,}" for n in BEYOND))
    for kind in kinds:
        found = [(n, _asked(home, f)["specific"].mean()) for (_, k, n, c), f in folders.items() if k == kind and not c]
        slope, start = np.polyfit(np.log10([n for n, _ in found]), [value for _, value in found], 1)
        lines.append(line(kind, f"{slope:+.2f}", *(f"{start + slope * np.log10(n):.2f}" for n in BEYOND)))
    return "\n".join(lines) + "\n"


def _cost(home: Path, folders: dict[Key, RunFolder]) -> str:
    """Seconds and bytes, and how alike updates are."""
    lines = ["Of the first seed; cosines are of updates of two passages, and of what is left when their mean is taken:"]
    of_each = "s a passage, once it is read", "KiB a passage", "cosine"
    lines += ["", *head("", *of_each, "of what is specific, with the trained one's")]
    trained: np.ndarray | None = None
    seed = next(iter(folders))[0]
    for (of_seed, kind, n, control), folder in folders.items():
        if of_seed != seed or control:
            continue
        index = pd.read_csv(home / folder.index, sep="\t")
        adapters = [load_adapter(str(home / path)) for path in index["path"]]
        size = sum(tensor.nbytes for tensor in adapters[0].tensors.values()) / 1024
        own = products(adapters, adapters)
        if trained is None:
            trained, with_trained, same = own, 1.0, adapters
        else:
            crossed = products(adapters, same)
            with_trained = float(np.mean(_cosines(_centred(crossed), _centred(own), _centred(trained)).diagonal()))
        others = _cosines(own, own, own)[~np.eye(len(own), dtype=bool)]
        name = f"{kind} {n}" if n else kind
        lines.append(
            line(name, f"{index['seconds'].mean():.3f}", f"{size:,.0f}", f"{others.mean():.2f}", f"{with_trained:.2f}")
        )
    return "\n".join(lines) + "\n"


def products(some: list[Adapter], others: list[Adapter]) -> np.ndarray:
    """The inner product of the update of each of some adapters with that of each of others, over all layers, without
    making them: <B A, B' A'> = sum of (B^T B') * (A A'^T)."""
    import torch

    found = torch.zeros(len(some), len(others), dtype=torch.float64)
    for name in some[0].tensors:
        if ".lora_A." not in name or name not in others[0].tensors:
            continue
        A, A_ = (torch.stack([each.tensors[name] for each in group]).double() for group in (some, others))
        B, B_ = (
            torch.stack([each.scale * each.tensors[partner(name)] for each in group]).double()
            for group in (some, others)
        )
        # (n, m, r, r')
        found += (torch.einsum("nri,msi->nmrs", A, A_) * torch.einsum("nor,mos->nmrs", B, B_)).sum((2, 3))
    return found.numpy()


def _centred(gram: np.ndarray) -> np.ndarray:
    """Inner products of what is left when the mean of each side is taken from it."""
    return gram - gram.mean(0, keepdims=True) - gram.mean(1, keepdims=True) + gram.mean()


def _cosines(crossed: np.ndarray, own: np.ndarray, others: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # of no update
        return crossed / np.sqrt(np.outer(own.diagonal(), others.diagonal()))


def _mean(asked: pd.DataFrame, column: str, times: int = 1) -> str:
    return _interval(asked.groupby("did")[column].apply(lambda values: values.astype(float).mean()).to_numpy(), times)


def _interval(values: np.ndarray, times: int) -> str:
    (low,), (high,) = bootstrap(values[:, None])
    digits = 0 if times > 1 else 2
    return f"{times * values.mean():.{digits}f} ({times * low:.{digits}f} to {times * high:.{digits}f})"
