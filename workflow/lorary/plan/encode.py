"""What has to be made to encode the passages of the runs, stage by stage.

A stage of two runs that is the same in every setting is one stage; two that would write one path with different
settings are an error.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import LoraryError
from ..core.files import check_folder, refuse_detours
from ..core.pack import within
from ..data import questions, rows
from . import keep, layout, model, packs, raw, training
from .config import Run
from .job import Job, Stage
from .layout import RunFolder, TypeFolder
from .methods import METHODS, ROUTED, ROUTING, answering
from .raw import Augmented
from .resources import Resources
from .run import Answers, deciding

# Up to so many passages `passages_per_job: auto` gives each its own job; beyond, it keeps a run near so many jobs.
JOBS = 100
MOST_PASSAGES_PER_JOB = 64
# In packs, so many a job: then there are fewer than 0.1 files a passage, with those that Snakemake leaves.
PACKED_PASSAGES_PER_JOB = 256
# Prompt ids take milliseconds a passage: fewer to a file than these, and a job would be all start-up.
PASSAGES_PER_PROMPT_FILE = 64
# Goes up with every change of the trainer that makes adapters differ by more than rounding: all are trained again then.
NUMERICS = 2
# The same where only what a GPU makes differs. It is no part of an adapter's digest, since that is the same on every
# device: each entry of the store that a GPU made says with which version.
GPU_NUMERICS = 1
ANOTHER = "Leave one out, or give one another adapter_dir"
# Keys in which two runs may not differ that answer with the same adapters.
ANSWERED = ("max_new_tokens", "heldout_questions", "general_questions", "general_adapters")
# Keys of raw sources in which two runs may differ that write the same adapters.
FREE_OF_RAW = ("augment_at_once", "augment_base_url", "augment_prices", "passages_per_augment_job")


@dataclass(frozen=True)
class Part:
    """One type of one run: what one type folder of the adapter tree holds."""

    run: Run
    number: int  # of the run
    folder: TypeFolder
    data: Augmented
    per_job: int
    task: dict[str, str] | None  # the task adapter

    @property
    def counts(self) -> list[int]:
        """Passages of each question."""
        return self.data.counts


@dataclass(frozen=True)
class Type:
    """One type of one run, encoded: what the stages after training start from."""

    folder: TypeFolder
    run: Run  # of the runs that write there, the one with the most questions
    counts: list[int]  # passages of each question
    per_job: int  # passages a batch
    batches: list[Job]
    prompts: Job
    methods: list[str]
    asked: Run  # of the runs with inference_methods, the one with the most questions
    asked_counts: list[int]
    exporting: list[Answers]  # of the runs that export something of it
    task: dict[str, str] | None  # the task adapter: path and sha256
    questions: bool  # whether there are any to be answered
    of_data: list[str]  # all types of the data, this one among them

    @property
    def passages(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class Encoding:
    models: dict[str, Job]  # by name
    tables: dict[str, Job]
    prompts: dict[str, Job]  # by the name of their folder
    base_weights: list[Job]
    kept: dict[str, Job]  # what adapters are to spare
    types: list[Type]
    indexes: dict[RunFolder, Job]
    raw: dict[str, dict[str, Job]]  # what makes augmented data of raw text, by rule and label

    @property
    def batches(self) -> list[Job]:
        """The training jobs: each trains a batch of passages."""
        return [batch for kind in self.types for batch in kind.batches]


def make(runs: list[Run]) -> Encoding:
    """Reads the data's outline. Raises LoraryError."""
    sharing: dict[str, list[Part]] = {}  # the parts of each type folder
    for number, run in enumerate(runs):
        for part in _parts(run, number):
            sharing.setdefault(part.folder.path, []).append(part)
            _refuse_conflict(sharing[part.folder.path])
    models, tables, prompts, base_weights, kept = Stage(), Stage(), Stage(), Stage(), Stage()
    of_raw: dict[str, dict[str, Job]] = {rule: {} for rule in raw.RULES}
    types: list[Type] = []
    by_run: dict[RunFolder, list[tuple[Type, Part]]] = {}
    for parts in sharing.values():
        part = _largest(parts)  # the same adapters, and more where the sample is larger
        base = models.add(model.base_model(part.run), part.number)
        base_weight = base_weights.add(training.base_weight(part.run, part.folder.run, base), part.number)
        table = tables.add(_table(part), part.number)
        for job in part.data.jobs:
            _refuse_others(of_raw[job.rule].setdefault(job.label, job), job)
        if part.data.jobs and part.run.augmenting.augment_with == "local":
            models.add(model.augment_model(part.run), part.number)
        ids = prompts.add(_prompts(part, base, table), part.number)
        spared = keep.keeps(part.run) and keep.job(part.run, base, part.task)
        if spared:
            kept.add(spared, part.number)
        batches = _batches(part, base, base_weight, ids, spared or None)
        asking = [other for other in parts if other.run.answers.inference_methods]
        asked = _largest(asking or [part])
        kind = Type(
            folder=part.folder,
            run=part.run,
            counts=part.counts,
            per_job=part.per_job,
            batches=batches,
            prompts=ids,
            methods=[m for m in METHODS if any(m in answering(other.run.answers) for other in asking)],
            asked=_routing_of(asking, asked.run),
            asked_counts=asked.counts,
            exporting=[other.run.answers for other in parts if other.run.answers.export],
            task=part.task,
            questions=part.data.questions,
            of_data=part.data.types,
        )
        types.append(kind)
        by_run.setdefault(part.folder.run, []).append((kind, part))
    return Encoding(
        models={job.label: job for job in models.jobs},
        tables={job.label: job for job in tables.jobs},
        prompts={job.label: job for job in prompts.jobs},
        base_weights=[replace(job, rule=layout.numbered(job.rule, i)) for i, job in enumerate(base_weights.jobs)],
        kept={job.label: job for job in kept.jobs},
        types=types,
        indexes={
            folder: _index(layout.numbered("index_adapters", i), folder, contents)
            for i, (folder, contents) in enumerate(by_run.items())
        },
        raw=of_raw,
    )


