"""How heatgen is called: by a file of the repository, or as `heatgen VERB`; for messages and for tables of results."""

import os
import re
import shlex
import sys
from pathlib import Path

NAME = "heatgen"  # the console script
SCRIPTS = ("train", "sample", "evaluate")  # files of the repository
VARIABLE = "HEATGEN_COMMAND"  # what the user typed, for the processes that do their job
FLAGS = ("-m", "--multirun")
HARMLESS = r"[\w.+-]*"  # the value of an option of Hydra's that runs nothing


def command_line() -> str:
    """The command that the user typed, wherever a launcher or several processes do its job."""
    program, *arguments = sys.argv
    words = program.split() if program.startswith(f"{NAME} ") else ["python", Path(program).name]
    return os.environ.get(VARIABLE) or shlex.join([*words, *arguments])


def call(verb: str) -> str:
    """How this user calls a verb: `heatgen train`, also from Python, or `python train.py` by a file of the repository."""
    if command_line().split(maxsplit=2)[1:2] not in [[f"{script}.py"] for script in SCRIPTS]:
        return f"{NAME} {verb}"
    return f"python {verb}.py" if verb in SCRIPTS else f"python -m {NAME}.app {verb}"


def runs_code(word: str) -> bool:
    """Whether an argument of somebody else's may run code: one that names a target, or an option of Hydra's that could."""
    key, _, value = word.lstrip("+~").partition("=")
    if "_target_" in word or "hydra" in value:
        return True
    if word.startswith("-"):
        return word not in FLAGS
    return key.startswith("hydra") and not re.fullmatch(HARMLESS, value)
