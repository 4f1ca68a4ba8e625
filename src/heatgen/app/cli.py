"""The command line: `heatgen train|sample|evaluate ...`, and the three files of the repository that do the same.

What takes long to import is imported where signals and mistakes are explained.
"""

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterator, Sequence

from heatgen import __version__
from heatgen.check import ConfigError, did_you_mean
from heatgen.runtime import children, explain
from heatgen.runtime.command import NAME

VERBS = {
    "train": "train a model; writes a run into runs/",
    "sample": "draw samples from a run",
    "evaluate": "measure a run, or a data set",
    "pack": "write the images of a data set into one file",
}
COMMANDS: dict[str, tuple[str, str]] = {  # with arguments of their own: the module whose main() it is, and what it does
    "report": ("heatgen.report.site", "pages of runs, to look at in a browser"),
    "figure": ("heatgen.report.figure", "draw results anew, for a paper"),
    "doctor": ("heatgen.app.doctor", "what this machine has, and what to do about what it lacks"),
    "completion": ("heatgen.app.completion", 'complete words in bash: eval "$(heatgen completion)"'),
    "export": ("heatgen.app.export", "write a run as one file of weights, with a model card"),
    "import": ("heatgen.app.foreign", "make a run of a checkpoint of the papers' own code"),
}
FIRST_STEPS = "Begin with {0} train, which needs no GPU and no download.\n{0} COMMAND --help shows more."
SWEEPING = ("experiment", "hparams_search", "hydra", "-c", "--config")  # what begins words that may set hydra.mode


def main() -> None:
    """`heatgen VERB ...`: VERB's arguments are those of VERB.py; packages in the current folder can be named in them."""
    verb, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if verb in ("-h", "--help", "--version"):
        print(__version__ if verb == "--version" else usage())
        return
    if verb not in {*VERBS, *COMMANDS}:
        known = [*VERBS, *COMMANDS]
        hint = did_you_mean(verb, known) or f"; use {', '.join(known)}."
        print(f"Error: {verb} is not a command of {NAME}{hint}", file=sys.stderr)
        sys.exit(1)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.argv = [f"{NAME} {verb}", *arguments]
    if verb in COMMANDS:
        explain.entry(importlib.import_module(COMMANDS[verb][0]).main)
    else:
        run(verb)


def usage() -> str:
    """What `heatgen --help` shows."""
    every = VERBS | {verb: what for verb, (_, what) in COMMANDS.items()}
    lines = [f"  {NAME} {verb:<11} {what}" for verb, what in every.items()]
    return "\n".join(["Generative models that undo a linear degradation.", "", *lines, "", FIRST_STEPS.format(NAME)])


def run(verb: str) -> None:
    """Do a verb with the arguments in sys.argv; a user's mistake ends in one sentence and exit code 1."""
    explain.entry(functools.partial(start, verb), functools.partial(mistake, verb))


def start(verb: str) -> None:
    """Show the help of a verb, or hand it over to Hydra."""
    if {"-h", "--help"} & {*sys.argv[1:]}:
        from heatgen.app import help

        sys.argv[1:] = flags_first(sys.argv[1:])
        if help.shown(verb):
            return
    import hydra
    from hydra._internal.utils import get_args_parser

    from heatgen.app import folders, sweep
    from heatgen.app.options import CONF

    words = sweep.arguments(sys.argv[1:]) if verb == "train" else sys.argv[1:]
    sys.argv[1:] = for_the_resumed(flags_first(words))
    if get_args_parser().parse_known_args()[0].experimental_rerun is not None:  # it would unpickle a file
        raise ConfigError("--experimental-rerun is not of heatgen; go on with a training by resume=RUN.")
    task = getattr(importlib.import_module(f"heatgen.app.{verb}"), verb)
    try:
        with composed_once(sys.argv[1:]):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)(task)()
    finally:
        children.end_workers()
        folders.give_up()


@contextlib.contextmanager
def composed_once(words: Sequence[str]) -> Iterator[None]:
    """Within it Hydra composes a config once, not first to see whether it asks for a sweep, where no word may make it."""
    from hydra._internal.hydra import Hydra

    ours = Hydra.get_mode
    if not any(word.lstrip("+").startswith(SWEEPING) for word in words):
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = ours  # type: ignore[method-assign]


def mistake(verb: str, error: BaseException) -> str | None:
    """The sentence for an error of a verb that is a user's mistake."""
    from heatgen.app import mistakes

    return mistakes.of_command_line(verb, error)


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Arguments with the flags before the overrides, as Hydra wants them; a user may mix them."""
    overrides = [word for word in arguments if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    return [*(word for word in arguments if word not in overrides), *overrides]


def for_the_resumed(arguments: Sequence[str]) -> list[str]:
    """Arguments with ++ before each key of a group where a run is resumed: its config has that key, not the one of Hydra."""
    keys = [word.partition("=")[0] for word in arguments]
    if "resume" not in keys or {"resume=null", "resume=auto"} & {*arguments}:
        return list(arguments)
    own = [key[:1].isalpha() and "." in key and not key.startswith("hydra.") for key in keys]
    return [f"++{word}" if mine and "=" in word else word for word, mine in zip(arguments, own, strict=True)]
