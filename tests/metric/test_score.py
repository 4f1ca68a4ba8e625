"""A score against the exact one, and the laws on the way back: closed forms, SciPy, and the command line."""

import json
import math

import pytest
import scipy.stats
import torch
from conftest import call
from torch import nn

from heatgen.check import ConfigError
from heatgen.data.gaussian_mixture import GaussianMixture
from heatgen.data.module import SPLITS, DataSpec
from heatgen.data.ring import Ring
from heatgen.forward.heat_kernel import HeatKernel
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.metric import distances
from heatgen.metric.context import EvalContext
from heatgen.metric.reduction import Rows
from heatgen.metric.reference import Reference
from heatgen.metric.score import Score
from heatgen.model.ihd import IHD
from heatgen.model.oracle import Oracle
from heatgen.model.score import ScoreMethod
from heatgen.oracle.find import exact_answers
from heatgen.oracle.mixture import MixtureOracle
from heatgen.runtime.devices import Devices
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.exact import exact
from heatgen.sampler.heun import heun
from heatgen.sampler.sde import sde

SIZES = {"train_size": 600, "val_size": 600, "test_size": 600}


def mixture(d=1, **settings):
    return GaussianMixture(dimension=d, shape=[1, 1, d], **({"components": 3, "stds": 0.4} | SIZES | settings))


def point(d=1):
    return mixture(d, components=1, stds=0.0)


def ctx(model, data, n=400, batch_size=200, seed=0, name="toy"):
    return EvalContext(model, data, name, Devices(accelerator="cpu"), n, batch_size, seed)


def oracle_model(data, sampler, **forward):
    process = HeatKernel(data.spec.shape, **({"num_levels": 40, "sigma": 3.0} | forward))
    model = Oracle(process, nn.Identity(), sampler, None)
    model.calibrate(data)
    return model


@pytest.fixture
def plain(monkeypatch):
    """No pictures, which take most of the time."""
    for name in ("score", "levels", "densities"):
        monkeypatch.setattr(f"heatgen.metric.score.pictures.{name}", lambda *rest: None)


class Biased(ScoreMethod):
    """The score (1 + a) s* + c / sigma(t), and forward draws of the law for states; `late` calls each by its neighbour."""

    def __init__(self, process, data, a=0.0, c=0.0, late=0):
        super().__init__(process, nn.Identity(), sampler=None, optimizer=None)
        self.exact, self.data, self.a, self.c, self.late = exact_answers(process, data.spec), data, a, c, late

    def score(self, u, t):
        return (1 + self.a) * self.exact.score(u, t) + self.c / self.process.std(t).to(u)

    def generate(self, u, noise, on_step=None):
        times = self.process.times
        for k in range(self.process.num_levels - 1, -1, -1):
            u0 = self.data.get("val", torch.randperm(600)[: len(u)].tolist())
            own = min(k + self.late, self.process.num_levels)
            state = self.process.perturb(u0, times[own].expand(len(u)), noise.normal_like(u0))
            on_step(k, state)
        return state


class Zero(nn.Module):
    def forward(self, x, t, cond=None):
        return torch.zeros_like(x)


# distances ------------------------------------------------------------------------------------------------------------


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def law(weights, means, stds):
    """The law of one column."""
    return tuple(torch.tensor(x, dtype=torch.float64) for x in (weights, [[m] for m in means], [[s] for s in stds]))


LAWS = {
    "normal": law([1.0], [0.3], [1.2]),
    "mixture": law([0.2, 0.5, 0.3], [-2.0, 0.0, 4.0], [0.05, 1.0, 0.3]),
    "many": law([1 / 300] * 300, normal(300, seed=1).tolist(), [0.02] * 300),
    "points": law([0.25, 0.75], [-1.0, 2.0], [0.0, 0.0]),
    "point and width": law([0.5, 0.5], [0.0, 1.0], [0.0, 0.5]),
}


def exact_cdf(name):
    weights, means, stds = (x.flatten().tolist() for x in LAWS[name])

    def cdf(x):
        parts = zip(weights, means, stds, strict=True)
        return sum(w * (scipy.stats.norm.cdf(x, m, s) if s else (x >= m)) for w, m, s in parts)

    return cdf


