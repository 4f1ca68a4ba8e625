"""The pictures of the explanations, from closed forms and published JSON: python docs/pictures/draw.py [NAME...].

Nothing is trained: maps, exact answers, distances and noise are heatgen's own, and a picture takes seconds.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import heatgen
from heatgen.app.build import build_data, build_process
from heatgen.forward.process import ForwardProcess
from heatgen.metric.fid import frechet_distance
from heatgen.metric.scoring_rules import count_radii, power
from heatgen.noise import SampleNoise
from heatgen.oracle.gaussian import GaussianOracle

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
INK, BLUE, ORANGE, GREEN, PALE = "#333333", "#2f6690", "#d1701f", "#4c8c5c", "#b9c4cc"  # told apart without colour vision
plt.rcParams.update(
    {
        **{"font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8, "legend.frameon": False},
        **{"axes.edgecolor": "#999999", "axes.labelcolor": INK, "text.color": INK, "axes.titlecolor": INK},
        **{"xtick.color": "#777777", "ytick.color": "#777777", "axes.spines.top": False, "axes.spines.right": False},
        **{"image.cmap": "gray", "savefig.dpi": 120, "figure.constrained_layout.use": True},
    }
)


def blank(axes: Axes, title: str = "") -> None:
    """A panel without ticks and edges."""
    axes.set(xticks=[], yticks=[], title=title)
    axes.spines[:].set_visible(False)


def show(axes: Axes, u: Tensor, low: float = 0.0, high: float = 1.0) -> None:
    """A field (..., H, W) in grey."""
    axes.imshow(u.reshape(u.shape[-2:]).numpy(), vmin=low, vmax=high, interpolation="nearest")
    blank(axes)


def map_of(name: str, *words: str) -> ForwardProcess:
    """A map of conf/forward for grey fields of 32 x 32."""
    return build_process(heatgen.compose(f"forward={name}", "data=digits", "data.shape=[1,32,32]", *words).forward)


def digit(number: int) -> Tensor:
    """A digit at 32 x 32, smooth, (1, 1, 32, 32)."""
    images = build_data(heatgen.compose("data=digits").data).get("train", [number])
    return torch.nn.functional.interpolate(images, size=(32, 32), mode="bicubic").clamp(0, 1)


# the one law ---------------------------------------------------------------------------------------------------------------


def one_law() -> Figure:
    """Four maps: states of one digit, and beside them the gain of three waves and the noise."""
    maps = {"heat": "heat: blur", "constant_velocity": "constant_velocity: fading", "flow": "flow: fading into noise"}
    maps["blurring"] = "blurring: blur into noise"
    figure, panels = plt.subplots(4, 6, figsize=(8.2, 5.4), width_ratios=[1, 1, 1, 1, 1, 2.1])
    u0 = digit(3)
    for axes, title in zip(panels[0], ("level 0", "K / 4", "K / 2", "3 K / 4", "K"), strict=False):
        axes.set_title(title)
    for row, (name, label) in zip(panels, maps.items(), strict=True):
        process = map_of(name)
        for axes, share in zip(row, (0, 0.25, 0.5, 0.75, 1), strict=False):
            t, title = process.times[[round(share * process.num_levels)]], axes.get_title()
            show(axes, process.perturb(u0, t, SampleNoise([0], "law").normal_like(u0)))
            axes.set_title(title)
        level = torch.linspace(0, process.num_levels, 201)
        t, axes = process.time_of(level), row[-1]
        gain, std = (part(t).expand(-1, 1, 32, 32)[:, 0] for part in (process.gain, process.std))
        for wave, colour in ((1, BLUE), (4, GREEN), (12, ORANGE)):
            axes.plot(level / process.num_levels, gain[:, 0, wave], color=colour, label=f"gain, {wave} half-waves")
        axes.plot(level / process.num_levels, std[:, 0, 1], color=INK, ls="--", lw=1, label="noise")
        axes.set(xlim=(0, 1), ylim=(-0.05, 1.08), yticks=[0, 1])
        axes.set_title(label, loc="left")
        axes.set(xticks=[0, 1], xticklabels=["0", "K"])
    figure.legend(*panels[0, -1].get_legend_handles_labels(), loc="outside lower right", ncols=4, handlelength=1.4)
    return figure


# points on a ring ----------------------------------------------------------------------------------------------------------


def ring(count: int, key: str) -> Tensor:
    """Points on a circle of radius 1 with a little noise, (count, 2)."""
    rng = SampleNoise(range(count), "ring", key)
    angle = 2 * math.pi * rng.uniform(1)[:, 0]
    return torch.stack([angle.cos(), angle.sin()], dim=1) + 0.03 * rng.normal(2)


def nearest_ratio(samples: Tensor, train: Tensor) -> float:
    """The median distance of samples to the nearest training point, over that of new points."""
    near, new = (torch.cdist(points, train).amin(1).median() for points in (samples, ring(2000, "held out")))
    return float(near / new)


def exact_draws(observed: Tensor, matrix: Tensor, std: float) -> Tensor:
    """A draw of u_0 given A u_0 + std eps for each row: of many points of the law, one by its likelihood."""
    law = ring(20_000, "law")
    logits = -torch.cdist(observed.double(), (law @ matrix.T).double()).square() / (2 * std**2)
    gumbel = -(-SampleNoise(range(len(observed)), "draws").uniform_like(logits).clamp(min=1e-12).log()).log()
    return law[(logits + gumbel).argmax(1)]


def invertible() -> Figure:
    """Two maps of points on a ring, one of which can be undone: training points, u_K, and exact draws back from it."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    maps = {
        "invertible: a quarter turn, noise 0.05": (turn, 0.05),
        "forgetting: 0.05 u₀, noise 0.3": (0.05 * torch.eye(2), 0.3),
    }
    figure, panels = plt.subplots(2, 3, figsize=(7.6, 5.0))
    train = ring(40, "train")
    for row, (label, (matrix, std)) in zip(panels, maps.items(), strict=True):
        last = train @ matrix.T + std * SampleNoise(range(40), "u_K").normal(2)
        back = exact_draws(last, matrix, std)
        for axes, points, colour, title in zip(
            row,
            (train, last, back),
            (BLUE, PALE, ORANGE),
            ("u₀: 40 training points", "u_K", "exact draws back"),
            strict=True,
        ):
            if points is back:
                axes.scatter(*train.T, s=42, facecolors="none", edgecolors=BLUE, lw=0.8)
                axes.plot(*torch.stack([train, back]).permute(2, 0, 1).numpy(), color=PALE, lw=0.5, zorder=0)
            axes.scatter(*points.T, s=12, color=colour)
            axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
            blank(axes, title)
        row[0].set_ylabel(label)
        row[2].set_xlabel(f"nearest / held out: {nearest_ratio(back, train):.2f}")
    return figure


