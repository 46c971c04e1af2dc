"""What a base model holds of each token of a text: hidden states at some depths, what some layers read, and the words
that its head looks for."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoder import Decoder


@torch.no_grad()
def states(model: nn.Module, ids: Tensor, depths: list[int]) -> Tensor:
    """ids (B, T) -> the hidden states (B, T, depths, C) after so many layers each; after all of them also after the
    final norm. Padding on the right needs no mask: no token looks ahead."""
    last = layers(model)
    if not isinstance(model, Decoder):
        found = model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
        return torch.stack([found[depth] for depth in depths], dim=2)
    found = {0: model.model.embed_tokens(ids)} if 0 in depths else {}

    def note(depth: int):
        return lambda module, arguments, output: found.__setitem__(depth, output)

    handles = [model.model.layers[d - 1].register_forward_hook(note(d)) for d in set(depths) - {0, last}]
    try:
        found[last] = model.hidden(ids)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([found[depth] for depth in depths], dim=2)


def layers(model: nn.Module) -> int:
    """How many a model has."""
    if isinstance(model, Decoder):
        return len(model.model.layers)
    return cast(Any, model).config.get_text_config().num_hidden_layers


class Watched:
    """Linear layers of a model, watched: what each has read and written in the last call."""

    def __init__(self, model: nn.Module, names: list[str]):
        self.reads: dict[str, Tensor] = {}  # (B, T, in)
        self.writes: dict[str, Tensor] = {}  # (B, T, out)
        for name in names:
            model.get_submodule(name).register_forward_hook(self._note(name))

    def _note(self, name: str):
        def note(module, arguments, output) -> None:
            self.reads[name], self.writes[name] = arguments[0], output

        return note


@torch.no_grad()
def words(model: nn.Module, ids: Tensor) -> Tensor:
    """ids (B, T) -> for each token the direction (B, T, C) of the last hidden state, before the final norm, that has
    the head say it rather than others, of length 1."""
    head = cast(Any, model).lm_head if isinstance(model, Decoder) else cast(Any, model).get_output_embeddings()
    rows = head.weight.float()  # (V, C)
    if isinstance(model, Decoder):
        rows = rows * model.model.norm.weight.float()
    return F.normalize(rows[ids] - rows.mean(0), dim=-1)
