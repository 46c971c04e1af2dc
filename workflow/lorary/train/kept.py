"""What the base model knows beside any passage, in one file: general questions with its own answers, and the directions
of its activations over them. An adapter is kept from changing both (`keep_sequences`, `keep_directions`)."""

import hashlib
import zlib
from dataclasses import dataclass, replace
from math import floor

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..core.errors import damaged
from ..core.files import sync, written_whole
from ..data.sequences import Example, Passage

IDS, BEGINS, LENGTHS = "ids", "begins", "lengths"  # of the sequences, one after the other; all others are directions


@dataclass(frozen=True)
class Kept:
    sequences: list[Example]  # a general question each, of which the base model's own answer is predicted
    directions: dict[str, np.ndarray]  # by the name of an A: orthonormal columns (in, directions), float32
    sha256: str  # of all of it


def write_kept(path: str, sequences: list[Example], directions: dict[str, np.ndarray]) -> None:
    tensors = {
        IDS: np.concatenate([example.ids for example in sequences]),
        BEGINS: np.array([example.begin for example in sequences], dtype=np.int32),
        LENGTHS: np.array([len(example) for example in sequences], dtype=np.int32),
        **{name: np.ascontiguousarray(each, dtype=np.float32) for name, each in directions.items()},
    }
    with written_whole(path) as temporary:
        temporary.write_bytes(save(tensors, {"sha256": _sha256(tensors)}))
        sync(temporary)


def read_kept(path: str) -> Kept:
    """Raises LoraryError where it is not what was written."""
    try:
        with safe_open(path, "numpy") as file:
            tensors, sha256 = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["sha256"]  # noqa: SIM118
        if sha256 != _sha256(tensors):
            raise ValueError("its content is not what was written")
        ids, begins, lengths = (tensors.pop(name) for name in (IDS, BEGINS, LENGTHS))
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise damaged(path, error) from None
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    return Kept([Example(part, int(begin)) for part, begin in zip(parts, begins, strict=True)], tensors, sha256)


def among(passage: Passage, kept: list[Example], each: float, epochs: int) -> Passage:
    """The passage with the sequences of all its epochs, and among them so many of those kept for each of its own, evenly.
    With which these begin, its first sequence's ids say; they go on from epoch to epoch, so that it sees many."""
    place = zlib.crc32(passage.examples[0].ids.tobytes())
    woven: list[Example] = []
    for number, own in enumerate(passage.examples * epochs, start=1):
        woven.append(own)
        while len(woven) - number < floor(number * each + 1e-9):  # 100 x 0.29 is 28.999999999999996
            woven.append(kept[place % len(kept)])
            place += 1
    return replace(passage, examples=woven)


def _sha256(tensors: dict[str, np.ndarray]) -> str:
    content = hashlib.sha256()
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].shape} {tensors[name].dtype}\n".encode())
        content.update(tensors[name].tobytes())
    return content.hexdigest()
