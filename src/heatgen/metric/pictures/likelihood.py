"""The figures of mode=likelihood: likelihood against context, and one task in pictures and as a film."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from heatgen.metric.pictures.figure import DOUBLE, as_image, plots, size, styled

MOST = 200  # pictures in a film


@styled()
def likelihoods(series: Mapping[str, Sequence[float]], ceiling: float) -> Image.Image:
    """ln p a dimension against the number of context frames, with the exact lines and the noise ceiling; and the RMSE."""
    figure, (left, right) = plots().subplots(1, 2, figsize=size(2, 2.6), layout="constrained")
    x = series["num_context"] if all(c == c for c in series["num_context"]) else [0] * len(series["joint"])
    for name, style in (("joint", "C0o-"), ("frame", "C1s-"), ("pixel", "C2^-")):
        left.plot(x, series[name], style, label=name)
    for name, style in (("exact_joint", "k-"), ("exact_frame", "k--"), ("exact_factorised", "k:")):
        if name in series:
            left.plot(x, series[name], style, label=name.replace("_", " "))
    left.axhline(ceiling, color="0.7", linestyle="-.", label="noise ceiling")
    left.set(xlabel="context frames", title="log-likelihood [nats a dimension]", xticks=list(x))
    left.legend()
    right.plot(x, series["rmse"], "C0o-", label="model")
    if "exact_rmse" in series:
        right.plot(x, series["exact_rmse"], "k-", label="exact")
    right.set(xlabel="context frames", title="RMSE of the mean, against clean frames", xticks=list(x), ylim=(0, None))
    right.legend()
    return as_image(figure)


@styled()
def frames(rows: Mapping[str, Tensor], times: Sequence[float]) -> Image.Image:
    """Frames (M, C, H, W) side by side, a row each name; all but deviations on the scale of the targets."""
    plt, count = plots(), len(times)
    side = min(1.1, (DOUBLE - 0.6) / count)  # inches of a frame
    figure, axes = plt.subplots(
        *(len(rows), count), figsize=(side * count + 0.6, 1.05 * side * len(rows) + 0.3), layout="constrained", squeeze=False
    )
    low, high = rows["clean"].min().item(), rows["clean"].max().item()
    widest = max(u.max().item() for name, u in rows.items() if "std" in name)
    for row, (line, (name, several)) in enumerate(zip(axes, rows.items(), strict=True)):
        for panel, u, time in zip(line, several, times, strict=True):
            scale = (
                {"vmin": 0, "vmax": widest, "cmap": "viridis"}
                if "std" in name
                else {"vmin": low, "vmax": high, "cmap": "inferno"}
            )
            panel.imshow(u[0].double().numpy(), interpolation="nearest", **scale)
            panel.set(xticks=[], yticks=[])
            if row == 0:
                panel.set_title(f"t = {time:.3g}")
        line[0].set_ylabel(name)
    return as_image(figure)


@styled()
def film(rows: Mapping[str, Tensor], times: Sequence[float], context: Sequence[float]) -> list[Image.Image]:
    """Frames (M, C, H, W) side by side, a panel each name, at one time after the other; at most 200 of them.

    All fields share the colours of the targets, all deviations those from 0 to the largest. context: its times.
    """
    plt, target = plots(), rows["target"].double()
    widest = max((u.max().item() for name, u in rows.items() if "std" in name), default=1.0)
    figure, axes = plt.subplots(1, len(rows), figsize=(2.1 * len(rows), 2.5), layout="constrained", squeeze=False)
    panels = []
    for panel, (name, u) in zip(axes[0], rows.items(), strict=True):
        own = {"vmin": 0, "vmax": widest, "cmap": "viridis"} if "std" in name else {"cmap": "inferno"}
        scale = {"vmin": target.min().item(), "vmax": target.max().item()} | own
        panels.append(panel.imshow(u[0, 0].double().numpy(), interpolation="nearest", **scale))
        panel.set(xticks=[], yticks=[], title=name)
        figure.colorbar(panels[-1], ax=panel, location="bottom", shrink=0.9)
    pages = []
    for i in range(0, len(times), -(-len(times) // MOST)):
        is_context = any(abs(times[i] - time) < 1e-9 for time in context)
        figure.suptitle(f"t = {times[i]:.3g}{', in the context' if is_context else ''}")
        for panel, u in zip(panels, rows.values(), strict=True):
            panel.set_data(u[i, 0].double().numpy())
        figure.canvas.draw()
        pages.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()))
    plt.close(figure)
    return pages
