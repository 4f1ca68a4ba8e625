"""The figures of mode=reconstruction: fields side by side, spectra, rank histogram."""

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from heatgen.metric.pictures.figure import DOUBLE, as_image, plots, size, styled


@styled()
def fields(rows: Tensor, names: Sequence[str]) -> Image.Image:
    """Fields side by side: a row each, a column a name; rows: (fields, names, C, H, W).

    Three channels are colours in [0, 1]; else the first channel is shown, blue below 0 and red above, on the scale of the
    row's first column, u_K on its own. A column `std` runs from 0, one of `error` is on the scale of the first column.
    """
    plt, finite = plots(), rows.double().nan_to_num(0, 0, 0)
    side = min(1.4, DOUBLE / len(names))  # inches of a field
    figure, axes = plt.subplots(
        *(len(rows), len(names)),
        figsize=(side * len(names), side * len(rows) + 0.3),
        layout="constrained",
        squeeze=False,
    )
    for line, row in zip(axes, finite, strict=True):
        scale = row[0].abs().max().item() or 1.0
        for panel, name, u in zip(line, names, row, strict=True):
            if len(u) == 3 and name not in ("error", "std"):
                panel.imshow(u.clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
            elif name == "std":
                panel.imshow(u.mean(0).numpy(), cmap="viridis", vmin=0, interpolation="nearest")
            else:
                shown = u.mean(0) if len(u) == 3 else u[0]
                limit = (shown.abs().max().item() or 1.0) if name == "u_K" else scale
                panel.imshow(shown.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            panel.set(xticks=[], yticks=[])
    for panel, name in zip(axes[0], names, strict=True):
        panel.set_title(name)
    return as_image(figure)


@styled()
def spectra(powers: Mapping[str, Tensor]) -> Image.Image:
    """Power against the radius 1, 2, ... of the ring, both on log scales; powers: name -> (radii,)."""
    figure, panel = plots().subplots(figsize=size(1, 2.6), layout="constrained")
    styles = ["k-", "C3-", "C0--", "C2:"]
    for (name, power), style in zip(powers.items(), styles, strict=False):
        panel.loglog(range(1, len(power) + 1), power.clamp(min=1e-30).tolist(), style, label=name)
    panel.set(xlabel="radius [waves a side]", ylabel="power of a coefficient", title="spectra, mean over fields")
    panel.legend()
    return as_image(figure)


@styled()
def ranks(histogram: Tensor) -> Image.Image:
    """The share of pixels whose truth has rank 0 .. n among n draws, and the flat line of exact draws; (n + 1,)."""
    figure, panel = plots().subplots(figsize=size(1), layout="constrained")
    panel.bar(range(len(histogram)), histogram.tolist(), width=0.9)
    panel.axhline(1 / len(histogram), color="k", linestyle="--", label="exact draws")
    panel.set(xlabel="rank of the truth among the draws", ylabel="share of pixels", title="rank histogram")
    panel.legend()
    return as_image(figure)
