"""The law that exact answers rest on: the one that a data set asserts, once its own samples agree; or a measured one.

data.law=check | assume | measure | none.
"""

import dataclasses
import functools
import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Basis, Cosine, Fourier
from heatgen.check import ConfigError
from heatgen.data.module import SPLITS, DataModule, DataSpec
from heatgen.oracle.agreement import Agreement, Finding
from heatgen.oracle.measured import measured_spectrum
from heatgen.oracle.sampled import mixture_findings, spots_findings

CHECKED = 2**22  # numbers of a split at most that are compared with the law
SAID = 4  # findings that a refusal names
LIKE = (0.8, 1.25)  # the power of one split beside the other's, for one measured spectrum to be that of both
ERRORS = 7  # and the standard errors that it may be away


@dataclasses.dataclass(frozen=True)
class Law:
    """What is known of the law of a data set.

    Args:
        spec: the data set's, with the law that exact answers rest on; with none where there is none.
        name: what answers are called, "exact" unless the law was not checked, or measured.
        refusal: why there are no exact answers, with the measured numbers; "" where nothing speaks against them.
        squares: of the coefficients about their mean that a spectrum was measured on, (M, C, H, W) float64.
    """

    spec: DataSpec
    name: str = "exact"
    refusal: str = ""
    squares: Tensor | None = None

    def error(self, weights: Tensor) -> float:
        """The standard error over training fields of the mean of weights S, for a measured spectrum S; 0 for another.

        weights: of the coefficients, broadcastable to (1, C, H, W).
        """
        if self.squares is None:
            return 0.0
        means = (weights.cpu() * self.squares).flatten(1).mean(1)
        return float(means.std()) / math.sqrt(len(means))

    @property
    def notes(self) -> list[str]:
        """What a reader of a result must know of the law: nothing, where it was asserted and checked."""
        if self.refusal:
            return [f"no exact answers: {self.refusal}."]
        return [] if self.name == "exact" else [f"the exact answers are {self.name}."]


FOUND: "WeakKeyDictionary[DataModule, Law]" = WeakKeyDictionary()


def law_of(data: DataModule) -> Law:
    """The law of a data set, by its setting `data.law`; its samples are compared with it when it is first asked for.

    ConfigError for samples that cannot be read.
    """
    if not isinstance(data, DataModule):  # a stand-in that asserts its own
        return Law(data.spec)
    if data not in FOUND:
        FOUND[data] = judge(data)
    return FOUND[data]


def facts_of(data: DataModule) -> dict[str, str]:
    """What the exact answers that a result rests on are called, where they are not simply exact; nothing where none do."""
    law = FOUND.get(data) if isinstance(data, DataModule) else None
    return {} if law is None or law.refusal or law.name == "exact" else {"exact answers": law.name}


def bare(spec: DataSpec) -> DataSpec:
    """A spec without a law."""
    return dataclasses.replace(spec, variances=None, mean=None, mixture=None, spots=None)


def judge(data: DataModule) -> Law:
    """The law that the setting `data.law` leads to."""
    spec, option = data.spec, data.trust
    asserted = spec.variances is not None or spec.mixture is not None or spec.spots is not None
    if option == "none":
        return Law(bare(spec), refusal="data.law=none says so")
    if option == "measure":
        return measured(data)
    if not asserted:
        wrong = (
            f"data={check.option_name(data)} asserts no law that data.law=assume could trust; data.law=measure measures one"
        )
        return Law(spec, refusal=wrong if option == "assume" else "")
    if option == "assume":
        return Law(spec, "those of a law that is assumed and was not checked (data.law=assume)")
    if data.drawn_from_law:
        return Law(spec)
    found = disagreement(data)
    return Law(bare(spec), refusal=found) if found else Law(spec)


