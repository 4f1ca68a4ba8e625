"""Which options each config group has: those of conf/, and those that the user put on Hydra's search path."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from heatgen.check import ConfigError, did_you_mean

INSTALLED = Path(__file__).resolve().parents[1] / "conf"
NEEDED = ("basis", "noise_scale")  # parts that no map does without
CONF = INSTALLED if INSTALLED.is_dir() else INSTALLED.parents[2] / "conf"  # in a wheel, or in the repository


@dataclass(frozen=True)
class SearchPath:
    """Where Hydra looks for configs, besides its own."""

    conf: str = str(CONF)  # the folder of the primary configs; --config-path
    config_dir: str | None = None  # --config-dir
    more: tuple[str, ...] = ()  # hydra.searchpath

    @classmethod
    def current(cls) -> "SearchPath":
        """That of the command that runs, which Hydra notes in its config."""
        found: dict[str, list[str]] = {"main": [], "command-line": [], "hydra.searchpath": []}
        for source in HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else ():
            place = source.path if source.schema == "file" else f"{source.schema}://{source.path}"
            found.setdefault(source.provider.split(" ")[0], []).append(place)
        main, own = found["main"], found["command-line"]
        return cls(main[0] if main else str(CONF), own[0] if own else None, tuple(found["hydra.searchpath"]))

    def arguments(self) -> list[str]:
        """The flags and overrides that give another process the same."""
        flags = ["--config-path", self.conf] if self.conf != str(CONF) else []
        flags += ["--config-dir", self.config_dir] if self.config_dir is not None else []
        return flags + ([f"hydra.searchpath={list(self.more)}"] if self.more else [])

    def loader(self) -> ConfigLoader:
        """Hydra's config loader for these places."""
        path = create_config_search_path(self.conf)
        if self.config_dir is not None:
            place = f"file://{Path(self.config_dir).resolve()}"
            path.prepend("command-line", place, anchor=SearchPathQuery(provider="schema"))
        for place in self.more:
            path.append("hydra.searchpath in command-line", place)
        return ConfigLoaderImpl(path)

    def load(self, config_name: str, overrides: Sequence[str]) -> DictConfig:
        """The config that overrides compose, Hydra's own part included."""
        version.setbase("1.3")
        setup_globals()
        return self.loader().load_configuration(config_name, list(overrides), RunMode.RUN, from_shell=False)


def options_of(group: str, loader: ConfigLoader | None = None) -> list[str]:
    """The options of a config group, in alphabetical order; names that start with _ are bases of others, not options."""
    sources = (loader or SearchPath.current().loader()).get_sources()
    found = {name for source in sources if source.is_group(group) for name in source.list(group, ObjectType.CONFIG)}
    return sorted(name for name in found if not name.startswith("_"))


def options_beside(group: str, choice: str | None, loader: ConfigLoader) -> list[str]:
    """The options of a group, or of the folder of it that a choice such as paper/edm names."""
    folder = str(choice).rpartition("/")[0]
    inside = options_of(f"{group}/{folder}", loader) if folder else []
    return [f"{folder}/{name}" for name in inside] or options_of(group, loader)


def groups_of(verb: str, loader: ConfigLoader | None = None) -> list[str]:
    """The config groups that conf/<verb>.yaml chooses from, in the order of its defaults."""
    primary = OmegaConf.load(CONF / f"{verb}.yaml")
    entries = OmegaConf.select(primary, "defaults")
    names = [str(next(iter(entry))).removeprefix("optional ") for entry in entries if isinstance(entry, DictConfig)]
    groups = [name.split("@")[0] for name in names if not name.startswith("override ")]
    return list(dict.fromkeys(group for group in groups if options_of(group, loader)))


def check_choices(choices: Mapping[str, str | None]) -> None:
    """ConfigError for the choice of an optional group that does not exist, which Hydra passes over in silence."""
    loader = SearchPath.current().loader()
    for key, choice in choices.items():
        group = key.split("@")[0]
        options = options_beside(group, choice, loader)
        if options and choice not in (None, "null", *options):
            raise ConfigError(unknown_option(group, str(choice), options, loader))


def unknown_option(group: str, choice: str, options: list[str], loader: ConfigLoader) -> str:
    """The sentence for group=choice that is not there."""
    if found := elsewhere(group, choice, loader):
        return f"{group}={choice} is not an option{found}"
    optional = choice == "null" and "/" in group and group.split("/")[-1] not in NEEDED
    hint = f"; to go without, write ~{group}" if optional else did_you_mean(choice, options)
    return f"{group}={choice} is not an option{hint} (options: {', '.join(options)})."


def inner(group: str, loader: ConfigLoader) -> list[str]:
    """The folders within a group: parts of its options, or options by several names."""
    sources = [source for source in loader.get_sources() if source.is_group(group)]
    return sorted({name for source in sources for name in source.list(group, ObjectType.GROUP)})


def is_part(group: str, part: str, loader: ConfigLoader) -> bool:
    """Whether a folder within a group is chosen by itself, GROUP/PART=NAME; else its options are those of the group."""
    first = text_of(f"{group}/{part}", options_of(f"{group}/{part}", loader)[0], loader)
    return part in options_of(group, loader) or "@package _global_" not in first


def elsewhere(group: str, name: str, loader: ConfigLoader) -> str:
    """The words "; did you mean GROUP=PART/NAME?" where an option of that name is in a folder within a group, or ""."""
    for part in inner(group, loader):
        if name in options_of(f"{group}/{part}", loader):
            chosen = f"{group}/{part}={name}" if is_part(group, part, loader) else f"{group}={part}/{name}"
            return f"; did you mean {chosen}?"
    return ""


def text_of(group: str, option: str, loader: ConfigLoader) -> str:
    """The yaml of an option, wherever it is; "" where it is no file."""
    sources = [source for source in loader.get_sources() if source.scheme() == "file"]
    paths = [Path(source.path) / group / f"{option}.yaml" for source in sources]
    return next((path.read_text() for path in paths if path.is_file()), "")


def known_keys(verb: str, loader: ConfigLoader) -> list[str]:
    """Every group and every key that a config of `verb` may have, dotted, whichever options are chosen."""
    groups = groups_of(verb, loader)
    keys = groups + dotted(OmegaConf.load(CONF / f"{verb}.yaml"))
    for group in groups:
        for source in loader.get_sources():
            for name in source.list(group, ObjectType.CONFIG) if source.is_group(group) else []:
                found = source.load_config(f"{group}/{name}")
                package = found.header.get("package") or group
                prefix = "" if package == "_global_" else f"{package}."
                keys += [prefix + key for key in dotted(found.config)]
    return [key for key in keys if "_target_" not in key and key.split(".")[0] not in ("hydra", "defaults")]


def dotted(config: object, prefix: str = "") -> list[str]:
    """The keys of a config and of what is in it, as a.b.c."""
    if not isinstance(config, DictConfig):
        return []
    keys: list[str] = []
    for key in map(str, config):
        keys.append(f"{prefix}{key}")
        if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
            keys += dotted(config[key], f"{prefix}{key}.")
    return keys


def holds(cfg: DictConfig, key: str) -> bool:
    """Whether a config has a key, be its value missing or an interpolation."""
    node: object = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in list(node):
            return False
        node = None if OmegaConf.is_missing(node, part) else node._get_node(part)
    return True
