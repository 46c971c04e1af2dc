"""The teacher of `objective: distill`: what the bare model, with the passage in its prompt, says of each token of an
answer, the given one or its own. It is asked once for a passage; what it says is kept in the store.

Distillation from the context, as in Cartridges (Eyuboglu et al., 2025, arXiv 2506.06266).
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from ..base import decoder, reading
from ..base.frozen import FrozenLinear
from ..base.greedy import greedy
from ..core.device import free_memory, out_of_memory
from ..core.files import sync, written_whole
from ..core.store import Store, digest
from ..data.sequences import Example, Passage
from ..plan.training import TEACHER

log = logging.getLogger(__name__)

FOLDER = "teacher"  # of the store
OWN = ("distill_answers", "own_tokens", "max_length", "ends")  # what decides the teacher's own answers

Said = tuple[np.ndarray, np.ndarray]  # (N, k): the likeliest ids (int32), and the log-probability of each (float32)
R = TypeVar("R")
T = TypeVar("T")


class Teacher:
    def __init__(self, model: nn.Module, weights: str, settings: dict[str, Any], store: str):
        """`weights`: the digest of the model's; `model` has no adapters at work whenever `teach` is called. A task
        adapter in its weights is part of the teacher. `settings`: of training, and with `distill_answers: own` the
        `ends` of answers."""
        self.model, self.top_k = model, settings["distill_top_k"]
        self.decides = {"version": TEACHER, "model": weights, "precision": settings["precision"]}
        self.decides |= {key: settings[key] for key in ("task_adapter",) if key in settings}
        self.own = {key: settings[key] for key in OWN if key in settings}
        self.pairs = self.unanswered = 0  # of those that it was to answer itself
        self.store, self.folder = Store(store), Path(store) / FOLDER

    def teach(self, passage: Passage) -> Passage:
        """The passage, each of its examples with what the teacher says of it. Raises what torch raises; that memory is
        short only where a sequence does not fit alone."""
        return self.told(self.answered(passage) if self.own else passage)

    def told(self, passage: Passage) -> Passage:
        """The same, whoever wrote the answers."""
        sequences = [(_of(example), (_begin(example), len(_of(example)))) for example in passage.examples]
        path = self.path(digest(self.decides | {"top_k": self.top_k}, sequences))
        said = _read(path, "likeliest", "logarithms")
        if said is None:
            asked = [(ids.tolist(), begin) for ids, (begin, _) in sequences]
            parts = at_once(lambda some: likeliest(self.model, some, self.top_k), asked)
            said = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
            self.keep(path, likeliest=said[0], logarithms=said[1])
        stops = np.cumsum([example.predicted() for example in passage.examples])[:-1]
        each = zip(*(np.split(array, stops) for array in said), strict=True)
        taught = [replace(example, likeliest=part) for example, part in zip(passage.examples, each, strict=True)]
        return replace(passage, examples=taught)

    def answered(self, passage: Passage) -> Passage:
        """The passage, its examples with the teacher's own greedy answers instead of the given ones; where it has none
        to give, as before."""
        prompts = [_of(example)[: _begin(example)] for example in passage.examples]
        rooms = [self.own["max_length"] - example.begin for example in passage.examples]
        path = self.path(digest(self.decides | self.own | {"rooms": rooms}, ((ids, None) for ids in prompts)))
        kept = _read(path, "answers", "lengths")
        if kept is None:
            ends, most = set(self.own["ends"]), self.own["own_tokens"]
            parts = at_once(lambda some: greedy(self.model, some, ends, most), [ids.tolist() for ids in prompts])
            each = [tokens[:room] for tokens, room in zip(chain.from_iterable(parts), rooms, strict=True)]
            kept = [np.array(values, dtype=np.int32) for values in ([*chain.from_iterable(each)], [*map(len, each)])]
            self.keep(path, answers=kept[0], lengths=kept[1])
        answers = np.split(kept[0], np.cumsum(kept[1])[:-1])
        self.pairs += len(answers)
        self.unanswered += sum(len(answer) == 0 for answer in answers)
        examples = [
            replace(example, ids=np.append(example.ids[: example.begin], answer), teacher=np.append(prompt, answer))
            if len(answer)
            else example
            for example, prompt, answer in zip(passage.examples, prompts, answers, strict=True)
        ]
        return replace(passage, examples=examples)

    def tell(self) -> None:
        """What has to be said once a job."""
        if self.unanswered:
            log.warning(
                "the teacher ends at once after %d of %d questions: the given answer stands there instead of its own",
                self.unanswered, self.pairs,
            )  # fmt: skip
        self.pairs = self.unanswered = 0

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def keep(self, path: Path, **arrays: np.ndarray) -> None:
        content = save(arrays, {"sha256": _sha256([*arrays.values()])})
        for folder in (self.folder, path.parent):
            self.store.make(folder)
        with written_whole(str(path)) as temporary:
            temporary.write_bytes(content)
            temporary.chmod(temporary.stat().st_mode | self.store.shared() & 0o444)
            sync(temporary)


def at_once(ask: Callable[[list[T]], R], sequences: list[T]) -> list[R]:
    """What a teacher says who is asked about all sequences at once, or, where memory is short, about each alone."""
    try:
        return [ask(sequences)]
    except Exception as error:
        if not out_of_memory(error):
            raise
    free_memory()  # here, where the error does not hold any more what did not fit
    log.warning("a teacher's %d sequences do not fit into memory at once: going on one by one", len(sequences))
    return [ask([one]) for one in sequences]


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


def _begin(example: Example) -> int:
    """Where in the teacher's ids begins what is predicted."""
    return len(_of(example)) - example.predicted()


def _read(path: Path, *names: str) -> list[np.ndarray] | None:
    """The arrays of these names that are kept there; None where nothing is, or what is damaged."""
    with contextlib.suppress(OSError, SafetensorError, KeyError, TypeError), safe_open(str(path), "numpy") as file:
        arrays = [file.get_tensor(name) for name in names]
        if file.metadata()["sha256"] == _sha256(arrays):
            return arrays
    return None


def _sha256(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