def quantiles(name, count=50_000):
    """The quantiles (i - 1/2) / count of a law, by sorting those of its components."""
    weights, means, stds = (x.flatten() for x in LAWS[name])
    rows = []
    for w, m, s in zip(weights, means, stds, strict=True):
        own = max(2, round(count * w.item()))
        rows.append(m + s * torch.special.ndtri((torch.arange(own, dtype=torch.float64) + 0.5) / own))
    return torch.cat(rows)


@pytest.mark.parametrize("name", ["normal", "mixture", "many"])
@pytest.mark.parametrize("n", [3, 500])
def test_ks_is_that_of_scipy(name, n):
    x = normal(n, 1) * 1.5
    assert distances.ks(x, *LAWS[name]).item() == pytest.approx(
        scipy.stats.kstest(x[:, 0].numpy(), exact_cdf(name)).statistic, abs=1e-12
    )
    assert distances.compare(x, *LAWS[name]).ks.item() == pytest.approx(distances.ks(x, *LAWS[name]).item(), abs=1e-9)


def test_ks_with_single_points_takes_both_limits():
    half = law([0.5, 0.5], [0.0, 1.0], [0.0, 0.0])
    samples = torch.tensor([[0.0], [0.0], [1.0], [1.0]], dtype=torch.float64)
    assert distances.ks(samples, *half).item() == 0
    assert distances.ks(samples + 1e-3, *half).item() == pytest.approx(0.5)
    assert distances.ks(samples[:3], *half).item() == pytest.approx(2 / 3 - 1 / 2)
    assert distances.compare(samples, *half).ks.isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LAWS))
def test_w1_is_that_of_scipy(name):
    std = distances.moments(*LAWS[name])[1].item()
    for samples in (normal(500, 1), normal(4, 1) + 3, torch.full((50, 1), 0.7).double()):
        expected = scipy.stats.wasserstein_distance(samples[:, 0].numpy(), quantiles(name).numpy())
        assert distances.compare(samples, *LAWS[name]).w1.item() == pytest.approx(expected, abs=1e-3 * std)


def test_w1_of_a_shift_is_the_shift_and_of_scaling_the_mean_size():
    x = quantiles("normal")[:, None]
    for shift in (-3.0, 0.01, 20.0):
        assert distances.compare(x + shift, *LAWS["normal"]).w1.item() == pytest.approx(abs(shift), abs=1e-3)
    wider = 0.3 + 2 * (x - 0.3)
    assert distances.compare(wider, *LAWS["normal"]).w1.item() == pytest.approx(1.2 * math.sqrt(2 / math.pi), abs=1e-3)
    assert distances.compare(torch.cat([x, x * math.inf]), *LAWS["normal"]).w1.isinf()


def test_columns_are_on_their_own():
    weights, means, stds = torch.tensor([0.4, 0.6]).double(), normal(2, 3), normal(2, 3).abs()
    samples = normal(100, 3, seed=2)
    together = distances.compare(samples, weights, means, stds)
    for d in range(3):
        alone = distances.compare(samples[:, d : d + 1], weights, means[:, d : d + 1], stds[:, d : d + 1])
        assert together.w1[d].item() == pytest.approx(alone.w1.item(), rel=1e-12)
        assert together.ks[d].item() == pytest.approx(alone.ks.item(), rel=1e-12)


def test_exact_draws_have_the_distances_that_are_said():
    weights, means, stds = (x.expand(*x.shape[:1], 400) if x.dim() == 2 else x for x in LAWS["normal"])
    found = distances.compare(0.3 + 1.2 * normal(800, 400), weights, means, stds)
    assert found.ks.mean().item() == pytest.approx(distances.EXACT_KS / 800**0.5, rel=0.05)
    assert found.w1.mean().item() == pytest.approx(found.w1_exact.mean().item(), rel=0.05)


def test_the_density_is_the_slope_of_the_distribution_function():
    x, h = torch.linspace(-3, 5, 50, dtype=torch.float64)[:, None], 1e-5
    slope = (distances.cdf(x + h, *LAWS["mixture"]) - distances.cdf(x - h, *LAWS["mixture"])) / (2 * h)
    assert torch.allclose(distances.pdf(x, *LAWS["mixture"]), slope, atol=1e-6)


