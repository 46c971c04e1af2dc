"""The trainer: passages in, trained adapters out, several of them side by side on the one frozen base model.

`Trainer.train` is the loop, `_try_step` the step. Nothing in the loop waits for a GPU: losses stay there until their
passage is finished, and a finished adapter is fetched while the next step runs.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters.lora import Stack
from ..base import decoder
from ..core.device import device_fault, free_memory, out_of_memory
from ..core.errors import LoraryError
from ..core.work import Fault, divided
from ..data.sequences import Example, Passage
from .objective import OBJECTIVES
from .schedule import PLACES, Shape, choose, most_that_pays
from .step import pad

log = logging.getLogger(__name__)


@dataclass
class Training:
    """One passage under way, and in the end its result: `tensors`, or the `error` that it failed with."""

    passage: Passage
    batches: list[list[Example]]
    steps: int  # to do in all
    losses: list[Any] = field(default_factory=list)  # one a step, on the device; floats in the end
    seconds: float = 0.0  # its share of the steps that it took part in
    adapters_per_step: int = 1
    tensors: dict[str, Tensor] | None = None
    error: str | None = None

    def batch(self) -> list[Example]:
        """The examples of its next step."""
        return self.batches[len(self.losses) % len(self.batches)]

    def shape(self) -> Shape:
        return len(self.batch()), max(map(len, self.batch()))


class Trainer:
    def __init__(
        self,
        model: nn.Module,
        base_weight: dict[str, Tensor],
        scale: float,
        settings: dict[str, Any],
        adapters_per_step: int | str = "auto",
        directions: dict[str, np.ndarray] | None = None,
    ):
        """`directions`: of each A of these names, what its rows are to be orthogonal to (in, directions)."""
        self.model, self.settings = model, settings
        self.objective = OBJECTIVES[settings.get("objective", "reference")]
        # 0 for "auto", until the first passage is there to be measured
        self.adapters_per_step = 0 if adapters_per_step == "auto" else int(adapters_per_step)
        self.stack = Stack(model, base_weight, scale, directions)
        decoder.prepare(model)
        self.device = self.stack.device

    def train(self, passages: Iterable[Passage], count: int) -> Iterator[Training]:
        """Train passages (`count` at most), each from the base weight with a new AdamW: `num_train_epochs` passes over
        its batches in their order, one step a batch, no shuffling, schedule or clipping. What the loss is, the
        objective says.

        Yields each when it is finished or has failed. One that fails does not touch the others: a loss or an adapter
        that is not finite, or a step that fits no memory. Raises LoraryError where a layer does not run once a step,
        and what a fault of the device raises.
        """
        passages = iter(passages)
        if not self.adapters_per_step and (first := next(passages, None)) is not None:
            passages = chain([first], passages)
            self.adapters_per_step = self.measure(first, count)
            log.info("adapters a step: %d", self.adapters_per_step)
        n = self.adapters_per_step = min(self.adapters_per_step, max(1, count))
        places = 1 if n == 1 else min(PLACES * n, count)
        self.stack.make(places)
        free = list(range(places))
        under_way: dict[int, Training] = {}
        finished: deque[tuple[Training, Fetched]] = deque()
        clock = time.monotonic()
        while True:
            while free and (passage := next(passages, None)) is not None:
                place = free.pop()
                self.stack.begin(place)
                under_way[place] = self._training(passage)
            if not under_way:
                break
            together = choose({place: training.shape() for place, training in under_way.items()}, n)
            self._step({place: under_way[place] for place in together})
            n, now = self.adapters_per_step, time.monotonic()
            for place in together:
                training = under_way[place]
                training.seconds += (now - clock) / len(together)
                training.adapters_per_step = n
                if training.error or len(training.losses) == training.steps:
                    fetched = Fetched(self.stack.flat[place], training.losses)
                    finished.append((under_way.pop(place), fetched))
                    free.append(place)
            clock = now
            while finished and (finished[0][1].ready() or not under_way):
                yield self._result(*finished.popleft())
        while finished:
            yield self._result(*finished.popleft())

    def _training(self, passage: Passage) -> Training:
        size, examples = self.settings["per_device_train_batch_size"], passage.examples
        batches = [examples[i : i + size] for i in range(0, len(examples), size)]
        return Training(passage, batches, steps=len(batches) * self.settings["num_train_epochs"])

    def _step(self, together: dict[int, Training]) -> None:
        """One step of these passages. One that fails is tried again in two halves, and alone fails its passage."""
        for places, fault in divided(list(together), partial(self._try_step, together)):
            if fault:
                together[places[0]].error = fault.reason

    def _try_step(self, together: dict[int, Training], places: list[int]) -> Fault | None:
        """One step of the passages at n places, or what went wrong; then no adapter has changed."""
        trainings = [together[place] for place in places]
        try:
            self.stack.gather(places)
            losses = self._losses([training.batch() for training in trainings])  # (n,)
            if losses.requires_grad:
                losses.sum().backward()
            self.stack.check_layers()
            self.stack.update(places, self.settings["learning_rate"])
        except Exception as error:  # where it is a passage's, the others go on
            if not out_of_memory(error):
                if not of_a_passage(error):
                    raise
                log.debug("a step failed", exc_info=True)
                return Fault(str(error) or type(error).__name__)
        else:
            for training, value in zip(trainings, losses.detach().unbind(), strict=True):
                training.losses.append(value)
            return None
        self.stack.release()
        free_memory()
        half = (len(places) + 1) // 2
        if half < len(places) and half < self.adapters_per_step:
            self.adapters_per_step = half
            log.warning("a step of %d passages does not fit into memory: going on with %d", len(places), half)
        rows, length = trainings[0].shape()
        lower = "max_length" if rows == 1 else "per_device_train_batch_size or max_length"
        return Fault(f"{rows} x {length} tokens do not fit into memory; a lower {lower} would help")

    def _losses(self, batches: list[list[Example]]) -> Tensor:
        """The loss of each passage of a step (n,), each batch with as many examples."""
        return self.objective(self.model, pad(batches).to(self.device), self.settings)

    def _result(self, training: Training, fetched: "Fetched") -> Training:
        flat, losses = fetched.get()
        training.losses = losses
        bad = next((step for step, value in enumerate(losses, start=1) if not math.isfinite(value)), None)
        if training.error is None and bad is not None:
            training.error = f"the loss of step {bad} is {losses[bad - 1]}; a smaller learning_rate may help"
        if training.error is None and not flat.isfinite().all():
            training.error = "the adapter is not finite after the last step; a smaller learning_rate may help"
        if training.error is None:
            training.tensors = self.stack.tensors(flat)
        return training

    def measure(self, passage: Passage, count: int) -> int:
        """How many adapters a step should train on this device, of `count` passages, by measuring steps of this one.

        On a processor in float32 always one: that keeps it busy, and two runs give the same bytes.
        """
        if self.device.type == "cpu":
            return (
                1
                if self.stack.dtype == torch.float32
                else most_that_pays(partial(self.trial, passage), math.inf, min(count, 4))
            )
        resting = torch.cuda.memory_allocated(self.device)
        memory = 0.9 * (torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)) - resting
        return most_that_pays(partial(self.trial, passage), memory, count)

    def trial(self, passage: Passage, n: int) -> tuple[float, int] | None:
        """Seconds and bytes of a step of n passages like this one, without its update; None where it does not fit, is
        refused."""
        self.stack.make(1)
        self.stack.begin(0)
        batch = max(self._training(passage).batches, key=lambda batch: len(batch) * max(map(len, batch)))
        cuda = self.device.type == "cuda"
        try:
            for _ in range(2):  # the first one is the slower
                if cuda:
                    torch.cuda.synchronize(self.device)
                    torch.cuda.reset_peak_memory_stats(self.device)
                    resting = torch.cuda.memory_allocated(self.device)
                began = time.perf_counter()
                self.stack.gather([0] * n)
                self._losses([batch] * n).sum().backward()
                if cuda:
                    torch.cuda.synchronize(self.device)
            seconds = time.perf_counter() - began
        except Exception as error:
            if not (out_of_memory(error) or of_a_passage(error) or isinstance(error, LoraryError)):
                raise
            return None
        finally:
            self.stack.release()
        step = torch.cuda.max_memory_allocated(self.device) - resting if cuda else 0
        return seconds, step + PLACES * n * self.stack.bytes_a_place()


def of_a_passage(error: Exception) -> bool:
    """Whether what a step has failed of may be in its passages: torch, or a model's own code, refuses values so.
    Anything else is the device's, or a bug, and each passage would fail of it."""
    kinds = RuntimeError | ValueError | LookupError | ArithmeticError | AssertionError
    return isinstance(error, kinds) and not isinstance(error, NotImplementedError) and not device_fault(error)


class Fetched:
    """An adapter and its losses on their way from the device, while that goes on."""

    def __init__(self, flat: Tensor, losses: list[Tensor]):
        stacked = torch.stack(losses) if losses else flat.new_zeros(0)
        self.event: torch.cuda.Event | None = None
        if flat.device.type == "cpu":
            self.flat, self.losses = flat.clone(), stacked
            return
        self.flat, self.losses = (torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in (flat, stacked))
        self.flat.copy_(flat, non_blocking=True)
        self.losses.copy_(stacked, non_blocking=True)
        self.event = torch.cuda.Event()
        self.event.record(torch.cuda.current_stream(flat.device))  # where the copies were put

    def ready(self) -> bool:
        return self.event is None or self.event.query()

    def get(self) -> tuple[Tensor, list[float]]:
        if self.event is not None:
            self.event.synchronize()
        return self.flat, self.losses.tolist()
