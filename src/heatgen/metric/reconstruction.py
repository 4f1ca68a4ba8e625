"""mode=reconstruction: u_0 recovered from the state u_K at the last level, and how well."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Basis, Cosine, Fourier
from heatgen.check import ConfigError
from heatgen.metric import scoring_rules
from heatgen.metric.metric import EvalContext, Result
from heatgen.metric.pictures import reconstruction as pictures
from heatgen.noise import SampleNoise, generator
from heatgen.oracle.gaussian import GaussianOracle

INPUTS = ("process", "white")
COVERAGES = (50, 90, 95)
SHOWN, SHOWN_DRAWS = 4, 3  # fields in the picture, and draws of each
HEADLINE = ("recon MSE vs noisy", "spectral error", "MSE of u_0", "coverage 90 %", "CRPS")
MEANS = (  # the values that are means over fields of a column of the rows
    *("recon MSE vs noisy", "recon MSE vs clean", "MSE of u_0", "MSE of mean", "spectral error", "spectral error, power"),
    *("CRPS", "energy score", *(f"coverage {level} %" for level in COVERAGES), "excess MSE of mean"),
)
ABOUT_COVERAGE = (
    "coverage: the share of pixels whose randomised PIT, (rank of the truth among the draws + U) / (draws + 1) with U "
    "uniform on [0, 1), lies in the central interval: exact for exact draws, however few."
)


def wave_numbers(basis: Basis, height: int, width: int) -> Tensor | None:
    """|k| of each coefficient of a basis of waves, in waves a side (half waves for cosines), truncated; (H, W) int64."""
    if isinstance(basis, Fourier):
        y, x = (torch.fft.fftfreq(size, 1 / size, dtype=torch.float64) for size in (height, width))
    elif isinstance(basis, Cosine):
        y, x = (torch.arange(size, dtype=torch.float64) for size in (height, width))
    else:
        return None
    return (y[:, None] ** 2 + x[None, :] ** 2).sqrt().long()


class Reconstruction:
    """Draws of u_0 given u_K, against the truth, and where the data is Gaussian against the exact posterior.

    inputs: process, u_K drawn from the forward process; white, A(t_K) u_0 + b(t_K) + noise_std eps with white eps: the
    paper's own evaluation. Values of the second one carry its name. All are means over fields, with standard errors:
    recon MSE, of A(t_K) u_0' + b(t_K) against u_K (noisy) and A(t_K) u_0 + b(t_K) (clean); MSE of u_0, of single draws and
    of their mean; spectral errors, CRPS, energy score, coverage: see `scores`. With an oracle: the MSE over that of an exact
    sampler, |mean of the draws - posterior mean|^2 per pixel, the rms z-score of draws (1: exact; 0: the posterior mean).
    split: train, val or test; draws: of each field, for all inputs or one number for each (CRPS, energy score and coverage
    need 2); noise_std: > 0. A map that is drawn at random is drawn once
    a field, and the model is given that draw. ConfigError for values out of range or no model.
    Source: Holzschuh et al. 2023, section 3.2.
    """

    def __init__(
        self,
        split: str = "test",
        draws: int | Sequence[int] = 16,
        inputs: Sequence[str] = ("process",),
        noise_std: float = 0.01,
    ):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        self.deterministic: bool | None = None  # whether the model's draws are all the same; not known yet
        self.noise_std = check.number("metric.noise_std", noise_std, above=0)
        if not isinstance(inputs, (list, tuple)) or not inputs or len(set(map(str, inputs))) < len(inputs):
            raise ConfigError(f"metric.inputs must be a list such as [process,white], each once, not {inputs!r}.")
        self.inputs = [check.choice("metric.inputs", word, INPUTS) for word in inputs]
        counts = draws if isinstance(draws, (list, tuple)) else [draws] * len(inputs)
        if len(counts) != len(inputs):
            raise ConfigError(f"metric.draws must be a number, or one for each of metric.inputs, not {draws!r}.")
        self.draws = {word: check.integer("metric.draws", n, minimum=1) for word, n in zip(inputs, counts, strict=True)}

    def __call__(self, ctx: EvalContext) -> Result:
        model, data = ctx.model, ctx.data
        if model is None:
            raise ConfigError("mode=reconstruction needs a run; give run=DIR.")
        total = len(data.images(self.split))
        n = total if ctx.n is None else min(check.integer("n", ctx.n, minimum=2), total)
        if n < 2:
            raise ConfigError(
                f"mode=reconstruction needs at least 2 fields; metric.split={self.split} has {n}; use another."
            )
        chosen = torch.randperm(total, generator=generator(ctx.seed, "reconstruction"))[:n].sort().values.tolist()
        result = Result({}, headline=())
        oracle = self._oracle(ctx, result)
        for word in self.inputs:
            self._measure(ctx, oracle, chosen, word, result)
        result.facts = {
            "n": n,
            "split": f"{ctx.data_name} {self.split}",
            "draws": " and ".join(map(str, self.draws.values())),
            "input": " and ".join(f"white {self.noise_std:g}" if word == "white" else word for word in self.inputs),
            "levels": model.process.num_levels,
            "delta": model.noise_label(),
        } | result.facts
        return result

    @staticmethod
    def _oracle(ctx: EvalContext, result: Result) -> Any:
        """The exact posterior; None where data or map are not Gaussian, and with a note where it cannot be computed."""
        if ctx.data.spec.spectrum is None or ctx.model.process.is_random:
            return None
        process = ctx.model.process
        try:
            oracle = GaussianOracle(process, ctx.data.spec)
            if not oracle.diagonal and not (process.std(process.times[-1:]) > 0).all():
                raise ConfigError(f"forward={process.name} has no noise at its last level.")
            return oracle
        except ConfigError as error:
            result.notes.append(f"no gap to the exact posterior: {error}")
            return None

    # one batch ------------------------------------------------------------------------------------------------------

    def _columns(
        self, ctx: EvalContext, oracle: Any, run: Sequence[int], word: str
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Of each field of a batch: its numbers, name -> (B,) or (B, m); and what its picture shows, each (B, C, H, W)."""
        white = self.noise_std if word == "white" else None
        model = ctx.model if white is None else ctx.model.observed(white)
        model = model.bound(SampleNoise(run, ctx.seed, "reconstruct map"))
        process, u0 = model.process, ctx.data.get(self.split, run).to(ctx.devices.device)
        t = process.times[-1:].expand(len(u0))
        clean = process.mean(u0, t)
        eps = SampleNoise(run, ctx.seed, f"reconstruct {'white' if white else 'input'}").normal_like(u0)
        u = process.perturb(u0, t, eps) if white is None else clean + white * eps
        with ctx.devices.autocast():
            draws = self._draws(model, u, [SampleNoise(run, ctx.seed, "reconstruct", i) for i in range(self.draws[word])])
        mean, several = draws.mean(0), len(draws) > 1
        again = torch.stack([process.mean(draw, t) for draw in draws])
        count = scoring_rules.count_radii(*u0.shape[-2:])
        columns = {
            "recon MSE vs noisy": scoring_rules.mse(again, u),
            "recon MSE vs clean": scoring_rules.mse(again, clean),
            "MSE of u_0": scoring_rules.mse(draws, u0),
            "MSE of mean": scoring_rules.mse(mean, u0),
            "spectral error": scoring_rules.spectral_error(draws, u0, "paper"),
            "spectral error, power": scoring_rules.spectral_error(draws, u0, "power"),
            "power, truth": scoring_rules.power(u0, count),
            "power, draws": scoring_rules.power(draws, count).mean(0),
            "power, input": scoring_rules.power(u, count),
        }
        if several:
            transform = scoring_rules.pit(draws, u0, SampleNoise(run, ctx.seed, "reconstruct rank").uniform_like(u0))
            columns |= {"CRPS": scoring_rules.crps(draws, u0), "energy score": scoring_rules.energy_score(draws, u0)}
            columns |= {f"coverage {level} %": scoring_rules.coverage(transform, level / 100) for level in COVERAGES}
            columns |= {
                "identical": scoring_rules.identical(draws),
                "ranks": scoring_rules.rank_histogram(transform, len(draws)),
            }
        shown = [u0, u, *draws[:SHOWN_DRAWS], mean, mean - u0, draws.std(0, correction=int(several))]
        if oracle is not None:
            u, exact = u.double(), oracle.posterior_mean(u.double(), t, white)
            sample = oracle.posterior_sample(u, t, SampleNoise(run, ctx.seed, "reconstruct oracle"), white)
            columns["power, oracle sampler"] = scoring_rules.power(sample, count)
            if several:
                columns["excess MSE of mean"] = scoring_rules.excess_mse(draws, exact)
            z = oracle.standardise(draws.flatten(0, 1), *(x.repeat(len(draws), *[1] * (x.dim() - 1)) for x in (u, t)), white)
            known = oracle.standardise(u0.double(), u, t, white).isfinite()
            columns |= self._z_scores(oracle, z.reshape(draws.shape), known)
            shown.append(exact)
        return columns, shown

    def _draws(self, model: Any, u: Tensor, noises: Sequence[SampleNoise]) -> Tensor:
        """model.reconstruct with noise by the field's number and the map as it was drawn, (n, B, C, H, W) float64.

        Where the first two draws of the first batch are the same, the method is deterministic, and one is made from then on.
        """
        if self.deterministic:
            return model.generate(u, noises[0]).double().expand(len(noises), *u.shape)
        draws = torch.stack([model.generate(u, noise) for noise in noises[:2]]).double()
        if len(noises) > 1 and self.deterministic is None:
            self.deterministic = bool(scoring_rules.identical(draws).all())
        if self.deterministic:
            return draws[:1].expand(len(noises), *u.shape)
        return torch.cat([draws, *(model.generate(u, noise)[None].double() for noise in noises[2:])])

    @staticmethod
    def _z_scores(oracle: Any, z: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Sums of the known z-scores squared (n, B, C, H, W), and their number, over all coefficients and by ring |k|."""
        squares = torch.where(known, z.square(), torch.zeros_like(z)).sum((0, 2))
        number = known.double().sum(1) * len(z)
        columns = {"z squares": squares.sum((1, 2)), "z count": number.sum((1, 2))}
        rings = wave_numbers(oracle.basis, *z.shape[-2:]) if oracle.diagonal else None
        if rings is not None:
            count = int(rings.max()) + 1
            columns["z squares by ring"] = scoring_rules.ring_sums(squares, rings, count)
            columns["z count by ring"] = scoring_rules.ring_sums(number, rings, count)
        return columns

    # all of them ----------------------------------------------------------------------------------------------------

    def _measure(self, ctx: EvalContext, oracle: Any, chosen: Sequence[int], word: str, result: Result) -> None:
        """Measure with one kind of input; add the numbers and pictures to the result."""
        first = word == self.inputs[0]
        suffix, suffix_of_file = ("", "") if first else (f" [{word}]", f"_{word}")
        widths: dict[str, int] = {}
        self.deterministic = None
        kept: list[Tensor] = []

        def work(run: Sequence[int]) -> Tensor:
            columns, shown = self._columns(ctx, oracle, run, word)
            kept.extend(row for i, row in zip(run, torch.stack(shown, dim=1).cpu(), strict=True) if i in chosen[:SHOWN])
            blocks = {name: column.flatten(1) if column.dim() > 1 else column[:, None] for name, column in columns.items()}
            widths.update({name: block.shape[1] for name, block in blocks.items()})
            return torch.cat(list(blocks.values()), dim=1)

        rows = ctx.each(chosen, work, f"reconstructions, {word}")
        images = ctx.devices.gather(torch.stack(kept) if kept else torch.empty(0))
        if not ctx.devices.first:
            return
        found = dict(zip(widths, rows.split(list(widths.values()), dim=1), strict=True))
        same = int(found["identical"].sum()) if "identical" in found else 0
        if same:
            result.notes.append(f"all draws of {same} fields are identical ({word} input): no coverage and no ranks.")
        elif "ranks" in found and ABOUT_COVERAGE not in result.notes:
            result.notes.append(ABOUT_COVERAGE)
        for name in MEANS:
            if name in found and not (same and name.startswith("coverage")):
                self._add(result, name + suffix, found[name][:, 0])
        if oracle is not None:
            self._add_gap(ctx, oracle, word, found, suffix, result)
        short = HEADLINE if first else HEADLINE[:3]
        result.headline = (
            *(result.headline or ()),
            *(f"{name}{suffix}" for name in short if name + suffix in result.values),
        )
        names = ["u_0", "u_K", *(f"draw {i + 1}" for i in range(min(SHOWN_DRAWS, self.draws[word]))), "mean", "error", "std"]
        names += [] if oracle is None else ["exact mean"]
        powers = {key.removeprefix("power, "): found[key].mean(0) for key in found if key.startswith("power, ")}
        result.pictures[f"fields{suffix_of_file}"] = pictures.fields(images, names)
        result.pictures[f"spectra{suffix_of_file}"] = pictures.spectra(powers)
        if "ranks" in found and not same:
            result.pictures[f"ranks{suffix_of_file}"] = pictures.ranks(found["ranks"].mean(0))

    @staticmethod
    def _add(result: Result, name: str, values: Tensor) -> None:
        """The mean over fields, and its standard error."""
        result.values[name] = values.mean().item()
        result.errors[name] = values.std().item() / len(values) ** 0.5

    def _add_gap(
        self, ctx: EvalContext, oracle: Any, word: str, found: dict[str, Tensor], suffix: str, result: Result
    ) -> None:
        """The MSE over that of an exact sampler, and the rms z-scores, of all coefficients and by ring."""
        least = oracle.minimum_mse(ctx.model.process.times[-1:], self.noise_std if word == "white" else None)
        result.facts[f"least MSE of u_0{suffix}"] = f"{least:.6g}"
        if least == 0 or not found["z count"].sum():
            result.notes.append(f"u_K determines u_0 ({word} input): no z-scores.")
            return
        self._add(result, f"MSE of u_0 / oracle sampler{suffix}", found["MSE of u_0"][:, 0] / (2 * least))
        self._add(result, f"z-score std{suffix}", found["z squares"][:, 0] / found["z count"][:, 0])
        name, square = f"z-score std{suffix}", result.values[f"z-score std{suffix}"]
        result.values[name] = square**0.5
        result.errors[name] = result.errors[name] / (2 * square**0.5) if square else 0.0
        if "z count by ring" in found:
            rms = (found["z squares by ring"].sum(0) / found["z count by ring"].sum(0)).sqrt()
            result.series.setdefault("|k|", [float(k) for k in range(len(rms))])
            result.series[f"rms z-score{suffix}"] = rms.tolist()
