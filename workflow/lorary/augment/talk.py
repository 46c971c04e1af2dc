"""What is asked of a language model, whichever it is and wherever it runs.

A talk is a generator: it yields lists of requests, is sent the list of their replies, and returns its result. Talks
about several passages go side by side, so that a model here reads their requests in one batch, and a server gets some
at a time.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from ..core.work import Fault


@dataclass(frozen=True)
class Request:
    """One user message and what its reply may be."""

    template: str  # with {names} of values
    values: dict[str, str]  # which are data: no text of theirs is markup where split_special_tokens is set
    most_tokens: int
    stop: str | None = None  # the reply ends before this text
    pattern: str | None = None  # a regular expression that the whole reply matches, where the model can be held to it
    words_of: str | None = None  # the reply is words of this text as they follow each other, likewise
    seed: int | None = None  # for a reply drawn at `temperature`; None: the likeliest
    temperature: float = 0.7


@dataclass(frozen=True)
class Reply:
    text: str
    finished: bool  # it came to its end before most_tokens
    prompt_tokens: int
    tokens: int


Talk = Generator[list[Request], list[Reply | Fault], Any]
