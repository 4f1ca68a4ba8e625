"""The keys of conf/ and values for them: small ones, legal ones and wrong ones; new options come by themselves."""

import functools
import random
import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tests.soak.jobs import ROOT

CONF = ROOT / "conf"
TINY = {  # by the last word of a key
    "num_levels": 5,
    "max_steps": 3,
    "val_check_interval": 2,
    "limit_val_batches": 2,
    "warmup_steps": 2,
    "train_size": 40,
    "val_size": 12,
    "test_size": 12,
    "resolution": 8,
    "model_channels": 8,
    "norm_groups": 4,
    "num_res_blocks": 1,
    "attention_levels": [],
    "channels": 8,
    "blocks": 2,
    "width": 8,
    "hidden": 16,
    "layers": 1,
    "modes": 3,
    "pictures": 4,
    "batch_size": 8,
    "limit": 40,
    "calibration_images": 8,
    "targets": 2,
    "context": [1, 2],
    "contexts": [1],
    "draws": 4,
    "images": 12,
    "levels": 3,
    "subsets": 2,
    "subset_size": 4,
    "reference_n": 12,
    "window_every": 1,
    "n": 6,
    "splits": 2,
    "k": 2,
    "largest": 12,
    "tolerance": 0.01,
}
HERE = ("digits", "grf", "hot_spots", "gaussian_mixture", "ring", "two_points", "checkerboard")  # data without a file
WRONG = (
    *("null", "nan", "inf", "-inf", "-1", "0", "1.5", "1e30", "1000000000", "-1000000000000", "true", "abc", "''", "' '"),
    *(
        "[]",
        "[1,2,3]",
        "[-1]",
        "['a',null]",
        "[[1],[2]]",
        "[nan]",
        "{}",
        "{a:1}",
        "{_target_:os.getcwd}",
        "ünï ☃",
        "../x",
    ),
    *(
        "/dev/null",
        "/proc",
        "~",
        "a/b:c#d",
        "'%s%n{}'",
        "'${nothing}'",
        "'a\\nb'",
        "[0]",
        "[1,1]",
        "0x10",
        "01",
        "1_000",
        "'1'",
    ),
)
WORK = ("max_steps", "max_epochs", "n", "train_size", "epochs")  # keys that say how much work is asked for


@functools.cache
def options(group: str) -> list[str]:
    """The options of a group."""
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


@functools.cache
def groups(verb: str) -> tuple[str, ...]:
    """The groups that a verb chooses from."""
    from heatgen.app.options import groups_of

    return tuple(groups_of(verb))


@functools.cache
def alternatives() -> dict[str, set[str]]:
    """The words that the comments of conf/ offer for a key, by its last word."""
    found: dict[str, set[str]] = {}
    for path in CONF.rglob("*.yaml"):
        for key, comment in re.findall(r"^\s*(\w+): .*?# (.*)$", path.read_text(), re.M):
            words = [re.match(r"([\w.+-]+)", part.strip()) for part in re.split(r" \| |: ", comment)]
            if " | " in comment:
                found.setdefault(key, set()).update(word[1] for word in words if word)
    return found


def is_sweep(words: Sequence[str]) -> bool:
    """Whether the experiment among these words is a sweep."""
    named = [CONF / "experiment" / f"{word.partition('=')[2]}.yaml" for word in words if word.startswith("experiment=")]
    return any(path.is_file() and "sweeper:" in path.read_text() for path in named)


def load(verb: str, words: list[str]) -> DictConfig | None:
    """The config that words compose, None where they do not."""
    from hydra.errors import HydraException

    from heatgen.app.options import SearchPath

    try:
        return SearchPath().load(verb, words)
    except (HydraException, OmegaConfBaseException, ValueError):
        return None


def leaves(config: object, prefix: str = "") -> dict[str, object]:
    """Every key of a config with its value; an interpolation as its text, a list and an empty node as they are."""
    found: dict[str, object] = {}
    assert isinstance(config, DictConfig)
    for name in config:
        key = f"{prefix}{name}"
        if key == "hydra" or str(name) == "defaults":
            continue
        node = None if OmegaConf.is_missing(config, name) else config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_interpolation() and not node._is_none() and len(node):
            found |= leaves(node, f"{key}.")
        elif node is not None and node._is_interpolation():
            found[key] = str(node._value())
        else:
            found[key] = (
                None if node is None else OmegaConf.to_container(node) if OmegaConf.is_config(node) else node._value()
            )
    return found


def tiny(keys: dict[str, object], words: list[str]) -> list[str]:
    """Words that make what words describe small: of its keys those that are numbers or lists of numbers, or null."""
    search = any(word.startswith("hparams_search=") for word in words)
    return (
        ["hydra.sweeper.n_trials=2"] * search
        + [
            f"{key}={str(TINY[last]).replace(' ', '')}"
            for key, value in keys.items()
            if (last := key.rpartition(".")[2]) in TINY and (key.startswith("trainer.") or not isinstance(value, str))
        ]
        + ["callback.checkpoints.every=2"] * ("callback.checkpoints.every" in keys)
    )


def legal(rng: random.Random, key: str, value: object) -> str | None:
    """Another value for a key that may well be legal; None where nothing is known of it."""
    last = key.rpartition(".")[2]
    words = sorted(alternatives().get(last, set()) - {str(value)})
    if words and (value is None or isinstance(value, (str, bool))) and rng.random() < 0.8:
        return rng.choice(words)
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int):
        return str(rng.choice([0, 1, 2, value + 1, max(1, value // 2)]))
    if isinstance(value, float):
        return repr(rng.choice([0.0, value / 2, value * 2, 1.0]))
    return None


def chosen(rng: random.Random, verb: str, rate: float) -> list[str]:
    """Random options of the groups of a verb, and of the groups within them."""
    rates = {"data": 1, "forward": 0.8, "model": 0.8, "mode": 1, "experiment": 0.04, "trainer": 0.0}
    words = []
    for group in groups(verb):
        if rng.random() < rates.get(group, rate):
            names = HERE if group == "data" and rng.random() < 0.85 else options(group)
            words.append(f"{group}={rng.choice(names)}")
            if group == "callback":
                words[-1] = f"callback=[default,{words[-1].partition('=')[2]}]"
    for inner in sorted(path.name for path in CONF.glob("net/*") if path.is_dir()):
        if verb == "train" and "model=np" in words and rng.random() < rate:
            words.append(f"net/{inner}={rng.choice(options(f'net/{inner}'))}")
    return words


def pictures(folder: Path) -> None:
    """A folder of small images."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    for number in range(24):
        noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