def parts(data: DataModule) -> dict[str, Tensor]:
    """Fields of every split that there is, as they are stored, that stand for all of it: (n, C, H, W) float64.

    A missing file of val or test is refused when it is needed.
    """
    found, size = {}, max(1, math.prod(data.spec.shape))
    for split in SPLITS:
        try:
            count = len(data.images(split))
            found[split] = data.get(split, range(0, count, -(-count * size // CHECKED))).double()
        except ConfigError:
            if split == "train":
                raise
    return found


def basis_of(spec: DataSpec) -> Basis:
    """The basis of the data's walls."""
    return (Fourier if spec.boundary == "periodic" else Cosine)(*spec.shape[-2:])


def disagreement(data: DataModule) -> str:
    """What the samples of the first split that disagrees say against the asserted law, "" where all agree."""
    spec = data.spec
    if spec.spectrum is not None:
        name, spectrum, basis = "spectrum", spec.spectrum.expand(*spec.shape), basis_of(spec)
        if not (spectrum.isfinite().all() and (spectrum >= 0).all()):
            wrong = f"the spectrum that data={check.option_name(data)} asserts is not finite and positive"
            return f"{wrong}; data.law=measure measures one"

        def findings(u: Tensor) -> list[Finding]:
            return Agreement(u, spectrum, basis, spec.mean).findings()
    elif spec.mixture is not None:
        name, findings = "mixture", functools.partial(mixture_findings, law=spec.mixture)
    else:
        assert spec.spots is not None, "a law is asserted"
        name, findings = "law of hot squares", functools.partial(spots_findings, law=spec.spots)
    for split, u in parts(data).items():
        if found := findings(u):
            words = list(dict.fromkeys(finding.words for finding in found))[:SAID]
            return (
                f"the {len(u)} {split} fields do not have the {name} that data={check.option_name(data)} asserts: "
                f"{'; '.join(words)} (data.law=measure takes a measured spectrum, data.law=assume trusts it all the same)"
            )
    return ""


def measured(data: DataModule) -> Law:
    """The Gaussian law with the measured mean and spectrum of the training fields, if the other splits have them too."""
    spec, basis, fields = data.spec, basis_of(data.spec), parts(data)
    spectrum, mean, words = measured_spectrum(fields["train"], basis)
    powers = {split: power(u, spectrum, mean, basis) for split, u in fields.items()}
    for split in SPLITS[1:]:
        if split in powers and (ratio := apart(powers[split], powers["train"])):
            wrong = f"the power of the {split} fields is {ratio:.3g} times that of the train fields"
            return Law(bare(spec), refusal=f"{wrong}, so no one spectrum is that of both; make the splits alike")
    if data.augment and "turns" not in words:
        words += "; of fields as they are stored: data.augment=true turns those of training, which have another law"
    law = dataclasses.replace(bare(spec), variances=spectrum, mean=mean)
    u = fields["train"] if mean is None else fields["train"] - mean
    return Law(law, f"Gaussian with measured spectrum ({words})", squares=basis(u).square())


def power(u: Tensor, spectrum: Tensor, mean: Tensor | None, basis: Basis) -> Tensor:
    """The power of each field beside a spectrum: of all coefficients, and of those that are whitened; (2, n)."""
    c = basis(u if mean is None else u - mean).square().flatten(1)
    s = spectrum.flatten()
    heard = s > 1e-8 * s.mean()
    return torch.stack([c.mean(1) / s.mean(), (c[:, heard] / s[heard]).mean(1)])


def apart(one: Tensor, other: Tensor) -> float | None:
    """The ratio of two mean powers that sampling does not explain, (2, n) each; None where it may."""
    for a, b in zip(one, other, strict=True):
        ratio = float(a.mean() / b.mean())
        error = (a.var() / len(a) if len(a) > 1 else a.mean() ** 2) + (b.var() / len(b) if len(b) > 1 else b.mean() ** 2)
        if not LIKE[0] < ratio < LIKE[1] and abs(float(a.mean() - b.mean())) > ERRORS * float(error) ** 0.5:
            return ratio
    return None
