"""Several processes that do one job, on one machine or many: which one this is, and what they agree upon.

Lightning knows who started them (torchrun, SLURM, LSF, MPI, or `launch`), and finds their common address. There they
exchange words before any of them trains, so that rank 0 decides and an error of one ends all of them.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from heatgen.check import ConfigError

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

OWN_CHILD = "HEATGEN_CHILD"  # set in the processes that `launch` starts
SIGNS = ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "JSM_NAMESPACE_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
PATIENCE = timedelta(minutes=30)  # for the slowest of them to start, as PyTorch has it
GOODBYE = timedelta(minutes=2)  # for the others to hear of an error
BRIEF = timedelta(seconds=90)  # for the slowest of tasks of which it is not sure that srun has started them
OF_STEP = {"SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NUM_TASKS"}  # what srun tells them
said = [0]  # how often this process has spoken to the others


def is_own_child() -> bool:
    """Whether this process was started by `launch`."""
    return OWN_CHILD in os.environ


def cluster() -> "ClusterEnvironment | None":
    """What Lightning finds of a cluster that started this process as one of several; None where this is the only one.

    Raises:
        ConfigError: the cluster was told something that Lightning refuses.
    """
    for name in NUMBERS:
        if not os.environ.get(name, "0").isdecimal():
            raise ConfigError(
                f"{name}={os.environ[name]} in the environment is no number; unset it, or start with torchrun."
            )
    signs = {name: os.environ[name] for name in SIGNS if name in os.environ}
    if not signs or signs == {"SLURM_NTASKS": "1"}:
        return None  # without the seconds that an import of PyTorch takes
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.lsf import LSFEnvironment
    from lightning.fabric.plugins.environments.mpi import MPIEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for kind in (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment):
                if kind.detect():
                    if kind is SLURMEnvironment and "SLURM_PROCID" not in os.environ and os.environ["SLURM_NTASKS"] != "1":
                        raise ConfigError(without_srun())
                    found: ClusterEnvironment = kind()
                    return found if found.world_size() > 1 else None
    except ConfigError:
        raise
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(f"The processes cannot be told apart: {error}") from error
    return LightningEnvironment() if "LOCAL_RANK" in os.environ else None


def without_srun() -> str:
    """The sentence for a job of SLURM that calls Python itself, as its script does once."""
    number = os.environ.get("SLURM_NTASKS")
    one = f"ask for --ntasks=1 and give trainer.devices={number}"
    return f"SLURM has {number} tasks for this job, and srun has not started them; put srun before the command, or {one}."


def is_doubtful() -> bool:
    """Whether this may be the script of a job of SLURM's, not one of its tasks: both are number 0."""
    found = cluster()
    of_slurm = type(found).__name__ == "SLURMEnvironment" and os.environ.get("SLURM_PROCID") == "0"
    return of_slurm and not OF_STEP & {*os.environ}


def is_child() -> bool:
    """Whether this process was started as one of several (by us, torchrun, SLURM, LSF or MPI)."""
    return cluster() is not None


def rank() -> int:
    """This process's number among those of all machines; 0 where it is the only one."""
    if is_own_child():
        return int(os.environ.get("RANK", 0))
    found = cluster()
    if found is None or type(found).__name__ == "LightningEnvironment":  # which learns it from the Trainer
        return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) if found else 0
    return found.global_rank()


def world() -> int:
    """How many processes there are on all machines."""
    found = cluster()
    if found is None or type(found).__name__ == "LightningEnvironment":
        return int(os.environ.get("WORLD_SIZE", 1)) if found and "MASTER_PORT" in os.environ else 1
    return found.world_size()


@cache
def store() -> Any:
    """Where the processes exchange words: at the address where they will meet to train, kept as long as this one lives."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    found = cluster()
    assert found is not None
    address, port = found.main_address, found.main_port
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return TCPStore(
        address, port, world(), not served and rank() == 0, timeout=PATIENCE, wait_for_workers=False, multi_tenant=True
    )


def place() -> str:
    """What the keys of these processes begin with in the store, which torchrun keeps when it starts them again."""
    return f"heatgen/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"


def exchange(words: str, patience: timedelta = PATIENCE) -> list[str]:
    """What each process says, in the order of the ranks; all of them say something in the same order of calls.

    Raises:
        ConfigError: one of them has not come, or has gone.
    """
    if (number := world()) == 1:
        return [words]
    said[0] += 1
    words_of = f"{place()}/{said[0]}"
    keys = [f"{words_of}/{other}" for other in range(number)]
    try:
        store().set(keys[rank()], words)
        store().wait(keys, BRIEF if said[0] == 1 and is_doubtful() else patience)
        answers = [store().get(key).decode() for key in keys]
        if store().add(f"{words_of}/heard", 1) == number:
            store().set(f"{words_of}/all", "")
        if rank() == 0:  # it may hold the store, which must not go before all have read
            store().wait([f"{words_of}/all"], GOODBYE)
    except RuntimeError as error:  # of the store
        if said[0] == 1 and is_doubtful():
            raise ConfigError(without_srun()) from error
        raise ConfigError(
            f"Not all of the {number} processes have come, or one has gone; start them together (with srun or torchrun)."
        ) from error
    return answers


@contextmanager
def together() -> Iterator[None]:
    """What all processes do, or none: an error of one is an error of all, with the sentence of the first that has one."""
    from heatgen.runtime.explain import explain

    try:
        yield
    except Exception as error:
        with suppress(ConfigError):  # the error is the thing to tell where the others do not hear
            exchange(explain(error) or f"process {rank()} failed ({type(error).__name__}) and says why.", GOODBYE)
        raise
    if errors := [answer for answer in exchange("") if answer]:
        raise ConfigError(errors[0])


def told(answer: Callable[[], str]) -> str:
    """What rank 0 answers, in all processes; its ConfigError too."""
    heard = ""
    with together():
        heard = answer() if rank() == 0 else ""
    return exchange(heard)[0]
