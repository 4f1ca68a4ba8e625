"""forward=composed and its presets: the published formulas, their shift to data in [0, 1], and what does not go together."""

import math
from pathlib import Path

import pytest
import torch
from conftest import FORWARDS, call, shipped, shipped_map
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.testing import assert_close

from heatgen.app.build import check_options
from heatgen.basis import Cosine, Fourier, Pixel
from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.basis import Haar, block_cosine, random
from heatgen.forward.blurring import Blurring
from heatgen.forward.composed import Composed
from heatgen.forward.noise_level import noise_to_signal
from heatgen.forward.process import derivative
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.model.oracle import Oracle
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.sampler.ancestral import ancestral

CONF = Path(__file__).resolve().parents[2] / "conf" / "forward"
SHAPE = (2, 8, 12)
PRESETS = [name for name in FORWARDS if shipped("forward", name)["_target_"].endswith("Composed")]
TIMES = torch.tensor([1e-3, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)


def make(preset="composed", shape=SHAPE, num_levels=10, parts=(), **options):
    """A preset with other parts, such as colour="power", and options of its parts, such as colour={"exponent": 0.5}."""
    node = shipped("forward", preset)
    for part, option in dict(parts).items():
        node[part] = None if option is None else shipped(f"forward/{part}", option)
    own = {"shape": list(shape), "num_levels": num_levels}
    try:
        return instantiate(OmegaConf.merge(node, own, options), _convert_="all")
    except InstantiationException as error:  # Hydra's, around what a part says
        while isinstance(error, InstantiationException):
            error = error.__cause__
        raise error from None


class Fields:
    """Training data of these fields."""

    def __init__(self, u):
        self.u = u

    def images(self, split):
        return range(len(self.u))

    def get(self, split, indices):
        return self.u[list(indices)]


def lines(name):
    return (CONF / f"{name}.yaml").read_text().splitlines()


# the presets ---------------------------------------------------------------------------------------------------------------


def test_a_paper_is_a_yaml_of_at_most_15_lines():
    assert len(PRESETS) > 10
    assert {name: len(lines(name)) for name in PRESETS if len(lines(name)) > 15} == {}


@pytest.mark.parametrize("name", PRESETS)
def test_at_time_0_there_is_the_image_alone_and_slopes_are_finite(name):
    for dtype in (torch.float32, torch.float64):
        process, t = make(name), torch.zeros(2, dtype=dtype)
        assert torch.equal(process.gain(t), torch.ones_like(process.gain(t))) and not process.std(t).any()
        for value in (process.gain(t), process.std(t), process.rate(t), process.diffusion(t)):
            assert value.dtype == dtype and value.isfinite().all()
        assert (derivative(process.gain, t + process.times[1].to(t))[1]).isfinite().all()


def test_ddpm_has_the_signal_to_noise_ratios_of_its_1000_steps_on_data_in_minus_1_to_1():
    process = make("variance_preserving", num_levels=1000)
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    paper = ((1 - abar) / abar).sqrt()  # noise beside signal on [-1, 1], where data are twice as large
    ours = 2 * noise_to_signal(process, process.times[1:])
    assert_close(ours[9:], paper[9:], rtol=0.04, atol=0)  # the limit of small steps
    gain, std = process.gain(process.times), process.std(process.times)
    assert_close(gain**2 + (std / 0.5) ** 2, torch.ones_like(gain), atol=1e-14, rtol=0)


def test_the_cosine_schedule_is_the_papers_with_its_last_beta_cut():
    process = make("variance_preserving", scale={"schedule": "cosine"})
    t = torch.tensor([0.0, 0.2, 0.5, 0.999, 1.0], dtype=torch.float64)
    f = (math.pi / 2 * (t + 0.008) / 1.008).cos() ** 2
    abar = process.gain(t).flatten() ** 2
    assert_close(abar[:-1], (f / f[0])[:-1], atol=0, rtol=1e-12)
    assert abar[-1].item() == pytest.approx(0.001 * abar[-2].item(), rel=1e-9)
    assert process.rate(t).isfinite().all()


def test_edm_is_noise_of_0_002_to_80_on_data_in_minus_1_to_1():
    process, same = make("edm"), VarianceExploding(SHAPE, 10, 0.001, 40.0)
    assert torch.equal(process.times, same.times)
    for method in ("gain", "std"):
        assert torch.equal(getattr(process, method)(process.times), getattr(same, method)(same.times))
    assert_close(process.diffusion(process.times), same.diffusion(same.times), atol=1e-12, rtol=0)
    assert (2 * noise_to_signal(process, process.times[[1, -1]])).tolist() == pytest.approx([0.002, 80])


def test_flow_goes_straight_from_the_image_to_the_noise():
    process, u0, eps = make("flow"), torch.randn(5, *SHAPE).double(), torch.randn(5, *SHAPE).double()
    assert_close(process.perturb(u0, TIMES, eps), u0 + process.column(TIMES) * (eps - u0), atol=1e-14, rtol=0)
    assert torch.equal(process.perturb(u0, torch.ones(5).double(), eps), eps)
    assert process.is_scalar
    with pytest.raises(ConfigError, match=r"A\(1\) of forward=flow is not invertible"):
        process.ratio(TIMES[-1:], TIMES[-1:])


@pytest.mark.parametrize("a", [0.0, 0.5])
def test_the_velocity_of_heat_dissipation_flow_matching_has_its_factor(a):
    process, t = make("hdfm", scale={"dissipation": a}), torch.cat([torch.zeros(1).double(), TIMES])
    blurred = ((1 - process.column(t)) ** (a * process.basis.eigenvalues)).expand(6, 1, 8, 12)
    gain, slope = (x.expand_as(blurred) for x in derivative(process.gain, t))
    assert_close(gain, (1 - process.column(t)) * blurred, atol=1e-15, rtol=1e-12)
    assert_close(slope, -(1 + a * process.basis.eigenvalues) * blurred, atol=1e-14, rtol=1e-12)


def test_blur_of_variance_1_is_the_papers_chain_of_steps():
    process, k = make("blur_vp", num_levels=1000), torch.arange(1, 1001, dtype=torch.float64)
    gain, std = process.gain(process.times), process.std(process.times)
    assert_close(gain**2 + std**2, torch.ones_like(gain), atol=1e-14, rtol=0)
    f = (0.15 / 0.4) ** 2 * (k / 1000) ** 4  # quartic, of a kernel of 0.4 pixels
    log_d = -process.basis.eigenvalues * 0.4**2 / 2
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    chain = ((1 - beta).log().cumsum(0) / 2)[:, None, None] + f.cumsum(0)[:, None, None] * log_d
    assert_close(gain[1:, 0].log()[[99, 499, 999]], chain[[99, 499, 999]], rtol=0.05, atol=0.01)
    assert make("blur_vp").is_markov


def test_warm_without_blur_is_edm_and_with_it_is_heat_of_a_width_that_follows_the_noise():
    edm, cold, warm = make("edm"), make("warm", blur={"ratio": 0.0}), make("warm", blur={"ratio": 3.0, "d_min": 0.0})
    assert torch.equal(cold.times, edm.times) and torch.equal(cold.std(edm.times), edm.std(edm.times))
    assert (cold.gain(edm.times) == 1).all()
    t = edm.times[:6]
    assert_close(warm.gain(t), (-warm.basis.eigenvalues * 9 * warm.column(t)).exp(), atol=1e-14, rtol=1e-12)


def test_relay_has_lognormal_noise_and_blurs_within_blocks():
    process = make("relay")
    chance = torch.special.ndtr(((2 * process.std(TIMES).flatten()).log() + 1.2) / 1.2)
    assert_close(chance, 0.93 * TIMES, atol=1e-12, rtol=0)
    blocks = torch.randn(1, 2, 2, 3).double().repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert_close(process.mean(blocks, TIMES[-1:]), blocks, atol=1e-14, rtol=0)
    inside = torch.randn(1, *SHAPE).double()
    moved = process.mean(inside, TIMES[-1:]) - inside
    inside[..., :4, :4] += 1.0
    assert not (process.mean(inside, TIMES[-1:]) - inside - moved)[..., 4:].any()
    one = make("relay", basis={"size": 1})
    assert torch.equal(one.gain(TIMES), torch.ones_like(one.gain(TIMES)))


def test_scale_space_keeps_the_waves_of_half_the_resolution_again_and_again():
    process, plain = make("scale_space", (1, 16, 32)), make("variance_preserving", (1, 16, 32))
    t = torch.tensor([0.1, 0.43, 0.44, 0.74, 0.76, 0.93, 0.94, 1.0], dtype=torch.float64)
    kept = process.gain(t) / plain.gain(t)
    assert kept.flatten(1).sum(1).tolist() == [512, 512, 128, 128, 32, 32, 8, 8]
    assert torch.equal(kept, kept.round()) and kept[-1, 0, :2, :4].all()
    assert torch.equal(process.std(t), plain.std(t))


# colours -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["power", "two_band", "matern", "data"])
@pytest.mark.parametrize("basis", ["cosine", "fourier", "block_cosine", "haar"])
def test_colours_have_mean_square_1_in_every_basis_with_waves(colour, basis):
    process = make("variance_preserving", parts={"colour": colour, "basis": basis})
    process.prepare(Fields(torch.rand(50, *SHAPE)))
    ratio = process.std(TIMES) / make("variance_preserving").std(TIMES)
    assert_close(ratio.square().flatten(1).mean(1), torch.ones(5).double(), atol=1e-12, rtol=0)


def test_noise_of_a_power_has_a_radial_spectrum_of_twice_its_slope_and_is_white_at_0():
    process = make("spectral_noise", (1, 64, 64), colour={"exponent": -0.5})
    torch.manual_seed(0)
    noise = process.scale_coefficients(torch.randn(200, 1, 64, 64).double(), process.std(TIMES[-1:]))
    power = torch.fft.fft2(noise, norm="ortho").abs().square().mean((0, 1)).flatten()
    k = torch.fft.fftfreq(64, 1 / 64).double()
    r = (k[:, None] ** 2 + k[None] ** 2).sqrt().flatten()
    x, y = r[r > 0].log(), power[r > 0].log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert slope.item() == pytest.approx(-1, abs=0.01)
    white = make("spectral_noise", colour={"exponent": 0.0})
    plain = make("variance_preserving").std(TIMES)
    assert torch.equal(white.std(TIMES), plain.expand_as(white.std(TIMES)))


def test_noise_in_two_bands_and_of_a_matern_field():
    bands = make("spectral_noise", parts={"colour": "two_band"}, colour={"gamma_low": 2.0, "gamma_high": 0.5})
    weights = bands.std(TIMES[-1:])[0, 0]
    low = bands.basis.eigenvalues.sqrt() <= 0.5 * bands.basis.eigenvalues.sqrt().max()
    assert_close(weights[low], weights[low][:1].expand(int(low.sum())))
    assert (weights[low].mean() / weights[~low].mean()).item() == pytest.approx(4)
    matern = make("spectral_noise", (1, 256, 256), parts={"colour": "matern"}, colour={"length": 12.0})
    correlation = torch.fft.ifft2(matern.std(TIMES[-1:])[0, 0] ** 2).real[0]
    distance = torch.arange(1, 40)
    assert_close(correlation[distance] / correlation[0], (-distance.double() / 12).exp(), atol=0.03, rtol=0)


def test_blue_noise_is_white_far_from_the_data_and_rises_with_the_wave_number_near_it():
    process = make("blue_noise")
    weights = process.std(TIMES) / make("flow").std(TIMES)
    assert_close(weights[-1], torch.ones_like(weights[-1]), atol=1e-12, rtol=0)
    waves = process.basis.eigenvalues.sqrt()
    slope = weights[0, 0] / waves
    assert slope[waves > 0].std() / slope[waves > 0].mean() < 0.02
    gamma = (torch.sigmoid(3 * TIMES / 0.2) - 0.5) / (torch.sigmoid(torch.tensor(3 / 0.2)) - 0.5)
    b = make("blue_noise", colour={"tau": 1e3}).std(1e-9 * TIMES[:1])[0, 0] / (1e-9 * TIMES[0])
    assert_close(weights[2, 0], gamma[2] + (1 - gamma[2]) * b, atol=1e-6, rtol=0)
    assert process.is_markov


def test_equal_snr_keeps_the_spectrum_of_the_data_at_every_time():
    """Falck et al. 2025: with S the data's spectrum, Var u_t = S, and E[u_0 | u_t] = a u_t, of variance S s^2."""
    spectrum = 0.1 / (1 + make("equal_snr", (1, 8, 8)).basis.eigenvalues)[None]
    process = make("equal_snr", (1, 8, 8))
    eps = torch.randn(4000, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    process.prepare(Fields(process.basis.inverse(spectrum.sqrt() * eps)))
    measured = process.colour.weights**2
    assert_close(measured, spectrum, rtol=0.15, atol=0)
    assert process.state_dict().keys() == {"colour.weights"}
    other = make("equal_snr", (1, 8, 8))
    other.load_state_dict(process.state_dict())
    assert torch.equal(other.std(TIMES), process.std(TIMES))
    oracle = GaussianOracle(process, DataSpec((1, 8, 8), boundary="periodic", variances=measured))
    assert oracle.diagonal
    a, u = process.gain(TIMES), torch.randn(5, 1, 8, 8).double()
    assert_close(oracle.variance(TIMES), measured.expand(5, 1, 8, 8), atol=1e-14, rtol=0)
    assert_close(oracle.posterior_mean(u, TIMES), a * u, atol=1e-12, rtol=0)
    assert_close(oracle.posterior_variance(TIMES), (1 - a**2) * measured, atol=1e-14, rtol=0)


# bases ---------------------------------------------------------------------------------------------------------------------


BASES = {"blocks": block_cosine(8, 12, 4), "haar": Haar(8, 12), "random": random(8, 12)}


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bases_are_orthonormal_whatever_autocast_says(name, dtype):
    basis, u = BASES[name], torch.randn(3, *SHAPE, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        c = basis(u)
        assert c.dtype == dtype
        assert_close(basis.inverse(c), u, atol=1e-5 if dtype == torch.float32 else 1e-13, rtol=0)
    assert_close(c.norm(), u.norm(), rtol=1e-5, atol=0)


def test_haar_takes_averages_of_blocks_and_differences_of_their_halves():
    basis, u = BASES["haar"], torch.randn(1, 1, 8, 12).double()
    c = basis(u)
    assert_close(c[..., :2, :3], 4 * torch.nn.functional.avg_pool2d(u, 4), atol=1e-13, rtol=0)
    pair = (u[0, 0, 0, 0] + u[0, 0, 1, 0] - u[0, 0, 0, 1] - u[0, 0, 1, 1]) / 2
    assert_close(c[0, 0, 0, 6], pair, atol=1e-13, rtol=0)
    assert (basis.eigenvalues == 0).sum() == 6 and basis.eigenvalues.max() == 2 * (math.pi / 2) ** 2


def test_a_block_of_1_is_pixels_and_one_as_large_as_the_field_is_its_cosines():
    u = torch.randn(1, 8, 8).double()
    assert torch.equal(block_cosine(8, 8, 1)(u), Pixel()(u))
    assert_close(block_cosine(8, 8, 8)(u), Cosine(8, 8)(u), atol=1e-15, rtol=0)
    assert torch.equal(block_cosine(8, 8, 8).eigenvalues, Cosine(8, 8).eigenvalues)


def test_a_random_basis_comes_from_its_seed_and_is_in_the_checkpoint():
    assert torch.equal(random(4, 6, seed=1).rows, random(4, 6, seed=1).rows) and not torch.equal(
        random(4, 6, seed=1).rows, random(4, 6).rows
    )
    process = make("flow", parts={"basis": "random"})
    assert set(process.state_dict()) == {"basis.rows", "basis.columns"}


# exact answers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_exact_answers_take_any_pair_of_bases(name, boundary):
    """Those of coefficients against those of a matrix over all pixels."""
    shape = (1, 4, 8)
    process = make(name, shape, parts={"colour": "power"} if name == "composed" else {})
    spectrum = 0.05 + torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    oracle = GaussianOracle(process, DataSpec(shape, boundary=boundary, variances=spectrum))
    u, t = torch.randn(2, *shape).double(), process.times[[3, 10]]
    got = oracle.posterior_mean(u, t)
    pixels = torch.eye(32, dtype=torch.float64).reshape(-1, *shape)
    covariance = oracle.basis.inverse(spectrum * oracle.basis(pixels)).flatten(1)
    for one, row, time in zip(u, got, t, strict=True):
        A = process.mean(pixels, time.expand(32)).flatten(1).mT
        L = process.scale_coefficients(pixels, process.std(time.expand(32))).flatten(1).mT
        exactly = covariance @ A.mT @ torch.linalg.solve(A @ covariance @ A.mT + L @ L.mT, one.flatten())
        assert_close(row.flatten(), exactly, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"relay"}))
def test_ancestral_steps_with_the_exact_denoiser_end_in_the_spectrum_of_the_data(name):
    """Also where the map loses waves; relay's blocks are not the waves of the data."""
    shape, n = (1, 4, 8), 1500
    process = make(name, shape, num_levels=12)
    boundary = "periodic" if isinstance(process.basis, Fourier) else "neumann"
    spectrum = 0.05 + torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = Oracle(process, torch.nn.Identity(), ancestral, None)
    model.oracle = GaussianOracle(process, DataSpec(shape, boundary=boundary, variances=spectrum))
    torch.manual_seed(0)
    u0 = model.oracle.basis.inverse(spectrum.sqrt() * torch.randn(n, *shape).double())
    sampled = ancestral(model, process.perturb(u0, process.times[-1:].expand(n)), process.times)
    ratio = model.oracle.basis(sampled).square().mean(0) / spectrum
    assert (ratio - 1).abs().max() < 5 * (2 / n) ** 0.5


# what does not go together -------------------------------------------------------------------------------------------------

REFUSED = {  # a preset, other parts, options -> what the sentence says
    (
        "flow",
        "colour=power",
        "",
    ): r"^forward\.colour needs a basis with waves, which forward=flow has not; use forward/basis=",
    ("flow", "blur=sine,basis=random", ""): r"^forward\.blur needs a basis with waves",
    ("hdfm", "basis=pixel", ""): r"^forward\.scale needs a basis with waves",
    ("spectral_noise", "", "colour.exponent=-80"): r"^forward=spectral_noise leaves some coefficient .* nearer to white",
    ("spectral_noise", "", "colour.exponent=1e308"): r"^forward=spectral_noise leaves some coefficient",
    ("spectral_noise", "", "colour.exponent=.inf"): r"^forward\.colour\.exponent must be a number",
    ("spectral_noise", "colour=two_band", "colour.gamma_high=0"): r"^forward\.colour\.gamma_high must be a number greater",
    ("spectral_noise", "colour=two_band", "colour.gamma_low=-1"): r"^forward\.colour\.gamma_low must be",
    ("spectral_noise", "colour=two_band", "colour.gamma_high=1e-9"): r"leaves some coefficient less than",
    ("spectral_noise", "colour=two_band", "colour.cutoff=1"): r"^forward\.colour\.cutoff must be",
    ("spectral_noise", "colour=matern", "colour.length=0"): r"^forward\.colour\.length must be",
    ("spectral_noise", "colour=matern", "colour.nu=1e9"): r"^forward\.colour\.nu must be a number",
    ("spectral_noise", "colour=matern", "colour.length=1e5,colour.nu=50"): r"leaves some coefficient less than",
    ("spectral_noise", "colour=matern", "colour.length=1e300"): r"^forward\.colour\.length must be",
    ("blur_vp", "", "blur.sigma_max=1e200"): r"^forward\.blur\.sigma_max must be",
    ("warm", "", "blur.ratio=1e200"): r"^forward\.blur\.ratio must be",
    ("edm", "", "levels.sigma_max=1e200"): r"^forward\.levels\.sigma_max must be",
    ("flow", "", "noise_scale.factor=1e200"): r"^forward\.noise_scale\.factor must be",
    ("blue_noise", "", "colour.exponent=-1"): r"^forward\.colour\.exponent must be a number greater than 0",
    ("blue_noise", "", "colour.tau=0"): r"^forward\.colour\.tau must be",
    ("equal_snr", "", "colour.normalise=1"): r"^forward\.colour\.normalise must be true or false",
    ("variance_preserving", "", "scale.schedule=cosin"): r"^forward\.scale\.schedule must be one of .*did you mean cosine",
    ("variance_preserving", "", "noise_scale.factor=0"): r"^forward\.noise_scale\.factor must be",
    ("variance_preserving", "", "noise_scale.of=both"): r"^forward\.noise_scale\.of must be one of scale, gain",
    ("variance_preserving", "scale=", ""): r"^forward/noise_scale=preserving needs a scale; choose forward/scale",
    ("warm", "noise_scale=preserving,scale=flow", "noise_scale.of=gain"): r"^forward/blur=noise follows the noise",
    ("warm", "", "blur.ratio=-1"): r"^forward\.blur\.ratio must be",
    ("blur_vp", "scale=", ""): r"^forward=blur_vp leaves some coefficient .*noise_scale that does not follow",
    ("blur_vp", "", "blur.d_min=2"): r"^forward\.blur\.d_min must be",
    ("blur_vp", "", "blur.exponent=0.5"): r"^forward\.blur\.exponent must be",
    ("scale_space", "", "blur.levels=5"): r"^forward\.blur\.levels=5 of forward=scale_space .* use at most 4\.",
    ("scale_space", "", "blur.levels=1"): r"^forward\.blur\.levels must be",
    ("scale_space", "", "blur.exponent=0"): r"^forward\.blur\.exponent must be",
    ("relay", "", "basis.size=3"): r"^forward\.basis\.size=3 must divide both sides of fields of 8 x 12 pixels\.",
    ("relay", "", "noise_scale.share=1"): r"^forward\.noise_scale\.share must be",
    ("flow", "basis=haar", "basis.levels=3"): r"^forward\.basis\.levels=3 needs sides that are multiples of 8, not 8 x 12",
    ("flow", "basis=random", "basis.seed=-1"): r"^forward\.basis\.seed must be",
    ("hdfm", "", "scale.dissipation=-1"): r"^forward\.scale\.dissipation must be",
    ("edm", "", "levels.sigma_max=0.001"): r"^forward\.levels\.sigma_max must be greater than sigma_min = 0\.001",
    ("edm", "", "num_levels=1"): r"^forward\.num_levels must be a whole number of at least 2",
    ("flow", "", "num_levels=0"): r"^forward\.num_levels must be",
    ("flow", "", "name=../x"): r"^forward\.name must be a name",
}


@pytest.mark.parametrize("case", REFUSED, ids=" ".join)
def test_what_does_not_go_together_is_refused_in_one_sentence(case):
    name, parts, options = case
    chosen = {part: option or None for part, _, option in (word.partition("=") for word in parts.split(",") if word)}
    with pytest.raises(ConfigError, match=REFUSED[case]) as caught:
        make(name, parts=chosen, **OmegaConf.to_container(OmegaConf.from_dotlist(options.split(",") if options else [])))
    assert "\n" not in str(caught.value)


def test_a_part_that_is_no_part_and_images_that_are_all_the_same_are_refused():
    node = OmegaConf.create(
        {"forward": OmegaConf.merge(shipped("forward", "flow"), {"colour": "pink", "shape": SHAPE, "num_levels": 3})}
    )
    with pytest.raises(ConfigError, match=r"^forward\.colour is a part with options of its own, not 'pink'"):
        check_options(node)
    with pytest.raises(
        ConfigError, match=r"^forward=composed needs forward\.noise_scale; choose it with forward/noise_scale=NAME"
    ):
        Composed(SHAPE, basis=Cosine)
    with pytest.raises(
        ConfigError, match=r"^forward\.blur has options and no name; choose forward/blur=NAME too"
    ):  # ~forward/blur
        Composed(SHAPE, lambda t, process: t, Cosine, blur={"ratio": 1.0})
    with pytest.raises(ConfigError, match=r"^forward=equal_snr needs training images that differ"):
        make("equal_snr").prepare(Fields(torch.full((5, *SHAPE), 0.25)))


def test_an_old_run_of_blurring_is_the_map_that_it_was():
    process = make("composed", parts={"scale": "log_snr", "blur": "sine"})
    same = Blurring(SHAPE, 10)
    for method in ("gain", "std", "rate", "diffusion"):
        assert torch.equal(getattr(process, method)(process.times), getattr(same, method)(same.times))
    assert shipped_map("blurring", SHAPE, 10).name == same.name == "blurring" and not same.state_dict()


# commands ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_measures_the_spectrum_of_its_data_and_its_checkpoint_brings_it_back(tmp_path, capfd, monkeypatch):
    small = ["data=digits", "data.limit=60", "forward=equal_snr", "forward.num_levels=4", "trainer.accelerator=cpu"]
    run = tmp_path / "run"
    train = ["model=diffusion", "net=mlp", *small, "trainer.max_steps=2", f"hydra.run.dir={run}"]
    assert call("train", *train) == 0
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    weights = state["process.colour.weights"]
    assert 0.05 < weights.square().mean().sqrt() < 0.5 and weights.std() > 0.01
    monkeypatch.setattr("heatgen.forward.colour.Data.prepare", None)  # is not called again
    assert call("sample", f"run={run}", "n=2", "trainer.accelerator=cpu") == 0
    assert call("train", f"resume={run}", "trainer.max_steps=3") == 0
    monkeypatch.undo()
    assert call("evaluate", "run=null", "mode=forward", *small[:-1], "trainer.accelerator=cpu") == 0
    assert "equal_snr" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("words", [["forward=flow", "forward/basis=haar"]], ids=str)
def test_the_oracle_is_exact_for_gaussian_fields(words, tmp_path, capfd):
    run = tmp_path / "run"
    small = [
        "data.resolution=8",
        "data.train_size=300",
        "data.val_size=20",
        "forward.num_levels=5",
        "trainer.accelerator=cpu",
    ]
    assert call("train", "model=oracle", "data=grf", *words, *small, f"hydra.run.dir={run}") == 0
    assert call("evaluate", f"run={run}", "mode=reconstruction", "n=20", "trainer.accelerator=cpu") == 0
    assert capfd.readouterr().out
