"""Parameter translators: what a run with one learns from, and the jobs that embed passages, train it, and have it make
adapters."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import LoraryError
from ..core.values import CONFIG, TENSORS
from . import layout, training
from .job import Job
from .resources import Resources
from .run import LATER, Run, deciding

# Each goes up with every change that makes what it is of differ by more than rounding: all of it is made again then.
EMBEDDED, LEARNT, TRANSLATED = 1, 1, 1
TOKENS = "tokens"
SHUFFLED = "shuffled"  # the control that is another training: passages have each other's pairs
ABOUT = "translator.json"  # what a translator was made of, beside it
SHARED = "shared"  # the folder, beside a translator, of the part that all passages have


@dataclass(frozen=True)
class Kind:
    """A kind of translator, and what it has where the config says nothing."""

    states: str  # what it reads of a passage: its last token's state, or those of all tokens
    learns_from_adapters: bool  # as the projector run of the same settings trains them
    shared: bool  # has a part that all passages share: their task adapter
    hidden: int  # the width of its inner layers
    learning_rate: float
    batch: int  # passages a step
    epochs: int


KINDS = {
    # After DyPRAG's ParameterTranslator (Tan et al., 2025, arXiv 2503.23895).
    "reference": Kind(
        "last", learns_from_adapters=True, shared=False, hidden=32, learning_rate=1e-5, batch=1, epochs=1
    ),
    "memory": Kind(TOKENS, learns_from_adapters=False, shared=True, hidden=128, learning_rate=1e-3, batch=8, epochs=3),
}


@dataclass(frozen=True)
class Pairs:
    """The first passages of a type of projector data: their files, which all have the same spans."""

    prompts: Job
    embeddings: Job
    spans: list[tuple[int, int]]  # of the files: the first passage, and the last
    records: list[list[str]]  # by span: of the jobs that train their adapters, where these are learnt from
    passages: int  # that are learnt from


def of_kind(name: str | None) -> dict[str, Any]:
    """The keys that a kind has values of its own for."""
    keys = ("hidden", "learning_rate", "batch", "epochs")
    return {f"translator_{key}": getattr(KINDS[name], key) for key in keys} if name else {}


def kind_of(run: Run) -> Kind | None:
    """Of the translator of a run, where it has one."""
    return KINDS[run.translating.translator] if run.translating.translator else None


def runs_of_pairs(run: Run) -> list[Run]:
    """The runs with projector: true and else the same settings, one a dataset, that make the pairs which the translator
    of a run learns from. Raises LoraryError where there are no such data."""
    data, found = run.data, []
    answers = replace(run.answers, inference_methods=[], heldout_questions=None, general_questions=None, export=None)
    usual: dict[str, Any] = {
        name: replace(group, **{key: LATER[key] for key in vars(group)})
        for name, group in (("raw", run.raw), ("augmenting", run.augmenting), ("translating", run.translating))
    }
    for dataset in run.translating.translator_datasets or [data.dataset]:
        folder = Path(data.projector_data_dir, dataset, data.augment_model)
        if not folder.is_dir():
            raise LoraryError(
                f"translator: {run.translating.translator}: there is no {folder} (seen from {Path.cwd()}) to learn"
                " from. Projector data, which is augmented data of other passages, lies in"
                " <projector_data_dir>/<dataset>/<augment_model>/<type>.json: put it there, or set projector_data_dir"
                " and translator_datasets."
            )
        of_pairs = replace(data, dataset=dataset, data_type=None, projector=True, sample=-1)
        prompts = replace(run.prompts, heldout_pairs=0)
        found.append(replace(run, data=of_pairs, prompts=prompts, answers=answers, **usual))
    return found


def embeddings(run: Run, kind: str, model: Job, table: Job, states: str, passages: int) -> Job:
    """The states of the passages of a table, of this type, in files of so many passages."""
    inputs = {"model": model.outputs["model"], "table": table.outputs["table"]}
    params = {
        "version": EMBEDDED,
        "model_source": model.params,
        "states": states,
        "precision": run.training.precision,
        "max_length": run.prompts.max_length,
        "modules": run.training.lora_target_modules if states == TOKENS else [],
        **deciding({"split_special_tokens": run.prompts.split_special_tokens}),
    }
    name = f"{run.model.model_name}_{run.data.dataset}_{kind}_{states}_{layout.digest({**inputs, **params})}"
    folder = layout.folder_of(layout.EMBEDDINGS).format(embeddings=name)
    resources = Resources(passages, 1, run.training.precision)
    return Job("embed", name, inputs, {"folder": folder}, params, resources=resources)


def translator(run: Run, model: Job, base_weight: Job, pairs: list[Pairs], spared: Job | None) -> Job:
    """The job that trains the translator of a run. `model`, `base_weight`, `spared`: the jobs that make these, and what
    its adapters are to spare."""
    how, name = run.translating, run.translating.translator
    assert name is not None
    kind = KINDS[name]
    chosen = {key: vars(how)[key] or usual for key, usual in of_kind(name).items()}
    files = [
        {
            "embeddings": layout.EMBEDDINGS.format(embeddings=some.embeddings.label, start=start, stop=stop),
            "prompts": layout.PROMPTS.format(prompts=some.prompts.label, start=start, stop=stop),
            "records": records,
        }
        for some in pairs
        for (start, stop), records in zip(some.spans, some.records, strict=True)
    ]
    keys = vars(run.training)
    taught = {"objective": run.prompts.objective, **{key: keys[key] for key in ("keep_directions", "keep_sequences")}}
    settings = {
        "kind": name,
        **{key.removeprefix("translator_"): value for key, value in chosen.items()},
        "pairs": sum(some.passages for some in pairs),
        "control": SHUFFLED if how.translator_control == SHUFFLED else None,
        "seed": run.training.seed,
        "settings": {"precision": run.training.precision, **deciding(taught)},
        **({"kept": spared.outputs["kept"]} if spared else {}),
    }
    made_of = {
        "version": LEARNT,
        "model_source": model.params,
        "base_weight": base_weight.params,
        "settings": settings,
        "pairs": [[some.prompts.label, some.embeddings.label, some.passages] for some in pairs],
        **({"training": training.settings(run, None)} if kind.learns_from_adapters else {}),
        **({"kept": spared.params} if spared else {}),
    }
    label = f"{run.model.model_name}_{name}_{layout.digest(made_of)}"
    folder = layout.TRANSLATOR.format(translator=label)
    outputs = {"translator": "translator.safetensors", "about": ABOUT, "losses": "losses.tsv"}
    if kind.shared:
        outputs |= {"shared_config": f"{SHARED}/{CONFIG}", "shared_tensors": f"{SHARED}/{TENSORS}"}
    return Job(
        rule="train_translator",
        name=f"train_translator/{label}",
        label=label,
        inputs={
            "model": model.outputs["model"],
            "base_weight": list(base_weight.outputs.values()),
            "embeddings": [entry["embeddings"] for entry in files],
            "prompts": [entry["prompts"] for entry in files],
            "records": [record for entry in files for record in entry["records"]],
            "kept": spared.outputs["kept"] if spared else [],
        },
        outputs={key: f"{folder}/{file}" for key, file in outputs.items()},
        params={
            "version": LEARNT,
            "model_source": model.params,
            "settings": settings,
            "pairs": files,
            "store": run.jobs.store_dir,
        },
        resources=Resources(settings["pairs"], settings["epochs"], run.training.precision),
    )


def task_adapter(translator: Job) -> dict[str, str] | None:
    """What lies under the adapters of a translator, where it has a part that all passages share; without the digest
    that `plan.training.task_adapter` has, since it is not there yet."""
    shared = translator.outputs.get("shared_config")
    return {"path": layout.folder_of(shared)} if shared else None
