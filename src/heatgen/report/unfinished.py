"""Which runs are not finished, so that no number of theirs stands in a comparison."""

import json
import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from heatgen.check import ConfigError
from heatgen.report.rows import find_runs, results_of
from heatgen.runtime.command import call, runs_code
from heatgen.runtime.directory import CONFIG, STOPPED, SWEEP, plain_config, trained
from heatgen.runtime.files import read_small

log = logging.getLogger("heatgen")
USUAL = ("forward", "memorisation")  # what is measured of each run of a sweep that does not say


def finished_runs(folders: Sequence[Path]) -> list[Path]:
    """The runs in these folders that are finished; a note names the others.

    Raises:
        ConfigError: there is none; or a sweep is not finished, whose table would lack rows.
    """
    for folder in folders:
        if (folder / SWEEP).is_file() and (lacking := lacking_of_sweep(folder)):
            again = go_on(folder)
            some = "; ".join(lacking[:5]) + (f"; and {len(lacking) - 5} more" if len(lacking) > 5 else "")
            raise ConfigError(f"The sweep {folder} is not finished: {some}. Go on with {again}, or compare runs by name.")
    runs = find_runs(folders)
    reasons = {run_dir: reason for run_dir in runs if (reason := lacking_of(run_dir))}
    for run_dir, reason in reasons.items():
        log.warning("Note: %s is left out: %s.", run_dir, reason)
    if len(reasons) == len(runs):
        only = "; ".join(f"{run_dir}: {reason}" for run_dir, reason in list(reasons.items())[:5])
        raise ConfigError(
            f"There is no finished run to compare ({only}); go on with {call('train')} resume=RUN, or measure "
            f"it with {call('evaluate')} run=RUN."
        )
    return [run_dir for run_dir in runs if run_dir not in reasons]


def go_on(sweep: Path) -> str:
    """The command that goes on with a sweep; with trust=true where its arguments name code, or its jobs measure."""
    bare = f"resume={sweep}"
    word = bare if re.fullmatch(r"[\w./=@:-]+", bare) else f'resume="{sweep}"'
    try:
        words = json.loads(read_small(sweep / SWEEP))["arguments"]
        trust = " trust=true" if measures(sweep) or any(runs_code(str(one)) for one in words) else ""
    except (OSError, ValueError, TypeError, LookupError, RecursionError):  # which -m resume= says
        trust = ""
    return f"{call('train')} -m {shlex.quote(word)}{trust}"


def measures(sweep: Path) -> bool:
    """Whether a job of a sweep says what is measured at its end."""
    for path in sweep.glob(f"*/{CONFIG}"):
        with suppress(ConfigError):
            if plain_config(path.parent).get("evaluate"):
                return True
    return False


def lacking_of_sweep(folder: Path) -> list[str]:
    """What a sweep lacks: jobs that have not begun, trainings and measurements that have not ended."""
    found = {path.parent.name: path.parent for path in folder.glob(f"*/{CONFIG}")}
    numbers = {int(number[0]) for name in found if (number := re.match(r"\d+", name))}
    jobs = jobs_of(folder)
    missing = [f"job {number}: not begun" for number in range(jobs) if number not in numbers]
    if len(numbers) != len(found):  # folders of other names
        missing = [f"{jobs - len(found)} jobs: not begun"] if jobs > len(found) else []
    modes = {result["mode"] for run_dir in found.values() for result in results_of(run_dir)}
    usual = [mode for mode in USUAL if mode in modes]  # none where the processes were started by torchrun
    lines = [f"{name}: {reason}" for name, run_dir in sorted(found.items()) if (reason := lacking_of(run_dir, usual))]
    return lines + missing


def jobs_of(folder: Path) -> int:
    """How many jobs a sweep has; 0 where it does not say."""
    try:
        return int(json.loads(read_small(folder / SWEEP)).get("jobs", 0))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return 0


def lacking_of(run_dir: Path, usual: Sequence[str] = ()) -> str | None:
    """What a run lacks; None for one that is finished.

    Args:
        run_dir: the run.
        usual: the modes that it is measured with where it does not say.
    """
    config = plain_config(run_dir)
    if (run_dir / STOPPED).is_file():
        return f"stopped as it was not finite ({STOPPED})"
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping) and config.get("optimizer") is not None:
        done, wanted = trained(run_dir).get("steps"), trainer.get("max_steps")
        if done is None:
            return "its training has not ended"
        goes_on = isinstance(wanted, int) and done < wanted and trainer.get("max_epochs") is None
        if goes_on and started(run_dir) > ended(run_dir):
            return f"its training has not ended ({done:.0f} of {wanted} steps)"
    asked = config.get("evaluate")
    words = [shlex.split(str(entry)) for entry in asked] if isinstance(asked, list) else [[f"mode={mode}"] for mode in usual]
    modes = [next((word[5:] for word in entry if word.startswith("mode=")), "elbo") for entry in words]
    measured = {result["mode"] for result in results_of(run_dir)} if modes else set()
    lacking = [mode for mode in modes if mode not in measured]
    return f"mode={lacking[0]} has not been measured" if lacking else None


def started(run_dir: Path) -> str:
    """When a run was started or resumed last, as ISO text; empty where it does not say."""
    path = run_dir / "env.txt"
    found = re.findall(r"^started (\S+)$", path.read_text(), flags=re.MULTILINE) if path.is_file() else []
    return found[-1] if found else ""


def ended(run_dir: Path) -> str:
    """When a run's training ended last, as its newest result says; as ISO text, empty where there is none."""
    stamps = [
        re.match(r"train_(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)", path.name) for path in run_dir.glob("evaluation/*.json")
    ]
    return max(("{}T{}:{}:{}".format(*stamp.groups()) for stamp in stamps if stamp), default="")
