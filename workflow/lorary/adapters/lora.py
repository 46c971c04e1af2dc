"""Adapters stacked, in training or at work: LoRA layers of n passages beside each frozen projection, one matrix product
for all.

After LoRA (Hu et al., ICLR 2022), for each passage of a step: y = W x + alpha / rank * B A x.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..base.decoder import Decoder
from ..base.frozen import FrozenLinear
from ..core.device import to_device
from ..core.errors import LoraryError
from ..core.private import fused_adamw
from .files import PREFIX, read_adapter
from .outside import Outside
from .rows import Rows, is_b, partner

log = logging.getLogger(__name__)

BETAS, EPS, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 0.01  # of AdamW, as the reference leaves them


@dataclass
class Batch:
    """What goes through a model, as all LoRA layers on it see it."""

    ids: tuple[int, ...] | None = None  # (B, T), their shape; None: of a model that is written out here
    key: str = "adapters_per_step"  # of the config: how many passages take a step together
    ran: list["LoraLinear"] = field(default_factory=list)  # a layer each time that its gradient was written


class LoraLinear(nn.Module):
    """A frozen linear layer with the LoRA matrices of the n passages of a step beside it."""

    def __init__(self, base: nn.Module, name: str, batch: Batch):
        super().__init__()
        self.name, self.batch = name, batch
        if not isinstance(base, FrozenLinear):
            base = FrozenLinear(cast(Tensor, base.weight), cast(Tensor | None, base.bias))
        self.base = base
        # A times alpha / rank (n, r, in), and B (n, r, out): transposed, its thin products are four times as fast
        self.A: Tensor | None = None
        self.B: Tensor | None = None
        self.A_grad: Tensor | None = None
        self.B_grad: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.A is None:
            return self.base(x)
        if len(self.A) > 1 and self.batch.ids is not None:
            self.refuse_mixed(x, *self.batch.ids)
        return LoraProduct.apply(x, self.A, self.B, self)

    def refuse_mixed(self, x: Tensor, B: int, T: int) -> None:
        """Raises LoraryError unless x has the B sequences in their order, of which each passage has as many."""
        if len(x) != B and (x.ndim != 2 or len(x) != B * T):
            raise LoraryError(
                f"{self.name}: this layer gets {' x '.join(map(str, x.shape))} of {B} sequences of {T} tokens, as"
                f" experts do: whose they are cannot be told. {self.batch.key}: 1 trains one passage at a time."
            )


class LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, A: Tensor, B: Tensor, layer: LoraLinear) -> Tensor:
        rows = x.reshape(len(A), -1, x.shape[-1])  # (n, tokens of a passage, in)
        u = torch.bmm(rows, A.mT)  # (n, tokens, r)
        y = layer.base.product(x)
        y.view(len(A), -1, y.shape[-1]).baddbmm_(u, B)
        ctx.save_for_backward(rows, u, A, B)
        ctx.layer = layer
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        rows, u, A, B = ctx.saved_tensors
        layer, needs_dx = ctx.layer, ctx.needs_input_grad[0]
        d_rows = dy.reshape(len(A), -1, dy.shape[-1])
        du = torch.bmm(d_rows, B.mT)
        # Straight to their places in the step's gradient: nothing to fill with zeros before, or to add up.
        torch.bmm(u.mT, d_rows, out=layer.B_grad)
        torch.bmm(du.mT, rows, out=layer.A_grad)
        layer.batch.ran.append(layer)
        if not needs_dx:
            return None, None, None, None
        dx = layer.base.gradient(dy.contiguous())
        dx.view(rows.shape).baddbmm_(du, A)
        return dx, None, None, None


def attach(model: nn.Module, names: Iterable[str]) -> tuple[dict[str, LoraLinear], Batch]:
    """Put a LoRA layer in the place of each linear layer that an adapter of these tensors changes. Returns them by the
    names of their A, and what they share."""
    layers, batch = {}, Batch()

    def note(_, arguments: tuple, settings: dict) -> None:
        ids = settings.get("input_ids")
        batch.ids = None if ids is None else tuple(ids.shape)

    if not isinstance(model, Decoder):
        model.register_forward_pre_hook(note, with_kwargs=True)
    for name in names:
        module, _, kind = name.removeprefix(PREFIX).rpartition(".lora_")
        if kind == "A.weight":
            parent, _, child = module.rpartition(".")
            layers[name] = LoraLinear(model.get_submodule(module), module, batch)
            setattr(model.get_submodule(parent), child, layers[name])
    return layers, batch


class Active:
    """Trained adapters at work on one base model: each row of a batch has a set of its own, whose updates add up."""

    def __init__(self, model: nn.Module, names: Iterable[str], task: "Adapter | None" = None):
        """`names`: of the adapters' tensors. A `task` adapter is one more of every set that has any, once."""
        self.task = task
        self.layers, _ = attach(model, dict.fromkeys([*names, *(task.tensors if task else ())]))
        self.matrices: dict[
            str, tuple[Tensor, Tensor]
        ] = {}  # A (rows, rank of a set, in), B (rows, rank of a set, out)
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    def set(self, sets: list[list["Adapter"]]) -> None:
        """A set of adapters for each row; smaller sets are filled with zeros."""
        if (task := self.task) is not None:
            sets = [[task, *(other for other in some if other is not task)] if some else [] for some in sets]
        rank = max((sum(adapter.rank for adapter in adapters) for adapters in sets), default=0)
        self.matrices = {}
        for name in self.layers if rank else ():
            changing = (adapter.tensors for adapters in sets for adapter in adapters if name in adapter.tensors)
            if (some := next(changing, None)) is None:
                continue
            A = torch.zeros(len(sets), rank, some[name].shape[1])
            B = torch.zeros(len(sets), rank, some[partner(name)].shape[0])
            for row, adapters in enumerate(sets):
                start = 0
                for adapter in adapters:
                    place = slice(start, start := start + adapter.rank)
                    if name not in adapter.tensors:  # which the task adapter changes, and no passage's; or the reverse
                        continue
                    torch.mul(adapter.tensors[name], adapter.scale, out=A[row, place])
                    B[row, place] = adapter.tensors[partner(name)].mT
            self.matrices[name] = A.to(self.device, self.dtype), B.to(self.device, self.dtype)
        self.select(slice(None))

    def take(self, rows: list[int]) -> None:
        """From now on these rows."""
        self.matrices = {name: (A[rows], B[rows]) for name, (A, B) in self.matrices.items()}
        self.select(slice(None))

    def select(self, rows: slice) -> None:
        """The next forward passes are of these rows."""
        for name, layer in self.layers.items():
            matrices = self.matrices.get(name)
            layer.A, layer.B = (None, None) if matrices is None else (matrices[0][rows], matrices[1][rows])


