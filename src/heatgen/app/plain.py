"""Nodes of a config as plain data."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

Options = dict[str, Any]  # the options of one node of a config, as plain data; what they are is for their owner to check


def plain(node: DictConfig) -> Options:
    """A node of a config as plain data."""
    options = OmegaConf.to_container(node, resolve=True)
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items()}
