"""The figure of mode=physics: energy, maximum and entropy over time."""

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from heatgen.metric.pictures.figure import as_image, plots, size, styled

STYLES = {"true": ("true", "-"), "mean": ("predicted", "--"), "exact": ("exact mean", ":")}


@styled()
def over_time(found: Mapping[str, Tensor], times: Sequence[float]) -> Image.Image:
    """Energy, maximum and entropy of tasks over time, a colour each; found: source -> (tasks, levels, 4) of `summary`."""
    figure, axes = plots().subplots(1, 3, figsize=size(3), layout="constrained")
    for panel, (title, column) in zip(
        axes, {"mean over the frame": 0, "largest pixel": 1, "entropy": 3}.items(), strict=True
    ):
        for source, (name, style) in STYLES.items():
            for i, line in enumerate(found.get(source, ())):
                panel.plot(times, line[:, column].tolist(), f"C{i}{style}", label=name if i == 0 else None)
        panel.set(xlabel="t", title=title)
    axes[0].legend()
    return as_image(figure)
