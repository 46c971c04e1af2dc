"""What a base model holds of each token of a text, at some depths: its hidden states."""

from typing import Any, cast

import torch
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
