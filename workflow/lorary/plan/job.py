"""The one shape of a job: what a rule of any stage is made of."""

from dataclasses import dataclass, field
from typing import Any

from . import layout
from .resources import Resources


@dataclass(frozen=True)
class Job:
    rule: str
    label: str  # for people
    inputs: dict[str, Any]  # files, or lists of them, by name
    outputs: dict[str, Any]
    params: dict[str, Any]  # plain values: a script gets nothing else
    name: str = ""  # of its log and its benchmark; the rule's, where it is not another
    resources: Resources | None = field(default=None, compare=False)

    @property
    def log(self) -> str:
        return layout.log(self.name or self.rule)

    @property
    def outcome(self) -> str:
        """What it says at its end, also when it has failed: for the summary of a call."""
        return layout.log(self.name or self.rule, ".json")

    @property
    def benchmark(self) -> str:
        return layout.benchmark(self.name or self.rule)
