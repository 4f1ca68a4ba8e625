"""No step waits for the GPU: every model over its own map, ihd and diffusion over every map, and a whole training."""

from pathlib import Path

import pytest
from conftest import call
from pretend import cases, metrics
from pretend.gpu import Gpu
from pretend.trainer import on_pretend_gpu

from heatgen.check import ConfigError

pytestmark = pytest.mark.slow
EXCEPT = {  # what a step may wait for: the place, and why
    "oracle/gaussian.py": "model=oracle solves a system of all pixels where the map is not diagonal, once a time",
    "oracle/mixture.py": "likewise, by a decomposition of the map's matrix",
}
EVERY_SAMPLER = ("diffusion scalar", "diffusion score", "smdp", "oracle", "oracle points")  # models that all are tried with


def unexpected(waits: cases.Waits) -> dict[tuple[str, str, str], int]:
    """The waits that no exception is made for."""
    return {site: n for site, n in waits.items() if site[2].split(":")[0] not in EXCEPT}


@pytest.mark.parametrize("name", cases.MODELS)
def test_no_step_of_any_model_waits(name: str) -> None:
    model, data = cases.make(cases.config(*cases.arguments(name)))
    with Gpu() as gpu:
        if model.trainable:
            assert not unexpected(cases.train(gpu, model, data))
        for sampler in cases.samplers(model) if name in EVERY_SAMPLER else [None]:
            try:
                other = model if sampler is None else cases.with_sampler(model, sampler)
                assert not unexpected(cases.sample(gpu, other, data)), sampler
            except ConfigError as refused:  # the map has no such steps, or the model draws no samples
                assert sampler or name == "lupi_np_oracle", refused
        assert not gpu.mismatches


@pytest.mark.parametrize("model", ["ihd", "diffusion"])
@pytest.mark.parametrize("chosen", cases.MAPS)
def test_no_step_over_any_map_waits(chosen: str, model: str) -> None:
    try:
        method, data = cases.over(model, chosen)
    except ConfigError:  # diffusion cannot do without what a map withholds
        assert model == "diffusion" and "hidden" in chosen
        return
    with Gpu() as gpu:
        assert not unexpected(cases.train(gpu, method, data))
        assert not unexpected(cases.sample(gpu, method, data)) and not gpu.mismatches


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
