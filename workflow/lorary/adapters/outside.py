"""Adapters in training that are held outside of directions: each row of an A orthogonal to those of its layer, so that
what lies in them passes the adapter by."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


class Outside:
    def __init__(self, directions: dict[str, np.ndarray], shapes: dict[str, torch.Size], like: Tensor):
        """`directions`: by the name of an A (in, directions), with orthonormal columns; `shapes`: of each A (r, in);
        `like`: a tensor of the adapters' type, on their device. Layers that read the same share one tensor."""
        once = {id(each): torch.from_numpy(each).to(like) for each in directions.values()}
        self.directions = {name: once[id(each)] for name, each in directions.items() if name in shapes}
        self.shapes = shapes
        self.like = like

    def room(self, n: int) -> list[Tensor]:
        """What projecting n adapters takes: the largest A twice, and between them what of it is in its directions."""
        sizes = [(self.shapes[name].numel(), self.shapes[name][0] * U.shape[1]) for name, U in self.directions.items()]
        most, inside = (max((size[i] for size in sizes), default=0) for i in (0, 1))
        return [self.like.new_empty(n * size) for size in (most, inside, most)]

    def project(self, views: Iterable[tuple[str, Tensor]], index: Tensor, room: list[Tensor]) -> None:
        """Make the A at these places (n,) of each view (places, r, in) orthogonal to its directions. It allocates
        nothing."""
        for name, view in views:
            if (U := self.directions.get(name)) is None:
                continue
            n, (r, width) = len(index), view.shape[1:]
            A, inside, part = (
                some[: n * r * size].view(n * r, size)
                for some, size in zip(room, (width, U.shape[1], width), strict=True)
            )
            torch.index_select(view, 0, index, out=A.view(n, r, width))
            torch.mm(A, U, out=inside)
            torch.mm(inside, U.mT, out=part)
            view.index_copy_(0, index, A.sub_(part).view(n, r, width))
