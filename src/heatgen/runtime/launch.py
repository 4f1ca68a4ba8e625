"""Several processes on one machine: start one a device, wait for them, end them together.

Each process runs the same script with the same overrides and the same directory, and finds its rank in the environment,
where Lightning looks for it. The process that the user started only waits. So each job of a sweep gets processes of its
own, nothing of one job leaks into the next, and nothing private of Lightning is touched.
"""

import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heatgen.check import CONF, ConfigError, choice, options_of

log = logging.getLogger("heatgen")
TAIL = 15  # lines of a failed process's output that are shown
IN_A_SWEEP = ("mode=forward", "mode=memorisation n=200")  # what is measured of each run of a sweep, unless it says
OWN_CHILD = "HEATGEN_CHILD"  # set in the processes that `launch` starts


def count_devices(accelerator: str, devices: Any) -> int:
    """How many processes `trainer.devices` means on this machine. ConfigError for what is neither number, list nor auto."""
    if isinstance(devices, (list, tuple)):
        return len(devices)
    if devices in ("auto", -1, "-1"):
        import torch

        return max(1, torch.cuda.device_count()) if accelerator in ("auto", "gpu", "cuda") else 1
    if isinstance(devices, bool) or not str(devices).isdigit() or int(devices) < 1:
        raise ConfigError(f"trainer.devices must be a number of at least 1, a list or auto, not {devices!r}.")
    return int(devices)


def pick_accelerator(name: str) -> str:
    """`name`, or for auto a CUDA GPU where there is one and else the CPU (times and bases are float64, which MPS lacks)."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def is_child() -> bool:
    """Whether this process was started as one of several (by us, torchrun or SLURM)."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", 1)) > 1


def rank() -> int:
    """This process's number among those of all machines; 0 where it is the only one."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", 0))))


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def child_arguments(hc: Any, run: Path) -> list[str]:
    """What makes a process of several do the job of Hydra's config `hc`, alone and in this directory."""
    flags = ["--config-name", hc.job.config_name]
    return [*flags, f"hydra.run.dir='{run}'", "hydra.output_subdir=null", "hydra.mode=RUN"]


def check_evaluate(asked: Any) -> None:
    """ConfigError unless it is None or a list of evaluate.py's arguments, each with a mode that exists."""
    if asked is None:
        return
    if isinstance(asked, str):
        raise ConfigError(f"evaluate must be a list such as ['mode=forward'], not {asked!r}.")
    for words in asked:
        mode = dict(word.split("=", 1) for word in shlex.split(str(words)) if "=" in word).get("mode", "elbo")
        choice("mode in evaluate", mode, options_of("mode"))


def evaluate(run: Path, cfg: Any, in_sweep: bool) -> None:
    """Call evaluate.py for a finished run, once for each entry of `cfg.evaluate`. ConfigError where one fails.

    In one of several processes it is left to the process that waits for them, or under torchrun and SLURM to the user.
    """
    asked = cfg.get("evaluate")  # a run of before there was this key has none
    if is_child():
        if asked and rank() == 0 and OWN_CHILD not in os.environ:
            log.warning("Note: evaluate is not done under torchrun or SLURM; call evaluate.py run=%s afterwards.", run)
        return
    wanted = asked if asked is not None else IN_A_SWEEP if in_sweep else ()
    for words in wanted:
        where = [f"run='{run}'", f"runs_dir='{cfg.runs_dir}'", f"trainer.accelerator={cfg.trainer.accelerator}"]
        done = subprocess.run([sys.executable, str(CONF.with_name("evaluate.py")), *where, *shlex.split(str(words))])
        if done.returncode:
            raise ConfigError(f"evaluate={words} failed and says why above; the training is whole, in {run}.")


def launch(script: str, arguments: Sequence[str], count: int, folder: Path) -> int:
    """Run `script` (train, ...) `count` times with `arguments`; the exit code of the first process that fails, else 0.

    The first process talks to the terminal, the others to <folder>/process_<rank>.log. SIGTERM, SIGUSR1 and Ctrl-C
    reach all of them.
    """
    path = str(CONF.with_name(f"{script}.py"))
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    common = {
        "OMP_NUM_THREADS": threads,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        OWN_CHILD: "1",
    }
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / f"process_{i}.log" for i in range(count)]
    children = []
    for i in range(count):
        environment = {**os.environ, **common, "LOCAL_RANK": str(i), "RANK": str(i)}
        output = None if i == 0 else logs[i].open("ab")
        children.append(subprocess.Popen([sys.executable, path, *arguments], env=environment, stdout=output, stderr=output))
        if output:
            output.close()

    def forward(number: int, frame: Any) -> None:
        for child in children:
            child.send_signal(number)

    old = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        return wait(children, logs)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        for child in children:
            child.kill()


def wait(children: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]) -> int:
    """Wait until all have ended, or one has failed and the others had a few seconds to follow."""
    while all(child.poll() in (None, 0) for child in children):
        if all(child.poll() == 0 for child in children):
            return 0
        time.sleep(0.1)
    deadline = time.monotonic() + 10
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    failed = [i for i, child in enumerate(children) if child.poll() not in (None, 0)]
    if 0 not in failed:  # the first process has said nothing
        lines = logs[failed[0]].read_text(errors="replace").splitlines()[-TAIL:]
        print("\n".join([f"Process {failed[0]} failed:", *lines]), file=sys.stderr)
    code = children[failed[0]].returncode
    return code if code > 0 else 128 - code
