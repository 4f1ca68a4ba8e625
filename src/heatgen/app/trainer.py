"""The Lightning Trainer that heatgen uses: driven by steps, with its own checkpoints, writing to the run directory."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar, Timer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from omegaconf import DictConfig, OmegaConf
from torch import nn

from heatgen import check
from heatgen.app.plain import Options
from heatgen.app.requests import compile_of, needed
from heatgen.app.trainer_options import INSTEAD, PROFILERS, check_options
from heatgen.callback.checkpoints import AtomicIO
from heatgen.callback.finite import Finite
from heatgen.callback.validation import Validation
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.model.module import Method
from heatgen.runtime import engine, launch, ranks

log = logging.getLogger("heatgen")

NOISE = (  # in warnings
    *("not resumable", "callbacks used to create the checkpoint", "smaller than the logging interval"),
    *("does not have many workers", "LeafSpec", "torch.jit", "sync_dist=True", "broadcast_buffers"),
)
NEEDED = (
    *("accelerator", "devices", "strategy", "max_steps", "max_epochs", "gradient_clip_val", "accumulate_grad_batches"),
    *("val_check_interval", "log_every_n_steps"),
)


def make_trainer(
    options: Options, run_dir: Path, data: DataModule, callbacks: Sequence[L.Callback], loggers: Sequence[Logger]
) -> L.Trainer:
    """A Trainer that counts in optimizer steps and writes into a run's folder.

    Args:
        options: of conf/trainer; max_epochs, where given, replaces max_steps; on_nonfinite is that of `Finite`.
        run_dir: the run.
        data: whose batches make an epoch.
        callbacks: of the training.
        loggers: where numbers go.

    Raises:
        ConfigError: an option is out of range, or Lightning refuses it.
    """
    options = {key: value for key, value in options.items() if key != "_target_"}
    needed(options, NEEDED)
    check_options(options)
    options = {key: value for key, value in options.items() if key not in INSTEAD}
    processes = launch.count_devices(options["accelerator"], options["devices"]) * options.get("num_nodes", 1)
    options["accelerator"], options["devices"] = launch.placed(options["accelerator"], options["devices"])
    options["strategy"] = strategy_of(options["strategy"], processes)
    if (profiler := options.get("profiler")) is not None:
        options["profiler"] = PROFILERS[profiler](dirpath=run_dir, filename="profile")
    if repeated := options.pop("overfit_batches", 0):
        data.repeated = repeated
    for key in ("val_check_interval", "accumulate_grad_batches", "log_every_n_steps"):
        options[key] = check.integer(f"trainer.{key}", options[key], minimum=1)
    finite = Finite(options.pop("on_nonfinite", "stop"))
    epochs = options.pop("max_epochs")
    if epochs is not None:
        batch = data.batch_size * options["accumulate_grad_batches"]
        samples = check.integer("trainer.max_epochs", epochs, minimum=1) * len(data.images("train"))
        if samples + batch <= data.seen:
            raise ConfigError(f"trainer.max_epochs={epochs} is less than the {data.seen} samples that were seen; give more.")
        options["max_steps"] = data.seen_at + max(0, -(-(samples - data.seen) // batch))
    options["max_steps"] = check.integer("trainer.max_steps", options["max_steps"], minimum=1)
    if options["gradient_clip_val"] is not None:
        check.number("trainer.gradient_clip_val", options["gradient_clip_val"], minimum=0)
    try:
        trainer = L.Trainer(
            **options,
            default_root_dir=str(run_dir),
            callbacks=[finite, Validation(), *callbacks],  # first, so that nothing is done with what is not finite
            logger=list(loggers) or False,
            plugins=[AtomicIO()],
            max_epochs=-1,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        )
    except (ValueError, RuntimeError, TypeError, MisconfigurationException) as error:
        culprits = [f"trainer.{k}={v}" for k, v in options.items() if isinstance(v, str) and v in str(error)]
        reason = " ".join(str(error).split())
        raise ConfigError(f"{(culprits or ['trainer'])[0]} is refused by Lightning: {reason}") from error
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by Lightning, declared nowhere
        if isinstance(callback, Timer) and not callback.time_remaining():
            raise ConfigError("trainer.max_time leaves no time for a step; give more, as DD:HH:MM:SS.")
    without_signals(trainer)
    return trainer


def strategy_of(name: str, processes: int) -> Strategy | str:
    """How so many processes train together: each has the whole network, and a step exchanges its gradients, nothing else.

    Buffers are constants, such as the times and bases of a map, and the same everywhere: they are not sent again. Gradients
    lie in the memory that is exchanged, and are not copied there.
    """
    if processes == 1:
        return "auto"
    unused = name == "ddp_find_unused_parameters_true"
    return DDPStrategy(find_unused_parameters=unused, broadcast_buffers=False, gradient_as_bucket_view=True)


def decide_precision(cfg: DictConfig, net: nn.Module) -> str:
    """The precision to train a network in; what trainer.precision=auto chose goes into `cfg` and is told.

    ConfigError for one that the device does not have.
    """
    kind = engine.kind_of(launch.placed(cfg.trainer.accelerator, 1)[0])
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = engine.precision_for(net, kind)
        if ranks.rank() == 0:
            log.info("trainer.precision=auto chose %s", cfg.trainer.precision)
    precision = str(cfg.trainer.precision)
    engine.check_precision(precision, kind)
    return precision


def compile_model(cfg: DictConfig, model: Method, steps: int) -> None:
    """Compile the network of a model that has so many steps to go, where the config says so; what auto chose goes into it.

    ConfigError where it is asked for and cannot be.
    """
    kind, wanted = engine.kind_of(launch.placed(cfg.trainer.accelerator, 1)[0]), compile_of(cfg)
    done = engine.compile_net(model.net, wanted, kind, steps, model.not_compiled)
    OmegaConf.update(cfg, "compile", done, force_add=True)
    if done and wanted == "auto" and ranks.rank() == 0:
        log.info("compile=auto chose true")


def without_signals(trainer: L.Trainer) -> None:
    """Leave signals to `heatgen.runtime.signals`: Lightning's handler waits for the other processes, which may not come.

    Nor does each step ask rank 0 whether it has a SIGTERM: `heatgen.runtime.agreement` does without.
    """
    connector, loop = trainer._signal_connector, trainer.fit_loop.epoch_loop  # there is no option that says it
    assert callable(connector.register_signal_handlers) and callable(loop._broadcast_sigterm_tensor)
    connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def quiet_lightning() -> None:
    """Hide Lightning's advertisements, and warnings that do not concern a user."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=f".*{message}.*")
