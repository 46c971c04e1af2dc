"""The whole plan of a call: what `rule all` and the named targets ask for, and what the Snakefile needs of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from . import answer, encode, layout, raw
from .answer import Answering, Gathered
from .config import resolve
from .encode import Encoding
from .job import Job

# So many files of prompt ids are made where Snakemake runs, on a cluster too: some minutes. More are sent, grouped.
LOCAL_PROMPTS = 200


@dataclass(frozen=True)
class Plan:
    encoding: Encoding
    answering: Answering

    @cached_property
    def jobs(self) -> dict[str, dict[str, Job]]:
        """By stage, and there by what tells them apart in their rules: the name of the rule, where each has its own, or
        what a wildcard of it stands for."""
        encoding, answering = self.encoding, self.answering
        named = {
            "get_model": encoding.models,
            "load_data": encoding.tables,
            "build_prompts": encoding.prompts,
            "keep": encoding.kept,
            "embed": encoding.embeddings,
            "route": answering.routes,
            **encoding.raw,
        }
        adapters = {"train_adapters": encoding.trained, "translate_adapters": encoding.translated}
        ruled = {
            "init_base_weight": encoding.base_weights,
            "train_translator": encoding.translators,
            **{stage: [job for kind in kinds for job in kind.batches] for stage, kinds in adapters.items()},
            "index_adapters": encoding.indexes.values(),
            **_gathered("predict", "score", answering.predictions),
            **_gathered("test_passages", "knowledge", answering.knowledge),
            **_gathered("test_heldout", "heldout", answering.heldout),
            "export_adapter": answering.exports,
            "export_routes": answering.exported_routes,
        }
        return named | {stage: {job.rule: job for job in jobs} for stage, jobs in ruled.items()}

    @cached_property
    def models(self) -> list[str]:
        return [job.outputs["model"] for job in self.encoding.models.values()]

    @cached_property
    def augmented(self) -> list[str]:
        """Augmented data that are made here, and how they came about."""
        return [file for job in self.encoding.raw["augmented_data"].values() for file in job.outputs.values()]

    @cached_property
    def tables(self) -> list[str]:
        return [job.outputs["table"] for job in self.encoding.tables.values()]

    @cached_property
    def prompts(self) -> list[str]:
        """Of what adapters are trained on, or a translator of them."""
        trained = [batch.inputs["prompts"] for kind in self.encoding.trained for batch in kind.batches]
        return sorted({*trained, *(file for job in self.encoding.translators for file in job.inputs["prompts"])})

    @cached_property
    def prompts_are_grouped(self) -> bool:
        return len(self.prompts) > LOCAL_PROMPTS

    @cached_property
    def adapters(self) -> list[str]:
        """What has all of them made: their records, whose names say what they were made of, so that Snakemake asks for
        no file in between; and of each job whose record is there, the first adapter that is not. To be asked for every
        adapter takes Snakemake minutes where there are many, since it compares each with all those of its job."""
        there = (batch.declared for batch in self.encoding.batches if Path(batch.outputs["record"]).exists())
        lacking = (next((path for path in adapters if not Path(path).exists()), None) for adapters in there)
        return [*filter(None, lacking), *self.records]

    @cached_property
    def records(self) -> list[str]:
        return [batch.outputs["record"] for batch in self.encoding.batches]

    @cached_property
    def packs(self) -> list[str]:
        return [batch.outputs["pack"] for batch in self.encoding.batches if "pack" in batch.outputs]

    @cached_property
    def base_weights(self) -> list[str]:
        return [file for job in self.encoding.base_weights for file in job.outputs.values()]

    @cached_property
    def kept(self) -> list[str]:
        return [job.outputs["kept"] for job in self.encoding.kept.values()]

    @cached_property
    def translators(self) -> list[str]:
        return [file for job in self.encoding.translators for file in job.outputs.values()]

    @cached_property
    def indexes(self) -> list[str]:
        jobs = self.encoding.indexes.values()
        return [file for job in jobs for file in (job.outputs["table"], job.outputs["run"], *job.outputs["parts"])]

    @cached_property
    def stores(self) -> list[str]:
        return sorted({batch.params["store"] for batch in self.encoding.batches})

    @cached_property
    def predictions(self) -> list[str]:
        return [gathered.result.outputs["predictions"] for gathered in self.answering.predictions]

    @cached_property
    def scores(self) -> list[str]:
        """Of runs that have inference_methods: the table of scores, and what was learnt."""
        scores = [layout.SCORES] if self.predictions else []
        knowledge = [gathered.result.outputs for gathered in self.answering.knowledge]
        scores += [file for outputs in knowledge for file in (outputs["table"], *outputs["parts"])]
        heldout = [gathered.result.outputs for gathered in self.answering.heldout]
        return scores + [f for outputs in heldout for f in (outputs["table"], outputs["summary"], *outputs["parts"])]

    @cached_property
    def answers(self) -> list[str]:
        """What the jobs that answer leave; their names too say what it was made of."""
        gathered = [*self.answering.predictions, *self.answering.knowledge, *self.answering.heldout]
        return [job.outputs["answers"] for each in gathered for job in each.jobs]

    @cached_property
    def report(self) -> list[str]:
        return [layout.REPORT] if self.scores else []

    @cached_property
    def everything(self) -> list[str]:
        return [*self.adapters, *self.base_weights, *self.indexes, *self.answers, *self.scores, *self.report]

    def shown_runs(self) -> list[dict[str, Any]]:
        """What the summary page shows of each run: where its results lie."""
        knowledge = {gathered.run: gathered.result.outputs["table"] for gathered in self.answering.knowledge}
        heldout = {gathered.run: gathered.result.outputs["table"] for gathered in self.answering.heldout}
        return [
            {
                "title": run.title,
                "folder": run.path,
                "about": index.outputs["run"],
                "records": index.inputs["records"],
                "knowledge": knowledge.get(run),
                **({"heldout": heldout[run]} if run in heldout else {}),  # as before, where nothing is held out
                "answers": run.beside("predictions"),
                "predictions": [
                    {
                        "file": gathered.result.outputs["predictions"],
                        "type": gathered.result.params["settings"]["data_type"],
                        "method": gathered.result.params["settings"]["inference_method"],
                    }
                    for gathered in self.answering.predictions
                    if gathered.run == run
                ],
            }
            for run, index in self.encoding.indexes.items()
        ]

    def shown_augmentation(self) -> list[dict[str, str]]:
        """What the summary page shows of what was augmented here."""
        return [
            {"title": job.label, "about": job.outputs["about"], "part": job.inputs["parts"][0]}
            for job in self.encoding.raw["augmented_data"].values()
        ]

    def answered_runs(self) -> list[dict[str, Any]]:
        """For scores: where the answers and the adapters of each run lie, and of which types this call is."""
        return [
            {
                "answers": run.beside("predictions"),
                "adapters": run.path,
                "types": [kind.folder.kind for kind in self.encoding.types if kind.folder.run == run],
            }
            for run in self.encoding.indexes
        ]

    def outcomes(self) -> list[dict[str, Any]]:
        """For the summary of a call: what each job that makes adapters says at its end, also when it has failed."""
        return [
            {
                "dataset": kind.folder.run.dataset,
                "type": kind.folder.kind,
                "outcome": batch.outcome,
                "log": batch.log,
                "adapters": batch.outputs["adapters"],
            }
            for kind in self.encoding.types
            for batch in kind.batches
        ]

    def wanted(self) -> list[dict[str, Any]]:
        """For prune: the batches of passages that are trained, by what decides their digests; and of those that are
        translated the records, which have them: what decides them is not known before they are made."""
        trained = [
            {
                **{key: batch.inputs[key] for key in ("model", "prompts")},
                **{key: batch.params[key] for key in ("settings", "store")},
                "base_weight": kind.folder.run.base_weight,
                "adapters": batch.outputs["adapters"],
                **({"kept": batch.inputs["kept"]} if batch.inputs["kept"] else {}),
            }
            for kind in self.encoding.trained
            for batch in kind.batches
        ]
        translated = [batch for kind in self.encoding.translated for batch in kind.batches]
        return trained + [{"store": batch.params["store"], "record": batch.outputs["record"]} for batch in translated]

    def batches(self) -> list[dict[str, str]]:
        """For verify and rewrite_configs: records, each with what the configs of its adapters follow from, and its
        store."""
        return [
            {
                "record": layout.record_there(batch.outputs["record"], batch.name),
                "model": batch.inputs["model"],
                "base_weight": kind.folder.run.base_weight,
                "store": batch.params["store"],
            }
            for kind in self.encoding.types
            for batch in kind.batches
        ]

    def tables_of_adapters(self) -> list[str]:
        """For rewrite_configs: every table that lists adapters besides the records."""
        jobs = self.encoding.indexes.values()
        parts = [part["table"] for job in jobs for part in job.params["parts"].values()]
        return [*(job.outputs["table"] for job in jobs), *parts]

    def translators_with_sha256(self) -> list[dict[str, str]]:
        """For verify: translators, each with a file that has its sha256."""
        return [{key: job.outputs[key] for key in ("translator", "about")} for job in self.encoding.translators]

    def base_weights_of_runs(self) -> list[dict[str, str]]:
        """For verify: base weights, each with a run.json that has its sha256."""
        return [{"base_weight": run.base_weight, "run": run.about} for run in self.encoding.indexes]


def nothing() -> Plan:
    """The plan of no run."""
    return Plan(Encoding({}, {}, {}, [], {}, {}, [], [], {}, {rule: {} for rule in raw.RULES}), Answering([], [], []))


def make(config: dict[str, Any]) -> Plan:
    """The plan of a config as Snakemake hands it over. Reads the data's outline. Raises LoraryError."""
    encoding = encode.make(resolve(config))
    return Plan(encoding, answer.make(encoding))


def _gathered(stage: str, result: str, all_of_it: list[Gathered]) -> dict[str, list[Job]]:
    return {stage: [job for each in all_of_it for job in each.jobs], result: [each.result for each in all_of_it]}
