"""The original's loop as a whole training: cut off, it goes on to the bit; the page has what was measured."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import side_by_side
from heatgen.check import ConfigError


def test_the_training_of_the_original_goes_on_where_it_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (70, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(side_by_side, "their_images", lambda: images)
    monkeypatch.setattr(side_by_side, "EVERY", 2)
    for name, parts in (("whole", (4,)), ("parts", (2, 4))):
        (tmp_path / name).mkdir()
        for steps in parts:
            assert side_by_side.their_training(tmp_path / name, steps, seed=1) > 0
    whole, parts_ = (torch.load(tmp_path / name / "training.pt", weights_only=True) for name in ("whole", "parts"))
    assert whole["step"] == parts_["step"] == 4
    assert all(torch.equal(a, b) for a, b in zip(whole["averages"], parts_["averages"], strict=True))
    samples, _ = side_by_side.their_samples(tmp_path / "whole", 3, seed=1)
    assert samples.shape == (3, 1, 28, 28) and samples.isfinite().all()


def test_the_page_has_means_over_seeds_and_of_one_setting_alone(tmp_path: Path) -> None:
    rows = [
        {"code": side, "seed": seed} | dict.fromkeys(side_by_side.NUMBERS, 10.0 * i + seed)
        for i, side in enumerate(side_by_side.SIDES)
        for seed in range(3)
    ]
    text = side_by_side.page(rows, {"steps": 4}, "COMMAND", "side_by_side")
    assert "| heatgen | 3 | 1.0 ± 0.6 | 1 ± 1 |" in text and "| the original's loop | 3 | 11.0 ± 0.6 |" in text
    for side in ("heatgen", "original"):
        (tmp_path / "seed_0" / side).mkdir(parents=True)
        (tmp_path / "seed_0" / side / "result.json").write_text(json.dumps(rows[0] | {"steps": 4, "n": 2}))
    with pytest.raises(ConfigError, match="was measured with --steps 4 --n 2"):
        side_by_side.measured(side_by_side.options_of(["--steps", "5", "--n", "2", "--seeds", "1"]), tmp_path)
    with pytest.raises(ConfigError, match="--n must be at least 2"):
        side_by_side.options_of(["--n", "1"])
