"""What a passage is trained for: the loss of each passage in a step."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import decoder
from ..base.frozen import FrozenLinear
from .step import Step

# The logits of so many bytes are held at a time, in float32: what a processor's cache takes well, or a GPU's memory.
CHUNK = {"cpu": 3 * 2**23, "cuda": 2**29}


# The base model with the step's adapters, the step and the training's settings -> losses (n,)
Objective = Callable[[nn.Module, Step, dict[str, Any]], Tensor]


def cross_entropy(model: nn.Module, step: Step, settings: dict[str, Any]) -> Tensor:
    """The mean cross entropy of a passage's own predicted tokens, as Parametric RAG trains (Su et al., SIGIR 2025)."""
    if isinstance(model, decoder.Decoder) and isinstance(model.lm_head, FrozenLinear):
        hidden = model.hidden(step.ids).flatten(0, 1).index_select(0, step.token)  # (N, C)
        return HeadLoss.apply(hidden, model.lm_head, step.targets, step.owner, step.counts)
    return losses_of_logits(logits_of(model, step), step.targets, step.owner, step.counts)


def distill(model: nn.Module, step: Step, settings: dict[str, Any]) -> Tensor:
    """The mean divergence KL(teacher || adapter) over a passage's own predicted tokens, both at a temperature, times
    its square, which keeps gradients their size (Hinton et al., 2015, arXiv 1503.02531). The teacher's distribution is
    that of its likeliest tokens, as if there were no others."""
    assert step.likeliest is not None  # of every example, where there is a teacher
    assert step.logarithms is not None
    temperature = settings["distill_temperature"]
    logits = logits_of(model, step)
    logits = logits.float() if logits.dtype == torch.bfloat16 else logits
    log_q = torch.log_softmax(logits / temperature, dim=-1).gather(-1, step.likeliest)  # (N, k)
    log_p = torch.log_softmax(step.logarithms.to(log_q.dtype) / temperature, dim=-1)
    each = (log_p.exp() * (log_p - log_q)).sum(-1) * temperature**2
    return means(each, step.owner, step.counts)


# Which sequences each makes of a passage, and which tokens of them are predicted, says `data.objectives`.
OBJECTIVES: dict[str, Objective] = {
    "reference": cross_entropy,
    "answers": cross_entropy,
    "mixed": cross_entropy,
    "distill": distill,
}


def logits_of(model: nn.Module, step: Step) -> Tensor:
    """Of the predicted tokens (N, V)."""
    if isinstance(model, decoder.Decoder) and isinstance(model.lm_head, FrozenLinear):
        return model.lm_head(model.hidden(step.ids).flatten(0, 1).index_select(0, step.token))
    return decoder.logits(model, step.ids).flatten(0, 1).index_select(0, step.token)


def losses_of_logits(logits: Tensor, targets: Tensor, owner: Tensor, counts: Tensor) -> Tensor:
    """logits (N, V), targets (N,), owner (N,): the passage of each token; counts (n,): tokens a passage -> (n,)"""
    each = F.cross_entropy(logits.float() if logits.dtype == torch.bfloat16 else logits, targets, reduction="none")
    return means(each, owner, counts)


class HeadLoss(torch.autograd.Function):
    """The same from the hidden states, a chunk of tokens at a time: the logits of all are never held together.

    The gradient is made on the way, as softmax less one at the target; autograd would keep and copy the logits.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, head: FrozenLinear, targets: Tensor, owner: Tensor, counts: Tensor) -> Tensor:
        exact = torch.float32 if hidden.dtype == torch.bfloat16 else hidden.dtype
        each = hidden.new_empty(len(hidden), dtype=exact)
        gradient = torch.empty_like(hidden)  # (N, C)
        vocabulary = head.out_features
        size = max(1, CHUNK.get(hidden.device.type, CHUNK["cuda"]) // (4 * vocabulary))
        for start in range(0, len(hidden), size):
            chunk = slice(start, start + size)
            target = targets[chunk, None]
            logits = head.product(hidden[chunk]).to(exact)  # (size, V)
            p = torch.softmax(logits, dim=-1)
            # The highest logit's p is at least 1 / V, so that its logarithm is good where the target's p is zero.
            each[chunk] = logits.amax(-1) - p.amax(-1).log_() - logits.gather(-1, target)[:, 0]
            p.scatter_add_(-1, target, p.new_full((1, 1), -1.0).expand(target.shape))
            gradient[chunk] = head.gradient(p.to(hidden.dtype))
        ctx.save_for_backward(gradient, owner, counts)
        return means(each, owner, counts)

    @staticmethod
    def backward(ctx, d_losses: Tensor):
        gradient, owner, counts = ctx.saved_tensors
        weight = (d_losses / counts)[owner, None].to(gradient.dtype)
        return gradient * weight, None, None, None, None


def means(each: Tensor, owner: Tensor, counts: Tensor) -> Tensor:
    return each.new_zeros(len(counts)).index_add_(0, owner, each) / counts  # no token: 0 / 0, as in the reference
