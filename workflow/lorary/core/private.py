"""Private functions of torch, transformers and Snakemake that have no public counterpart, here and nowhere else: what
has to be looked at when their versions change. Each imports its library when called, since most jobs need none."""

import argparse
import functools
import inspect
import os
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def set_clock(tokenizer: Any, today: datetime) -> None:
    """Have a tokenizer's chat template see this day. transformers keeps compiled templates, defines the function that
    they print today's date with, and takes no other as an argument."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    _compile_jinja_template(tokenizer.get_chat_template()).globals["strftime_now"] = today.strftime


def group_heads_where(fused: Callable[["Tensor"], bool]) -> None:
    """Have transformers leave grouped heads to torch's attention only for keys that it has a fused kernel for."""
    from transformers.integrations import sdpa_attention

    plain = inspect.unwrap(sdpa_attention.use_gqa_in_sdpa)

    @functools.wraps(plain)
    def use_gqa_in_sdpa(mask: Any, key: "Tensor", value: "Tensor") -> bool:
        return fused(key) and plain(mask, key, value)

    sdpa_attention.use_gqa_in_sdpa = use_gqa_in_sdpa


def set_backend(tokenizer: Any, file: str) -> None:
    """Have a tokenizer of transformers encode and decode as tokenizer.json says and no otherwise: it adds to that the
    tokens that its settings name, and takes no backend as an argument without doing so."""
    from tokenizers import Tokenizer

    tokenizer._tokenizer = Tokenizer.from_file(file)


def lock_files(workflow: Any) -> list[str]:
    """The names of the files that this Snakemake has written as its lock; none before it has it. Snakemake says of no
    lock whose it is."""
    return [os.path.basename(path) for path in getattr(workflow.persistence, "_lockfile", {}).values()]


def allowed_rules() -> list[str]:
    """The rules whose jobs this process of Snakemake may run. It says so to the Snakefile only after that is read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--allowed-rules", nargs="+", default=[])
    return parser.parse_known_args()[0].allowed_rules


def fused_rms_norm(x: "Tensor", weight: "Tensor", eps: float) -> tuple["Tensor", "Tensor"]:
    """x / rms(x) times weight, and 1 / rms (..., 1), which the public rms_norm computes and does not give back."""
    import torch

    return torch._fused_rms_norm(x, weight.shape, weight, eps)


def softmax_backward(dp: "Tensor", p: "Tensor") -> "Tensor":
    """The gradient of the scores whose softmax over the last dimension is p: autograd's own, in one operator."""
    import torch

    return torch._softmax_backward_data(dp, p, -1, p.dtype)


def pack_weight(weight: "Tensor") -> "Tensor":
    """A weight as oneDNN wants to read it. torch packs so only inside its compiler."""
    import torch

    return torch.ops.mkldnn._reorder_linear_weight(weight)


def packed_linear(x: "Tensor", weight: "Tensor", bias: "Tensor | None") -> "Tensor":
    """x (N, in) times a packed weight."""
    import torch

    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def fast_bfloat16() -> bool:
    """Whether this processor has bfloat16 units, which torch tells nobody."""
    import torch

    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def fused_adamw(
    parameters: list["Tensor"],
    gradients: list["Tensor"],
    means: list["Tensor"],
    squares: list["Tensor"],
    steps: list["Tensor"],
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    eps: float,
) -> None:
    """One step of AdamW in place, over any number of parameters. The public optimizer owns its parameters and takes
    their gradients from them; here they are rows of one tensor that lies elsewhere."""
    import torch

    torch._foreach_add_(steps, 1)
    torch._fused_adamw_(
        parameters,
        gradients,
        means,
        squares,
        [],
        steps,
        lr=learning_rate,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )


def dispatch_mode() -> "type[torch.utils._python_dispatch.TorchDispatchMode]":
    """The class that sees every operator that is called, for counting them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    return TorchDispatchMode
