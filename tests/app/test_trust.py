"""The run of a stranger: whatever its config.yaml says, nothing is executed, written or waited for."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import heatgen
from heatgen.app import sweep
from heatgen.app.api import load
from heatgen.app.load import advised, read_config, restore
from heatgen.app.requests import LoadRequest, TrainRequest
from heatgen.app.resumed import resumed
from heatgen.app.trust import foreign_targets
from heatgen.check import ConfigError
from heatgen.report import unfinished

HUB = "import pathlib, os\npathlib.Path(os.environ['TRAP']).touch()\ndef m(*a, **k): return 0.01\n"
CODE = "import pathlib, os\npathlib.Path(os.environ['TRAP']).touch()\ndef trap(*a, **k):\n    return 0.01\n"


@pytest.fixture
def trap(own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the code in a run's folder has run."""
    (own_run / "hub").mkdir()
    (own_run / "hub" / "hubconf.py").write_text(HUB)
    (own_run / "stranger.py").write_text(CODE)
    path = tmp_path / "trap"
    monkeypatch.setenv("TRAP", str(path))
    monkeypatch.setenv("TARGET", "stranger.trap")
    monkeypatch.syspath_prepend(str(own_run))
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    return path


def going_on(run: Path, words: list[str], trust: bool = False) -> Any:
    """The config with which a run goes on."""
    return resumed(run, words, OmegaConf.create(), (), trust)[0]


def node(target: object, **options: object) -> dict[str, object]:
    return {"_target_": target, **options}


HUBBED = {"repo_or_dir": "RUN/hub", "model": "m", "source": "local"}
PAYLOADS: dict[str, tuple[str, Any]] = {
    "torch.hub": ("forward.sigma", node("torch.hub.load", **HUBBED)),
    "a module of the run": ("forward.sigma", node("stranger.trap")),
    "the forward map itself": ("forward._target_", "stranger.trap"),
    "the net itself": ("net._target_", "stranger.trap"),
    "the data themselves": ("data._target_", "stranger.trap"),
    "the model itself": ("model._target_", "stranger.trap"),
    "an interpolated target": ("forward.sigma", node("${oc.env:TARGET}")),
    "an interpolated node": ("forward.sigma", "${oc.create:{_target_: stranger.trap}}"),
    "a list in a list": ("forward.sigma", [[node("stranger.trap")]]),
    "a partial": ("sampler.stochastic", node("stranger.trap", _partial_=True)),
    "the sampler": ("sampler", node("os.mkdir", path="TRAP")),
    "the optimizer": ("optimizer", node("stranger.trap", _partial_=True)),
    "in the optimizer": ("optimizer.lr", node("os.mkdir", path="TRAP")),
    "makes a folder": ("net.dropout", node("os.mkdir", path="TRAP")),
    "writes by heatgen": (
        "net.dropout",
        node("heatgen.runtime.files.write_text", path=node("pathlib.Path", _args_=["TRAP"])),
    ),
    "starts by heatgen": ("net.dropout", node("heatgen.runtime.launch.call", verb="train", arguments=[])),
    "writes fields": ("data.seed", node("heatgen.data.field_files.write_fields", path="TRAP", fields=[], count=0)),
    "a walk through modules": ("net.dropout", node("heatgen.net.unet.torch.hub.load", **HUBBED)),
    "a walk to the system": ("net.dropout", node("heatgen.data.image_folder.itertools.sys.modules.os.mkdir", path="TRAP")),
    "what a room imports": ("net.dropout", node("heatgen.data.field_files.atomic_path", path="TRAP")),
    "another room": ("net.dropout", node("heatgen.logger.csv.CSVLog", folder="TRAP")),
    "torch.optim's imports": ("optimizer", node("torch.optim.lr_scheduler.torch.hub.load", **HUBBED)),
    "pickles": ("data.seed", node("torch.load", f="RUN/stranger.py", weights_only=False)),
    "a path that runs .pth files": ("data.seed", node("site.addsitedir", sitedir="RUN")),
    "a target that is no text": ("net.dropout", node({"_target_": "stranger.trap"})),
    "a callback": ("callback.trap", node("stranger.trap")),
    "a logger": ("logger.trap", node("stranger.trap")),
    "settings of W&B": ("logger.wandb", node("heatgen.logger.wandb.wandb_log", settings={"executable": "RUN/stranger.py"})),
    "a plugin of the trainer": ("trainer.plugins", [node("stranger.trap")]),
    "a private name": ("net.dropout", node("heatgen.net.unet._trap")),
}


def plant(run: Path, trap: Path, key: str, value: object) -> None:
    text = OmegaConf.to_yaml(OmegaConf.create({"value": value}))
    planted = OmegaConf.create(text.replace("RUN", str(run)).replace("TRAP", str(trap)))
    path = run / "config.yaml"
    cfg = OmegaConf.load(path)
    OmegaConf.update(cfg, key, OmegaConf.to_container(planted)["value"], force_add=True, merge=False)
    path.write_text(OmegaConf.to_yaml(cfg))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_is_refused_by_name_and_not_executed(own_run: Path, trap: Path, payload: str) -> None:
    plant(own_run, trap, *PAYLOADS[payload])
    with pytest.raises(ConfigError, match=r"config\.yaml (runs code|gives logger|describes no|is not|has )|^\S+ must be"):
        restore(LoadRequest(own_run))
    with pytest.raises(ConfigError):
        going_on(own_run, [])
        restore(LoadRequest(own_run))
    assert not trap.exists() and "stranger" not in sys.modules


