"""How heatgen is called: by a file of the repository, or as `heatgen VERB`; for messages and for tables of results."""

import os
import shlex
import sys
from pathlib import Path

NAME = "heatgen"  # the console script
VARIABLE = "HEATGEN_COMMAND"  # what the user typed, for the processes that do their job


def command_line() -> str:
    """The command that the user typed, wherever a launcher or several processes do its job."""
    program, *arguments = sys.argv
    words = program.split() if program.startswith(f"{NAME} ") else ["python", Path(program).name]
    return os.environ.get(VARIABLE) or shlex.join([*words, *arguments])


def call(verb: str) -> str:
    """How this user calls a verb: `heatgen train`, or `python train.py` in the repository."""
    return f"{NAME} {verb}" if command_line().startswith(f"{NAME} ") else f"python {verb}.py"
