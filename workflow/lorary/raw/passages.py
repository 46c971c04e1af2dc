"""A passage as people bring it, before anything has been made of it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RawPassage:
    text: str
    title: str = ""
    extra: dict[str, Any] = field(default_factory=dict)  # id, file, place, ...: kept, and shown to people
