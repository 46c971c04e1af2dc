"""A translator in training on one device: its network, AdamW's state, and a step."""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters import files
from ..adapters.lora import BETAS, EPS, WEIGHT_DECAY, Stack
from ..adapters.rows import Rows, twice
from ..base import decoder
from ..core.device import free_memory, out_of_memory
from ..core.errors import LoraryError
from ..core.pack import sha256
from ..core.values import TENSORS
from ..data.sequences import Example
from ..train.kept import Kept as Spared
from ..train.kept import count_among, some_of
from ..train.objective import OBJECTIVES, logits_of, losses_of_logits, means
from ..train.step import pad
from .kept import Kept
from .memory import Memory
from .networks import make, stacked
from .pairs import Pair

# Of the reference kind, beside the cross entropy (DyPRAG, arXiv 2503.23895)
DIVERGENCE, DISTANCE = 0.01, 100.0
# Of a memory: passages that its statistics are of, the gradient's greatest length, and steps of warm-up
MEASURED, LONGEST, WARM_UP = 100, 1.0, 50


class Learner:
    def __init__(
        self,
        model: nn.Module,
        base_weight: dict[str, Tensor],
        scale: float,
        pairs: list[Pair],
        params: dict[str, Any],
        spared: Spared | None = None,
    ):
        """`scale`: alpha / rank; `pairs`: all that it is to learn from; `spared`: what its adapters are to spare."""
        self.model, self.settings = model, params["settings"]
        self.rows, shape = Rows.of(base_weight), pairs[0].states.shape()
        self.about = {"kind": params["kind"], "hidden": params["hidden"], "shape": shape, "scale": scale}
        of_each = spared.directions if spared else {}
        directions = [of_each[name] for name in self.rows.names if name in of_each]
        if directions:
            self.about["spared"] = [each.shape[1] for each in directions]
        self.network = make(**self.about, base_weight=base_weight, seed=params["seed"])
        if isinstance(self.network, Memory):
            self.network.measure([pair.states.read() for pair in pairs[:MEASURED]])
            self.network.spare(directions)
        shares = self.network.shared() is not None
        self.stack = Stack(model, twice(base_weight) if shares else base_weight, scale)
        self.stack.batch.key = "translator_batch"
        decoder.prepare(model)
        self.device = self.stack.device
        self.network.to(self.device, self.stack.start.dtype)
        self.loss, self.rate = LEARNING[params["kind"]]
        self.learning_rate = params["learning_rate"]
        self.epochs = params["epochs"]
        self.total = math.ceil(len(pairs) / params["batch"]) * self.epochs  # steps
        self.kept = spared.sequences if spared else []
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), self.learning_rate, BETAS, EPS, WEIGHT_DECAY, foreach=False
        )
        self.losses: dict[str, list[float]] = defaultdict(list)  # of each term, a value a step
        self.done = 0  # steps
        self.at_once = params["batch"]  # passages that go through the model together

    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def order(self, count: int, seed: int, epoch: int) -> list[int]:
        """The passages in the order of an epoch."""
        draw = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randperm(count, generator=draw).tolist()

    def step(self, pairs: list[Pair]) -> dict[str, float]:
        """A step of these passages. Returns their mean loss, and its terms. Raises LoraryError where it is not finite,
        or fits no memory; then nothing has changed."""
        losses = self._gradient(pairs)
        if not np.isfinite(losses["loss"]):
            raise LoraryError(
                f"the loss of step {self.done + 1} is {losses['loss']}; a smaller translator_learning_rate may help."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * self.rate(self.done, self.total)
        if isinstance(self.network, Memory):
            nn.utils.clip_grad_norm_(self.network.parameters(), LONGEST)
        self.optimizer.step()
        for term, value in losses.items():
            self.losses[term].append(value)
        self.done += 1
        return losses

    def _gradient(self, pairs: list[Pair]) -> dict[str, float]:
        """The mean loss over passages and its terms, and its gradient into the network. Where memory is short, fewer
        passages go together."""
        while True:
            self.optimizer.zero_grad()
            losses: dict[str, float] = defaultdict(float)
            try:
                for some in _together(pairs, self.at_once):
                    for term, value in self._part(some, 1 / len(pairs)).items():
                        losses[term] += value
                return losses
            except Exception as error:
                if not out_of_memory(error):
                    raise
            if self.at_once == 1:
                raise LoraryError("a passage's sequences do not fit into memory, even alone: lower max_length.")
            self.stack.release()
            free_memory()
            self.at_once = (self.at_once + 1) // 2

    def _part(self, pairs: list[Pair], weight: float) -> dict[str, float]:
        batch = stacked([pair.states.read() for pair in pairs])
        flat, shared = self.network(self._there(batch)), self.network.shared()  # (n, D)
        at_work = flat if shared is None else self.rows.joined(flat, shared)
        direct, losses = self.loss(self, flat, at_work, pairs)
        self.stack.check_layers()
        # what comes back out of the matrices, and what is asked of the adapters themselves
        through = (at_work * self.stack.gradients()).sum()
        (weight * (through + direct)).backward()
        return {term: weight * value.sum().item() for term, value in losses.items()}

    def _there(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """On the device."""
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def end_to_end(self, flat: Tensor, at_work: Tensor, pairs: list[Pair]) -> tuple[Any, dict[str, Tensor]]:
        """The training's objective, of each passage's sequences with its adapter."""
        self.stack.put(at_work)
        step = pad([pair.examples + self._kept(pair) for pair in pairs]).to(self.device)
        losses = OBJECTIVES[self.settings.get("objective", "reference")](self.model, step, self.settings)  # (n,)
        losses.sum().backward()
        return 0.0, {"loss": losses.detach()}

    def _kept(self, pair: Pair) -> list[Example]:
        """Of the general questions that are kept, those that a passage has in this epoch."""
        epoch = self.done * self.epochs // self.total
        count = count_among(self.settings.get("keep_sequences", 0), len(pair.examples) * self.epochs)
        start, stop = (count * e // self.epochs for e in (epoch, epoch + 1))
        return some_of(self.kept, pair.examples, start, stop)

    def reference(self, flat: Tensor, at_work: Tensor, pairs: list[Pair]) -> tuple[Any, dict[str, Tensor]]:
        """As DyPRAG has it, of a passage's first sequence: cross entropy, how far what the model says with the adapter
        is from what it says with the trained one, and how far the adapters are from each other. Unlike its code, the
        update has its alpha / rank, and the divergence is a mean over tokens that are predicted."""
        step = pad([pair.examples[:1] for pair in pairs]).to(self.device)
        trained = torch.stack([self._trained(pair) for pair in pairs]).to(self.device)  # (n, D)
        with torch.no_grad():
            self.stack.put(trained)
            wanted = torch.log_softmax(logits_of(self.model, step).float(), dim=-1)  # (N, V)
        self.stack.put(at_work)
        logits = logits_of(self.model, step)
        said = losses_of_logits(logits, step.targets, step.owner, step.counts)  # (n,)
        apart = wanted.exp() * (wanted - torch.log_softmax(logits.float(), dim=-1))
        divergence = means(apart.sum(-1), step.owner, step.counts)
        (said + DIVERGENCE * divergence).sum().backward()
        distance = self.rows.mean_squares(flat - trained)  # (n,)
        losses = said + DIVERGENCE * divergence + DISTANCE * distance
        terms = {"loss": losses, "cross_entropy": said, "divergence": divergence, "distance": distance}
        return DISTANCE * distance.sum(), {term: value.detach() for term, value in terms.items()}

    def _trained(self, pair: Pair) -> Tensor:
        """The adapter that training made of a passage (D,)."""
        assert pair.adapter is not None
        if sha256(pair.adapter)[TENSORS] != pair.sha256:
            raise LoraryError(
                f"{pair.adapter}/{TENSORS} is not what was trained. `snakemake verify` removes what is damaged, and the"
                " next call links or trains it again."
            )
        return self.rows.flat(files.read_adapter(pair.adapter)[1])

    def save(self, kept: Kept, seconds: float) -> None:
        """How far it has come, so that it goes on to the same bytes. `seconds`: spent so far."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            tensors |= {f"adamw.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        kept.save(tensors, {"done": self.done, "losses": self.losses, "seconds": seconds})

    def restore(self, kept: Kept) -> float:
        """Go on from what is kept. Returns the seconds that were spent before."""
        if (saved := kept.saved()) is None:
            return 0.0
        tensors, about = saved
        self.network.load_state_dict({name: tensors[f"network.{name}"] for name in self.network.state_dict()})
        for name, parameter in self.network.named_parameters():
            if f"adamw.{name}.step" not in tensors:  # it has no gradient: no layer of these adapters needs it
                continue
            state = {key: tensors[f"adamw.{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = state | {
                key: state[key].to(self.device) for key in ("exp_avg", "exp_avg_sq")
            }
        self.done, self.losses = about["done"], defaultdict(list, about["losses"])
        return about["seconds"]

    @torch.no_grad()
    def finish(self, kept: Kept, pairs: list[Pair], about: dict[str, Any]) -> None:
        """Keep the network, with the mean of what it makes of these passages."""
        total = torch.zeros(sum(self.rows.sizes), dtype=torch.float64)
        for pair in pairs:
            total += self.network(self._there(stacked([pair.states.read()])))[0].double().cpu()
        tensors = self.network.state_dict() | {"mean": (total / len(pairs)).float()}
        kept.finish(tensors, {**about, **self.about, "losses": self.losses})


def steady(step: int, total: int) -> float:
    """The part of the learning rate that a step takes."""
    return 1.0


def up_and_down(step: int, total: int) -> float:
    """The same: up over the first steps, and down over the second half, to a twentieth."""
    return min(1, (step + 1) / WARM_UP) * max(0.05, min(1, 2 * (1 - step / total)))


LEARNING: dict[str, tuple[Any, Callable[[int, int], float]]] = {
    "reference": (Learner.reference, steady),
    "memory": (Learner.end_to_end, up_and_down),
}


def _together(pairs: list[Pair], most: int) -> list[list[Pair]]:
    """Passages that go through the model together: with as many sequences each, and `most` at a time."""
    alike: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        alike[len(pair.examples)].append(pair)
    return [some[i : i + most] for some in alike.values() for i in range(0, len(some), most)]
