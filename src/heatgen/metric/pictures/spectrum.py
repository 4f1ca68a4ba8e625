"""The figure of mode=spectrum."""

from collections.abc import Mapping, Sequence

from PIL import Image

from heatgen.metric.pictures.figure import as_image, plots, size, styled


@styled()
def spectrum(series: Mapping[str, Sequence[float]], source: str, reference: str, high: float) -> Image.Image:
    """Power by wave number and its ratio, as in the result, within two standard errors, on log scales; grey from `high`."""
    shape = {"height_ratios": (2, 1), "sharex": True, "layout": "constrained", "figsize": size(1, 3.8)}
    figure, (above, below) = plots().subplots(2, 1, **shape)
    waves = series["wave_number"]
    rows = [(above, "power_data", "k", reference), (above, "power", "C3", source), (below, "ratio", "C3", "")]
    for panel, name, colour, label in rows:
        ends = [(max(p - 2 * e, 0.01 * p), p + 2 * e) for p, e in zip(series[name], series[f"{name}_se"], strict=True)]
        panel.fill_between(waves, *zip(*ends, strict=True), color=colour, alpha=0.25, linewidth=0)
        panel.plot(waves, series[name], ".-", color=colour, markersize=3, label=label)
        panel.axvspan(high, max(waves), color="0.92", zorder=0)
    if "power_exact" in series:
        above.plot(waves, series["power_exact"], "C0--", label="exact")
    below.axhline(1, color="k", linewidth=0.8)
    above.set(xscale="log", yscale="log", ylabel="power of a coefficient", title="grey: what the classifier reads")
    below.set(xscale="log", yscale="log", xlabel="wave number [cycles/pixel]", ylabel=f"{source} / {reference}")
    ticks = [tick for tick in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if waves[0] <= tick <= waves[-1]]
    below.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    below.xaxis.set_minor_formatter("")
    above.legend()
    return as_image(figure)
