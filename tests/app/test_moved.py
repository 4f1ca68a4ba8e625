"""Pictures that moved: where the files of a run's data are now can be said to every verb; what it was trained on cannot."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SMALL, call
from omegaconf import OmegaConf
from PIL import Image

from heatgen.app.api import load
from heatgen.check import ConfigError

OPTIONS = [word for word in SMALL if not word.startswith("data.")] + ["data.shape=[1,8,8]", "data.batch_size=4"]
OPTIONS += ["net.model_channels=8", "net.norm_groups=4", "net.multipliers=[1]", "net.num_res_blocks=1"]
OPTIONS += ["net.attention_levels=[]", "callback.pictures.every=0", "trainer.max_steps=2", "data=image_folder"]


@pytest.mark.slow
def test_pictures_that_moved_are_found_by_every_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new, run = tmp_path / "pictures", tmp_path / "new 東京", tmp_path / "runs" / "run"
    old.mkdir()
    for i in range(24):
        Image.new("L", (9, 9), 10 * i).save(old / f"{i:02d}.png")
    assert call("train", *OPTIONS, "data.path=pictures", f"hydra.run.dir={run}") == 0
    assert OmegaConf.load(run / "config.yaml").data.path == str(old)
    before = load(run, device="cpu").data.images("train").pixels([3])
    old.rename(new)
    moved = f'data.path="{new}"'
    for verb, words in {"sample": ["n=1"], "evaluate": ["mode=forward", "metric.levels=2", "metric.images=5"]}.items():
        assert f"data.path = {old} is not a folder" in refused(verb, f"run={run}", *words)
        assert call(verb, f"run={run}", *words, moved) == 0
    (path,) = (run / "evaluation").glob("forward_*.json")
    assert json.loads(path.read_text())["facts"]["data.path"] == str(new)
    assert torch.equal(load(run, device="cpu", data={"path": str(new)}).data.images("train").pixels([3]), before)
    assert "data.flip is the run's own" in refused("sample", f"run={run}", "data.flip=true")
    assert "data.flip is the run's own" in refused("evaluate", f"run={run}", "++data.flip=true", "mode=forward")
    with pytest.raises(ConfigError, match=r"data\.flip is the run's own"):
        load(run, data={"flip": 1})
    assert call("train", f"resume={run}", moved, "trainer.max_steps=3") == 0
    assert OmegaConf.load(run / "config.yaml").data.path == str(new)
    assert call("sample", f"run={run}", "n=1") == 0


def test_a_name_that_is_read_as_a_number_is_told_how_to_be_typed(own_run: Path, refused: Callable[..., str]) -> None:
    assert """'data.path="2024"'""" in refused("sample", f"run={own_run}", "data.path=2024")
    assert "data.path is not a setting of heatgen.data.digits.Digits" in refused("sample", f"run={own_run}", "data.path=a")
    assert "data.data_dir" in refused("evaluate", f"run={own_run}", "data_dir=a", "mode=forward")
    assert "Nothing reads speed" in refused("sample", f"run={own_run}", "+speed=3")