def copies() -> Figure:
    """Four sets of samples of the ring: their Fréchet distance to the training points, and how near to them they are."""
    train = ring(100, "train of copies")
    mean, cov = train.mean(0).double(), train.T.cov().double()
    root = torch.linalg.cholesky(cov)
    rng, half = SampleNoise(range(100), "models"), ring(400, "half")
    sets = {
        "new points of the law": ring(100, "new"),
        "copies of training points": train + 0.004 * rng.normal(2),
        "a Gaussian of the same\nmean and covariance": (mean + rng.normal(2).double() @ root.T).float(),
        "half of the ring": half[half[:, 1] > 0][:100],
    }
    figure, panels = plt.subplots(1, 4, figsize=(8.4, 2.9))
    for axes, (label, points) in zip(panels, sets.items(), strict=True):
        distance = frechet_distance(points.mean(0).double(), points.T.cov().double(), mean, cov)
        axes.scatter(*train.T, s=22, facecolors="none", edgecolors=PALE, lw=0.8)
        axes.scatter(*points.T, s=5, color=ORANGE)
        axes.set(xlim=(-2.1, 2.1), ylim=(-2.1, 2.1), aspect="equal")
        blank(axes, label)
        axes.set_xlabel(f"Fréchet distance {distance:.3f}\nnearest / held out {nearest_ratio(points, train):.2f}")
    return figure


# numbers of the other pages ------------------------------------------------------------------------------------------------


