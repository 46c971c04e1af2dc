"""The types of each run, with what goes into them; and what several runs may not do in one folder."""

from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from ..core.errors import LoraryError
from ..core.files import check_folder, refuse_detours
from ..data import questions, rows
from . import layout, raw, training, translate
from .job import Job
from .layout import TypeFolder
from .methods import ROUTED, ROUTING
from .raw import Augmented
from .run import Run

# Up to so many passages `passages_per_job: auto` gives each its own job; beyond, it keeps a run near so many jobs.
JOBS = 100
MOST_PASSAGES_PER_JOB = 64
# In packs, so many a job: then there are fewer than 0.1 files a passage, with those that Snakemake leaves. And where
# adapters are translated, which takes less than the start of a job.
MANY_PASSAGES_PER_JOB = 256
# Prompt ids take milliseconds a passage: fewer to a file than these, and a job would be all start-up.
PASSAGES_PER_FILE = 64
LONGEST_NAME = 255  # of a folder
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
    wanted: int  # of its passages, the first

    @property
    def counts(self) -> list[int]:
        """Passages of each question."""
        return self.data.counts

    @property
    def passages(self) -> int:
        return sum(self.counts)

    def first(self, passages: int) -> list[int]:
        """The same of so many passages, the first."""
        before = [0, *accumulate(self.counts)]
        return [min(n, passages - b) for n, b in zip(self.counts, before, strict=False) if b < passages]

    def file_of(self, passage: int) -> tuple[int, int]:
        """The first and the last passage of the file that has this one: its prompt ids, or its embedding. A file has
        what whole batches need."""
        size = self.per_job * -(-PASSAGES_PER_FILE // self.per_job)
        first = passage - passage % size
        return first, min(first + size, self.passages) - 1


def of_run(run: Run, number: int) -> list[Part]:
    """The types of a run, with what goes into each."""
    _check_paths(run)
    folder = layout.run_folder(run)
    types = _augmented(run) if run.raw.source == "augmented" else raw.types(run)
    per_job = run.jobs.passages_per_job
    if per_job == "auto" and (run.jobs.pack or translate.kind_of(run)):
        per_job = MANY_PASSAGES_PER_JOB
    elif isinstance(per_job, str):  # auto
        total = sum(sum(data.counts) for data in types.values())
        per_job = 1 if total <= JOBS else min(-(-total // JOBS), MOST_PASSAGES_PER_JOB)
    task = training.task_adapter(run)
    parts = [
        Part(run, number, TypeFolder(folder, kind), data, per_job, task, sum(data.counts))
        for kind, data in types.items()
    ]
    for part in parts:
        refuse_detours(part.folder.path, run.jobs.adapter_dir)
    return parts


def of_pairs(run: Run, number: int) -> list[Part]:
    """What the translator of a run learns from: types of projector data, with as many of their first passages as are
    wanted. Raises LoraryError."""
    most, found = run.translating.translator_pairs, list[Part]()
    for part in (part for each in translate.runs_of_pairs(run) for part in of_run(each, number)):
        left = part.passages if most == -1 else most - sum(before.wanted for before in found)
        if left > 0:
            found.append(replace(part, wanted=min(left, part.passages)))
    return found


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
    if (letters := len(layout.run_folder(run).setting)) > LONGEST_NAME:
        raise LoraryError(
            f"The keys of a run that are in its folder's name make that {letters} letters long, and file systems take"
            f" {LONGEST_NAME}: leave some at their defaults, or shorten the names in translator_datasets."
        )
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


def refuse_others(first: Job, job: Job) -> None:
    """Two runs share a job that augments; what decides nothing has to be the same too."""
    one, other = first.params.get("others", {}), job.params.get("others", {})
    if differing := [key for key in other if one[key] != other[key]]:
        raise LoraryError(f"Two runs would have {job.label} augmented, with different {', '.join(differing)}.")


def routing_of(asking: list[Part], run: Run) -> Run:
    """The run, which may not route itself, with how those route that do."""
    routed = next((vars(part.run.answers) for part in asking if ROUTED in part.run.answers.combine_adapters), {})
    return replace(run, answers=replace(run.answers, **{key: routed[key] for key in ROUTING if routed}))


def largest(parts: list[Part]) -> Part:
    """The first of those with the most questions."""
    return max(parts, key=lambda part: len(part.counts))


def refuse_conflict(parts: list[Part]) -> None:
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
