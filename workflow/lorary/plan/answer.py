"""What has to be made of trained adapters: predictions and scores, what was learnt, and exports."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..core.files import sha256
from ..core.values import Position
from ..data import heldout
from . import export, layout, route
from .encode import Encoding, Type
from .job import Job
from .layout import RunFolder
from .methods import METHODS, ROUTED, ROUTING, SUM
from .resources import Resources
from .run import Answers, deciding

# What one job does with one load of the base model: seconds to minutes on a GPU.
QUESTIONS_PER_JOB = 256
PASSAGES_PER_JOB = 512
# Keys of a run that decide nothing about what a method answers, or not for each method.
OF_OTHERS = ("combine_adapters", *ROUTING, "heldout_questions", "general_questions", "general_adapters")


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
    heldout: list[Gathered] = field(default_factory=list)


def make(encoding: Encoding) -> Answering:
    """Raises LoraryError."""
    by_run: dict[RunFolder, list[Type]] = {}
    for kind in encoding.types:
        by_run.setdefault(kind.folder.run, []).append(kind)
    asked = {run: [kind for kind in kinds if kind.methods] for run, kinds in by_run.items()}
    routes: dict[str, Job] = {}
    exports = list(export.make(by_run, routes))
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
        heldout=list(_heldout(encoding, asked)),
    )


def _prediction(encoding: Encoding, kind: Type, method: str, made: dict[str, Job]) -> Gathered:
    """predict.json, result.txt and config.json of a method, and the jobs that answer."""
    counts, title = kind.asked_counts, kind.folder.title
    rows = [0, *accumulate(counts)]
    together = _together(kind.asked.answers, method)
    if together.get("routed_top", max(counts)) < max(counts):  # else all of a question's adapters are active
        together["routes"] = route.routes(kind, together["routed_by"], made)  # whose name has what decides them
    parts = []
    for start in range(0, len(counts), QUESTIONS_PER_JOB):
        stop = min(start + QUESTIONS_PER_JOB, len(counts))
        passages = range(rows[start], rows[stop]) if METHODS[method].adapters else range(0)
        params = {
            "method": method,
            "rows": [rows[start], rows[stop]],
            "max_new_tokens": kind.asked.answers.max_new_tokens,
            **together,
            **(_under(kind) if METHODS[method].adapters or METHODS[method].task else {}),
        }
        label = f"{method}, {title}, questions {start}-{stop - 1} of {len(counts)}"
        part = _part(encoding, kind, f"predict_{method}", start, stop, label, passages, params, ".json")
        parts.append(replace(part, inputs={**part.inputs, "routes": together.get("routes", [])}))
    folder = kind.folder.run.predictions(method, kind.folder.kind)
    rule = kind.folder.rule(f"score_{method}")
    settings = {key: value for key, value in kind.asked.flat().items() if key not in OF_OTHERS}
    settings["export"] = None  # as it stood there, whatever is exported: else that would be scored anew
    settings = {**deciding(settings), **together, "data_type": kind.folder.kind, "inference_method": method}
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


def _under(kind: Type) -> dict[str, Any]:
    """The task adapter under the adapters of a type, where there is one."""
    return {"task_adapter": kind.task} if kind.task else {}


def _knowledge(encoding: Encoding, rule: str, run: RunFolder, kinds: list[Type]) -> Gathered:
    """knowledge.tsv of a run, and the jobs that ask what was learnt."""
    by_type = [(kind, list(_knowledge_parts(encoding, kind))) for kind in kinds]
    parts = [part for _, parts in by_type for part in parts]
    result = Job(
        rule=rule,
        name=f"predict/{rule}",
        label=run.title,
        inputs={"parts": [part.outputs["answers"] for part in parts]},
        outputs={
            "table": run.learnt("knowledge"),
            "parts": [run.learnt_part(kind.folder.kind, ".tsv") for kind in kinds],
        },
        params={
            "folder": run.path,
            "types": {
                kind.folder.kind: {
                    "jobs": [part.outputs["answers"] for part in parts],
                    "part": run.learnt_part(kind.folder.kind, ".tsv"),
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
        params = {"type": kind.folder.kind, "rows": [start, stop], "others": others, **_under(kind)}
        yield _part(encoding, kind, "test_passages", start, stop, label, passages, params, ".tsv")


def _heldout(encoding: Encoding, by_run: dict[RunFolder, list[Type]]) -> Iterator[Gathered]:
    """heldout.tsv and its summary of each run of which something is asked that was not trained on, or was by an earlier
    call, whose figures are then withdrawn; and the jobs that ask it. Raises LoraryError where a question is about a
    passage that is not there."""
    number = 0
    for run, kinds in by_run.items():
        jobs = {kind.folder.kind: list(_heldout_parts(encoding, kind)) for kind in kinds}
        if not any(jobs.values()) and not (kinds and Path(run.learnt("heldout")).is_file()):
            continue
        parts = {kind: run.learnt_part(kind, layout.HELDOUT) for kind in jobs}
        answers = {kind: [job.outputs["answers"] for job in some] for kind, some in jobs.items()}
        rule = layout.numbered("heldout", number)
        result = Job(
            rule=rule,
            name=f"predict/{rule}",
            label=run.title,
            inputs={"parts": [file for files in answers.values() for file in files]},
            outputs={
                "table": run.learnt("heldout"),
                "summary": run.learnt("heldout_summary"),
                "parts": [parts[kind] for kind, files in answers.items() if files],
            },
            params={
                "folder": run.path,
                "types": {kind: {"jobs": files, "part": parts[kind]} for kind, files in answers.items()},
            },
        )
        yield Gathered([job for some in jobs.values() for job in some], result, run)
        number += 1


def _heldout_parts(encoding: Encoding, kind: Type) -> Iterator[Job]:
    counts, how, data = kind.asked_counts, kind.asked.answers, kind.asked.data
    kept, written = kind.asked.prompts.heldout_pairs, how.heldout_questions
    asked: dict[Position, int] = {}
    if written:
        asked = heldout.of_type(written, kind.folder.kind, counts, kind.of_data, data.sample == len(counts))
    positions = [(did, pid) for did, n in enumerate(counts) for pid in range(n)]
    numbers = {position: i for i, position in enumerate(positions)}
    path = how.general_questions
    general = _in_turn(path, how.general_adapters, positions) if path else None
    files = [file for file in (written, path) if file]
    sums = [sha256(Path(file)) for file in files]
    for start in range(0, len(positions), PASSAGES_PER_JOB):
        some = positions[start : start + PASSAGES_PER_JOB]
        others = [_other(did, pid, counts) for did, pid in some]
        about = {i for i in range(len(some)) if kept or some[i] in asked}
        questions = sum(kept + asked.get(some[i], 0) for i in about)
        passages = {start + i for i in about} | {numbers[other] for i in about if (other := others[i])}
        params = {
            "type": kind.folder.kind,
            "rows": [start, start + len(some)],
            "others": others,
            "heldout_pairs": kept,
            "written": written,
            "general": general if start == 0 else None,
            "sha256": sums,
            "max_new_tokens": how.max_new_tokens,
            **_under(kind),
        }
        if general and start == 0:
            own = [position for adapters in general[1] for position in adapters]
            questions, passages = questions + len(own), passages | {numbers[position] for position in own}
        if not questions:
            continue
        label = f"{kind.folder.title}, held out, passages {start}-{start + len(some) - 1} of {len(positions)}"
        part = _part(encoding, kind, "test_heldout", start, start + len(some), label, passages, params, ".tsv")
        resources = Resources(questions, 1, kind.run.training.precision)
        yield replace(part, inputs={**part.inputs, "questions": files}, resources=resources)


def _in_turn(path: str, adapters: int, positions: list[Position]) -> tuple[str, list[list[Position]]]:
    """The general questions of a file, and whose adapters each is asked with: they go round, so that as many passages
    as can be have a part in it, at the cost of so many a question."""
    at = [range(i * adapters, (i + 1) * adapters) for i in range(len(heldout.read_general(path)))]
    return path, [list(dict.fromkeys(positions[j % len(positions)] for j in js)) for js in at]


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
        inputs={
            **prompts.inputs,
            "records": _records(kind, passages),
            "task_adapter": layout.adapter_files(params["task_adapter"]["path"]) if "task_adapter" in params else [],
        },
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
