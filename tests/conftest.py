"""What all tests share: a small run, and the command line without a new process."""

import inspect
import os
import runpy
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tqdm import tqdm

from heatgen.net.neural_process import NeuralProcess
from heatgen.runtime import launch

ROOT = Path(__file__).resolve().parents[1]
os.environ["OMP_NUM_THREADS"] = "1"  # tensors of tests are small, and one thread gives the same bits in every process
torch.set_num_threads(1)
torch.ones(1, requires_grad=True).sum().backward()  # counts devices once: forks have no autograd after a pretend GPU

SMALL = [  # a network and a training that take seconds
    "data.recommended.unet.model_channels=8",
    "data.recommended.unet.norm_groups=4",
    "forward.num_levels=5",
    "net.dropout=0.2",
    "model.warmup_steps=3",
    "trainer.accelerator=cpu",
    "trainer.max_steps=12",
    "trainer.val_check_interval=4",
    "callback.pictures.n=4",
    "callback.checkpoints.every=4",
]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and data go to a folder of the test's own, Hydra starts afresh, and no bar of an earlier test is open."""
    monkeypatch.setenv("HEATGEN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HEATGEN_DATA", str(tmp_path / "data"))
    GlobalHydra.instance().clear()
    tqdm._instances.clear()


FORWARDS = sorted(path.stem for path in (ROOT / "conf" / "forward").glob("[!_]*.yaml"))


def shipped(group: str, name: str) -> Any:
    """conf/<group>/<name>.yaml on top of its bases, with the parts that it chooses."""
    parts: dict[str, str | None] = {}
    node = without_parts(group, name, parts)
    chosen = {part: shipped(f"{group}/{part}", option) for part, option in parts.items() if option is not None}
    return OmegaConf.merge(chosen, node)


def without_parts(group: str, name: str, parts: dict[str, str | None]) -> Any:
    """The values of a config and of its bases; the parts that they choose go into `parts`, those of the last choice."""
    node = OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml")
    bases = []
    for entry in node.pop("defaults", []):
        if isinstance(entry, str):
            bases += [] if entry == "_self_" else [without_parts(group, entry, parts)]
        else:
            parts |= {str(part).removeprefix("override "): option for part, option in entry.items()}
    return OmegaConf.merge(*bases, node)


def shipped_map(name: str, shape: tuple[int, ...], num_levels: int, **options: Any) -> Any:
    """The forward process of conf/forward/<name>.yaml, for fields of a shape, with its own defaults otherwise."""
    return instantiate(
        OmegaConf.merge(shipped("forward", name), {"shape": list(shape), "num_levels": num_levels, **options}),
        _convert_="all",
    )


DECODERS = {"conv": "flat", "set_conv": "grid", "frame": "heat"}  # where it has another name than the encoder
PATHS = {"latent": (4, False), "deterministic": (None, True), "both": (4, True)}  # numbers of z; whether r is seen beside it


def small_np(
    shape: Any = (1, 8, 8),
    encoder: str = "flat",
    aggregator: str = "mean",
    path: str = "latent",
    likelihood: str = "heteroscedastic",
    **options: Any,
) -> Any:
    """A small neural process of conf/net, the decoder as the encoder; options are its own or of any of its parts."""
    names = {
        "encoder": encoder,
        "aggregator": aggregator,
        "decoder": DECODERS.get(encoder, encoder),
        "likelihood": likelihood,
    }
    latent, deterministic = PATHS[path]
    sizes = {"hidden": 16, "channels": 8, "layers": 2, **options}
    nodes = {part: shipped(f"net/{part}", name) for part, name in names.items()}
    for node in nodes.values():
        node.update({key: size for key, size in sizes.items() if key in node})
    own = {"shape": list(shape), "width": 8, "latent": latent, "deterministic": deterministic, "hidden": sizes["hidden"]}
    own |= {key: value for key, value in options.items() if key in inspect.signature(NeuralProcess).parameters}
    target = {"_target_": "heatgen.net.neural_process.NeuralProcess"}
    return instantiate(OmegaConf.create({"net": {**target, **nodes, **own}}).net, _partial_=True, _convert_="all")()


def together(work: Callable[[int], object], world: int, met: bool = True) -> list[int]:
    """work(rank) in so many forks of this process, which know of each other as those of torchrun do; their exit codes.

    met: whether they have met when it begins, and meet again at its end.
    """
    children = []
    with launch.free_port() as port:
        for rank in range(world):
            child = os.fork()
            if not child:
                code = 1
                try:
                    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port, "GROUP_RANK": 0}
                    os.environ.update({key: str(value) for key, value in own.items()})
                    os.environ.update({"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "tests"})
                    if met:
                        dist.init_process_group("gloo", rank=rank, world_size=world)
                    code = int(work(rank) or 0)
                    if met:
                        dist.barrier()
                except BaseException:
                    traceback.print_exc()
                    sys.stderr.flush()
                os._exit(code)
            children.append(child)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def call_together(script: str, *arguments: str) -> list[int]:
    """Run an entry point in two processes of a CPU; their exit codes."""
    devices = ["trainer.accelerator=cpu", "trainer.devices=2"]
    return together(lambda rank: call(script, *arguments, *devices), 2, met=False)


def call(script: str, *arguments: str) -> int:
    """Run an entry point with arguments in this process; its exit code."""
    path = str(ROOT / f"{script}.py")
    old, sys.argv = sys.argv, [path, *arguments]
    try:
        with warnings.catch_warnings():
            runpy.run_path(path, run_name="__main__")
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = old
        GlobalHydra.instance().clear()
    return 0


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail; the one sentence it prints."""

    def run(script: str, *arguments: str) -> str:
        assert call(script, *arguments) == 1
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1
        return lines[0]

    return run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of 12 steps; do not write to it."""
    folder = tmp_path_factory.mktemp("small") / "run"
    assert call("train", *SMALL, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture
def own_run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run that a test may change."""
    return Path(shutil.copytree(small_run, tmp_path / "runs" / "own"))
