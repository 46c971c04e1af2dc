"""Linear layers whose weights never change: all that their gradient needs is dx = dy W."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.private import fast_bfloat16, pack_weight, packed_linear

# A smaller weight is not worth it: a packed product takes 10 microseconds longer to begin.
PACKED_FROM = 2**16
# So wide a layer, which only a head is, is multiplied in blocks of its outputs: a fifth faster on a processor, with the
# same bits.
WIDE, BLOCK = 2**14, 1536


class FrozenLinear(nn.Module):
    """y = x W^T + b. `product` and `gradient` are its two matrix products, for those who write gradients by hand."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)  # (out, in)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.packed: tuple[Tensor, Tensor] | None = None
        self.out_features = weight.shape[0]

    def pack(self) -> None:
        """Lay the weight out once for oneDNN, for both directions, in place of the weight itself: on a processor
        10 to 50 % faster than a product that reads it as it lies, for twice its memory."""
        if self.weight.numel() < PACKED_FROM:
            return
        forward, backward = self.weight.detach(), self.weight.detach().t()
        self.packed = pack_weight(forward), pack_weight(backward)
        self.register_parameter("weight", None)

    def product(self, x: Tensor) -> Tensor:
        """x (..., in) -> y (..., out)"""
        if self.packed is not None:
            return _packed(x, self.packed[0], self.bias)
        if x.device.type == "cpu" and self.out_features >= WIDE and x.ndim == 2 and self.bias is None:
            return _in_blocks(x, self.weight)
        return F.linear(x, self.weight, self.bias)

    def gradient(self, dy: Tensor) -> Tensor:
        """dy (..., out) -> dx (..., in)"""
        return dy @ self.weight if self.packed is None else _packed(dy, self.packed[1], None)

    def forward(self, x: Tensor) -> Tensor:
        return FrozenProduct.apply(x, self)


class FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx, dy: Tensor):
        return ctx.layer.gradient(dy), None


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights are packed: in bfloat16, where the processor has units for it.

    Not in float32, though it is faster there too: it sums in another order than the reference does, as exactly, but
    where a gradient is near zero Adam makes a whole step of that (relative L2 1.4e-3 instead of 3e-4).
    """
    return device.type == "cpu" and dtype == torch.bfloat16 and fast_bfloat16()


def _in_blocks(x: Tensor, weight: Tensor) -> Tensor:
    y = x.new_empty(len(x), len(weight))
    for start in range(0, len(weight), BLOCK):
        block = slice(start, start + BLOCK)
        torch.mm(x, weight[block].t(), out=y[:, block])
    return y


def _packed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = packed_linear(x.reshape(-1, x.shape[-1]), weight, bias)
    return y.view(*x.shape[:-1], -1)
