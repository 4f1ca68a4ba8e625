"""mode=forward: the report card of a forward map. It needs no training, and says what a model of it can hope for."""

import math

import torch
from PIL import Image
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.process import ForwardProcess
from heatgen.metric.context import EvalContext
from heatgen.metric.result import Result, Series, Value
from heatgen.noise import SampleNoise
from heatgen.picture import cloud, grid, is_points, side_by_side

POINTS = 2000  # in each cloud of the picture
COLUMNS = {  # by level: name -> label, unit
    "condition": ("condition number", ""),
    "singular_largest": ("singular value, largest", ""),
    "singular_median": ("singular value, median", ""),
    "singular_smallest": ("singular value, smallest", ""),
    "above_noise": ("singular values above the noise", ""),
    "step_images": ("rms step of images", ""),
    "step_map": ("rms step of A", ""),
    "information": ("information", "bits"),
}


def information(states: Tensor) -> float:
    """1/2 log2 det(I + C) in bits, C the covariance of states (N, D) in units of the noise: I(u_0; u_t) of Gaussian images.

    Of all images with this covariance, Gaussian ones keep the most, so it bounds the information of others from above.
    """
    centred = states.double() - states.double().mean(0)
    small = centred if centred.shape[0] < centred.shape[1] else centred.mT
    variances = torch.linalg.eigvalsh(small @ small.mT / (len(states) - 1)).clamp(min=0)
    return float(0.5 * variances.log1p().sum().item() / math.log(2))


class Forward:
    """A(0) = I, conditioning, step size and information kept, level by level, and a picture of u_0 .. u_K.

    By level k: the condition number of A(t_k) (infinite where it is singular), its largest, median and smallest singular
    value, and the share of them above the noise, for pixels of standard deviation 0.25; the root mean square step of images,
    |E[u_k - u_{k-1} | u_0]| / sqrt(D), in pixels, and |A(t_k) - A(t_{k-1})|_F / sqrt(D); the information I(u_0; u_k) of
    `images` training images, as if they were Gaussian, which bounds it from above. Beside log2 N, what it takes to name one
    of N training images, that says whether level K can still hold one. A map that is drawn at random is drawn for each
    image; its matrices are those of the map before a draw.

    Args:
        levels: at most how many levels are looked at, beside level 1.
        images: training images at most.
    """

    draws_samples = False

    def __init__(self, levels: int = 21, images: int = 2000):
        self.levels = check.integer("metric.levels", levels, minimum=2)
        self.images = check.integer("metric.images", images, minimum=2)

    def __call__(self, ctx: EvalContext) -> Result:
        process = ctx.process
        if process is None:
            raise ConfigError("mode=forward needs a map; give run=DIR, or run=null with data=NAME and forward=NAME.")
        device, total = ctx.devices.device, len(ctx.data.images("train"))
        process.to(device)
        indices = range(min(self.images, total))
        u0 = ctx.data.get("train", indices).to(device)
        bound = process.bind(process.draw(SampleNoise(indices, ctx.seed, "map")))
        num_levels = process.num_levels
        levels = sorted({1, *(round(i * num_levels / (self.levels - 1)) for i in range(self.levels))})
        rows = []
        with ctx.devices.bar(len(levels), "levels") as bar:
            for k in levels:
                rows.append(self.at_level(process, bound, u0, k))
                bar.update()
        series = {name: [row[name] for row in rows] for name in COLUMNS}
        start = (process.mean(u0[:8], process.times[:1].expand(len(u0[:8]))) - u0[:8]).abs().max().item()
        need = math.log2(total)
        kept = series["information"][-1]
        values = [
            Value("information_last", kept, unit="bits", label="information at K"),
            Value("information_needed", need, unit="bits", label="to name a training image"),
            Value("identity_error", start, label="|A(0) u - u|"),
            Value("condition_last", series["condition"][-1], label="condition number at K"),
            Value("condition_largest", max(series["condition"]), label="condition number, largest"),
            Value("above_noise_last", series["above_noise"][-1], label="singular values above the noise at K"),
            Value("step_largest", max(series["step_images"]), label="rms step, largest"),
        ]
        facts = {
            "map": process.name,
            "levels": num_levels,
            "noise at K": process.std(process.times[-1:]).max().item(),
            "images": f"{len(u0)} of {ctx.data_name} train",
        }
        notes = []
        if kept > need:
            notes.append("level K may still hold a training image: samples may be copies of it (see mode=memorisation).")
        strip = self.strip(process, u0, ctx.data.spec, ctx.seed)
        curves = [
            Series("k", [float(k) for k in levels]),
            *(Series(name, series[name], unit, label) for name, (label, unit) in COLUMNS.items()),
        ]
        return Result(values, facts, notes, curves, {"states": strip}, headline=("information_last",))

    @staticmethod
    def at_level(process: ForwardProcess, bound: ForwardProcess, u0: Tensor, k: int) -> dict[str, float]:
        """The numbers of one level, by name. process: as it is; bound: to a draw for each image."""
        time, before = process.times[k : k + 1], process.times[max(k - 1, 0)].reshape(1)
        dimensions = math.prod(process.shape)
        singular = process.singular_values(time)
        state = bound.mean(u0, time.expand(len(u0)))
        step = state - bound.mean(u0, before.expand(len(u0)))
        noise = bound.std(time.expand(len(u0))).to(state)
        bits = information((bound.basis(state) / noise).flatten(1)) if (noise > 0).all() else math.nan
        return {
            "condition": (singular[0] / singular[-1]).item() if singular[-1] > 0 else math.inf,
            "singular_largest": singular[0].item(),
            "singular_median": singular.median().item(),
            "singular_smallest": singular[-1].item(),
            "above_noise": process.share_above_noise(time),
            "step_images": step.double().square().mean().sqrt().item(),
            "step_map": process.frobenius(time, before) / dimensions**0.5,
            "information": bits,
        }

    @staticmethod
    def strip(
        process: ForwardProcess, u0: Tensor, spec: DataSpec, seed: int, images: int = 4, states: int = 11
    ) -> Image.Image:
        """u_0 .. u_K of a few images, a row each, or of up to 2000 points, in one row; noisy, as the network sees them."""
        points = is_points(process.shape)
        u0 = u0[: POINTS if points else images]
        rng = SampleNoise(range(len(u0)), seed, "strip")
        bound = process.bind(process.draw(rng))
        levels = sorted({round(i * process.num_levels / (states - 1)) for i in range(states)})
        columns = [bound.perturb(u0, process.times[k].expand(len(u0)), rng.normal_like(u0)) for k in levels]
        if points:
            return side_by_side([cloud(spec.to_unit(column), size=160) for column in columns])
        return grid(spec.to_unit(torch.stack(columns, dim=1).flatten(0, 1)), columns=len(levels))
