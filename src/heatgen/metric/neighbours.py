"""Nearest neighbours among points, exact where several points are one.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y is fast, as a matrix product, but gives equal points a distance of 1e-7 and not 0. So it
only names the pairs whose order its rounding leaves open; these are measured as sqrt(sum (x - y)^2), which is 0 for equal
points and the same number for equal pairs, in either order.
"""

import torch
from torch import Tensor

BLOCK = 1024  # rows of a matrix of distances at a time
DIRECT = 0.05  # of a block's pairs; where more are open, all are measured: as many single ones cost more


def pairs(x: Tensor, y: Tensor) -> Tensor:
    """Distances of x (N, D) from y (M, D), (N, M), without the product form."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def rough(x: Tensor, y: Tensor, y_norms: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances of x (N, D) from y (M, D) by the product form, and how far off the squares of `pairs` they can be.

    Both (N, M), for float64: the errors of three sums of D products, and of the sum in `pairs`, are below
    D eps (|x|^2 + |y|^2) each. y_norms: |y|^2, (M,).
    """
    norms = x.square().sum(1)[:, None] + y_norms
    return torch.addmm(norms, x, y.mT, alpha=-2), norms.mul_(4 * (x.shape[1] + 8) * torch.finfo(x.dtype).eps)


def measured(x: Tensor, y: Tensor, wanted: Tensor) -> Tensor:
    """The distances of those pairs (N, M) that are wanted; of all where many are, else infinite elsewhere."""
    if wanted.double().mean() > DIRECT:
        return pairs(x, y)
    output = torch.full_like(wanted, torch.inf, dtype=x.dtype)
    for i in wanted.any(1).nonzero()[:, 0].tolist():
        which = wanted[i].nonzero()[:, 0]
        output[i, which] = pairs(x[i : i + 1], y[which])[0]
    return output


def smallest(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest distances of each x (N, D) from y (M, D), ascending, and whose they are; (N, k) each.

    x and y in float64; of equal distances the first one's, where k = 1.
    """
    values, places, norms = [], [], y.square().sum(1)
    for block in x.split(BLOCK):
        squares, slack = rough(block, y, norms)
        bound = (squares + slack).topk(k, largest=False).values[:, -1:]
        distances = measured(block, y, squares.sub_(slack) <= bound)
        found = distances.min(1, keepdim=True) if k == 1 else distances.topk(k, largest=False)
        values.append(found.values)
        places.append(found.indices)
    return torch.cat(values), torch.cat(places)


def nearest_distances(features: Tensor, k: int) -> Tensor:
    """The distance of each feature to its k-th nearest neighbour among the others, (N,), N > k; 0 for k + 1 equal ones."""
    distinct, inverse, counts = features.unique(dim=0, return_inverse=True, return_counts=True)
    values, places = smallest(distinct, distinct, min(k + 1, len(distinct)))
    reached = counts[places].cumsum(1) > k  # the nearest of all is the feature itself
    return values.gather(1, reached.int().argmax(1, keepdim=True))[inverse, 0]


def covered(features: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Whether each feature (N, D) lies in a closed ball around some centre (M, D); (N,) bool."""
    distinct, inverse = features.unique(dim=0, return_inverse=True)
    places, which = centres.unique(dim=0, return_inverse=True)
    reach = torch.zeros(len(places), dtype=radii.dtype).scatter_reduce(0, which, radii, "amax", include_self=False)
    rows, norms, squared_reach = [], places.square().sum(1), reach.square()
    for block in distinct.split(BLOCK):
        squares, slack = rough(block, places, norms)
        slack += 8 * torch.finfo(reach.dtype).eps * squared_reach
        sure = (squares + slack < squared_reach).any(1)
        near = (squares.sub_(slack) <= squared_reach) & ~sure[:, None]
        rows.append(sure | (measured(block, places, near) <= reach).any(1))
    return torch.cat(rows)[inverse]
