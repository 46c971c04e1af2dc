"""Adapters stacked, in training or at work: LoRA layers of n passages beside each frozen projection, one matrix product
for all.

After LoRA (Hu et al., ICLR 2022), for each passage of a step: y = W x + alpha / rank * B A x.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..base.frozen import FrozenLinear
from ..core.private import fused_adamw
from .files import PREFIX, read_adapter

BETAS, EPS, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 0.01  # of AdamW, as the reference leaves them


class LoraLinear(nn.Module):
    """A frozen linear layer with the LoRA matrices of the n passages of a step beside it."""

    def __init__(self, base: nn.Module):
        super().__init__()
        if not isinstance(base, FrozenLinear):
            base = FrozenLinear(cast(Tensor, base.weight), cast(Tensor | None, base.bias))
        self.base = base
        # A times alpha / rank (n, r, in), and B (n, r, out): transposed, its thin products are four times as fast
        self.A: Tensor | None = None
        self.B: Tensor | None = None
        self.A_grad: Tensor | None = None
        self.B_grad: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) if self.A is None else LoraProduct.apply(x, self.A, self.B, self)


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
        if not needs_dx:
            return None, None, None, None
        dx = layer.base.gradient(dy.contiguous())
        dx.view(rows.shape).baddbmm_(du, A)
        return dx, None, None, None


def attach(model: nn.Module, names: Iterable[str]) -> dict[str, LoraLinear]:
    """Put a LoRA layer in the place of each linear layer that an adapter of these tensors changes; by the names of
    their A."""
    layers = {}
    for name in names:
        module, _, kind = name.removeprefix(PREFIX).rpartition(".lora_")
        if kind == "A.weight":
            parent, _, child = module.rpartition(".")
            layers[name] = LoraLinear(model.get_submodule(module))
            setattr(model.get_submodule(parent), child, layers[name])
    return layers


class Active:
    """Trained adapters at work on one base model: each row of a batch has a set of its own, whose updates add up."""

    def __init__(self, model: nn.Module, names: Iterable[str]):
        self.layers = attach(model, names)
        self.matrices: dict[
            str, tuple[Tensor, Tensor]
        ] = {}  # A (rows, rank of a set, in), B (rows, rank of a set, out)
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    def set(self, sets: list[list["Adapter"]]) -> None:
        """A set of adapters for each row; smaller sets are filled with zeros."""
        rank = max((sum(adapter.rank for adapter in adapters) for adapters in sets), default=0)
        self.matrices = {}
        for name in self.layers if rank else ():
            partner = name.replace(".lora_A.", ".lora_B.")
            some = next(adapter.tensors for adapters in sets for adapter in adapters)
            A = torch.zeros(len(sets), rank, some[name].shape[1])
            B = torch.zeros(len(sets), rank, some[partner].shape[0])
            for row, adapters in enumerate(sets):
                start = 0
                for adapter in adapters:
                    place = slice(start, start := start + adapter.rank)
                    torch.mul(adapter.tensors[name], adapter.scale, out=A[row, place])
                    B[row, place] = adapter.tensors[partner].mT
            self.matrices[name] = A.to(self.device, self.dtype), B.to(self.device, self.dtype)
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

    def __init__(self, model: nn.Module, base_weight: dict[str, Tensor], scale: float):
        self.device, self.dtype = next(model.parameters()).device, next(model.parameters()).dtype
        self.names = sorted(base_weight)
        stored = [_transposed(name, base_weight[name]) for name in self.names]
        self.shapes = [tensor.shape for tensor in stored]
        self.start = torch.cat([tensor.flatten() for tensor in stored]).to(self.device)  # (D,)
        # of every parameter in a step: alpha / rank for those of A, so that no layer has to scale anything (D,)
        self.scale = torch.cat(
            [
                torch.full((t.numel(),), scale if ".lora_A." in name else 1.0)
                for name, t in zip(self.names, stored, strict=True)
            ]
        ).to(self.start)
        self.layers = attach(model, self.names)
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
        gathered = self.gathered
        if gathered is None or len(gathered) != len(places):
            gathered = self._attach(len(places))
        index = to_device(torch.tensor(places), self.device)
        gathered.copy_(self.flat.index_select(0, index).mul_(self.scale))

    def gradients(self) -> Tensor:
        """Of the adapters of the step (n, D), in their type."""
        assert self.gradient is not None  # after a gather
        return self.gradient * self.scale

    def update(self, places: list[int], learning_rate: float) -> None:
        """One step of AdamW (Loshchilov & Hutter, ICLR 2019) for the gathered adapters, fused over them.

        It allocates nothing but the gradients in the adapters' type, and changes nothing before they are there.
        """
        gradients = self.gradients()
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

    def tensors(self, flat: Tensor) -> dict[str, Tensor]:
        """The tensors of one adapter (D,), by PEFT's names."""
        return {name: _transposed(name, view) for name, view in zip(self.names, self._views(flat), strict=True)}

    def release(self) -> None:
        """Let go of the matrices of a step, as when memory is short."""
        for layer in self.layers.values():
            layer.A = layer.B = layer.A_grad = layer.B_grad = None
        self.gathered = self.gradient = None

    def _attach(self, n: int) -> Tensor:
        """The matrices of n adapters and their gradients into the layers; returns the matrices (n, D), not filled."""
        gathered, gradient = (torch.empty(n, len(self.start), dtype=self.dtype, device=self.device) for _ in range(2))
        self.gathered, self.gradient = gathered, gradient
        views = dict(zip(self.names, self._views(gathered), strict=True))
        gradients = dict(zip(self.names, self._views(gradient), strict=True))
        for name, layer in self.layers.items():
            partner = name.replace(".lora_A.", ".lora_B.")
            layer.A, layer.B = views[name].requires_grad_(), views[partner].requires_grad_()
            layer.A_grad, layer.B_grad = gradients[name], gradients[partner]
        return gathered

    def _views(self, flat: Tensor) -> list[Tensor]:
        """flat (..., D) -> a view of each tensor (..., *shape)"""
        parts = flat.detach().split([shape.numel() for shape in self.shapes], dim=-1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self.shapes, strict=True)]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy that the step does not wait for: from pinned memory, where there is a GPU."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _transposed(name: str, tensor: Tensor) -> Tensor:
    return tensor.mT if name.endswith(".lora_B.weight") else tensor
