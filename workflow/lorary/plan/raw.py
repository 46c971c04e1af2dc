"""From what people bring to augmented data: passages read or found, and augmented, batch by batch, into the file that
augmented data are read from in any case."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError
from ..core.files import sha256
from ..raw import documents, kept, question_sets, tables
from . import layout
from .job import Job
from .model import augment_model
from .resources import AugmentResources
from .run import Run, deciding

# As for training, a run is kept near so many jobs; but a job that loads a model has to have something to do.
JOBS, LEAST_PASSAGES_PER_JOB = 100, 64
# Each goes up with a change that makes what it is of another: all of it is made again then.
READ, AUGMENTED = 1, 1  # AUGMENTED: also of each result in the store
RULES = ("read_passages", "index_corpus", "retrieve", "augment", "augmented_data")


@dataclass(frozen=True)
class Brought:
    """A type of a run as it was brought: the job that makes the table of its passages."""

    table: Job
    counts: list[int]  # passages of each question, or of each document
    questions: bool  # whether there are any to be answered
    before: list[Job] = field(default_factory=list)  # what that job stands on


@dataclass(frozen=True)
class Augmented:
    """A type of a run, and the files that its augmented data are read from."""

    files: list[Path]
    counts: list[int]
    questions: bool
    types: list[str]  # all of the data, whichever of them the run is for
    jobs: list[Job] = field(default_factory=list)  # that make the files


def types(run: Run) -> dict[str, Augmented]:
    """The types of a run whose source is raw. Reads the outline of what was brought. Raises LoraryError."""
    found: dict[str, Brought] = {}
    if run.raw.source != "questions":
        found[run.raw.source] = _passages(run)
    if run.raw.questions:
        asked = _questions(run, found.get(run.raw.source))
        taken = {run.raw.source: "the type of the passages themselves", question_sets.TOTAL: "that of all questions"}
        if len(asked) > 1 and (clash := next((kind for kind in taken if kind in asked), None)):
            raise LoraryError(
                f"questions: {run.raw.questions} has questions of a type {clash}, which is {taken[clash]}. Rename it"
                " there."
            )
        found |= asked if len(asked) > 1 else {"questions": next(iter(asked.values()))}
    if len(found) == 1:  # a folder with one file holds total.json
        found = {"total": next(iter(found.values()))}
    if run.data.data_type not in (None, *found):
        raise LoraryError(f"data_type: there is no {run.data.data_type}; there is {', '.join(found)}.")
    return {kind: _augmented(run, kind, found) for kind in found if run.data.data_type in (None, kind)}


def _passages(run: Run) -> Brought:
    """Documents, or a table of passages."""
    raw, sample = run.raw, run.data.sample
    if raw.source == "documents":
        path = _there("documents", raw.documents)
        outline = documents.outline(path, raw.passage_words, layout.CUT)
        counts, files = list(outline.values()), list(outline)
        params: dict[str, Any] = {"documents": path, "passage_words": raw.passage_words}
    else:
        path = _there("corpus", raw.corpus)
        counts, files = [1] * tables.count(path, layout.CUT), [path]
        params = {"corpus": path}
    counts = counts if sample == -1 else counts[:sample]
    params |= {"sample": len(counts), "version": [READ, documents.VERSION, tables.VERSION]}
    name = f"{run.data.dataset}_{layout.digest({**params, 'files': files})}"
    params["stamps"] = _stamps(files)
    return Brought(
        Job("read_passages", name, {"files": files}, {"table": layout.RAW.format(raw=name)}, params), counts, False
    )


def _questions(run: Run, among: Brought | None) -> dict[str, Brought]:
    """Questions with the passages that are found for them, by type: among those, or in the corpus."""
    raw, top_k = run.raw, run.raw.retrieve_top_k
    path = _there("questions", raw.questions)
    if among:
        searched, size = among.table.outputs["table"], sum(among.counts)
    else:
        searched = _there("corpus", raw.corpus)
        size = tables.count(searched, layout.CUT)
    if size < top_k:
        raise LoraryError(
            f"retrieve_top_k: {top_k} passages are to be found for each question, and there are {size}: lower it, or"
            " bring more passages."
        )
    params: dict[str, Any] = {"read": among is not None, "version": READ}
    name = f"{run.data.dataset}_{layout.digest({**params, 'corpus': searched})}"
    outputs = {"index": layout.CORPUS_INDEX.format(index=name)}
    params |= {} if among else {"stamps": _stamps([searched])}
    index = Job("index_corpus", name, {"corpus": searched}, outputs, params)
    before = [among.table, index] if among else [index]
    found = {}
    for kind, count in question_sets.count(path, run.data.sample, layout.CUT).items():
        params = {"questions": path, "type": kind, "sample": count, "top_k": top_k, "version": READ}
        name = f"{run.data.dataset}_{kind}_{layout.digest({**params, 'index': index.label})}"
        inputs = {"files": question_sets.files(path), "index": index.outputs["index"]}
        params["stamps"] = _stamps(question_sets.files(path))
        job = Job("retrieve", name, inputs, {"table": layout.RETRIEVED.format(raw=name)}, params)
        found[kind] = Brought(job, [top_k] * count, True, before)
    return found


def _augmented(run: Run, kind: str, types: dict[str, Brought]) -> Augmented:
    """The jobs that augment a type of these, whose augmented data lie in one folder, and the one that puts together
    what they have made."""
    how, brought = run.augmenting, types[kind]
    passages = sum(brought.counts)
    model = augment_model(run) if how.augment_with == "local" else None
    wording = _there("augment_prompts", how.augment_prompts or layout.one_spelling(str(layout.AUGMENT_PROMPTS)))
    decides: dict[str, Any] = {
        "version": AUGMENTED,
        "style": how.augment_style,
        "pairs": how.pairs,
        "tries": how.augment_tries,
        "seed": run.training.seed,
        "chat": deciding(
            {key: getattr(run.prompts, key) for key in ("chat_date", "chat_template_kwargs", "split_special_tokens")}
        ),
    }
    others: dict[str, Any] = {"store": run.jobs.store_dir}  # which decide nothing
    if model:
        decides |= {"model_source": model.params, "precision": how.augment_precision or run.training.precision}
    else:
        decides |= {"server_model": how.augment_server_model or run.data.augment_model}
        others |= {"base_url": how.augment_base_url, "at_once": how.augment_at_once, "prices": how.augment_prices}
    size = how.passages_per_augment_job
    if isinstance(size, str):  # auto
        size = max(-(-passages // JOBS), LEAST_PASSAGES_PER_JOB)
    decides["wording"] = [wording, sha256(Path(wording))]
    name = f"{run.data.dataset}_{kind}_{layout.digest({**decides, 'table': brought.table.label})}"
    job = Job(
        rule="augment",
        label=name,
        inputs={
            "table": brought.table.outputs["table"],
            "model": model.outputs["model"] if model else [],
            "wording": wording,
        },
        outputs={"folder": layout.AUGMENT_FOLDER.format(part=name)},
        params={**decides, "others": others},
        resources=AugmentResources(min(size, passages), how.pairs, decides.get("precision")),
    )
    parts = [
        layout.AUGMENT_PART.format(part=name, start=start, stop=min(start + size, passages) - 1)
        for start in range(0, passages, size)
    ]
    labels = [other.table.label for other in types.values()]
    whole = layout.augmented_name(run, kind, {**decides, "tables": labels})
    gather = Job(
        "augmented_data",
        whole,
        {"table": brought.table.outputs["table"], "parts": parts},
        {"data": layout.AUGMENTED.format(augmented=whole), "about": layout.AUGMENTATION.format(augmented=whole)},
        {"augment_model": run.data.augment_model, "wanted": how.pairs},
    )
    return Augmented(
        [Path(gather.outputs["data"])],
        brought.counts,
        brought.questions,
        list(types),
        [*brought.before, brought.table, job, gather],
    )


def _stamps(files: list[str]) -> str:
    """What changes with these files. To Snakemake, one that takes another's place is news only where it is younger than
    what was made of the other, and what comes out of an archive is not."""
    return layout.digest([kept.stamp(os.stat(file)) for file in files])


def _there(key: str, path: str | None) -> str:
    """This file or folder of a key's. Raises LoraryError where there is none."""
    if not path or not os.path.exists(path):
        raise LoraryError(f"{key}: there is no {path} (seen from {Path.cwd()}).")
    return path
