"""The methods of answering, a row each: what config, plan, answers, plots and pages know of them is this table."""

from dataclasses import dataclass

from .run import Answers

# How the adapters of a question's passages work together (`combine_adapters`), the reference's way first.
SUM, MEAN, ROUTED, MIXTURE = "sum", "mean", "routed", "mixture"
TOGETHER = {
    SUM: "their updates add up",
    MEAN: "the mean of their updates",
    ROUTED: "only the adapter whose passage goes best with the question",
    MIXTURE: "one model for each adapter, whose probabilities are averaged at every token",
}
ROUTING = ("routed_top", "routed_by")  # the keys that ROUTED has besides


@dataclass(frozen=True)
class Method:
    """How a question is answered. A name's order in METHODS is that of tables and plots."""

    title: str  # for people
    colour: str
    passages: bool  # the question's passages stand in the prompt
    adapters: bool  # the adapters of the question's passages are active
    together: str = SUM  # in this way
    task: bool = False  # the task adapter alone is active: what it knows without any passage's


# After inference.py of Parametric RAG (Su et al., SIGIR 2025); what works together in another way, and the task adapter
# alone, are ours.
METHODS = {
    "vanilla": Method("bare model", "#8a8f98", passages=False, adapters=False),
    "task": Method("task adapter alone", "#b45309", passages=False, adapters=False, task=True),
    "icl": Method("passages in the prompt", "#0d9488", passages=True, adapters=False),
    "prag": Method("adapters", "#2563eb", passages=False, adapters=True),
    "prag_mean": Method("adapters (mean)", "#60a5fa", passages=False, adapters=True, together=MEAN),
    "prag_routed": Method("adapters (routed)", "#1e3a8a", passages=False, adapters=True, together=ROUTED),
    "prag_mixture": Method("adapters (mixture)", "#0891b2", passages=False, adapters=True, together=MIXTURE),
    "combine": Method("adapters and passages", "#7c3aed", passages=True, adapters=True),
    "combine_mean": Method("adapters (mean) and passages", "#c084fc", passages=True, adapters=True, together=MEAN),
    "combine_routed": Method(
        "adapters (routed) and passages", "#4c1d95", passages=True, adapters=True, together=ROUTED
    ),
    "combine_mixture": Method(
        "adapters (mixture) and passages", "#db2777", passages=True, adapters=True, together=MIXTURE
    ),
}


def named() -> list[str]:
    """The methods that `inference_methods` names: `combine_adapters` says in which ways they are asked."""
    return [name for name, method in METHODS.items() if method.together == SUM]


def variant(name: str, way: str) -> str:
    """The method of this name whose adapters work together in this way: itself, where it has none."""
    return name if way == SUM or not METHODS[name].adapters else f"{name}_{way}"


def answering(answers: Answers) -> list[str]:
    """The methods that answer, each once for every way that makes a difference to it, in the order of the table."""
    wanted = {variant(name, way) for name in answers.inference_methods for way in answers.combine_adapters}
    return [name for name in METHODS if name in wanted]
