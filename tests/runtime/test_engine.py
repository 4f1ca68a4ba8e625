"""What auto chooses on a device, and what a device is refused."""

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SMALL
from omegaconf import OmegaConf
from torch import nn

from heatgen.app.load import precision_of, read_config
from heatgen.basis import exact
from heatgen.check import ConfigError
from heatgen.model.ssm import SSM
from heatgen.net.mlp import MLP
from heatgen.net.unet import UNet
from heatgen.runtime import engine
from heatgen.runtime.explain import explain
from heatgen.runtime.launch import DeviceRequest

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def unet(width: int) -> nn.Module:
    return UNet((1, 8, 8), width, (1, 2), 1, (1,), norm_groups=4)


@pytest.mark.parametrize(
    ("device", "native", "wide", "narrow"),
    [
        (CPU, True, "bf16-mixed", "32-true"),
        (CPU, False, "32-true", "32-true"),
        (GPU, True, "bf16-mixed", "32-true"),
        (GPU, False, "16-mixed", "32-true"),
    ],
)
def test_auto_is_16_bits_for_wide_networks_where_they_are_fast(
    device: torch.device, native: bool, wide: str, narrow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "has_bf16", lambda _: native)
    assert engine.precision_for(unet(32), device) == wide
    assert engine.precision_for(unet(8), device) == narrow
    assert engine.precision_for(MLP((2, 1, 1), 256), device) == narrow


def test_a_run_is_sampled_in_its_own_precision_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(engine, "has_bf16", lambda _, native=native: native)
        assert DeviceRequest("cpu", precision="auto").open("bf16-mixed").precision == expected
    assert DeviceRequest("cpu", precision="bf16-mixed").open("32-true").precision == "bf16-mixed"
    assert engine.inherited_precision("16-mixed", CPU) == engine.inherited_precision("64-true", CPU) == "32-true"
    assert engine.inherited_precision("16-mixed", GPU) == "16-mixed"


def test_bfloat16_on_a_gpu_without_it_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "has_bf16", lambda _: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
    with pytest.raises(ConfigError, match=r"^trainer\.precision=bf16-mixed .* Tesla V100, .*use 16-mixed or auto\.$"):
        engine.check_precision("bf16-mixed", GPU)
    engine.check_precision("16-mixed", GPU)


@pytest.mark.parametrize("command", [("train", *SMALL), ("sample", "trainer.accelerator=cpu")])
def test_half_precision_on_a_cpu_is_refused_in_one_sentence(
    command: tuple[str, ...], refused: Callable[..., str], small_run: Path, tmp_path: Path
) -> None:
    where = f"hydra.run.dir={tmp_path / 'run'}" if command[0] == "train" else f"run={small_run}"
    expected = "Error: trainer.precision=16-mixed is for a GPU alone; use trainer.precision=auto, or 32-true."
    assert refused(*command, where, "trainer.precision=16-mixed") == expected
    assert not (tmp_path / "run").exists()


def test_what_auto_chose_stands_in_the_run(small_run: Path) -> None:
    assert precision_of(read_config(small_run)) == "32-true"
    assert OmegaConf.load(small_run / "config.yaml").trainer.precision == "32-true"


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize(("old", "new"), [(True, "auto"), (False, "contiguous")])
def test_a_run_with_the_layout_of_before_still_loads(old: bool, new: str, trust: bool, own_run: Path) -> None:
    cfg = OmegaConf.load(own_run / "config.yaml")
    del cfg.net.memory_format
    cfg.net.channels_last = old
    OmegaConf.save(cfg, own_run / "config.yaml")
    net = read_config(own_run, trust).net
    assert net.memory_format == new and "channels_last" not in net


def test_exact_switches_tensorfloat32_off_and_puts_the_choice_of_the_user_back() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for setting in ("tf32", "ieee"):
            matmul.fp32_precision = setting
            with exact(GPU):
                assert matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert matmul.fp32_precision == setting
    finally:
        matmul.fp32_precision = before


def test_the_forward_derivative_is_the_same_in_either_layout() -> None:
    torch.manual_seed(0)
    nets = [UNet((1, 8, 8), 8, (1, 2), 1, (1,), 0.0, 4, memory_format=name) for name in ("channels_last", "contiguous")]
    for weight in nets[0].parameters():
        nn.init.normal_(weight, std=0.2)
    nets[1].load_state_dict(nets[0].state_dict())
    x, v, t = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8), torch.ones(2)
    slopes = []
    for net in nets:
        with engine.forward_mode(CPU):
            slopes.append(torch.func.jvp(lambda state, net=net: net(state, t), (x,), (v,))[1])
    assert slopes[0].abs().max() > 0.1
    torch.testing.assert_close(*slopes, atol=1e-4, rtol=1e-4)


def test_averages_that_were_laid_out_otherwise_are_laid_out_as_the_weights() -> None:
    weight = nn.Parameter(torch.randn(4, 4, 3, 3))
    optimizer = torch.optim.Adam([weight])
    weight.grad = torch.randn(4, 4, 3, 3)
    optimizer.step()
    state = optimizer.state[weight]
    before = state["exp_avg"].clone()
    state["exp_avg"] = before.contiguous(memory_format=torch.channels_last)
    engine.settle(optimizer)
    assert state["exp_avg"].is_contiguous() and torch.equal(state["exp_avg"], before)


