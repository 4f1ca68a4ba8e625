"""Which noise goes with which image of a batch."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from heatgen.basis import exact

COUPLINGS = ("independent", "ot")


def transported(u0: Tensor, eps: Tensor) -> Tensor:
    """The noises eps of images u_0, (B, C, H, W) both, in the order of least sum |u_0 - eps|^2: exact optimal transport.

    Data in [-1, 1] have the same order. The pairs depend on all of the batch that a process has; they are found on the CPU,
    in a time that grows as B^3.

    Source: Tong et al. 2024, algorithm 3; Pooladian et al. 2023.
    """
    with exact(u0.device):
        overlap = u0.double().flatten(1) @ eps.double().flatten(1).mT
    _, order = linear_sum_assignment(overlap.nan_to_num().cpu().numpy(), maximize=True)
    return eps[torch.from_numpy(order).to(eps.device)]
