"""mode=reconstruction: u_0 recovered from the state u_K at the last level, and how well."""

from collections.abc import Sequence

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric import scoring_rules
from heatgen.metric.context import EvalContext
from heatgen.metric.pictures import reconstruction as pictures
from heatgen.metric.posterior import add_gap, exact_posterior, least_mse, posterior_columns
from heatgen.metric.result import Result, Value, few_samples
from heatgen.model.module import Method
from heatgen.noise import SampleNoise, batches
from heatgen.oracle.gaussian import GaussianOracle

INPUTS = ("process", "white")
COVERAGES = (50, 90, 95)
SHOWN, SHOWN_DRAWS = 4, 3  # fields in the picture, and draws of each
HEADLINE = ("recon_mse_vs_noisy", "spectral_error", "mse_u0", "coverage_90", "crps")
MEANS = {  # the values that are means over fields of a column of the rows: name -> label
    "recon_mse_vs_noisy": "recon MSE vs noisy",
    "recon_mse_vs_clean": "recon MSE vs clean",
    "mse_u0": "MSE of u_0",
    "mse_mean": "MSE of mean",
    "spectral_error": "spectral error",
    "spectral_error_power": "spectral error, power",
    "crps": "CRPS",
    "energy_score": "energy score",
    **{f"coverage_{level}": f"coverage {level} %" for level in COVERAGES},
    "excess_mse_mean": "excess MSE of mean",
}
POWERS = {"truth": "truth", "draws": "draws", "input": "input", "oracle": "oracle sampler"}  # columns power_* -> label
ABOUT_COVERAGE = (
    "coverage: the share of pixels whose randomised PIT, (rank of the truth among the draws + U) / (draws + 1) with U "
    "uniform on [0, 1), lies in the central interval: that share itself for exact draws."
)


