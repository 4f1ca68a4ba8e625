"""hparams_search=NAME: Hydra's jobs as the trials of an Optuna study, which a kill does not end."""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app.load import advised
from heatgen.check import ConfigError
from heatgen.runtime import ranks

if TYPE_CHECKING:
    import lightning as L
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

log = logging.getLogger("heatgen")
TRIAL = "++search.trial="  # the argument that gives a job the number of its trial
Trials = Sequence[tuple[int, list[str]]]  # number, and the arguments of its job


class Search(Sweeper):
    """Asks Optuna for the values of each job (TPE), and tells it what came of them; the study is <sweep>/study.db.

    Each trial has a folder of its own, which starts with its number. Values are what -m takes, on the command line or in
    `params`: choice(16,32), range(5,50,5), interval(1,2), tag(log,interval(1e-4,1e-2)).

    Args:
        params: key -> values; arguments replace them.
        n_trials: how many trials the study has in the end, failed and pruned ones included.
        n_jobs: trials at a time, for a launcher that does several (hydra/launcher=joblib hydra.launcher.n_jobs=N).
        objective: MODE/VALUE of the results of a run: train/val_loss, or of a mode in `evaluate`, such as elbo/nll_bound.
        direction: minimize | maximize.
        prune: whether a trial ends whose val/loss is above the median of the others at a step; only for train/val_loss.
        n_startup_trials: trials with random values, before there is enough to learn from; none of them is pruned.
        seed: of the values.
    """

    def __init__(
        self,
        params: Mapping[str, object] | None = None,
        n_trials: int = 20,
        n_jobs: int = 1,
        objective: str = "train/val_loss",
        direction: str = "minimize",
        prune: bool = True,
        n_startup_trials: int = 5,
        seed: int = 0,
    ):
        self.params = {str(key): str(value) for key, value in (params or {}).items()}
        self.n_trials, self.n_jobs, self.n_startup_trials, self.seed = n_trials, n_jobs, n_startup_trials, seed
        self.objective, self.direction, self.prune = objective, direction, prune
        self.launcher: Launcher
        self.config: DictConfig
        self.context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.config, self.context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def check(self) -> None:
        """ConfigError for options that are out of range, without Optuna, and under torchrun or SLURM."""
        for key, least in (("n_trials", 1), ("n_jobs", 1), ("n_startup_trials", 0), ("seed", 0)):
            check.integer(f"hydra.sweeper.{key}", getattr(self, key), minimum=least)
        check.choice("hydra.sweeper.direction", self.direction, ("minimize", "maximize"))
        if len(str(self.objective).split("/")) != 2:
            raise ConfigError(f"hydra.sweeper.objective must be MODE/VALUE such as train/val_loss, not {self.objective!r}.")
        if check.boolean("hydra.sweeper.prune", self.prune) and self.objective != "train/val_loss":
            raise ConfigError(f"hydra.sweeper.prune=true is for objective=train/val_loss, not {self.objective}; use false.")
        if importlib.util.find_spec("optuna") is None:
            raise ConfigError("hparams_search= needs the package optuna: pip install optuna.")
        if ranks.is_child():
            raise ConfigError("A search starts the processes of its trials itself; call it without torchrun or srun.")

    def sweep(self, arguments: list[str]) -> None:
        """Do the trials that the study lacks."""
        self.check()
        import optuna

        parsed = OverridesParser.create(config_loader=self.context.config_loader).parse_overrides(
            [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        )
        words = {override.get_key_element(): override for override in parsed}  # the last one of a key counts
        space = {key: distribution(override) for key, override in words.items() if override.is_sweep_override()}
        fixed = [str(override.input_line) for key, override in words.items() if key not in space]
        if not space:
            raise ConfigError("There is nothing to search: give values, such as 'optimizer.lr=interval(1e-4,1e-2)'.")
        unseen = words.get("trainer.limit_val_batches")
        if self.objective == "train/val_loss" and unseen is not None and unseen.value() == 0:
            raise ConfigError(f"hydra.sweeper.objective={self.objective} needs a validation; remove {unseen.input_line}.")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        study = open_study(folder, self.direction)
        study.set_user_attr("prune", bool(self.prune))
        study.set_user_attr("n_startup_trials", self.n_startup_trials)
        while batch := self.next_trials(study, space, fixed):
            for (number, _), job in zip(batch, self.launch(batch), strict=True):
                tell(study, number, job, self.objective)
            self.report(study, folder)
        self.report(study, folder, done=True)

    def next_trials(self, study: "Study", space: "Mapping[str, BaseDistribution]", fixed: Sequence[str]) -> Trials:
        """The next trials, those first that a kill ended; none where there are enough."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        from heatgen.callback.prune import PRUNED

        trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
        chosen: list[FrozenTrial] = []
        for trial in (trial for trial in trials if trial.state == TrialState.RUNNING):
            if trial.params.keys() != space.keys():  # a kill came between two of them
                study.tell(trial.number, state=TrialState.FAIL)
            elif PRUNED in trial.user_attrs:
                study.tell(trial.number, state=TrialState.PRUNED)
            else:
                chosen.append(trial)
        for number in range(len(trials), max(len(trials), min(self.n_trials, len(trials) + self.n_jobs - len(chosen)))):
            seed = self.seed + number  # the same whenever it goes on
            study.sampler = TPESampler(seed=seed, n_startup_trials=self.n_startup_trials)
            try:
                asked = study.ask(dict(space))
            except ValueError as error:
                raise ConfigError(f"The study in {self.config.hydra.sweep.dir} has other values: {error}.") from error
            chosen.append(study.get_trials(deepcopy=False)[asked.number])
        first = chosen[0].number if chosen else 0  # from which Hydra numbers the jobs
        batch = [trial for i, trial in enumerate(chosen[: self.n_jobs]) if trial.number == first + i]
        return [(t.number, [*fixed, *(f"{k}={v}" for k, v in t.params.items()), f"{TRIAL}{t.number}"]) for t in batch]

    def launch(self, batch: Trials) -> Sequence[JobReturn]:
        """Do the jobs of some trials."""
        return self.launcher.launch([words for _, words in batch], initial_job_idx=batch[0][0])

    def report(self, study: "Study", folder: Path, done: bool = False) -> None:
        """Write study.md, .json and .png; in the end say which trial is the best."""
        from optuna.trial import TrialState

        from heatgen.report.study import write

        trials = study.get_trials(deepcopy=False)
        rows = [{"trial": t.number, "state": t.state.name.lower(), "value": value_of(t), **t.params} for t in trials]
        write(folder, rows, self.objective, self.direction)
        if not done:
            return
        states = [trial.state for trial in trials]
        if TrialState.COMPLETE not in states:
            raise ConfigError(f"None of the {len(trials)} trials gave {self.objective}; what each said stands above.")
        best = study.best_trial
        run = next(iter(folder.glob(f"{best.number}-*")), folder)
        counts = ", ".join(f"{states.count(s)} {s.name.lower()}" for s in dict.fromkeys(states))
        values = " ".join(f"{key}={value}" for key, value in best.params.items())
        found = f"the best is {best.number}, {self.objective} {best.value:.6g}, with {values}"
        log.info("%d trials (%s); %s", len(trials), counts, found)
        log.info("written: %s.md, .json and .png; next: %s", folder / "study", advised("run", run, "sample"))


def distribution(override: Override) -> "BaseDistribution":
    """What Optuna calls the values of an argument."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, RangeSweep) and override.is_range_sweep():
        steps = value.range()
        if isinstance(steps, range) and len(steps) > 1:
            return IntDistribution(steps[0], steps[-1], step=steps.step)
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None and high is not None, "Hydra's grammar has both"
        try:
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log="log" in value.tags)
            return FloatDistribution(float(low), float(high), log="log" in value.tags)
        except ValueError as error:
            raise ConfigError(f"{override.input_line} is no interval to search ({error}).") from error
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def open_study(folder: Path, direction: str) -> "Study":
    """The study of a sweep, or a new one. ConfigError where its file is no study."""
    import optuna

    from heatgen.callback.prune import NAME, STUDY, storage_of

    way = optuna.study.StudyDirection[direction.upper()]
    try:
        return optuna.create_study(storage=storage_of(folder), study_name=NAME, direction=way, load_if_exists=True)
    except Exception as error:  # of SQLite, of SQLAlchemy, of Optuna
        reason = str(error).split("\n")[0]
        raise ConfigError(f"{folder / STUDY} cannot be used ({reason}); start another search.") from error


