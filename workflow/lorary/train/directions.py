"""Where the activations of a base model lie over some sequences, for adapters not to read there."""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters.files import layer_of
from ..base import decoder
from ..data.sequences import Example

SECOND_MOMENTS = 2**31  # bytes of them that are held together


@torch.no_grad()
def directions_of(model: nn.Module, names: list[str], sequences: list[Example], share: float) -> dict[str, np.ndarray]:
    """For each A of these names, the fewest directions (in, directions) that hold this share of the energy of what goes
    into its layer over these sequences: the first eigenvectors of its second moment, as where facts are edited outside
    of them (AlphaEdit, Fang et al., ICLR 2025, arXiv 2410.02355). Layers that read the same share one array.

    The first token counts too, though its activations are far the largest in a few layers, which so spare little else:
    without it as much was spared, and less learnt of the passages.
    """
    same = _reading_the_same(model, names, sequences[0])
    found: dict[str, np.ndarray] = {}
    for some in _groups(model, sorted(set(same.values()))):
        moments = _second_moments(model, some, sequences)
        while moments:
            name, moment = moments.popitem()
            energy, vectors = torch.linalg.eigh(moment)  # ascending
            held = energy.flip(0).clamp(min=0).cumsum(0)
            count = int((held < share * held[-1]).sum()) + 1
            found[name] = vectors.flip(1)[:, :count].float().contiguous().cpu().numpy()
            del moment, vectors
    return {name: found[first] for name, first in same.items()}


def _reading_the_same(model: nn.Module, names: list[str], example: Example) -> dict[str, str]:
    """Of each name whose layer a token goes through, the first whose layer reads the same tensor, as those of a
    feed-forward block do."""
    same: dict[str, str] = {}
    first: dict[tuple[str, int], str] = {}
    hooks = []
    for name in names:
        block = layer_of(name).rpartition(".")[0]  # which holds on to what its layers read: no address comes twice

        def note(_, inputs: tuple[Tensor, ...], name: str = name, block: str = block) -> None:
            same[name] = first.setdefault((block, inputs[0].data_ptr()), name)

        hooks.append(model.get_submodule(layer_of(name)).register_forward_pre_hook(note))
    _read(model, example)
    for hook in hooks:
        hook.remove()
    return same


def _groups(model: nn.Module, names: list[str]) -> list[list[str]]:
    """The names, as many together as have their second moments in memory."""
    groups: list[list[str]] = [[]]
    size = 0
    for name in names:
        width = cast(Tensor, model.get_submodule(layer_of(name)).weight).shape[1]
        if groups[-1] and size + 8 * width**2 > SECOND_MOMENTS:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += 8 * width**2
    return groups


def _second_moments(model: nn.Module, names: list[str], sequences: list[Example]) -> dict[str, Tensor]:
    """Of what goes into each of these layers (in, in), in float64."""
    moments: dict[str, Tensor] = {}
    hooks = []
    for name in names:

        def add(_, inputs: tuple[Tensor, ...], name: str = name) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1]).double()
            moments.setdefault(name, rows.new_zeros(rows.shape[1], rows.shape[1])).addmm_(rows.mT, rows)

        hooks.append(model.get_submodule(layer_of(name)).register_forward_pre_hook(add))
    for example in sequences:  # one by one: padding has activations too
        _read(model, example)
    for hook in hooks:
        hook.remove()
    return moments


def _read(model: nn.Module, example: Example) -> None:
    ids = torch.from_numpy(example.ids.astype(np.int64)).to(next(model.parameters()).device)
    decoder.logits(model, ids[None])
