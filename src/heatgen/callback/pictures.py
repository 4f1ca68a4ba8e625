"""callback=pictures: samples as a grid and a GIF, every so many steps."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Protocol, runtime_checkable

import lightning as L
import numpy as np
import torch
from torch import Tensor

from heatgen import check
from heatgen.callback.ema import ema_of
from heatgen.callback.terminal import show
from heatgen.model.module import Method, data_of, peers_of
from heatgen.model.prior import start
from heatgen.picture import MARK, MOST_POINTS, MOST_TILES, Film, grid, is_points, save_gif
from heatgen.runtime.files import atomic_path, save_picture

log = logging.getLogger("heatgen")


class Pictures(L.Callback):
    """Draws samples now and then and at the end, with averaged weights where there are any.

    Writes <run>/samples/step_000500.png and process.gif (the latest way back), and sends both to every logger that takes
    them. The noise depends on (seed, sample) alone, so pictures of different steps show the same samples improving. Pixels
    that are NaN or inf, of a way back that diverges, have a colour of their own, and a line says so.

    Args:
        every: optimizer steps from one picture to the next; 0: never.
        n: samples in a picture.
        seed: of the samples.
        terminal: whether the first of them are shown in the terminal, too; where it cannot, the place of the GIF is said.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(self, every: int = 500, n: int = 36, seed: int = 0, terminal: bool = False):
        self.every = check.integer("callback.pictures.every", every, minimum=0)
        self.n = check.integer("callback.pictures.n", n, minimum=1)
        self.seed = check.integer("seed", seed, minimum=0)
        self.terminal = check.boolean("callback.pictures.terminal", terminal)
        self.last_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last_step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if self.every and trainer.global_step % self.every == 0:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.every:
            self.draw(trainer, pl_module)

    def draw(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        """Sample and write the pictures, once a step: each process a share of the samples, the first all pictures."""
        if self.last_step == trainer.global_step:
            return
        assert isinstance(model, Method)
        self.last_step = trainer.global_step
        peers = peers_of(trainer)
        with evaluating(trainer, model):
            model.calibrate(data_of(trainer), peers)
            with peers.together():
                samples, states = self.sample(trainer, model, peers.share(range(self.n)))
        samples, states = peers.to_first(samples), peers.to_first(states)
        with peers.together():
            if peers.first:
                self.write(trainer, samples, states)

    def sample(self, trainer: L.Trainer, model: Method, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """These samples, (B, C, H, W), and the states on the way to the first of them, (at most B, frames, C, H, W)."""
        film, samples = Film(model.num_steps, tiles=self.n), torch.empty(0, *model.process.shape)
        if indices:
            begin = start(model, data_of(trainer), indices, self.seed, model.device, key="pictures")
            film.begin()
            film.record(0, begin.state)
            samples = begin.model.generate(begin.state, begin.rng, film.record).float()
        return samples, film.states(samples)

    def write(self, trainer: L.Trainer, samples: Tensor, states: Tensor) -> None:
        """Write the grid of samples (n, C, H, W) and the GIF of states (n, frames, C, H, W), and send them to loggers."""
        folder = Path(trainer.default_root_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        if bad := int((~samples.isfinite()).flatten(1).any(1).sum()):
            where = f"{bad} of {self.n} samples of the picture at step {trainer.global_step}"
            log.warning("Note: %s hold NaN or inf (the colour #%02x%02x%02x; points are left out).", where, *MARK)
        to_unit = data_of(trainer).spec.to_unit
        picture = grid(to_unit(samples))
        path = folder / f"step_{trainer.global_step:06d}.png"
        save_picture(path, picture)
        tiles = MOST_POINTS if is_points(samples.shape[1:]) else MOST_TILES
        with atomic_path(folder / "process.gif") as beside:
            save_gif(beside, [grid(to_unit(state)) for state in states[:tiles].unbind(1)])
        if self.terminal:
            show(to_unit(samples), trainer.global_step, folder / "process.gif")
        for logger in trainer.loggers:
            writer = getattr(logger, "experiment", None)
            if isinstance(logger, ImageLogger):
                logger.log_image("samples", [str(path)], step=trainer.global_step)
            elif isinstance(writer, ImageWriter):
                writer.add_image("samples", np.asarray(picture), trainer.global_step, dataformats="HWC")
            if isinstance(logger, FilmLogger):
                logger.log_film("process", folder / "process.gif", trainer.global_step)


@contextmanager
def evaluating(trainer: L.Trainer, model: L.LightningModule) -> Iterator[None]:
    """Evaluation mode, averaged weights and the trainer's precision; everything is put back afterwards."""
    ema, training = ema_of(trainer), model.training
    model.eval()
    try:
        averaged = nullcontext() if ema is None else ema.applied(model)
        with torch.no_grad(), trainer.precision_plugin.forward_context(), averaged:
            yield
    finally:
        model.train(training)


@runtime_checkable
class ImageLogger(Protocol):
    """A logger that takes images, such as that of W&B.

    It is given files of the run, as W&B would keep images of memory in a temporary folder, which may be cleared meanwhile.
    """

    def log_image(self, key: str, images: list[str], step: int | None = None) -> None:
        """Log images, files by their paths, under a name."""


@runtime_checkable
class FilmLogger(Protocol):
    """A logger that takes GIFs."""

    def log_film(self, name: str, path: Path, step: int) -> None:
        """Log a GIF under a name."""


@runtime_checkable
class ImageWriter(Protocol):
    """What TensorBoard's logger writes to."""

    def add_image(self, tag: str, img_tensor: np.ndarray, global_step: int, dataformats: str) -> None:
        """Log an image, (H, W, 3) with dataformats HWC, under a name."""