class Reconstruction:
    """Draws of u_0 given u_K, against the truth, and where the data is Gaussian against the exact posterior.

    All values are means over fields, with standard errors: recon MSE, of A(t_K) u_0' + b(t_K) against u_K (noisy) and
    A(t_K) u_0 + b(t_K) (clean); MSE of u_0, of single draws and of their mean; spectral errors, CRPS, energy score and
    coverage of `scoring_rules`. With an oracle: the MSE over that of an exact sampler, |mean of the draws - posterior
    mean|^2 per pixel, the rms z-score of draws (1: exact; 0: the posterior mean). A map that is drawn at random is drawn
    once a field, and the model is given that draw.

    Args:
        split: train, val or test.
        draws: of each field, for all inputs or one number for each; CRPS and energy score need 2, coverage of 50, 90 and
            95 % needs 3, 19 and 39: with fewer, draws without any spread would be credited with some.
        inputs: process, u_K drawn from the forward process; white, A(t_K) u_0 + b(t_K) + noise_std eps with white eps, the
            paper's own evaluation. Names of values of the second input end in its own.
        noise_std: of that white noise, > 0.
        tell_noise: whether model=oracle, which can use it, is told that the noise of white inputs is white; if not, it
            takes it for the noise of the forward process, as all others do.

    Raises:
        ConfigError: for values out of range, without a model, and for fewer than 2 fields.

    Source:
        Holzschuh et al. 2023, section 3.2.
    """

    def __init__(
        self,
        split: str = "test",
        draws: int | Sequence[int] = 19,
        inputs: Sequence[str] = ("process",),
        noise_std: float = 0.01,
        tell_noise: bool = True,
    ):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        self.deterministic: bool | None = None  # whether the model's draws are all the same; not known yet
        self.noise_std = check.number("metric.noise_std", noise_std, above=0)
        self.tell_noise = check.boolean("metric.tell_noise", tell_noise)
        if not isinstance(inputs, (list, tuple)) or not inputs or len(set(map(str, inputs))) < len(inputs):
            raise ConfigError(f"metric.inputs must be a list such as [process,white], each once, not {inputs!r}.")
        self.inputs = [check.choice("metric.inputs", word, INPUTS) for word in inputs]
        counts = draws if isinstance(draws, (list, tuple)) else [draws] * len(inputs)
        if len(counts) != len(inputs):
            raise ConfigError(f"metric.draws must be a number, or one for each of metric.inputs, not {draws!r}.")
        self.draws = {word: check.integer("metric.draws", n, minimum=1) for word, n in zip(inputs, counts, strict=True)}

    def __call__(self, ctx: EvalContext) -> Result:
        model = ctx.trained("reconstruction")
        chosen = ctx.choose("reconstruction", self.split, "reconstruction", "fields")
        can_be_told = "white" in self.inputs and type(model).observed is not Method.observed
        if not (self.tell_noise or can_be_told):
            raise ConfigError("metric.tell_noise=false is for model=oracle and metric.inputs with white; remove it.")
        result = Result(headline=(), over="fields")
        oracle = exact_posterior(ctx, result)
        result.notes += few_samples(len(chosen), "fields")
        for word in self.inputs:
            self._measure(ctx, oracle, chosen, word, result)
        result.facts = {
            "n": len(chosen),
            "split": f"{ctx.data_name} {self.split}",
            "draws": " and ".join(map(str, self.draws.values())),
            "input": " and ".join(f"white {self.noise_std:g}" if word == "white" else word for word in self.inputs),
            **({"the white noise": f"{'known' if self.tell_noise else 'not known'} to the model"} if can_be_told else {}),
            "levels": model.process.num_levels,
            "delta": model.noise_label(),
        } | result.facts
        return result

    # one batch ------------------------------------------------------------------------------------------------------

    def _columns(
        self, ctx: EvalContext, oracle: GaussianOracle | None, indices: Sequence[int], word: str
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Of each field of a batch: its columns, name -> (B,) or (B, m); and what its picture shows, each (B, C, H, W)."""

        def rng(*keys: str | int) -> SampleNoise:
            return SampleNoise(indices, ctx.seed, *keys)

        white = self.noise_std if word == "white" else None
        model = ctx.trained("reconstruction")
        model = (model if white is None or not self.tell_noise else model.observed(white)).bound(rng("reconstruct map"))
        process, u0 = model.process, ctx.data.get(self.split, indices).to(ctx.devices.device)
        t = process.times[-1:].expand(len(u0))
        clean = process.mean(u0, t)
        eps = rng(f"reconstruct {'white' if white else 'input'}").normal_like(u0)
        u = process.perturb(u0, t, model.sized(eps)) if white is None else clean + white * eps
        with ctx.devices.autocast():
            draws = self._draws(model, u, [rng("reconstruct", i) for i in range(self.draws[word])])
        mean, several = draws.mean(0), len(draws) > 1
        again = torch.stack([process.mean(draw, t) for draw in draws])
        count = scoring_rules.count_radii(*u0.shape[-2:])
        columns = {
            "recon_mse_vs_noisy": scoring_rules.mse(again, u),
            "recon_mse_vs_clean": scoring_rules.mse(again, clean),
            "mse_u0": scoring_rules.mse(draws, u0),
            "mse_mean": scoring_rules.mse(mean, u0),
            "spectral_error": scoring_rules.spectral_error(draws, u0, "paper"),
            "spectral_error_power": scoring_rules.spectral_error(draws, u0, "power"),
            "power_truth": scoring_rules.power(u0, count),
            "power_draws": scoring_rules.power(draws, count).mean(0),
            "power_input": scoring_rules.power(u, count),
        }
        if several:
            columns |= self._calibration(draws, u0, rng("reconstruct rank"))
        shown = [u0, u, *draws[:SHOWN_DRAWS], mean, mean - u0, draws.std(0, correction=int(several))]
        if oracle is not None:
            exact_noise = rng("reconstruct oracle")
            beside, exact = posterior_columns(oracle, draws, u0, u.double(), t, white, exact_noise)
            columns |= beside
            shown.append(exact)
        return columns, shown

    @staticmethod
    def _calibration(draws: Tensor, u0: Tensor, rng: SampleNoise) -> dict[str, Tensor]:
        """The columns that need two draws and more."""
        transform = scoring_rules.pit(draws, u0, rng.uniform_like(u0))
        return {
            "crps": scoring_rules.crps(draws, u0),
            "energy_score": scoring_rules.energy_score(draws, u0),
            **{f"coverage_{level}": scoring_rules.coverage(transform, level / 100) for level in levels_of(len(draws))},
            "identical": scoring_rules.identical(draws),
            "ranks": scoring_rules.rank_histogram(transform, len(draws)),
        }

    def _draws(self, model: Method, u: Tensor, rngs: Sequence[SampleNoise]) -> Tensor:
        """`generate` with noise by the field's index and the map as it was drawn, (n, B, C, H, W) float64.

        Where the first two draws of the first batch are the same, the method is deterministic, and one is made from then on.
        """
        if self.deterministic:
            return model.generate(u, rngs[0]).double().expand(len(rngs), *u.shape)
        draws = torch.stack([model.generate(u, rng) for rng in rngs[:2]]).double()
        if len(rngs) > 1 and self.deterministic is None:
            self.deterministic = bool(scoring_rules.identical(draws).all())
        if self.deterministic:
            return draws[:1].expand(len(rngs), *u.shape)
        return torch.cat([draws, *(model.generate(u, rng)[None].double() for rng in rngs[2:])])

    # all of them ----------------------------------------------------------------------------------------------------

    def _measure(
        self, ctx: EvalContext, oracle: GaussianOracle | None, chosen: Sequence[int], word: str, result: Result
    ) -> None:
        """Measure with one kind of input; add the values and pictures to the result."""
        widths: dict[str, int] = {}
        self.deterministic = None
        kept: list[Tensor] = []

        def work(indices: Sequence[int]) -> Tensor:
            columns, shown = self._columns(ctx, oracle, indices, word)
            fields = zip(indices, torch.stack(shown, dim=1).cpu(), strict=True)
            kept.extend(row for i, row in fields if i in chosen[:SHOWN])
            blocks = {name: column.flatten(1) if column.dim() > 1 else column[:, None] for name, column in columns.items()}
            widths.update({name: block.shape[1] for name, block in blocks.items()})
            return torch.cat(list(blocks.values()), dim=1)

        errors = range(4)  # the columns that hold one; those of a spectrum may be undefined
        rows = ctx.each(chosen, work, f"reconstructions, {word}", errors, ctx.trained("reconstruction").divergence())
        shown = ctx.devices.share(chosen[:SHOWN])
        if len(kept) < len(shown):  # their batch was done by a process that died
            kept.clear()
            for batch in batches(shown, ctx.batch_size):
                work(batch)
        images = ctx.devices.gather(torch.stack(kept) if kept else torch.empty(0))
        if not ctx.devices.first:
            return
        found = dict(zip(widths, rows.split(list(widths.values()), dim=1), strict=True))
        self._add_values(ctx, oracle, found, word, result)
        names = ["u_0", "u_K", *(f"draw {i + 1}" for i in range(min(SHOWN_DRAWS, self.draws[word]))), "mean", "error", "std"]
        names += [] if oracle is None else ["exact mean"]
        powers = {label: found[f"power_{name}"].mean(0) for name, label in POWERS.items() if f"power_{name}" in found}
        end = "" if word == self.inputs[0] else f"_{word}"
        result.pictures[f"fields{end}"] = pictures.fields(images, names)
        result.pictures[f"spectra{end}"] = pictures.spectra(powers)
        if "ranks" in found and not self._identical(found) and not found["ranks"].isnan().any():
            result.pictures[f"ranks{end}"] = pictures.ranks(found["ranks"].mean(0))

    @staticmethod
    def _identical(found: dict[str, Tensor]) -> int:
        """How many fields have the same draws."""
        return int(found["identical"].sum()) if "identical" in found else 0

    def _note_coverage(self, found: dict[str, Tensor], word: str, result: Result) -> bool:
        """Whether the draws tell of coverage, with a note on what they do not tell."""
        same, count = self._identical(found), self.draws[word]
        lost = int(found["ranks"].isnan().any(1).sum()) if "ranks" in found else 0
        if same or lost:
            what = f"all draws of {same} fields are identical" if same else f"draws of {lost} fields are not finite"
            result.notes.append(f"{what} ({word} input): no coverage and no ranks.")
            return False
        if "ranks" in found and ABOUT_COVERAGE not in result.notes:
            result.notes.append(ABOUT_COVERAGE)
        few = [level for level in COVERAGES if level not in levels_of(count)]
        if few and "ranks" in found:
            needs = ", ".join(f"{level} % needs {scoring_rules.least_draws(level)}" for level in few)
            result.notes.append(
                f"coverage that {count} draws cannot tell, as draws without any spread would seem to have some, is left out "
                f"({word} input): {needs}; raise metric.draws."
            )
        return True

    def _add_values(
        self, ctx: EvalContext, oracle: GaussianOracle | None, found: dict[str, Tensor], word: str, result: Result
    ) -> None:
        """The means of the columns over fields, name -> (n, m), and their notes and headline."""
        first = word == self.inputs[0]
        end, label_end = ("", "") if first else (f"_{word}", f", {word}")
        covered = self._note_coverage(found, word, result)
        for name, label in MEANS.items():
            if name in found and (covered or not name.startswith("coverage")):
                result.add(Value.mean(name + end, found[name][:, 0], label=label + label_end))
        if oracle is not None:
            last = ctx.trained("reconstruction").process.times[-1:]
            least = least_mse(ctx.data, oracle, last, self.noise_std if word == "white" else None)
            add_gap(result, found, *least, word, (end, label_end))
        other = {} if "coverage_90" in result.values else {"coverage_90": "coverage_50"}
        wanted = [other.get(name, name) + end for name in (HEADLINE if first else HEADLINE[:3])]
        result.headline = (*(result.headline or ()), *(name for name in wanted if name in result.values))


def levels_of(draws: int) -> list[int]:
    """The central intervals, in per cent, of which the ranks among so many draws tell something."""
    return [level for level in COVERAGES if draws >= scoring_rules.least_draws(level)]
