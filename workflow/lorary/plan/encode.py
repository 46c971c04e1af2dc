"""What has to be made to encode the passages of the runs, stage by stage.

A stage of two runs that is the same in every setting is one stage; two that would write one path with different
settings are an error.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from ..core.errors import LoraryError
from ..core.pack import within
from . import keep, layout, model, packs, raw, training, translate
from .job import Job, Stage
from .layout import RunFolder, TypeFolder
from .methods import METHODS, answering
from .part import ANOTHER, Part, largest, of_pairs, of_run, refuse_conflict, refuse_others, routing_of
from .resources import Resources
from .run import Answers, Run, deciding
from .translate import Kind, Pairs

# Goes up with every change of the trainer that makes adapters differ by more than rounding: all are trained again then.
NUMERICS = 2
# The same where only what a GPU makes differs. It is no part of an adapter's digest, since that is the same on every
# device: each entry of the store that a GPU made says with which version.
GPU_NUMERICS = 1


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
    task: dict[str, str] | None  # the task adapter: path, and sha256 where it is there already
    questions: bool  # whether there are any to be answered
    of_data: list[str]  # all types of the data, this one among them
    translator: Job | None  # that makes the adapters, if they are not trained

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
    embeddings: dict[str, Job]  # by the name of their folder
    translators: list[Job]
    types: list[Type]
    indexes: dict[RunFolder, Job]
    raw: dict[str, dict[str, Job]]  # what makes augmented data of raw text, by rule and label

    @property
    def batches(self) -> list[Job]:
        """The jobs that make adapters: each trains or translates a batch of passages."""
        return [batch for kind in self.types for batch in kind.batches]

    @property
    def trained(self) -> list[Type]:
        return [kind for kind in self.types if not kind.translator]

    @property
    def translated(self) -> list[Type]:
        return [kind for kind in self.types if kind.translator]


STAGES = ("models", "tables", "prompts", "base_weights", "kept", "embeddings", "translators")


def make(runs: list[Run]) -> Encoding:
    """Reads the data's outline. Raises LoraryError."""
    sharing: dict[str, list[Part]] = {}  # the parts of each type folder
    learnt: dict[int, list[Part]] = {}  # of each run with a translator, what that learns from
    for number, run in enumerate(runs):
        how, parts = translate.kind_of(run), of_run(run, number)
        learnt[number] = of_pairs(run, number) if how else []
        for part in [*(learnt[number] if how and how.learns_from_adapters else []), *parts]:
            sharing.setdefault(part.folder.path, []).append(part)
            refuse_conflict(sharing[part.folder.path])
    stages = {name: Stage() for name in STAGES}
    of_raw: dict[str, dict[str, Job]] = {rule: {} for rule in raw.RULES}
    made: dict[str, tuple[Type, Part]] = {}  # by the path of the type folder
    for parts in sorted(sharing.values(), key=lambda parts: translate.kind_of(parts[0].run) is not None):
        part = largest(parts)  # the same adapters, and more where the sample is larger
        for job in part.data.jobs:
            refuse_others(of_raw[job.rule].setdefault(job.label, job), job)
        if part.data.jobs and part.run.augmenting.augment_with == "local":
            stages["models"].add(model.augment_model(part.run), part.number)
        base, table, ids = _before(part, stages)
        base_weight = stages["base_weights"].add(training.base_weight(part.run, part.folder.run, base), part.number)
        translator, task = None, part.task
        spared = keep.job(part.run, base, part.task) if keep.keeps(part.run) else None
        if spared:
            stages["kept"].add(spared, part.number)
        if how := translate.kind_of(part.run):
            pairs = [_pairs(one, how, stages, made) for one in learnt[part.number]]
            job = translate.translator(part.run, base, base_weight, pairs, spared)
            translator, task = stages["translators"].add(job, part.number), translate.task_adapter(job)
            states = stages["embeddings"].add(_embeddings(part, how, base, table), part.number)
            batches = _translated(part, base, base_weight, states, translator)
        else:
            wanted = max(other.wanted for other in parts)
            batches = _trained(part, base, base_weight, ids, spared)[: -(-wanted // part.per_job)]
        asking = [other for other in parts if other.run.answers.inference_methods]
        asked = largest(asking or [part])
        kind = Type(
            folder=part.folder,
            run=part.run,
            counts=part.first(len(batches) * part.per_job),
            per_job=part.per_job,
            batches=batches,
            prompts=ids,
            methods=[m for m in METHODS if any(m in answering(other.run.answers) for other in asking)],
            asked=routing_of(asking, asked.run),
            asked_counts=asked.counts,
            exporting=[other.run.answers for other in parts if other.run.answers.export],
            task=task,
            questions=part.data.questions,
            of_data=part.data.types,
            translator=translator,
        )
        made[part.folder.path] = kind, part
    by_run: dict[RunFolder, list[tuple[Type, Part]]] = {}
    for kind, part in made.values():
        by_run.setdefault(kind.folder.run, []).append((kind, part))
    return Encoding(
        models=stages["models"].by_label,
        tables=stages["tables"].by_label,
        prompts=stages["prompts"].by_label,
        base_weights=stages["base_weights"].numbered,
        kept=stages["kept"].by_label,
        embeddings=stages["embeddings"].by_label,
        translators=stages["translators"].numbered,
        types=[kind for kind, _ in made.values()],
        indexes={
            folder: _index(layout.numbered("index_adapters", i), folder, contents)
            for i, (folder, contents) in enumerate(by_run.items())
        },
        raw=of_raw,
    )


def _before(part: Part, stages: dict[str, Stage]) -> tuple[Job, Job, Job]:
    """What a type needs before anything is made of its passages: the base model, the table and the prompt ids."""
    base = stages["models"].add(model.base_model(part.run), part.number)
    table = stages["tables"].add(_table(part), part.number)
    return base, table, stages["prompts"].add(_prompts(part, base, table), part.number)


def _embeddings(part: Part, how: Kind, model: Job, table: Job) -> Job:
    _, last = part.file_of(0)
    return translate.embeddings(part.run, part.folder.kind, model, table, how.states, last + 1)


def _pairs(part: Part, how: Kind, stages: dict[str, Stage], made: dict[str, tuple[Type, Part]]) -> Pairs:
    """What a translator learns from in a part of projector data; with the adapters `made` of it, where it does so."""
    wanted, batches = part.wanted, list[Job]()
    if how.learns_from_adapters:
        kind, part = made[part.folder.path]
        batches = kind.batches
    base, table, ids = _before(part, stages)
    states = stages["embeddings"].add(_embeddings(part, how, base, table), part.number)
    spans = sorted({part.file_of(passage) for passage in range(0, wanted, part.per_job)})
    of_each = (batches[first // part.per_job : last // part.per_job + 1] for first, last in spans)
    return Pairs(ids, states, spans, [[batch.outputs["record"] for batch in some] for some in of_each], wanted)


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


def _trained(part: Part, model: Job, base_weight: Job, prompts: Job, kept: Job | None) -> list[Job]:
    """The jobs that train adapters."""
    run = part.run
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
    inputs = {
        "model": model.outputs["model"],
        "base_weight": list(base_weight.outputs.values()),
        "prompts": partial(layout.PROMPTS.format, prompts=prompts.label),
        "task_adapter": layout.adapter_files(part.task["path"]) if part.task else [],
        "kept": kept.outputs["kept"] if kept else [],
    }
    return _batches("train_adapters", part, inputs, params, made_of, run.training.num_train_epochs)


def _translated(part: Part, model: Job, base_weight: Job, embeddings: Job, translator: Job) -> list[Job]:
    """The jobs that have a translator make adapters."""
    params = {
        "model_source": model.params,
        "version": translate.TRANSLATED,
        "control": part.run.translating.translator_control,
        "adapter_precision": part.run.training.adapter_precision,
        "store": part.run.jobs.store_dir,
    }
    made_of = {key: params[key] for key in ("model_source", "version", "control", "adapter_precision")}
    made_of |= {"base_weight": base_weight.params, "embeddings": embeddings.label, "translator": translator.label}
    inputs = {
        "model": model.outputs["model"],
        "base_weight": list(base_weight.outputs.values()),
        "embeddings": partial(layout.EMBEDDINGS.format, embeddings=embeddings.label),
        "translator": translator.outputs["translator"],
    }
    return _batches("translate_adapters", part, inputs, params, made_of, epochs=1)


def _batches(
    rule: str, part: Part, inputs: dict[str, Any], params: dict[str, Any], made_of: dict[str, Any], epochs: int
) -> list[Job]:
    """A job for each batch of a part's passages. Of `inputs`, what is a function gives the file from a `start` to a
    `stop`; `made_of`: what decides the adapters."""
    run, folder = part.run, part.folder
    passages = folder.adapters(part.counts)
    name = layout.batches_name(run, folder)
    if run.jobs.pack:
        made_of = {**made_of, "pack": True}
    batches = []
    for start in range(0, len(passages), part.per_job):
        last = min(start + part.per_job, len(passages)) - 1
        first_of_file, last_of_file = part.file_of(start)
        label = f"{folder.title} {start}" + (f"-{last}" if last > start else "")
        adapters, record = passages[start : last + 1], folder.record(start, last, made_of)
        outputs, of_pack = {"adapters": adapters, "record": record}, {}
        if run.jobs.pack:
            pack = packs.pack_beside(folder.path, record)
            adapters = [within(pack, adapter.removeprefix(f"{folder.path}/")) for adapter in adapters]
            outputs, of_pack = {"adapters": adapters, "record": record, "pack": pack}, {"adapters": adapters}
        batches.append(
            Job(
                rule=folder.rule(rule, start, of=len(passages)),
                name=f"{rule}/{layout.span(name, start, last)}",
                label=label,
                inputs={
                    key: files(start=first_of_file, stop=last_of_file) if callable(files) else files
                    for key, files in inputs.items()
                },
                outputs=outputs,
                params={**params, "label": label, **of_pack},
                resources=Resources(last + 1 - start, epochs, run.training.precision),
                of=len(passages),
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
                    **({"translator": kind.translator.outputs["translator"]} if kind.translator else {}),
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
