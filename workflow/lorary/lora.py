"""LoRA layers beside the frozen projections, all their parameters in one flat vector.

After LoRA (Hu et al., ICLR 2022): y = W x + alpha / rank * B A x.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapter import PREFIX


class LoraLinear(nn.Module):
    def __init__(self, base: nn.Linear, A: Tensor, B: Tensor, scale: float):
        super().__init__()
        self.base = base
        self.A, self.B = A, B  # (r, in), (out, r): plain tensors, which the adapter owns
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        update = F.linear(F.linear(x.to(self.A.dtype), self.A), self.B)
        y = self.base(x)
        return (y + self.scale * update).to(y.dtype)


class Adapter:
    """A trainable adapter on a model: attached once, reset for each passage.

    `flat` and `grad` (float32 vectors of all parameters) are what the optimizer works on; the layers' A and B, and
    their gradients, are views into them.
    """

    def __init__(self, model: nn.Module, base_weight: dict[str, Tensor], scale: float):
        device = next(model.parameters()).device
        self.names = sorted(base_weight)
        self.shapes = [base_weight[name].shape for name in self.names]
        self.start = torch.cat([base_weight[name].flatten() for name in self.names]).to(device)
        self.flat = self.start.clone()
        self.grad = torch.zeros_like(self.flat)
        parameters = dict(zip(self.names, self._views(self.flat), strict=True))
        for parameter, grad in zip(parameters.values(), self._views(self.grad), strict=True):
            parameter.requires_grad_(True)
            parameter.grad = grad
        for name in self.names:
            module, _, kind = name.removeprefix(PREFIX).rpartition(".lora_")
            if kind == "A.weight":
                parent, _, child = module.rpartition(".")
                A, B = parameters[name], parameters[f"{PREFIX}{module}.lora_B.weight"]
                setattr(model.get_submodule(parent), child, LoraLinear(model.get_submodule(module), A, B, scale))

    def reset(self) -> None:
        """Back to the base weight."""
        self.flat.copy_(self.start)

    def tensors(self) -> dict[str, Tensor]:
        """Copies on the processor, by PEFT's names."""
        return {name: view.clone() for name, view in zip(self.names, self._views(self.flat.cpu()), strict=True)}

    def _views(self, vector: Tensor) -> list[Tensor]:
        sizes = [shape.numel() for shape in self.shapes]
        return [part.view(shape) for part, shape in zip(vector.detach().split(sizes), self.shapes, strict=True)]


class AdamW:
    """AdamW (Loshchilov & Hutter, ICLR 2019) over one vector, as torch.optim.AdamW computes it."""

    def __init__(self, size: Tensor, learning_rate: float, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        self.mean, self.square = torch.zeros_like(size), torch.zeros_like(size)
        self.learning_rate, self.betas, self.eps, self.weight_decay = learning_rate, betas, eps, weight_decay
        self.steps = 0

    def step(self, flat: Tensor, grad: Tensor) -> None:
        self.steps += 1
        (beta1, beta2), rate = self.betas, self.learning_rate
        flat.mul_(1 - rate * self.weight_decay)
        self.mean.lerp_(grad, 1 - beta1)
        self.square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = (self.square.sqrt() / (1 - beta2**self.steps) ** 0.5).add_(self.eps)
        flat.addcdiv_(self.mean, root, value=-rate / (1 - beta1**self.steps))
