"""The one shape of a job: what a rule of any stage is made of; and the jobs of a stage."""

import os
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.errors import LoraryError
from . import layout
from .resources import AugmentResources, Resources


@dataclass(frozen=True)
class Job:
    rule: str
    label: str  # for people
    inputs: dict[str, Any]  # files, or lists of them, by name
    outputs: dict[str, Any]
    params: dict[str, Any]  # plain values: a script gets nothing else
    name: str = ""  # of its log and its benchmark; the rule's, where it is not another
    resources: Resources | AugmentResources | None = field(default=None, compare=False)
    of: int = field(default=0, compare=False)  # of a training job, for people: so many passages its type has

    @property
    def log(self) -> str:
        return layout.log(self.name or self.rule)

    @property
    def outcome(self) -> str:
        """What it says at its end, also when it has failed: for the summary of a call."""
        return layout.log(self.name or self.rule, ".json")

    @property
    def declared(self) -> list[str]:
        """Of a job that makes adapters: their directories, or the pack, as Snakemake knows them."""
        return [self.outputs["pack"]] if "pack" in self.outputs else self.outputs["adapters"]

    @property
    def benchmark(self) -> str:
        return layout.benchmark(self.name or self.rule)


class Stage:
    """The jobs of one stage, each output once."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self._first: dict[str, tuple[Job, dict[str, Any], int]] = {}

    @property
    def by_label(self) -> dict[str, Job]:
        return {job.label: job for job in self.jobs}

    @property
    def numbered(self) -> list[Job]:
        """Where each has a rule of its own."""
        return [replace(job, rule=layout.numbered(job.rule, i)) for i, job in enumerate(self.jobs)]

    def add(self, job: Job, number: int) -> Job:
        """The first job with these outputs; `number`: of the run that this one is of. Raises LoraryError where the two
        differ."""
        path = os.path.commonpath(list(job.outputs.values()))
        settings = job.params | {key: job.inputs[key] for key in ("model", "table") if key in job.inputs}
        first, before, other = self._first.setdefault(path, (job, settings, number))
        if differing := [key for key in settings if settings[key] != before[key]]:
            raise LoraryError(
                f"runs[{other}] and runs[{number}] would both write {path}, with different"
                f" {', '.join(differing)}. Give them the same, another model_name or another adapter_dir."
            )
        if first is job:
            self.jobs.append(job)
        return first