def test_optimizers_are_fused_unless_they_are_told_or_weights_are_complex() -> None:
    class Made(torch.optim.SGD):
        _step_supports_amp_scaling = True

    given: list[dict[str, object]] = []

    def adam(weights: list[nn.Parameter], foreach: bool | None = None, fused: bool | None = None) -> Made:
        given.append({"foreach": foreach, "fused": fused})
        return Made(weights)

    weights, waves = [nn.Parameter(torch.zeros(2))], [nn.Parameter(torch.zeros(2, dtype=torch.complex64))]
    assert not engine.build_optimizer(functools.partial(adam), weights)._step_supports_amp_scaling  # type: ignore[attr-defined]
    engine.build_optimizer(functools.partial(adam, foreach=True), weights)
    engine.build_optimizer(functools.partial(adam), waves)
    assert [options["fused"] for options in given] == [True, None, None]
    engine.build_optimizer(lambda weights: Made(weights), weights)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_fused_optimizer_is_the_plain_one_and_takes_on_its_state(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    weights = [torch.randn(4, 4, 3, 3), torch.randn(5)]
    plain, other = ([nn.Parameter(w.to(memory_format=layout) if w.dim() == 4 else w.clone()) for w in weights] for _ in "ab")
    adam, fused = torch.optim.Adam(plain, lr=0.1), engine.build_optimizer(functools.partial(torch.optim.Adam, lr=0.1), other)
    assert fused.param_groups[0]["fused"]
    for step in range(6):
        for mine, its in zip(plain, other, strict=True):
            for weight in (mine, its):
                (weight**2 * torch.arange(weight.numel()).view(weight.shape)).sum().backward()
        for optimizer in (adam, fused):
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(plain, other)
        if step == 2:  # as when a run of before is resumed
            fused.load_state_dict(copy.deepcopy(adam.state_dict()))
            engine.settle(fused)


# compilation ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_unet_is_one_graph_with_the_names_and_numbers_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, twin = (UNet((1, 8, 8), 8, (1, 2), 1, (1,), 0.0, 4, conditional=True) for _ in range(2))
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.2)
    twin.load_state_dict(net.state_dict())
    given = (torch.randn(2, 1, 8, 8), torch.ones(2), torch.randn(2, 2))
    explained = torch._dynamo.explain(net)(*given)
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)
    monkeypatch.setattr(engine, "BACKEND", "aot_eager")
    monkeypatch.setattr(engine, "lacking", lambda _: "")
    assert engine.compile_net(net, True, CPU, 1)
    for one in (net, twin):
        one(*given).square().sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(net(*given), twin(*given))
    for mine, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-4, rtol=1e-4)
    assert list(net.state_dict()) == list(twin.state_dict())
    with engine.forward_mode(CPU):  # which a compiled graph has not
        slopes = [torch.func.jvp(lambda x, one=one: one(x, *given[1:]), given[:1], given[:1])[1] for one in (net, twin)]
    torch.testing.assert_close(*slopes)


def test_auto_compiles_what_is_called_often_on_a_gpu_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "lacking", lambda _: "")
    often, net = engine.CALLS, nn.Linear(1, 1)
    assert engine.compile_net(net, "auto", GPU, often)
    for wanted, device, calls, obstacle in (
        ("auto", CPU, often, ""),
        ("auto", GPU, often - 1, ""),
        ("auto", GPU, often, "it has no network"),
        (False, GPU, often, ""),
    ):
        assert not engine.compile_net(net, wanted, device, calls, obstacle)


def test_what_cannot_be_compiled_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str], small_run: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    expected = "compile=true cannot act, as it needs a C++ compiler, and no-such-compiler is not found; use compile=false."
    assert refused("sample", f"run={small_run}", "compile=true") == f"Error: {expected}"
    assert "compile must be true, false or auto" in refused("sample", f"run={small_run}", "compile=maybe")
    with pytest.raises(ConfigError, match=r"^compile=true cannot act, as model=ssm takes .*; use compile=false\.$"):
        engine.compile_net(nn.Linear(1, 1), True, CPU, 1, SSM.not_compiled)


def broken(graph: object, inputs: object) -> None:
    """A backend of a compiler that fails."""
    raise OSError(30, "Read-only file system", "/cache")


def test_a_compiler_that_breaks_is_found_before_a_run_begins(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str], tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "BACKEND", broken)
    expected = "the compiler of PyTorch fails here ([Errno 30] Read-only file system: '/cache')"
    said = refused("train", *SMALL, "compile=true", f"hydra.run.dir={tmp_path / 'run'}")
    assert said == f"Error: compile=true cannot act, as {expected}; use compile=false."
    assert not (tmp_path / "run").exists()
    told: list[str] = []
    monkeypatch.setattr(engine.log, "info", lambda text, *words: told.append(text % words))
    monkeypatch.setattr(engine, "lacking", lambda _: engine.failing(CPU))
    assert not engine.compile_net(nn.Linear(1, 1), "auto", GPU, engine.CALLS)
    assert told == [f"compile=auto chose false, as {expected}"]


def test_a_network_that_the_compiler_fails_on_ends_in_one_sentence() -> None:
    net = nn.Linear(1, 1)
    net.compile(backend=broken)
    with pytest.raises(RuntimeError) as caught:
        net(torch.zeros(1, 1))
    sentence = explain(caught.value)
    assert sentence is not None and sentence.startswith("The compiler of PyTorch fails on this network (")
    assert sentence.endswith("; use compile=false.")


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["CXX=/bin/false", "TORCHINDUCTOR_CACHE_DIR=/proc/none"])
def test_a_real_compiler_that_breaks_is_found(variable: str) -> None:
    code = "import torch; from heatgen.runtime import engine; print(engine.lacking(torch.device('cpu')))"
    environment = os.environ | dict([variable.split("=")])
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith("the compiler of PyTorch fails here (") and found.count("\n") == 1
