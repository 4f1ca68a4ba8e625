"""The rules of the house: a config and its code have the same path stem, and imports run one way."""

import ast
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from heatgen.app.menu import WHAT

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "heatgen"
CONF = ROOT / "conf"
MODULES = sorted(SOURCE.rglob("*.py"))
YAMLS = sorted(CONF.glob("*/**/*.yaml"))
ROOMS = {"mode": "metric"}  # evaluate.py says mode=fid; what it chooses lives in the room metric
PRESET_GROUPS = {"experiment", "trainer", "optimizer"}  # values for other groups, or classes of torch and Lightning

ORDER = [  # a room may import the rooms above it, besides itself; a row may not import its neighbours
    {"noise", "picture", "check", "frames", "basis"},  # the ground floor: single files
    {"runtime"},
    {"forward", "net", "sampler", "data", "regime"},
    {"oracle"},
    {"model"},
    {"callback", "logger", "metric"},
    {"report"},
    {"app"},
]
FLOOR = {room: i for i, row in enumerate(ORDER) for room in row}
BIG = {"hydra", "omegaconf", "lightning", "torchvision", "scipy", "sklearn", "matplotlib", "wandb", "cleanfid"}
ALLOWED = {  # the big packages that a room may import; none is allowed where it is not named
    "runtime": {"lightning"},
    "data": {"lightning", "torchvision", "sklearn"},
    "oracle": {"scipy"},
    "model": {"lightning", "scipy"},
    "callback": {"lightning"},
    "logger": {"lightning", "wandb"},
    "metric": {"cleanfid", "matplotlib", "scipy", "sklearn"},
    "report": {"matplotlib"},
    "app": {"hydra", "omegaconf", "lightning"},
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


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def wrong_imports(path: Path) -> list[str]:
    """What a file imports that its room must not."""
    room, names = room_of(path), imports(path)
    big = {name.split(".")[0] for name in names} & BIG
    rooms = {name.split(".")[1] for name in names if name.startswith("heatgen.")} & set(FLOOR)
    allowed = set() if FLOOR[room] == 0 else ALLOWED.get(room, set())
    wrong = sorted(big - allowed) + sorted(r for r in rooms - {room} if FLOOR[r] >= FLOOR[room] > 0)
    return [f"{path.relative_to(SOURCE)} imports {name}" for name in wrong]


def test_imports_run_one_way() -> None:
    inside = [path for path in MODULES if path.name != "__init__.py" or path.parent != SOURCE]
    assert {room_of(path) for path in inside} <= set(FLOOR)
    assert [line for path in inside for line in wrong_imports(path)] == []


def test_few_files_are_in_no_room() -> None:
    assert len([path for path in SOURCE.glob("*.py") if path.name != "__init__.py"]) <= 5


def targets(config: Any) -> list[str]:
    """Every _target_ in a config, the outermost first."""
    if OmegaConf.is_list(config):
        return [t for i in range(len(config)) if not OmegaConf.is_interpolation(config, i) for t in targets(config[i])]
    if not OmegaConf.is_dict(config):
        return []
    own = [config["_target_"]] if "_target_" in config else []
    return own + [t for key in config if not OmegaConf.is_interpolation(config, key) for t in targets(config[key])]


def wrong_names(path: Path) -> list[str]:
    """What a config instantiates that does not stand in the file of its own name, or in its room where it is nested.

    The options of a part, such as conf/forward/colour/two_band.yaml, may be functions or classes of one file.
    """
    config, group = OmegaConf.load(path), path.relative_to(CONF).parts[0]
    room = ROOMS.get(group, group)
    found = [target for target in targets(config) if target.startswith("heatgen.")]
    parts = path.relative_to(CONF).with_suffix("").parts[1:]
    names, files = (path.stem, path.stem.title().replace("_", "")), (".".join((room, *parts[:-1])), parts[0])
    if len(parts) > 1 and found in [[f"heatgen.{file}.{name}"] for file in files for name in names]:
        return []
    wrong = [target for target in found if not target.startswith(f"heatgen.{room}.")]
    file = ".".join(("heatgen", room, *parts))
    if found and not path.stem.startswith("_") and not found[0].startswith(f"{file}."):
        inherits = any(isinstance(entry, str) and entry != "_self_" for entry in config.get("defaults", []))
        wrong += [] if inherits else found[:1]
    return [f"{path.relative_to(CONF)} instantiates {target}" for target in wrong]


def test_a_config_names_the_code_of_its_own_path() -> None:
    assert [line for path in YAMLS for line in wrong_names(path)] == []


def test_a_config_instantiates_something_or_is_a_preset_of_one_that_does() -> None:
    silent = []
    for path in YAMLS:
        config, group = OmegaConf.load(path), path.relative_to(CONF).parts[0]
        if group not in PRESET_GROUPS and not path.stem.startswith("_") and path.stem != "none":
            silent += [] if targets(config) or config.get("defaults") else [str(path.relative_to(CONF))]
    assert silent == []


def test_every_option_says_what_it_is_where_help_finds_it() -> None:
    options = [path for path in YAMLS if not path.stem.startswith("_")]
    assert len(options) > 200 and [path for path in options if not WHAT.search(path.read_text())] == []


def test_an_experiment_says_what_it_is_and_only_overrides_other_groups() -> None:
    for path in sorted((CONF / "experiment").rglob("*.yaml")):
        first, second = path.read_text().splitlines()[:2]
        assert first == "# @package _global_", path
        assert second.startswith("# ") and second.endswith("."), path
        assert not targets(OmegaConf.load(path)), path
