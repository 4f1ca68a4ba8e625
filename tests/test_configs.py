"""Every config composes, alone and with the others, and what it describes can be built."""

import copy
import functools
import itertools
import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import shipped
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class, get_method
from omegaconf import DictConfig, OmegaConf

from heatgen.app.build import build, build_data, build_optimizer, build_sampler, instantiate
from heatgen.app.options import options_of
from heatgen.app.trainer import make_trainer
from heatgen.check import ConfigError
from heatgen.model.parametrisation import untrained_errors
from heatgen.sampler.interface import check_pair, members_of, protocol_of

CONF = Path(__file__).resolve().parents[1] / "conf"


@functools.cache
def whole(script: str, *overrides: str) -> DictConfig:
    """A config as Hydra composes it, which takes long."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(script, list(overrides), return_hydra_config=True)
    OmegaConf.set_struct(cfg, False)
    return cfg


def unresolved(script: str, *overrides: str) -> DictConfig:
    cfg = whole(script, *overrides)
    HydraConfig.instance().set_config(cfg)
    return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])


def composed(script: str, *overrides: str) -> DictConfig:
    cfg = unresolved(script, *overrides)
    OmegaConf.resolve(cfg)
    return cfg


TINY = {
    "num_levels": 3,
    "unet": {"model_channels": 4, "norm_groups": 1, "num_res_blocks": 1, "attention_levels": []},
    "encoder_decoder": {"channels": 2, "blocks": 2},
}  # what a data set recommends, made small


def small(cfg: DictConfig) -> DictConfig:
    """An unresolved config with few weights and levels, and data that is present."""
    cfg.data.recommended = OmegaConf.merge(cfg.data.recommended, TINY)
    cfg.forward.num_levels = TINY["num_levels"]
    if cfg.get("regime") is not None:
        cfg.regime.update({key: value for key, value in {"context": [1, 1], "targets": 2}.items() if key in cfg.regime})
    if "path" in cfg.data:
        cfg.data.path = "somewhere"
        if "resolution" in cfg.data:
            cfg.data.resolution = 8
        else:
            cfg.data.shape = [cfg.data.shape[0], 8, 8]
    return cfg


# every combination ---------------------------------------------------------------------------------------------------------


def covering(*groups: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Triples in which every pair of options of two groups stands at least once."""
    order = sorted(range(3), key=lambda i: -len(groups[i]))
    large, middle, least = (groups[i] for i in order)
    for (i, a), (j, b) in itertools.product(enumerate(large), enumerate(middle)):
        triple = dict(zip(order, (a, b, least[(i + j) % len(least)]), strict=True))
        yield tuple(triple[i] for i in range(3))


PARTS = ("data", "forward", "net", "model", "sampler", "regime", "optimizer", "seed", "data_dir")  # of what is built


@functools.cache
def chosen(group: str, option: str) -> dict[str, Any]:
    """What is built of a config with one choice of its own, as plain values that are not resolved."""
    cfg = whole("train", f"{group}={option}")
    return {key: OmegaConf.to_container(cfg, resolve=False).get(key) for key in PARTS}


def test_a_covering_set_has_every_pair() -> None:
    groups = ("abc", "0123456", "uvxyz")
    found = list(covering(*groups))
    for i, j in itertools.combinations(range(3), 2):
        assert {(triple[i], triple[j]) for triple in found} == set(itertools.product(groups[i], groups[j]))


@pytest.mark.slow
def test_every_pair_of_model_data_set_and_forward_map_is_built_or_refused_by_its_name() -> None:
    groups = ("model", "data", "forward")
    options = {group: options_of(group) for group in groups}
    presets = [name for name in options["forward"] if shipped("forward", name)["_target_"].endswith(".Composed")]
    alike = {*presets} - {"composed", "flow", "relay", "scale_space"}  # the others that models or data may refuse
    options["forward"] = [name for name in options["forward"] if name not in alike]
    built: dict[str, set[str]] = defaultdict(set)
    for choices in covering(*options.values()):
        model, _, forward = choices
        parts = chosen("model", model) | {
            group: shipped(group, option) for group, option in zip(groups, choices, strict=True) if group != "model"
        }
        cfg = small(OmegaConf.create(parts))
        try:
            try:
                method, module = build(cfg)
            except ConfigError as error:  # networks of pixels are for pixels
                if "choose net=mlp" not in str(error):
                    raise
                cfg = small(OmegaConf.create(parts | {"net": chosen("net", "mlp")["net"]}))
                method, module = build(cfg)
        except ConfigError as error:
            assert f"forward={forward}" in str(error) or "forward.basis." in str(error), f"{choices}: {error}"
            continue
        assert method.process.shape == module.spec.shape == tuple(cfg.data.shape)
        assert method.process.name == forward
        for group, choice in zip(groups, choices, strict=True):
            built[group].add(choice)
    assert built == {group: set(names) for group, names in options.items()}


