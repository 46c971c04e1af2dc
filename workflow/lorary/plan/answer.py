"""What has to be made of trained adapters: predictions and scores, what was learnt, and exports."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from ..core.errors import LoraryError
from ..core.values import Position
from ..raw import index
from . import layout
from .encode import Encoding, Type
from .job import Job
from .layout import RunFolder
from .methods import MEAN, METHODS, ROUTED, ROUTING, SUM
from .resources import Resources
from .run import Answers, deciding

# What one job does with one load of the base model: seconds to minutes on a GPU.
QUESTIONS_PER_JOB = 256
PASSAGES_PER_JOB = 512
# Goes up with a change that puts a question's passages in another order.
ROUTES = 1
# The ways of working together that can be exported, and how the names of what is exported end.
EXPORTED = {SUM: "", MEAN: "_mean", ROUTED: "_routed.tsv"}


@dataclass(frozen=True)
class Gathered:
    """Jobs whose answers become one result."""

    jobs: list[Job]
    result: Job
    run: RunFolder


@dataclass(frozen=True)
class Answering:
    predictions: list[Gathered]
    knowledge: list[Gathered]
    exports: list[Job]  # merged adapters
    exported_routes: list[Job] = field(default_factory=list)
    routes: dict[str, Job] = field(default_factory=dict)  # by name: which of a question's passages go best with it


def make(encoding: Encoding) -> Answering:
    """Raises LoraryError."""
    by_run: dict[RunFolder, list[Type]] = {}
    for kind in encoding.types:
        by_run.setdefault(kind.folder.run, []).append(kind)
    asked = {run: [kind for kind in kinds if kind.methods] for run, kinds in by_run.items()}
    routes: dict[str, Job] = {}
    exports = list(_exports(by_run, routes))
    return Answering(
        predictions=[
            _prediction(encoding, kind, method, routes)
            for kind in encoding.types
            if kind.questions
            for method in kind.methods
        ],
        knowledge=[
            _knowledge(encoding, layout.numbered("knowledge", i), run, kinds)
            for i, (run, kinds) in enumerate((run, kinds) for run, kinds in asked.items() if kinds)
        ],
        exports=[job for job in exports if "adapter" in job.outputs],
        exported_routes=[job for job in exports if "table" in job.outputs],
        routes=routes,
    )


def _prediction(encoding: Encoding, kind: Type, method: str, made: dict[str, Job]) -> Gathered:
    """predict.json, result.txt and config.json of a method, and the jobs that answer."""
    counts, title = kind.asked_counts, kind.folder.title
    rows = [0, *accumulate(counts)]
    together = _together(kind.asked.answers, method)
    routes = None
    if together.get("routed_top", max(counts)) < max(counts):  # else all of a question's adapters are active
        routes = _routes(kind, together["routed_by"], made)
    parts = []
    for start in range(0, len(counts), QUESTIONS_PER_JOB):
        stop = min(start + QUESTIONS_PER_JOB, len(counts))
        passages = range(rows[start], rows[stop]) if METHODS[method].adapters else range(0)
        params = {
            "method": method,
            "rows": [rows[start], rows[stop]],
            "max_new_tokens": kind.asked.answers.max_new_tokens,
            **together,
        }
        label = f"{method}, {title}, questions {start}-{stop - 1} of {len(counts)}"
        part = _part(encoding, kind, f"predict_{method}", start, stop, label, passages, params, ".json")
        parts.append(replace(part, inputs={**part.inputs, "routes": routes or []}))
    folder = kind.folder.run.predictions(method, kind.folder.kind)
    rule = kind.folder.rule(f"score_{method}")
    settings = {key: value for key, value in kind.asked.flat().items() if key not in ("combine_adapters", *ROUTING)}
    settings = {**deciding(settings), **together, **({"routes": routes} if routes else {})}
    settings |= {"data_type": kind.folder.kind, "inference_method": method}
    result = Job(
        rule=rule,
        name=f"predict/{rule}",
        label=f"{method}, {title}",
        inputs={"parts": [part.outputs["answers"] for part in parts]},
        outputs={
            "predictions": f"{folder}/predict.json",
            "result": f"{folder}/result.txt",
            "config": f"{folder}/config.json",
        },
        params={"label": f"{method}, {title}", "settings": settings},
    )
    return Gathered(parts, result, kind.folder.run)


def _together(answers: Answers, method: str) -> dict[str, Any]:
    """How adapters work together in a method, and which keys decide it; nothing where their updates add up, as ever."""
    way = METHODS[method].together
    if way == SUM:
        return {}
    return {"combine_adapters": way} | {key: getattr(answers, key) for key in ROUTING if way == ROUTED}


def _routes(kind: Type, by: str, made: dict[str, Job]) -> str:
    """The file that puts the passages of each question in order; its job is among those `made`."""
    table = kind.prompts.inputs["table"]
    params = {"by": by, "version": [ROUTES, index.VERSION]}
    name = layout.table_name(kind.run, kind.folder.kind, {"table": table, **params})
    job = Job("route", name, {"table": table}, {"routes": layout.ROUTES.format(routes=name)}, params)
    return made.setdefault(name, job).outputs["routes"]


def _knowledge(encoding: Encoding, rule: str, run: RunFolder, kinds: list[Type]) -> Gathered:
    """knowledge.tsv of a run, and the jobs that ask what was learnt."""
    by_type = [(kind, list(_knowledge_parts(encoding, kind))) for kind in kinds]
    parts = [part for _, parts in by_type for part in parts]
    result = Job(
        rule=rule,
        name=f"predict/{rule}",
        label=run.title,
        inputs={"parts": [part.outputs["answers"] for part in parts]},
        outputs={"table": run.knowledge, "parts": [run.knowledge_part(kind.folder.kind) for kind in kinds]},
        params={
            "folder": run.path,
            "types": {
                kind.folder.kind: {
                    "jobs": [part.outputs["answers"] for part in parts],
                    "part": run.knowledge_part(kind.folder.kind),
                }
                for kind, parts in by_type
            },
        },
    )
    return Gathered(parts, result, run)


def _knowledge_parts(encoding: Encoding, kind: Type) -> Iterator[Job]:
    counts = kind.asked_counts
    positions = [(did, pid) for did, n in enumerate(counts) for pid in range(n)]
    numbers = {position: i for i, position in enumerate(positions)}
    for start in range(0, len(positions), PASSAGES_PER_JOB):
        stop = min(start + PASSAGES_PER_JOB, len(positions))
        others = [_other(did, pid, counts) for did, pid in positions[start:stop]]
        passages = {*range(start, stop), *(numbers[other] for other in others if other)}
        label = f"{kind.folder.title}, passages {start}-{stop - 1} of {len(positions)}"
        params = {"type": kind.folder.kind, "rows": [start, stop], "others": others}
        yield _part(encoding, kind, "test_passages", start, stop, label, passages, params, ".tsv")


def _other(did: int, pid: int, counts: list[int]) -> Position | None:
    """The position of another passage, whose adapter is tried beside a passage's own: of the next question; of the same
    where there is one question only; None where there is one passage only."""
    if len(counts) > 1:
        other = (did + 1) % len(counts)
        return other, pid % counts[other]
    return (did, (pid + 1) % counts[did]) if counts[did] > 1 else None


def _part(
    encoding: Encoding,
    kind: Type,
    what: str,
    start: int,
    stop: int,
    label: str,
    passages: Iterable[int],
    params: dict,
    suffix: str,
) -> Job:
    """One job of those whose answers are gathered, on the base model with the adapters of these passages."""
    prompts = kind.prompts
    folder = f"{layout.batches_name(kind.run, kind.folder)}/{what}"
    name = layout.span(folder, start, stop - 1)
    source = encoding.models[kind.run.model.model_name].params
    answered = {"model_source": source, "prompts": prompts.label, "precision": kind.run.training.precision, **params}
    tokens = params.get("max_new_tokens", 0)
    return Job(
        rule=kind.folder.rule(what, start, of=kind.passages),
        name=f"predict/{name}",
        label=label,
        inputs={**prompts.inputs, "records": _records(kind, passages)},
        outputs={"answers": layout.answers(layout.settled(name, answered), suffix)},
        params={
            "label": label,
            "model_source": source,
            "prompts": {key: value for key, value in prompts.params.items() if key != "max_length"},
            "precision": kind.run.training.precision,
            # What has been finished, item by item. Named after the first one, so that a larger sample finds it.
            "finished": layout.answers(f"{folder}/{start}", ".jsonl"),
            **params,
        },
        # As if each question were a passage to train: generous, and the more so the more tokens an answer may have.
        resources=Resources(stop - start, 1 + tokens // 100, kind.run.training.precision),
    )


def _records(kind: Type, passages: Iterable[int]) -> list[str]:
    """The records of the batches that train these passages (by their numbers)."""
    return [kind.batches[i].outputs["record"] for i in sorted({passage // kind.per_job for passage in passages})]


def _exports(by_run: dict[RunFolder, list[Type]], made: dict[str, Job]) -> Iterator[Job]:
    """The adapters of a question, or those of a list, for each thing that a run's key `export` asks for: as one, or
    (routed) as a table from question to adapter."""
    number = 0
    for run, kinds in by_run.items():
        exports = dict.fromkeys(_exported(answers) for kind in kinds for answers in kind.exporting)
        if not exports:  # mostly: and every job of a cluster reads the Snakefile again
            continue
        there = [
            layout.passage_name(kind.folder.kind, did, pid)
            for kind in kinds
            for did, n in enumerate(kind.counts)
            for pid in range(n)
        ]
        for wanted, way, by in exports:
            names = chosen(there, list(wanted), "export", run.path, types=way == ROUTED)
            output = layout.export(run, list(wanted), names, EXPORTED[way])
            job = Job(
                rule=layout.numbered("export_routes" if way == ROUTED else "export_adapter", number),
                label=f"{len(names)} adapters into {output}",
                inputs={"adapters": [f"{run.path}/{name}" for name in names]},
                outputs={"adapter": output},
                params={"mean": True} if way == MEAN else {},
            )
            if way == ROUTED:
                among = [kind for kind in kinds if any(layout.is_of(name, kind.folder.kind) for name in names)]
                job = _routed(job, among, names, by, made)
            yield job
            number += 1


def _exported(answers: Answers) -> tuple[tuple[str, ...], str, str]:
    """What is exported, in which way, and by what it is put in order (routed)."""
    wanted = answers.export if isinstance(answers.export, list) else [str(answers.export)]
    way = next((way for way in answers.combine_adapters if way in EXPORTED), None)
    if way is None:
        raise LoraryError(
            "export: combine_adapters: mixture is of several models at once, which no adapter can be. Export with"
            f" combine_adapters: {', '.join(EXPORTED)}."
        )
    return tuple(wanted), way, answers.routed_by if way == ROUTED else ""


def _routed(job: Job, kinds: list[Type], names: list[str], by: str, made: dict[str, Job]) -> Job:
    """The job that lists the adapters of these passages for each question, in the place of the one that merges them."""
    if unasked := [kind.folder.kind for kind in kinds if not kind.questions]:
        raise LoraryError(
            f"export: combine_adapters: routed lists the adapters of each question, and there is none of {unasked[0]}."
            " Export with combine_adapters: sum or mean."
        )
    types = {
        kind.folder.kind: {"table": kind.prompts.inputs["table"], "routes": _routes(kind, by, made)} for kind in kinds
    }
    files = [file for of_type in types.values() for file in of_type.values()]
    return replace(
        job,
        inputs={**job.inputs, "files": files},
        outputs={"table": job.outputs["adapter"]},
        params={"folder": kinds[0].folder.run.path, "names": names, "types": types},
    )


def chosen(there: list[str], wanted: list[str], key: str, where: str, types: bool = False) -> list[str]:
    """The passages (<type>/data_<did>/passage_<pid>) among those of `there` that are wanted: one by one, all of a
    question's by its <type>/data_<did>, or, where they may be (`types`), all of a type's. Raises LoraryError."""
    names: list[str] = []
    for name in wanted:
        matching = [passage for passage in there if layout.is_of(passage, name)] if types or "/" in name else []
        if not matching:
            raise LoraryError(
                f"{key}: {where} has no {name}. Name a question as <type>/data_<did>, a passage as"
                f" <type>/data_<did>/passage_<pid>; the first ones are {', '.join(there[:3])}."
            )
        names += matching
    if len(set(names)) < len(names):
        raise LoraryError(f"{key}: a passage is named twice.")
    return names
