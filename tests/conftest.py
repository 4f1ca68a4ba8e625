"""What all tests share: a small run, and the command line without a new process."""

import os
import runpy
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
os.environ["OMP_NUM_THREADS"] = "1"  # tensors of tests are small, and one thread gives the same bits in every process
torch.set_num_threads(1)

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
    """Runs and data go to a folder of the test's own, and Hydra starts afresh."""
    monkeypatch.setenv("HEATGEN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HEATGEN_DATA", str(tmp_path / "data"))
    GlobalHydra.instance().clear()


FORWARDS = sorted(path.stem for path in (ROOT / "conf" / "forward").glob("[!_]*.yaml"))


def shipped(group: str, name: str) -> Any:
    """conf/<group>/<name>.yaml on top of its bases."""
    node = OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml")
    return OmegaConf.merge(*(shipped(group, base) for base in node.pop("defaults", [])), node)


def shipped_map(name: str, shape: tuple[int, ...], num_levels: int, **options: Any) -> Any:
    """The forward process of conf/forward/<name>.yaml, for fields of a shape, with its own defaults otherwise."""
    return instantiate(
        OmegaConf.merge(shipped("forward", name), {"shape": list(shape), "num_levels": num_levels, **options}),
        _convert_="all",
    )


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
