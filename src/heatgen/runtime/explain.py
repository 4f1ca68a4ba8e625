"""One sentence for a user's mistake: what is wrong, which key, and the fix. Bugs keep their traceback."""

import argparse
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from typing import NoReturn

from heatgen.check import ConfigError
from heatgen.runtime import children, screen, signals
from heatgen.runtime.command import VARIABLE, command_line

UNUSABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR),
    *(errno.EFBIG, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
)
UNMAPPED = "failed to map segment|annot allocate memory"  # what an import says under ulimit -v
FULL, OURS = "HYDRA_FULL_ERROR", "HEATGEN_EXPLAIN"


def explain(error: BaseException) -> str | None:
    """The sentence for a user's mistake, or None for a bug.

    A ConfigError says it itself, also where another error came of it; of a file that cannot be written the place is named.
    """
    for cause in causes(error):
        if isinstance(cause, ConfigError):
            return str(cause).split("ConfigError: ")[-1].strip()  # a loading process adds its traceback before that
        if isinstance(cause, OSError) and cause.errno in UNUSABLE:
            place = cause.filename or "A file of the run"
            return f"{place} cannot be written ({cause.strerror}); choose another runs_dir or free space."
        calls = [frame.f_code.co_name for frame, _ in traceback.walk_tb(cause.__traceback__)]
        if isinstance(cause, (FileNotFoundError, FileExistsError)) and calls[-1:] == ["mkdir"]:  # as under /proc
            there = " as it is a file" if isinstance(cause, FileExistsError) else ""
            return f"{cause.filename} cannot be made a folder{there}; choose another place, as with runs_dir."
        if isinstance(cause, BrokenExecutor):
            return advised("A process of the sweep was killed (was the memory full?)")
        if isinstance(cause, ImportError) and re.search(UNMAPPED, str(cause)):
            return "The libraries of PyTorch do not fit into the memory that this process may have; allow it more."
        if type(cause).__module__.startswith(("torch._inductor.", "torch._dynamo.")):
            return f"The compiler of PyTorch fails on this network ({briefly(cause)}); use compile=false."
        if is_of_memory(cause):
            return (
                f"There is not enough memory{more_of(cause)}; lower batch_size (of a training data.batch_size, for which "
                "trainer.accumulate_grad_batches makes up), n, the size of the data or the width of the network."
            )
    return None


def advised(what: str) -> str:
    """The sentence for what has happened, with how the user goes on where that is known."""
    return f"{'; '.join(filter(None, [what, signals.advice()]))}."


def briefly(error: BaseException) -> str:
    """The first line of what an error says, or, of a compiler, the one that it came of."""
    inner = getattr(error, "inner_exception", error)  # as PyTorch calls it
    return (str(inner).strip().splitlines() or [type(inner).__name__])[0].rstrip(".")


def is_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory, of this machine or of a GPU, is too small."""
    words = str(error) if isinstance(error, RuntimeError) else ""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # of PyTorch, which need not be here
        or "can't allocate memory" in words
        or "out of memory" in words
    )


def more_of(error: BaseException) -> str:
    """The words " for 2.00 GiB more" where an error of memory says how much was wanted, else ""."""
    size = re.search(r"allocate ([\d.]+ \w+)", str(error))
    return f" for {size[1]} more" if size else ""


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def entry(main: Callable[[], object], explain: Callable[[BaseException], str | None] = explain) -> None:
    """Run an entry point to its end.

    A user's mistake ends in one sentence and exit code 1 (HYDRA_FULL_ERROR=1: the traceback), a signal n in one sentence and
    128 + n. What cannot be printed, as of `--help | head`, costs the screen only.

    Args:
        main: what to do.
        explain: error -> the sentence for a user's mistake, None for a bug.
    """
    before = {key: os.environ.get(key) for key in (FULL, OURS, VARIABLE)}
    os.environ[VARIABLE] = command_line()  # for the processes that do the job
    os.environ["MPLBACKEND"] = "Agg"  # figures are files here
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads that spin stall a job beside any other one
    os.environ.setdefault(OURS, "0" if before[FULL] else "1")  # for our processes too
    os.environ[FULL] = "1"  # so that Hydra raises, and we explain
    complains, logging.raiseExceptions = logging.raiseExceptions, False  # a log that nobody reads is no reason to complain
    exits, argparse.ArgumentParser.error = argparse.ArgumentParser.error, unknown_argument  # type: ignore[method-assign, assignment]
    try:
        with screen.guarded():
            guarded(main, explain)
    finally:
        logging.raiseExceptions = complains
        argparse.ArgumentParser.error = exits  # type: ignore[method-assign]
        for key, value in before.items():
            os.environ.pop(key, None)
            os.environ.update({} if value is None else {key: value})


def unknown_argument(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """ConfigError in place of argparse's own end, which has a page of usage and exit code 2."""
    dashed = parser.description == "Hydra" and message.startswith(("unrecognized", "argument --multirun/-m: ignored"))
    fix = "write options without dashes, as key=value such as seed=1; " if dashed else ""
    raise ConfigError(f"{message}; {fix}{parser.prog} --help says what there is.")


def guarded(main: Callable[[], object], explain: Callable[[BaseException], str | None]) -> None:
    """`entry`, within its screen and its environment."""
    try:
        with signals.obeyed():
            children.end_with_parent()
            main()
    except signals.Stopped as stop:
        end(stop)
    except Exception as error:
        if number := signals.caught():  # which is why
            end(signals.Stopped(number))
        refuse(error, explain(error))


def end(stop: signals.Stopped) -> NoReturn:
    """End with a signal's exit code, and a sentence where nothing has been said yet."""
    if signals.advice() or not stop.said:
        print(f"{below_a_bar()}{advised(f'Stopped by {signals.name_of(stop.number)}')}", file=sys.stderr)
    if children.orphaned.is_set():
        os._exit(128 + stop.number)  # Python may take seconds to tidy up
    raise stop


def below_a_bar() -> str:
    """What begins a line of its own where a progress bar stands."""
    return "\n" if "tqdm" in sys.modules and len(sys.modules["tqdm"].tqdm._instances) else ""


def refuse(error: Exception, sentence: str | None) -> NoReturn:
    """End with the sentence for an error and exit code 1, or raise it where there is none or the traceback is wanted."""
    if sentence is None or os.environ.get(OURS) == "0":
        raise error
    print(screen.painted(f"{below_a_bar()}Error: {sentence}", sys.stderr), file=sys.stderr)
    sys.exit(1)
