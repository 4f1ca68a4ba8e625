"""The law that exact answers rest on: asserted and compared with the fields, assumed, measured, or none."""

import re

import h5py
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from heatgen.basis import Cosine, Fourier
from heatgen.check import ConfigError
from heatgen.data.gaussian_mixture import GaussianMixture
from heatgen.data.grf import GRF
from heatgen.data.grf_fields import draw_field, power
from heatgen.data.hot_spots import HotSpotFields
from heatgen.data.images import Pixels
from heatgen.data.module import SPLITS, DataModule, DataSpec, Mixture
from heatgen.forward.heat import Heat
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.frames import Frames
from heatgen.metric.posterior import least_mse
from heatgen.model.oracle import Oracle
from heatgen.noise import SampleNoise
from heatgen.oracle.agreement import Agreement
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.oracle.law import Law, law_of
from heatgen.oracle.measured import measured_spectrum
from heatgen.oracle.sampled import mixture_findings, spots_findings
from heatgen.oracle.trajectory import GaussianTrajectory

N = 16
BASIS = Fourier(N, N)
SIZES = {"train": 200, "val": 20, "test": 100}
LAW = torch.from_numpy(power(4, N))[None] / power(4, N).mean()
WAVES = torch.fft.fftfreq(N, dtype=torch.float64)


