"""What the workflow has to make of trained adapters: predictions and scores, what was learnt, and exports."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError
from ..core.files import refuse_detours
from .encode import Plan, Type

# What one job does with one load of the base model: seconds to minutes on a GPU.
QUESTIONS_PER_JOB = 256
PASSAGES_PER_JOB = 512
WITH_ADAPTERS = {"prag", "combine"}


@dataclass(frozen=True)
class Job:
    """Some questions to answer with one method, or some passages whose pairs are asked."""

    rule: str
    name: str  # of its files
    label: str  # for people
    type_name: str
    output: str
    journal: str  # what has been finished, batch by batch
    model_source: dict[str, Any]
    inputs: dict[str, Any]  # model, table, templates, fewshot, records
    params: dict[str, Any]
    count: int


@dataclass(frozen=True)
class Prediction:
    """What becomes one folder: predict.json, result.txt and config.json."""

    rule: str
    folder: str
    kind: Type
    method: str
    jobs: list[Job]


@dataclass(frozen=True)
class Knowledge:
    """What becomes one knowledge.tsv."""

    rule: str
    path: str
    jobs: list[Job]


@dataclass(frozen=True)
class Export:
    rule: str
    folder: str
    adapters: list[str]


@dataclass(frozen=True)
class PredictPlan:
    predictions: list[Prediction]
    knowledge: list[Knowledge]
    exports: list[Export]


def make(plan: Plan) -> PredictPlan:
    """Raises LoraryError."""
    predictions = [_prediction(plan, kind, method) for kind in plan.types for method in kind.methods]
    by_run: dict[str, list[Job]] = {}
    for kind in plan.types:
        if kind.methods:
            by_run.setdefault(str(Path(kind.folder).parent), []).extend(_knowledge_jobs(plan, kind))
    knowledge = [
        Knowledge(f"knowledge_{i}" if i else "knowledge", f"{predictions_folder(folder)}/knowledge.tsv", jobs)
        for i, (folder, jobs) in enumerate(by_run.items())
    ]
    return PredictPlan(predictions, knowledge, list(_exports(plan)))


def predictions_folder(adapters: str, name: str = "predictions") -> str:
    """The folder of predictions (or exports) that belongs to a folder of adapters: the same tree beside it."""
    parts = Path(adapters).parts
    # .../<adapter_dir>/<model_name>/rank=<r>_alpha=<a>/<dataset>/lr=.../aug_model=...
    root, tree = Path(*parts[:-5]), Path(*parts[-5:])
    if root.name == "adapters":
        root = root.with_name(name)
    elif root.name in ("", ".."):  # `.`, `/` and the like have nothing beside them
        root = root / name
    else:
        root = root.with_name(f"{root.name}_{name}")
    folder = str(root / tree)
    refuse_detours(folder, str(root))
    return folder


def _prediction(plan: Plan, kind: Type, method: str) -> Prediction:
    counts = kind.asked_counts
    rows = [0, *accumulate(counts)]
    jobs = []
    for start in range(0, len(counts), QUESTIONS_PER_JOB):
        stop = min(start + QUESTIONS_PER_JOB, len(counts))
        passages = range(rows[start], rows[stop]) if method in WITH_ADAPTERS else range(0)
        params = {"method": method, "rows": [rows[start], rows[stop]], "max_new_tokens": kind.asked["max_new_tokens"]}
        label = f"{method}, {_title(kind)}, questions {start}-{stop - 1} of {len(counts)}"
        jobs.append(_job(plan, kind, f"predict_{method}", start, stop, label, passages, params, ".json"))
    run, name = Path(kind.folder).parent, Path(kind.folder).name
    folder = f"{predictions_folder(str(run))}/{method}/{name}"
    return Prediction(_rule(f"score_{method}", kind), folder, kind, method, jobs)


def _knowledge_jobs(plan: Plan, kind: Type) -> Iterator[Job]:
    counts = kind.asked_counts
    positions = [(did, pid) for did, n in enumerate(counts) for pid in range(n)]
    numbers = {position: i for i, position in enumerate(positions)}
    for start in range(0, len(positions), PASSAGES_PER_JOB):
        stop = min(start + PASSAGES_PER_JOB, len(positions))
        others = [_other(did, pid, counts) for did, pid in positions[start:stop]]
        passages = {*range(start, stop), *(numbers[other] for other in others if other)}
        label = f"{_title(kind)}, passages {start}-{stop - 1} of {len(positions)}"
        yield _job(
            plan, kind, "test_passages", start, stop, label, passages, {"rows": [start, stop], "others": others}, ".tsv"
        )


def _other(did: int, pid: int, counts: list[int]) -> tuple[int, int] | None:
    """The position of another passage, whose adapter is tried beside a passage's own: of the next question; of the same
    where there is one question only; None where there is one passage only."""
    if len(counts) > 1:
        other = (did + 1) % len(counts)
        return other, pid % counts[other]
    return (did, (pid + 1) % counts[did]) if counts[did] > 1 else None


def _job(
    plan: Plan, kind: Type, what: str, start: int, stop: int, label: str, passages: Any, params: dict, suffix: str
) -> Job:
    prompts = kind.prompts
    name = f"{kind.batches[0].name.rpartition('/')[0]}/{what}/{start}-{stop - 1}"
    digits = len(str(sum(kind.counts)))
    return Job(
        rule=f"{_rule(what, kind)}_{start:0{digits}}",
        name=name,
        label=label,
        type_name=Path(kind.folder).name,
        output=f"results/predict/{name}{suffix}",
        journal=f"results/predict/{name.rpartition('-')[0]}.jsonl",
        model_source=plan.models[prompts["model"]],
        inputs={
            "model": prompts["model"],
            "table": prompts["table"],
            "templates": prompts["prompt_templates"],
            "fewshot": prompts["fewshot"] or [],
            "records": _records(kind, passages),
        },
        params={
            "with_cot": prompts["with_cot"],
            "chat_date": prompts["chat_date"],
            "precision": kind.run["precision"],
            **params,
        },
        count=stop - start,
    )


def _records(kind: Type, passages: Any) -> list[str]:
    """The records of the batches that train these passages (by their numbers)."""
    return [kind.batches[i].record for i in sorted({passage // kind.per_job for passage in passages})]


def _exports(plan: Plan) -> Iterator[Export]:
    """The adapters of a question, or those of a list, for each thing that a run's key `export` asks for."""
    by_run: dict[str, list[Type]] = {}
    for kind in plan.types:
        by_run.setdefault(str(Path(kind.folder).parent), []).append(kind)
    number = 0
    for run_folder, kinds in by_run.items():
        exports = [export if isinstance(export, list) else [export] for kind in kinds for export in kind.exports]
        if not exports:  # mostly: and every job of a cluster reads the Snakefile again
            continue
        there = [
            f"{Path(kind.folder).name}/data_{did}/passage_{pid}"
            for kind in kinds
            for did, n in enumerate(kind.counts)
            for pid in range(n)
        ]
        for wanted in dict.fromkeys(map(tuple, exports)):
            names = chosen(there, list(wanted), "export", run_folder)
            title = "+".join(name.replace("/", "_") for name in wanted)
            if len(title) > 100:
                digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]
                title = f"{len(names)}_passages_{digest}"
            folder = f"{predictions_folder(run_folder, 'export')}/{title}"
            yield Export(f"export_adapter_{number}", folder, [f"{run_folder}/{name}" for name in names])
            number += 1


def chosen(there: list[str], wanted: list[str], key: str, where: str) -> list[str]:
    """The passages (<type>/data_<did>/passage_<pid>) among those of `there` that are wanted: one by one, or all of a
    question's by its <type>/data_<did>. Raises LoraryError."""
    names: list[str] = []
    for name in wanted:
        matching = [path for path in there if path == name or path.startswith(f"{name}/passage_")]
        if not matching:
            raise LoraryError(
                f"{key}: {where} has no {name}. Name a question as <type>/data_<did>, a passage as"
                f" <type>/data_<did>/passage_<pid>; the first ones are {', '.join(there[:3])}."
            )
        names += matching
    if len(set(names)) < len(names):
        raise LoraryError(f"{key}: a passage is named twice.")
    return names


def _rule(what: str, kind: Type) -> str:
    # <dataset>_<type>_<digest of the folder>, as in the rules that train
    return re.sub(r"_\d+$", "", kind.batches[0].rule).replace("train_adapters", what, 1)


def _title(kind: Type) -> str:
    return f"{kind.run['dataset']} {Path(kind.folder).name}"
