"""Which options of lightning.Trainer act in a training, and what to use instead of those that cannot."""

import difflib
import inspect
from collections.abc import Mapping

import lightning as L
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from heatgen import check
from heatgen.check import ConfigError

STREAM = "a training reads an endless stream"
INSTEAD = {  # option -> why it cannot act, and what to use; all others act, and are Lightning's or heatgen's own
    "logger": "loggers are a group; use logger=NAME",
    "callbacks": "callbacks are a group; use callback=[default,NAME]",
    "fast_dev_run": "it would save nothing; use debug=fast",
    "min_epochs": f"{STREAM}; use trainer.max_epochs",
    "min_steps": "a training makes all its steps; use trainer.max_steps",
    "limit_train_batches": f"{STREAM}; use trainer.max_steps, data.limit, or trainer.overfit_batches",
    "limit_test_batches": "a training makes no test; measure with evaluate.py n=N",
    "limit_predict_batches": "a training makes no predictions; draw samples with sample.py n=N",
    "check_val_every_n_epoch": f"{STREAM}; use trainer.val_check_interval, in steps",
    "num_sanity_val_steps": "a validation of untrained weights would be taken for a result; use debug=fast",
    "enable_checkpointing": "checkpoints are a callback; use callback.checkpoints.every",
    "enable_progress_bar": "the bar is a callback; use ~callback.progress to go without it",
    "enable_model_summary": "a run's train result has the number of its parameters",
    "barebones": "it would switch off what a run promises; use debug=profile",
    "plugins": "it has its own; use trainer.strategy and trainer.precision",
    "use_distributed_sampler": "each process takes its own part of the stream",
    "reload_dataloaders_every_n_epochs": STREAM,
    "default_root_dir": "a run has its folder; use hydra.run.dir",
    "enable_autolog_hparams": "loggers get the whole config",
    "model_registry": "runs are kept in their folders",
}
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")
PROFILERS: dict[str, type[Profiler]] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
BOOLEANS = ("detect_anomaly", "sync_batchnorm", "inference_mode")


def check_options(options: Mapping[str, object]) -> None:
    """ConfigError for an option that is none of lightning.Trainer, that cannot act, or whose value is none."""
    known = inspect.signature(L.Trainer.__init__).parameters
    for key, value in options.items():
        if key not in known and key != "on_nonfinite":
            near = difflib.get_close_matches(key, set(known) - set(INSTEAD), n=1, cutoff=0.5)
            hint = f"; did you mean trainer.{near[0]}?" if near else "; remove it."
            raise ConfigError(f"trainer.{key} is no option of lightning.Trainer{hint}")
        if key in INSTEAD and value != known[key].default:
            raise ConfigError(f"trainer.{key}={value} cannot act: {INSTEAD[key]}.")
    check_strategy(options["strategy"])
    for key in BOOLEANS:
        check.boolean(f"trainer.{key}", options.get(key, False))
    for key in ("benchmark", "deterministic"):
        if options.get(key) is not None and options[key] != "warn":
            check.boolean(f"trainer.{key}", options[key])
    for key, choices in {"gradient_clip_algorithm": ("norm", "value"), "profiler": tuple(PROFILERS)}.items():
        if options.get(key) is not None:
            check.choice(f"trainer.{key}", options[key], choices)
    limit = options.get("limit_val_batches")
    whole = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0
    if not (limit is None or whole or (isinstance(limit, float) and 0 < limit <= 1)):
        raise ConfigError(f"trainer.limit_val_batches must be a number of batches, or a part such as 0.5, not {limit!r}.")
    check.integer("trainer.overfit_batches", options.get("overfit_batches", 0), minimum=0)


def check_strategy(name: object) -> None:
    """ConfigError, with the reason, for a strategy of Lightning's that does not do what heatgen does."""
    reasons = {
        ("fsdp", "deepspeed", "model_parallel"): "shares out one network over devices, while each has the whole one here",
        ("spawn", "fork", "notebook"): "starts processes itself, as heatgen does",
    }
    for words, reason in reasons.items():
        if any(word in str(name) for word in words):
            raise ConfigError(f"trainer.strategy={name} {reason}; use trainer.strategy=ddp.")
    check.choice("trainer.strategy", name, STRATEGIES)