# the score ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("sampler", [sde, heun])
def test_the_exact_score_has_no_error_and_its_samples_the_exact_laws(sampler):
    data = mixture(stds=[0.4, 0.3, 0.6], means=[[-1.5], [0.0], [1.5]])
    n = 600
    result = Score(levels=8)(ctx(oracle_model(data, sampler, spacing="quadratic"), data, n=n))
    assert abs(result.values["score_error"]) < 1e-20 and abs(result.values["score_error_relative"]) < 1e-20
    assert max(result.series["ks"]) < 1.63 / n**0.5 + 0.02  # the 1 % bound of one test, and the sampler's own error
    assert result.values["ks_over_levels"] == max(result.series["ks"])
    assert result.values["std_over_exact_at_0"] == pytest.approx(1, abs=0.07)
    assert result.values["mean_gap_at_0"] < 4
    assert result.headline == ("score_error",) and not [note for note in result.notes if "no score error" in note]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("d", [1, 3])
def test_a_biased_score_of_a_point_has_the_error_of_the_closed_form(d):
    """sigma s* = -eps, so sigma (s - s*) = -a eps + c: its mean square is a^2 + c^2."""
    a, c, data = 0.3, 0.2, point(d)
    result = Score(levels=5)(ctx(Biased(HeatKernel((1, 1, d), num_levels=12), data, a, c), data, n=600))
    for name in ("score_error", "score_error_relative"):
        value, error = result.values[name], result.errors[name]
        assert abs(value - (a**2 + c**2)) < 5 * error < 0.02
        assert result.series[name][1:] == pytest.approx([a**2 + c**2] * 7, rel=0.25)
    only = Score(levels=5)(ctx(Biased(HeatKernel((1, 1, d), num_levels=12), data, a), data, n=600))
    assert only.series["score_error_relative"][1:] == pytest.approx([a**2] * 7, rel=1e-4)


@pytest.mark.usefixtures("plain")
def test_the_relative_error_is_that_of_the_levels_and_the_standard_error_that_of_points():
    data, process = mixture(), HeatKernel((1, 1, 1), num_levels=6)
    result = Score(levels=6)(ctx(Biased(process, data, 0.5), data, n=600))
    assert result.series["score_error_relative"][1:] == pytest.approx([0.25] * 6, rel=1e-4)
    assert result.errors["score_error_relative"] < 1e-4 < result.errors["score_error"]
    assert result.values["score_error"] == pytest.approx(sum(result.series["score_error"][1:]) / 6)
    first = Score(levels=6)(ctx(Biased(process, data, 0.5), data, n=600, batch_size=37))
    assert first.values["score_error"] == pytest.approx(result.values["score_error"], rel=1e-6)


@pytest.mark.usefixtures("plain")
def test_the_levels_are_the_middle_ones_of_equal_parts_and_both_ends():
    assert Score(levels=20).looked_at(5) == Score(levels=20).middle(5) == [1, 2, 3, 4, 5]
    assert Score(levels=4).middle(100) == [13, 38, 63, 88]
    assert Score(levels=4).looked_at(100) == [1, 13, 38, 63, 88, 100]
    assert Score(levels=2).looked_at(1) == [1]


@pytest.mark.usefixtures("plain")
def test_the_value_is_the_mean_over_the_middle_levels():
    result = Score(levels=3)(ctx(Biased(HeatKernel((1, 1, 1), num_levels=12), mixture(), 0.5), mixture(), n=300))
    series = result.series["score_error"][1:]
    assert result.values["score_error"] == pytest.approx(sum(series[1:4]) / 3) and len(series) == 5


# the way back -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("plain")
def test_states_are_compared_at_their_own_times():
    data, process = mixture(2), HeatKernel((1, 1, 2), num_levels=8, clock="geometric", sigma_min=0.1, sigma_max=200.0)
    torch.manual_seed(0)
    right = Score(levels=8)(ctx(Biased(process, data), data, n=600, batch_size=600))
    late = Score(levels=8)(ctx(Biased(process, data, late=1), data, n=600, batch_size=600))
    assert right.series["t"] == process.times.tolist()
    assert max(right.series["ks_largest"]) < 0.09 and right.series["std_over_exact"] == pytest.approx([1] * 9, abs=0.12)
    assert min(late.series["ks"][2:-1]) > 0.1  # only the initial state is where it says
    assert late.series["ks"][-1] < 0.09


@pytest.mark.usefixtures("plain")
def test_the_states_begin_and_end_as_those_of_subject_sample():
    data = mixture()
    model = oracle_model(data, sde, num_levels=5)
    the = ctx(model, data, n=50, batch_size=20)
    result = Score(levels=5)(the)
    samples = the.sample(50, lambda u: u.flatten(1).double(), Rows()).tensor
    assert result.series["std"][0] == pytest.approx(samples.std(0).item(), rel=1e-6)


