"""heatgen outside its repository: a wheel, an empty folder, and the user's own options and package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SMALL

MAP = """
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess


class Mine(ObservedProcess):
    def __init__(self, shape, num_levels=100, sigma=0.01):
        super().__init__(shape, uniform(num_levels), sigma)

    def gain(self, t):
        return 1 - 0.5 * self.column(t)
"""
FEW = [word for word in SMALL if not word.startswith("forward.")] + ["trainer.max_steps=2", "callback.pictures.every=0"]
NODE = "_target_: my_package.Mine # half of the image stays\nshape: ${data.shape}\nnum_levels: 5\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds heatgen as a wheel installs it."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, but for a user's package and a folder of options."""
    (tmp_path / "my_package.py").write_text(MAP)
    (tmp_path / "options" / "forward").mkdir(parents=True)
    (tmp_path / "options" / "forward" / "mine.yaml").write_text(NODE)
    (tmp_path / "options" / "mytrain.yaml").write_text("defaults: [train, _self_]\n\nseed: 7\n")
    return tmp_path


def heatgen(site: Path, folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """What the console script prints, called in a folder, where it ends with this exit code."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    for name in ("HEATGEN_RUNS", "HEATGEN_DATA"):
        environment.pop(name, None)
    command = [sys.executable, str(site / "bin" / "heatgen"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout, done.stderr


@pytest.mark.slow
def test_a_wheel_trains_a_map_of_the_users_own_in_two_processes_and_measures_it(site: Path, folder: Path) -> None:
    small = [*FEW, "trainer=ddp"]
    measured = "evaluate=['mode=forward metric.levels=3 metric.images=50']"
    flags = ["--config-dir", "options", "--config-name", "mytrain"]
    out, _ = heatgen(site, folder, "train", *small, *flags, "forward=mine", "trainer.devices=2", measured)
    (run,) = (folder / "runs").glob("ihd-mine-digits/*")
    assert out.count("next:    heatgen sample run=") == 1
    assert (run / "checkpoints" / "last.ckpt").is_file() and (run / "process_1.log").is_file()
    assert "seed: 7" in (run / "config.yaml").read_text()
    (result,) = (run / "evaluation").glob("forward_*.json")
    assert json.loads(result.read_text())["run"] == str(run)
    heatgen(site, folder, "sample", "n=2", "trainer.accelerator=cpu", "trust=true")
    assert list(run.glob("samples/delta_*/samples.pt"))
    assert "heatgen " in (folder / "runs" / "results" / "default.csv").read_text()


@pytest.mark.slow
def test_options_of_the_users_own_are_known_to_help_and_to_suggestions(site: Path, folder: Path) -> None:
    for place in (["--config-dir", "options"], ["hydra.searchpath=[options]"]):
        out, _ = heatgen(site, folder, "train", *place, "--help")
        names = out[out.rindex("  forward     ") : out.rindex("  net     ")].replace(",", " ").split()
        assert {"mine", "heat"} < {*names} and "heatgen train model=" in out
        out, _ = heatgen(site, folder, "train", *place, "--help", "forward", "forward=mine")
        assert "  mine                  half of the image stays\n" in out and "forward=mine: half of the image stays" in out
        _, error = heatgen(site, folder, "train", "forward=mien", *place, code=1)
        assert error.startswith("Error: forward=mien is not an option; did you mean mine?")
    _, error = heatgen(site, folder, "train", "forward._target_=my_package.Mien", code=1)
    assert error.startswith("Error: _target_=my_package.Mien does not exist")
    _, error = heatgen(site, folder, "trian", code=1)
    assert "did you mean train?" in error


@pytest.mark.slow
def test_a_sweep_runs_anywhere(site: Path, folder: Path) -> None:
    small = [*FEW, "evaluate=[]"]
    heatgen(site, folder, "train", "-m", "--config-dir", "options", "forward=mine,constant_velocity", *small)
    (sweep,) = (folder / "runs" / "sweeps").iterdir()
    assert [row["forward"] for row in json.loads((sweep / "comparison.json").read_text())] == ["mine", "constant_velocity"]
    assert (sweep / "command.txt").read_text().startswith("heatgen train -m --config-dir options")
    out, _ = heatgen(site, folder, "report", "runs")
    assert out == "written: runs/index.html, a gallery of 2 runs\n"
    assert "Side by side" in (folder / "runs" / "index.html").read_text()
    choices = json.loads((sweep / "0-ihd-mine-digits" / "choices.json").read_text())
    assert choices["options"]["forward"] == "mine" and "trainer.max_steps" in choices["differs"]
