"""The command line as a newcomer meets it: help, the three verbs, and one sentence for each mistake."""

import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL, call
from omegaconf import OmegaConf
from PIL import Image

from heatgen.app.api import load

Refused = Callable[..., str]
BRIEF = [*SMALL, "trainer.max_steps=2", "callback.pictures.every=0"]


# help --------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train", "sample", "evaluate"])
def test_help_shows_five_examples_and_the_groups_on_one_screen_then_keys_and_options(script: str) -> None:
    code = f"""
import runpy, sys
sys.modules.update(torch=None, lightning=None)  # so that importing them fails
sys.argv = ["{script}.py", "--help"]
runpy.run_path("{script}.py", run_name="__main__")
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime  # of work, however busy the machine is
    examples, groups = done.stdout.find(f"python {script}.py"), done.stdout.find("\nGroups")
    keys, names = done.stdout.find("\nKeys"), done.stdout.find("\nOptions of each group")
    assert -1 < examples < groups < keys < names
    assert done.stdout[:groups].count(f"  python {script}.py") == 5 and done.stdout[:keys].count("\n") <= 24
    assert max(map(len, done.stdout[:keys].splitlines())) <= 80
    assert "  seed=0  " in done.stdout[keys:names]
    words = done.stdout[names:].replace(",", " ").split()
    for group, scripts in {"forward": ("train", "evaluate"), "mode": ("evaluate",), "experiment": ("train",)}.items():
        options = {path.stem for path in (ROOT / "conf" / group).glob("[!_]*.yaml")}
        assert (options < {*words}) == (script in scripts)
    assert seconds < 2  # 0.5 where nothing else runs


@pytest.mark.parametrize("script", ["train", "sample", "evaluate"])
def test_the_config_is_shown_without_importing_torch(script: str) -> None:
    code = f"""
import runpy, sys
sys.argv = ["{script}.py", "--cfg", "job", "--resolve"]
runpy.run_path("{script}.py", run_name="__main__")
assert "torch" not in sys.modules and "lightning" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trainer:" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("words", [["train", "--help"], ["evaluate", "--cfg", "job"], ["train", *BRIEF]], ids=len)
def test_a_closed_pipe_costs_the_screen_only(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, f"{words[0]}.py", *words[1:]]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 0 and "Error" not in done.stderr and "Exception" not in done.stderr


# the three verbs ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_directory_holds_everything(small_run: Path) -> None:
    files = {str(p.relative_to(small_run)) for p in small_run.rglob("*") if p.is_file()}
    wanted = {"config.yaml", "overrides.txt", "env.txt", "train.log", "metrics.csv"}
    wanted |= {"checkpoints/last.ckpt", "checkpoints/best.ckpt", "samples/step_000012.png", "samples/process.gif"}
    assert wanted <= files
    assert "${" not in (small_run / "config.yaml").read_text()
    assert "torch " in (small_run / "env.txt").read_text()
    with (small_run / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["val/loss"]] == [3, 7, 11]


