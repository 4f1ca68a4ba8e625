"""The likelihood along the probability flow, against densities that are known."""

import math
from types import SimpleNamespace

import pytest
import torch
from gaussian_toys import exact_model, gaussian, normal
from torch.distributions import Independent, MultivariateNormal, Normal

from heatgen.check import ConfigError
from heatgen.data.images import Pixels
from heatgen.data.module import DataModule, DataSpec
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.heat_kernel import HeatKernel
from heatgen.forward.polynomial import Polynomial
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.metric.context import EvalContext
from heatgen.metric.flow import diffusion_squared, divergence, flow_field, integrate, kernel_density
from heatgen.metric.flow_likelihood import FlowLikelihood
from heatgen.model.diffusion import Diffusion
from heatgen.net.unet import UNet
from heatgen.noise import SampleNoise
from heatgen.runtime.devices import Devices

SHAPE = (1, 3, 3)
MAPS = [
    VarianceExploding(SHAPE, 20),
    HeatKernel(SHAPE, 8),
    StochasticHeat(SHAPE, 8),
    Heat(SHAPE, 8, sigma=0.05),
    ConstantVelocity(SHAPE, 8, sigma=0.05),
    Polynomial(SHAPE, 8, sigma=0.05, velocity=-1.2, acceleration=2.0),
]


class Toy(torch.nn.Module):
    """A model of no weights that is its score."""

    trainable = True
    physics_step = euler_step = print  # of a score, which is followed here without them

    def __init__(self, process, score, prior_std=None):
        super().__init__()
        self.process, self.score = process, score
        std = process.std(process.times[-1:])
        self.initial_std = lambda: std if prior_std is None else torch.full_like(std, prior_std)


def ctx(model, test, train=None, spec=None, **settings):
    sets = {"test": test, "train": test if train is None else train}
    data = SimpleNamespace(
        spec=spec or DataSpec(tuple(test.shape[1:]), bits=None),
        images=sets.get,
        get=lambda split, indices: sets[split][torch.as_tensor(indices)].float(),
    )
    settings = {"n": None, "batch_size": 1000, "seed": 0} | settings
    return EvalContext(model, data, "toy", Devices(accelerator="cpu"), **settings)


def known(process, n=6, **settings):
    """Gaussian fields and the model that knows their score."""
    spec = gaussian(process.shape, mean=0.4)
    model = exact_model(process, spec)
    return ctx(model, model.exactly.prior_sample(normal(), torch.zeros(n, *process.shape)), spec=spec, **settings)


def rows(metric, measured):
    """log p, log p_T and the exact log p of every sample."""
    prior, integral, exact, _ = metric._rows(measured, range(len(measured.data.images("test")))).unbind(1)
    return prior + integral, prior, exact


# closed forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("process", [MAPS[i] for i in (0, 2, 3, 5)], ids=lambda process: process.name)
def test_the_flow_of_gaussian_data_gives_its_log_density(process):
    measured = known(process)
    found, prior, exact = rows(FlowLikelihood(tolerance=1e-7), measured)
    u = measured.data.get("test", range(6)).double()
    start = torch.full((6,), 1e-4 * process.times[1].item(), dtype=torch.float64)
    assert torch.equal(exact, measured.model.exactly.log_prob(u, start))
    assert (found - exact).abs().max() < 1e-5
    assert (prior - exact).abs().min() > 0.1  # the integral is most of it


@pytest.mark.slow
def test_the_start_is_so_early_that_the_density_is_that_of_the_data():
    for process in (VarianceExploding(SHAPE, 20), HeatKernel(SHAPE, 100), StochasticHeat(SHAPE, 8)):
        measured = known(process)
        found, *_ = rows(FlowLikelihood(tolerance=1e-7), measured)
        spectrum = gaussian(SHAPE, mean=0.4).spectrum
        c = measured.model.exactly.basis(measured.data.get("test", range(6)).double())
        expected = Independent(Normal(torch.zeros_like(c), spectrum.sqrt()), 3).log_prob(c)
        assert (found - expected).abs().max() < 1e-3


