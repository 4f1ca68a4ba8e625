"""The config of a run that goes on: its own, with what the command line may change. What cannot act is refused by name."""

import logging
import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf

from heatgen.app.build import locate, options_of_target
from heatgen.app.folders import differing
from heatgen.app.load import data_name, read_config
from heatgen.app.options import SearchPath, dotted, holds, known_keys
from heatgen.app.plain import plain
from heatgen.app.trust import leaves_out_measurements, named_targets
from heatgen.check import ConfigError, did_you_mean
from heatgen.runtime.directory import mapped

log = logging.getLogger("heatgen")

ACTING_GROUPS = ("trainer", "callback", "logger", "sampler")  # of which another option can be chosen, too
ACTING = {  # all keys of these groups, but how their objects are made
    *(f"data.{key}" for key in ("batch_size", "num_workers", "path", "data_dir", "cache_limit", "flip", "augment", "seed")),
    *("net.checkpointing", "model.warmup_steps", "model.seed", "seed", "compile"),
    *("data_dir", "runs_dir", "experiment_name", "evaluate", "publish"),
}
MADE_BY = ("trainer._target_", "optimizer._target_", "trainer._partial_", "optimizer._partial_")
OF_THE_COMMAND = ("resume", "trust")
FOLLOWERS = {  # a key -> those that follow it in conf/, where they have the same value; config.yaml holds values alone
    "seed": ("data.seed", "model.seed", "callback.pictures.seed"),
    "data_dir": ("data.data_dir", "data.path"),
    "experiment_name": ("logger.mlflow.experiment_name",),
    "trainer.val_check_interval": ("callback.pictures.every",),
}
TAKEN_BY = {  # what a new run takes from the keys of data.recommended, where it can still be changed
    "learning_rate": "optimizer.lr",
    "warmup_steps": "model.warmup_steps",
    "ema": "callback.ema.decay",
    "pictures": "callback.pictures.n",
    "max_steps": "trainer.max_steps",
    "val_check_interval": "trainer.val_check_interval",
}


def resumed(
    run_dir: Path,
    overrides: list[str],
    fresh: DictConfig,
    groups: Collection[str],
    trust: bool = False,
    named: Collection[str] = (),
) -> tuple[DictConfig, str]:
    """The config of a run that goes on, and a note of what is other than before.

    Args:
        run_dir: the run.
        overrides: of this command line, without Hydra's own.
        fresh: the config that they compose for a new run, where the nodes of acting groups are taken from.
        groups: all config groups.
        trust: whether the run's config may name any code, and what it measures at its end is done.
        named: code that it may name all the same, besides that which the overrides name.

    Raises:
        ConfigError: an override changes what cannot be changed, or the run cannot be read.
    """
    cfg = read_config(run_dir, trust, {*named, *named_targets(overrides)})
    cfg.trust, cfg.resume = trust, str(run_dir)
    if leaves_out_measurements(cfg, overrides):
        log.warning(
            "Note: evaluate= of %s is not done, as it may be somebody else's; give it again, or say trust=true.",
            run_dir / "config.yaml",
        )
    OmegaConf.set_struct(cfg, True)
    parsed = OverridesParser.create().parse_overrides(overrides)
    chosen = [o for o in parsed if (o.key_or_group in groups or "/" in o.key_or_group) and not isinstance(o.value(), dict)]
    new = differing(run_dir, [str(override.input_line) for override in chosen])
    for override in chosen:
        if str(override.input_line).lstrip("+") in new:
            choose(cfg, fresh, override)
    changes: dict[str, tuple[object, object]] = {}
    given = list(leaves([o for o in parsed if o not in chosen]))
    for key, value, word in given:
        change(cfg, key, value, word, changes)
    follow(cfg, changes, [key for key, _, _ in given])
    if "trainer.max_steps" in changes and "trainer.max_epochs" not in changes:
        OmegaConf.update(cfg, "trainer.max_epochs", None, force_add=True)  # which would replace it
    told = ", ".join(f"{key}={after} (was {before})" for key, (before, after) in changes.items())
    return cfg, f"from here on {told}." if told else ""


def choose(cfg: DictConfig, fresh: DictConfig, override: Override) -> None:
    """Take another option of a group: which callbacks and loggers there are, another sampler, other devices.

    Callbacks and loggers that the run has already keep its own options, and so does the trainer for all but its devices.
    """
    group = override.key_or_group
    if group not in ACTING_GROUPS or (override.is_delete() and group == "trainer"):
        raise ConfigError(f"resume keeps the run's own {group}; remove {typed_word(override)}, or start a new run with it.")
    node = None if override.is_delete() else fresh.get(group)
    content = {} if node is None else OmegaConf.to_container(node, resolve=False)
    assert isinstance(content, dict)
    if group == "trainer":
        usual = SearchPath.current().load("train", ["trainer=default"]).trainer
        raw = OmegaConf.to_container(usual, resolve=False)
        assert isinstance(raw, dict)
        devices = ("accelerator", "devices", "num_nodes", "strategy")
        content = {key: value for key, value in content.items() if key in devices or value != raw.get(key)}
        OmegaConf.update(cfg, group, content, force_add=True)
        return
    own = cfg.get(group)
    if group != "sampler" and own is not None:
        content = {name: value if own.get(name) is None else own[name] for name, value in content.items()}
    chosen = None if node is None else mapped(content, lambda value: of_this_run(value, cfg))
    OmegaConf.update(cfg, group, chosen, merge=False, force_add=True)


