"""The figures of mode=score: scores side by side, the curves by level, the densities there and back."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from heatgen.forward.process import ForwardProcess
from heatgen.metric import distances
from heatgen.metric.pictures.figure import as_image, plots, size, styled
from heatgen.metric.reference import Reference
from heatgen.noise import SampleNoise
from heatgen.oracle.find import Oracle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE, ARROWS, PLANE = 201, 15, 80  # places of a grid: in one dimension; arrows a side, and colours a side, in two
SHOWN = 5  # times in the picture of densities
BINS = 40  # squares a side in a histogram of the plane
LONGEST = 3.0  # of an arrow, in units of 1 / sigma
VISIBLE = 8.0  # how far ln p may fall below its largest value where a difference is shown
REACH = 3.5  # deviations to either side that a grid covers
Answer = Callable[[Tensor, Tensor], Tensor]


@styled()
def score(
    process: ForwardProcess,
    oracle: Oracle,
    learned: Answer,
    u0: Tensor,
    levels: Mapping[int, Tensor],
    series: Mapping[str, Sequence[float]],
) -> Image.Image:
    """sigma(t) times the exact score, the learned one and their difference; in three dimensions and more the error by t.

    u0: clean points, (B, C, H, W), which say where the states are. sigma: the rms of L over coefficients.
    """
    dimension = u0[0].numel()
    if dimension == 1:
        return score_line(process, oracle, learned, u0)
    if dimension == 2:
        return score_plane(process, oracle, learned, u0, levels)
    figure, panel = plots().subplots(figsize=size(1, 2.6), layout="constrained")
    error_curve(panel, series)
    return as_image(figure)


def sigma(process: ForwardProcess, t: Tensor) -> Tensor:
    """The rms of L(t) over coefficients, (B, 1, 1, 1) float64."""
    return process.std(t).double().square().mean((1, 2, 3), keepdim=True).sqrt()


def forward_draws(process: ForwardProcess, u0: Tensor, time: Tensor, k: int, seed: int = 0) -> Tensor:
    """u of each point at the k-th time, with noise by its number, like u0."""
    rng = SampleNoise(range(len(u0)), seed, "score picture", k)
    return process.perturb(u0, time.expand(len(u0)), rng.normal_like(u0))


@styled()
def score_line(process: ForwardProcess, oracle: Oracle, learned: Answer, u0: Tensor) -> Image.Image:
    """Colours over (x, t): exact, learned, difference; dashed, the quantiles between which 99.8 % of the states are."""
    last, count = forward_draws(process, u0, process.times[-1], process.num_levels).double(), process.num_levels
    chosen = sorted({round(1 + i * (count - 1) / 99) for i in range(100)})
    times = process.times[chosen]
    x = torch.linspace(-REACH, REACH, LINE).to(last) * last.std() + last.mean()
    u, t = x.to(u0).repeat(len(times)).reshape(-1, 1, 1, 1), times.repeat_interleave(LINE)
    scale = sigma(process, t)
    exact, own = ((scale * answer(u, t).double()).reshape(-1, LINE).cpu() for answer in (oracle.score, learned))
    frame = [oracle.coefficients(x.reshape(-1, 1, 1, 1), time[None]) for time in times]
    law = [(oracle.weights, *oracle.marginals(time[None])) for time in times]
    below = torch.cat([distances.cdf(c, *one) for c, one in zip(frame, law, strict=True)], dim=1).mT.cpu()
    inside = (below > 0.001) & (below < 0.999)
    limit = exact[inside].abs().max().item() if inside.any() else exact.abs().quantile(0.99).item()
    error = (own - exact)[inside].abs().quantile(0.99).item() if inside.any() else limit
    figure, axes = plots().subplots(1, 3, figsize=size(3, 2.4), layout="constrained", sharey=True)
    columns = {"exact": (exact, limit), "learned": (own, limit), "learned - exact": (own - exact, max(error, 1e-9))}
    across, up = x.cpu().numpy(), times.cpu().numpy()
    for panel, (name, (values, high)) in zip(axes, columns.items(), strict=True):
        mesh = panel.pcolormesh(across, up, values.numpy(), cmap="RdBu_r", vmin=-high, vmax=high, shading="nearest")
        panel.contour(across, up, below.numpy(), [0.001, 0.999], colors="k", linestyles="dashed", linewidths=1)
        panel.set(xlabel="x", title=name)
        figure.colorbar(mesh, ax=panel)
    axes[0].set_ylabel("t")
    figure.suptitle("sigma(t) x score; 99.8 % of the states lie between the dashed lines")
    return as_image(figure)


@styled()
def score_plane(
    process: ForwardProcess, oracle: Oracle, learned: Answer, u0: Tensor, levels: Mapping[int, Tensor]
) -> Image.Image:
    """At four levels: the exact and the learned score as arrows over the exact density, and the size of the difference."""
    chosen = [list(levels)[round(i * (len(levels) - 1) / 3)] for i in range(4)]
    figure, axes = plots().subplots(3, 4, figsize=size(4, 5.4), layout="constrained", squeeze=False)
    for k, column in zip(chosen, axes.T, strict=True):
        time, box = levels[k], extent(forward_draws(process, u0, levels[k], k))
        scale = sigma(process, time[None]).item()

        def scores(u: Tensor, time: Tensor = time, scale: float = scale) -> list[Tensor]:
            t = time.expand(len(u))
            return [scale * answer(u, t).double().flatten(1).cpu() for answer in (oracle.score, learned)]

        fine, coarse = (field_grid(box, side).to(u0) for side in (PLANE, ARROWS))
        logs = oracle.log_prob(fine.double(), time[None]).cpu().reshape(PLANE, PLANE)
        relative = logs - logs.max()
        exact, own = scores(fine)
        gap = (own - exact).norm(dim=1).reshape(PLANE, PLANE).masked_fill(logs < logs.max() - VISIBLE, torch.nan)
        peak = max(gap.nan_to_num().max().item(), 1e-9)
        for panel, name, arrows in zip(column, ("exact", "learned"), scores(coarse), strict=False):
            panel.imshow(relative.exp().numpy(), extent=box, origin="lower", cmap="Blues", vmax=1.4)
            arrows = arrows * (LONGEST / arrows.norm(dim=1, keepdim=True)).clamp(max=1)
            places = coarse.flatten(1).double().cpu()
            length = LONGEST * (ARROWS - 1) / (box[1] - box[0]) / 1.5
            panel.quiver(
                *places.T.numpy(), *arrows.T.numpy(), angles="xy", scale_units="xy", scale=length, width=0.005, color="k"
            )
            panel.set_title(f"{name}, t = {time.item():.3g}")
        mesh = column[2].imshow(gap.numpy(), extent=box, origin="lower", cmap="magma", vmin=0, vmax=peak)
        column[2].set_title(f"|difference|, t = {time.item():.3g}")
        figure.colorbar(mesh, ax=column[2], location="bottom", shrink=0.8)
        for panel in column:
            panel.set(xlim=box[:2], ylim=box[2:], aspect="equal")
    figure.suptitle(f"sigma(t) x score over the exact density; arrows longer than {LONGEST:g} are cut")
    return as_image(figure)


def extent(u: Tensor) -> tuple[float, float, float, float]:
    """A square around nearly all points of the plane: (left, right, bottom, top)."""
    points = u.flatten(1).double().cpu()
    centre = (points.quantile(0.002, dim=0) + points.quantile(0.998, dim=0)) / 2
    half = 1.1 * (points - centre).abs().quantile(0.998).item() or 1e-3
    (x, y) = centre.tolist()
    return x - half, x + half, y - half, y + half


def field_grid(box: Sequence[float], side: int) -> Tensor:
    """side^2 places of a square as fields, (side^2, 1, 1, 2) float64; y is the slow one."""
    x, y = (torch.linspace(low, high, side, dtype=torch.float64) for low, high in (box[:2], box[2:]))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 1, 1, 2)


def error_curve(panel: "Axes", series: Mapping[str, Sequence[float]]) -> None:
    """The score error, and the relative one, against t."""
    for name, style, label in (("score_error", "C3o-", "score error"), ("score_error_relative", "C0.--", "relative")):
        panel.plot(series["t"], series[name], style, markersize=3, label=label)
    if max(x for x in series["score_error"] if x == x) > 0:
        panel.set_yscale("log")
    else:
        panel.set_ylim(-0.05, 1)  # an exact score
    panel.set(xlabel="t", title="score error,\n$E|L(s - s^*)|^2 / D$")
    panel.legend()


@styled()
def levels(series: Mapping[str, Sequence[float]], exact_ks: float) -> Image.Image:
    """The series against t, a panel each: score error, KS and W1 beside those of exact draws, deviations."""
    names = [*(["score"] if "score_error" in series else []), "ks", "w1", "std"]
    figure, axes = plots().subplots(1, len(names), figsize=size(len(names), 2.4), layout="constrained")
    t = series["t"]
    panels = dict(zip(names, axes, strict=True))
    if "score" in panels:
        error_curve(panels["score"], series)
    for name, title in (("ks", "Kolmogorov-Smirnov\ndistance"), ("w1", "Wasserstein-1 distance\n[unit of the data]")):
        panels[name].plot(t, series[name], "C0o-", markersize=3, label="mean over coefficients")
        if any(x < y for x, y in zip(series[name], series[f"{name}_largest"], strict=True)):
            panels[name].plot(t, series[f"{name}_largest"], "C0:", label="largest")
        panels[name].set(xlabel="t", title=title)
    panels["ks"].axhline(exact_ks, color="k", linestyle="--", label="exact draws")
    panels["w1"].plot(t, series["w1_exact_draws"], "k--", label="exact draws")
    panels["std"].plot(t, series["std_exact"], "k--", label="exact")
    panels["std"].plot(t, series["std"], "C3o", markersize=3, label="samples")
    panels["std"].set(xlabel="t", title="standard deviation")
    for name in names[-3:]:
        panels[name].set_ylim(bottom=0)
        panels[name].legend()
    return as_image(figure)


@styled()
def densities(reference: Reference, u0: Tensor, states: Mapping[int, Tensor], times: Tensor, seed: int) -> Image.Image:
    """Forward draws (top) and states on the way back (bottom) at the same times, t = 0 on the left.

    In two dimensions the states themselves; else one coefficient, the one with the largest deviation at t = 0.
    reference: the law of the coefficients; u0: clean points; states: level -> (n, d), coefficients first.
    times: of levels 0, 1, ...
    """
    process, known = reference.oracle.process, sorted(states)
    chosen = sorted({known[round(i * (len(known) - 1) / (SHOWN - 1))] for i in range(SHOWN)})
    draws = {k: forward_draws(process, u0, times[k], k, seed) for k in chosen}
    figure, axes = plots().subplots(
        2, len(chosen), figsize=size(len(chosen), 3.4), layout="constrained", squeeze=False, sharex="col"
    )
    pick = int(distances.moments(*reference.law(times[:1]))[1].argmax())
    least = 1e-3 * distances.moments(*reference.law(times[-1:]))[1].max().item() or 1e-3
    for k, column in zip(chosen, axes.T, strict=True):
        time = times[k : k + 1]
        if reference.size == 2:
            density_plane(column, draws[k].flatten(1).double().cpu(), states[k][:, -2:])
        else:
            law = [x[:, pick : pick + 1] if x.dim() == 2 else x for x in reference.law(time)]
            density_line(column, reference.coefficients(draws[k], time)[:, pick].cpu(), states[k][:, pick], law, least)
        for panel, word in zip(column, ("forward", "way back"), strict=True):
            panel.set_title(f"{word}, t = {time.item():.3g}")
    which = "" if reference.size <= 2 else f"coefficient {int(reference.kept[pick])} of {reference.size}; "
    lines = "colours: the same in a column" if reference.size == 2 else "black: exact density"
    figure.suptitle(f"forward draws and states on the way back; {which}{lines}")
    return as_image(figure)


def density_line(column: Sequence["Axes"], forward: Tensor, back: Tensor, law: Sequence[Tensor], least: float) -> None:
    """Histograms of numbers, (n,) each, on the same places, under the density of their law.

    Its single points are dashed lines; least: what is left free at either end, at least.
    """
    back = back[back.isfinite()]
    weights, means, stds = law
    both = torch.cat([forward, back, means[:, 0] - 3 * stds[:, 0], means[:, 0] + 3 * stds[:, 0]])
    low, high = both.quantile(0.001).item(), both.quantile(0.999).item()
    room = max(0.08 * (high - low), least)
    x = torch.linspace(low - room, high + room, 400, dtype=torch.float64)
    for panel, values in zip(column, (forward, back), strict=True):
        if len(values):
            panel.hist(values.numpy(), bins=60, range=(x[0].item(), x[-1].item()), density=True, color="C0", alpha=0.6)
        if (stds > 0).all():
            panel.plot(x.numpy(), distances.pdf(x[:, None], weights, means, stds)[:, 0].numpy(), "k-", linewidth=1)
        elif len(weights) <= 20:
            for place in means[stds <= 0].tolist():
                panel.axvline(place, color="k", linestyle="--", linewidth=1)
        panel.set(yticks=[])


def density_plane(column: Sequence["Axes"], forward: Tensor, back: Tensor) -> None:
    """Counts of points of the plane, (n, 2) each, as shares on the same squares and the same scale of colours."""
    left, right, bottom, top = extent(torch.cat([forward, back[back.isfinite().all(1)]]))
    edges = [torch.linspace(low, high, BINS + 1, dtype=torch.float64) for low, high in ((left, right), (bottom, top))]
    counts = [torch.histogramdd(points.cpu(), edges).hist / len(points) for points in (forward, back)]
    highest = max(count.max().item() for count in counts) or 1.0
    for panel, count in zip(column, counts, strict=True):
        panel.imshow(count.mT.numpy(), extent=(left, right, bottom, top), origin="lower", cmap="magma", vmin=0, vmax=highest)
