"""What the base model knows beside any passage, in one file: general questions with its own answers, and the directions
of its activations over them. An adapter is kept from changing both (`keep_sequences`, `keep_directions`)."""

import hashlib
import json
import zlib
from dataclasses import dataclass, replace

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..core.errors import damaged
from ..core.files import sync, written_whole
from ..data.sequences import Example, Passage

IDS, BEGINS, LENGTHS = "ids", "begins", "lengths"  # of the sequences, one after the other; all others are directions
OWN = 50  # sequences of a passage, over all epochs, that `keep_sequences` is enough for


@dataclass(frozen=True)
class Kept:
    key: str  # the digest of all that decides it, which is the same where a machine rounds otherwise
    sequences: list[Example]  # a general question each, of which the base model's own answer is predicted
    # By the name of an A: orthonormal columns (in, directions), float32. Those that are the same are one array.
    directions: dict[str, np.ndarray]


def write_kept(path: str, kept: Kept) -> None:
    first: dict[int, str] = {}
    same = {name: first.setdefault(id(each), name) for name, each in kept.directions.items()}
    tensors = {
        IDS: np.concatenate([example.ids for example in kept.sequences]),
        BEGINS: np.array([example.begin for example in kept.sequences], dtype=np.int32),
        LENGTHS: np.array([len(example) for example in kept.sequences], dtype=np.int32),
        **{name: kept.directions[name] for name in first.values()},
    }
    words = {"key": kept.key, "same": json.dumps(same)}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(tensors, {**words, "sha256": _sha256(tensors, words)}))
        sync(temporary)


def read_kept(path: str) -> Kept:
    """Raises LoraryError where it is not what was written, OSError where it cannot be read."""
    try:
        with safe_open(path, "numpy") as file:
            tensors, words = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118
        if words.pop("sha256") != _sha256(tensors, words):
            raise ValueError("its content is not what was written")
        ids, begins, lengths = (tensors.pop(name) for name in (IDS, BEGINS, LENGTHS))
        directions = {name: tensors[first] for name, first in json.loads(words["same"]).items()}
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        raise damaged(path, error) from None
    parts = zip(np.split(ids, np.cumsum(lengths)[:-1]), begins, strict=True)
    return Kept(words["key"], [Example(part, int(begin)) for part, begin in parts], directions)


def among(passage: Passage, kept: list[Example], count: int, epochs: int) -> Passage:
    """The passage with the sequences of all its epochs, and so many of those kept evenly among them: `count` among 50
    or fewer of its own, and among more, which would teach it more than so many keep, as many more."""
    own = passage.examples * epochs
    count = count_among(count, len(own))
    woven: list[Example] = []
    for done, example in enumerate(own, start=1):
        woven.append(example)
        seen = len(woven) - done
        woven += some_of(kept, passage.examples, seen, done * count // len(own))
    return replace(passage, examples=woven)


def count_among(count: int, own: int) -> int:
    """How many sequences go among so many `own` ones of a passage, if it is `count` among OWN or fewer."""
    return round(count * max(1.0, own / OWN))


def some_of(kept: list[Example], passage: list[Example], start: int, stop: int) -> list[Example]:
    """The kept sequences from `start` up to `stop`, as a passage with these sequences of its own counts them: with
    which they begin, its first one's ids say, so that passages see different ones."""
    first = zlib.crc32(passage[0].ids.tobytes())
    return [kept[(first + i) % len(kept)] for i in range(start, stop)]


def _sha256(tensors: dict[str, np.ndarray], words: dict[str, str]) -> str:
    content = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].shape} {tensors[name].dtype}\n".encode())
        content.update(np.ascontiguousarray(tensors[name]).data)
    return content.hexdigest()