def tell(study: "Study", number: int, job: JobReturn, objective: str) -> None:
    """Tell a study what came of a trial."""
    from optuna.trial import TrialState

    from heatgen.callback.prune import PRUNED
    from heatgen.report.rows import results_of

    trial = study.get_trials(deepcopy=False)[number]
    if PRUNED in trial.user_attrs:
        study.tell(number, state=TrialState.PRUNED)
        return
    mode, name = objective.split("/")
    ended = job.status == JobStatus.COMPLETED and job.hydra_cfg is not None
    results = results_of(Path(job.hydra_cfg.hydra.runtime.output_dir)) if job.hydra_cfg is not None and ended else []
    found = [result["values"].get(name) for result in results if result["mode"] == mode]
    value = found[-1] if found else None
    if value is None and ended:
        fix = "there was no validation" if mode == "train" else f"add {mode} to evaluate="
        log.warning("Note: trial %d has no %s: %s, or give another hydra.sweeper.objective.", number, objective, fix)
    if value is None:
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, value)


def value_of(trial: "FrozenTrial") -> float | None:
    """The value of a trial; that of its last validation where it was pruned."""
    last = max(trial.intermediate_values, default=None)
    found: float | None = trial.value if trial.value is not None or last is None else trial.intermediate_values[last]
    return found


def pruning(run_dir: Path, overrides: Sequence[str]) -> "list[L.Callback]":
    """What ends the training of a trial early where its search prunes; nothing for any other training."""
    from heatgen.callback.prune import STUDY, Prune

    numbers = [int(word.removeprefix(TRIAL)) for word in overrides if word.startswith(TRIAL)]
    folder = next((above for above in run_dir.absolute().parents if (above / STUDY).is_file()), None)
    return [Prune(folder, numbers[0])] if numbers and folder is not None else []
