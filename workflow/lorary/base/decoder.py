"""The base model as a torch module that turns token ids into hidden states, and those into logits.

Llama and its kin (Llama 1 to 3, SmolLM2, Mistral, Qwen2, Qwen2.5, Qwen3) are written out here, in the names that their
weights have, because importing transformers' own modules takes longer than training a passage does. Every other
architecture goes through transformers.
"""

import json
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..core.device import device_fault, out_of_memory
from ..core.errors import LoraryError
from ..core.private import fused_rms_norm, group_heads_where
from .attention import Cache, attend, takes_groups
from .fetch import check_weights, trusts_code
from .frozen import FrozenLinear, can_pack
from .support import head_dim, most_positions, rope_parameters, written_out_here

log = logging.getLogger(__name__)

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys, values -> what attention makes of them


def load(directory: str, precision: str, device: torch.device) -> nn.Module:
    """The frozen base model. `precision` is float32, tf32 (float32 whose products a GPU may round) or bfloat16.

    Raises LoraryError where the directory holds no such model.
    """
    check_weights(directory)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    try:
        config = json.loads((Path(directory) / "config.json").read_bytes())
        if written_out_here(config):
            model = _load_here(directory, config, dtype, device)
        else:
            model = _load_by_transformers(directory, dtype, device)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, MemoryError, SafetensorError) as error:
        if device_fault(error):
            raise
        if out_of_memory(error):
            raise LoraryError(f"{directory} does not fit into memory; precision: bfloat16 takes half.") from None
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        raise LoraryError(f"{directory}: config and weights of this base model do not go together: {reason}") from None
    return model.eval().requires_grad_(False)


def _load_here(directory: str, config: dict[str, Any], dtype: torch.dtype, device: torch.device) -> nn.Module:
    with torch.device("meta"):
        model = Decoder(config)
    weights: dict[str, Tensor] = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        weights |= {k: t.to(dtype) for k, t in load_file(path, device=str(device)).items()}
    if config.get("tie_word_embeddings"):
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    weights = {k: t for k, t in weights.items() if not k.endswith("rotary_emb.inv_freq")}
    model.load_state_dict(weights, assign=True)
    return model


def _load_by_transformers(directory: str, dtype: torch.dtype, device: torch.device) -> nn.Module:
    from transformers import AutoModelForCausalLM

    group_heads_where(takes_groups)
    trust = trusts_code(directory)
    if trust:
        log.warning("trust_remote_code is set: code that came with %s is run", directory)
    model, told = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, trust_remote_code=trust, output_loading_info=True
    )
    if lacking := sorted([*told["missing_keys"], *(str(key) for key in told["mismatched_keys"])]):
        raise ValueError(f"it lacks {', '.join(lacking[:5])}")  # transformers would take random values for them
    return model.to(device)


def prepare(model: nn.Module) -> None:
    """Lay the frozen weights out for speed, once the adapters are attached; their own names are gone then."""
    if not isinstance(model, Decoder):
        return
    for layer in model.model.layers:
        layer.self_attn.join()
    weight = model.model.embed_tokens.weight
    for module in model.modules() if can_pack(weight.device, weight.dtype) else ():
        if isinstance(module, FrozenLinear):
            module.pack()


def logits(model: nn.Module, ids: Tensor) -> Tensor:
    """ids (B, T) -> logits (B, T, V). Padding on the right needs no mask: no token looks ahead."""
    return model(ids) if isinstance(model, Decoder) else model(input_ids=ids, use_cache=False).logits


def beyond(model: nn.Module, highest: int, length: int) -> str | None:
    """Why a model cannot read ids up to this one, or so many tokens, of which a GPU would fail beyond repair (None: it
    can)."""
    vocabulary = cast(Any, model).get_input_embeddings().num_embeddings
    if highest >= vocabulary:
        return f"token id {highest} is beyond the model's vocabulary of {vocabulary}; is the tokenizer another's?"
    positions = None if isinstance(model, Decoder) else most_positions(cast(Any, model).config.to_dict())
    if positions is not None and length > positions:
        return f"{length} tokens are beyond the {positions} positions of the model; a lower max_length would help"
    return None


