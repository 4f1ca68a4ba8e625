"""Checkpoints of the papers' own code, made here from their layout: what they draw, and what is said of damaged ones."""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import call
from scipy.fft import dctn, idctn
from torch import Tensor, nn

import heatgen
from heatgen.app import cli
from heatgen.app.foreign_ihd import network_of, ours, published_of
from heatgen.check import ConfigError
from heatgen.net.unet import UNet
from heatgen.noise import SampleNoise

SMALL = ["data=digits", "forward.num_levels=6", "forward.sigma_max=5", "forward.sigma_min=0.5"]
SIZES = {"channels": 1, "width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (1,)}
MNIST = {"channels": 1, "width": 128, "multipliers": (1, 2, 2), "blocks": 4, "attention": (2,)}
CIFAR = {"channels": 3, "width": 128, "multipliers": (1, 2, 2, 2), "blocks": 4, "attention": (2, 3)}


# inverse heat dissipation: its U-Net and its loop, restated --------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, embedding: int):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outputs))
        last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(32, outputs), nn.SiLU(), nn.Dropout(0.1), last)
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(embedding)[..., None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Attending(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(32, channels), nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        flat = x.flatten(2)
        q, k, v = self.qkv(self.norm(flat)).split(x.shape[1], dim=1)
        weight = torch.einsum("bct,bcs->bts", q, k) / x.shape[1] ** 0.5
        return x + self.proj_out(torch.einsum("bts,bcs->bct", weight.softmax(-1), v)).reshape(x.shape)


class Halved(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        return self.op(x)


class Doubled(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class Theirs(nn.Module):
    def __init__(self, channels: int, width: int, multipliers: tuple[int, ...], blocks: int, attention: tuple[int, ...]):
        super().__init__()
        self.width = width
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(channels, width, 3, padding=1)])])
        now, sizes, last = width, [width], len(multipliers) - 1

        def stage(inputs: int, level: int) -> list[nn.Module]:
            outputs = width * multipliers[level]
            return [Residual(inputs, outputs, 4 * width), *([Attending(outputs)] if level in attention else [])]

        for level, times in enumerate(multipliers):
            for _ in range(blocks):
                self.input_blocks.append(nn.ModuleList(stage(now, level)))
                now = width * times
                sizes.append(now)
            if level < last:
                self.input_blocks.append(nn.ModuleList([Halved(now)]))
                sizes.append(now)
        self.middle_block = nn.ModuleList([Residual(now, now, 4 * width), Attending(now), Residual(now, now, 4 * width)])
        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for number in range(blocks + 1):
                layers = stage(now + sizes.pop(), level)
                now = width * multipliers[level]
                self.output_blocks.append(nn.ModuleList([*layers, *([Doubled(now)] if level and number == blocks else [])]))
        self.out = nn.Sequential(nn.GroupNorm(32, now), nn.SiLU(), nn.Conv2d(now, channels, 3, padding=1))

    def forward(self, x: Tensor, k: int) -> Tensor:
        half = self.width // 2
        angles = k * 10000.0 ** (-torch.arange(half) / half)
        embedding = self.time_embed(torch.cat([angles.cos(), angles.sin()])[None].expand(len(x), -1))
        h, kept = self.input_blocks[0][0](x), []
        kept.append(h)
        for block in self.input_blocks[1:]:
            for layer in block:
                h = layer(h, embedding)
            kept.append(h)
        for layer in self.middle_block:
            h = layer(h, embedding)
        for block in self.output_blocks:
            h = torch.cat([h, kept.pop()], 1)
            for layer in block:
                h = layer(h, embedding)
        return self.out(h)


def checkpoint(path: Path) -> Theirs:
    """Write a checkpoint as their code does, with weights drawn at random; the network with its averages."""
    torch.manual_seed(0)
    net, averaged = Theirs(**SIZES), Theirs(**SIZES).eval()
    for one in (net, averaged):
        for weight in one.parameters():
            nn.init.normal_(weight, 0.3 if weight.dim() == 1 else 0, 0.04)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)
    for group in optimizer.param_groups:
        group["lr"] = 2e-4 * np.minimum(7 / 5000, 1.0)
    shadow = [weight.detach().clone() for weight in averaged.parameters()]
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": shadow}
    model = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"optimizer": optimizer.state_dict(), "model": model, "step": 7, "ema": ema}, path)
    return averaged


def blurred(u0: Tensor, width: float) -> Tensor:
    frequencies = np.pi * np.arange(u0.shape[-1]) / u0.shape[-1]
    decay = np.exp(-(frequencies[:, None] ** 2 + frequencies**2) * width**2 / 2)
    axes = (-2, -1)
    return torch.from_numpy(
        idctn(decay * dctn(u0.double().numpy(), axes=axes, norm="ortho"), axes=axes, norm="ortho")
    ).float()


def command(*words: str) -> int:
    """Run heatgen with arguments in this process; its exit code."""
    old, sys.argv = sys.argv, ["heatgen", *words]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = old
    return 0


