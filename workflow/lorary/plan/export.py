"""What is exported of trained adapters, for servers that take one a request."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from ..core.errors import LoraryError
from . import layout, route
from .encode import Type
from .job import Job
from .layout import RunFolder
from .methods import MEAN, ROUTED, SUM
from .run import Answers

# The ways of working together that can be exported, and how the names of what is exported end; by `rank`, another.
EXPORTED = {SUM: "", MEAN: "_mean", ROUTED: "_routed.tsv"}
BY_RANK = "_routed_by_rank.tsv"


def make(by_run: dict[RunFolder, list[Type]], made: dict[str, Job]) -> Iterator[Job]:
    """The adapters of a question, or those of a list, for each thing that a run's key `export` asks for: as one, or
    (routed) as a table from question to adapter."""
    number = 0
    for run, kinds in by_run.items():
        exports = dict.fromkeys(_exported(answers) for kind in kinds for answers in kind.exporting)
        if not exports:  # mostly
            continue
        task = kinds[0].task  # of all of them
        batches = {
            layout.passage_name(kind.folder.kind, *layout.position_of(adapter)): (adapter, batch)
            for kind in kinds
            for batch in kind.batches
            for adapter in batch.outputs["adapters"]
        }
        there, first = by_name(batches), next(iter(batches))
        for wanted, way, by in exports:
            if whole := [kind.folder.kind for kind in kinds if way != ROUTED and kind.folder.kind in wanted]:
                raise LoraryError(
                    f"export: {whole[0]} is a whole type, which only combine_adapters: routed can export. Name a"
                    f" question as <type>/data_<did>, a passage as <type>/data_<did>/passage_<pid>, as {first}."
                )
            names = chosen(there, list(wanted), "export", run.path, types=way == ROUTED)
            adapters, packed = _of_these([batches[name] for name in names])
            output = layout.export(run, list(wanted), names, BY_RANK if by == "rank" else EXPORTED[way])
            job = Job(
                rule=layout.numbered("export_routes" if way == ROUTED else "export_adapter", number),
                label=f"{len(names)} adapters into {output}",
                inputs={
                    "adapters": adapters,
                    "task_adapter": layout.adapter_files(task["path"]) if task else [],
                },
                outputs={"adapter": output},
                params={
                    **({"mean": True} if way == MEAN else {}),
                    **({"task_adapter": task} if task else {}),
                    **({"packed": packed} if packed else {}),
                },
            )
            if way == ROUTED:
                among = [kind for kind in kinds if any(kind.folder.kind in layout.names_of(name) for name in names)]
                job = _routed(job, among, names, by, made)
            yield job
            number += 1


def _of_these(adapters: list[tuple[str, Job]]) -> tuple[list[str], list[str]]:
    """Of adapters, each with its training job, what the job that exports them waits for: themselves, or where they are
    in packs these and the records; and their paths in these."""
    paths = [adapter for adapter, _ in adapters]
    if "pack" not in adapters[0][1].outputs:
        return paths, []
    return list(dict.fromkeys(file for _, job in adapters for file in (*job.declared, job.outputs["record"]))), paths


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
        kind.folder.kind: {"table": kind.prompts.inputs["table"], "routes": route.routes(kind, by, made)}
        for kind in kinds
    }
    files = [file for of_type in types.values() for file in of_type.values()]
    return replace(
        job,
        inputs={**job.inputs, "files": files},
        outputs={"table": job.outputs["adapter"]},
        params={
            **{"folder": kinds[0].folder.run.path, "names": names, "types": types},
            **({"packed": job.params["packed"]} if "packed" in job.params else {}),
        },
    )


def by_name(there: Iterable[str]) -> dict[str, list[str]]:
    """What can be wanted of some passages (<type>/data_<did>/passage_<pid>), and which of them that is: each one, those
    of a question (<type>/data_<did>) and those of a type."""
    names: dict[str, list[str]] = {}
    for passage in there:
        for name in layout.names_of(passage):
            names.setdefault(name, []).append(passage)
    return names


def chosen(there: dict[str, list[str]], wanted: list[str], key: str, where: str, types: bool = False) -> list[str]:
    """The passages of `there` (see `by_name`) that are wanted: one by one, all of a question's, or, where they may be
    (`types`), all of a type's. Raises LoraryError."""
    names: list[str] = []
    for name in wanted:
        matching = there.get(name, []) if types or "/" in name else []
        if not matching:
            first = islice((one for one, passages in there.items() if passages == [one]), 3)
            raise LoraryError(
                f"{key}: {where} has no {name}. Name a question as <type>/data_<did>, a passage as"
                f" <type>/data_<did>/passage_<pid>; the first ones are {', '.join(first)}."
            )
        names += matching
    if len(set(names)) < len(names):
        raise LoraryError(f"{key}: a passage is named twice.")
    return names
