"""mode=spectrum: power by wave number of samples beside that of data, and whether a classifier tells them apart by it."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import SPLITS, DataSpec
from heatgen.metric.context import EvalContext
from heatgen.metric.pictures import spectrum as pictures
from heatgen.metric.reduction import Rows
from heatgen.metric.result import Result, Series, Value
from heatgen.metric.scoring_rules import ring_sums
from heatgen.noise import mix
from heatgen.oracle.law import basis_of, law_of
from heatgen.picture import is_points, to_bytes


class Rings:
    """The coefficients of fields by wave number, in the waves that suit the data's walls: Fourier (periodic) or cosine.

    A wave number is in cycles/pixel, whatever H and W are. A ring holds those around a multiple of the lowest one, up to the
    corners; the constant wave, the mean of an image, is left out. `wave_numbers`: the mean one of each ring, (R,).
    """

    def __init__(self, spec: DataSpec):
        self.basis = basis_of(spec)
        assert self.basis.eigenvalues is not None, "a basis of waves"
        waves = self.basis.eigenvalues.reshape(spec.shape[-2:]).sqrt() / (2 * math.pi)
        self.place: Tensor = (waves / waves[waves > 0].min()).round().long().unique(return_inverse=True)[1]
        self.sizes = torch.bincount(self.place.flatten()).double()[1:]
        self.wave_numbers = self.means(waves[None])

    def means(self, values: Tensor) -> Tensor:
        """The mean over channels and rings of values of coefficients, (..., C, H, W) -> (..., R) float64 on the CPU."""
        return ring_sums(values.mean(-3), self.place, len(self.sizes) + 1).cpu()[..., 1:] / self.sizes

    def power(self, u: Tensor) -> Tensor:
        """The mean square of the coefficients of fields, (B, C, H, W) -> (B, R)."""
        return self.means(self.basis.to(u.device)(u.double()).square())


def log_gap(name: str, x: Tensor, y: Tensor, label: str) -> Value:
    """The mean over rings of |ln(mean of x / mean of y)|, with its error over images to first order; y may be one row."""
    gap, parts = x.mean(0).log() - y.mean(0).log(), (x, y) if len(y) > 1 else (x,)
    squares = [((part / part.mean(0)) @ gap.sign() / len(gap)).var().item() / len(part) for part in parts]
    return Value(name, gap.abs().mean().item(), math.sqrt(sum(squares)), label=label)


def told_apart(x: Tensor, y: Tensor, folds: int, seed: int) -> list[Value]:
    """Accuracy and area under the ROC curve of a logistic regression on columns of x and y, on folds that it did not see."""
    from sklearn import linear_model, model_selection, pipeline, preprocessing

    count, scores = min(len(x), len(y)), {"accuracy": "accuracy", "auc": "roc_auc"}
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=1000))
    parts = model_selection.StratifiedKFold(folds, shuffle=True, random_state=mix(seed, "spectrum") % 2**32)
    features, labels = torch.cat([x[:count], y[:count]]).numpy(), [1] * count + [0] * count
    found = model_selection.cross_validate(model, features, labels, cv=parts, scoring=scores)
    tested = {name: torch.from_numpy(found[f"test_{name}"]) for name in scores}
    return [replace(Value.mean(f"classifier_{name}", x), over=f"{folds} folds of images") for name, x in tested.items()]


class Spectrum:
    """Power by wave number, the mean square of the coefficients of a ring (`Rings`), of samples over that of data.

    Values: the mean over rings of |ln ratio|, also to the exact spectrum where it is known; held-out accuracy and AUC of a
    logistic regression on high ln powers of single images, 0.5 where it cannot tell samples (of bytes: rounded) from data.

    Args:
        source: model, samples of the run | train | val | test, images of the data set.
        reference: another split, to compare with; at most n of its images.
        high: the share of the largest wave number from which wave numbers are high, 0 to 1.
        folds: of the cross-validation, of two images of either kind at least.
    Raises:
        ConfigError: for values out of range, points, too few images, or images without power at a wave number.
    Source: Falck et al. 2025 (EqualSNR), its classifier of high frequencies.
    """

    def __init__(self, source: str = "model", reference: str = "test", high: float = 0.5, folds: int = 10):
        self.source = check.choice("metric.source", source, ("model", *SPLITS))
        self.draws_samples = source == "model"
        self.reference = check.choice("metric.reference", reference, SPLITS)
        if source == reference:
            raise ConfigError(f"metric.source and metric.reference are both {source}; choose two splits.")
        self.high = check.number("metric.high", high, minimum=0, maximum=1)
        self.folds = check.integer("metric.folds", folds, minimum=2)

    def __call__(self, ctx: EvalContext) -> Result:
        if is_points(ctx.data.spec.shape):
            raise ConfigError(f"mode=spectrum measures images, and data={ctx.data_name} has points; use mode=score.")
        if self.source == "model":
            ctx.trained("spectrum")
            check.integer("n", ctx.n, minimum=2)
        rings = Rings(ctx.data.spec)

        def powers(split: str) -> Tensor:
            chosen = ctx.choose("spectrum", split, f"spectrum {split}")
            if len(chosen) < 2 * self.folds:
                need = f"metric.folds={self.folds} needs {2 * self.folds} images of either kind, and there are {len(chosen)}"
                raise ConfigError(f"{need} of {split}; raise n, take another split, or lower metric.folds.")
            rows = ctx.each(chosen, lambda batch: rings.power(ctx.data.get(split, batch).to(ctx.devices.device)), split)
            if not (rows.mean(0) > 0).all():
                raise ConfigError(f"mode=spectrum needs power at each wave number, which images of {split} lack at some.")
            return rows

        y, drawn = powers(self.reference), Rows()
        if self.source == "model":
            as_stored = (lambda u0: u0) if ctx.data.spec.bits is None else (lambda u0: to_bytes(u0).to(u0.device) / 255)
            ctx.sample(ctx.n or 0, lambda u0: rings.power(as_stored(u0)), drawn).together(ctx.devices)
        x = drawn.tensor if self.source == "model" else powers(self.source)
        return self.compare(ctx, rings, x, y) if ctx.devices.first else Result()

    def compare(self, ctx: EvalContext, rings: Rings, x: Tensor, y: Tensor) -> Result:
        """The numbers of the powers of samples (n, R) and of the reference (m, R)."""
        law, waves, means = law_of(ctx.data), rings.wave_numbers, (x.mean(0), y.mean(0))
        high, ratio = waves >= self.high * waves[-1], means[0] / means[1]
        errors = [part.std(0) / len(part) ** 0.5 for part in (x, y)]
        both = torch.stack([error / mean for error, mean in zip(errors, means, strict=True)]).norm(dim=0)
        logs = [part.clamp(min=1e-6 * means[1]).log()[:, high] for part in (x, y)]  # a flat image has no power
        values = [log_gap("spectral_error_radial", x, y, "mean |ln power ratio|")]
        values += told_apart(logs[0], logs[1], self.folds, ctx.seed)
        result = Result(values, notes=law.notes, headline=("spectral_error_radial", "classifier_accuracy"), over="images")
        equal = zip(values, (math.sqrt(2 / math.pi) * both.mean().item(), 0.5, 0.5), strict=True)
        result.refer("equal spectra, as few images", *(Value(value.name, known) for value, known in equal))
        columns = {"wave_number": waves, "power": means[0], "power_se": errors[0], "power_data": means[1]}
        columns |= {"power_data_se": errors[1], "ratio": ratio, "ratio_se": both * ratio}
        if (variances := law.spec.spectrum) is not None:
            centre = torch.zeros(1) if law.spec.mean is None else rings.basis.cpu()(law.spec.mean[None].cpu())[0]
            exact = columns["power_exact"] = rings.means(variances.cpu().expand(*law.spec.shape) + centre.square())
            result.add(log_gap("spectral_error_exact", x, exact[None], "mean |ln power / exact|"))
        result.curves = [Series(name, c.tolist(), "cycles/pixel" * (name == "wave_number")) for name, c in columns.items()]
        result.pictures["spectrum"] = pictures.spectrum(result.series, self.source, self.reference, waves[high][0].item())
        result.facts = {
            "n": len(x),
            "source": self.source,
            "reference": f"{ctx.data_name} {self.reference}, {len(y)} images",
        }
        result.facts["waves"] = "Fourier" if ctx.data.spec.boundary == "periodic" else "cosine"
        return result