def mixture(process):
    """Three Gaussians in the plane with covariances of their own: a model that knows the score, and log p_t."""
    means = torch.tensor([[-1.0, 0.3], [0.8, 0.9], [0.2, -1.1]], dtype=torch.float64)
    axes = torch.tensor([[[0.3, 0.1], [0.0, 0.2]], [[0.15, 0.0], [0.05, 0.4]], [[0.25, -0.1], [0.1, 0.2]]]).double()
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)

    def log_prob(x, t):
        variance = (process.std(t[:1]) ** 2).reshape(1, 1, 1)
        parts = MultivariateNormal(means, axes @ axes.mT + variance * torch.eye(2).double())
        return torch.logsumexp(weights.log() + parts.log_prob(x.reshape(-1, 1, 2)), 1)

    def score(u, t):
        variance = (process.std(t[:1]) ** 2).reshape(1, 1, 1)
        precision = torch.linalg.inv(axes @ axes.mT + variance * torch.eye(2).double())
        gap = u.reshape(-1, 1, 2) - means
        logs = weights.log() + 0.5 * torch.logdet(precision) - 0.5 * torch.einsum("bmi,mij,bmj->bm", gap, precision, gap)
        return -torch.einsum("bm,mij,bmj->bi", logs.softmax(1), precision, gap).reshape(u.shape)

    return Toy(process, score), log_prob, means, axes, weights


def draw_mixture(n, seed=0):
    _, _, means, axes, weights = mixture(HeatKernel((1, 1, 2), 4))
    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(weights, n, replacement=True, generator=generator)
    eps = torch.randn(n, 2, 1, generator=generator, dtype=torch.float64)
    return (means[which] + (axes[which] @ eps)[..., 0]).reshape(n, 1, 1, 2)


@pytest.mark.slow
def test_the_flow_of_a_mixture_gives_its_log_density():
    process = VarianceExploding((1, 1, 2), 20, sigma_max=20.0)
    model, log_prob, *_ = mixture(process)
    test = draw_mixture(40).float()
    found, prior, exact = rows(FlowLikelihood(), ctx(model, test, draw_mixture(3000, seed=1)))
    expected = log_prob(test.double(), torch.tensor([1e-4 * process.times[1].item()], dtype=torch.float64))
    assert exact.isnan().all()
    # the prior has 3000 points in place of the law; with the law at T the rest is exact
    field = flow_field(model, model.process, None)
    state, integral, _ = integrate(field, test.double(), 1e-4 * process.times[1].item(), process.times[-1].item(), 1e-6, 1.0)
    assert (log_prob(state, process.times[-1:]) + integral - expected).abs().max() < 1e-3
    assert (log_prob(state, process.times[-1:]) - prior).abs().max() < 0.01
    assert (found - expected).abs().max() < 0.01