@pytest.mark.slow
@pytest.mark.parametrize("net", options_of("net"))
def test_any_net_is_built(net: str) -> None:
    cfg = composed("train", f"net={net}", "data.recommended.num_levels=3")
    built = instantiate(cfg.net)
    assert f"{type(built).__module__}.{type(built).__name__}" == cfg.net._target_


@pytest.mark.slow
def test_any_sampler_suits_some_model_and_is_refused_by_name_for_the_others() -> None:
    classes = {model: get_class(chosen("model", model)["model"]["_target_"]) for model in options_of("model")}
    samplers = {sampler: get_method(chosen("sampler", sampler)["sampler"]["_target_"]) for sampler in options_of("sampler")}
    for name, sampler in samplers.items():
        protocol = protocol_of(sampler)
        assert protocol is not None, name
        suited = [
            c for c in classes.values() if all(getattr(c, member, None) is not None for member in members_of(protocol))
        ]
        assert any(c.uses_sampler for c in suited), name
        other = next(c for c in classes.values() if c not in suited)
        with pytest.raises(ConfigError, match=f"sampler={sampler.__name__} needs "):
            check_pair(sampler, other.__new__(other))


@pytest.mark.parametrize("model", options_of("model"))
def test_a_model_comes_with_a_network_an_optimizer_and_a_sampler_that_suit_it(model: str) -> None:
    cfg = chosen("model", model)
    method = get_class(cfg["model"]["_target_"])
    assert (cfg["optimizer"] is not None) == method.trainable
    assert (cfg["sampler"] is not None) == method.uses_sampler


@pytest.mark.slow
@pytest.mark.parametrize(("model", "net"), [("supervised", "fno"), ("smdp", None), ("np", "tnp")])
def test_the_network_of_a_model_can_be_replaced(model: str, net: str | None) -> None:
    own = unresolved("train", f"model={model}", *([f"net={net}"] if net else []))
    assert own.net == unresolved("train", f"net={net or 'encoder_decoder'}").net
    for overrides in (["net=unet", f"model={model}"], [f"model={model}", "net=unet"]):
        assert unresolved("train", *overrides).net._target_ == "heatgen.net.unet.UNet"


# experiments -------------------------------------------------------------------------------------------------------------

PUBLISHED = {  # weights of the network, K, widest blur, batch, learning rate, decay of the averages
    "ihd_mnist": (42_082_049, 100, 20, 128, 2e-4, 0.999),
    "ihd_mnist_small": (3_704_129, 50, 20, 128, 2e-4, 0.999),
    "ihd_fashion_mnist": (42_082_049, 100, 20, 128, 2e-4, 0.999),
    "ihd_cifar10": (61_060_867, 200, 24, 128, 2e-4, 0.999),
    "ihd_afhq64": (88_217_219, 200, 32, 128, 1e-4, 0.999),
    "ihd_afhq256": (210_904_835, 200, 128, 32, 1e-4, 0.9999),
    "ihd_ffhq128": (159_981_443, 200, 128, 32, 2e-4, 0.9999),
    "ihd_ffhq256": (210_904_835, 200, 128, 32, 2e-5, 0.9999),
    "ihd_lsun_church128": (261_828_227, 400, 64, 32, 2e-5, 0.999),
}