def draw(spectrum, count=200, seed=0):
    noise = torch.randn(count, 1, N, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return BASIS.inverse(spectrum.sqrt() * noise)


def normalised(u):
    return (u - u.mean()) / u.std(correction=0)


def spectrum(n):
    values = torch.from_numpy(power(n, N))[None]
    return values / values.mean()


def stretched():
    """|k|^-4 with k_x weighted 8 times, mean 1."""
    size = torch.hypot(8 * WAVES[None, :], WAVES[:, None])
    size[0, 0] = torch.inf
    values = size[None] ** -4
    return values / values.mean()


def symmetric(u):
    return (u + u.flip(-1, -2).roll((1, 1), (-1, -2))) / 2**0.5


FIELDS = {  # what is wrong with fields -> they, and what a refusal says
    "another unit": (lambda: 10 * draw(LAW), "variance 100"),
    "exponent 3": (lambda: draw(spectrum(3)), r"power like the law's times \|k\|\^\(\+(0.9|1)"),
    "exponent 3.9": (lambda: draw(spectrum(3.9)), r"by wave number \|k\|"),
    "white": (lambda: draw(spectrum(0)), r"law's times \|k\|\^\(\+(3.9|4)"),
    "stretched": (lambda: draw(stretched()), "of waves along x 0.0"),
    "a random mean": (lambda: draw(LAW) + draw(LAW, seed=1)[:, :, :1, :1], "constant mode"),
    "a mean field": (lambda: draw(LAW) + torch.sin(2 * torch.pi * WAVES), r"mean of coefficient \(0, "),
    "squared": (lambda: normalised(draw(LAW) ** 2), "constant mode"),
    "one scale each": (lambda: (u := draw(LAW)) / u.std((2, 3), keepdim=True), "power of single fields"),
    "even waves": (lambda: symmetric(draw(LAW)), "of even waves 2"),
    "skew white pixels": (lambda: (u := draw(spectrum(0)) + 3) ** 2 / u.std() / 6 - 1.6, "not Gaussian: skewness"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_another_law_are_told_with_what_was_measured(name):
    fields, words = FIELDS[name]
    law = torch.ones(1, N, N, dtype=torch.float64) if "pixels" in name else LAW
    found = " ".join(finding.words for finding in Agreement(fields(), law, BASIS).findings())
    assert re.search(words, found), found


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 40])
def test_fields_of_the_law_are_found_so_as_often_as_it_says(count):
    """Every statistic's probability is uniform on [0, 1], so that a millionth of a hundredth is what it says."""
    parts = ("_scale", "_shape", "_directions", "_single", "_means", "_fields", "_pixels", "_phases", "_normality")
    chances, seeds = [], 100
    for seed in range(seeds):
        agreement = Agreement(draw(LAW, count, seed).float(), LAW, BASIS)
        chances.append([chance for part in parts for *_, chance in getattr(agreement, part)()])
        assert not agreement.findings()
    for level in (0.02, 0.1, 0.5):
        shares = (np.array(chances) < level).mean(0)
        assert (np.abs(shares - level) < 4.5 * (level * (1 - level) / seeds) ** 0.5 + 0.4 * level).all(), (level, shares)


# files of fields ----------------------------------------------------------------------------------------------------------


def folder(path, change=lambda fields, split: fields, **attributes):
    path.mkdir(exist_ok=True)
    for split, size in SIZES.items():
        fields = np.stack([draw_field(4, N, 0, split, i) for i in range(size)])
        with h5py.File(path / f"{split}.h5", "w") as file:
            file["fields"] = change(fields, split)
            file.attrs.update(attributes)
    return path


def grf(path=None, **settings):
    sizes = {f"{split}_size": size for split, size in SIZES.items()}
    return GRF(shape=[1, N, N], resolution=N, **sizes, **settings, **({} if path is None else {"path": str(path)}))


def oracle(data):
    model = Oracle(StochasticHeat((1, N, N), 8), torch.nn.Identity(), None, None)
    model.calibrate(data)
    return model


def test_the_unit_of_a_file_changes_no_answer_and_stale_attributes_do_not_either(tmp_path):
    own = grf().spec.spectrum
    data = grf(folder(tmp_path, lambda fields, _: 10 * fields + 3, n="4", mean=0.0, std=2.5))
    assert law_of(data) == Law(data.spec) and torch.equal(oracle(data).exactly.spectrum, data.spec.spectrum)
    assert (data.spec.spectrum / own)[own > 0].sub(1).abs().max() < 4 * (2 / (255 * SIZES["train"])) ** 0.5
    assert torch.equal(grf(folder(tmp_path / "own")).spec.spectrum, own)  # files of our own: the law's own unit


def test_exact_answers_for_fields_of_another_law_are_refused_with_numbers_and_the_way_on(tmp_path):
    path = folder(tmp_path, lambda fields, split: 7 * fields if split == "test" else fields)
    for law, match in (
        ("check", r"the 100 test fields .* variance \d\d\.\d.* times the law's.*law=measure"),
        ("measure", "4"),
    ):
        with pytest.raises(ConfigError, match=match):
            oracle(grf(path, law=law))
    assert law_of(grf(path, law="assume")).spec.spectrum is not None
    none = law_of(grf(path, law="none"))
    assert none.spec.spectrum is None and "data.law=none" in none.refusal
    random = np.random.default_rng(0)
    path = folder(tmp_path / "random", lambda fields, _: fields + 3 * random.normal(size=(len(fields), 1, 1)))
    with pytest.raises(ConfigError, match=r"constant mode has a deviation of 1\d.* where the law has 0.*data\.law=measure"):
        oracle(grf(path))
    assert "Gaussian with measured spectrum (200 training fields" in law_of(grf(path, law="measure")).notes[0]


@pytest.mark.parametrize("words", ["four", np.zeros(2), np.nan])
def test_an_exponent_that_is_no_number_is_refused_where_it_counts(tmp_path, words):
    path = folder(tmp_path, n=words)
    with pytest.raises(
        ConfigError, match=r"The attribute n of .*train\.h5 is .*; correct it, or delete it, and data\.n counts"
    ):
        grf(path).prepare_data()
    grf(path, law="measure").prepare_data()


def test_only_fields_that_are_isotropic_by_law_are_turned_unless_asked(tmp_path):
    assert grf(augment=None).augment and not grf(tmp_path, augment=None).augment
    assert grf(tmp_path, augment=True).augment and not grf(augment=False).augment


def test_an_exponent_that_no_number_holds_is_refused():
    with pytest.raises(ConfigError, match=r"data\.n = 400 is too steep for data\.resolution = 16.*at most 249"):
        grf(n=400)
    assert grf(n=249).spec.spectrum.isfinite().all()


# measured laws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exponent 3", "white", "stretched", "a random mean", "a mean field", "squared"])
def test_the_error_of_answers_with_a_measured_spectrum_is_what_they_say(name):
    u = torch.cat([normalised(FIELDS[name][0]()), torch.empty(0, 1, N, N)])
    spectrum, mean, words = measured_spectrum(u[:150], BASIS)
    assert (mean is not None) == (name == "a mean field") and ("turns" in words or name in ("stretched", "squared"))
    process = StochasticHeat((1, N, N), 8)
    exact = GaussianOracle(process, DataSpec((1, N, N), boundary="periodic", variances=spectrum, mean=mean))
    test, t = u[150:], process.times[-1:]
    eps = torch.randn(test.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    state = process.perturb(test, t, eps)
    errors = (exact.posterior_mean(state, t) - test).square().mean((1, 2, 3)) / exact.minimum_mse(t)
    assert abs(errors.mean() - 1) < 3.5 * errors.std() / len(errors) ** 0.5


def test_answers_about_a_mean_are_those_about_none_moved():
    mean = draw(LAW, 1, 5)[0]
    process = StochasticHeat((1, N, N), 8)
    plain, moved = (
        GaussianOracle(process, DataSpec((1, N, N), boundary="periodic", variances=LAW, mean=m)) for m in (None, mean)
    )
    u, t = draw(LAW, 3, 6), process.times[4:5]
    shift = process.mean(mean[None], t)
    for method in ("posterior_mean", "flow"):
        assert_close(getattr(moved, method)(u + shift, t), mean + getattr(plain, method)(u, t), atol=1e-9, rtol=0)
    rngs = [SampleNoise(range(3), 0, "a") for _ in range(2)]
    assert_close(
        moved.posterior_sample(u + shift, t, rngs[0]), mean + plain.posterior_sample(u, t, rngs[1]), atol=1e-9, rtol=0
    )
    for method in ("score", "log_prob"):
        assert_close(
            getattr(moved, method)(u + shift, t.expand(3)), getattr(plain, method)(u, t.expand(3)), atol=0, rtol=1e-6
        )
    assert_close(moved.marginals(t)[0], BASIS(shift).flatten(1), atol=1e-9, rtol=0)
    frames = torch.stack([u[:, 0], u[:, 0] + 1], 1)[:, :, None]
    times = process.times[[1, 3]].expand(3, -1)
    moves = torch.stack([process.mean(mean[None], time[None])[0] for time in times[0]])
    answers = []
    for m, values in ((None, frames), (mean, frames + moves)):
        spec = DataSpec((1, N, N), boundary="periodic", variances=LAW, mean=m)
        seen = Frames(times, values, torch.ones(3, 2, dtype=torch.bool))
        trajectory = GaussianTrajectory(process, spec, 0.1)
        answers.append((trajectory.mean(seen, times), trajectory.joint(seen, seen), trajectory.frames(seen, seen)))
    for i, (a, b) in enumerate(zip(*answers, strict=True)):
        assert_close(b - moves if i == 0 else b, a, atol=1e-8, rtol=1e-8)


# data sets of others ------------------------------------------------------------------------------------------------------


class Mine(DataModule):
    """Samples and what is said of them, which need not be true."""

    def __init__(self, samples, **said):
        law = said.pop("law", "check")
        super().__init__(shape=list(samples.shape[1:]), law=law)
        self.samples, self.spec = samples, DataSpec(self.spec.shape, bits=None, **said)

    def read(self, split):
        third = len(self.samples) // 3
        return Pixels(self.samples[third * SPLITS.index(split) :][:third].float())


def test_the_spectrum_that_a_data_set_of_others_asserts_is_compared_too():
    variances = 1 / (1 + torch.arange(64, dtype=torch.float64).reshape(1, 8, 8))
    u = Cosine(8, 8).inverse(variances.sqrt() * torch.randn(600, 1, 8, 8, dtype=torch.float64))
    assert law_of(Mine(u, variances=variances)).name == "exact" and not law_of(Mine(u, variances=variances)).refusal
    wrong = Mine(u, variances=lambda: variances * 1.2)
    assert "the 200 train fields do not have the spectrum" in law_of(wrong).refusal and law_of(wrong).spec.spectrum is None
    assert law_of(Mine(u, variances=variances * 1.2, law="measure")).name.startswith("Gaussian with measured spectrum")
    with pytest.raises(ConfigError, match=r"asserts no law that data\.law=assume could trust"):
        Oracle(Heat((1, 8, 8), 3), torch.nn.Identity(), None, None).calibrate(Mine(u, law="assume"))


def test_the_least_error_of_a_measured_spectrum_spreads_as_its_standard_error_says():
    process = StochasticHeat((1, N, N), 8)
    found = []
    for seed in range(40):
        data = Mine(draw(stretched(), 150, seed), boundary="periodic", law="measure")
        oracle = GaussianOracle(process, law_of(data).spec)
        found.append(least_mse(data, oracle, process.times[-1:], None))
    least, errors = torch.tensor(found).T
    assert 0.7 < errors.mean() / least.std() < 1.4  # 40 draws tell their deviation to 11 %
    data = Mine(draw(LAW, 150), boundary="periodic", variances=LAW, law="assume")
    assert least_mse(data, GaussianOracle(process, law_of(data).spec), process.times[-1:], None)[1] == 0


@pytest.mark.parametrize("stds", [0.15, 0.0, [0.0, 0.2, 0.1]])
def test_a_mixture_has_its_own_samples_and_not_those_of_another(stds):
    data = GaussianMixture(shape=[1, 1, 2], components=3, stds=stds, weights=[1, 2, 3], train_size=6000)
    u, law = data.get("train", range(6000)), data.spec.mixture
    assert not mixture_findings(u, law) and law_of(data) == Law(data.spec)
    for wrong in (
        Mixture(law.weights.roll(1), law.means, law.stds),
        Mixture(law.weights, law.means + 0.05, law.stds),
        Mixture(law.weights, law.means, law.stds + 0.1),
    ):
        assert mixture_findings(u, wrong)
    mine = Mine(u, mixture=Mixture(law.weights, law.means + 0.1, law.stds))
    assert "do not have the mixture" in law_of(mine).refusal and law_of(mine).spec.mixture is None


def test_hot_squares_have_their_own_law_and_not_another():
    data = HotSpotFields(shape=[1, 16, 16], train_size=300)
    u, law = data.get("train", range(300)), data.law
    assert not spots_findings(u, law)
    assert spots_findings(u * 1.1, law) and spots_findings(u + u.flip(0), law)
    left = u[:, :, :, :].flatten(1).argmax(1) % 16 < 8
    assert spots_findings(u[left], law)
