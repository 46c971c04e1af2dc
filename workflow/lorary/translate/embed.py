"""The job that reads passages with the base model: their hidden states, kept for translators."""

import hashlib
import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..core.device import free_memory, limited_memory, out_of_memory, take_device
from ..core.errors import LoraryError, damaged
from ..core.files import written_whole
from ..core.values import Position
from ..core.work import Fault, divided
from ..data import rows as table
from ..data.prompts import load_tokenizer
from ..plan import layout

log = logging.getLogger(__name__)

AT_ONCE = 16  # passages
EPS = 1e-6


def embed(
    output: str, passages: str, rows: list[int], model: str, states: str, precision: str, max_length: int, threads: int
) -> None:
    """Read the passages of some rows (from, up to) of the table `passages`, each alone and without a chat template, at
    most `max_length` tokens of it, and write their `states`, of which translators are made:

    last: the last token's after the final norm, as it is, in float32, as in DyPRAG (arXiv 2503.23895);
    tokens: those of all tokens, half way up and after the final norm, each divided by its root mean square, in float16.

    Raises LoraryError.
    """
    found, tokenizer = table.read(passages, *rows), load_tokenizer(model)
    positions = [(row["did"], row["pid"]) for row in found]
    if lacking := [layout.place(row["did"], row["pid"]) for row in found if not row["passage"]]:
        raise LoraryError(f"{passages}: {lacking[0]} has no passage to be translated (of {len(lacking)} such).")
    ids = [tokenizer(row["passage"])["input_ids"][:max_length] for row in found]
    read: list[np.ndarray] = []  # of each passage (T, depths, C)
    with take_device(threads) as (device, name):
        import torch

        from ..base import decoder
        from ..base.states import layers
        from ..base.states import states as states_of

        frozen = decoder.load(model, precision, device)
        if reason := decoder.beyond(frozen, max(map(max, ids)), max(map(len, ids))):
            raise LoraryError(reason)
        log.info("%s on %s", model, name)
        depths = [layers(frozen)] if states == "last" else [layers(frozen) // 2, layers(frozen)]

        def attempt(some: list[list[int]]) -> Fault | None:
            padded = torch.zeros(len(some), max(map(len, some)), dtype=torch.int64)
            for i, sequence in enumerate(some):
                padded[i, : len(sequence)] = torch.tensor(sequence)
            try:
                batch = states_of(frozen, padded.to(device), depths).float().cpu().numpy()
            except Exception as error:
                if not out_of_memory(error):
                    raise
            else:
                cut = [row[: len(sequence)] for row, sequence in zip(batch, some, strict=True)]
                read.extend(row[-1:] if states == "last" else _normalized(row) for row in cut)
                return None
            free_memory()
            return Fault(f"{len(some[0])} tokens do not fit into memory; a lower max_length would help")

        with limited_memory(device.type):
            for start in range(0, len(ids), AT_ONCE):
                for _, fault in divided(ids[start : start + AT_ONCE], attempt):
                    if fault:
                        raise LoraryError(f"{layout.place(*positions[len(read)])}: {fault.reason}")
    did, pid = zip(*positions, strict=True)
    counts = {"did": did, "pid": pid, "length": list(map(len, read))}
    arrays = {name: np.array(values, dtype=np.int64) for name, values in counts.items()}
    with written_whole(output) as temporary:
        temporary.write_bytes(save({**arrays, "states": np.concatenate(read)}))


def _normalized(states: np.ndarray) -> np.ndarray:
    """(T, depths, C), each state of root mean square 1: some have sizes that float16 does not hold."""
    return (states / np.sqrt(np.square(states).mean(-1, keepdims=True) + EPS)).astype(np.float16)


class Embedded(NamedTuple):
    """The states of a passage, to be read from their file."""

    path: str
    position: Position
    start: int  # its first row there
    stop: int

    def read(self) -> np.ndarray:
        """(T, depths, C), as they were written. Raises LoraryError."""
        try:
            with safe_open(self.path, "np") as file:
                return file.get_slice("states")[self.start : self.stop]
        except (OSError, ValueError, SafetensorError) as error:
            raise damaged(self.path, error) from None

    def shape(self) -> tuple[int, int]:
        """(depths, C)"""
        depths, width = self.read().shape[1:]
        return depths, width

    def sha256(self) -> str:
        return hashlib.sha256(self.read().tobytes()).hexdigest()


def embedded(path: str) -> Iterator[Embedded]:
    """The passages of a file that `embed` wrote, in order. Raises LoraryError."""
    try:
        with safe_open(path, "np") as file:
            did, pid, length = (file.get_tensor(name).tolist() for name in ("did", "pid", "length"))
    except (OSError, ValueError, SafetensorError) as error:
        raise damaged(path, error) from None
    start = 0
    for *position, tokens in zip(did, pid, length, strict=True):
        yield Embedded(path, (position[0], position[1]), start, start := start + tokens)
