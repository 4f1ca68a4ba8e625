"""heatgen doctor: what is here, what is not, and what to do about it."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from heatgen.app import doctor
from heatgen.data.fashion_mnist import FashionMNIST
from heatgen.data.mnist import MNIST
from heatgen.metric import extractor
from heatgen.runtime import engine


def lines(found) -> dict[str, list[str]]:
    """The lines by their mark."""
    every = list(found)
    return {mark: [str(one) for one in every if one.mark == mark] for mark in ("ok", "note", "fail")}


def test_it_looks_where_the_data_sets_and_metrics_look() -> None:
    for name, kind in {"fashion_mnist": FashionMNIST, "mnist": MNIST}.items():
        own = kind.torchvision_name
        assert doctor.SETS[name] == (f"{own}/raw", own, kind.system_dir)
    assert extractor.FILE == doctor.INCEPTION
    assert all((ROOT / "conf" / "data" / f"{name}.yaml").is_file() for name in (*doctor.SETS, *doctor.FOLDERS))


def test_data_and_weights_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEATGEN_INCEPTION", raising=False)
    monkeypatch.setattr(doctor.tempfile, "gettempdir", lambda: str(tmp_path / "nothing"))
    before = lines([*doctor.data_sets(tmp_path), *doctor.weights(tmp_path)])
    assert any("data=cifar10" in line and "downloaded" in line for line in before["note"])
    assert any(f"put {doctor.INCEPTION} there" in line for line in before["note"]) and not before["fail"]
    for name in ("cifar-10-batches-py/data_batch_1", "afhq/train/a.png", "extractors/digits.pt", doctor.INCEPTION):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    after = lines([*doctor.data_sets(tmp_path), *doctor.weights(tmp_path)])
    for found in ("data=digits", f"data=cifar10: {tmp_path}", "data=afhq", f"its like: {tmp_path}", "of digits"):
        assert any(found in line for line in after["ok"]), found
    monkeypatch.setenv("HEATGEN_INCEPTION", str(tmp_path / "lost.pt"))
    assert any("lost.pt is no file; unset it" in line for line in lines(doctor.weights(tmp_path))["note"])


def test_a_folder_that_cannot_be_written_is_a_failure_and_nothing_is_left_in_one_that_can(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bad = doctor.place("runs_dir", tmp_path / "file" / "runs", "HEATGEN_RUNS", doctor.fail)
    assert bad.mark == "fail" and "Not a directory" in str(bad) and "set HEATGEN_RUNS" in str(bad)
    good = doctor.place("runs_dir", tmp_path / "new" / "runs", "HEATGEN_RUNS", doctor.fail)
    assert good.mark in ("ok", "note") and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_packages_that_lack_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version

    def version(name: str) -> str:
        if name == "h5py":
            raise PackageNotFoundError(name)
        return "1.0" if name == "lightning" else real(name)

    monkeypatch.setattr(doctor, "version", version)
    (bad,) = lines(doctor.packages())["fail"]
    assert "'h5py>=3.11'" in bad and "'lightning<3,>=2.6'" in bad and "; pip install '" in bad and "'torch>" not in bad


def test_a_gpu_that_does_not_start_is_a_note_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # the driver's number; there is none here, so using it fails
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: torch.zeros(1, device="nowhere"))
    told = lines(doctor.torch_and_devices())
    assert any("there is a GPU that PyTorch" in line and line.endswith("get-started/locally") for line in told["note"])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H100")
    monkeypatch.setattr(engine, "has_bf16", lambda device: device.type == "cuda")
    told = lines(doctor.torch_and_devices())
    assert "ok    GPU 0: H100, 80 GiB" in told["ok"]
    assert "ok    trainer.precision=auto: bf16-mixed for wide networks, 32-true for others" in told["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["hydra", "torch"])
def test_it_speaks_where_a_required_package_cannot_be_imported(lost: str) -> None:
    code = f"""
import sys
sys.modules["{lost}"] = None  # so that importing it fails
sys.argv = ["heatgen", "doctor"]
from heatgen.app.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.startswith("ok    heatgen"), done.stderr
    assert (done.returncode == 1) == (lost == "torch") == ("fail  PyTorch cannot be imported" in done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "code"), [("runs", 0), ("file/runs", 1)])
def test_the_command_ends_with_1_where_something_required_is_missing(runs: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "heatgen.app", "doctor", "--runs-dir", str(tmp_path / runs)]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    told = done.stdout.splitlines()
    assert ("all that is required is here" in told[-1]) == (code == 0) and "\033" not in done.stdout
    assert all(line.startswith(("ok    ", "note  ", "fail  ")) for line in told[:-2])
    assert any("trainer.precision=auto: " in line for line in told) and any("CPU: " in line for line in told)
