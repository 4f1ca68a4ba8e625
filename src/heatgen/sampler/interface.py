"""Which samplers suit a model: every sampler names in `currency` what it calls of one."""

import importlib
from typing import Any

from heatgen.check import ConfigError, options_of


def check_interface(sampler: Any, model: Any) -> None:
    """ConfigError, with the samplers that suit, where the model does not give what the sampler needs."""
    missing = [name for name in sampler.interface if not hasattr(model, name)]
    if not missing:
        return
    functions = {s: getattr(importlib.import_module(f"heatgen.sampler.{s}"), s) for s in options_of("sampler")}
    suited = [s for s, function in functions.items() if all(hasattr(model, name) for name in function.interface)]
    model_name = type(model).__module__.rsplit(".", 1)[-1]
    raise ConfigError(
        f"sampler={sampler.__name__} needs {missing[0]}, which model={model_name} lacks; use sampler={' or '.join(suited)}."
    )