@pytest.mark.usefixtures("plain")
def test_a_point_has_no_ks_at_the_end_but_a_w1():
    data = point()
    result = Score(levels=4)(ctx(oracle_model(data, sde, num_levels=10), data))
    assert math.isnan(result.series["ks"][0]) and math.isnan(result.series["std_over_exact"][0])
    assert all(map(math.isfinite, result.series["ks"][1:])) and 0 <= result.values["w1_at_0"] < 1e-5
    assert not {"std_over_exact_at_0", "mean_gap_at_0"} & set(result.values)
    assert math.isfinite(result.values["ks_over_levels"])


@pytest.mark.usefixtures("plain")
def test_a_sampler_that_leaps_has_laws_at_its_ends_alone():
    data = mixture()
    result = Score(levels=5)(ctx(oracle_model(data, exact, num_levels=10), data, n=100))
    assert [math.isfinite(x) for x in result.series["w1"]] == [True, *[False] * 5, True]
    assert [note for note in result.notes if "says nothing of 5 levels" in note]


@pytest.mark.usefixtures("plain")
def test_data_without_a_closed_form_is_compared_with_its_points():
    data = Ring(shape=[1, 1, 2], **SIZES)
    process = HeatKernel((1, 1, 2), num_levels=6)
    result = Score(levels=3)(ctx(Biased(process, data), data, n=300, name="ring"))
    assert "score_error" not in result.values and result.headline == ("ks_over_levels", "w1_at_0")
    assert any(
        note.startswith("no score error: the score of data=ring has no closed form (data=grf") for note in result.notes
    )
    assert any("600 points of its test split" in note for note in result.notes)
    assert (
        all(map(math.isfinite, result.series["ks"])) and max(result.series["ks"]) < 1.63 * (1 / 300 + 1 / 600) ** 0.5 + 0.02
    )
    assert list(result.pictures) == ["levels", "densities"]


@pytest.mark.usefixtures("plain")
def test_a_method_without_a_score_has_laws_alone():
    data = mixture()
    model = IHD(HeatKernel((1, 1, 1), num_levels=4), Zero(), ancestral, None, parametrisation="residual")
    result = Score(levels=4)(ctx(model, data, n=50, name="gaussian_mixture"))
    assert "no score error: model=ihd gives no score." in result.notes
    assert "score_error" not in result.values and result.values["w1_at_0"] > 0.1
    assert list(result.pictures) == ["levels", "densities"]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_diverge_are_refused(bad):
    data = mixture()
    model = Biased(HeatKernel((1, 1, 1), num_levels=3), data)
    model.generate = lambda u, noise, on_step=None: torch.full_like(u, bad)
    with pytest.raises(ConfigError, match=r"50 of 50 samples hold NaN or inf .*the way back diverges"):
        Score(levels=3)(ctx(model, data, n=50))


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 5])
def test_series_are_of_one_length_and_pictures_of_every_kind(d):
    data = mixture(d)
    result = Score(levels=6)(ctx(Biased(HeatKernel((1, 1, d), num_levels=9), data, 0.1), data, n=60, batch_size=60))
    assert {len(column) for column in result.series.values()} == {7}
    assert next(iter(result.series)) == "t" and result.series["t"][0] == 0 and result.series["t"][-1] == 1
    assert list(result.pictures) == ["score", "levels", "densities"]
    assert all(len(picture.getcolors(10**6)) > 20 for picture in result.pictures.values())
    facts = {"n": 60, "split": "toy test", "levels": "6 of 9, and 0", "points": 60, "coefficients": f"{d} of {d}"}
    assert facts.items() <= result.facts.items()


@pytest.mark.usefixtures("plain")
def test_a_map_that_is_a_matrix_has_scores_and_laws():
    data = mixture(3)
    process = RandomMatrix((1, 1, 3), num_levels=3, sigma=0.2)
    torch.manual_seed(0)
    result = Score(levels=3)(ctx(Biased(process, data, 0.5), data, n=300, batch_size=300))
    assert result.series["score_error_relative"][1:] == pytest.approx([0.25] * 3, rel=1e-3)
    assert max(result.series["ks"]) < 0.1


