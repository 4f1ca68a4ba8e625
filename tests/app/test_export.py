"""Exported models: one file that heatgen reads alone, what it draws, its card, and what is said of damaged ones."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from conftest import call
from omegaconf import OmegaConf
from PIL import Image

import heatgen
from heatgen.app import export as exporting
from heatgen.app import initial
from heatgen.app.export import export
from heatgen.app.load import restore
from heatgen.app.requests import LoadRequest
from heatgen.check import ConfigError
from heatgen.data.digits import Digits
from heatgen.report.card import plain
from heatgen.runtime import exported

pytest.importorskip("safetensors")


@pytest.fixture
def measured(own_run: Path) -> Path:
    """A run whose reverse noise is measured on its data, with a result whose words mean something to a browser."""
    cfg = OmegaConf.load(own_run / "config.yaml")
    cfg.model.delta_mode = "per_step"
    (own_run / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    result = {"mode": "fid", "values": {"fid": 12.345678}, "standard_errors": {"fid": 0.5}, "labels": {"fid": "FID"}}
    result |= {"headline": ["fid"], "facts": {"n": 100}, "notes": ["few <script>alert(1)</script> | [x](http://y)"]}
    (own_run / "evaluation" / "fid_2026-01-01_00-00-00.json").write_text(json.dumps(result))
    return own_run


@pytest.mark.slow
def test_an_export_draws_the_samples_of_its_run_without_it(measured: Path, tmp_path: Path) -> None:
    expected = heatgen.load(measured, device="cpu").sample(n=5, seed=2).tensor
    folder = export(LoadRequest(measured), tmp_path / "export")
    shutil.rmtree(measured)
    alone = tmp_path / "alone.safetensors"
    (folder / exported.FILE).rename(alone)
    assert torch.allclose(heatgen.load(alone, device="cpu").sample(n=5, seed=2).tensor, expected, atol=1e-5)
    assert call("sample", f"run={alone}", "n=2", "trainer.accelerator=cpu") == 0
    assert list((tmp_path / "samples").glob("*/samples.pt"))


@pytest.mark.slow
def test_an_export_with_states_needs_no_data(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = heatgen.load(measured, device="cpu").sample(n=5, seed=2).tensor
    whole = export(LoadRequest(measured), tmp_path / "whole", states=10**6)
    few = export(LoadRequest(measured), tmp_path / "few", states=7)

    def absent(*_: object) -> Any:
        raise ConfigError("the data are not here")

    monkeypatch.setattr(Digits, "read", absent)
    assert torch.allclose(heatgen.load(whole, device="cpu").sample(n=5, seed=2).tensor, expected, atol=1e-5)
    run = heatgen.load(few, device="cpu")
    assert run.data.states is not None and len(run.data.states) == 7
    assert run.sample(n=9).tensor.isfinite().all()
    with pytest.raises(ConfigError, match="the data are not here"):  # for what is not in the file
        heatgen.load(few, device="cpu", delta_mode="spectral")


def test_measuring_an_export_with_states_reads_the_data(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    folder = export(LoadRequest(own_run), tmp_path / "export", states=7)

    def absent(*_: object) -> Any:
        raise ConfigError("the data are not here")

    monkeypatch.setattr(Digits, "read", absent)
    assert "the data are not here" in refused("evaluate", f"run={folder}", "mode=elbo", "n=2", "trainer.accelerator=cpu")


def test_the_weights_are_the_averages_and_a_training_can_begin_with_them(own_run: Path, tmp_path: Path) -> None:
    folder = export(LoadRequest(own_run), tmp_path / "export")
    wanted = restore(LoadRequest(own_run)).model.state_dict()
    raw = restore(LoadRequest(own_run, weights="raw")).model
    assert not all(torch.equal(wanted[name], tensor) for name, tensor in raw.state_dict().items())
    found = restore(LoadRequest(folder)).model.state_dict()
    assert all(torch.equal(wanted[name], tensor) for name, tensor in found.items())
    initial.start_from(raw, str(folder), "runs")
    assert all(torch.equal(wanted[name], tensor) for name, tensor in raw.state_dict().items())


def test_the_card_says_what_it_is_and_means_nothing_to_a_browser(measured: Path, tmp_path: Path) -> None:
    (measured / "samples").mkdir(exist_ok=True)
    Image.new("L", (4, 4), 7).save(measured / "samples" / "step_000099.png")
    (measured / "overrides.txt").write_text("data=image_folder data.path=/home/me/cats runs_dir=/home/me seed=1 'x=`a b`'\n")
    folder = export(LoadRequest(measured), tmp_path / "export")
    page = (folder / "README.md").read_text()
    head = yaml.safe_load(page.split("---")[1])
    assert head == {"library_name": "heatgen", "tags": ["heatgen", "ihd", "heat", "unet", "digits"]}
    assert "    heatgen train data=image_folder data.path=cats seed=1 'x=`a b`'" in page and "/home/me" not in page
    assert "| FID | 12.35 ± 0.5 |" in page and "n: 100" in page and "validation loss" in page
    assert "<script" not in page and "&lt;script&gt;" in page and r"\[x\](http://y)" in page
    assert 'run = heatgen.load("model.safetensors")' in page and f"torch {torch.__version__.split('+')[0]}" in page
    assert Image.open(folder / "samples.png").getpixel((0, 0)) == 7 and "![samples](samples.png)" in page
    assert plain("a|b\n# *c* <i>") == r"a\|b \# \*c\* &lt;i&gt;"


def test_an_export_names_no_folder_of_this_machine(own_run: Path, tmp_path: Path) -> None:
    cfg = OmegaConf.load(own_run / "config.yaml")
    cfg.data.data_dir, cfg.data_dir = "/home/me/data", "/home/me/data"
    (own_run / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    folder = export(LoadRequest(own_run), tmp_path / "export")
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"/home/me" not in content and str(tmp_path).encode() not in content
    assert restore(LoadRequest(folder)).data.data_dir == str(tmp_path / "data")  # where HEATGEN_DATA says


def rewritten(path: Path, edit: Callable[[dict[str, torch.Tensor], dict[str, Any]], object]) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors, config = load_file(path), yaml.safe_load(metadata[exported.KEY])
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}  # not of the file that is about to change
    edit(tensors, config)
    save_file(tensors, path, metadata={exported.KEY: yaml.safe_dump(config)})


def plant(tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    config["forward"]["sigma"] = {"_target_": "os.mkdir", "path": "trap"}


def poison(tensors: dict[str, torch.Tensor], _: object) -> None:
    next(iter(tensors.values())).fill_(torch.nan)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is cut short or no file of safetensors"),
    "text": (lambda path: path.write_text("weights"), "is cut short or no file of safetensors"),
    "no config": (lambda path: bare(path), "has no config of heatgen in its metadata"),
    "code": (
        lambda path: rewritten(path, plant),
        r"runs code that is no option of heatgen \(forward.sigma._target_=os.mkdir",
    ),
    "not finite": (lambda path: rewritten(path, poison), r"holds NaN or inf \(first in"),
    "another net": (lambda path: rewritten(path, lambda _, config: config["net"].update(model_channels=16)), "does not fit"),
    "few weights": (lambda path: rewritten(path, lambda tensors, _: tensors.pop("net.in_conv.weight")), "does not fit"),
    "other states": (
        lambda path: rewritten(path, lambda tensors, _: tensors.update({"sampling.states": torch.zeros(2, 1, 3, 3)})),
        r"has no states of shape \[1, 8, 8\]",
    ),
    "other errors": (
        lambda path: rewritten(path, lambda tensors, _: tensors.update({"sampling.errors": torch.zeros(2, 1, 1, 1)})),
        r"has errors of shape \[2, 1, 1, 1\]",
    ),
}


def bare(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, path)


@pytest.fixture(scope="module")
def whole(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with states; do not write to it."""
    return export(LoadRequest(small_run), tmp_path_factory.mktemp("whole") / "export", states=3)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_damaged_export_is_told(damage: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(shutil.copy(whole / exported.FILE, tmp_path))
    edit, sentence = DAMAGES[damage]
    edit(path)
    with pytest.raises(ConfigError, match=sentence):
        restore(LoadRequest(tmp_path))
    assert not (tmp_path / "trap").exists()


def test_what_an_export_does_not_do(whole: Path, own_run: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    for words, sentence in {
        ("checkpoint=best",): "is an exported model, which has one set of weights; remove checkpoint=best.",
        ("weights=raw",): "is an exported model, which has averaged weights alone; remove weights=raw.",
    }.items():
        assert sentence in refused("sample", f"run={whole}", *words)
    with pytest.raises(ConfigError, match="is an exported model already"):
        export(LoadRequest(whole), tmp_path / "again")
    with pytest.raises(ConfigError, match="holds something else than an exported model"):
        export(LoadRequest(own_run), own_run)
    random = SimpleNamespace(process=SimpleNamespace(has_random_gain=True, name="random_velocity"))
    with pytest.raises(ConfigError, match="is drawn for each sample, so it has no states to bundle; remove --states"):
        exporting.bundled(SimpleNamespace(model=random, data=None), 3)  # type: ignore[arg-type]


class Repository(str):
    """The address of a repository, as the hub gives it."""

    repo_id = "me/digits"


class Hub:
    """What of huggingface_hub is called, and with what."""

    def __init__(self, fails: bool = False):
        self.calls: list[dict[str, Any]] = []
        self.fails = fails

    def create_repo(self, name: str, **options: Any) -> Any:
        if self.fails:
            raise OSError("401 Client Error\n  for url")
        self.calls.append({"name": name, **options})
        return Repository(f"https://huggingface.co/{name}")

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(options)


def test_an_export_is_pushed_where_the_hub_can_be_reached(
    own_run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    def push() -> int:
        monkeypatch.setattr(sys, "argv", ["heatgen", str(own_run), "--push", "me/digits"])
        try:
            exporting.entry(exporting.main)
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert push() == 1 and "huggingface_hub; install it with pip install 'heatgen[hub]'" in capfd.readouterr().err
    assert not (own_run / "export").exists()
    hub = Hub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: hub))
    with caplog.at_level("INFO", "heatgen"):
        assert push() == 0 and "https://huggingface.co/me/digits" in caplog.text
    made, uploaded = hub.calls
    assert made == {"name": "me/digits", "private": True, "exist_ok": True}
    assert Path(uploaded["folder_path"]) == own_run / "export" and uploaded["repo_id"] == "me/digits"
    assert "hf download me/digits" in (own_run / "export" / "README.md").read_text()
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=lambda: Hub(fails=True)))
    assert push() == 1 and "cannot be pushed to me/digits (401 Client Error for url); log in" in capfd.readouterr().err