def bits() -> Figure:
    """Bits per dimension of Fashion-MNIST beside trivial coders; and what a wrong noise of reverse steps costs."""
    rows = json.loads((RESULTS / "ihd_fashion_mnist.json").read_text())
    bound = {
        ("per step" in row["command"] or "per_step" in row["command"]): row["nll_bound"]
        for row in rows
        if row["mode"] == "elbo"
    }
    (known,) = [row for row in json.loads((RESULTS / "trivial_coders.json").read_text()) if row["data"] == "fashion_mnist"]
    bars = {
        "ihd, constant noise": (bound[False], ORANGE),
        "ihd, noise measured by step": (bound[True], ORANGE),
        "a uniform guess of a byte": (known["trivial_uniform"], PALE),
        "the pixel histogram": (known["trivial_histogram"], PALE),
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 2.7), width_ratios=[1.25, 1])
    for place, (value, colour) in enumerate(reversed(bars.values())):
        left.barh(place, value, 0.62, color=colour)
        left.text(value + 0.12, place, f"{value:.2f}", va="center")
    left.axvline(known["trivial_histogram"], color=INK, lw=0.8, ls="--")
    left.text(known["trivial_histogram"] + 0.1, 3.55, "a bound to the right is empty", fontsize=8)
    left.set(
        yticks=range(4), yticklabels=list(reversed(bars)), xlim=(0, 12.5), ylim=(-0.5, 3.95), xlabel="bits per dimension"
    )
    ratio = np.geomspace(0.1, 10, 400)  # the true deviation of a step over the one that the model has
    right.plot(ratio, (ratio**2 - 1 - 2 * np.log(ratio)) / (2 * np.log(2)), color=BLUE)
    right.set(xscale="log", ylim=(0, 8), xlim=(0.1, 10), xlabel="error of a step / its noise δ", ylabel="bits lost a step")
    right.set(xticks=[0.1, 0.3, 1, 3, 10], xticklabels=["0.1", "0.3", "1", "3", "10"])
    right.minorticks_off()
    return figure


def exact() -> Figure:
    """A Gaussian field, what is left of it, the posterior mean and draws; and the power of each by wave number."""
    cfg = heatgen.compose("data=grf", "forward=stochastic_heat", "data.train_size=500", "data.law=assume")
    data, process = build_data(cfg.data), build_process(cfg.forward)
    oracle = GaussianOracle(process, data.spec)
    u0, t = data.get("test", [1]), process.times[-1:]
    last = process.perturb(u0, t, SampleNoise([0], "exact").normal_like(u0))
    mean = oracle.posterior_mean(last, t)
    draws = oracle.posterior_sample(last.repeat(64, 1, 1, 1), t.expand(64), SampleNoise(range(64), "posterior"))
    figure, panels = plt.subplots(1, 6, figsize=(9.6, 2.1), width_ratios=[1, 1, 1, 1, 1, 1.7])
    fields = {"truth u₀": u0, "given: u_K": last, "posterior mean": mean, "a draw": draws[:1], "another draw": draws[1:2]}
    for axes, (label, field) in zip(panels, fields.items(), strict=False):
        show(axes, field, -3, 3)
        axes.set_title(label)
    count, axes = count_radii(32, 32), panels[-1]
    for label, field, colour in (("truth", u0, INK), ("draws", draws, ORANGE), ("mean", mean, BLUE), ("u_K", last, PALE)):
        axes.loglog(range(1, count + 1), power(field, count).reshape(-1, count).mean(0), color=colour, lw=1.2, label=label)
    axes.set(title="power by wave number", xticks=[1, 4, 16], xticklabels=["1", "4", "16"], ylim=(1e-5, None))
    axes.minorticks_off()
    axes.legend(loc="lower left", handlelength=1, labelspacing=0.15, fontsize=7)
    return figure


def noise() -> Figure:
    """The noise of eight samples, drawn in one batch and in two processes; and of a stream, which moves."""
    whole = SampleNoise(range(8), 0, "train").normal(24)
    parts = {rank: SampleNoise(range(rank, 8, 2), 0, "train").normal(24) for rank in (0, 1)}
    apart = torch.stack([parts[i % 2][i // 2] for i in range(8)])
    stream = torch.Generator().manual_seed(0)
    one = torch.randn(8, 24, generator=stream)
    streams = [torch.Generator().manual_seed(0) for _ in range(2)]
    two = torch.stack([torch.randn(24, generator=streams[i % 2]) for i in range(8)])
    assert torch.equal(whole, apart) and not torch.equal(one, two)
    panels = {"a function: one process": whole, "two processes: the same": apart}
    panels |= {"a stream: one process": one, "two processes of one seed: rows in pairs": two}
    figure, axes = plt.subplots(2, 2, figsize=(7.2, 3.6))
    for panel, (label, numbers) in zip(axes.flat, panels.items(), strict=True):
        panel.imshow(numbers.numpy(), cmap="PuOr", vmin=-3, vmax=3, aspect="auto")
        panel.set_title(label, loc="left")
        panel.set(xticks=[], yticks=range(8))
        panel.tick_params(labelsize=7, length=0)
        panel.spines[:].set_visible(False)
    figure.supylabel("sample", fontsize=9)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    function.__name__: function for function in (one_law, invertible, copies, bits, exact, noise)
}


def main() -> None:
    """Draw those that are named, or all."""
    for name in sys.argv[1:] or PICTURES:
        figure = PICTURES[name]()
        figure.savefig(HERE / f"{name}.png")
        plt.close(figure)
        print(HERE / f"{name}.png")


if __name__ == "__main__":
    main()
