"""What a value may look like that data and config have in common."""

import math
import re
from datetime import datetime
from typing import Any

Position = tuple[int, int]  # of a passage: did, pid

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"  # the files of an adapter, as PEFT names them
MARK = "made_of"  # a file beside a base weight, whose name goes on with a digest of what it was made of

# What may become a folder's name; config.schema.yaml says the same of names in the config.
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]{0,63}"
# What no path may have that Snakemake gets, which takes braces for its own; config.schema.yaml says the same.
UNFIT = re.compile(r"[{}\x00-\x1f\x7f]")


def is_text(value: Any) -> bool:
    """A string without half a surrogate pair, which JSON and YAML can carry and UTF-8 cannot."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def finite(text: str) -> float:
    """A number of JSON's that a float can hold: 1e999 would be read as an infinity, which no JSON can say again. Raises
    ValueError."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def chat_date(text: str) -> datetime:
    """The day that chat templates see as today, written like 26 Jul 2024. Raises ValueError."""
    return datetime.strptime(text, "%d %b %Y")