@functools.cache
def experiment(name: str) -> DictConfig:
    return composed("train", f"experiment={name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_published_setting_has_the_numbers_of_the_paper(name: str) -> None:
    cfg = experiment(name)
    with torch.device("meta"):
        net = instantiate(cfg.net)
    weights = sum(parameter.numel() for parameter in net.parameters())
    batch = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches  # of an optimizer step
    got = (weights, cfg.forward.num_levels, cfg.forward.sigma_max, batch, cfg.optimizer.lr, cfg.callback.ema.decay)
    assert got == PUBLISHED[name]
    assert (cfg.trainer.max_steps, cfg.model.warmup_steps, cfg.trainer.gradient_clip_val) == (1_300_000, 5000, 1.0)
    assert cfg.forward.sigma == 0.01 and cfg.forward.sigma_min == 0.5


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_a_published_setting_learns_the_residual_as_the_paper_does(name: str) -> None:
    errors = untrained_errors(instantiate(experiment(name).forward))
    assert min(errors, key=lambda key: errors[key]) == "residual"


def rows_of(name: str) -> list[str]:
    """The rows of an experiment that has some, else none."""
    return options_of(f"experiment/{name}")


def row(name: str, option: str | None) -> DictConfig:
    return unresolved("train", f"experiment={name}", *([] if option is None else [f"experiment/{name}={option}"]))


ROWS = [(name, option) for name in options_of("experiment") for option in rows_of(name) or [None]]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option"), ROWS)
def test_an_experiment_is_built_and_measures_with_modes_and_samplers_that_fit(name: str, option: str | None) -> None:
    cfg = small(copy.deepcopy(row(name, option)))
    model, data = build(cfg)
    assert model.process.shape == data.spec.shape == tuple(cfg.data.shape)
    assert cfg.experiment_name == name
    variants = []
    for words in cfg.evaluate or []:
        asked = composed("evaluate", *shlex.split(words))
        assert callable(instantiate(asked.metric))
        variants.append((words.split()[0], asked.variant))
        if asked.get("sampler") is not None:
            check_pair(build_sampler(asked.sampler), model)
    assert len(set(variants)) == len(variants)


@pytest.mark.parametrize("name", options_of("experiment"))
def test_an_experiment_sets_keys_that_exist(name: str) -> None:
    """Options of what is built are refused where it is built; here are the others."""
    plain: Any = OmegaConf.to_container(whole("train"), resolve=False)
    known = dotted(
        {key: plain[key] for key in plain if key not in ("hydra", "data")} | {"data": plain["data"]["recommended"]}
    )
    for file in [CONF / "experiment" / f"{name}.yaml", *(CONF / "experiment" / name).glob("*.yaml")]:
        values: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        values["data"] = values.get("data", {}).get("recommended", {})
        built = ("defaults", "hydra", "model", "net", "forward")
        assert dotted({key: value for key, value in values.items() if key not in built}) <= known, file


def dotted(node: dict[str, Any], prefix: str = "") -> set[str]:
    """The keys of nested dictionaries, as a.b.c."""
    own = {f"{prefix}{key}" for key in node}
    return own.union(*(dotted(value, f"{prefix}{key}.") for key, value in node.items() if isinstance(value, dict)))


def test_the_sweep_of_an_experiment_takes_options_that_exist() -> None:
    swept = 0
    for name in options_of("experiment"):
        params = OmegaConf.select(OmegaConf.load(CONF / "experiment" / f"{name}.yaml"), "hydra.sweeper.params")
        for key, values in (params or {}).items():
            parsed = OverridesParser.create().parse_override(f"{key}={values}")
            if options := options_of(key):
                assert set(parsed.sweep_string_iterator()) <= set(options), name
                swept += 1
    assert swept > 0


# the other groups --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", options_of("optimizer"))
def test_any_optimizer_takes_the_learning_rate_that_the_data_set_recommends(optimizer: str) -> None:
    cfg = composed("train", f"optimizer={optimizer}")
    built = build_optimizer(cfg.optimizer)([torch.nn.Parameter(torch.zeros(2))])
    assert isinstance(built, torch.optim.Optimizer)
    assert built.param_groups[0]["lr"] == cfg.data.recommended.learning_rate


@pytest.mark.parametrize("trainer", options_of("trainer"))
def test_any_trainer_is_built_or_refused_by_name_where_there_is_no_gpu(trainer: str, tmp_path: Path) -> None:
    cfg = composed("train", f"trainer={trainer}")
    options = OmegaConf.to_container(cfg.trainer) | {"precision": "32-true"}  # auto needs a network
    data = build_data(cfg.data)
    if options["accelerator"] == "gpu" and not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu is refused"):
            make_trainer(options, tmp_path, data, [], [])
        return
    built = make_trainer(options, tmp_path, data, [], [])
    assert built.max_steps == cfg.data.recommended.max_steps and built.max_epochs == -1


@pytest.mark.parametrize("logger", options_of("logger"))
def test_any_logger_is_built(logger: str, tmp_path: Path) -> None:
    if logger == "mlflow":
        pytest.importorskip("mlflow", exc_type=ImportError)
    cfg = composed("train", f"logger={logger}")
    built = [instantiate(node, folder=str(tmp_path)) for node in cfg.logger.values()]
    assert "csv" in cfg.logger and len(built) == len(cfg.logger) and logger in cfg.logger


@pytest.mark.slow
@pytest.mark.parametrize("mode", options_of("mode"))
def test_any_metric_is_built_and_says_how_many_samples_it_takes(mode: str) -> None:
    cfg = composed("evaluate", f"mode={mode}")
    assert callable(instantiate(cfg.metric))
    assert not OmegaConf.is_missing(cfg, "n")
    with pytest.raises(ConfigError, match="has no option 'speed'"):
        instantiate(OmegaConf.merge(cfg.metric, {"speed": 3}))


def test_a_metric_that_inherits_keeps_the_settings_of_its_base() -> None:
    for mode in options_of("mode"):
        for base in OmegaConf.load(CONF / "mode" / f"{mode}.yaml").get("defaults", []):
            if isinstance(base, str) and base in options_of("mode"):
                own, other = composed("evaluate", f"mode={mode}"), composed("evaluate", f"mode={base}")
                kept = {key: value for key, value in other.metric.items() if key != "_target_"}
                assert own.n == other.n and kept.items() <= dict(own.metric).items()


def test_a_map_is_looked_at_with_a_data_set_alone() -> None:
    words = ("evaluate", "mode=forward", "run=null", "data=ffhq", "forward=heat", "forward.num_levels=5")
    cfg = composed(*words)
    process = instantiate(cfg.forward)
    assert process.shape == tuple(cfg.data.shape) and process.num_levels == 5


@pytest.mark.parametrize("callback", options_of("callback"))
def test_any_callback_or_set_of_them_is_built_and_can_be_chosen_beside_the_default_ones(callback: str) -> None:
    cfg = composed("train", f"callback={callback}")
    assert len(cfg.callback) >= 1
    for node in cfg.callback.values():
        instantiate(node)
    both, default = unresolved("train", f"callback=[default,{callback}]"), unresolved("train")
    assert set(both.callback) == set(default.callback) | set(cfg.callback)


def test_a_callback_is_taken_away_by_name_and_without_any_there_are_checkpoints() -> None:
    assert "ema" not in unresolved("train", "~callback.ema").callback
    assert "checkpoints" in unresolved("train", "callback=none").callback


def test_the_sampling_config_resolves_without_data() -> None:
    assert composed("sample").trainer.max_steps is None


def test_every_key_of_every_config_says_what_it_is() -> None:
    silent: list[str] = []
    for path in sorted(CONF.rglob("*.yaml")):
        if "experiment" in path.parts or path.parent == CONF:
            continue
        described = described_by_base(path)
        for line in path.read_text().splitlines():
            key = line.split(":")[0].strip()
            is_setting = line and not line.startswith((" ", "#", "_target_", "defaults")) and not line.endswith(":")
            if is_setting and " # " not in line and key not in described:
                silent.append(f"{path.relative_to(CONF)}: {line}")
    assert silent == [], "\n".join(silent)


def described_by_base(path: Path) -> set[str]:
    """The keys that the bases of a config describe."""
    keys: set[str] = set()
    for base in OmegaConf.load(path).get("defaults", []):
        if isinstance(base, str) and base != "_self_":
            file = path.with_name(f"{base}.yaml")
            keys |= {line.split(":")[0].strip() for line in file.read_text().splitlines() if " # " in line}
            keys |= described_by_base(file)
    return keys
