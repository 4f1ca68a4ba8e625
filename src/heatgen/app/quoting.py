"""Values as Hydra's grammar reads them: how a text must be written to arrive as it is."""

import os
import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

OPENING = ("[", "{", "(")


def quoted(text: str) -> str:
    """A text in double quotes: quotes in it, backslashes before them and ${ lose their meaning."""
    inside = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), escaped(text))
    return f'"{inside}"'


def escaped(text: str) -> str:
    """A text that OmegaConf takes for itself: ${ in it loses its meaning."""
    return re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", text)


def argument(key: str, text: str) -> str:
    """KEY=VALUE that gives the key this text, with quotes only where Hydra needs them."""
    bare = f"{key}={text}"
    return bare if value_of(bare) == text else f"{key}={quoted(text)}"


def value_of(word: str) -> object:
    """What an argument KEY=VALUE gives its key; None where it cannot be read, or stands for several values."""
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
        if override.is_sweep_override():
            return None
        return OmegaConf.to_container(OmegaConf.create({"value": override.value()}), resolve=True)["value"]  # type: ignore[index, call-overload]
    except (OverrideParseException, ValueError):
        return None


def typed(key: str, text: str) -> str:
    """`argument` as it is typed into a shell; a leading ~ is written out, as no program does it there."""
    return shlex.quote(argument(key, os.path.expanduser(text)))


def unreadable(word: str) -> str:
    """The sentence for an argument that Hydra cannot read: what to type in its place."""
    key, equals, text = word.partition("=")
    if not equals and re.fullmatch(r"[A-Za-z_][\w./@-]*", word):
        return f"{word} has no value; write {word}=VALUE, and quotes around an argument that holds spaces: 'key=a b'."
    if not equals or not re.fullmatch(r"[~+]{0,2}[\w./@:-]+", key):
        return f"{word} cannot be read; write key=value, with quotes around it where the value holds spaces: 'key=a b'."
    if text.startswith(OPENING):
        return (
            f"The value of {key} cannot be read; close its brackets and put quotes around each text in it that is more than "
            f'letters and digits, such as \'{key}=["a b","c=d"]\', or if it is one text, write {typed(key, text)}.'
        )
    if text.startswith(('"', "'")):
        text = text.strip(text[0])
    return f"The value of {key} has to stand in quotes for Hydra, in others for the shell; write {typed(key, text)}."
