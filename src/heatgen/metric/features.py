"""What FID and its relatives share: the features of samples and of a reference, and their cache."""

from typing import TypedDict

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric.context import EvalContext
from heatgen.metric.extractor import Extractor, make_extractor
from heatgen.metric.feature_cache import features_of_split, no_cure
from heatgen.metric.result import Result
from heatgen.picture import to_bytes

SOURCES = ("model", "train", "val", "test")


class FeatureSettings(TypedDict, total=False):
    """What every metric of features can be given; see `FeatureMetric`."""

    source: str
    reference: str
    reference_n: int | None
    extractor: str
    weights: str | None
    truncate: bool


class FeatureMetric:
    """A metric of the features of samples, mostly beside those of a reference; a subclass writes `measure`.

    Args:
        source: what is measured: model, samples of the run | train | val | test, images of the data set.
        reference: the split to compare with: train | val | test.
        reference_n: how many of its images; None: all.
        extractor: inception | classifier | a TorchScript file.
        weights: Inception as TorchScript; None: see `extractor.find_inception`.
        truncate: whether bytes are floor(255 u), as the original code has it, in place of rounded.

    Raises:
        ConfigError: for a value out of range, fewer than two images, data that are not images, samples or features that are
            not finite, and nothing to measure.
    """

    needs_reference = True

    def __init__(
        self,
        source: str = "model",
        reference: str = "train",
        reference_n: int | None = None,
        extractor: str = "inception",
        weights: str | None = None,
        truncate: bool = False,
    ):
        self.source = check.choice("metric.source", source, SOURCES)
        self.reference = check.choice("metric.reference", reference, SOURCES[1:])
        self.reference_n = None if reference_n is None else check.integer("metric.reference_n", reference_n, minimum=2)
        self.extractor, self.weights, self.truncate = str(extractor), weights, check.boolean("metric.truncate", truncate)

    def measure(self, features: Tensor, reference: Tensor, extractor: Extractor, seed: int) -> Result:
        """The numbers of features (N, F) beside a reference (M, F)."""
        raise NotImplementedError

    def __call__(self, ctx: EvalContext) -> Result:
        n = check.integer("n", ctx.n, minimum=2)
        if ctx.data.spec.bits is None:
            mode = check.option_name(self)
            raise ConfigError(
                f"mode={mode} measures images; data={ctx.data_name} has continuous fields; use mode=reconstruction or "
                "mode=score."
            )
        if self.source == "model" and ctx.model is None:
            raise ConfigError("metric.source=model needs a run; give run=DIR, or metric.source=test to measure the data.")
        extractor = self.make_extractor(ctx)
        self.require(n, extractor)
        features, reference, notes = self.of_data(ctx, extractor)
        if self.source == "model":
            features = self.of_samples(ctx, extractor, n)
        if len(features) < 2 or len(reference) == 1:
            raise ConfigError(f"A split of {ctx.data_name} has one image only; choose another metric.source or reference.")
        if not ctx.devices.first:
            return Result()
        result = self.measure(features, reference, extractor, ctx.seed)
        result.facts = self.facts(ctx, features, reference, extractor) | result.facts
        result.notes += [*notes, *of_no_use(features, reference)]
        if self.extractor != "inception":
            result.notes.append("not Inception features: comparable only with values of the same extractor.")
        return result

    def require(self, n: int, extractor: Extractor) -> None:
        """ConfigError where n images, or this extractor, are not enough for the metric; before anything is drawn."""

    def of_samples(self, ctx: EvalContext, extractor: Extractor, n: int) -> Tensor:
        """Features (n, F) of samples of the model. ConfigError where samples or features are not finite."""
        return ctx.sample(n, lambda u0: extractor(to_bytes(u0, self.truncate)), fix=no_cure(extractor))

    def facts(self, ctx: EvalContext, features: Tensor, reference: Tensor, extractor: Extractor) -> dict[str, object]:
        """What a reader must know of the numbers."""
        facts: dict[str, object] = {"n": len(features), "source": self.source}
        if self.needs_reference:
            facts["reference"] = f"{ctx.data_name} {self.reference}, {len(reference)} images"
        if self.source == "model":
            facts["delta"] = ctx.trained(check.option_name(self)).noise_label()
        return facts | {"resolution": "x".join(map(str, ctx.data.spec.shape[-2:])), "extractor": extractor.name}

    def make_extractor(self, ctx: EvalContext) -> Extractor:
        """The extractor that was asked for."""
        data = ctx.data
        place = (data.data_dir, ctx.data_name, data.spec.shape)
        return make_extractor(self.extractor, self.weights, *place, ctx.devices.device)

    def of_data(self, ctx: EvalContext, extractor: Extractor) -> tuple[Tensor, Tensor, list[str]]:
        """Features of the images that are measured, of the reference, none where they are not of data; and notes."""
        features, reference, notes = torch.empty(0), torch.empty(0), list[str]()
        if self.needs_reference:
            reference, said = features_of_split(ctx, extractor, self.reference, self.reference_n)
            notes += said
        if self.source != "model":
            features, said = features_of_split(ctx, extractor, self.source, ctx.n)
            notes += said
        return features, reference, list(dict.fromkeys(notes))


def of_no_use(features: Tensor, reference: Tensor) -> list[str]:
    """The caveats of features (N, F) and (M, F) that tell little: one number an image, or the same of all images."""
    notes = ["one feature an image: images that agree in it are the same here."] * (features.shape[1] == 1)
    for what, x in (("samples", features), ("reference images", reference)):
        if len(x) and bool((x == x[0]).all()):
            notes.append(f"all {len(x)} {what} have the same features: they are one image, as far as these features see.")
    return notes


def too_few(features: Tensor, reference: Tensor) -> list[str]:
    """The caveat of a number that is biased where there are fewer images than features."""
    few, size = min(len(features), len(reference)), features.shape[1]
    caveat = f"only {few} images, fewer than the {size} features: biased, comparable only at equal n."
    return [caveat] if few < size else []
