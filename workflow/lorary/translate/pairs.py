"""What a translator learns from: passages, each with what is to be known of it."""

import logging
from typing import Any, NamedTuple

from ..core.errors import LoraryError, report
from ..data.sequences import Example, read_passages
from ..plan import layout
from ..train.records import read_record
from .embed import Embedded, embedded

log = logging.getLogger(__name__)


class Pair(NamedTuple):
    """A passage, and what is to be known of it."""

    states: Embedded
    examples: list[Example]
    adapter: str | None = None  # the one that training made of it, and its sha256, where translators learn from these
    sha256: str = ""


def read_pairs(pairs: list[dict[str, Any]], most: int) -> list[Pair]:
    """The passages of these files in order, `most` at most (-1: all). One that has no prompt ids is told and left out.
    Raises LoraryError, also where files do not speak of the same passages."""
    found: list[Pair] = []
    left_out: list[str] = []
    for files_of in pairs:
        states = {passage.position: passage for passage in embedded(files_of["embeddings"])}
        lines = [line for record in files_of["records"] for line in read_record(record).to_dict("records")]
        adapters = {(int(line["did"]), int(line["pid"])): (line["path"], line["sha256"]) for line in lines}
        there = set()
        for passage in read_passages(files_of["prompts"], set(states)):
            there.add(passage.position)
            if len(found) == most:  # whose adapters need not be there
                continue
            place = layout.place(*passage.position)
            if passage.error:
                left_out.append(f"{files_of['prompts']}: {place}: {passage.error}")
                continue
            if files_of["records"] and passage.position not in adapters:
                raise LoraryError(f"{files_of['records'][0]}: {place} has no adapter to learn from.")
            adapter = adapters.get(passage.position, (None, ""))
            found.append(Pair(states[passage.position], passage.examples, *adapter))
        if there != set(states):
            raise LoraryError(
                f"{files_of['prompts']} and {files_of['embeddings']} are not of the same passages: the data changed"
                " meanwhile; run again."
            )
    if left_out:
        log.warning("%s", report(left_out, f"{len(left_out)} passages have no prompt ids, and are left out:"))
    if not found:
        raise LoraryError("There is no passage to train a translator of: see projector_data_dir and sample.")
    return found


def shuffled(pairs: list[Pair]) -> list[Pair]:
    """Each passage with what is to be known of another one, half way round. Raises LoraryError where there is none."""
    if len(pairs) < 2:
        raise LoraryError("translator_control: shuffled mixes passages up, and there is one only to learn from.")
    others = pairs[len(pairs) // 2 :] + pairs[: len(pairs) // 2]
    return [other._replace(states=pair.states) for pair, other in zip(pairs, others, strict=True)]
