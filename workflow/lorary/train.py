"""Training: one job turns a batch of passages into adapter directories, through the store.

`train_adapters` is the job; `train_passage` is the arithmetic.
"""

import csv
import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from . import adapter as adapters
from .device import take_device
from .errors import LoraryError, report
from .model import fingerprint
from .store import Store, digest

log = logging.getLogger(__name__)

Position = tuple[int, int]  # did, pid


@dataclass
class Passage:
    position: Position
    sequences: list[np.ndarray]  # prompt ids, int32
    error: str | None  # why it has none


def train_adapters(
    outputs: list[str],
    record: str,
    outcome: str,
    model: str,
    base_weight: str,
    prompts: str,
    settings: dict[str, Any],
    store: str,
    threads: int,
) -> None:
    """Make the adapter directories `outputs` (`.../data_<did>/passage_<pid>`) of one batch of passages.

    What the store holds is linked; the rest is trained, each adapter into the store as soon as it is done. A passage
    that fails does not stop the others. `record` is written when all are there, a line an adapter; `outcome` (JSON)
    always, for the summary. Raises LoraryError that names the passages that failed.
    """
    began = time.monotonic()
    paths = {_position(path): path for path in outputs}
    shelf = Store(store)
    decides = {"model": fingerprint(model)["weights"], "base_weight": adapters.digest(base_weight), **settings}
    failures: dict[Position, str] = {}
    digests: dict[Position, str] = {}
    for passage in read_passages(prompts, set(paths)):
        if passage.error:
            failures[passage.position] = f"its prompt ids could not be made: {passage.error}"
        else:
            digests[passage.position] = digest(decides, passage.sequences)
    if not paths.keys() <= digests.keys() | failures.keys():
        raise LoraryError(f"{prompts} lacks passages that were to be trained: the data changed meanwhile; run again.")

    missing = {position: key for position, key in digests.items() if shelf.get(key) is None}
    try:
        if missing:
            with take_device(threads) as (device, device_name):
                job = Job(model, base_weight, settings, device, device_name)
                _train_missing(job, prompts, missing, shelf, failures)
        if failures:
            named = [f"{paths[position]}: {reason}" for position, reason in sorted(failures.items())]
            title = (
                f"{len(failures)} of {len(outputs)} passages failed; the others are in the store, and the same command"
            )
            raise report(named, f"{title} tries just these again:")
        for position, path in paths.items():
            shelf.link(digests[position], path)
        _write_record(record, shelf, digests, paths)
        log.info(
            "%d trained, %d linked from the store, %.1f s",
            len(missing),
            len(paths) - len(missing),
            time.monotonic() - began,
        )
    finally:
        trained = sum(shelf.get(key) is not None for key in missing.values())
        failed = [{"path": paths[position], "reason": reason} for position, reason in sorted(failures.items())]
        Path(outcome).write_text(json.dumps({"trained": trained, "failed": failed}) + "\n")


def _train_missing(
    job: "Job", prompts: str, missing: dict[Position, str], shelf: Store, failures: dict[Position, str]
) -> None:
    """Train the passages that the store lacks, each into the store; note those that fail in `failures`.

    Raises LoraryError when it is asked to stop, after the passage in hand.
    """
    began = time.monotonic()
    asked_to_stop = _stop_after_passage()
    for done, passage in enumerate(read_passages(prompts, set(missing)), start=1):
        if shelf.get(missing[passage.position]) is not None:  # the same passage twice in one batch
            continue
        try:
            tensors, training = job.train(passage)
        except Exception as error:  # whatever goes wrong with one passage, the others go on
            log.debug("data_%d/passage_%d", *passage.position, exc_info=True)
            failures[passage.position] = str(error) or type(error).__name__
            log.error("data_%d/passage_%d failed: %s", *passage.position, failures[passage.position])
            continue
        shelf.put(missing[passage.position], job.config, tensors, training)
        _progress(passage.position, training, done, of=len(missing), began=began)
        if asked_to_stop() and done < len(missing):
            raise LoraryError(
                f"Stopped after {done} of {len(missing)} passages: they are in the store, and the next call goes on."
            )


class Job:
    """What all passages of a job share: the base model with one adapter on it, and the settings."""

    def __init__(self, model: str, base_weight: str, settings: dict[str, Any], device, device_name: str):
        from . import decoder, lora

        config, tensors = adapters.read_adapter(base_weight)
        if settings["precision"] == "bfloat16" and device.type == "cpu" and not _fast_bfloat16():
            log.warning("this processor has no bfloat16 units: precision float32 will be very much faster")
        self.settings, self.device, self.device_name = settings, device, device_name
        self.config = adapters.config_bytes(config)
        self.model = decoder.load(model, settings["precision"], device)
        self.adapter = lora.Adapter(self.model, tensors, config["lora_alpha"] / config["r"])
        log.info("%s on %s", model, device_name)

    def train(self, passage: Passage) -> tuple[bytes, dict[str, Any]]:
        """The bytes of the passage's safetensors file, and what there is to say of its training."""
        began = time.monotonic()
        highest, vocabulary = (
            max(int(ids.max()) for ids in passage.sequences),
            self.model.get_input_embeddings().num_embeddings,
        )
        if highest >= vocabulary:  # a GPU would fail beyond repair
            raise ValueError(f"token id {highest} is beyond the model's vocabulary of {vocabulary}")
        losses = train_passage(self.model, self.adapter, passage.sequences, self.settings)
        training = {
            "sequences": len(passage.sequences),
            "tokens": sum(map(len, passage.sequences)),
            "losses": losses,
            "seconds": round(time.monotonic() - began, 3),
            "device": self.device_name,
        }
        return adapters.tensors_bytes(self.adapter.tensors()), training


