"""The rule of the house: a config and its code have the same path stem, and imports run one way."""

import ast
from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "heatgen"
CONF = ROOT / "conf"
YAMLS = sorted(CONF.glob("*/*.yaml"))
ROOMS = {"mode": "metric"}  # evaluate.py says mode=fid; what it chooses lives in the room metric
PRESETS = [path for path in YAMLS if path.parent.name == "experiment"]  # values for other groups; no code of their own

MODULES = sorted(SOURCE.rglob("*.py"))
OUTSIDE = {"hydra", "lightning", "torchvision", "scipy", "sklearn", "matplotlib", "wandb", "cleanfid"}
ALLOWED = {  # the big packages that a room may import
    "forward": set(),
    "net": set(),
    "sampler": set(),
    "data": {"lightning", "torchvision", "sklearn"},
    "model": {"lightning"},
    "callback": {"lightning"},
    "logger": {"lightning", "wandb"},
    "metric": {"cleanfid", "matplotlib", "scipy"},
    "oracle": {"scipy"},
    "regime": set(),
}
LOWER = {  # the rooms that a room may import from, besides itself
    "forward": set(),
    "net": set(),
    "sampler": set(),
    "data": set(),
    "model": {"forward", "oracle"},
    "callback": set(),
    "logger": set(),
    "metric": {"data", "forward", "model", "oracle", "regime"},
    "oracle": {"forward"},
    "regime": set(),
}


def imports(path: Path) -> set[str]:
    """The dotted names of everything a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def targets(config: object) -> list[str]:
    """Every _target_ in a config."""
    if OmegaConf.is_list(config):
        return [t for i in range(len(config)) if not OmegaConf.is_interpolation(config, i) for t in targets(config[i])]
    if not OmegaConf.is_dict(config):
        return []
    own = [config["_target_"]] if "_target_" in config else []
    return own + [t for key in config if not OmegaConf.is_interpolation(config, key) for t in targets(config[key])]


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", [path for path in YAMLS if path not in PRESETS], ids=name_of)
def test_a_config_names_the_code_of_its_own_path(path: Path) -> None:
    config = OmegaConf.load(path)
    group = path.parent.name
    inherits = [name for name in config.get("defaults", []) if isinstance(name, str)]
    home = f"heatgen.{ROOMS.get(group, group)}."
    own = [t for t in targets(config) if t.startswith("heatgen.")]
    assert inherits or targets(config), "a config must instantiate something, or be a preset of one that does"
    assert all((path.parent / f"{name}.yaml").exists() for name in inherits)
    assert all(t.startswith(f"{home}{path.stem}.") for t in own)
    if own:
        assert (SOURCE / ROOMS.get(group, group) / f"{path.stem}.py").exists()


@pytest.mark.parametrize("path", PRESETS, ids=name_of)
def test_a_preset_says_what_it_is_and_only_overrides_other_groups(path: Path) -> None:
    first, second = path.read_text().splitlines()[:2]
    assert first == "# @package _global_"
    assert second.startswith("# ") and second.endswith(".")
    config = OmegaConf.load(path)
    assert not targets(config)
    assert not (SOURCE / "experiment").exists()
    for entry in config.defaults:
        ((key, option),) = entry.items()
        assert key.startswith("override /")
        assert (CONF / key.removeprefix("override /") / f"{option}.yaml").exists()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0]
    names = imports(path)
    packages = {name.split(".")[0] for name in names} & OUTSIDE
    if path.name != "run.py":
        assert "hydra" not in packages
    if room in ALLOWED:
        assert packages <= ALLOWED[room]
        rooms = {name.split(".")[1] for name in names if name.startswith("heatgen.") and len(name.split(".")) > 1}
        assert not {"run", "draw", "launch", "explain", "compare"} & rooms
        assert (rooms & set(ALLOWED)) - {room} <= LOWER[room]


def test_every_key_of_a_config_is_explained() -> None:
    silent = []
    for path in YAMLS:
        if path in PRESETS or OmegaConf.load(path).get("defaults"):
            continue  # a preset: its keys are explained where they are first written
        for line in path.read_text().splitlines():
            plumbing = line.strip().startswith(("shape: $", "seed: $", "data_dir: $", "#", "_partial_", "metric:"))
            deep = line.startswith("  ") and path.parent.name not in ("mode", "logger")
            bare = line.rstrip().endswith(":")
            if line.strip() and not (plumbing or deep or bare) and " # " not in line:
                silent.append(f"{path.parent.name}/{path.stem}: {line}")
    assert not silent