def test_a_checkpoint_holds_tensors_and_plain_numbers_only(small_run: Path) -> None:
    state = torch.load(small_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 12 and set(state["callbacks"]) == {"EMA", "Checkpoints"}


@pytest.mark.slow
def test_the_four_ways_of_sampling(own_run: Path) -> None:
    ways = {
        "delta_0.0125_seed_0": [],
        "delta_0.0125_seed_0_same_init": ["same_init=true"],
        "delta_0.0125_seed_0_share_noise": ["share_noise=true"],
        "interpolation_delta_0.0125_seed_0": ["interpolate=true", "num_points=6"],
    }
    drawn = {}
    for name, options in ways.items():
        assert call("sample", "run=latest", *([] if "num_points=6" in options else ["n=6"]), *options) == 0
        folder = own_run / "samples" / name
        for file in ("grid.png", "initial.png", "process.gif", "process.mp4", "samples.pt"):
            assert (folder / file).stat().st_size > 0
        drawn[name] = torch.load(folder / "samples.pt", weights_only=True)
    random, same, share, between = drawn.values()
    assert torch.equal(same["initial"], same["initial"][:1].expand_as(same["initial"]))
    assert not torch.equal(same["samples"][0], same["samples"][1])
    assert not torch.equal(share["initial"][0], share["initial"][1])
    assert torch.allclose(between["samples"][[0, -1]], random["samples"][:2], atol=1e-5)
    with Image.open(own_run / "samples" / "delta_0.0125_seed_0" / "process.gif") as film:
        assert film.n_frames == 6  # u_5 .. u_0


@pytest.mark.slow
def test_delta_and_seed_change_the_samples_and_no_file_is_lost(own_run: Path) -> None:
    for options in (["seed=1"], ["delta=0"], ["delta=0.02", "prior_std=0", "weights=raw", "checkpoint=best"]):
        assert call("sample", f"run={own_run}", "n=2", *options) == 0
    folders = {p.name for p in (own_run / "samples").iterdir() if p.is_dir()}
    last = "delta_0.02_seed_0_prior_std_0_best_raw"
    assert folders == {"delta_0.0125_seed_1", "delta_0_seed_0", last}


def test_evaluation_prints_a_table_and_keeps_the_numbers(own_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["mode=elbo", "n=20", "experiment_name=trial", "param_name=delta", "delta=0.02"]
    assert call("evaluate", "run=latest", *arguments) == 0
    assert "NLL bound" in capfd.readouterr().out
    (path,) = (own_run / "evaluation").glob("elbo_*.json")
    result = json.loads(path.read_text())
    assert path.with_suffix(".png").exists()
    parts = [result["values"][f"{name}_nats"] for name in ("l_last", "l_middle", "l_first")]
    assert sum(parts) == pytest.approx(result["values"]["nll_bound_nats"])
    bits = sum(parts) / (64 * np.log(2)) + 8
    assert bits == pytest.approx(result["values"]["nll_bound"])
    with (own_run.parent / "results" / "trial.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["metric"] for row in rows} == set(result["values"])
    assert {(row["param_name"], row["param_value"], row["mode"]) for row in rows} == {("delta", "0.02", "elbo")}


def test_a_training_says_how_it_went_and_what_it_chose(small_run: Path) -> None:
    (path,) = (small_run / "evaluation").glob("train_*.json")
    result = json.loads(path.read_text())
    with (small_run / "metrics.csv").open() as file:
        best = min(float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"])
    assert result["mode"] == "train" and result["headline"] == ["val_loss", "seconds", "parameters"]
    assert result["values"]["val_loss"] == pytest.approx(best, rel=1e-4) and result["values"]["steps"] == 12
    assert OmegaConf.load(small_run / "config.yaml").model.parametrisation == "residual"
    assert "model.parametrisation=auto chose residual" in (small_run / "train.log").read_text()


def test_a_training_shorter_than_the_interval_of_its_log_leaves_its_last_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    short = ["trainer.max_steps=3", "callback=none", f"hydra.run.dir={folder}"]
    assert call("train", *[word for word in SMALL if not word.startswith("callback.")], *short) == 0
    with (folder / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]] == [2]


def test_what_was_chosen_is_kept_and_not_chosen_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["forward=variance_exploding", "trainer.max_steps=2", "callback.pictures.every=0"]
    assert call("train", *SMALL, *arguments, f"hydra.run.dir={folder}") == 0
    assert "model.parametrisation=auto chose x0" in (folder / "train.log").read_text()
    cfg = OmegaConf.load(folder / "config.yaml")
    assert cfg.model.parametrisation == "x0"
    cfg.model.parametrisation = "direct"  # what another rule could have chosen
    OmegaConf.save(cfg, folder / "config.yaml")
    assert load(folder).model.parametrisation == "direct"


@pytest.mark.slow
def test_a_training_measures_what_it_is_told_to_and_says_where_that_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    arguments = [*SMALL, "trainer.max_steps=2", "callback.pictures.every=0", f"hydra.run.dir={folder}"]
    entries = "evaluate=['mode=forward metric.levels=3 metric.images=50', 'mode=elbo n=1']"
    assert call("train", *arguments, entries) == 1
    (path,) = (folder / "evaluation").glob("forward_*.json")
    result = json.loads(path.read_text())
    assert result["facts"]["map"] == "heat" and result["facts"]["images"] == "50 of digits train"
    assert result["series"]["k"] == [0, 1, 2, 5]
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert errors == [
        "Error: n must be a whole number of at least 2, not 1.",
        f"Error: evaluate=mode=elbo n=1 failed and says why above; the training is whole, in {folder}.",
    ]
    assert (folder / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_several_deltas_are_measured_one_by_one_and_side_by_side(own_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["mode=elbo", "n=10", "metric.levels=null", "delta=[0.01,0.02]"]
    assert call("evaluate", f"run={own_run}", *arguments) == 0
    single = sorted((own_run / "evaluation").glob("elbo_2*.json"), key=lambda path: path.stat().st_mtime_ns)
    results = [json.loads(path.read_text()) for path in single]
    assert [result["parameter"] for result in results] == [{"delta": 0.01}, {"delta": 0.02}]
    assert [result["facts"]["delta"] for result in results] == ["0.01", "0.02"]
    (path,) = (own_run / "evaluation").glob("elbo_delta_*.json")
    sweep = json.loads(path.read_text())
    values = [result["values"]["nll_bound"] for result in results]
    trivial = [result["values"]["trivial_histogram"] for result in results]  # the bound of so small a run is above it
    assert sweep["series"] == {"delta": [0.01, 0.02], "nll_bound": values, "trivial_histogram": trivial}
    assert values[0] != values[1] and trivial[0] == trivial[1] < min(values)
    assert path.with_suffix(".png").stat().st_size > 0
    with (own_run.parent / "results" / "default.csv").open() as file:
        assert {(row["param_name"], row["param_value"]) for row in csv.DictReader(file)} == {
            ("delta", "0.01"),
            ("delta", "0.02"),
        }


@pytest.mark.slow
def test_a_map_is_looked_at_without_a_run(tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "heat.png"
    arguments = ["mode=forward", "run=null", "data=digits", "forward=heat", "forward.num_levels=4", "metric.images=40"]
    assert call("evaluate", *arguments, f"picture={picture}") == 0
    (path,) = (tmp_path / "runs" / "data-digits" / "evaluation").glob("forward_*.json")
    result = json.loads(path.read_text())
    assert result["series"]["k"] == [0, 1, 2, 3, 4] and result["values"]["identity_error"] < 1e-6
    assert picture.read_bytes() == path.with_name(f"{path.stem}_states.png").read_bytes()
    with Image.open(picture) as image:
        assert image.width > image.height  # 5 states of 4 images


@pytest.mark.slow
def test_measured_noise_keeps_its_own_folders(own_run: Path) -> None:
    drawn = {}
    for mode in ("per_step", "spectral"):
        assert call("sample", f"run={own_run}", "n=2", f"delta_mode={mode}") == 0
        folder = own_run / "samples" / f"delta_{mode}_seed_0"
        assert json.loads((folder / "settings.json").read_text())["delta_mode"] == mode
        drawn[mode] = torch.load(folder / "samples.pt", weights_only=True)["samples"]
    assert not torch.isclose(drawn["per_step"], drawn["spectral"]).all()
    assert call("evaluate", f"run={own_run}", "mode=elbo", "n=10", "metric.levels=null", "delta_mode=spectral") == 0
    (path,) = (own_run / "evaluation").glob("elbo_*.json")
    assert json.loads(path.read_text())["facts"]["delta"] == "spectral"


@pytest.fixture(scope="module")
def hidden_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training on a random map that the network is not told."""
    folder = tmp_path_factory.mktemp("hidden") / "run"
    arguments = ["forward=random_velocity", "forward.conditional=false", "trainer.max_steps=2"]
    assert call("train", *SMALL, *arguments, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.mark.slow
def test_a_random_map_that_is_hidden_has_no_bound_and_no_interpolation(hidden_run: Path, refused: Refused) -> None:
    assert OmegaConf.load(hidden_run / "config.yaml").net.conditional is False
    assert "mode=elbo needs forward.conditional=true" in refused("evaluate", f"run={hidden_run}", "mode=elbo", "n=10")
    sentence = "interpolate=true needs one map for both ends, and forward=random_velocity is drawn at random."
    assert sentence in refused("sample", f"run={hidden_run}", "interpolate=true")
    assert call("sample", f"run={hidden_run}", "n=2") == 0


@pytest.mark.slow
@pytest.mark.parametrize("forward", ["random_velocity", "random_matrix"])
def test_every_verb_works_with_another_forward_map(forward: str, tmp_path: Path) -> None:
    assert call("train", "model=ihd", f"forward={forward}", *SMALL) == 0
    assert call("sample", "n=2") == 0
    assert call("evaluate", "mode=elbo", "n=10") == 0


@pytest.mark.slow
def test_epochs_can_be_given_instead_of_steps(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert call("train", *SMALL, "trainer.max_epochs=1", "data.batch_size=500", f"hydra.run.dir={folder}") == 0
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_other_loggers_get_numbers_and_pictures_without_a_network(logger: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, f"logger={logger}", f"hydra.run.dir={folder}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "metrics.csv").exists()
    if logger == "wandb":
        assert len(list(folder.glob("wandb/offline-run-*/files/media/images/*.png"))) == 3
    else:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder / "tensorboard"))
        events.Reload()
        assert len(events.Images("samples")) == 3 and "val/loss" in events.Tags()["scalars"]


# mistakes ----------------------------------------------------------------------------------------------------------------

MISTAKES = {  # the arguments: what the sentence names, the key or the fix
    ("model=idh",): "did you mean ihd?",
    ("forward=heet",): "did you mean heat?",
    ("modle=ihd",): "did you mean model?",
    ("trainer.max_epoch=3",): "did you mean trainer.max_epochs?",
    ("lr=1e-4",): "lr is not a key of the config; did you mean optimizer.lr?",
    ("epochs=3",): "epochs is not a key of the config; did you mean trainer.max_epochs?",
    ("forward.num_level=3",): "did you mean forward.num_levels?",
    ("forward.num_levels=abc",): "forward.num_levels must be a whole number of at least 2",
    ("forward.sigma=-0.1",): "forward.sigma must be a number of at least 0",
    ("forward.sigma_max=0.1",): "forward.sigma_max must be greater than forward.sigma_min",
    ("forward=heat", "forward/colour=power"): "forward/colour= is a part that this forward= does not have; choose another",
    ("forward=flow", "forward/colour=power"): "forward.colour needs a basis with waves, which forward=flow has not",
    ("forward=composed", "forward/colour=pwer"): "forward/colour=pwer is not an option; did you mean power?",
    ("forward=composed", "forward.scale.schedule=cosin"): "forward.scale.schedule must be one of linear, cosine",
    ("forward=relay", "forward.basis.size=5"): "forward.basis.size=5 must divide both sides of fields of 8 x 8 pixels",
    ("forward=random_product", "forward.factors=naive"): "forward.factors must be one of haar, near_identity",
    (
        "forward=constant_deceleration",
        "forward.literal=true",
    ): "remove it",
    ("forward=random_matrix", "forward.acts_on=channel", "data.shape=[1,2000,2000]"): (
        "forward.acts_on=channel needs 6 matrices of 4000000 x 4000000"
    ),
    ("forward=random_velocity", "forward.conditional=false", "model.parametrisation=x0"): "use residual.",
    ("model.parametrisation=ratio",): "model.parametrisation=ratio",
    ("model.delta_mode=typo",): "model.delta_mode must be one of constant, per_step, spectral",
    ("model.delta_mode=spectral", "model.delta=0.1"): "model.delta_mode=spectral finds its own delta; remove delta",
    ("experiment=ihd_mnst",): "did you mean ihd_mnist?",
    ("model.parametrisation=residal",): "did you mean residual?",
    ("model.delta=-1",): "model.delta must be a number of at least 0",
    ("optimizer.lr=fast",): "optimizer.lr must be a number of at least 0, not 'fast'",
    ("net.norm_groups=5",): "net.norm_groups = 5 must divide every width",
    ("trainer.max_steps=none",): "trainer.max_steps must be a whole number",
    ("trainer.devices=two",): "trainer.devices must be a number",
    ("trainer.precision=half",): "trainer.precision",
    ("trainer.strategy=dpp",): "trainer.strategy",
    ("data.batch_size=0",): "data.batch_size must be a whole number of at least 1",
    ("data.val_size=5000",): "data.val_size must be smaller than",
    ("data=image_folder",): "data.path is not given",
    ("data=image_folder", "data.path=/no/such/folder"): "data.path = /no/such/folder is not a folder",
    ("seed=-1",): "seed must be a whole number of at least 0",
    ("resume=/no/such/run",): "The run directory /no/such/run does not exist",
    ("resume=latest",): "There is no run under runs_dir",
    ("trainer=gpu",): "trainer.accelerator=gpu finds no CUDA GPU here; use trainer=cpu.",
    ("trainer.max_steps",): "trainer.max_steps has no value; write trainer.max_steps=VALUE",
    ("callback.ema.decay=2",): "callback.ema.decay must be a number",
    ("+forward.speed=3",): "has no option 'speed'",
    ("+optimizer.speed=3",): "has no option 'speed'",
    ("forward._target_=heatgen.forward.heat.Heet",): "heatgen.forward.heat.Heet does not exist",
    ("regime=forecast",): "regime= is not used",
    ("forward=random_velocity", "net.conditional=false"): "use a net with net.conditional=true",
    ("net.conditional=true",): "that forward=heat does not give; use net.conditional=false.",
    ("net.attention_levels=1000000000",): "net.attention_levels must be a list of whole numbers such as [1,2]",
    ("net.num_res_blocks=1000000000",): "net.num_res_blocks must be at most 1000",
    ("--resolve",): "The --resolve flag can only be used in conjunction with --cfg or --help; remove it",
    ("--cfg=job", "-m", "seed=1"): "Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified",
    ("--experimental-rerun=/dev/null",): "--experimental-rerun is not of heatgen",
    ("net.inputs=2",): "net.inputs=2 is not the number of fields that the model gives, 1; remove it.",
    ("forward.diffusivity=0.1",): "another option of its group; choose that option too",
    ("forward=heat,neumann_heat", "forward.diffusivity=0.1", "-m"): "a sweep chooses it, write ++forward.diffusivity=.",
}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", list(MISTAKES), ids=lambda a: " ".join(a))
def test_a_mistake_in_training_gets_one_sentence(arguments: tuple[str, ...], refused: Refused) -> None:
    if arguments == ("trainer=gpu",) and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    small = [s for s in SMALL if s.split("=")[0] not in {a.split("=")[0] for a in arguments}]
    if "trainer=gpu" in arguments or any(a.startswith("resume") for a in arguments):
        small = []
    assert MISTAKES[arguments] in refused("train", *small, *arguments)


@pytest.mark.slow
def test_a_sampler_and_an_optimizer_that_nothing_uses_are_refused(refused: Refused) -> None:
    assert "sampler= is not used" in refused("train", "model=np", "sampler=heun", "trainer.max_steps=1")
    assert "optimizer= is not used" in refused("train", "model=oracle", "optimizer=adam", "data=grf")
    assert "delta is for; remove delta=" in refused("evaluate", "run=null", "data=digits", "mode=forward", "delta=0.1")


def test_online_logging_without_a_key_gets_one_sentence(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    sentence = refused("train", *SMALL, "logger=wandb", "logger.wandb.offline=false")
    assert "logger.wandb.offline=false needs a key" in sentence


@pytest.mark.slow
def test_an_empty_folder_and_a_broken_image_get_one_sentence(refused: Refused, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    options = [s for s in SMALL if not s.startswith("data.")] + ["data=image_folder", f"data.path={folder}"]
    options += ["data.shape=[1,8,8]", "net.model_channels=8", "net.norm_groups=4", "net.multipliers=[1]"]
    options += ["net.attention_levels=[]", "net.num_res_blocks=1", "data.batch_size=4"]
    assert "holds no image" in refused("train", *options)
    for i in range(20):
        Image.new("L", (9, 9), i).save(folder / f"{i:02d}.png")
    content = (folder / "07.png").read_bytes()
    (folder / "07.png").write_bytes(content[: len(content) // 2])
    assert "07.png is not a complete image" in refused("train", *options)
    assert "07.png is not a complete image" in refused("train", *options, "data.num_workers=1", "data.cache_limit=0")


@pytest.mark.slow
def test_a_missing_or_truncated_checkpoint_gets_one_sentence(refused: Refused, own_run: Path) -> None:
    last = own_run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    for script, key in (("sample", "run"), ("evaluate", "run"), ("train", "resume")):
        assert "last.ckpt is cut short" in refused(script, f"{key}={own_run}")
    last.unlink()
    for script, key in (("sample", "run"), ("evaluate", "run"), ("train", "resume")):
        assert "last.ckpt is missing" in refused(script, f"{key}={own_run}")


def test_a_directory_without_config_gets_one_sentence(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for script, key in (("sample", "run"), ("evaluate", "run"), ("train", "resume")):
        assert "has no config.yaml" in refused(script, f"{key}={tmp_path / 'empty'}")


@pytest.mark.slow
def test_resume_keeps_its_own_groups(refused: Refused, own_run: Path) -> None:
    assert "resume keeps the run's own model" in refused("train", f"resume={own_run}", "model=ihd")
    assert "did you mean trainer.max_steps?" in refused("train", f"resume={own_run}", "trainer.max_step=3")


def test_an_output_directory_that_cannot_be_written_gets_one_sentence(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert "cannot be written" in refused("train", *SMALL, f"runs_dir={tmp_path / 'file'}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_gets_one_sentence_and_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    from heatgen.callback.checkpoints import AtomicIO
    from heatgen.check import ConfigError
    from heatgen.runtime.files import temporary

    target = tmp_path / "last.ckpt"
    AtomicIO().save_checkpoint({"step": 1}, target)
    temporary(target).symlink_to("/dev/full")
    with pytest.raises(ConfigError, match=r"last.ckpt cannot be written .*No space left"):
        AtomicIO().save_checkpoint({"step": 2, "weights": torch.zeros(10**6)}, target)
    assert torch.load(target, weights_only=True) == {"step": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("n=0",), "n must be a whole number of at least 1"),
        (("delta=-1",), "model.delta must be a number of at least 0"),
        (("interpolate=true", "same_init=true"), "remove same_init and share_noise"),
        (("interpolate=true", "n=3"), "interpolate=true does not use n"),
        (("same_init=perhaps",), "same_init must be true or false"),
        (("n=[",), "cannot be read"),
        (("weights=averaged",), "weights must be one of ema, raw"),
        (("checkpoint=newest",), "The checkpoint newest is missing"),
        (("delt=1",), "did you mean delta?"),
        (("delta_mode=typo",), "model.delta_mode must be one of constant, per_step, spectral"),
        (("delta_mode=per_step", "delta=0.01"), "model.delta_mode=per_step finds its own delta; remove delta"),
    ],
)
def test_a_mistake_in_sampling_gets_one_sentence(
    arguments: tuple[str, ...], sentence: str, refused: Refused, small_run: Path
) -> None:
    assert sentence in refused("sample", f"run={small_run}", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("mode=fdi",), "did you mean fid?"),
        (("metric=-inf",), "choose one with mode=NAME"),
        (("mode=elbo", "delta=0"), "delta and prior_std greater than 0"),
        (("mode=elbo", "n=2", "metric.levels=1"), "raise either"),
        (("mode=elbo", "metric.split=tset"), "did you mean test?"),
        (("mode=fid", "n=1"), "n must be a whole number of at least 2, not 1."),
        (("mode=fid", "metric.weights=/no/file.pt"), "metric.weights = /no/file.pt is not a file"),
        (("mode=elbo", "param_name=delt"), "param_name=delt is not a key"),
    ],
)
def test_a_mistake_in_evaluation_gets_one_sentence(
    arguments: tuple[str, ...], sentence: str, refused: Refused, small_run: Path
) -> None:
    assert sentence in refused("evaluate", f"run={small_run}", *arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("data=digts",), "did you mean digits?"), (("data=digits", "forward=heet"), "did you mean heat?")],
)
def test_a_mistake_in_what_is_looked_at_without_a_run_gets_one_sentence(
    arguments: tuple[str, ...], sentence: str, refused: Refused
) -> None:
    assert sentence in refused("evaluate", "run=null", "mode=forward", *arguments)


def test_a_data_set_alone_must_be_named(refused: Refused) -> None:
    assert "say which with data=NAME" in refused("evaluate", "run=null", "mode=fid")
    assert "mode=forward needs a map" in refused("evaluate", "run=null", "mode=forward", "data=digits")


@pytest.mark.slow
def test_a_run_without_averaged_weights_says_that_raw_ones_are_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("train", *SMALL, "~callback.ema", "trainer.max_steps=4") == 0
    assert call("sample", "n=1") == 0
    assert "no averaged weights" in capfd.readouterr().out


# another way back ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def field_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model that needs no sampler; do not write to it."""
    folder = tmp_path_factory.mktemp("fields") / "run"
    fields = ["data=grf", "data.resolution=8", "data.train_size=8", "data.val_size=4", "forward.num_levels=3"]
    few = ["net.width=2", "net.modes=2", "trainer.max_steps=2", "callback.pictures.every=0", "trainer.accelerator=cpu"]
    assert (
        call("train", "model=supervised", "net=fno", "forward=stochastic_heat", *fields, *few, f"hydra.run.dir={folder}")
        == 0
    )
    return folder


def test_a_sampler_is_refused_by_a_model_that_has_its_own_way(field_run: Path, refused: Callable[..., str]) -> None:
    for word in ("sampler=ode", "sampler.steps=3"):
        found = refused("evaluate", f"run={field_run}", "mode=reconstruction", word, "trainer.accelerator=cpu")
        assert found == "Error: The model of run has its own way back, without a sampler; remove sampler=."


def test_a_reverse_noise_is_refused_by_a_model_without_one(field_run: Path, refused: Callable[..., str]) -> None:
    found = refused("sample", f"run={field_run}", "delta=0.01", "trainer.accelerator=cpu")
    assert found == "Error: delta is not a setting of heatgen.model.supervised.Supervised; remove it."


@pytest.mark.slow
def test_the_options_of_a_sampler_are_part_of_its_samples_name_and_of_its_result(own_run: Path) -> None:
    for noise in ("true", "false"):
        words = ["sampler=ancestral", f"sampler.stochastic={noise}", "trainer.accelerator=cpu"]
        assert call("sample", f"run={own_run}", "n=2", *words) == 0
        assert call("evaluate", f"run={own_run}", "mode=reconstruction", "n=2", "metric.draws=1", *words) == 0
    names = [path.name for path in (own_run / "samples").iterdir() if path.is_dir()]
    assert sorted(name.split("_seed_0_")[1] for name in names) == ["ancestral", "ancestral_stochastic=False"]
    results = [json.loads(path.read_text()) for path in sorted((own_run / "evaluation").glob("reconstruction_*.json"))]
    assert [result["variant"] for result in results] == ["ancestral", "ancestral stochastic=False"]
    assert [result["facts"]["sampler"] for result in results] == ["ancestral", "ancestral stochastic=False"]


def test_a_run_of_another_edition_is_refused(own_run: Path, refused: Callable[..., str]) -> None:
    config = own_run / "config.yaml"
    config.write_text(config.read_text().replace("recommended:", "suggest:"))
    assert "0.1" in refused("sample", f"run={own_run}", "n=1")


@pytest.mark.parametrize(
    ("words", "dashed"),
    [(("-x",), True), (("--nope=3", "n=2"), True), (("-model=ihd",), True), (("--config-dir",), False)],
)
def test_a_flag_that_is_none_gets_one_sentence(refused, words, dashed):
    sentence = refused("sample", *words)
    assert sentence.endswith("; sample.py --help says what there is.")
    assert ("write options without dashes, as key=value such as seed=1" in sentence) == dashed