def train_passage(model, adapter, sequences: list[np.ndarray], settings: dict[str, Any]) -> list[float]:
    """Train the adapter from the base weight on one passage's sequences; it holds the result. Returns each step's loss.

    A new AdamW, `num_train_epochs` passes over the batches in their order, one step a batch: no shuffling, schedule or
    clipping. The loss is the mean over all labelled tokens of the batch; the labels are the ids themselves.
    Raises FloatingPointError where a loss or a parameter is not finite.
    """
    import torch
    import torch.nn.functional as F

    from . import decoder, lora

    size = settings["per_device_train_batch_size"]
    batches = [_pad(sequences[i : i + size], adapter.flat.device) for i in range(0, len(sequences), size)]
    adapter.reset()
    optimizer = lora.AdamW(adapter.flat, settings["learning_rate"])
    losses = []
    for _ in range(settings["num_train_epochs"]):
        for ids, labels in batches:  # (B, T), (B, T)
            adapter.grad.zero_()
            logits = decoder.logits(model, ids)[:, :-1]  # (B, T - 1, V): each predicts the token after it
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
            loss.backward()
            optimizer.step(adapter.flat, adapter.grad)
            losses.append(loss.detach())
    values = torch.stack(losses).tolist()
    for step, value in enumerate(values):
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of step {step + 1} is {value}; a smaller learning_rate may help")
    if not adapter.flat.isfinite().all():
        raise FloatingPointError("the adapter is not finite after the last step; a smaller learning_rate may help")
    return values


def _pad(sequences: list[np.ndarray], device):
    """ids and labels (B, T), padded on the right to the longest: ids with 0, labels with -100."""
    import torch

    ids = torch.zeros(len(sequences), max(map(len, sequences)), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence)] = labels[i, : len(sequence)] = torch.tensor(sequence)
    return ids.to(device), labels.to(device)


def read_passages(prompts: str, positions: set[tuple[int, int]]) -> Iterator[Passage]:
    """The passages at these positions (did, pid) with their prompt ids, in order, a few in memory at a time."""
    passage: Passage | None = None
    for batch in pq.ParquetFile(prompts).iter_batches(batch_size=256):
        columns = [batch.column(name) for name in ("did", "pid", "input_ids", "error")]
        for did, pid, ids, error in zip(*columns, strict=True):
            position = (did.as_py(), pid.as_py())
            if passage and passage.position != position:
                yield passage
                passage = None
            if position in positions:
                passage = passage or Passage(position, [], error.as_py())
                passage.sequences.append(np.from_dlpack(ids.values))  # to_numpy would import pandas
    if passage:
        yield passage


def _position(path: str) -> tuple[int, int]:
    """(did, pid) of `.../data_<did>/passage_<pid>`."""
    data, passage = Path(path).parts[-2:]
    return int(data.removeprefix("data_")), int(passage.removeprefix("passage_"))


def _write_record(record: str, shelf: Store, digests: dict[Position, str], paths: dict[Position, str]) -> None:
    columns = ["did", "pid", "path", "digest", "sequences", "tokens", "first_loss", "last_loss", "seconds", "device"]
    with open(record, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for (did, pid), path in paths.items():
            training = shelf.get(digests[did, pid])
            losses = training["losses"]
            place = {"did": did, "pid": pid, "path": path, "digest": digests[did, pid]}
            writer.writerow({**training, **place, "first_loss": losses[0], "last_loss": losses[-1]})


def _fast_bfloat16() -> bool:
    import torch

    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


_last_shown = -math.inf


def _progress(position: tuple[int, int], training: dict[str, Any], done: int, of: int, began: float) -> None:
    """A line a passage in the log; on the terminal no more than one in two seconds."""
    global _last_shown
    now = time.monotonic()
    left = (now - began) / done * (of - done)
    first, last = training["losses"][0], training["losses"][-1]
    show = done == of or now - _last_shown > 2
    _last_shown = now if show else _last_shown
    log.log(
        logging.INFO if show else logging.DEBUG,
        "passage %d of %d, data_%d/passage_%d: loss %.3f to %.3f, %.1f s, %.0f s left",
        done, of, *position, first, last, training["seconds"], left,
    )  # fmt: skip


def _stop_after_passage() -> Callable[[], bool]:
    """Ctrl-C and SIGTERM let the passage in hand be finished and stored; a second one does not wait."""
    asked = []

    def ask(number, frame):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        asked.append(number)
        log.warning("stopping after the passage in hand")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return lambda: bool(asked)
