"""What a verb is asked of the sampler: another one, or other times at which it acts."""

import inspect
from dataclasses import dataclass

from omegaconf import DictConfig

from heatgen.app.plain import Options, plain
from heatgen.check import ConfigError

GRID: Options = {"steps": None, "spacing": "level", "rho": 7.0}  # what of a sampler says at which times it acts, as of Grid


@dataclass(frozen=True)
class SamplerRequest:
    """A sampler in place of the run's own, or other times for that: its node of the config, as plain data."""

    node: Options

    @classmethod
    def of(cls, node: object) -> "SamplerRequest | None":
        """That of a config's node `sampler`; None where it says nothing. ConfigError for options without their sampler."""
        given = plain(node) if isinstance(node, DictConfig) else {} if node is None else {"": node}
        told = {key: value for key, value in given.items() if value is not None or key not in GRID}
        if not isinstance(told.get("_target_"), str) and not told.keys() <= GRID.keys():
            raise ConfigError("sampler has options and no name; choose sampler=NAME too, or remove them.")
        return cls(told) if told else None

    def words(self) -> list[str]:
        """Its name, and key=value for each option that is not the default, nor a list to be measured one by one."""
        from heatgen.app.build import locate

        function = locate(self.node["_target_"]) if "_target_" in self.node else None
        parameters = inspect.signature(function).parameters.items() if function else ()
        defaults = (GRID if function else {}) | {name: parameter.default for name, parameter in parameters}
        items = [(key, value) for key, value in self.node.items() if key != "_target_" and not isinstance(value, list)]
        changed = [f"{key}={value}" for key, value in items if value != defaults.get(key)]
        return [*([function.__name__] if function else []), *changed]
