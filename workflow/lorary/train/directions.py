"""Where the activations of a base model lie over some sequences, for adapters not to read there."""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..adapters.files import layer_of
from ..base import decoder
from ..data.sequences import Example

ACTIVATIONS = 2**31  # bytes of them that are held together


@torch.no_grad()
def directions_of(model: nn.Module, names: list[str], sequences: list[Example], share: float) -> dict[str, np.ndarray]:
    """For each A of these names, the fewest directions (in, directions) that hold this share of the energy of what goes
    into its layer over these sequences: the first eigenvectors of its second moment, as where facts are edited outside
    of them (AlphaEdit, Fang et al., ICLR 2025, arXiv 2410.02355). Layers that read the same share one array.

    The first token counts too, though its activations are far the largest in a few layers, which so spare little else:
    without it as much was spared, and less learnt of the passages.
    """
    same = _reading_the_same(model, names, sequences[0])
    places, counts = _tokens(sequences)
    found: dict[str, np.ndarray] = {}
    for some in _groups(model, sorted(set(same.values())), len(counts)):
        activations = _activations(model, some, sequences, places)
        while activations:
            name, rows = activations.popitem()
            rows = rows.double() * counts.to(rows.device).sqrt()[:, None]
            found[name] = _first_directions(rows, share).float().contiguous().cpu().numpy()
            del rows
    return {name: found[first] for name, first in same.items()}


def _first_directions(rows: Tensor, share: float) -> Tensor:
    """The fewest orthonormal columns (in, directions) that hold this share of the energy of rows (rows, in): by the
    eigenvectors of their second moment, or where they are fewer than their numbers, of their products, which are then
    the smaller matrix and have the same energies."""
    few = len(rows) < rows.shape[1]
    energy, vectors = torch.linalg.eigh(rows @ rows.mT if few else rows.mT @ rows)  # ascending
    held = energy.flip(0).clamp(min=0).cumsum(0)
    vectors = vectors.flip(1)[:, : int((held < share * held[-1]).sum()) + 1]
    return torch.linalg.qr(rows.mT @ vectors).Q if few else vectors


def _tokens(sequences: list[Example]) -> tuple[list[list[int]], Tensor]:
    """Of each sequence, the places of tokens that stand behind something else than in every sequence before it; and
    of all these in turn, how often they stand there (float64). What comes before a token decides its activations, so
    the beginning that a chat template gives every question counts by a number, and is held once."""
    places: list[list[int]] = []
    counts: dict[tuple[int, ...], int] = {}
    for example in sequences:
        begun = tuple[int, ...]()
        places.append([])
        for place, token in enumerate(example.ids.tolist()):
            begun = (*begun, token)
            if begun not in counts:
                places[-1].append(place)
            counts[begun] = counts.get(begun, 0) + 1
    return places, torch.tensor(list(counts.values()), dtype=torch.float64)


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


def _groups(model: nn.Module, names: list[str], tokens: int) -> list[list[str]]:
    """The names, as many together as have their activations in memory."""
    groups: list[list[str]] = [[]]
    size = 0
    for name in names:
        weight = cast(Tensor, model.get_submodule(layer_of(name)).weight)
        needs = tokens * weight.shape[1] * weight.element_size()
        if groups[-1] and size + needs > ACTIVATIONS:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += needs
    return groups


def _activations(
    model: nn.Module, names: list[str], sequences: list[Example], places: list[list[int]]
) -> dict[str, Tensor]:
    """What goes into each of these layers at these places of each sequence (all places, in)."""
    held: dict[str, list[Tensor]] = {name: [] for name in names}
    now: dict[str, Tensor] = {}
    hooks = []
    for name in names:

        def note(_, inputs: tuple[Tensor, ...], name: str = name) -> None:
            now[name] = inputs[0]  # (1, tokens, in)

        hooks.append(model.get_submodule(layer_of(name)).register_forward_pre_hook(note))
    for example, at in zip(sequences, places, strict=True):  # one by one: padding has activations too
        _read(model, example)
        for name in names:
            held[name].append(now[name][0, at])
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(held.pop(name)) for name in names}


def _read(model: nn.Module, example: Example) -> None:
    ids = torch.from_numpy(example.ids.astype(np.int64)).to(next(model.parameters()).device)
    decoder.logits(model, ids[None])