@pytest.mark.slow
@torch.no_grad()
def test_an_imported_checkpoint_draws_what_its_own_loop_draws(tmp_path: Path) -> None:
    path, out, delta = tmp_path / "checkpoint_1.pth", tmp_path / "run", 0.0125
    net = checkpoint(path)
    assert command("import", str(path), *SMALL, "--out", str(out)) == 0
    run = heatgen.load(out, device="cpu")
    found = run.sample(n=5, seed=3).tensor
    rng = SampleNoise(range(5), 3, "sample")
    u = blurred(run.data.prior_images(range(5), 3), width=5.0)
    u = mean = u_K = u + delta * rng.normal_like(u)
    for k in range(6, 0, -1):
        mean = u + net(u, k)
        u = mean + delta * rng.normal_like(u) if k > 1 else mean
    assert (mean - u_K).abs().mean() > 0.1 and (found - mean).abs().max() < 1e-4
    assert call("evaluate", f"run={out}", "mode=elbo", "n=8", "metric.levels=2", "trainer.accelerator=cpu") == 0
    assert call("sample", f"run={out}", "n=2", "weights=raw", "sampler=ancestral", "trainer.accelerator=cpu") == 0
    assert (out / "overrides.txt").read_text().startswith("net.model_channels=32 ")


@pytest.mark.parametrize(
    ("sizes", "shape", "parameters", "experiment"),
    [(MNIST, (1, 28, 28), 42_082_049, "ihd_mnist"), (CIFAR, (3, 32, 32), 61_060_867, "ihd_cifar10")],
    ids=["mnist", "cifar10"],
)
def test_a_published_network_is_known_by_its_weights_name_by_name(
    sizes: dict[str, Any], shape: tuple[int, ...], parameters: int, experiment: str
) -> None:
    with torch.device("meta"):
        theirs = Theirs(**sizes).state_dict()
        own = UNet(shape, sizes["width"], sizes["multipliers"], sizes["blocks"], sizes["attention"])
    channels, network = network_of(theirs, Path("x"))
    assert sum(weight.numel() for weight in theirs.values()) == parameters
    assert {ours(name, theirs): weight.shape for name, weight in theirs.items()} == {
        name: weight.shape for name, weight in own.state_dict().items()
    }
    data = experiment.removeprefix("ihd_")
    assert published_of(channels, network, {"data": f"data={data}"}, Path("x")) == [f"experiment={experiment}"]


# score matching with physics: its network, restated on a whole periodic box ----------------------------------------------

LAYERS = {"conv2_d": (4, 4, 2, 32), "conv2_d_11": (1, 1, 32, 1), "conv2_d_12": (5, 5, 32, 1)}
LAYERS |= {f"conv2_d_{i}": (4, 4, 32, 32) for i in range(1, 11)} | {"conv2_d_transpose": (4, 4, 32, 1)}
LAYERS |= {f"conv2_d_transpose_{i}": (4, 4, 32, 32) for i in range(1, 11)}


def released() -> dict[str, dict[str, np.ndarray]]:
    """Weights in the layout of the released file, drawn at random."""
    rng = np.random.default_rng(0)
    sizes = {name: shape[2] if "transpose" in name else shape[3] for name, shape in LAYERS.items()}
    found = {}
    for name, shape in LAYERS.items():
        fan = np.prod(shape[:2]) * shape[3 if "transpose" in name else 2]
        bias = 0.1 * rng.standard_normal((sizes[name], 1, 1))
        weight = rng.standard_normal(shape) / fan**0.5
        found[name] = {"w": weight.astype(np.float32), "b": bias.astype(np.float32)}
    return found


