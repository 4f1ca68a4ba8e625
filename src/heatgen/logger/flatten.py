"""Nested options by their dotted keys, as loggers want them."""

from collections.abc import Mapping


def flatten(params: Mapping[str, object], above: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, object] = {}
    for key, value in params.items():
        flat |= flatten(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
    return flat