class Decoder(nn.Module):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.model = Body(config)
        self.lm_head = linear(config["hidden_size"], config["vocab_size"], bias=False)
        self.config = config
        self.rotary: tuple[Tensor, Tensor] | None = None  # of the longest sequence so far

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.embed_tokens

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.hidden(ids))  # (B, T, V)

    def hidden(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """ids (B, T) -> what the head makes logits of (B, T, C). With a cache, ids are what follows what it holds."""
        x = self.model.embed_tokens(ids)
        places, length = (None, ids.shape[1]) if cache is None else (cache.next(ids.shape[1]), cache.room)
        if self.rotary is None or len(self.rotary[0]) < length:
            self.rotary = rotation(self.config, length, x.device, x.dtype)
        if places is None:
            rotary = tuple(angle[: ids.shape[1]] for angle in self.rotary)
        else:
            rotary = tuple(angle[places][:, None] for angle in self.rotary)  # (B, 1, T, D)
        for i, layer in enumerate(self.model.layers):
            x = layer(x, rotary, attend if cache is None else partial(cache.attend, i))
        return self.model.norm(x)

    def cached_bytes(self) -> int:
        """What keys and values of a token take in a cache."""
        first, layers = self.model.layers[0].self_attn, len(self.model.layers)
        return 2 * layers * first.groups * first.head_dim * self.model.norm.weight.element_size()


class Body(nn.Module):
    """All weights but the head's."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        shape = config["vocab_size"], config["hidden_size"]
        self.embed_tokens = nn.Embedding(*shape, _weight=torch.empty(shape))  # drawing one would import a compiler
        layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.layers = cast(Sequence[Layer], layers)  # torch does not say of which modules a list is
        self.norm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])


class Layer(nn.Module):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.input_layernorm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Attention(nn.Module):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width, heads = config["hidden_size"], config["num_attention_heads"]
        groups = config.get("num_key_value_heads") or heads
        self.heads, self.groups, self.head_dim = heads, groups, head_dim(config)
        bias = config["model_type"] == "qwen2" or config.get("attention_bias", False)
        self.q_proj = linear(width, heads * self.head_dim, bias=bias)
        self.k_proj = linear(width, groups * self.head_dim, bias=bias)
        self.v_proj = linear(width, groups * self.head_dim, bias=bias)
        self.o_proj = linear(heads * self.head_dim, width, bias=bias and config["model_type"] != "qwen2")
        self.qkv_proj: FrozenLinear | None = None
        self.q_norm: RMSNorm | None = None  # both or neither
        self.k_norm: RMSNorm | None = None
        if config["model_type"] == "qwen3":
            self.q_norm = RMSNorm(self.head_dim, config["rms_norm_eps"])
            self.k_norm = RMSNorm(self.head_dim, config["rms_norm_eps"])

    def join(self) -> None:
        """One matrix product instead of three, where no adapter is beside one of them."""
        parts = [self.q_proj, self.k_proj, self.v_proj]
        if all(isinstance(part, FrozenLinear) for part in parts):
            biases: list[Tensor] = [part.bias for part in parts if part.bias is not None]  # all have one, or none
            self.qkv_proj = FrozenLinear(
                torch.cat([part.weight for part in parts]), torch.cat(biases) if biases else None
            )
            for name in ("q_proj", "k_proj", "v_proj"):
                self.register_module(name, None)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        B, T, _ = x.shape
        if self.qkv_proj is not None:
            qkv = self.qkv_proj(x)
        else:
            qkv = torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1)
        qk, v = qkv.view(B, T, -1, self.head_dim).split((self.heads + self.groups, self.groups), dim=2)
        q_norm, k_norm = self.q_norm, self.k_norm
        if q_norm is not None and k_norm is not None:
            q, k = qk.split((self.heads, self.groups), dim=2)
            qk = torch.cat((q_norm(q), k_norm(k)), dim=2)
        qk = rotate(qk.transpose(1, 2), rotary)  # (B, heads + groups, T, D)
        q, k = qk.split((self.heads, self.groups), dim=1)
        return self.o_proj(attend(q, k, v.transpose(1, 2)).transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width, inner, bias = config["hidden_size"], config["intermediate_size"], config.get("mlp_bias", False)
        self.gate_proj = linear(width, inner, bias=bias)
        self.up_proj = linear(width, inner, bias=bias)
        self.down_proj = linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def linear(in_features: int, out_features: int, bias: bool) -> FrozenLinear:
    return FrozenLinear(torch.empty(out_features, in_features), torch.empty(out_features) if bias else None)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return Normalize.apply(x, self.weight, self.eps)


class Normalize(torch.autograd.Function):
    """y = w x / rms(x), in float32 where x is bfloat16: torch's operator, whose gradient on a processor is autograd's
    of six others."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, scale = fused_rms_norm(x, weight, eps)  # scale is 1 / rms (..., 1)
        ctx.save_for_backward(x, scale, weight)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, scale, weight = ctx.saved_tensors
        g, x = (dy * weight).to(scale.dtype), x * scale
        mean = torch.linalg.vecdot(g, x)[..., None] / x.shape[-1]
        return torch.addcmul(g, x, mean, value=-1).mul_(scale).to(dy.dtype), None, None


def rotation(config: dict[str, Any], length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, D) of the rotary position embedding."""
    rope, dim = rope_parameters(config), head_dim(config)
    frequency = 1.0 / rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.int64, device=device).float() / dim)
    if rope["rope_type"] == "llama3":
        # Low frequencies are slowed down by `factor`, high ones kept, those between blended.
        old = rope["original_max_position_embeddings"]
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        wavelength = 2 * math.pi / frequency
        blend = ((old / wavelength - low) / (high - low)).clamp(0, 1)
        frequency = (1 - blend) * frequency / rope["factor"] + blend * frequency
    angle = torch.outer(torch.arange(length, device=device).float(), frequency)  # (T, D / 2)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    return Rotate.apply(x, *rotary)


class Rotate(torch.autograd.Function):
    """Rotates each pair (x_i, x_{i + D/2}) of x (..., T, D) by its angle; the gradient is rotated back."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turned(x, cos, sin)

    @staticmethod
    def backward(ctx, dy: Tensor):
        cos, sin = ctx.saved_tensors
        return turned(dy, cos, -sin), None, None


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    y, half = x * cos, x.shape[-1] // 2
    y[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    y[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return y
