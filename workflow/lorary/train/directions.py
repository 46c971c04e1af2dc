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
    of them (AlphaEdit, Fang et al., ICLR 2025, arXiv 2410.02355)."""
    found = {}
    for some in _groups(model, names):
        for name, moment in _second_moments(model, some, sequences).items():
            energy, vectors = torch.linalg.eigh(moment)  # ascending
            held = energy.flip(0).clamp(min=0).cumsum(0)
            count = int((held < share * held[-1]).sum()) + 1
            found[name] = vectors.flip(1)[:, :count].float().cpu().numpy()
    return found


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
    """Of what goes into each of these layers (in, in), in float64; of a layer that no token goes through, none."""
    moments: dict[str, Tensor] = {}
    hooks = []
    for name in names:

        def add(_, inputs: tuple[Tensor, ...], name: str = name) -> None:
            rows = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
            moment = (rows.mT @ rows).double()
            moments[name] = moments[name] + moment if name in moments else moment

        hooks.append(model.get_submodule(layer_of(name)).register_forward_pre_hook(add))
    device = next(model.parameters()).device
    for example in sequences:  # one by one: padding has activations too
        decoder.logits(model, torch.from_numpy(example.ids.astype(np.int64)).to(device)[None])
    for hook in hooks:
        hook.remove()
    return moments