def pickled(content: object) -> bytes:
    """As NumPy 1 wrote it."""
    return pickle.dumps(content, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def their_score(layers: dict[str, dict[str, np.ndarray]], u: Tensor, t: float) -> Tensor:
    def apply(name: str, x: Tensor) -> Tensor:
        weight, bias = (torch.from_numpy(layers[name][key]).double() for key in ("w", "b"))
        size = weight.shape[0]
        low = {1: 0, 5: 2}.get(size, 2 if "transpose" in name else 1)
        kernel = weight.permute(2, 3, 0, 1) if "transpose" in name else weight.permute(3, 2, 0, 1)
        high = size - 1 - low
        return F.conv2d(F.pad(x, (low, high, low, high), mode="circular"), kernel, bias.flatten())

    def block(name: str, number: int, x: Tensor) -> Tensor:
        for i in (2 * number - 1, 2 * number):
            x = F.leaky_relu(apply(f"{name}_{i}", x), 0.01)
        return x

    h, kept = apply("conv2_d", torch.cat([u, torch.full_like(u, t)], 1)), []
    for number in range(1, 6):
        h = h + block("conv2_d", number, h)
        kept.append(h)
    d = apply("conv2_d_transpose", apply("conv2_d_11", h))
    for number in (1, 2):
        d = d + block("conv2_d_transpose", number, d)
    d = d + kept[2]
    d = d + block("conv2_d_transpose", 4, d)
    return apply("conv2_d_12", block("conv2_d_transpose", 5, d))


@pytest.mark.slow
@torch.no_grad()
def test_the_released_weights_give_half_their_score_in_our_units_of_time(tmp_path: Path) -> None:
    path, out, layers = tmp_path / "released.p", tmp_path / "run", released()
    path.write_bytes(pickled(layers))
    few = ["data.train_size=8", "data.val_size=4", "data.test_size=4"]
    assert command("import", str(path), *few, "--out", str(out)) == 0
    run = heatgen.load(out, device="cpu")
    u = run.data.get("test", range(4))
    for level in (1, 20, 32):
        t = 0.2 * level / 32
        found, expected = run.model.score(u, torch.full((4,), t).double()), their_score(layers, u.double(), t) / 2
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert call("evaluate", f"run={out}", "mode=reconstruction", "n=2", "metric.draws=1", "trainer.accelerator=cpu") == 0


# files that are none -----------------------------------------------------------------------------------------------------


class Trap:
    """A pickle of it makes a folder where it is read carelessly."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return os.mkdir, (os.environ["TRAP"],)


def changed(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    checkpoint(path)
    state = torch.load(path, weights_only=False)
    edit(state)
    torch.save(state, path)


def wider(state: dict[str, Any]) -> None:
    state["model"]["module.middle_block.1.qkv.weight"] = torch.zeros(99, 64, 1)


def renamed(state: dict[str, Any]) -> None:
    state["model"] = {name.replace("in_layers", "inner"): tensor for name, tensor in state["model"].items()}


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda path: None, "is no file"),
    "text": (lambda path: path.write_text("weights"), "is neither a checkpoint of PyTorch nor a pickle"),
    "cut short": (lambda path: (checkpoint(path), os.truncate(path, path.stat().st_size // 2)), "is cut short"),
    "code": (lambda path: torch.save({"model": Trap(), "ema": {}, "step": 1}, path), "cut short or not a checkpoint"),
    "no ema": (lambda path: changed(path, lambda state: state.pop("ema")), "lacks averages (ema) of its"),
    "few averages": (lambda path: changed(path, lambda state: state["ema"]["shadow_params"].pop()), "lacks averages"),
    "other names": (lambda path: changed(path, renamed), "does not hold the U-Net of inverse heat dissipation"),
    "another size": (lambda path: changed(path, wider), "net.middle.0.attention.qkv.weight is [99, 64, 1] float32 there"),
    "weights alone": (lambda path: torch.save(Theirs(**SIZES).state_dict(), path), "holds no weights (model) and step"),
    "a list": (lambda path: torch.save([1], path), "does not hold what a training saves"),
    "pickled code": (lambda path: path.write_bytes(pickled({"conv2_d": Trap()})), "names posix.mkdir, which is not run"),
    "half a pickle": (lambda path: path.write_bytes(pickled(released())[:9000]), "cut short or no pickle of arrays"),
    "other layers": (
        lambda path: path.write_bytes(pickled({"w": released()["conv2_d"]})),
        "released network (conv2_d is missing)",
    ),
    "objects": (lambda path: path.write_bytes(pickled({"w": {"w": np.array([None])}})), "other numbers than floats"),
    "a number": (lambda path: path.write_bytes(pickled(3)), "no pickle of arrays alone (it holds other things)"),
    "an old checkpoint": (
        lambda path: torch.save({"step": 1}, path, _use_new_zipfile_serialization=False),
        "is of PyTorch before 1.6; torch.load it",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_wrong_file_is_told(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path, trap = tmp_path / "file", tmp_path / "trap"
    monkeypatch.setenv("TRAP", str(trap))
    make, sentence = WRONG[wrong]
    make(path)
    assert command("import", str(path), *SMALL, "--out", str(tmp_path / "run")) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert sentence in line and not trap.exists() and not (tmp_path / "run").exists()


def test_what_a_file_does_not_say_is_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checkpoint.pth"
    checkpoint(path)
    for words, sentence in {
        (): "give data=VALUE, forward.num_levels=VALUE, forward.sigma_max=VALUE, as it was trained.",
        (*SMALL[:1], "--kind", "smdp"): "no pickle of arrays",
        (*SMALL, "data=cifar10"): "(net.in_conv.weight is [32, 1, 3, 3] float32 there and [32, 3, 3, 3]",
        ("digits",): "digits is no setting; give KEY=VALUE",
    }.items():
        assert command("import", str(path), *words) == 1
        assert sentence in capfd.readouterr().err
    with torch.device("meta"):
        channels, network = network_of(Theirs(1, 128, (1, 2, 2), 4, (2,)).state_dict(), path)
    with pytest.raises(ConfigError, match=r"may be of ihd_fashion_mnist or ihd_mnist; say which"):
        published_of(channels, network, {}, path)
    assert published_of(channels, network, {"data": "data=mnist"}, path) == ["experiment=ihd_mnist"]
