"""mode=memorisation: are samples copies of training images?"""

import math
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric.context import EvalContext
from heatgen.metric.neighbours import pairs, smallest
from heatgen.metric.reduction import Rows
from heatgen.metric.result import Result, Value
from heatgen.metric.tiles import rows_at_once, samples_at_once, tiles
from heatgen.noise import batches
from heatgen.picture import cloud, grid, is_points, side_by_side

SHOWN = 12  # samples in the picture; of points, all
FEW = 100  # held-out images, below which 1 % of them is less than one


def nearest(images: Tensor, ctx: EvalContext) -> tuple[Tensor, Tensor]:
    """Root mean square distance per pixel of images (B, C, H, W) to the nearest training image, and its number; (B,).

    Exactly 0 for a copy; the first of those that are as near.
    """
    flat, size = images.double().flatten(1), images[0].numel()
    if not flat.isfinite().all():
        raise ConfigError("Images to compare hold NaN or inf; use another checkpoint, or data without them.")
    best = torch.full((len(flat),), torch.inf, dtype=torch.float64, device=flat.device)
    index = torch.zeros(len(flat), dtype=torch.long, device=flat.device)
    for block in tiles(len(ctx.data.images("train")), images.shape[1:]):
        train = ctx.data.get("train", block).to(flat).flatten(1)
        distance, place = (found[:, 0] for found in smallest(flat, train, 1))
        closer = distance < best
        best, index = torch.where(closer, distance, best), torch.where(closer, place + block[0], index)
    return best / size**0.5, index


class Memorisation:
    """Distances of samples to training images, beside those of images that no training has seen.

    A sample starts from a training image, degraded and noised: `own` is its distance to that one, `nearest` to the nearest
    of all; both are root mean squares per pixel, in the unit of the data. `held out` is the nearest distance of the images
    of a split that was not trained on: what to expect of new images. Values: the medians, the ratio nearest / held out
    (about 1: new images; near 0: copies), the share of samples whose nearest training image is the one they started from,
    and the share nearer to the training set than 99 % of the held-out images are. Samples of bytes are clipped to [0, 1].

    The samples are held in memory, each process its own, as the training images are read once for many of them (`tiles`).

    Args:
        split: of the held-out images, val or test.
    """

    def __init__(self, split: str = "test"):
        self.split = check.choice("metric.split", split, ("val", "test"))

    def __call__(self, ctx: EvalContext) -> Result:
        if ctx.model is None:
            raise ConfigError("mode=memorisation needs a run; give run=DIR.")
        n = check.integer("n", ctx.n, minimum=2)
        continuous = ctx.data.spec.bits is None

        def finish(u0: Tensor) -> Tensor:
            return (u0.float() if continuous else u0.float().clamp(0, 1)).cpu()

        kept, devices = ctx.sample(n, finish, Rows()), ctx.devices
        samples, start = kept.tensor, torch.as_tensor(ctx.data.prior_order(range(n), ctx.seed))

        def compare(indices: Sequence[int]) -> Tensor:
            u = samples[[i // devices.world for i in indices]].to(devices.device)  # of this process's own
            distance, index = nearest(u, ctx)
            own = []
            for part in batches(range(len(u)), rows_at_once(shape)):
                mine = ctx.data.get("train", start[[indices[i] for i in part]].tolist()).to(u)
                pair = (x.double().flatten(1)[:, None] for x in (u[part[0] : part[-1] + 1], mine))
                own.append(pairs(*pair).flatten() / u[0].numel() ** 0.5)
            return torch.stack([torch.cat(own), distance, index.double()], dim=1)

        shape = ctx.data.spec.shape
        size = samples_at_once(math.prod(shape))
        own, close, index = ctx.each(range(n), compare, "nearest images", size=size).unbind(1)
        held = range(min(n, len(ctx.data.images(self.split))))
        others = ctx.each(
            held,
            lambda indices: nearest(ctx.data.get(self.split, indices).to(devices.device), ctx)[0],
            "held-out images",
            size=size,
        )
        samples = devices.to_first(samples if is_points(shape) else samples[:SHOWN])
        if not devices.first:
            return Result()
        bound = others.quantile(0.01)
        copies, same = (close < bound).double(), (own <= close).double()  # one of several copies is its own
        ratio = (close.median() / others.median()).item() if others.median() > 0 else math.nan
        values = [
            Value("nearest_over_held_out", ratio, label="nearest / held out"),
            Value.mean("closer_than_held_out", copies, label="closer than 99 % of held out"),
            Value.mean("nearest_is_own", same, label="nearest is its own"),
            Value("own_median", own.median().item(), label="own, median"),
            Value("nearest_median", close.median().item(), label="nearest, median"),
            Value("held_out_median", others.median().item(), label="held out, median"),
        ]
        facts = {
            "n": n,
            "held out": f"{len(others)} of {ctx.data_name} {self.split}",
            "delta": ctx.model.noise_label(),
        }
        notes = self.caveats(close, others)
        if ratio < 0.5:
            notes.append("samples are far nearer to training images than new images are: the model copies.")
        picture = self.picture(ctx, samples, start, index.long())
        result = Result(values, facts, notes, pictures={"nearest": picture}, headline=("nearest_over_held_out",))
        result.over = "samples, the training and held-out images given"
        return result

    @staticmethod
    def caveats(close: Tensor, others: Tensor) -> list[str]:
        """What a reader must know of distances (n,) of samples and (m,) of held-out images to the nearest training image."""
        notes = []
        if len(others) < FEW:
            notes.append(
                f"only {len(others)} held-out images: 99 % of them is nearly all, and nearer than 99 % is nearer than the "
                "nearest one."
            )
        if twins := int((others == 0).sum()):
            notes.append(f"{twins} of {len(others)} held-out images are copies of training images: they are not new.")
        if copied := int((close == 0).sum()):
            notes.append(f"{copied} of {len(close)} samples are exact copies of training images.")
        if not others.median() > 0:
            notes.append("half of the held-out images are copies of training images: no ratio nearest / held out.")
        return notes

    @staticmethod
    def picture(ctx: EvalContext, samples: Tensor, start: Tensor, index: Tensor, columns: int = SHOWN) -> Image.Image:
        """Three rows: samples, the training images they started from, the training images nearest to them.

        Of points, three clouds of all of them.
        """
        points = is_points(samples.shape[1:])
        count = len(samples) if points else min(columns, len(samples))
        rows = [samples[:count], *(ctx.data.get("train", which[:count].tolist()) for which in (start, index))]
        if points:
            return side_by_side([cloud(ctx.data.spec.to_unit(row)) for row in rows])
        return grid(ctx.data.spec.to_unit(torch.cat(rows)), columns=count)