@dataclass(frozen=True)
class Adapter:
    """A trained adapter in memory."""

    tensors: dict[str, Tensor]
    rank: int
    scale: float  # alpha / rank


def load_adapter(directory: str) -> Adapter:
    """Raises LoraryError."""
    config, tensors = read_adapter(directory)
    return Adapter(tensors, config["r"], config["lora_alpha"] / config["r"])


class Stack:
    """Adapters in training on one base model, each in its place; any n of them take a step together.

    An adapter is a row of `flat`, with a row of each of AdamW's two averages, all in the base weight's type (float32).
    For a step the rows are gathered into the matrices of the layers, in the base model's type.
    """

    def __init__(
        self,
        model: nn.Module,
        base_weight: dict[str, Tensor],
        scale: float,
        directions: dict[str, np.ndarray] | None = None,
    ):
        self.device, self.dtype = next(model.parameters()).device, next(model.parameters()).dtype
        self.rows = rows = Rows.of(base_weight)
        self.start = rows.flat(base_weight).to(self.device)  # (D,)
        # of every parameter in a step: alpha / rank for those of A, so that no layer has to scale anything (D,)
        scales = [1.0 if is_b(name) else scale for name in rows.names]
        self.scale = torch.tensor(scales).repeat_interleave(torch.tensor(rows.sizes)).to(self.start)
        self.outside = Outside(directions or {}, dict(zip(rows.names, rows.shapes, strict=True)), self.start)
        self._project(self.start[None], [0], self.outside.room(1))
        self.layers, self.batch = attach(model, rows.names)
        self.trained: set[LoraLinear] = set()  # which a step gives a gradient, all others none; empty before the first
        self.untouched: list[slice] = []  # of D: the parameters of those others
        self.gathered: Tensor | None = None  # (n, D) of the current step
        self.gradient: Tensor | None = None  # (n, D)

    def make(self, places: int) -> None:
        """Room for so many adapters."""
        self.flat, self.mean, self.square = (self.start.new_zeros(places, len(self.start)) for _ in range(3))
        self.steps = [torch.zeros((), device=self.device) for _ in range(places)]

    def bytes_a_place(self) -> int:
        return 3 * self.start.nbytes

    def begin(self, place: int) -> None:
        """The base weight and a new AdamW into a place."""
        self.flat[place].copy_(self.start)
        for state in (self.mean[place], self.square[place], self.steps[place]):
            state.zero_()

    def gather(self, places: list[int]) -> None:
        """The adapters at these places into the layers, for a step of n."""
        index = to_device(torch.tensor(places), self.device)
        self._fill(self.flat.index_select(0, index).mul_(self.scale))

    def put(self, flat: Tensor) -> None:
        """Adapters (n, D) from elsewhere into the layers, for a step of n."""
        self._fill(flat.detach() * self.scale)

    def _fill(self, scaled: Tensor) -> None:
        self.batch.ran.clear()
        if self.gathered is None or len(self.gathered) != len(scaled):
            self.gathered = self._attach(len(scaled))
        self.gathered.copy_(scaled)

    def gradients(self) -> Tensor:
        """Of the adapters of the step (n, D), in their type."""
        assert self.gradient is not None  # after a gather
        return self.gradient * self.scale

    def check_layers(self) -> None:
        """To be called between a step and its update. Raises LoraryError where the model's gradients are not what the
        layers have written: each writes its own, once, and the same layers do in every step. Those that never do, as
        in a vision tower, are left alone, as PEFT's optimizer leaves what has no gradient."""
        ran = set(self.batch.ran)
        if len(ran) < len(self.batch.ran):
            layer, times = Counter(self.batch.ran).most_common(1)[0]
            raise LoraryError(
                f"{layer.name}: this layer runs {times} times in a step, as shared or looped layers do, and Lorary"
                " trains only what runs once. Leave it out of lora_target_modules."
            )
        if not ran:
            raise LoraryError("None of the layers that were to be trained gets a gradient: see lora_target_modules.")
        if not self.trained:
            self.trained = ran
            self._leave_alone([layer for layer in self.layers.values() if layer not in ran])
        if ran != self.trained:
            names = _listed([layer for layer in self.layers.values() if layer in ran ^ self.trained])
            raise LoraryError(
                f"{names}: these layers run in some steps only, as experts do that tokens are routed to, and Lorary"
                " trains only what runs in each. Leave them out of lora_target_modules."
            )

    def _leave_alone(self, layers: list[LoraLinear]) -> None:
        if layers:
            log.warning(
                "%d of %d layers get no gradient from text, and stay as in the base weight: %s",
                len(layers), len(self.layers), _listed(layers),
            )  # fmt: skip
        start = 0
        for name, size in zip(self.rows.names, self.rows.sizes, strict=True):
            part = slice(start, start := start + size)
            if self.layers[name.replace(".lora_B.", ".lora_A.")] not in layers:
                continue
            if self.untouched and self.untouched[-1].stop == part.start:  # one copy for all that lie together
                part = slice(self.untouched.pop().start, part.stop)
            self.untouched.append(part)

    def update(self, places: list[int], learning_rate: float) -> None:
        """One step of AdamW (Loshchilov & Hutter, ICLR 2019) for the gathered adapters, fused over them.

        What it allocates, the gradients in the adapters' type and room for projecting, it does before it changes
        anything.
        """
        gradients, room = self.gradients(), self.outside.room(len(places))
        fused_adamw(
            [self.flat[place] for place in places],
            list(gradients),
            [self.mean[place] for place in places],
            [self.square[place] for place in places],
            [self.steps[place] for place in places],
            learning_rate,
            BETAS,
            WEIGHT_DECAY,
            EPS,
        )
        self._project(self.flat, places, room)
        for part in self.untouched:
            for place in places:
                self.flat[place, part].copy_(self.start[part])

    def _project(self, flat: Tensor, places: list[int], room: list[Tensor]) -> None:
        if not self.outside.directions:
            return
        index = to_device(torch.tensor(places), self.device)
        self.outside.project(zip(self.rows.names, self.rows.views(flat.detach()), strict=True), index, room)

    def tensors(self, flat: Tensor) -> dict[str, Tensor]:
        """The tensors of one adapter (D,), by PEFT's names."""
        return self.rows.tensors(flat.detach())

    def release(self) -> None:
        """Let go of the matrices of a step, as when memory is short."""
        for layer in self.layers.values():
            layer.A = layer.B = layer.A_grad = layer.B_grad = None
        self.gathered = self.gradient = None

    def _attach(self, n: int) -> Tensor:
        """The matrices of n adapters and their gradients into the layers; returns the matrices (n, D), not filled."""
        gathered, gradient = (torch.zeros(n, len(self.start), dtype=self.dtype, device=self.device) for _ in range(2))
        self.gathered, self.gradient = gathered, gradient
        views, gradients = (dict(zip(self.rows.names, self.rows.views(x), strict=True)) for x in (gathered, gradient))
        for name, layer in self.layers.items():
            layer.A, layer.B = views[name].requires_grad_(), views[partner(name)].requires_grad_()
            layer.A_grad, layer.B_grad = gradients[name], gradients[partner(name)]
        return gathered


def _listed(layers: list[LoraLinear]) -> str:
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return f"{layers[0].name}{more}"