def test_one_sentence_on_the_command_line_and_trust_runs_it(own_run: Path, trap: Path, refused: Callable[..., str]) -> None:
    plant(own_run, trap, *PAYLOADS["a module of the run"])
    for verb, key in (("sample", "run"), ("evaluate", "run"), ("train", "resume")):
        said = refused(verb, f"{key}={own_run}")
        assert "forward.sigma._target_=stranger.trap" in said and "trust=true" in said
    with pytest.raises(ConfigError, match="trust=true"):
        load(own_run, device="cpu")
    assert not trap.exists()
    heatgen.load(own_run, device="cpu", trust=True)
    assert trap.exists()


def test_a_target_that_the_command_line_names_is_the_users_own(own_run: Path, trap: Path) -> None:
    plant(own_run, trap, "callback.mine", {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/loss"})
    with pytest.raises(ConfigError, match="EarlyStopping"):
        going_on(own_run, [])
    going_on(own_run, ["++callback.mine._target_=lightning.pytorch.callbacks.EarlyStopping"])


def test_what_is_advised_works_as_printed(own_run: Path, trap: Path, tmp_path: Path, monkeypatch: Any) -> None:
    assert advised("run", own_run, "sample") == f"heatgen sample run={own_run}"
    monkeypatch.setattr(sys, "argv", ["sample.py"])
    assert advised("run", own_run, "sample") == f"python sample.py run={own_run}"
    plant(own_run, trap, "callback.mine", {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/loss"})
    assert advised("run", own_run, "sample") == f"python sample.py run={own_run} trust=true"
    assert advised("resume", own_run) == f"resume={own_run} trust=true"
    assert advised("resume", tmp_path) == f"resume={tmp_path}"
    for words, trust in ((["-m", "seed=0,1"], ""), (["-m", "seed=0,1", "--config-dir=options"], " trust=true")):
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        sweep.begin(tmp_path, 2)
        assert sweep.advised(tmp_path) == unfinished.go_on(tmp_path) == f"python train.py -m resume={tmp_path}{trust}"


def test_targets_of_the_users_own_files_are_found() -> None:
    node, usual = {"_target_": "my_package.Mine"}, {"_target_": "torch.optim.Adam"}
    assert foreign_targets(OmegaConf.create({"callback": {"mine": node}, "optimizer": usual})) == {"my_package.Mine"}


def test_what_a_run_measures_at_its_end_is_the_command_lines(own_run: Path, trap: Path, caplog: Any) -> None:
    bad = "mode=elbo metric._target_=stranger.trap"
    plant(own_run, trap, "evaluate", [bad])

    def measured(words: list[str], trust: bool = False) -> tuple[str, ...] | None:
        return TrainRequest.of(going_on(own_run, words, trust), own_run, words).evaluate

    with caplog.at_level("WARNING", "heatgen"):
        assert measured([]) == ()
    assert "evaluate" in caplog.text
    assert list(going_on(own_run, []).evaluate) == [bad]  # which its config.yaml keeps, for trust=true later
    assert measured(["evaluate=['mode=elbo']"]) == ("mode=elbo",)
    assert measured([], trust=True) == (bad,)
    assert advised("resume", own_run) == f"resume={own_run} trust=true"


def test_text_with_a_dollar_and_a_brace_is_text(own_run: Path, trap: Path) -> None:
    plant(own_run, trap, "runs_dir", "/tmp/${oc.env:TARGET}/x")
    assert read_config(own_run).runs_dir == "/tmp/${oc.env:TARGET}/x"


@pytest.mark.parametrize("key", ["name", "experiment_name", "data_name", "publish"])
@pytest.mark.parametrize("value", ["../../x", "/tmp/x", "..", "a/../../b", "x" * 300, "a\nb", ".hidden", ""])
def test_a_name_stays_in_its_folder(own_run: Path, trap: Path, key: str, value: str) -> None:
    plant(own_run, trap, key, value)
    with pytest.raises(ConfigError, match=f"{key} in .* must be a name"):
        read_config(own_run)


LAUGHS = "model: {_target_: heatgen.model.ihd.IHD}\na0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
CONFIGS = {
    "laughs": LAUGHS,
    "laughs in the seed": LAUGHS + "seed: *a9\n",
    "a list": "- model",
    "nothing": "",
    "a number": "3",
    "deep": "[" * 20000,
    "large": "#" + "x" * 10**7,
    "a tag": "model: !!python/object/apply:os.mkdir [x]",
    "bytes": "\udcff\udcfe",
    "a model alone": "model: {}",
    "a group that is a list": "model: [1]",
    "a group that is text": "model: heatgen",
}


@pytest.mark.parametrize("content", CONFIGS)
def test_a_config_that_is_none_ends_at_once(own_run: Path, refused: Callable[..., str], content: str) -> None:
    (own_run / "config.yaml").write_text(CONFIGS[content], errors="surrogateescape")
    started = time.monotonic()
    assert "config.yaml" in refused("sample", f"run={own_run}", "n=2")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", ["config.yaml", "checkpoints/last.ckpt"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_folder_in_place_of_a_file_is_not_waited_for(
    own_run: Path, refused: Callable[..., str], name: str, make: Callable[[Path], None]
) -> None:
    (own_run / name).unlink()
    make(own_run / name)
    assert refused("sample", f"run={own_run}")
    if name == "config.yaml":  # a training that is done reads no checkpoint
        assert refused("train", f"resume={own_run}")
