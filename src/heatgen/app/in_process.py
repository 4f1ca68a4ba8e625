"""A training in the process of a Python program or a notebook, instead of a command's own."""

import copy
import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from heatgen import __version__
from heatgen.app import folders, mistakes
from heatgen.app.cli import for_the_resumed
from heatgen.app.compose import command, words_of
from heatgen.app.job import refuse_missing
from heatgen.app.options import SearchPath
from heatgen.app.quoting import quoted
from heatgen.app.train import train
from heatgen.check import ConfigError
from heatgen.data import memory
from heatgen.data.images import Pixels
from heatgen.runtime import claim, directory, signals
from heatgen.runtime.command import NAME, VARIABLE

log = logging.getLogger("heatgen")


def train_here(words: Sequence[str], data: object = None, config_dir: str | None = None) -> Path:
    """Do what `heatgen train WORDS` does; the folder of the run.

    Args:
        words: the arguments, without flags.
        data: samples in memory, see `memory.taken`; None: those of the words.
        config_dir: a folder with more options.

    Raises:
        ConfigError: for whatever the command would refuse.
        KeyboardInterrupt: Ctrl-C came; what was trained is saved, and the log says how to go on.
    """
    splits = None if data is None else memory.taken(data)
    path = SearchPath(config_dir=config_dir)
    try:
        with signals.guest(), kept_in_run(words, splits, path) as own, command("train", own, path) as cfg, called(own):
            return trained(cfg)
    except SystemExit as end:
        if isinstance(end, signals.Stopped) and end.number != signal.SIGINT:
            raise
        if isinstance(end, signals.Stopped) or isinstance(end.__context__, KeyboardInterrupt):  # the latter of Lightning
            raise KeyboardInterrupt("The training was stopped; what stands above goes on with it.") from None
        raise ConfigError(f"The processes of the training ended with exit code {end.code}; they say why above.") from end
    except Exception as error:
        sentence = mistakes.sentence(error)
        if sentence is None or isinstance(error, ConfigError):
            raise
        raise ConfigError(sentence) from error
    finally:
        folders.give_up()


@contextmanager
def kept_in_run(words: Sequence[str], splits: Mapping[str, Pixels] | None, path: SearchPath) -> Iterator[list[str]]:
    """Samples written into the folder of a run that is about to begin, and the arguments that train on them there.

    Where nothing begins they are removed; where there are none, the arguments are those of the user.
    """
    if splits is None:
        yield for_the_resumed(words)
        return
    if resumed := next((word for word in words if word.startswith("resume=") and word != "resume=null"), None):
        raise ConfigError(f"{resumed} goes on with the data of its run; leave data out.")
    shape = list(splits["train"].array.shape[1:])
    with command("train", ["data=memory", f"data.shape={shape}", *words], path) as cfg:
        folder = Path(cfg.hydra.run.dir).absolute()
        if folders.stamped(cfg, "run"):
            folder = claim.claim(folder)
        elif not claim.make(folder) and any(folder.iterdir()):
            raise ConfigError(f"folder={folder} is not empty; choose another one.")
    source = {"data": "memory", "shape": shape, "versions": {NAME: __version__}}
    checksum = memory.write(folder / directory.DATA, splits, source)
    own = words_of({"data": "memory", "data.path": str(folder / directory.DATA), "data_name": f"memory-{checksum[:8]}"})
    own += [word for word in words if not word.startswith("hydra.run.dir=")]
    try:
        yield [*own, f"hydra.run.dir={quoted(str(folder))}"]
    finally:
        if not (folder / directory.CONFIG).is_file():
            (folder / directory.DATA).unlink(missing_ok=True)


def trained(cfg: DictConfig) -> Path:
    """Do the training of a config, Hydra's part included; its folder."""
    if cfg.hydra.mode == RunMode.MULTIRUN:
        raise ConfigError(f"These options are a sweep, which {NAME} train -m does; remove them, or give one value of each.")
    folders.decide_run(cfg)
    OmegaConf.set_readonly(cfg.hydra, False)
    run_dir = Path(cfg.hydra.run.dir)
    cfg.hydra.mode, cfg.hydra.runtime.output_dir = RunMode.RUN, str(run_dir)
    HydraConfig.instance().set_config(cfg)
    own = copy.deepcopy(cfg)
    OmegaConf.set_struct(own, False)
    del own["hydra"]
    OmegaConf.set_struct(own, True)
    refuse_missing(own)
    with told(run_dir / "train.log"):
        train.__wrapped__(own)  # type: ignore[attr-defined]  # without what ends a command
    return run_dir


@contextmanager
def called(words: Sequence[str]) -> Iterator[None]:
    """Within it the command that is written into the run is the one that does the same."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = shlex.join([NAME, "train", *words])
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        os.environ.update({} if before is None else {VARIABLE: before})


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Within it what heatgen logs goes into a file, and to the screen where the program has no logging of its own."""
    handlers: list[logging.Handler] = [logging.FileHandler(path)]
    handlers += [] if logging.getLogger().handlers else [logging.StreamHandler(sys.stdout)]
    level = log.level
    log.setLevel(logging.INFO)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
        handlers[0].close()
        log.setLevel(level)