@pytest.mark.slow
def test_a_wrong_score_gives_another_likelihood_and_the_integral_is_of_its_own_flow():
    """Score c times too strong under u_t = u_0 + sigma eps: a linear flow, whose end and divergence are closed forms."""
    process, c, variance = HeatKernel((1, 1, 2), 5, clock="constant"), 1.5, 0.3
    test = torch.randn(5, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    values = {}
    for factor in (1.0, c):
        model = Toy(process, lambda u, t: -factor * u / (variance + process.std(t) ** 2))
        found, *_ = rows(FlowLikelihood(tolerance=1e-9), ctx(model, test, torch.zeros(1, 1, 1, 2)))
        grown = ((variance + 1.0) / (variance + 1e-4 / 5)) ** (factor / 2)
        end = Independent(Normal(torch.zeros(1, 1, 2).double(), 1.0), 3).log_prob(grown * test.double())
        assert torch.allclose(found, end + 2 * math.log(grown), atol=1e-6)
        values[factor] = found
    assert (values[1.0] - values[c]).abs().min() > 0.01


def test_the_prior_is_the_kernel_density_of_the_training_images_at_level_k():
    process, train = StochasticHeat(SHAPE, 4), torch.randn(2100, *SHAPE, generator=torch.Generator().manual_seed(1))
    u = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for std in (None, 0.7):
        model = Toy(process, None, std)
        found = FlowLikelihood._prior(ctx(model, train[:5], train), u, process.times[-1].item())
        last = process.times[-1:]
        centres = process.basis(process.mean(train.double(), last.expand(2100)))
        parts = Independent(Normal(centres, model.initial_std()), 3).log_prob(process.basis(u)[:, None])
        assert torch.allclose(found, torch.logsumexp(parts, 1) - math.log(2100), atol=1e-8)
    one = kernel_density(torch.zeros(1, 4), torch.zeros(1, 4), torch.ones(1, 1)).item()
    assert one == pytest.approx(-2 * math.log(2 * math.pi))


def test_the_strength_of_the_score_is_the_square_of_the_diffusion_where_there_is_one_and_negative_where_not():
    for process in MAPS[:5]:
        t = process.times[1:-1]
        assert torch.allclose(diffusion_squared(process, t), process.diffusion(t).double() ** 2, rtol=1e-9)
    t = torch.tensor([0.75], dtype=torch.float64)
    growing = Polynomial(SHAPE, 4, sigma=0.1, velocity=-1.0, acceleration=2.0)
    assert diffusion_squared(growing, t).item() == pytest.approx(-2 * 0.5 / 0.8125 * 0.01)


# the divergence ---------------------------------------------------------------------------------------------------------


def probes(n, size, seed=0):
    return torch.stack(
        [
            1 - 2 * (SampleNoise(range(seed, seed + n), i, "probe").uniform_like(torch.zeros(n, 1, 1, size)) < 0.5).double()
            for i in range(40)
        ]
    )


def test_the_exact_divergence_is_the_trace_and_that_of_probes_is_unbiased():
    matrix = torch.randn(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = torch.randn(50, 1, 1, 20, dtype=torch.float64)
    value, trace = divergence(lambda x: x @ matrix.mT, u, None)
    assert torch.allclose(value, u @ matrix.mT) and torch.allclose(trace, matrix.trace().expand(50))
    _, guessed = divergence(lambda x: x @ matrix.mT, u, probes(50, 20))
    error = guessed.std().item() / 50**0.5
    symmetric = (matrix + matrix.mT) / 2
    spread = (2 * (symmetric - torch.diag(symmetric.diagonal())).square().sum()).item() ** 0.5 / 40**0.5
    assert guessed.std().item() == pytest.approx(spread, rel=0.4)
    assert abs(guessed.mean().item() - matrix.trace().item()) < 4 * error


def test_one_probe_is_exact_where_the_jacobian_is_diagonal_and_not_elsewhere():
    u = torch.randn(4, 1, 1, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    signs = probes(4, 7)[:1]
    _, found = divergence(lambda x: x**3, u, signs)
    assert torch.allclose(found, 3 * u.square().sum((1, 2, 3)))
    _, other = divergence(lambda x: x.roll(1, -1), u, signs)
    assert (other.abs() > 0.5).all()  # of 7 signs; the trace is 0


@pytest.mark.slow
def test_a_likelihood_by_probes_is_near_the_exact_one_and_the_same_again_whatever_the_batches():
    process = StochasticHeat(SHAPE, 8)
    measured = known(process, n=12)
    exact, _, _ = rows(FlowLikelihood(), measured)
    found, _, _ = rows(FlowLikelihood(divergence="hutchinson", probes=2), measured)
    error = (found - exact).std().item() / 12**0.5
    assert error > 1e-4 and abs((found - exact).mean().item()) < 4 * error
    whole = FlowLikelihood(divergence="hutchinson")(measured)
    cut = FlowLikelihood(divergence="hutchinson")(known(process, n=12, batch_size=7))
    assert cut.values == pytest.approx(whole.values, rel=1e-4)
    assert any("estimated" in note for note in whole.notes)
    assert whole.facts["divergence"] == "Hutchinson, 1 probe a sample"


@pytest.mark.slow
def test_the_score_of_a_network_with_attention_is_followed_in_its_own_precision():
    process = StochasticHeat((1, 2, 2), 4)
    torch.manual_seed(0)
    net = UNet((1, 2, 2), 4, (1,), 1, (0,), 0.0, norm_groups=1).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model = Diffusion(process, net, None, None)
    images = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found, *_ = rows(FlowLikelihood(tolerance=1e-4, start=0.5), ctx(model, images))
    reference, *_ = rows(FlowLikelihood(tolerance=1e-5, start=0.5), ctx(model.double(), images))
    assert (found - reference).abs().max() < 1e-2
    assert not any(parameter.grad is not None for parameter in model.parameters())


# the report -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_report_has_both_terms_and_the_exact_value_beside_them():
    measured = known(StochasticHeat(SHAPE, 8), n=12)
    result = FlowLikelihood()(measured)
    found, prior, exact = rows(FlowLikelihood(), measured)
    values, errors = result.values, result.errors
    assert next(iter(values)) == "log_likelihood"
    assert values["log_likelihood"] == pytest.approx(found.mean().item())
    assert values["log_likelihood_per_dim"] == pytest.approx(found.mean().item() / 9)
    assert values["log_prior"] == pytest.approx(prior.mean().item())
    assert values["divergence_integral"] == pytest.approx((found - prior).mean().item())
    assert values["exact_log_likelihood"] == pytest.approx(exact.mean().item())
    assert values["log_likelihood_gap"] < 1e-4
    assert errors["log_likelihood"] == pytest.approx(found.std().item() / 12**0.5)
    assert set(errors) == set(values) and result.facts["prior"] == "the exact law at T" and "likelihoods" in result.pictures
    few = FlowLikelihood()(subject_of(measured, n=5))
    assert few.facts["n"] == 5


def subject_of(measured, **changes):
    return EvalContext(**{**vars(measured), **changes})


@pytest.mark.slow
def test_bits_of_bytes_are_minus_nats_in_base_two_for_each_pixel_and_eight():
    """A score of N(1/2, v) at every t: the density of dequantised bytes under it is a closed form."""
    shape, variance = (1, 2, 2), 0.05
    process = VarianceExploding(shape, 20)
    model = Toy(process, lambda u, t: -(u - 0.5) / (variance + process.std(t) ** 2))
    model.exactly = SimpleNamespace(
        log_prob=lambda u, t: Independent(
            Normal(torch.full(shape, 0.5).double(), (variance + process.std(t) ** 2).sqrt()), 3
        ).log_prob(u)
    )
    images = torch.randint(0, 256, (9, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = DataModule(shape=list(shape))
    data.read = lambda split: Pixels(images)
    result = FlowLikelihood()(EvalContext(model, data, "bytes", Devices(accelerator="cpu"), None, 100, 0))
    u = (images.double() + SampleNoise(range(9), 0, "dequantise").uniform_like(images.double())) / 256
    nats = Independent(Normal(torch.full(shape, 0.5).double(), variance**0.5), 3).log_prob(u).mean().item()
    assert result.values["log_likelihood"] == pytest.approx(nats, abs=1e-4)
    assert next(iter(result.values)) == "nll"
    assert result.values["nll"] == pytest.approx(-nats / (4 * math.log(2)) + 8, abs=1e-4)
    factor = result.errors["nll"] / result.errors["log_likelihood"]
    assert factor == pytest.approx(1 / (4 * math.log(2)))


# refusals ---------------------------------------------------------------------------------------------------------------


def plain(u, t):
    return -u


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (None, "needs a run, of a model with a score"),
        (SimpleNamespace(process=MAPS[0]), "needs a score, which model="),
        (Toy(RandomMatrix(SHAPE, num_levels=3, sigma=0.1), plain), "cannot follow forward=random_matrix"),
        (Toy(RandomVelocity(SHAPE, num_levels=3, sigma=0.1), plain), "forward=random_velocity, which is drawn at random"),
        (Toy(RandomVelocity(SHAPE, 3, 0.1, conditional=False), plain), "forward=random_velocity, which is drawn at random"),
        (Toy(Polynomial(SHAPE, 4, 0.1, -3.0, 0.0), plain), r"whose A\(t\) passes through 0"),
        (Toy(Heat(SHAPE, 3, sigma=0), plain), r"needs noise at every level, where a score is defined; raise forward\.sigma"),
        (Toy(MAPS[2], plain, prior_std=0.0), "needs noise at every level"),
        (Toy(MAPS[2], lambda u, t: u / 0), "The probability flow is not finite at t = "),
    ],
)
def test_what_has_no_likelihood_is_refused(broken, sentence):
    with pytest.raises(ConfigError, match=sentence):
        FlowLikelihood()(ctx(broken, torch.randn(3, *SHAPE)))


def test_a_value_out_of_range_is_refused_by_its_key():
    for wrong in (
        *({"split": "all"}, {"divergence": "sliced"}, {"probes": 0}),
        *({"tolerance": 0}, {"tolerance": 1}, {"start": 0}, {"start": 2}),
    ):
        with pytest.raises(ConfigError, match=f"metric.{next(iter(wrong))}"):
            FlowLikelihood(**wrong)


def test_a_single_sample_has_no_standard_error():
    with pytest.raises(ConfigError, match="needs at least 2 samples"):
        FlowLikelihood()(known(StochasticHeat(SHAPE, 8), n=1))
