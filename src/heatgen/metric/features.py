"""What FID and its relatives share: the features of samples and of a reference, reduced to what each of them needs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Generic, TypedDict, TypeVar

from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric.context import EvalContext
from heatgen.metric.extractor import Extractor, make_extractor
from heatgen.metric.feature_cache import no_cure, of_samples, of_split
from heatgen.metric.reduction import Moments, Reduction, Rows
from heatgen.metric.result import Result
from heatgen.metric.statistics import moments_of_file
from heatgen.metric.torchscript import content_hash
from heatgen.picture import to_bytes

SOURCES = ("model", "train", "val", "test")
Kept = TypeVar("Kept", bound=Reduction)


class FeatureSettings(TypedDict, total=False):
    """What every metric of features can be given; see `FeatureMetric`."""

    source: str
    reference: str
    reference_n: int | None
    extractor: str
    weights: str | None
    truncate: bool


class FeatureMetric(Generic[Kept]):
    """A metric of the features of samples, mostly beside those of a reference; a subclass writes `measure`.

    Features are reduced batch by batch, each process those of its own samples; the first process joins the reductions.

    Args:
        source: what is measured: model, samples of the run | train | val | test, images of the data set.
        reference: the split to compare with: train | val | test; of mode=fid also an .npz file of moments, as clean-fid has.
        reference_n: how many of its images; None: all.
        extractor: inception | classifier | a TorchScript file; as FID means Inception, names of the others' values end in
            _classifier and _own.
        weights: Inception as TorchScript; None: see `extractor.find_inception`.
        truncate: whether bytes are floor(255 u), as the original code has it, in place of rounded.

    Raises:
        ConfigError: for a value out of range, fewer than two images, data that are not images, samples or features that are
            not finite, a file of other moments, and nothing to measure.
    """

    needs_reference = True
    takes_file: ClassVar[bool] = False  # whether the moments of the reference are enough

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
        self.draws_samples = source == "model"
        self.file = Path(reference) if isinstance(reference, str) and reference.endswith(".npz") else None
        self.reference = reference if self.file else check.choice("metric.reference", reference, SOURCES[1:])
        if self.file and not self.takes_file:
            raise ConfigError(
                f"metric.reference={reference} has moments alone, enough for mode=fid only; use train, val or test."
            )
        if self.file and reference_n is not None:
            raise ConfigError("metric.reference is a file, whose images are not chosen; remove metric.reference_n.")
        self.reference_n = None if reference_n is None else check.integer("metric.reference_n", reference_n, minimum=2)
        self.extractor, self.weights, self.truncate = str(extractor), weights, check.boolean("metric.truncate", truncate)

    def reduction(self, n: int, extractor: Extractor) -> Kept:
        """What takes the features of n images: they are kept, unless a subclass needs less of them."""
        return Rows()  # type: ignore[return-value]  # which is what `Kept` is then

    def measure(self, features: Kept, reference: Kept, extractor: Extractor, seed: int) -> Result:
        """The numbers of features beside those of a reference."""
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
        reference, notes = self.of_reference(ctx, extractor)
        if self.source == "model":
            features = self.of_samples(ctx, extractor, n)
        else:
            features, said = of_split(ctx, extractor, self.source, n, lambda n: self.reduction(n, extractor))
            notes = list(dict.fromkeys([*notes, *said]))
        if not ctx.devices.first:
            return Result()
        if len(features) < 2 or len(reference) == 1:
            raise ConfigError(f"A split of {ctx.data_name} has one image only; choose another metric.source or reference.")
        result = self.measure(features, reference, extractor, ctx.seed)
        result.facts = self.facts(ctx, features, reference, extractor) | result.facts
        result.notes += [*notes, *of_no_use(features, reference)]
        if self.extractor != "inception":
            result.notes.append("not Inception features: comparable only with values of the same extractor.")
            result = result.of("classifier" if self.extractor == "classifier" else "own", "features")
        return result

    def require(self, n: int, extractor: Extractor) -> None:
        """ConfigError where n images, or this extractor, are not enough for the metric; before anything is drawn."""

    def of_samples(self, ctx: EvalContext, extractor: Extractor, n: int) -> Kept:
        """Features of n samples of the model. ConfigError where samples or features are not finite."""

        key = f"{extractor.name} {self.truncate}"

        def make(tell: Callable[[Tensor, Sequence[int]], None]) -> Kept:
            def finish(u0: Tensor) -> Tensor:
                return extractor(to_bytes(u0, self.truncate))

            return ctx.sample(n, finish, into, key, fix=no_cure(extractor), tell=tell)

        into = self.reduction(n, extractor)
        path = None if ctx.partial is None else ctx.partial.beside(f"{key}.npy")
        return of_samples(ctx, path, n, into, make)

    def facts(self, ctx: EvalContext, features: Kept, reference: Kept, extractor: Extractor) -> dict[str, object]:
        """What a reader must know of the numbers."""
        facts: dict[str, object] = {"n": len(features), "source": self.source}
        if self.file:
            facts["reference"] = f"{self.file.name}, BLAKE2b {content_hash(self.file)}"
        elif self.needs_reference:
            facts["reference"] = f"{ctx.data_name} {self.reference}, {len(reference)} images"
        if self.source == "model":
            facts["delta"] = ctx.trained(check.option_name(self)).noise_label()
        return facts | {"resolution": "x".join(map(str, ctx.data.spec.shape[-2:])), "extractor": extractor.name}

    def make_extractor(self, ctx: EvalContext) -> Extractor:
        """The extractor that was asked for."""
        data = ctx.data
        return make_extractor(
            self.extractor, self.weights, data.data_dir, ctx.data_name, data.spec.shape, ctx.devices.device
        )

    def of_reference(self, ctx: EvalContext, extractor: Extractor) -> tuple[Kept, list[str]]:
        """Features of the reference, none where none are needed; and notes."""
        if not self.needs_reference:
            return self.reduction(0, extractor), []
        if self.file is None:
            return of_split(ctx, extractor, self.reference, self.reference_n, lambda n: self.reduction(n, extractor))
        kept = self.reduction(0, extractor)
        assert isinstance(kept, Moments)
        kept.take(*moments_of_file(self.file, extractor(ctx.data.images("train").pixels([0])).shape[1], extractor.name))
        return kept, []


def of_no_use(features: Reduction, reference: Reduction) -> list[str]:
    """The caveats of features that tell little: one number an image, or the same of all images."""
    notes = ["one feature an image: images that agree in it are the same here."] * (features.width == 1)
    for what, x in (("samples", features), ("reference images", reference)):
        if x.constant:
            notes.append(f"all {len(x)} {what} have the same features: they are one image, as far as these features see.")
    return notes


def too_few(features: Reduction, reference: Reduction) -> list[str]:
    """The caveat of a number that is biased where there are fewer images than features; a reference of 0 is not counted."""
    few, size = min(len(x) for x in (features, reference) if len(x)), features.width
    caveat = f"only {few} images, fewer than the {size} features: biased, comparable only at equal n."
    return [caveat] if few < size else []
