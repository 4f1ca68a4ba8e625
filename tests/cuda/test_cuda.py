"""What only a GPU can show: the same numbers there as on a CPU, in float32, bfloat16 and compiled. Skipped without one.

HEATGEN_CUDA_TESTS=cpu compares the CPU with itself, to see that the tests work. PyTorch draws dropout on the device, so it
is off here, and of the Bayesian network, which is nothing without it, only finite numbers are asked.
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from conftest import FORWARDS, ROOT, shipped_map
from torch import Tensor

from benchmarks import ours
from heatgen.app import batch
from heatgen.app.build import build
from heatgen.app.compose import compose
from heatgen.metric.flow import flow_field, integrate
from heatgen.model.module import Method
from heatgen.noise import SampleNoise
from heatgen.runtime import engine, graphs
from heatgen.runtime.devices import Devices

DEVICE = torch.device(os.environ.get("HEATGEN_CUDA_TESTS", "cuda"))
THERE = DEVICE.type == "cpu" or torch.cuda.is_available()
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not THERE, reason="needs a CUDA GPU")]
if "HEATGEN_CUDA_TESTS" not in os.environ and not THERE:
    DEVICE = torch.device("cpu")  # for what is made while tests are collected

CLOSE = 1e-4  # of the largest number: float32 after a network
SINGLE = ("hydra.mode=RUN", "evaluate=null", "publish=null")
TINY = ("data.recommended.unet.model_channels=8", "data.recommended.unet.norm_groups=4", "forward.num_levels=6")
DIGITS = (
    ("forward=heat",),
    ("forward=constant_velocity", "model.delta_mode=spectral"),
    ("forward=random_matrix",),
    ("model=diffusion",),
)
ROWS = [
    (*SINGLE, f"experiment={path.parent.name}", f"experiment/{path.parent.name}={path.stem}", "net.dropout=0")
    for folder in ("reconstruction", "neural_processes", "heat_kernel")
    for path in sorted((ROOT / "conf" / "experiment" / folder).glob("*.yaml"))
]
MODELS = [*(("data=digits", *TINY, "net.dropout=0", *words) for words in DIGITS), *ROWS]


@contextmanager
def exact() -> Iterator[None]:
    """float32 as it is on a CPU: without TF32."""
    matrices, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matrices, convolutions


def near(found: Tensor, expected: Tensor, tolerance: float = CLOSE, least: float = 1e-6) -> bool:
    """Whether two tensors differ by at most so much of the largest number, which counts as `least` at least."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=least))


def off(found: Tensor, expected: Tensor) -> float:
    """The relative error of a vector, |found - expected| / |expected|."""
    return float((found - expected).norm() / expected.norm())


def made(words: tuple[str, ...]) -> Method | None:
    """The trainable model of some words on the CPU; None for one that has nothing to train."""
    used = words
    if "net.dropout=0" in words and "dropout" not in compose(*[w for w in words if w != "net.dropout=0"]).net:
        used = tuple(word for word in words if word != "net.dropout=0")
    torch.manual_seed(0)
    model, data = build(compose(*used))
    if not model.trainable:
        return None
    if getattr(model, "privileged", "") == "shuffled":
        model.prepare(data)
    ours.fill(model.net.parameters())
    return model


def gradients(step: ours.Training) -> tuple[Tensor, Tensor]:
    """The first loss, and all gradients of it in one row."""
    loss = step.loss()
    loss.backward()  # type: ignore[no-untyped-call]
    found = torch.cat([p.grad.flatten().cpu() for p in step.parameters if p.grad is not None])
    step.optimizer.zero_grad()
    return loss.detach().cpu(), found


@pytest.mark.parametrize("words", MODELS, ids=lambda words: "-".join(words[-3:]))
def test_a_training_is_that_of_a_cpu_and_in_bfloat16_finite(words: tuple[str, ...]) -> None:
    model = made(words)
    if model is None:
        return
    u0, half = ours.images(4, model.process.shape, torch.device("cpu")), copy.deepcopy(model).to(DEVICE)
    with exact():
        here, there = ours.Training(copy.deepcopy(model), u0), ours.Training(model.to(DEVICE), u0.to(DEVICE))
        (loss, gradient), (its_loss, its_gradient) = gradients(here), gradients(there)
        losses = [torch.stack([step().cpu() for _ in range(2)]) for step in (here, there)]
    assert losses[1].isfinite().all()
    if "bayesian" not in " ".join(words):
        assert near(its_loss, loss, least=1.0)  # terms of order 1, which can cancel
        assert off(its_gradient, gradient) < 1e-2 and near(losses[1], losses[0], 1e-2, least=1.0)
    step = ours.Training(half, u0.to(DEVICE), "bf16-mixed")
    losses = [step() for _ in range(5)]
    assert torch.stack(losses).isfinite().all() and all(p.isfinite().all() for p in step.parameters)


@pytest.mark.parametrize("name", FORWARDS)
def test_a_map_is_that_of_a_cpu(name: str) -> None:
    for shape, levels in (((1, 8, 8), 5), ((3, 12, 8), 6)):
        try:
            process = shipped_map(name, shape, levels)
        except ValueError:  # a map for square fields
            continue
        there = copy.deepcopy(process).to(DEVICE)
        u, eps = torch.rand(4, *shape), torch.randn(4, *shape)
        draws = process.draw(SampleNoise(range(4), "x"))
        if draws is not None:
            process, there = process.bind(draws), there.bind(draws.to(DEVICE))
        k = torch.tensor([1, 2, levels - 1, levels])
        with exact():
            for one, other in (
                (process.mean(u, process.times[k]), there.mean(u.to(DEVICE), there.times[k.to(DEVICE)])),
                (
                    process.perturb(u, process.times[k], eps),
                    there.perturb(u.to(DEVICE), there.times[k.to(DEVICE)], eps.to(DEVICE)),
                ),
            ):
                assert other.device.type == DEVICE.type and near(other, one, 1e-5)