def of_this_run(content: object, cfg: DictConfig) -> object:
    """A value of a fresh config; the name of a group's option, as a logger takes it, is that of a run."""
    found = re.fullmatch(r"\$\{hydra:runtime\.choices\.(\w+)\}", content) if isinstance(content, str) else None
    if found is None:
        return content
    return data_name(cfg) if found[1] == "data" else str(cfg[found[1]]._target_).split(".")[-2]


def typed_word(override: Override) -> str:
    """An override as the user typed it, without the signs that the command line puts before it."""
    return str(override.input_line).lstrip("+")


DELETED = object()  # the value of a key that ~KEY takes away


def leaves(overrides: list[Override]) -> Iterator[tuple[str, object, str]]:
    """The dotted keys that overrides set, their values, and the words that say so; `_target_` before its options."""
    found = [(o.key_or_group, DELETED if o.is_delete() else o.value(), typed_word(o)) for o in overrides]
    flat: list[tuple[str, object, str]] = []
    while found:
        key, value, word = found.pop(0)
        if isinstance(value, dict):
            found = [(f"{key}.{name}", one, word) for name, one in value.items()] + found
        elif key not in OF_THE_COMMAND:
            flat.append((key, value, word))
    yield from sorted(flat, key=lambda leaf: not leaf[0].endswith("._target_"))


def change(cfg: DictConfig, key: str, value: object, word: str, changes: dict[str, tuple[object, object]]) -> None:
    """Set a key of a run's config. ConfigError where that cannot act; the value that it has is no change."""
    known, before = holds(cfg, key), select(cfg, key)
    if not known and (value is DELETED or not can_be_added(cfg, key)):
        hint = did_you_mean(key, dotted(cfg))
        raise ConfigError(f"{key} is not a key of the resumed run's config{hint or f'; remove {word}.'}")
    if value is DELETED:
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        OmegaConf.set_struct(node, False)
        del node[name]
    else:
        OmegaConf.update(cfg, key, value, force_add=True)
    after = None if value is DELETED else select(cfg, key)
    if known and before == after and value is not DELETED:
        return
    if not acts(key):
        raise kept(key, word)
    changes[key] = (before, after)


def acts(key: str) -> bool:
    """Whether a key can be changed in a training that goes on."""
    group, _, rest = key.partition(".")
    return key in ACTING or (bool(rest) and group in (*ACTING_GROUPS, "optimizer") and key not in MADE_BY)


def kept(key: str, word: str) -> ConfigError:
    """The sentence for a key that cannot be changed."""
    name = key.removeprefix("data.recommended.")
    if name != key and name in TAKEN_BY:
        return ConfigError(f"{key} is only what a new run takes {TAKEN_BY[name]} from; give that in place of {word}.")
    return ConfigError(f"resume keeps the run's own {key}; remove {word}, or start a new run with it.")


def follow(cfg: DictConfig, changes: dict[str, tuple[object, object]], given: Collection[str]) -> None:
    """Give the new value of a key to those that follow it in conf/, unless the command line or the run had another."""
    for root, followers in FOLLOWERS.items():
        if root not in changes:
            continue
        before, after = changes[root]
        for key in followers:
            own = select(cfg, key)
            if key in given or own is None:
                continue
            inside = key == "data.path" and str(own).startswith(f"{before}/")
            if inside or own == before:
                new = f"{after}{str(own).removeprefix(str(before))}" if inside else after
                OmegaConf.update(cfg, key, new)
                changes[key] = (own, new)


def select(cfg: DictConfig, key: str) -> object:
    """The value of a key as plain data; None where there is none."""
    value = OmegaConf.select(cfg, key) if holds(cfg, key) else None
    value = OmegaConf.to_container(value, resolve=True) if isinstance(value, (DictConfig, ListConfig)) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def can_be_added(cfg: DictConfig, key: str) -> bool:
    """Whether a run's config can get a key that it does not have: a callback or logger, or an option of what is there."""
    parent, _, name = key.rpartition(".")
    if name == "_target_" and parent.count(".") == 1 and parent.split(".")[0] in ("callback", "logger"):
        return True
    node = OmegaConf.select(cfg, parent) if parent and holds(cfg, parent) else None
    if isinstance(node, DictConfig) and "_target_" in node and not name.startswith("_"):
        options = options_of_target(locate(str(plain(node)["_target_"])))
        if options is None or name in options:
            return True
    return key in known_keys("train", SearchPath.current().loader()) and (not parent or node is not None)
