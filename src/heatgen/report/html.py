"""Pages that are one file: style, script, data and pictures inside, and nothing that is asked of a network."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from heatgen import __version__
from heatgen.check import ConfigError
from heatgen.runtime.files import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
MADE_BY = '<meta name="generator" content="heatgen {}">'


@cache
def environment() -> "Environment":
    """Where templates come from. Everything that they show is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def page(template: str, scripts: tuple[str, ...], **content: object) -> str:
    """A page: a template, filled, that may run these scripts of ours and nothing else."""
    from markupsafe import Markup

    style = Markup((TEMPLATES / "style.css").read_text())
    script = Markup("".join((TEMPLATES / name).read_text() for name in scripts))
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"style": style, "script": script, "hash": hashed, "generator": Markup(MADE_BY.format(__version__))}
    return environment().get_template(template).render(**own, link=link, size=size, **content)


def link(path: str | Path) -> str:
    """The address of a file beside the page, whatever its name is."""
    return f"./{quote(str(path))}"


def size(count: int) -> str:
    """A number of bytes for people."""
    number = float(count)
    for unit in ("B", "KB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def is_current(path: Path) -> bool:
    """Whether a page is one of this version's."""
    return path.is_file() and MADE_BY.format(__version__) in head(path)


def write_page(path: Path, text: str) -> None:
    """Write a page. ConfigError where there is a page of somebody else's."""
    if path.exists() and MADE_BY.partition("{}")[0] not in head(path):
        raise ConfigError(f"{path} was not written by heatgen; move it, or give another folder.")
    write_text(path, text)


def head(path: Path) -> str:
    """The beginning of a file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(2000).decode(errors="replace")
