"""What --help shows: groups, options and keys, each with the comment that stands beside it in its yaml."""

import re
import shutil
import textwrap
from collections.abc import Iterable

from hydra.core.config_loader import ConfigLoader

from heatgen.app.options import (
    CONF,
    SearchPath,
    groups_of,
    inner,
    is_part,
    options_beside,
    options_of,
    text_of,
    unknown_option,
)
from heatgen.check import ConfigError, did_you_mean

WHAT = re.compile(r"^(?:# |defaults:[^#\n]*# | *_target_: \S+ # )(?!@package)(.+)$", re.MULTILINE)  # of an option
GROUP = re.compile(r"^  - (?:optional )?([\w/]+): (\S+) # (.+)$", re.MULTILINE)  # in the defaults of a primary config
KEY = re.compile(r"^( *)(\w+):(?: ([^#\n]*?))? # (.+)$|^(\w+):$", re.MULTILINE)
FIRST = ("model", "forward", "data", "mode")  # groups that --help begins with
WIDEST = 120  # columns of the screen that are used


def groups(verb: str) -> str:
    """The groups of a verb, with what is chosen where nobody says, and what each chooses; for --help."""
    known, told = groups_of(verb), GROUP.findall(primary(verb))
    told.sort(key=lambda found: found[0] not in FIRST)
    pairs = [(group if usual == "null" else f"{group}={usual}", what) for group, usual, what in told if group in known]
    return "\n".join(rows(pairs, 20))


def options(verb: str) -> str:
    """The names of the options of each group; for --help."""
    loader = SearchPath.current().loader()
    names = {
        group: [*options_of(group, loader), *(f"{part}/..." for part in inner(group, loader))] for group in groups_of(verb)
    }
    return "\n".join(rows([(group, ", ".join(each)) for group, each in names.items()], 16))


def keys(verb: str) -> str:
    """The keys of a verb's own config, with what they are; for --help."""
    return "\n".join(rows(keys_in(primary(verb)), 26))


def about(word: str, verb: str) -> str:
    """What is known of GROUP, with all its options, or of GROUP=OPTION, with its keys. ConfigError for no group."""
    loader, (group, _, option) = SearchPath.current().loader(), word.partition("=")
    options = options_of(group, loader)
    if not options:
        known = groups_of(verb, loader)
        raise ConfigError(f"{group} is not a group{did_you_mean(group, known)} (groups: {', '.join(known)}).")
    if option:
        if option not in (known := options_beside(group, option, loader)):
            raise ConfigError(unknown_option(group, option, known, loader))
        found = {name.partition("=")[0]: (name, what) for name, what in keys_of(group, option, loader)}  # the last one holds
        return "\n".join([f"{word}: {description(group, option, loader)}", "", *rows(found.values(), 30)])
    lines = [f"Choose with {group}=NAME:", "", *listed(group, loader)]
    for part in inner(group, loader):
        choose = f"{group}/{part}=NAME" if is_part(group, part, loader) else f"{group}={part}/NAME"
        lines += ["", f"Choose with {choose}:", "", *listed(f"{group}/{part}", loader)]
    return "\n".join(lines)


def listed(group: str, loader: ConfigLoader) -> list[str]:
    """The options of a group, a line or two each."""
    return rows([(name, description(group, name, loader)) for name in options_of(group, loader)], 22)


def description(group: str, option: str, loader: ConfigLoader) -> str:
    """What an option says of itself, the first comment of its yaml; "" for none."""
    found = WHAT.search(text_of(group, option, loader))
    return found[1] if found else ""


def primary(verb: str) -> str:
    """The config of a verb, without what is Hydra's."""
    return (CONF / f"{verb}.yaml").read_text().partition("\nhydra:")[0]


def keys_of(group: str, option: str, loader: ConfigLoader) -> list[tuple[str, str]]:
    """The keys of an option that have a comment, those of what it inherits first."""
    text = text_of(group, option, loader)
    bases = re.findall(r"^defaults: \[([\w, ]+)\]", text, re.MULTILINE)
    inherited = [found for name in re.findall(r"\w+", " ".join(bases)) for found in keys_of(group, name, loader)]
    prefix = "" if "@package _global_" in text else f"{group.replace('/', '.')}."
    return [*inherited, *((prefix + key, what) for key, what in keys_in(text))]


def keys_in(text: str) -> list[tuple[str, str]]:
    """KEY or KEY=VALUE, with its comment, of every line of a yaml that has one; keys within others as a.b."""
    found, within = [], ""
    for indent, name, value, what, alone in KEY.findall(text):
        within = within if indent else f"{name or alone}."
        if what and not name.startswith("_") and name != "defaults":
            shown = f"={value}" if re.fullmatch(r"[\w.+-]+", value) and value != "null" else ""
            found.append((f"{within if indent else ''}{name}{shown}", what))
    return found


def rows(pairs: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Names and what they are, in two columns."""
    lines = []
    for name, what in pairs:
        first, *more = wrapped(what, width + 2) or [""]
        long = len(name) > width - 2
        lines += [f"  {name}", first] if long and first else [f"  {name:<{width}}{first.lstrip()}".rstrip()]
        lines += more
    return lines


def wrapped(text: str, indent: int) -> list[str]:
    """Text in lines as wide as the screen, behind an indent."""
    width = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
    edge = " " * indent
    return textwrap.wrap(text, max(width, indent + 30), initial_indent=edge, subsequent_indent=edge, break_long_words=False)
