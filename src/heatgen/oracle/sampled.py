"""Whether samples agree with a mixture of Gaussians, or with hot squares, that a data set asserts of itself.

Shares of samples below a number are compared with the law's; they differ by more than sqrt(ln(2 / p) / 2 n) with
probability p at most, whatever the law (Dvoretzky, Kiefer, Wolfowitz 1956; Massart 1990).
"""

import math

import torch
from torch import Tensor

from heatgen.data.hot_spots import HotSpots
from heatgen.data.module import Mixture
from heatgen.noise import SampleNoise
from heatgen.oracle.agreement import FALSE_ALARMS, STATISTICS, Finding

DIRECTIONS = 16  # at random, along which samples are compared with a mixture, besides at most as many axes
SPREAD = 1e-3  # the noise added to both, in units of the deviation of all samples: single points then have a density
BLOCK = 2**22  # numbers at a time
LIKE = 1e-4  # a hot square's squared distance from its template, beside its square


def mixture_findings(u: Tensor, law: Mixture) -> list[Finding]:
    """What a mixture does not explain of samples (n, C, H, W), along axes and directions that are always the same."""
    points, means = u.double().flatten(1), law.means.double().flatten(1)
    n, d = points.shape
    random = SampleNoise(range(DIRECTIONS), "law", "directions").normal(d, dtype=torch.float64)
    axes = torch.eye(d, dtype=torch.float64)[torch.linspace(0, d - 1, min(d, DIRECTIONS)).long()]
    directions = torch.cat([axes, random / random.norm(dim=1, keepdim=True)])
    noise = SPREAD * max(float(points.std()), float(means.abs().max()), 1e-12)
    values = points @ directions.mT
    values = (values + noise * SampleNoise(range(n), "law", "spread").normal_like(values)).sort(0).values
    stds = (law.stds.double() ** 2 + noise**2).sqrt()
    allowed = math.sqrt(math.log(2 * len(directions) * STATISTICS / FALSE_ALARMS) / (2 * n))
    gap = 0.0
    for column, centre in zip(values.unbind(1), (means @ directions.mT).unbind(1), strict=True):
        parts = column.split(max(1, BLOCK // len(stds)))
        below = torch.cat([torch.special.ndtr((part[:, None] - centre) / stds) @ law.weights.double() for part in parts])
        steps = torch.arange(n + 1, dtype=torch.float64) / n
        gap = max(gap, float((below - steps[1:]).abs().max()), float((below - steps[:-1]).abs().max()))
    if gap <= allowed:
        return []
    words = f"shares of samples are {gap:.3g} away from those of the mixture, where sampling explains {allowed:.2g}"
    return [Finding(words, gap / allowed)]


def spots_findings(u: Tensor, law: HotSpots) -> list[Finding]:
    """What the law of a single hot square does not explain of fields (n, 1, N, N): their shape, temperature and place."""
    if law.spots != (1, 1):
        return []
    fields = u.double().flatten(1)
    templates, names, weights = law.templates()
    templates = templates.flatten(1)
    sizes = templates.square().sum(1)
    amplitudes = fields @ templates.mT / sizes
    apart = (fields.square().sum(1, keepdim=True) - amplitudes**2 * sizes).clamp(min=0)
    least, which = (apart / fields.square().sum(1, keepdim=True).clamp(min=1e-300)).min(1)
    if (strange := int((least > LIKE).sum())) > 0:
        return [Finding(f"{strange} of {len(u)} fields are not a single hot square", math.inf)]
    (low, high), heat = law.amplitudes, amplitudes.gather(1, which[:, None])[:, 0].sort().values
    if heat[0] < low - 1e-3 * high or heat[-1] > high * (1 + 1e-3):
        return [Finding(f"temperatures from {heat[0]:.4g} to {heat[-1]:.4g}, and the law has {low:g} to {high:g}", math.inf)]
    allowed = math.sqrt(math.log(8 * STATISTICS / FALSE_ALARMS) / (2 * len(u)))
    steps = (torch.arange(len(u), dtype=torch.float64) + 0.5) / len(u)
    gaps = {"temperatures": float(((heat - low) / (high - low) - steps).abs().max()) if high > low else 0.0}
    places = torch.tensor(names, dtype=torch.float64)
    for i, name in enumerate(("half sides", "rows", "columns")):
        values = places[:, i].unique()
        law_below = (weights[:, None] * (places[:, i, None] <= values)).sum(0)
        gaps[name] = float(((places[which, i, None] <= values).double().mean(0) - law_below).abs().max())
    return [
        Finding(f"shares of {name} are {gap:.3g} away from the law's, where sampling explains {allowed:.2g}", gap / allowed)
        for name, gap in gaps.items()
        if gap > allowed + 1 / len(u)
    ]
