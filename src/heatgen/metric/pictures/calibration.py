"""The figures of mode=calibration: histograms of the PIT, and nominal against observed coverage."""

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from heatgen.metric.pictures.figure import SINGLE, as_image, plots, size, styled

BARS = 20


def name_of(num_context: int | None) -> str:
    """The number of context frames in words."""
    return "the regime's own context" if num_context is None else f"{num_context} context frame{'s' * (num_context != 1)}"


@styled()
def pit(num_contexts: Sequence[int | None], shares: Mapping[str, Sequence[Tensor]]) -> Image.Image:
    """The density of the PIT, a panel for each number of context frames; shares: model and exact -> (bins,) each."""
    figure, axes = plots().subplots(
        1, len(num_contexts), figsize=size(len(num_contexts)), layout="constrained", squeeze=False, sharey=True
    )
    edges = [i / BARS for i in range(BARS + 1)]
    for i, (panel, num_context) in enumerate(zip(axes[0], num_contexts, strict=True)):
        density = {source: (each[i].reshape(BARS, -1).sum(1) * BARS).tolist() for source, each in shares.items()}
        panel.stairs(density["model"], edges, fill=True, alpha=0.6, label="model")
        if "exact" in density:
            panel.stairs(density["exact"], edges, color="k", label="exact moments")
        panel.axhline(1, color="0.4", linestyle="--", label="calibrated")
        panel.set(xlabel="PIT", title=name_of(num_context), xlim=(0, 1))
    axes[0][0].set_ylabel("density")
    axes[0][0].legend()
    return as_image(figure)


@styled()
def reliability(num_contexts: Sequence[int | None], shares: Mapping[str, Sequence[Tensor]]) -> Image.Image:
    """The observed coverage of central intervals of every probability, a colour for each number of context frames."""
    figure, panel = plots().subplots(figsize=(SINGLE, SINGLE), layout="constrained")
    panel.plot([0, 1], [0, 1], color="0.7", label="calibrated")
    for i, num_context in enumerate(num_contexts):
        for source, each in shares.items():
            nominal, observed = coverages(each[i])
            word, style, width = ("", "-", 1.2) if source == "model" else ("exact ", "--", 0.8)
            panel.plot(nominal, observed, f"C{i}{style}", linewidth=width, label=f"{word}{name_of(num_context)}")
    panel.set(xlabel="nominal coverage", ylabel="observed coverage", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    panel.legend()
    return as_image(figure)


def coverages(shares: Tensor) -> tuple[list[float], list[float]]:
    """Nominal and observed coverage of the central intervals of an even number of equal parts of [0, 1], widening."""
    half = len(shares) // 2
    pairs = shares[half:] + shares[:half].flip(0)
    return [j / half for j in range(half + 1)], [0.0, *pairs.cumsum(0).tolist()]
