"""sampler=multistep: the probability flow of a denoiser, of order 2 or 3 with one call a step."""

from typing import NamedTuple

import torch
from torch import Tensor

from heatgen import check
from heatgen.noise import Noise
from heatgen.sampler.interface import Denoiser, OnStep, Process


class Estimate(NamedTuple):
    """What is known at a time of the path: u = A v + b + L eps."""

    level: float
    t: Tensor  # (B,)
    x0: Tensor  # v, (B, C, H, W)
    eps: Tensor  # (B, C, H, W)


def multistep(
    model: Denoiser, u: Tensor, times: Tensor, rng: Noise | None = None, on_step: OnStep | None = None, order: int = 3
) -> Tensor:
    """u_0 from u_K along du = dA v + db + dL eps with v = denoise(u, t), eps = L^-1 (u - A v - b).

    Over a step v and eps are polynomials in the level through what was estimated on the way, and A and L through their own
    values, so that nothing is approximated where v and eps stay the same: it takes any map, and no mode is stiff. Order 2
    goes on along the line through the last two estimates. Order 3 does so too, and when the estimate at the end is there it
    takes the step again, along the parabola through that and the two before. The first step is of order 1, and so is the
    last one to L = 0, as in sampler=heun: end with short steps. Between levels the level is piecewise linear in t, which
    costs order 3 where steps are shorter than those of the map.

    Args:
        order: 1 (DDIM), 2 or 3; for the others see `Sampler`. rng is not used: the flow has no noise.

    Raises:
        ConfigError: order is out of range.

    Source: Zhang and Chen 2023 (DEIS); Lu et al. 2022 (DPM-Solver++); Zhao et al. 2023 (UniPC) for the step taken again.
    """
    process, levels = model.process, model.process.level(times).tolist()
    order = check.integer("sampler.order", order, minimum=1, maximum=3)
    path: list[Estimate] = []  # the newest first
    before = u
    for k in range(len(levels) - 1, 0, -1):
        t, s = times[k].expand(len(u)), times[k - 1].expand(len(u))
        x0_pred = model.denoise(u, t)
        newest = Estimate(levels[k], t, x0_pred, model.noise_estimate(u, t, x0_pred))
        if order == 3 and path:
            u = moved(process, before, [newest, *path], [at[:2] for at in [newest, *path]])
            newest = newest._replace(eps=model.noise_estimate(u, t, x0_pred))
        path = [newest, *path][:2]
        last = k == 1 and levels[0] == 0
        before, u = u, moved(process, u, path[: 1 if last else order], [(levels[k - 1], s), (levels[k], t)])
        if on_step is not None:
            on_step(k - 1, u)
    return u


def moved(process: Process, u: Tensor, path: list[Estimate], ends: list[tuple[float, Tensor]]) -> Tensor:
    """u plus the integral of dA v + db + dL eps over a step.

    Args:
        process: the map.
        u: the state at the begin of the step, (B, C, H, W).
        path: the estimates that v and eps go through.
        ends: (level, time) that A and L go through, the end of the step first, then its begin.
    """
    columns = weights([at.level for at in path], [level for level, _ in ends]).mT.tolist()
    total = u
    for column, (_, time), sign in zip(columns, ends, (1, -1, 0), strict=False):  # signs: the sums of the columns
        x0 = sum((w * at.x0 for w, at in zip(column, path, strict=True)), torch.zeros_like(u))
        eps = sum((w * at.eps for w, at in zip(column, path, strict=True)), torch.zeros_like(u))
        own = sign * process.mean(sign * x0, time) if sign else process.mean(x0, time) - process.mean(0 * x0, time)
        total = total + own + process.scale_coefficients(eps, process.std(time))
    return total.to(u)


def weights(nodes: list[float], ends: list[float]) -> Tensor:
    """The integrals of l_j dm_k from ends[1] to ends[0], l and m the Lagrange polynomials of nodes and ends; float64."""

    def powers(points: list[float]) -> Tensor:  # [i, j]: of x^i in l_j, x in units of the step
        x = (torch.tensor(points, dtype=torch.float64) - ends[1]) / (ends[0] - ends[1])
        inverse: Tensor = torch.linalg.inv(torch.vander(x, increasing=True))
        return inverse

    i, k = (torch.arange(len(points), dtype=torch.float64) for points in (nodes, ends))
    return powers(nodes).mT @ (k / (i[:, None] + k).clamp(min=1)) @ powers(ends)