@pytest.mark.usefixtures("plain")
def test_gaussian_fields_that_the_map_mixes_have_no_laws_but_a_score_error():
    data = mixture(4)
    for split in SPLITS:
        data.images(split)  # read as points
    data.spec = DataSpec((1, 1, 4), (-3.0, 3.0), "periodic", None, torch.tensor([[[2.0, 1.0, 0.5, 0.5]]]).double())
    process = RandomMatrix((1, 1, 4), num_levels=3, sigma=0.2)
    model = Biased(process, data, 0.5)
    result = Score(levels=3)(ctx(model, data, n=20))
    assert result.series["score_error_relative"][1:] == pytest.approx([0.25] * 3, rel=1e-3)
    assert any("is not diagonal in the basis of the data" in note for note in result.notes)
    assert "w1" not in result.series and list(result.pictures) == ["score"]
    bare = IHD(process, Zero(), ancestral, None, parametrisation="residual")
    with pytest.raises(ConfigError, match="model=ihd gives no score; forward=random_m"):
        Score(levels=3)(ctx(bare, data, n=20))


@pytest.mark.usefixtures("plain")
def test_without_noise_there_is_no_score_error():
    data = mixture(3)
    process = RandomMatrix((1, 1, 3), num_levels=3, sigma=0)
    model = IHD(process, Zero(), ancestral, None, parametrisation="residual", delta=0.1)
    model.score = model.physics_step = model.euler_step = lambda u, *times: u
    result = Score(levels=3)(ctx(model, data, n=20))
    assert "no score error: forward=random_matrix has no noise at level 1." in result.notes


# refusals and the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "all"}, r"^metric\.split must be one of train, val, test, not 'all'"),
        ({"levels": 1}, r"^metric\.levels must be a whole number of at least 2, not 1\.$"),
    ],
)
def test_wrong_values_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Score(**options)


def test_it_is_refused_without_a_run_for_one_sample_and_for_maps_drawn_at_random():
    data = mixture(4)
    with pytest.raises(ConfigError, match="run=DIR"):
        Score()(ctx(None, data))
    with pytest.raises(ConfigError, match="n must be"):
        Score()(ctx(Biased(HeatKernel((1, 1, 4), num_levels=2), data), data, n=1))
    process = RandomVelocity((1, 1, 4), num_levels=3)
    model = IHD(process, Zero(), ancestral, None, parametrisation="residual")
    with pytest.raises(ConfigError, match=r"forward=random_velocity.*another map"):
        Score()(ctx(model, data))


def test_the_reference_of_points_is_the_exact_law_of_a_mixture_of_them():
    data, process = point(2), HeatKernel((1, 1, 2), num_levels=4)
    points = data.get("test", range(7))
    few, one = Reference.of_points(process, data.spec, points), Reference(MixtureOracle(process, data.spec))
    x = normal(30, 2)
    assert torch.allclose(distances.cdf(x, *few.law(process.times[-1:])), distances.cdf(x, *one.law(process.times[-1:])))
    assert few.exact_ks(7) == pytest.approx(one.exact_ks(7) * 2**0.5)
    many = Reference.of_points(HeatKernel((1, 10, 10), 2), DataSpec((1, 10, 10)), torch.rand(2000, 1, 10, 10))
    assert len(many.kept) == 16 and many.kept[0] == 0 and many.kept[-1] == 99


@pytest.mark.slow
def test_from_the_command_line(tmp_path, capsys):
    words = ["model=oracle", "data=gaussian_mixture", "forward=heat_kernel", "forward.num_levels=6"]
    assert call("train", *words, "trainer.accelerator=cpu", f"hydra.run.dir={tmp_path / 'runs' / 'a'}") == 0
    words = [f"run={tmp_path / 'runs' / 'a'}", "mode=score", "n=40", "sampler=sde", "trainer.accelerator=cpu"]
    assert call("evaluate", *words) == 0
    (path,) = (tmp_path / "runs" / "a" / "evaluation").glob("score_*.json")
    content = json.loads(path.read_text())
    assert content["headline"] == ["score_error", "nfe"] and content["values"]["score_error"] < 1e-20
    assert content["values"]["nfe"] == 6
    names = {file.name.removeprefix(f"{path.stem}_") for file in path.parent.glob(f"{path.stem}_*.png")}
    assert names == {"score.png", "levels.png", "densities.png"}
    assert "KS, largest over levels" in capsys.readouterr().out
