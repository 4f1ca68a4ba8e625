"""callback=pictures: what is drawn, when, with which weights and which map, and that the model is as before."""

from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from conftest import together
from PIL import Image
from torch import nn

from heatgen.callback.ema import EMA
from heatgen.callback.pictures import Pictures
from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.heat import Heat
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.model.ihd import IHD
from heatgen.sampler.ancestral import ancestral

SHAPE = (1, 4, 4)
K = 3


class Shift(nn.Module):
    """f(u) = weight, whatever the state; notes in which mode it was, every cond, and how many images it saw."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.modes, self.conds, self.images = set(), [], 0

    def forward(self, u, k, cond):
        self.modes.add(self.training)
        self.conds.append(cond)
        self.images += len(u)
        return torch.zeros_like(u) + self.weight


def make(process=None, **settings):
    """A model whose samples are all of the grey of its weight."""
    return IHD(process or Heat(SHAPE, K, 0.1), Shift(), ancestral, None, parametrisation="direct", **settings).train()


def data():
    images = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0))
    return SimpleNamespace(
        batch_size=128,
        images=lambda split: images[:6],
        get=lambda split, samples: images[list(samples)],
        states=None,
        prior_images=lambda samples, seed: torch.stack([images[i + seed] for i in samples]),
        spec=DataSpec(SHAPE),
    )


def trainer(folder, step=0, callbacks=(), rank=0, world=1):
    return SimpleNamespace(
        global_rank=rank,
        world_size=world,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        global_step=step,
        default_root_dir=str(folder),
        callbacks=list(callbacks),
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
        datamodule=data(),
        loggers=[],
    )


def drawn_at(folder):
    return sorted(int(path.stem.split("_")[1]) for path in (folder / "samples").glob("step_*.png"))


def test_pictures_are_drawn_every_so_many_steps_and_at_the_end_once(tmp_path):
    pictures, model, at = Pictures(every=4, n=2), make(), trainer(tmp_path)
    for at.global_step in range(1, 9):
        pictures.on_train_batch_end(at, model)
    pictures.on_train_end(at, model)
    assert drawn_at(tmp_path) == [4, 8]
    calls = len(model.net.conds)
    assert calls == 2 * K  # not drawn again at the end
    at.global_step = 9
    pictures.on_train_end(at, model)
    assert drawn_at(tmp_path) == [4, 8, 9]


def test_never_means_never(tmp_path):
    pictures, model = Pictures(every=0), make()
    pictures.on_train_batch_end(trainer(tmp_path), model)
    pictures.on_train_end(trainer(tmp_path), model)
    assert not (tmp_path / "samples").exists() and model.net.conds == []


@pytest.mark.parametrize("n", [1, 5])
def test_processes_share_a_picture_and_what_it_measures_and_the_picture_is_the_same(n, tmp_path):
    Pictures(every=1, n=n).on_train_end(trainer(tmp_path / "1", 1), make(delta_mode="spectral"))

    def work(rank):
        model = make(delta_mode="spectral")
        Pictures(every=1, n=n).on_train_end(trainer(tmp_path / "2", 1, rank=rank, world=2), model)
        images = [3, 3][rank] + len(range(rank, n, 2))  # of 6 that are measured, and of the n samples
        assert model.net.images == K * images

    assert together(work, 2) == [0, 0]
    for name in ("step_000001.png", "process.gif"):
        one, two = ((tmp_path / folder / "samples" / name).read_bytes() for folder in "12")
        assert one == two


@pytest.mark.parametrize("bad", [0, 1])
def test_where_one_process_fails_none_waits_for_it(bad, tmp_path):
    def work(rank):
        model = make()
        if rank == bad:
            model.generate = Mock(side_effect=ConfigError("This way back has a stone."))
        with pytest.raises(ConfigError, match="a stone"):
            Pictures(every=1, n=3).on_train_end(trainer(tmp_path, 1, rank=rank, world=2), model)
        assert model.training

    assert together(work, 2) == [0, 0]


def test_a_picture_that_cannot_be_written_ends_all_processes_with_one_sentence(tmp_path):
    (tmp_path / "samples").write_text("a file")

    def work(rank):
        with pytest.raises((ConfigError, FileExistsError), match="samples"):
            Pictures(every=1, n=2).on_train_end(trainer(tmp_path, 1, rank=rank, world=2), make())

    assert together(work, 2) == [0, 0]


def test_the_averaged_weights_are_drawn_without_dropout_and_everything_is_put_back(tmp_path):
    model, ema = make(), EMA()
    ema.on_fit_start(None, model)
    nn.init.constant_(model.net.weight, 1.0)  # white; the average still is black
    Pictures(every=1, n=4).on_train_end(trainer(tmp_path, 1, [ema]), model)
    assert model.net.modes == {False} and model.training and model.net.training
    assert model.net.weight.item() == 1.0 and model.net.weight.requires_grad
    Pictures(every=1, n=4).on_train_end(trainer(tmp_path, 2), model)
    for step, grey in ((1, 0), (2, 255)):
        with Image.open(tmp_path / "samples" / f"step_{step:06d}.png") as image:
            assert image.getpixel((20, 20)) == (grey, grey, grey)


@pytest.mark.parametrize("mode", ["per_step", "spectral"])
def test_noise_that_is_measured_is_measured_each_time(mode, tmp_path):
    model, pictures = make(delta_mode=mode), Pictures(every=1, n=2)
    pictures.on_train_end(trainer(tmp_path, 1), model)
    first = model.errors.clone()
    nn.init.constant_(model.net.weight, 0.5)
    pictures.on_train_end(trainer(tmp_path, 2), model)
    assert (first[1:] > 0).all()
    assert not torch.isclose(first[1:, :, 0, 0], model.errors[1:, :, 0, 0]).any()  # a constant shifts the mean alone


def test_a_random_map_is_drawn_for_each_picture_and_conditions_the_network(tmp_path):
    model = make(RandomVelocity(SHAPE, K, 0.1))
    Pictures(every=1, n=5).on_train_end(trainer(tmp_path, 1), model)
    assert len(model.net.conds) == K and all(cond.shape == (5, 2) for cond in model.net.conds)
    last = model.net.conds[-1]  # the step from k = 1 to 0
    velocities = (1 - last[:, 0]) * K
    assert (last[:, 1] == 1).all() and velocities.unique().numel() == 5
    assert ((velocities >= 1) & (velocities <= 2)).all()
    assert model.process.velocity.shape == (1, 1)


def test_the_same_weights_give_the_same_picture_and_the_film_shows_every_level(tmp_path):
    for step in (1, 2):
        Pictures(every=1, n=3, seed=2).on_train_end(trainer(tmp_path, step), make())
    one, two = ((tmp_path / "samples" / f"step_{step:06d}.png").read_bytes() for step in (1, 2))
    assert one == two
    with Image.open(tmp_path / "samples" / "process.gif") as film:
        assert film.n_frames == K + 1


def test_the_numbers_are_checked_by_name():
    for key, value in (("every", -1), ("n", 0), ("seed", -1)):
        name = "seed" if key == "seed" else f"callback.pictures.{key}"
        with pytest.raises(ConfigError, match=f"^{name} must"):
            Pictures(**{key: value})


def test_points_are_drawn_as_clouds_of_one_size(tmp_path):
    at, shape = trainer(tmp_path, 1), (1, 1, 2)
    points = torch.rand(60, *shape, generator=torch.Generator().manual_seed(0))
    at.datamodule.images = lambda split: points[:6]
    at.datamodule.target_clean = lambda split, samples: points[list(samples)]
    at.datamodule.prior_images = lambda samples, seed: points[list(samples)]
    at.datamodule.spec = DataSpec(shape, (-1.0, 1.0), bits=None)
    Pictures(every=1, n=50).on_train_end(at, make(VarianceExploding(shape, K, 0.1, 1.0)))
    with Image.open(tmp_path / "samples" / "step_000001.png") as picture:
        assert picture.size == (320, 320)
        assert picture.getpixel((160, 160))[2] > picture.getpixel((160, 160))[0] + 50  # all at 0, the middle
    with Image.open(tmp_path / "samples" / "process.gif") as film:
        assert film.n_frames == K + 1 and film.size == (320, 320)
