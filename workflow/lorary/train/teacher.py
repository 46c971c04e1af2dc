"""The teacher of `objective: distill`: what the bare model, with the passage in its prompt, says of each token of an
answer. It is asked once for a passage; what it says is kept in the store.

Distillation from the context, as in Cartridges (Eyuboglu et al., 2025, arXiv 2506.06266).
"""

import contextlib
import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from ..base import decoder, reading
from ..base.frozen import FrozenLinear
from ..core.device import free_memory, out_of_memory
from ..core.files import sync, written_whole
from ..core.store import Store, digest
from ..data.sequences import Example, Passage
from ..plan.training import TEACHER

log = logging.getLogger(__name__)

FOLDER = "teacher"  # of the store

Said = tuple[np.ndarray, np.ndarray]  # (N, k): the likeliest ids (int32), and the log-probability of each (float32)


class Teacher:
    def __init__(self, model: nn.Module, weights: str, settings: dict[str, Any], store: str):
        """`weights`: the digest of the model's; `model` has no adapters at work whenever `teach` is called. A task
        adapter in its weights is part of the teacher."""
        self.model, self.top_k = model, settings["distill_top_k"]
        self.decides = {"version": TEACHER, "model": weights, "precision": settings["precision"], "top_k": self.top_k}
        self.decides |= {key: settings[key] for key in ("task_adapter",) if key in settings}
        self.store, self.folder = Store(store), Path(store) / FOLDER

    def teach(self, passage: Passage) -> Passage:
        """The passage, each of its examples with what the teacher says of it. Raises what torch raises; that memory is
        short only where a sequence does not fit alone."""
        sequences = [
            (_of(example), (len(_of(example)) - example.predicted(), len(_of(example)))) for example in passage.examples
        ]
        path = self.path(digest(self.decides, sequences))
        said = _read(path)
        if said is None:
            said = self.asked([(ids.tolist(), begin) for ids, (begin, _) in sequences])
            self.keep(path, said)
        stops = np.cumsum([example.predicted() for example in passage.examples])[:-1]
        parts = zip(*(np.split(array, stops) for array in said), strict=True)
        taught = [replace(example, likeliest=part) for example, part in zip(passage.examples, parts, strict=True)]
        return replace(passage, examples=taught)

    def asked(self, sequences: list[tuple[list[int], int]]) -> Said:
        """What the model finds `likeliest`: of all sequences at once, or, where memory is short, of one at a time."""
        try:
            return likeliest(self.model, sequences, self.top_k)
        except Exception as error:
            if not out_of_memory(error):
                raise
        free_memory()  # here, where the error does not hold any more what did not fit
        log.warning("a teacher's %d sequences do not fit into memory at once: going on one by one", len(sequences))
        ids, logarithms = zip(*(likeliest(self.model, [one], self.top_k) for one in sequences), strict=True)
        return np.concatenate(ids), np.concatenate(logarithms)

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def keep(self, path: Path, said: Said) -> None:
        tensors = dict(zip(("likeliest", "logarithms"), said, strict=True))
        content = save(tensors, {"sha256": _sha256(said)})
        for folder in (self.folder, path.parent):
            self.store.make(folder)
        with written_whole(str(path)) as temporary:
            temporary.write_bytes(content)
            temporary.chmod(temporary.stat().st_mode | self.store.shared() & 0o444)
            sync(temporary)


@torch.no_grad()
def likeliest(model: nn.Module, sequences: list[tuple[list[int], int]], top_k: int) -> Said:
    """Of each token of each end of these sequences (ids, and where it begins), one after the other: what the model
    finds likeliest there, the `top_k` best of all."""
    if isinstance(model, decoder.Decoder) and isinstance(model.lm_head, FrozenLinear):
        said = [_best(model.lm_head(hidden), top_k) for hidden in reading.ends(model, sequences)]
    else:
        device = next(model.parameters()).device
        said = [
            _best(decoder.logits(model, torch.tensor(ids, device=device)[None])[0, begin - 1 : -1], top_k)
            for ids, begin in sequences
        ]
    ids, logarithms = zip(*said, strict=True)
    return torch.cat(ids).int().cpu().numpy(), torch.cat(logarithms).float().cpu().numpy()


def _best(logits: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """logits (N, V) -> ids (N, k) and log-probabilities (N, k)"""
    exact = logits.float() if logits.dtype == torch.bfloat16 else logits
    best = torch.log_softmax(exact, dim=-1).topk(min(top_k, logits.shape[-1]), dim=-1)
    return best.indices, best.values


def _of(example: Example) -> np.ndarray:
    assert example.teacher is not None  # the prompts of an objective with a teacher have its ids
    return example.teacher


def _read(path: Path) -> Said | None:
    """What is kept there; None where nothing is, or what is damaged."""
    with contextlib.suppress(OSError, SafetensorError, KeyError, TypeError), safe_open(str(path), "numpy") as file:
        said = file.get_tensor("likeliest"), file.get_tensor("logarithms")
        if file.metadata()["sha256"] == _sha256(said):
            return said
    return None


def _sha256(said: Said) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in said)).hexdigest()
