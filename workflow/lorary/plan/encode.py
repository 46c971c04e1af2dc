"""What the workflow has to make, stage by stage, for the runs of a config: the paths and settings that the rules use.

A stage of two runs that is the same in every setting is one stage; two that would write one path with different
settings are an error.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError
from ..core.files import check_folder, refuse_detours
from ..data import rows as dataset
from .config import Run

# Up to so many passages `passages_per_job: auto` gives each its own job; beyond, it keeps a run near so many jobs.
JOBS = 100
MOST_PASSAGES_PER_JOB = 64
# Prompt ids take milliseconds a passage: fewer to a file than these, and a job would be all start-up.
PASSAGES_PER_PROMPT_FILE = 64
# Goes up with every change of the trainer that makes adapters differ by more than rounding: all are trained again then.
NUMERICS = 2
# Keys that decide nothing before the predictions.
LATER = {"inference_methods", "max_new_tokens", "export"}
METHODS = ["vanilla", "icl", "prag", "combine"]


@dataclass(frozen=True)
class Batch:
    """A batch of passages: what one training job trains."""

    rule: str
    name: str  # of its files
    label: str  # for people: dataset, type, passages
    of: int  # how many passages the type has
    table: str
    adapters: list[str]  # a directory a passage
    record: str
    model: str
    model_source: dict[str, Any]  # model_path, model_revision, trust_remote_code
    base_weight: str
    prompts: str
    settings: dict[str, Any]  # the hyperparameters that training takes
    adapters_per_step: int | str
    store: str


@dataclass(frozen=True)
class BaseWeight:
    rule: str
    path: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Index:
    rule: str
    path: str  # adapters.tsv
    run: str  # run.json beside it
    batches: list[Batch]
    runs: list[Run]  # that write into its folder
    base_weight: str
    model: str
    data: list[str]  # files


@dataclass(frozen=True)
class Type:
    """One type of one run, encoded: what the stages after training start from."""

    folder: str  # of its adapters
    run: Run  # of the runs that write there, the one with the most questions
    counts: list[int]  # passages of each question
    per_job: int  # passages a batch
    batches: list[Batch]
    prompts: dict[str, Any]  # model, table and settings
    methods: list[str]
    asked: Run  # of the runs with inference_methods, the one with the most questions
    asked_counts: list[int]
    exports: list[str | list[str]]


@dataclass
class Plan:
    models: dict[str, dict[str, Any]]  # directory -> model_path, model_revision, trust_remote_code
    tables: dict[str, dict[str, Any]]  # Parquet file -> files, sample, augment_model
    prompts: dict[str, dict[str, Any]]  # folder -> table, model and settings
    base_weights: list[BaseWeight]
    batches: list[Batch]
    indexes: list[Index]
    types: list[Type]


@dataclass
class Part:
    """One type of one run: what one type folder of the adapter tree holds."""

    run: Run
    number: int  # of the run
    files: list[Path]
    counts: list[int]  # passages of each question
    per_job: int


def make(runs: list[Run]) -> Plan:
    """The plan of the runs. Reads the data's outline. Raises LoraryError."""
    sharing: dict[str, list[Part]] = {}  # the parts of each type folder
    for number, run in enumerate(runs):
        for folder, part in _parts(run, number).items():
            sharing.setdefault(folder, []).append(part)
            _refuse_conflict(folder, sharing[folder])
    # The same adapters, and more where the sample is larger.
    parts = {folder: _largest(some) for folder, some in sharing.items()}

    models, tables, prompts, base_weights = Stage(), Stage(), Stage(), Stage()
    types: list[Type] = []
    by_run: dict[str, list[tuple[Batch, Part]]] = {}
    for folder, part in parts.items():
        run, kind = part.run, Path(folder).name
        model = models.add(
            f"resources/models/{run['model_name']}",
            _pick(run, "model_path", "model_revision", "trust_remote_code"),
            part,
        )
        base_weight = base_weights.add(
            f"{_rank_folder(run)}/base_weight",
            {"model": model, **_pick(run, "lora_rank", "lora_alpha", "lora_target_modules", "seed", "base_weight")},
            part,
        )
        table_settings = {"files": [str(path) for path in part.files], **_pick(run, "sample", "augment_model")}
        table = tables.add(
            f"results/data/{run['dataset']}_{kind}_{_digest(table_settings)}.parquet", table_settings, part
        )
        prompt_settings = {
            "table": table,
            "model": model,
            **_pick(run, "with_cot", "prompt_templates", "max_length", "chat_date"),
            "fewshot": run["fewshot"] if run["with_cot"] else None,
        }
        name = f"{run['model_name']}_{run['dataset']}_{kind}_{_style(run)}"
        prompt_folder = prompts.add(f"results/prompts/{name}_{_digest(prompt_settings)}", prompt_settings, part)

        passages = [f"{folder}/data_{did}/passage_{pid}" for did, n in enumerate(part.counts) for pid in range(n)]
        digits = len(str(len(passages)))
        batches: list[Batch] = []
        per_file = part.per_job * -(-PASSAGES_PER_PROMPT_FILE // part.per_job)
        for start in range(0, len(passages), part.per_job):
            last = min(start + part.per_job, len(passages)) - 1
            first_of_file = start - start % per_file
            last_of_file = min(first_of_file + per_file, len(passages)) - 1
            batch_name = f"{name}_{_digest(folder)}/{start}-{last}"
            batch = Batch(
                rule=re.sub(r"\W", "_", f"train_adapters_{run['dataset']}_{kind}_{_digest(folder)}_{start:0{digits}}"),
                name=batch_name,
                label=f"{run['dataset']} {kind} {start}" + (f"-{last}" if last > start else ""),
                of=len(passages),
                table=table,
                adapters=passages[start : last + 1],
                record=f"results/train/{batch_name}.tsv",
                model=model,
                model_source=models.settings[model],
                base_weight=base_weight,
                prompts=f"{prompt_folder}/{first_of_file}-{last_of_file}.parquet",
                settings={
                    "numerics": NUMERICS,
                    **_pick(run, "per_device_train_batch_size", "num_train_epochs", "learning_rate", "precision"),
                },
                adapters_per_step=run["adapters_per_step"],
                store=run["store_dir"],
            )
            batches.append(batch)
            by_run.setdefault(str(Path(folder).parent), []).append((batch, part))
        asking = [other for other in sharing[folder] if other.run["inference_methods"]]
        asked = _largest(asking or [part])
        types.append(
            Type(
                folder=folder,
                run=run,
                counts=part.counts,
                per_job=part.per_job,
                batches=batches,
                prompts=prompt_settings,
                methods=[m for m in METHODS if any(m in other.run["inference_methods"] for other in asking)],
                asked=asked.run,
                asked_counts=asked.counts,
                exports=[other.run["export"] for other in sharing[folder] if other.run["export"]],
            )
        )
    return Plan(
        models.settings,
        tables.settings,
        prompts.settings,
        [
            BaseWeight(_numbered("init_base_weight", i), path, settings)
            for i, (path, settings) in enumerate(base_weights.settings.items())
        ],
        [batch for kind in types for batch in kind.batches],
        [_index(_numbered("index_adapters", i), *item) for i, item in enumerate(by_run.items())],
        types,
    )


def _index(rule: str, folder: str, contents: list[tuple[Batch, Part]]) -> Index:
    parts = list({id(part): part for _, part in contents}.values())
    runs = {part.number: part.run for part in parts}
    first, _ = contents[0]
    return Index(
        rule=rule,
        path=f"{folder}/adapters.tsv",
        run=f"{folder}/run.json",
        batches=[batch for batch, _ in contents],
        runs=[{key: run[key] for key in run if key not in LATER} for run in runs.values()],
        base_weight=first.base_weight,
        model=first.model,
        data=sorted({str(path) for part in parts for path in part.files}),
    )


class Stage:
    """The outputs of one stage, each path once."""

    def __init__(self):
        self.settings: dict[str, dict[str, Any]] = {}
        self._numbers: dict[str, int] = {}

    def add(self, path: str, settings: dict[str, Any], part: Part) -> str:
        first = self.settings.setdefault(path, settings)
        number = self._numbers.setdefault(path, part.number)
        if differing := [key for key in settings if settings[key] != first[key]]:
            raise LoraryError(
                f"runs[{number}] and runs[{part.number}] would both write {path}, with different"
                f" {', '.join(differing)}. Give them the same, another model_name or another adapter_dir."
            )
        return path


def _parts(run: Run, number: int) -> dict[str, Part]:
    """The type folders of a run, with what goes into each."""
    for key in ("prompt_templates", "base_weight", *(["fewshot"] if run["with_cot"] else [])):
        if run[key] and not Path(run[key]).exists():
            raise LoraryError(f"{key}: there is no {run[key]} (seen from {Path.cwd()}).")
    model_path = os.path.expanduser(run["model_path"])
    if model_path.startswith(("/", "./", "../", "~")) and not os.path.isdir(model_path):
        raise LoraryError(f"model_path: there is no directory {run['model_path']} (seen from {Path.cwd()}).")
    for key in ("adapter_dir", "store_dir"):
        check_folder(key, run[key])
    root = run["projector_data_dir"] if run["projector"] else run["data_dir"]
    types = dataset.type_files(Path(root) / run["dataset"] / run["augment_model"], run["data_type"])
    counts = {kind: dataset.passage_counts(files, run["sample"], run["augment_model"]) for kind, files in types.items()}
    per_job = run["passages_per_job"]
    if per_job == "auto":
        total = sum(map(sum, counts.values()))
        per_job = 1 if total <= JOBS else min(-(-total // JOBS), MOST_PASSAGES_PER_JOB)
    parts = {
        f"{_run_folder(run)}/{kind}": Part(run, number, files, counts[kind], per_job) for kind, files in types.items()
    }
    for folder in parts:
        refuse_detours(folder, run["adapter_dir"])
    return parts


def _rank_folder(run: Run) -> str:
    return f"{run['adapter_dir']}/{run['model_name']}/rank={run['lora_rank']}_alpha={run['lora_alpha']}"


def _run_folder(run: Run) -> str:
    setting = f"lr={run['learning_rate']}_epoch={run['num_train_epochs']}_{_style(run)}"
    augment = run["augment_model"] + ("_projector" if run["projector"] else "")
    return f"{_rank_folder(run)}/{run['dataset']}/{setting}/aug_model={augment}"


def _style(run: Run) -> str:
    return "cot" if run["with_cot"] else "direct"


def _numbered(rule: str, i: int) -> str:
    """The rule's own name for the first, as there mostly is one."""
    return f"{rule}_{i}" if i else rule


def _largest(parts: list[Part]) -> Part:
    """The first of those with the most questions."""
    return max(parts, key=lambda part: len(part.counts))


def _refuse_conflict(folder: str, parts: list[Part]) -> None:
    """Two runs may share a type folder only where they would write the same adapters, and the same answers, there."""
    free = {"data_type", "sample", "passages_per_job", "store_dir", "adapters_per_step", *LATER}
    *before, last = parts
    if not last.run["with_cot"]:
        free.add("fewshot")
    for part in before:
        both_ask = part.run["inference_methods"] and last.run["inference_methods"]
        compared = [key for key in part.run if key not in free or (key == "max_new_tokens" and both_ask)]
        if differing := [key for key in compared if part.run[key] != last.run[key]]:
            raise LoraryError(
                f"runs[{part.number}] and runs[{last.number}] would both write {folder}, with different"
                f" {', '.join(differing)}. Leave one out, or give one another adapter_dir."
            )


def _pick(run: Run, *keys: str) -> dict[str, Any]:
    return {key: run[key] for key in keys}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
