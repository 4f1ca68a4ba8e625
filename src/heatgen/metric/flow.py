"""The probability-flow ODE of a model with a score, and log-densities along it, as pure functions.

    du/dt = f(u, t) - 1/2 G(t)^2 score(u, t),   f = A' A^-1 (u - b) + b',   G^2 = (L^2)' - 2 A' A^-1 L^2
    log p_s(u_s) = log p_T(u_T) + int_s^T div (du/dt) dt

Sources: Song et al. 2021, eqs. 13 and 39, appendix D.2; Grathwohl et al. 2019 (FFJORD); the trace by random probes: Skilling
1989, Hutchinson 1990. The score is evaluated in the precision of the model's weights, all else is float64.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.integrate import DOP853
from torch import Tensor, nn

from heatgen.check import ConfigError
from heatgen.forward.process import ForwardProcess, derivative
from heatgen.runtime import engine
from heatgen.sampler.interface import ScoreModel

TOGETHER = 16  # directions that are taken in one call of the score
Flat = npt.NDArray[np.float64]
Field = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (u, t) -> (du/dt (B, C, H, W), its divergence (B,)), float64


def diffusion_squared(process: ForwardProcess, t: Tensor) -> Tensor:
    """G^2 by coefficient, (L^2)' - 2 A' A^-1 L^2: below 0 where no Markov process has these marginals, but the flow does."""
    variance, slope = derivative(lambda time: process.std(time) ** 2, t)
    return slope - 2 * process.rate(t) * variance


def precision_of(model: object) -> torch.dtype:
    """That of the model's weights, float64 where it has none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((parameter.dtype for parameter in parameters), torch.float64)


def directional(function: Callable[[Tensor], Tensor], u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """function(u) and its derivative along v, both (B, C, H, W): forward mode, with the attention that has a derivative."""
    with engine.forward_mode(u.device):
        value, slope = torch.func.jvp(function, (u,), (v.to(u),))[:2]
    return value, slope


def divergence(function: Callable[[Tensor], Tensor], u: Tensor, probes: Tensor | None) -> tuple[Tensor, Tensor]:
    """function(u), (B, C, H, W), and its divergence by sample, (B,) float64; no sample may depend on the others.

    probes None: exact, the trace of the Jacobian J by C H W directional derivatives; else the mean of v^T J v over the
    probes v, (P, B, C, H, W), whose expectation is the trace where E[v v^T] = I.
    """
    size, value = u[0].numel(), u
    total = torch.zeros(len(u), dtype=torch.float64, device=u.device)
    directions = torch.eye(size).to(u).reshape(size, 1, *u.shape[1:]).expand(-1, *u.shape) if probes is None else probes
    for block in directions.split(TOGETHER):
        v = block.flatten(0, 1)
        values, slope = directional(function, u.repeat(len(block), 1, 1, 1), v)
        value = values[: len(u)]
        total += (slope.double() * v.double()).flatten(1).sum(1).reshape(len(block), len(u)).sum(0)
    return value, total if probes is None else total / len(probes)


def flow_field(model: ScoreModel, process: ForwardProcess, probes: Tensor | None) -> Field:
    """The probability flow of a model with `score` and its divergence, that of the drift exact; t: (1,)."""
    dtype = precision_of(model)

    def field(u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        strength = -0.5 * diffusion_squared(process, t)

        def pull(state: Tensor) -> Tensor:
            return process.scale_coefficients(model.score(state, t.repeat(len(state))).double(), strength)

        value, trace = divergence(pull, u.to(dtype), probes)
        trace_of_drift = process.rate(t).double().expand(1, *u.shape[1:]).sum()
        return process.drift(u, t) + value, trace + trace_of_drift

    return field


def integrate(
    field: Field, u: Tensor, start: float, end: float, tolerance: float, scale: float
) -> tuple[Tensor, Tensor, int]:
    """u at time `end`, (B, C, H, W), the integral of the divergence, (B,), and the evaluations of the field.

    By SciPy's DOP853 in log t, where noise that grows like any power of t from t = 0 is not stiff.

    Args:
        field: (u, t) -> du/dt and its divergence.
        u: at time `start`, (B, C, H, W).
        start: > 0.
        end: the other end, earlier or later.
        tolerance: relative, and absolute in units of `scale` for u and of a nat for the integral, in the root mean square
            over a batch.
        scale: of u.

    Raises:
        ConfigError: where the field is not finite or the steps become too small.
    """
    shape, width = u.shape, u[0].numel()
    least = np.full((len(u), width + 1), tolerance * scale)
    least[:, -1] = tolerance

    def slope(x: float, flat: Flat) -> Flat:
        state = torch.from_numpy(flat.reshape(len(u), width + 1)).to(u.device)
        t = torch.full((1,), math.exp(x), dtype=torch.float64, device=u.device)
        value, trace = field(state[:, :-1].reshape(shape), t)
        change = t * torch.cat([value.double().flatten(1), trace[:, None]], dim=1)
        if not change.isfinite().all():
            raise ConfigError(
                f"The probability flow is not finite at t = {float(t):.4g}; train longer, or raise metric.start."
            )
        return change.flatten().cpu().numpy()

    state = torch.cat([u.double().flatten(1), torch.zeros(len(u), 1, dtype=torch.float64, device=u.device)], dim=1)
    solver = DOP853(
        *(slope, math.log(start), state.flatten().cpu().numpy(), math.log(end)), rtol=tolerance, atol=least.flatten()
    )
    while solver.status == "running":
        solver.step()
    if solver.status == "failed":
        raise ConfigError(
            f"The probability flow cannot be followed beyond t = {math.exp(solver.t):.4g}; raise metric.tolerance."
        )
    final = torch.from_numpy(solver.y.reshape(len(u), width + 1)).to(u.device)
    return final[:, :-1].reshape(shape), final[:, -1], solver.nfev


def kernel_density(states: Tensor, centres: Tensor, std: Tensor) -> Tensor:
    """ln sum_i N(state; centre_i, diag std^2) in nats, (B,) float64, not over N; (B, D), (N, D), std (1, 1) or (1, D)."""
    std = std.double().expand(1, states.shape[1])
    squares = torch.cdist(states.double() / std, centres.double() / std).square()
    return torch.logsumexp(-squares / 2, dim=1) - (std * math.sqrt(2 * math.pi)).log().sum()