@pytest.mark.parametrize("sampler", ["ancestral", "sde", "ode", "heun"])
def test_samples_of_the_digits_are_those_of_a_cpu(sampler: str) -> None:
    kind = "ihd" if sampler == "ancestral" else "diffusion"
    model = made(("data=digits", *TINY, f"model={kind}", f"sampler={sampler}"))
    assert model is not None
    u = ours.images(4, model.process.shape, torch.device("cpu"))
    with exact(), torch.no_grad():
        expected = model.eval().generate(u, SampleNoise(torch.arange(4), 0, "sample"))
        there = model.to(DEVICE)
        found = there.generate(u.to(DEVICE), SampleNoise(torch.arange(4, device=DEVICE), 0, "sample"))
    assert near(found, expected, 1e-2)


def test_integers_are_the_same_on_every_device_and_normal_numbers_to_rounding() -> None:
    names = torch.arange(64) * 2**33 + 7
    here, there = SampleNoise(names, 3, "x"), SampleNoise(names.to(DEVICE), 3, "x")
    for _ in range(3):
        assert torch.equal(here.integers(1, 1000).cpu(), there.integers(1, 1000).cpu())
    u = torch.empty(64, 3, 9, 7)
    assert (here.normal_like(u) - there.normal_like(u.to(DEVICE)).cpu()).abs().max() < 1e-4
    assert torch.equal(here.uniform_like(u), there.uniform_like(u.to(DEVICE)).cpu())


def test_the_likelihood_along_the_flow_is_that_of_a_cpu() -> None:
    model = made(("model=heat_kernel_score", "data=gaussian_mixture"))
    assert model is not None
    model.eval()
    u = ours.images(8, model.process.shape, torch.device("cpu"))
    low, high = (float(model.process.times[i]) for i in (1, -1))
    found = []
    with exact(), torch.no_grad():
        for device in (torch.device("cpu"), DEVICE):
            own = model.to(device)
            field = flow_field(own, own.process, None)  # type: ignore[arg-type]
            found.append(integrate(field, u.to(device), low, high, 1e-4, 1.0)[1].cpu())
    assert near(found[1], found[0], 1e-2)


def test_a_compiled_network_is_the_eager_one() -> None:
    if DEVICE.type == "cuda" and (lack := engine.lacking(DEVICE)):
        pytest.skip(lack)
    model = made(("data=digits", *TINY, "net.dropout=0"))
    assert model is not None
    u = ours.images(4, model.process.shape, DEVICE)
    with exact():
        plain = ours.Training(copy.deepcopy(model).to(DEVICE), u)
        compiled = ours.Training(model.to(DEVICE), u)
        compiled.model.net.compile(backend="inductor" if DEVICE.type == "cuda" else "aot_eager")
        (loss, gradient), (its_loss, its_gradient) = gradients(plain), gradients(compiled)
    assert near(its_loss, loss) and near(its_gradient, gradient, 1e-3)
    assert set(compiled.model.state_dict()) == set(plain.model.state_dict())


@pytest.mark.skipif(DEVICE.type != "cuda", reason="only CUDA has graphs")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_captured_network_is_the_eager_one_for_every_shape_and_weights_that_change(
    dtype: torch.dtype, tolerance: float
) -> None:
    model = made(("data=digits", *TINY))
    assert model is not None
    plain = model.to(DEVICE).eval()
    graphed = copy.deepcopy(plain)
    graphs.capture_calls(graphed.net, DEVICE)
    with exact(), torch.no_grad():
        for turn, size in enumerate((4, 4, 3, 5, 4)):  # the third size is called as it is
            u, names = ours.images(size, plain.process.shape, DEVICE), torch.arange(size, device=DEVICE)
            with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):  # which keeps casts of weights
                expected, found = (one.generate(u, SampleNoise(names, turn, "sample")) for one in (plain, graphed))
            assert near(found, expected, tolerance)
            for p, q in zip(plain.net.parameters(), graphed.net.parameters(), strict=True):
                q.copy_(p.mul_(0.9))  # in place, as when other weights are loaded
    assert len(graphed.net.forward.known) == graphs.MOST  # type: ignore[union-attr]


@pytest.mark.skipif(DEVICE.type != "cuda", reason="a CPU has a fixed batch")
def test_the_memory_of_a_large_batch_is_that_which_two_small_ones_promise() -> None:
    model, data = build(compose("data=digits", *TINY))
    ours.fill(model.net.parameters())
    model.to(DEVICE).eval()
    devices, (first, second) = Devices("gpu"), batch.PROBES
    batch.used(model, data, devices, 0, first)
    low, high, found = (batch.used(model, data, devices, 0, size) for size in (first, second, 1024))
    assert 0.5 < found / (low + (high - low) * (1024 - first) / (second - first)) < 2
    size = batch.settle("auto", model, data, devices, 10**6, 0, None)
    assert size >= 1024 and batch.used(model, data, devices, 0, size) < torch.cuda.mem_get_info(DEVICE)[0]
