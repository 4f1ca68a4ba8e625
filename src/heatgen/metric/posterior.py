"""Draws of u_0 given u_K beside the exact Gaussian posterior, for mode=reconstruction."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from heatgen.basis import Basis, Cosine, Fourier
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.metric import scoring_rules
from heatgen.metric.context import EvalContext
from heatgen.metric.result import Result, Series, Value
from heatgen.noise import SampleNoise
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.oracle.law import law_of


def exact_posterior(ctx: EvalContext, result: Result) -> GaussianOracle | None:
    """The exact posterior; None where data or map are not Gaussian or it cannot be computed, which notes say."""
    process = ctx.trained("reconstruction").process
    if process.is_random:
        return None
    law = law_of(ctx.data)
    result.notes += law.notes
    if law.spec.spectrum is None:
        return None
    try:
        oracle = GaussianOracle(process, law.spec)
        if not oracle.diagonal and not (process.std(process.times[-1:]) > 0).all():
            raise ConfigError(f"forward={process.name} has no noise at its last level.")
        return oracle
    except ConfigError as error:
        result.notes.append(f"no gap to the exact posterior: {error}")
        return None


def wave_numbers(basis: Basis, height: int, width: int) -> Tensor | None:
    """|k| of each coefficient of a basis of waves, in waves a side (half waves for cosines), truncated; (H, W) int64."""
    if isinstance(basis, Fourier):
        y, x = (torch.fft.fftfreq(size, 1 / size, dtype=torch.float64) for size in (height, width))
    elif isinstance(basis, Cosine):
        y, x = (torch.arange(size, dtype=torch.float64) for size in (height, width))
    else:
        return None
    output: Tensor | None = (y[:, None] ** 2 + x[None, :] ** 2).sqrt().long()
    return output


def posterior_columns(
    oracle: GaussianOracle, draws: Tensor, u0: Tensor, u: Tensor, t: Tensor, white: float | None, rng: SampleNoise
) -> tuple[dict[str, Tensor], Tensor]:
    """Of each field of a batch: its columns, name -> (B,) or (B, m); and the exact posterior mean, (B, C, H, W).

    Args:
        oracle: the posterior.
        draws: of u_0, (n, B, C, H, W).
        u0: the fields, (B, C, H, W).
        u: u_K, (B, C, H, W) float64.
        t: t_K, (B,).
        white: the deviation of the white noise on u_K; None where it is the map's own.
        rng: the noise of an exact draw.
    """
    exact = oracle.posterior_mean(u, t, white)
    count = scoring_rules.count_radii(*u0.shape[-2:])
    columns = {"power_oracle": scoring_rules.power(oracle.posterior_sample(u, t, rng, white), count)}
    if len(draws) > 1:
        columns["excess_mse_mean"] = scoring_rules.excess_mse(draws, exact)
    many, times = u.repeat(len(draws), *[1] * (u.dim() - 1)), t.repeat(len(draws))
    z = oracle.standardise(draws.flatten(0, 1), many, times, white).reshape(draws.shape)
    known = oracle.standardise(u0.double(), u, t, white).isfinite()
    return columns | z_scores(oracle, z, known), exact


def z_scores(oracle: GaussianOracle, z: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Sums of the known z-scores squared (n, B, C, H, W), and how many, over all coefficients and by ring |k|."""
    squares = torch.where(known, z.square(), torch.zeros_like(z)).sum((0, 2))
    counts = known.double().sum(1) * len(z)
    columns = {"z_squares": squares.sum((1, 2)), "z_count": counts.sum((1, 2))}
    rings = wave_numbers(oracle.basis, *z.shape[-2:]) if oracle.diagonal else None
    if rings is not None:
        num_rings = int(rings.max()) + 1
        columns["z_squares_by_ring"] = scoring_rules.ring_sums(squares, rings, num_rings)
        columns["z_count_by_ring"] = scoring_rules.ring_sums(counts, rings, num_rings)
    return columns


def least_mse(data: DataModule, oracle: GaussianOracle, t: Tensor, white: float | None) -> tuple[float, float]:
    """The least mean square error of u_0 given u_t, t (1,), and its standard error where the spectrum S is measured.

    least = mean of S n / V, n the noise's variance and V that of u_t, so d least / d S = (n / V)^2.
    """
    least = oracle.minimum_mse(t, white)
    if not oracle.diagonal:
        return least, 0.0
    noise, total = oracle.noise_variance(t, white), oracle.variance(t, white)
    weights = torch.where(total > 0, noise / total.clamp(min=torch.finfo(total.dtype).tiny), torch.ones_like(total)) ** 2
    return least, law_of(data).error(weights)


def add_gap(
    result: Result, found: dict[str, Tensor], least: float, least_error: float, word: str, ends: tuple[str, str]
) -> None:
    """The MSE over that of an exact sampler, and the rms z-scores, of all coefficients and by ring.

    The row of the exact sampler is by formula, so it has no errors. The error of the ratio holds that of a measured law.

    Args:
        result: what they are added to.
        found: the columns of all fields, name -> (n, m).
        least: the smallest mean square error of u_0 that an answer can have.
        least_error: its standard error, 0 where it is exact.
        word: the kind of input.
        ends: what the names and the labels of this input's values end in.
    """
    name_end, label_end = ends
    result.facts[f"least MSE of u_0{label_end}"] = f"{least:.6g}"
    if least == 0 or not found["z_count"].sum():
        result.notes.append(f"u_K determines u_0 ({word} input): no z-scores.")
        return
    name, label = f"mse_u0_over_oracle{name_end}", f"MSE of u_0 / oracle sampler{label_end}"
    ratio = Value.mean(name, found["mse_u0"][:, 0] / (2 * least), label=label)
    if least_error and ratio.error is not None:
        ratio = replace(ratio, error=math.hypot(ratio.error, ratio.value * least_error / least))
        result.facts[f"least MSE of u_0{label_end}"] = f"{least:.6g} +- {least_error:.2g}, measured"
        result.notes.append(f"the standard error of {label} is over fields and over those that the law was measured on.")
    result.add(ratio)
    row = {"mse_u0": 2 * least, "mse_u0_over_oracle": 1.0, "z_score_std": 1.0}
    row |= {name: int(name.removeprefix("coverage_")) / 100 for name in found if name.startswith("coverage_")}
    result.refer("exact sampler", *(Value(f"{name}{name_end}", value) for name, value in row.items()))
    squares = found["z_squares"][:, 0] / found["z_count"][:, 0]
    result.add(Value.root_mean(f"z_score_std{name_end}", squares, label=f"z-score std{label_end}"))
    if "z_count_by_ring" in found:
        rms = (found["z_squares_by_ring"].sum(0) / found["z_count_by_ring"].sum(0)).sqrt()
        if not result.curves:
            result.curves.append(Series("wave_number", [float(k) for k in range(len(rms))], label="|k|"))
        result.curves.append(Series(f"z_score_rms{name_end}", rms.tolist(), label=f"rms z-score{label_end}"))
