"""Every config composes, alone and with the others, and what it describes can be built."""

import copy
import functools
import itertools
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from heatgen.app.build import build, build_sampler, instantiate
from heatgen.app.trainer import make_trainer
from heatgen.check import ConfigError
from heatgen.model.ihd import untrained_errors
from heatgen.sampler.interface import check_pair

CONF = Path(__file__).resolve().parents[1] / "conf"


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def unresolved(script: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(script, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg


def composed(script: str, *overrides: str) -> DictConfig:
    cfg = unresolved(script, *overrides)
    OmegaConf.resolve(cfg)
    return cfg


TINY: dict[str, dict[str, Any]] = {  # by network: the options that keep its weights few
    "UNet": {"model_channels": 4, "norm_groups": 1, "num_res_blocks": 1, "attention_levels": []},
    "EncoderDecoder": {"channels": 2, "blocks": 2},
    "BayesianUNet": {"channels": [2, 2]},
    "FNO": {"modes": 2, "width": 2},
    "MLP": {"width": 4, "depth": 1},
    "NeuralProcess": {"width": 4, "latent": 2, "hidden": 4, "channels": 2, "layers": 1},
    "NullNet": {},
}


def small(cfg: DictConfig) -> DictConfig:
    """`cfg` with few weights and levels, and data that is present."""
    cfg.net.update(TINY[cfg.net._target_.rsplit(".", 1)[-1]])
    cfg.forward.num_levels = 3
    if "regime" in cfg.model:
        cfg.model.regime.update({"context": [1, 1], "targets": 2})
    if "path" in cfg.data:
        cfg.data.path = "somewhere"
    return cfg


@functools.cache
def forward_node(forward: str) -> DictConfig:
    """The forward process of a config before its interpolations are resolved: composing takes long."""
    return unresolved("train", f"forward={forward}").forward


NEURAL_PROCESSES = {
    *("np", "attentive_np", "causal_np", "conv_np", "grid_conv_np"),
    *("lupi_np", "lupi_np_oracle", "lupi_np_shuffled", "lupi_np_zero"),
    *("cnp", "conv_cnp", "gnp", "grid_conv_cnp", "heat_cnp", "tnp"),
}
POINTS = ("checkerboard", "gaussian_mixture", "point", "ring", "swiss_roll", "two_points")
CONVOLUTIONAL = ("autoregressive", "bayesian", "resnet", "smdp", "ssm")  # their own networks want a box of pixels


@pytest.mark.parametrize(("model", "data"), list(itertools.product(CONVOLUTIONAL, POINTS[:2])))
def test_a_network_of_periodic_convolutions_refuses_points_and_names_one_that_takes_them(model: str, data: str) -> None:
    with pytest.raises(ConfigError, match=r"^data\.shape must have at least .* not 1 x [12]; choose net=mlp\.$"):
        build(composed("train", f"model={model}", f"data={data}"))


def presets(group: str) -> set[str]:
    """The options of a group that only set values of another one."""
    return {name for name in options(group) if any(isinstance(d, str) for d in defaults_of(group, name))}


def defaults_of(group: str, name: str) -> list[Any]:
    return list(OmegaConf.load(CONF / group / f"{name}.yaml").get("defaults", []))


def combinations() -> list[tuple[str, str]]:
    """Every model with every data set; of presets, which have the code of others, every one with two of the other group."""
    models, data = ([name for name in options(group) if name not in presets(group)] for group in ("model", "data"))
    found = list(itertools.product(models, data))
    found += itertools.product(sorted(presets("model")), ("digits", "gaussian_mixture"))
    return found + list(itertools.product(("ihd", "autoregressive"), sorted(presets("data"))))


@pytest.mark.parametrize(("model", "data"), combinations())
def test_any_model_with_any_data_set_is_built_with_any_forward_map_or_refuses_the_map(model: str, data: str) -> None:
    wanted, built = ["data", "forward", "net", "model", "sampler", "regime", "seed", "data_dir"], []
    net = ["net=mlp"] if model in CONVOLUTIONAL and data in POINTS else []
    if data in POINTS:
        net = {"conv_np": ["net=neural_process"], "tnp": ["net.patch=1"]}.get(model, net)
    plain = OmegaConf.masked_copy(unresolved("train", f"model={model}", f"data={data}", *net), wanted)
    for forward in options("forward"):
        cfg = copy.deepcopy(plain)
        cfg.forward = forward_node(forward)
        OmegaConf.resolve(cfg)
        try:
            method, module = build(small(cfg))
        except ConfigError as error:
            assert f"forward={forward}" in str(error)
            continue
        assert method.process.shape == module.spec.shape == tuple(cfg.data.shape)
        assert method.process.name == forward
        built.append(forward)
    assert len(built) > len(options("forward")) / 3


# experiments -------------------------------------------------------------------------------------------------------------

PUBLISHED = {  # weights of the network, K, widest blur, batch, learning rate, decay of the averages; half precision
    "ihd_mnist": (42_082_049, 100, 20, 128, 2e-4, 0.999, False),
    "ihd_mnist_small": (3_704_129, 50, 20, 128, 2e-4, 0.999, False),
    "ihd_fashion_mnist": (42_082_049, 100, 20, 128, 2e-4, 0.999, False),
    "ihd_cifar10": (61_060_867, 200, 24, 128, 2e-4, 0.999, True),
    "ihd_afhq64": (88_217_219, 200, 32, 128, 1e-4, 0.999, False),
    "ihd_afhq256": (210_904_835, 200, 128, 32, 1e-4, 0.9999, False),
    "ihd_ffhq128": (159_981_443, 200, 128, 32, 2e-4, 0.9999, True),
    "ihd_ffhq256": (210_904_835, 200, 128, 32, 2e-5, 0.9999, True),
    "ihd_lsun_church128": (261_828_227, 400, 64, 32, 2e-5, 0.999, True),
}


BENCHMARK = OmegaConf.load(CONF / "experiment" / "reconstruction.yaml")
METHODS = BENCHMARK.hydra.sweeper.params.model.split(",")
TABLES = {  # what an experiment looks up by method, or by an option of the network
    "reconstruction": ("steps", "rates", "measured"),
    "heat_kernel": ("depths", "embeddings", "scales"),
    "neural_processes": ("steps", "rates"),
}


def experiment(name: str, *overrides: str) -> DictConfig:
    return composed("train", f"experiment={name}", *(["model=smdp"] if name == "reconstruction" else []), *overrides)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_published_setting_has_the_numbers_of_the_paper(name: str) -> None:
    cfg = experiment(name)
    with torch.device("meta"):
        net = instantiate(cfg.net)
    weights = sum(parameter.numel() for parameter in net.parameters())
    blur, lr, half = cfg.forward.sigma_max, cfg.model.optimizer.lr, cfg.trainer.precision == "16-mixed"
    got = (weights, cfg.forward.num_levels, blur, cfg.data.batch_size, lr, cfg.callback.ema.decay, half)
    assert got == PUBLISHED[name]
    assert (cfg.trainer.max_steps, cfg.model.warmup_steps, cfg.trainer.gradient_clip_val) == (1_300_000, 5000, 1.0)
    assert cfg.forward.sigma == 0.01 and cfg.forward.sigma_min == 0.5


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_published_setting_learns_the_residual_as_the_paper_does(name: str) -> None:
    errors = untrained_errors(instantiate(experiment(name).forward))
    assert min(errors, key=lambda key: errors[key]) == "residual"


@pytest.mark.parametrize("name", options("experiment"))
def test_the_model_of_an_experiment_is_built(name: str) -> None:
    assert name in PUBLISHED or name in ("linear_maps", "reconstruction", "smdp_released", "heat_kernel", "neural_processes")
    cfg = small(experiment(name))
    model, data = build(cfg)
    assert model.process.shape == data.spec.shape == tuple(cfg.data.shape)
    assert cfg.experiment_name == name


@pytest.mark.parametrize("name", options("experiment"))
def test_an_experiment_sets_keys_that_exist(name: str) -> None:
    preset = OmegaConf.load(CONF / "experiment" / f"{name}.yaml")
    groups = [f"{key.removeprefix('override /')}={option}" for entry in preset.defaults for key, option in entry.items()]
    plain = OmegaConf.to_container(composed("train", *groups))

    def unknown(node: dict[str, Any], beside: object, path: str = "") -> list[str]:
        missing = [f"{path}{key}" for key in node if not isinstance(beside, dict) or key not in beside]
        nested = [key for key in node if isinstance(node[key], dict) and f"{path}{key}" not in missing]
        return missing + [word for key in nested for word in unknown(node[key], beside[key], f"{path}{key}.")]

    tables = TABLES.get(name, ())
    values = OmegaConf.to_container(preset, resolve=False)
    assert unknown({key: value for key, value in values.items() if key not in ("defaults", "hydra", *tables)}, plain) == []


OTHER_BOXES = {"stochastic_heat", "heat_kernel", "neumann_heat"}  # maps of fields and points


def test_the_experiment_on_linear_maps_takes_every_map_of_images_and_measures_with_modes_that_exist() -> None:
    preset = OmegaConf.load(CONF / "experiment" / "linear_maps.yaml")
    assert preset.hydra.mode == "MULTIRUN"
    parsed = OverridesParser.create().parse_override(f"forward={preset.hydra.sweeper.params.forward}")
    assert sorted(parsed.sweep_string_iterator()) == sorted(set(options("forward")) - OTHER_BOXES)
    for words in preset.evaluate:
        cfg = composed("evaluate", *shlex.split(words))
        assert callable(instantiate(cfg.metric))


@pytest.mark.parametrize("model", [*METHODS, "np", "heat_cnp"])
def test_the_benchmark_trains_a_method_with_its_own_budget_and_measures_it_as_one_can(model: str) -> None:
    cfg = experiment("reconstruction", f"model={model}")
    assert cfg.trainer.max_steps == BENCHMARK.steps.get(model, 500) and cfg.publish == "reconstruction"
    method, data = build(small(cfg))
    assert data.spec.shape == (1, 32, 32) and method.process.name == "stochastic_heat"
    rows = []
    for words in cfg.evaluate:
        asked = composed("evaluate", *shlex.split(words))
        assert callable(instantiate(asked.metric))
        rows.append(asked.variant)
        if asked.get("sampler") is not None:
            check_pair(build_sampler(asked.sampler), method)
    assert rows and all(rows) and len(set(rows)) == len(rows)


def test_the_benchmark_takes_every_method_that_reconstructs_and_neural_processes_by_name() -> None:
    assert set(METHODS) == set(options("model")) - {"ihd", "supervised", "heat_kernel_score", *NEURAL_PROCESSES}


# the other groups --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", options("net"))
def test_any_net_is_built(net: str) -> None:
    cfg = composed("train", f"net={net}")
    built, _ = build(cfg)
    assert f"{type(built.net).__module__}.{type(built.net).__name__}" == cfg.net._target_


@pytest.mark.parametrize("sampler", options("sampler"))
def test_any_sampler_is_built_for_the_models_that_have_what_it_needs_and_refused_by_the_others(sampler: str) -> None:
    suited = 0
    for model in options("model"):
        cfg = small(composed("train", f"model={model}", f"sampler={sampler}"))
        try:
            built, _ = build(cfg)
        except ConfigError as error:
            assert str(error).startswith(f"sampler={sampler} needs ")
            continue
        assert built.sampler.func.__name__ == sampler
        suited += built.uses_sampler
    assert suited > 0


@pytest.mark.parametrize(
    ("model", "net"), [("fno", "fno"), ("resnet", "resnet"), ("bayesian", "bayesian_unet"), ("ssm", None)]
)
def test_the_network_of_a_model_can_be_replaced(model: str, net: str | None) -> None:
    own = composed("train", f"model={model}").net
    assert own == composed("train", f"net={net or 'encoder_decoder'}").net
    for overrides in (["net=unet", f"model={model}"], [f"model={model}", "net=unet"]):
        assert composed("train", *overrides).net._target_ == "heatgen.net.unet.UNet"


@pytest.mark.parametrize("trainer", options("trainer"))
def test_any_trainer_is_built_or_refused_by_name_where_there_is_no_gpu(trainer: str, tmp_path: Path) -> None:
    cfg = composed("train", f"trainer={trainer}")
    options = OmegaConf.to_container(cfg.trainer)
    _, data = build(cfg)
    if options["accelerator"] == "gpu" and not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu is refused"):
            make_trainer(options, tmp_path, data, [], [])
        return
    built = make_trainer(options, tmp_path, data, [], [])
    assert built.max_steps == cfg.data.did_you_mean.max_steps and built.max_epochs == -1


@pytest.mark.parametrize("logger", options("logger"))
def test_any_logger_is_built(logger: str, tmp_path: Path) -> None:
    cfg = composed("train", f"logger={logger}")
    built = [instantiate(node, folder=str(tmp_path)) for node in cfg.logger.values()]
    assert "csv" in cfg.logger and len(built) == (1 if logger == "csv" else 2)


@pytest.mark.parametrize("mode", options("mode"))
def test_any_metric_is_built_and_says_how_many_samples_it_takes(mode: str) -> None:
    cfg = composed("evaluate", f"mode={mode}")
    assert callable(instantiate(cfg.metric))
    assert not OmegaConf.is_missing(cfg, "n")
    with pytest.raises(ConfigError, match="has no option 'speed'"):
        instantiate(OmegaConf.merge(cfg.metric, {"speed": 3}))


@pytest.mark.parametrize("mode", sorted(set(options("mode")) - {"fid"}))
def test_a_metric_that_inherits_keeps_the_settings_of_fid(mode: str) -> None:
    own, fid = composed("evaluate", f"mode={mode}"), composed("evaluate", "mode=fid")
    inherits = OmegaConf.load(CONF / "mode" / f"{mode}.yaml").get("defaults") == ["fid"]
    assert inherits == (set(fid.metric) <= set(own.metric)) == (own.n == fid.n)
    if inherits:
        assert {key: own.metric[key] for key in fid.metric if key != "_target_"} == {
            key: value for key, value in fid.metric.items() if key != "_target_"
        }


@pytest.mark.parametrize("forward", options("forward"))
@pytest.mark.parametrize("data", ["digits", "ffhq"])
def test_a_map_is_looked_at_with_a_data_set_alone(forward: str, data: str) -> None:
    cfg = composed("evaluate", "mode=forward", "run=null", f"data={data}", f"forward={forward}", "forward.num_levels=5")
    process = instantiate(cfg.forward)
    assert process.shape == tuple(cfg.data.shape) and process.num_levels == 5


def test_the_callbacks_are_built() -> None:
    cfg = composed("train")
    assert set(cfg.callback) == set(options("callback"))
    for node in cfg.callback.values():
        instantiate(node)


def test_the_sampling_config_resolves_without_data() -> None:
    assert composed("sample").trainer.max_steps is None
