"""No step waits for the GPU: ihd and diffusion over every map, every metric, and a whole training."""

from pathlib import Path

import pytest
from conftest import call
from pretend import cases, metrics
from pretend.gpu import Gpu
from pretend.trainer import on_pretend_gpu

from heatgen.check import ConfigError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model", ["ihd", "diffusion"])
@pytest.mark.parametrize("chosen", cases.MAPS)
def test_no_step_over_any_map_waits(chosen: str, model: str) -> None:
    try:
        method, data = cases.over(model, chosen)
    except ConfigError:  # diffusion cannot do without what a map withholds
        assert model == "diffusion" and "hidden" in chosen
        return
    with Gpu() as gpu:
        assert not cases.unexpected(cases.train(gpu, method, data))
        assert not cases.unexpected(cases.sample(gpu, method, data)) and not gpu.mismatches


def test_every_mode_has_a_model_that_it_measures_here() -> None:
    assert sorted(metrics.MODES) == metrics.nodes()


@pytest.mark.parametrize("mode", metrics.MODES)
def test_no_metric_mixes_devices(mode: str, tmp_path: Path) -> None:
    with Gpu() as gpu:
        metrics.measure(gpu, mode, tmp_path)
        assert not gpu.mismatches


def test_a_training_waits_where_it_logs_validates_and_saves_alone(tmp_path: Path) -> None:
    words = [*cases.FIELDS, "trainer.log_every_n_steps=6", "trainer.max_steps=12", "trainer.val_check_interval=9"]
    words += ["callback.checkpoints.every=9", "callback.pictures.every=0", "model=diffusion", "net=mlp", "evaluate=[]"]
    with on_pretend_gpu() as (gpu, counts):
        assert call("train", *words, f"hydra.run.dir={tmp_path / 'run'}") == 0
        assert not gpu.mismatches and sorted(counts.steps) == list(range(1, 13))
    waiting = {step for step, waits in counts.steps.items() if waits} - {1}  # which makes the optimizer's state
    assert waiting <= {6, 7, 9, 10, 12}  # the row of step 6 is written when it has ended, last.ckpt of step 9 when 10 begins
