"""Recovering u_0 from u_K, against the closed forms of Gaussian fields, and from the command line."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import call
from torch import nn

from heatgen.basis import Cosine, Fourier, Pixel
from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.metric.context import EvalContext
from heatgen.metric.posterior import wave_numbers
from heatgen.metric.reconstruction import HEADLINE, Reconstruction
from heatgen.model.module import Method
from heatgen.noise import SampleNoise
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.runtime.devices import Devices

SHAPE, N, WHITE, DRAWS = (1, 8, 8), 240, 0.05, 19
PROCESS = StochasticHeat(SHAPE, num_levels=4)
LAST = PROCESS.times[-1:]
BASIS = Fourier(8, 8)
K2 = PROCESS.eigenvalues
S = torch.where(K2 > 0, 3 * (1 + K2) ** -2.0, torch.zeros_like(K2))[None]  # variance of each coefficient; none at k = 0
A = (-0.2 * K2).exp()
Q = torch.where(K2 > 0, 0.01 * (1 - (-0.4 * K2).exp()) / (2 * K2.clamp(min=1)), 0.01 * 0.2 * torch.ones_like(K2))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


FIELDS = BASIS.inverse(S.sqrt() * normal(N, *SHAPE)).float()


def posterior(q):
    """The factor and the variance of u_0 given u_K, by coefficient, where the noise has variance q."""
    return S * A / (A**2 * S + q), S * q / (A**2 * S + q)


class Exact(Method):
    """The closed form of the posterior; its `spread` is 1 for exact draws and 0 for the mean."""

    def __init__(self, process=PROCESS, spread=1.0, q=Q):
        super().__init__(process, nn.Identity(), sampler=None, optimizer=None)
        self.spread, self.q, self.pixel_mask = spread, q, []

    def observed(self, white):
        return Exact(self.process, self.spread, torch.full_like(Q, white**2))

    def generate(self, u, noise, on_step=None):
        factor, variance = posterior(self.q)
        eps = noise.normal_like(u.double())
        self.pixel_mask.append((u, eps))
        return BASIS.inverse(factor * BASIS(u.double()) + self.spread * variance.sqrt() * eps)


def ctx(model, spectrum=S, fields=FIELDS, n=None, batch_size=50, seed=0):
    data = SimpleNamespace(
        spec=DataSpec(tuple(fields.shape[1:]), (-3.0, 3.0), "periodic", None, spectrum),
        images={"test": fields, "val": fields[:9]}.get,
        get=lambda split, indices: {"test": fields, "val": fields[:9]}[split][torch.as_tensor(indices)],
    )
    return EvalContext(model, data, "toy", Devices(accelerator="cpu"), n, batch_size, seed)


@pytest.fixture(scope="module")
def exact():
    return Reconstruction(draws=DRAWS, inputs=["process", "white"], noise_std=WHITE)(ctx(Exact()))


@pytest.fixture(scope="module")
def mean():
    return Reconstruction(draws=3)(ctx(Exact(spread=0.0)))


@pytest.fixture
def plain(monkeypatch):
    """Without pictures, which take time."""
    for name in ("fields", "spectra", "ranks"):
        monkeypatch.setattr(f"heatgen.metric.reconstruction.pictures.{name}", lambda *rest: None)


def agrees(result, name, expected):
    """The value is the expected one within five standard errors, which are small."""
    value, error = result.values[name], result.errors[name]
    assert value == pytest.approx(expected, abs=5 * error + 1e-12), name
    assert error < 0.1 * abs(expected) + 1e-12, name


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "q"), [("", Q), ("_white", torch.full_like(Q, WHITE**2))])
def test_exact_draws_have_the_errors_of_the_closed_form(exact, suffix, q):
    variance = posterior(q)[1]
    agrees(exact, f"recon_mse_vs_noisy{suffix}", (A**2 * variance + q**2 / (A**2 * S + q)).mean().item())
    agrees(exact, f"recon_mse_vs_clean{suffix}", (2 * A**2 * variance).mean().item())
    agrees(exact, f"mse_u0{suffix}", 2 * variance.mean().item())
    agrees(exact, f"mse_mean{suffix}", (1 + 1 / DRAWS) * variance.mean().item())
    agrees(exact, f"crps{suffix}", math.sqrt(variance.mean().item() / math.pi))  # the posterior is the same at every pixel


def test_the_noise_of_the_posterior_adds_up_to_that_of_the_state():
    variance = posterior(Q)[1]
    assert torch.allclose(A**2 * variance + Q**2 / (A**2 * S + Q), Q, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", "_white"])
def test_exact_draws_are_calibrated(exact, suffix):
    for level in (50, 90):
        agrees(exact, f"coverage_{level}{suffix}", level / 100)
    agrees(exact, f"z_score_std{suffix}", 1.0)
    agrees(exact, f"mse_u0_over_oracle{suffix}", 1.0)
    value, error = (numbers[f"excess_mse_mean{suffix}"] for numbers in (exact.values, exact.errors))
    assert abs(value) < 5 * error < 0.05 * posterior(Q)[1].mean()
    rings = exact.series[f"z_score_rms{suffix}"]
    assert math.isnan(rings[0]) and exact.series["wave_number"] == [0, 1, 2, 3, 4, 5]  # k = 0 is certain
    assert rings[1:] == pytest.approx([1] * 5, abs=0.05)


def test_the_energy_score_is_nearly_that_of_its_dimension(exact):
    """E|x - y| - E|x - x'| / 2 is half of E|x - x'| for exact draws; about sqrt(2 V) / 2 a pixel in many dimensions."""
    assert exact.values["energy_score"] == pytest.approx(math.sqrt(posterior(Q)[1].mean().item() / 2), rel=0.15)
    assert exact.errors["energy_score"] < 0.05 * exact.values["energy_score"]


@pytest.mark.slow
def test_the_posterior_mean_is_half_as_far_and_has_neither_spread_nor_spectrum(mean, exact):
    variance = posterior(Q)[1]
    agrees(mean, "recon_mse_vs_noisy", (Q**2 / (A**2 * S + Q)).mean().item())
    agrees(mean, "recon_mse_vs_clean", (A**2 * variance).mean().item())
    agrees(mean, "mse_u0", variance.mean().item())
    agrees(mean, "mse_u0_over_oracle", 0.5)
    assert mean.values["mse_mean"] == pytest.approx(mean.values["mse_u0"], rel=1e-9)
    assert mean.values["excess_mse_mean"] == pytest.approx(0, abs=1e-12)
    assert mean.values["z_score_std"] == pytest.approx(0, abs=1e-4)
    for name in ("spectral_error", "spectral_error_power"):
        assert mean.values[name] > 1.5 * exact.values[name]


@pytest.mark.slow
def test_equal_draws_have_no_coverage_and_say_so(mean):
    assert not [key for key in mean.values if key.startswith("coverage")] and "ranks" not in mean.pictures
    assert mean.notes == [f"all draws of {N} fields are identical (process input): no coverage and no ranks."]
    assert mean.headline == ("recon_mse_vs_noisy", "spectral_error", "mse_u0", "crps")


@pytest.mark.usefixtures("plain")
def test_too_wide_draws_are_found_out():
    wide = Reconstruction(draws=19)(ctx(Exact(spread=1.5)))
    agrees(wide, "z_score_std", 1.5)
    agrees(wide, "mse_u0_over_oracle", (1 + 1.5**2) / 2)
    assert wide.values["coverage_90"] > 0.93
    assert abs(wide.values["excess_mse_mean"]) < 5 * wide.errors["excess_mse_mean"]


@pytest.mark.usefixtures("plain")
def test_coverage_is_given_of_the_levels_that_so_few_draws_can_tell():
    found = {draws: Reconstruction(draws=draws)(ctx(Exact(spread=1e-3), n=40)) for draws in (2, 3, 19)}
    given = {draws: [name for name in result.values if "coverage" in name] for draws, result in found.items()}
    assert given == {2: [], 3: ["coverage_50"], 19: ["coverage_50", "coverage_90"]}
    assert all(found[19].values[name] < 0.02 and found[3].values["coverage_50"] < 0.02 for name in given[19])
    assert any("90 % needs 19, 95 % needs 39; raise metric.draws" in note for note in found[3].notes)
    assert "coverage_50" in found[3].headline and "coverage_90" in found[19].headline
    row = found[19].references["exact sampler"]
    assert row["coverage_90"] == 0.9 and row["mse_u0"] == pytest.approx(2 * posterior(Q)[1].mean().item())
    assert not found[19].reference_errors and set(found[19].errors_over.values()) == {"fields"}


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_draws_that_diverge_are_refused(bad):
    model = Exact()
    model.generate = lambda u, noise, on_step=None: torch.full_like(u, bad)
    with pytest.raises(ConfigError, match=r"5 of 5 rows of reconstructions, process hold NaN or inf .*diverges"):
        Reconstruction(draws=3)(ctx(model, n=5))


def test_the_headline_facts_and_notes(exact):
    assert exact.headline == (*HEADLINE, *(f"{name}_white" for name in HEADLINE[:3]))
    assert set(exact.headline) <= set(exact.values) == set(exact.errors)
    facts = {
        "n": N,
        "split": "toy test",
        "draws": f"{DRAWS} and {DRAWS}",
        "input": "process and white 0.05",
        "levels": 4,
        "delta": "own",
    }
    assert facts.items() <= exact.facts.items()
    assert float(exact.facts["least MSE of u_0"]) == pytest.approx(posterior(Q)[1].mean().item(), rel=1e-5)
    assert "randomised PIT" in exact.notes[0] and all("95 % needs 39" in note for note in exact.notes[1:])


def test_the_pictures_are_of_their_kind(exact):
    names = ["fields", "spectra", "ranks"]
    assert list(exact.pictures) == names + [f"{name}_white" for name in names]
    assert exact.pictures["fields"].width > 2 * exact.pictures["fields"].height
    assert all(len(picture.getcolors(10**6)) > 20 for picture in exact.pictures.values())
    assert exact.pictures["fields"].tobytes() != exact.pictures["fields_white"].tobytes()


@pytest.mark.slow
def test_the_numbers_do_not_depend_on_how_fields_are_cut_into_batches():
    one, other = (Reconstruction(draws=3)(ctx(Exact(), n=30, batch_size=size)) for size in (7, 100))
    assert one.values == pytest.approx(other.values, rel=1e-6)
    assert one.pictures["fields"].tobytes() == other.pictures["fields"].tobytes()


@pytest.mark.usefixtures("plain")
def test_draws_and_input_are_those_of_reconstruct_and_of_the_seed():
    model = Exact()
    Reconstruction(draws=3)(ctx(model, batch_size=N, seed=5))
    (u, first), *_ = model.pixel_mask
    draws = [posterior(Q)[0] * BASIS(u.double()) + posterior(Q)[1].sqrt() * eps for _, eps in model.pixel_mask]
    repeated = [model.generate(u, SampleNoise(range(N), 5, "reconstruct", i)) for i in range(3)]
    assert torch.allclose(BASIS.inverse(torch.stack(draws)), torch.stack(repeated).double(), atol=1e-6)
    noise = BASIS(u - PROCESS.mean(FIELDS, LAST.expand(N))).double()
    assert (noise.square().mean(0) / Q).mean().item() == pytest.approx(1, abs=0.05)
    again = Exact()
    Reconstruction(draws=3)(ctx(again, batch_size=N, seed=6))
    assert (
        not torch.isclose(again.pixel_mask[0][0], u).all(-1).any()
        and not torch.isclose(again.pixel_mask[0][1], first).all(-1).any()
    )


@pytest.mark.usefixtures("plain")
def test_white_alone_has_no_suffix_and_its_own_noise():
    model = Exact()
    model.observed = lambda white: model  # a model that cannot use it
    result = Reconstruction(draws=2, inputs=["white"], noise_std=0.3)(ctx(model, batch_size=N))
    assert not [key for key in result.values if "[" in key] and result.facts["input"] == "white 0.3"
    noise = model.pixel_mask[0][0] - PROCESS.mean(FIELDS, LAST.expand(N))
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)


@pytest.mark.usefixtures("plain")
def test_n_fields_of_the_split_are_taken_all_over_it():
    model = Exact()
    result = Reconstruction(draws=2)(ctx(model, n=20, batch_size=100))
    assert result.facts["n"] == 20
    distances = torch.cdist(
        model.pixel_mask[0][0].flatten(1).double(), PROCESS.mean(FIELDS, LAST.expand(N)).flatten(1).double()
    )
    assert len(set(distances.argmin(1).tolist())) == 20 and distances.argmin(1).max() > 150
    assert Reconstruction(draws=2, split="val")(ctx(Exact())).facts["n"] == 9


@pytest.mark.usefixtures("plain")
def test_without_a_known_spectrum_there_is_no_oracle():
    result = Reconstruction(draws=2)(ctx(Exact(), spectrum=None, n=5))
    assert not result.series and not [key for key in result.values if "oracle" in key or "z-score" in key or "excess" in key]


@pytest.mark.slow
def test_a_map_without_a_closed_form_says_so(monkeypatch):
    monkeypatch.setattr("heatgen.oracle.gaussian.LARGEST", 10)
    model = Exact(RandomMatrix(SHAPE, num_levels=2))
    result = Reconstruction(draws=2)(ctx(model, n=5))
    assert "z_score_std" not in result.values
    assert [note for note in result.notes if note.startswith("no gap to the exact posterior: forward=random_matrix is not")]


@pytest.mark.usefixtures("plain")
def test_a_map_that_is_a_matrix_has_z_scores_but_no_rings():
    process = RandomMatrix(SHAPE, num_levels=2, sigma=0.1)
    spec = ctx(None).data.spec
    oracle, model = GaussianOracle(process, spec), Exact(process)
    model.generate = lambda u, noise, on_step=None: oracle.posterior_sample(u, process.times[-1:].expand(len(u)), noise)
    result = Reconstruction(draws=2)(ctx(model, n=100))
    agrees(result, "z_score_std", 1.0)
    agrees(result, "mse_u0_over_oracle", 1.0)
    assert not result.series


@pytest.mark.usefixtures("plain")
def test_a_map_that_is_drawn_at_random_is_the_same_on_the_way_back():
    class Inverse(Method):
        def generate(self, u, noise, on_step=None):
            process = self.process
            return u / process.gain(process.times[-1:].expand(len(u))).to(u)

    def measured():
        process = RandomVelocity(SHAPE, num_levels=3, sigma=0, slowest=0.1, fastest=0.8)
        model = Inverse(process, nn.Identity(), sampler=None, optimizer=None)
        return Reconstruction(draws=2)(ctx(model, n=10, batch_size=4)).values

    assert measured()["mse_u0"] < 1e-9 and "z_score_std" not in measured()


def test_wave_numbers_are_those_of_the_basis():
    assert wave_numbers(Fourier(4, 5), 4, 5).tolist() == [[0, 1, 2, 2, 1], [1, 1, 2, 2, 1], [2, 2, 2, 2, 2], [1, 1, 2, 2, 1]]
    assert wave_numbers(Cosine(2, 4), 2, 4).tolist() == [[0, 1, 2, 3], [1, 1, 2, 3]]
    assert wave_numbers(Pixel(), 4, 4) is None


@pytest.mark.usefixtures("plain")
def test_one_draw_has_errors_and_z_scores_but_nothing_that_compares_draws():
    result = Reconstruction(draws=[19, 1], inputs=["process", "white"], noise_std=WHITE)(ctx(Exact()))
    assert result.facts["draws"] == "19 and 1"
    assert {"crps", "coverage_90"} <= set(result.values)
    assert {"mse_u0_white", "z_score_std_white", "spectral_error_white"} <= set(result.values)
    assert not {"crps_white", "coverage_90_white", "energy_score_white"} & set(result.values)
    assert set(result.pictures) == {"fields", "spectra", "ranks", "fields_white", "spectra_white"}


@pytest.mark.usefixtures("plain")
def test_a_deterministic_method_is_asked_once_more_however_many_draws():
    model, calls = Exact(spread=0.0), []
    generate = model.generate
    model.generate = lambda u, noise, *rest: calls.append(len(u)) or generate(u, noise, *rest)
    many = Reconstruction(draws=9)(ctx(model, n=20, batch_size=10))
    assert calls == [10] * 3
    few = Reconstruction(draws=2)(ctx(Exact(spread=0.0), n=20, batch_size=10))
    assert many.values == pytest.approx(few.values)


def test_wrong_values_are_refused_by_their_key():
    for options in (
        *({"split": "all"}, {"draws": 0}, {"draws": [2, 1]}, {"noise_std": 0}),
        *({"inputs": "white"}, {"inputs": []}, {"inputs": ["white", "white"]}, {"inputs": ["whit"]}),
    ):
        with pytest.raises(ConfigError, match=f"metric.{next(iter(options))}"):
            Reconstruction(**options)


def test_it_is_refused_without_a_run_and_for_one_field():
    with pytest.raises(ConfigError, match="run=DIR"):
        Reconstruction()(ctx(None))
    with pytest.raises(ConfigError, match="n must be"):
        Reconstruction()(ctx(Exact(), n=1))
    with pytest.raises(ConfigError, match=r"at least 2 fields; metric\.split=test"):
        Reconstruction()(ctx(Exact(), fields=FIELDS[:1]))


@pytest.mark.slow
def test_images_from_the_command_line(own_run, capsys):
    words = [
        f"run={own_run}",
        "mode=reconstruction",
        "n=6",
        "metric.draws=19",
        "metric.inputs=[process,white]",
        "batch_size=4",
    ]
    assert call("evaluate", *words, "trainer.accelerator=cpu") == 0
    (path,) = (own_run / "evaluation").glob("reconstruction_*.json")
    content = json.loads(path.read_text())
    assert content["headline"] == [*HEADLINE, *(f"{name}_white" for name in HEADLINE[:3]), "nfe"]
    assert content["values"]["nfe"] == 5  # of each draw
    assert content["facts"]["input"] == "process and white 0.01" and content["series"] == {}
    assert all(math.isfinite(content["values"][key]) for key in content["headline"])
    names = {file.name.removeprefix(f"{path.stem}_") for file in path.parent.glob(f"{path.stem}_*.png")}
    kinds = ("fields", "spectra", "ranks")
    assert names == {f"{kind}.png" for kind in kinds} | {f"{kind}_white.png" for kind in kinds}
    assert "spectral error, power, white" in capsys.readouterr().out


def test_a_model_that_is_not_told_takes_white_noise_for_its_own():
    told, untold = (
        Reconstruction(draws=3, inputs=["white"], noise_std=WHITE, tell_noise=tell)(ctx(Exact())) for tell in (True, False)
    )
    assert told.facts["the white noise"] == "known to the model" and untold.facts["the white noise"].startswith("not known")
    (factor, variance), white = posterior(Q), WHITE**2
    error = (S * (1 - factor * A) ** 2 + factor**2 * white + variance).sum().item() / 64  # of draws that believe in Q
    assert untold.values["mse_u0"] == pytest.approx(error, rel=0.03) and told.values["mse_u0"] < 0.99 * error
    model = Exact()
    with pytest.raises(ConfigError, match=r"metric\.tell_noise=false is for"):
        Reconstruction(draws=2, tell_noise=False)(ctx(model))
