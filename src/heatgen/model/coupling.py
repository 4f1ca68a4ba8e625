"""Which noise goes with which image of a batch."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from heatgen.basis import exact

COUPLINGS = ("independent", "ot")


def transported(u0: Tensor, eps: Tensor) -> Tensor:
    """The noises eps of a batch in the order that makes sum_i |u_0i - eps_i|^2 least: exact optimal transport.

    The order is that of data in [-1, 1] too, as |u_0|^2 and |eps|^2 do not change with it. The pairs depend on all of the
    batch that a process has. The assignment is solved on the CPU, in a time that grows as B^3.

    Args:
        u0: images, (B, C, H, W).
        eps: their noises, (B, C, H, W).

    Source: Tong et al. 2024, algorithm 3; Pooladian et al. 2023.
    """
    with exact(u0.device):
        overlap = u0.double().flatten(1) @ eps.double().flatten(1).mT
    _, order = linear_sum_assignment(overlap.nan_to_num().cpu().numpy(), maximize=True)
    return eps[torch.from_numpy(order).to(eps.device)]