def _table(part: Part) -> Job:
    files = [str(path) for path in part.data.files]
    data = vars(part.run.data)
    settings = deciding({key: data[key] for key in ("sample", "augment_model", "lenient_answers")})
    name = layout.table_name(part.run, part.folder.kind, {"files": files, **settings})
    return Job("load_data", name, {"files": files}, {"table": layout.TABLE.format(table=name)}, settings)


def _prompts(part: Part, model: Job, table: Job) -> Job:
    prompts = part.run.prompts
    inputs = {"model": model.outputs["model"], "table": table.outputs["table"]}
    params = {**deciding(vars(prompts)), "fewshot": prompts.fewshot if prompts.with_cot else None}
    name = layout.prompts_name(part.run, part.folder.kind, {**inputs, **params})
    inputs |= {"templates": params["prompt_templates"], "fewshot": params["fewshot"] or []}
    return Job("build_prompts", name, inputs, {"folder": layout.PROMPTS_FOLDER.format(prompts=name)}, params)


def _batches(part: Part, model: Job, base_weight: Job, prompts: Job, kept: Job | None) -> list[Job]:
    run, folder = part.run, part.folder
    passages = folder.adapters(part.counts)
    name = layout.batches_name(run, folder)
    per_file = part.per_job * -(-PASSAGES_PER_PROMPT_FILE // part.per_job)
    params = {
        "model_source": model.params,
        "settings": {"numerics": NUMERICS, **training.settings(run, part.task)},
        "gpu_numerics": GPU_NUMERICS,  # which calls the job again; the store says what is left to do
        "adapters_per_step": run.jobs.adapters_per_step,
        "store": run.jobs.store_dir,
        **({"task_adapter": part.task} if part.task else {}),
    }
    made_of = {key: params[key] for key in ("model_source", "settings", "gpu_numerics")}
    made_of |= {"base_weight": base_weight.params, "prompts": prompts.label, **({"kept": kept.label} if kept else {})}
    if run.jobs.pack:
        made_of["pack"] = True
    batches = []
    for start in range(0, len(passages), part.per_job):
        last = min(start + part.per_job, len(passages)) - 1
        first_of_file = start - start % per_file
        last_of_file = min(first_of_file + per_file, len(passages)) - 1
        label = f"{folder.title} {start}" + (f"-{last}" if last > start else "")
        batch = layout.span(name, start, last)
        adapters, record = passages[start : last + 1], folder.record(start, last, made_of)
        outputs, of_pack = {"adapters": adapters, "record": record}, {}
        if run.jobs.pack:
            pack = packs.pack_beside(folder.path, record)
            adapters = [within(pack, adapter.removeprefix(f"{folder.path}/")) for adapter in adapters]
            outputs, of_pack = {"adapters": adapters, "record": record, "pack": pack}, {"adapters": adapters}
        batches.append(
            Job(
                rule=folder.rule("train_adapters", start, of=len(passages)),
                name=f"train_adapters/{batch}",
                label=label,
                inputs={
                    "model": model.outputs["model"],
                    "base_weight": list(base_weight.outputs.values()),
                    "prompts": layout.PROMPTS.format(prompts=prompts.label, start=first_of_file, stop=last_of_file),
                    "task_adapter": layout.adapter_files(part.task["path"]) if part.task else [],
                    "kept": kept.outputs["kept"] if kept else [],
                },
                outputs=outputs,
                params={**params, "label": label, **of_pack},
                resources=Resources(last + 1 - start, run.training.num_train_epochs, run.training.precision),
            )
        )
    return batches


def _index(rule: str, folder: RunFolder, contents: list[tuple[Type, Part]]) -> Job:
    """The table of a run's adapters, and run.json beside it."""
    runs = {part.number: part.run for _, part in contents}
    kind, _ = contents[0]
    first = kind.batches[0]
    if any(other.task != kind.task for other, _ in contents):
        raise LoraryError(f"Two runs would write into {folder.path}, with different task_adapter. {ANOTHER}.")
    parts = {
        kind.folder.kind: {
            "table": folder.part(kind.folder.kind, ".tsv"),
            "run": folder.part(kind.folder.kind, ".json"),
        }
        for kind, _ in contents
    }
    return Job(
        rule=rule,
        label=folder.title,
        inputs={
            "records": [batch.outputs["record"] for kind, _ in contents for batch in kind.batches],
            "tables": sorted({kind.prompts.inputs["table"] for kind, _ in contents}),
            "model": first.inputs["model"],
            "base_weight": first.inputs["base_weight"],
        },
        outputs={"table": folder.index, "run": folder.about, "parts": [f for p in parts.values() for f in p.values()]},
        params={
            "types": [
                {
                    "type": kind.folder.kind,
                    "table": kind.prompts.inputs["table"],
                    "records": [batch.outputs["record"] for batch in kind.batches],
                }
                for kind, _ in contents
            ],
            "folder": folder.path,
            "parts": parts,
            "runs": [deciding(run.flat("answers")) for run in runs.values()],
            "data": sorted({str(path) for _, part in contents for path in part.data.files}),
            **({"task_adapter": kind.task} if kind.task else {}),
        },
    )


def _parts(run: Run, number: int) -> list[Part]:
    """The types of a run, with what goes into each."""
    _check_paths(run)
    folder = layout.run_folder(run)
    types = _augmented(run) if run.raw.source == "augmented" else raw.types(run)
    per_job = run.jobs.passages_per_job
    if per_job == "auto" and run.jobs.pack:
        per_job = PACKED_PASSAGES_PER_JOB
    elif isinstance(per_job, str):  # auto
        total = sum(sum(data.counts) for data in types.values())
        per_job = 1 if total <= JOBS else min(-(-total // JOBS), MOST_PASSAGES_PER_JOB)
    task = training.task_adapter(run)
    parts = [Part(run, number, TypeFolder(folder, kind), data, per_job, task) for kind, data in types.items()]
    for part in parts:
        refuse_detours(part.folder.path, run.jobs.adapter_dir)
    return parts


def _augmented(run: Run) -> dict[str, Augmented]:
    """The types of a run whose source is augmented data."""
    data = run.data
    root = data.projector_data_dir if data.projector else data.data_dir
    folder = Path(root) / data.dataset / data.augment_model
    types, names = questions.type_files(folder, data.data_type), questions.type_names(folder)
    how = data.sample, data.augment_model, data.lenient_answers, run.prompts.heldout_pairs
    return {
        kind: Augmented(files, *rows.outline(files, *how, cache=layout.CUT), names) for kind, files in types.items()
    }


def _check_paths(run: Run) -> None:
    given = {key: getattr(run.training, key) for key in ("base_weight", "task_adapter")}
    needed = {"prompt_templates": run.prompts.prompt_templates, **given}
    if run.prompts.with_cot:
        needed["fewshot"] = run.prompts.fewshot
    for key, path in needed.items():
        if path and not Path(path).exists():
            raise LoraryError(f"{key}: there is no {path} (seen from {Path.cwd()}).")
    for key, path in given.items():
        if lacking := [file for file in layout.adapter_files(path) if not Path(file).is_file()] if path else []:
            raise LoraryError(f"{key}: {path}: no adapter in PEFT's format: there is no {' and no '.join(lacking)}.")
    for key in ("adapter_dir", "store_dir"):
        check_folder(key, getattr(run.jobs, key))


def _refuse_others(first: Job, job: Job) -> None:
    """Two runs share a job that augments; what decides nothing has to be the same too."""
    one, other = first.params.get("others", {}), job.params.get("others", {})
    if differing := [key for key in other if one[key] != other[key]]:
        raise LoraryError(f"Two runs would have {job.label} augmented, with different {', '.join(differing)}.")


def _routing_of(asking: list[Part], run: Run) -> Run:
    """The run, which may not route itself, with how those route that do."""
    routed = next((vars(part.run.answers) for part in asking if ROUTED in part.run.answers.combine_adapters), {})
    return replace(run, answers=replace(run.answers, **{key: routed[key] for key in ROUTING if routed}))


def _largest(parts: list[Part]) -> Part:
    """The first of those with the most questions."""
    return max(parts, key=lambda part: len(part.counts))


def _refuse_conflict(parts: list[Part]) -> None:
    """Two runs may share a type folder only where they would write the same adapters, and the same answers, there."""
    free = {"data_type", "sample", "passages_per_job", "store_dir", "adapters_per_step", *FREE_OF_RAW}
    *before, last = parts
    if not last.run.prompts.with_cot:
        free.add("fewshot")
    for part in before:
        a, b = part.run.flat("answers"), last.run.flat("answers")
        differing = [key for key in a if key not in free and a[key] != b[key]]
        one, other = part.run.answers, last.run.answers
        if one.inference_methods and other.inference_methods:
            both_route = ROUTED in one.combine_adapters and ROUTED in other.combine_adapters
            keys = (*ANSWERED, *(ROUTING if both_route else ()))
            differing += [key for key in keys if getattr(one, key) != getattr(other, key)]
        if differing:
            raise LoraryError(
                f"runs[{part.number}] and runs[{last.number}] would both write {last.folder.path}, with different"
                f" {', '.join(differing)}. {ANOTHER}."
            )
