"""The methods of answering, a row each: what config, plan, answers, plots and pages know of them is this table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """How a question is answered. A name's order in METHODS is that of tables and plots."""

    title: str  # for people
    colour: str
    passages: bool  # the question's passages stand in the prompt
    adapters: bool  # the adapters of the question's passages are active


# After inference.py of Parametric RAG (Su et al., SIGIR 2025).
METHODS = {
    "vanilla": Method("bare model", "#8a8f98", passages=False, adapters=False),
    "icl": Method("passages in the prompt", "#0d9488", passages=True, adapters=False),
    "prag": Method("adapters", "#2563eb", passages=False, adapters=True),
    "combine": Method("adapters and passages", "#7c3aed", passages=True, adapters=True),
}
