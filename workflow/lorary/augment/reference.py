"""Augmentation as the papers' reference does it (augment.py of Parametric RAG), for comparison.

One rewrite, taken as it comes, and three pairs written as JSON, mended and filtered as there; in our wording, and with
an end to the tries.
"""

import json
import re
from typing import Any

from ..core.errors import LoraryError
from ..core.work import Fault
from ..raw.passages import RawPassage
from .pairs import Notes, draw, result, said
from .talk import Request, Talk

ASKING = ("reference.rewrite", "reference.pairs")  # of the wording
PAIRS, TOKENS = 3, 512


def augment(passage: RawPassage, wording: dict[str, str], tries: int, seed: int) -> Talk:
    """As `pairs.augment`."""
    notes, values = Notes(), {"passage": passage.text, "title": passage.title}
    try:
        drawn = draw(seed, "reference rewrite", passage.text, 0)
        (reply,) = yield [Request(wording["reference.rewrite"], values, TOKENS, seed=drawn)]
        rewrite = said(reply, notes).text.strip()
        pairs: list[dict[str, str]] = []
        for attempt in range(tries):
            drawn = draw(seed, "reference pairs", passage.text, attempt)
            notes.tries, notes.asked = notes.tries + 1, notes.asked + PAIRS
            (reply,) = yield [Request(wording["reference.pairs"], values, TOKENS, seed=drawn)]
            pairs = read_pairs(said(reply, notes).text)
            if pairs:
                break
            notes.faults["no JSON of three pairs"] += 1
    except LoraryError as error:
        return Fault(str(error))
    notes.stood = len(pairs)
    return result(passage, rewrite or None, pairs, notes)


def read_pairs(text: str) -> list[dict[str, str]]:
    """The first three pairs of a reply, mended as the reference does; none where it is not three at least."""
    begin = text.find("[")
    content = text[begin:].strip().removesuffix("```").strip().rstrip(",") if begin >= 0 else ""
    for candidate in (content, content + "]", content[: content.rfind("]") + 1]):
        try:
            found = json.loads(re.sub(r",\s*\]", "]", candidate))
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list) and len(found) >= PAIRS:
            pairs = [_pair(one) for one in found[:PAIRS]]
            return [pair for pair in pairs if pair] if all(pairs) else []
    return []


def _pair(one: Any) -> dict[str, str] | None:
    if not isinstance(one, dict) or not {"question", "answer", "full_answer"} <= one.keys():
        return None
    answer = one["answer"]
    if isinstance(answer, list):
        answer = ", ".join(map(str, answer))
    answer = "Unknown" if answer is None else str(answer)
    if not isinstance(one["question"], str) or not isinstance(one["full_answer"], str):
        return None
    return {"question": one["question"], "answer": answer, "full_answer": one["full_answer"]}
