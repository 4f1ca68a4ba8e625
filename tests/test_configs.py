"""Every config composes, alone and with the others, and what it describes can be built."""

import itertools
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from heatgen import run
from heatgen.check import ConfigError
from heatgen.training import make_trainer

CONF = Path(__file__).resolve().parents[1] / "conf"


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(script: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(script, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    OmegaConf.resolve(cfg)
    return cfg


def small(data: str) -> list[str]:
    """Overrides that keep the weights small and the data present."""
    width = ["net.model_channels=4", "net.norm_groups=1", "net.num_res_blocks=1", "net.attention_levels=[]"]
    return [f"data={data}", *width]


@pytest.mark.parametrize(
    ("model", "forward", "data"), list(itertools.product(options("model"), options("forward"), options("data")))
)
def test_any_model_with_any_forward_map_and_any_data_set_is_built(model: str, forward: str, data: str) -> None:
    cfg = composed("train", f"model={model}", f"forward={forward}", *small(data))
    cfg.data.path = "somewhere" if "path" in cfg.data else None
    if cfg.data.path is None:
        cfg.data.pop("path")
    built, module = run.build(cfg)
    assert built.process.shape == module.spec.shape == tuple(cfg.data.shape)
    assert built.process.name == forward


@pytest.mark.parametrize("net", options("net"))
@pytest.mark.parametrize("sampler", options("sampler"))
def test_any_net_and_sampler_are_built(net: str, sampler: str) -> None:
    built, _ = run.build(composed("train", f"net={net}", f"sampler={sampler}"))
    assert built.sampler.func.__name__ == sampler


@pytest.mark.parametrize("trainer", options("trainer"))
def test_any_trainer_is_built_or_refused_by_name_where_there_is_no_gpu(trainer: str, tmp_path: Path) -> None:
    cfg = composed("train", f"trainer={trainer}")
    options = OmegaConf.to_container(cfg.trainer)
    _, data = run.build(cfg)
    if options["accelerator"] == "gpu" and not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu is refused"):
            make_trainer(options, tmp_path, data, [], [])
        return
    built = make_trainer(options, tmp_path, data, [], [])
    assert built.max_steps == cfg.data.suggest.max_steps and built.max_epochs == -1


@pytest.mark.parametrize("logger", options("logger"))
def test_any_logger_is_built(logger: str, tmp_path: Path) -> None:
    cfg = composed("train", f"logger={logger}")
    built = [run.make(node, folder=str(tmp_path)) for node in cfg.logger.values()]
    assert "csv" in cfg.logger and len(built) == (1 if logger == "csv" else 2)


@pytest.mark.parametrize("mode", options("mode"))
def test_any_metric_is_built(mode: str) -> None:
    cfg = composed("evaluate", f"mode={mode}")
    assert callable(instantiate(cfg.metric))


def test_the_callbacks_are_built() -> None:
    cfg = composed("train")
    assert set(cfg.callback) == set(options("callback"))
    for node in cfg.callback.values():
        run.make(node)


def test_the_sampling_config_resolves_without_data() -> None:
    assert composed("sample").trainer.max_steps is None
