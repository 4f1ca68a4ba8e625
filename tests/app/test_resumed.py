"""What a command line may change of a run that goes on, key by key: it acts, or it is refused by name."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, call
from omegaconf import DictConfig, OmegaConf

from heatgen.app.compose import compose
from heatgen.app.options import SearchPath, groups_of
from heatgen.app.resumed import FOLLOWERS, TAKEN_BY, acts, resumed
from heatgen.check import ConfigError

STARTED = ["data=image_folder", "data.path=/old/pictures", "data_dir=/old", "data.shape=[1,8,8]", "forward.num_levels=5"]


@pytest.fixture(scope="module")
def config() -> str:
    """A config.yaml, which has values where conf/ has interpolations."""
    return OmegaConf.to_yaml(compose(*STARTED))


@pytest.fixture
def run(config: str, tmp_path: Path) -> Path:
    """The folder of a run that has a config, as `resumed` reads it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(config)
    (tmp_path / "run" / "overrides.txt").write_text(" ".join(STARTED) + "\n")
    return tmp_path / "run"


def changed(run: Path, *words: str) -> Any:
    """The config that a run goes on with, given these arguments."""
    chosen = [word for word in words if re.fullmatch(r"~?(trainer|callback|logger|sampler)(=.*)?", word)]
    fresh = SearchPath().load("train", chosen) if chosen else OmegaConf.create()
    return resumed(run, list(words), fresh, groups_of("train"))[0]


ACTS = {
    "optimizer.lr=0.5": 0.5,
    "++optimizer.betas=[0.5,0.6]": [0.5, 0.6],
    "+optimizer.weight_decay=0.1": 0.1,
    "model.warmup_steps=7": 7,
    "trainer.precision=bf16-mixed": "bf16-mixed",
    "++trainer.profiler=simple": "simple",
    "trainer.accumulate_grad_batches=4": 4,
    "data.batch_size=16": 16,
    "data.path=/new/place": "/new/place",
    "callback.ema.decay=0.5": 0.5,
    "callback.pictures.n=3": 3,
    "callback.ema=null": None,
    "sampler.stochastic=false": False,
    "experiment_name=other": "other",
    "evaluate=['mode=elbo']": ["mode=elbo"],
}


@pytest.mark.parametrize("word", ACTS)
def test_a_key_that_acts_has_its_value(run: Path, word: str) -> None:
    cfg = changed(run, word)
    value = OmegaConf.select(cfg, word.lstrip("+").partition("=")[0])
    assert value == ACTS[word]


KEPT = (
    *("forward.num_levels=6", "++net.model_channels=4", "net={model_channels: 4}", "data.shape=[1,4,4]", "model.delta=1"),
    *("data={batch_size: 8, limit: 3}", "optimizer._target_=torch.optim.SGD", "optimizer={lr: 1, _target_: x.Y}", "name=x"),
    *("trainer._target_=x.Y", "~net.dropout", "+data.law=none", "model=ihd", "data=digits", "~regime", "optimizer=sgd"),
    *("net/encoder=flat", "data_name=x", "model.prior_std=2", "forward=null"),
)


@pytest.mark.parametrize("word", KEPT)
def test_a_key_that_cannot_act_is_refused_by_name_and_nothing_is_written(run: Path, word: str) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(ConfigError, match=r"resume keeps the run's own ([\w./]+); remove .*, or start a new run") as error:
        changed(run, word)
    assert word.lstrip("+") in str(error.value) or word.startswith("~")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_key_that_does_not_exist_is_no_change_of_anything(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a key of the resumed run's config; did you mean trainer\.max_steps"):
        changed(run, "++trainer.max_step=3")
    with pytest.raises(ConfigError, match=r"callback\.stop\.patience is not a key"):
        changed(run, "++callback.stop.patience=3")
    stop = changed(run, "++callback.stop.patience=3", "++callback.stop._target_=lightning.pytorch.callbacks.EarlyStopping")
    assert stop.callback.stop.patience == 3


def test_the_value_that_a_run_has_is_no_change(run: Path) -> None:
    own, note = resumed(
        run, ["forward.num_levels=5", "++data.limit=null", "data=image_folder"], OmegaConf.create(), ("data",)
    )
    assert note == "" and own.forward.num_levels == 5
    assert "optimizer.lr=0.5 (was " in resumed(run, ["optimizer.lr=0.5"], OmegaConf.create(), ())[1]


def test_a_run_that_does_not_say_how_it_was_started_goes_on(run: Path) -> None:
    (run / "overrides.txt").write_text("an 'open quote")
    assert changed(run, "optimizer.lr=0.5").optimizer.lr == 0.5
    with pytest.raises(ConfigError, match="resume keeps the run's own data"):
        changed(run, "data=image_folder")


def test_the_keys_of_a_new_run_name_the_one_that_acts(run: Path) -> None:
    for name, key in TAKEN_BY.items():
        assert acts(key)
        with pytest.raises(ConfigError, match=re.escape(f"takes {key} from; give that")):
            changed(run, f"data.recommended.{name}=3")


def test_what_followed_a_key_goes_on_following_it(run: Path) -> None:
    cfg = changed(run, "seed=5", "data_dir=/new", "trainer.val_check_interval=7")
    assert (cfg.seed, cfg.data.seed, cfg.model.seed, cfg.callback.pictures.seed) == (5, 5, 5, 5)
    assert (cfg.data.data_dir, cfg.data.path, cfg.callback.pictures.every) == ("/new", "/new/pictures", 7)
    cfg = changed(run, "seed=5", "model.seed=0", "trainer.val_check_interval=7", "callback.pictures.every=1")
    assert (cfg.data.seed, cfg.model.seed, cfg.callback.pictures.every) == (5, 0, 1)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(compose(*STARTED, "data.seed=3")))
    assert changed(run, "seed=5").data.seed == 3


def test_more_steps_replace_epochs(run: Path) -> None:
    (run / "config.yaml").write_text(OmegaConf.to_yaml(compose(*STARTED, "trainer.max_epochs=2")))
    assert changed(run, "trainer.max_steps=9").trainer.max_epochs is None
    assert changed(run, "trainer.max_epochs=3").trainer.max_epochs == 3


def test_other_loggers_callbacks_samplers_and_devices_can_be_chosen(run: Path) -> None:
    own = compose(*STARTED, "trainer.max_steps=70", "callback.checkpoints.every=9", "trainer.precision=bf16-mixed")
    (run / "config.yaml").write_text(OmegaConf.to_yaml(own))
    cfg = changed(run, "logger=wandb", "callback=none", "trainer=gpu", "sampler=heun", "++logger.wandb.project=mine")
    assert list(cfg.logger) == ["csv", "wandb"] and cfg.logger.wandb.project == "mine"
    assert list(cfg.logger.wandb.tags) == ["ihd", "heat", "image_folder"]  # not those of a new run
    assert cfg.callback == {"checkpoints": own.callback.checkpoints}
    assert cfg.trainer == OmegaConf.merge(own.trainer, {"accelerator": "gpu"})
    assert cfg.sampler.order == 2
    assert not changed(run, "~logger").logger and changed(run, "~sampler").sampler is None


def interpolations() -> Iterator[tuple[str, str]]:
    """The keys of conf/ that are another one's, and that one."""
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        parts = path.relative_to(ROOT / "conf").parts
        if parts[0] not in ("experiment", "mode", "sample.yaml", "evaluate.yaml"):
            stack: list[tuple[str, Any]] = [(".".join(parts[:-1]), OmegaConf.load(path))]
            while stack:
                key, node = stack.pop()
                for name in node if isinstance(node, DictConfig) else ():
                    raw = OmegaConf.to_container(node)[name]  # type: ignore[index, call-overload]
                    full = f"{key}.{name}" if key else str(name)
                    if isinstance(raw, dict):
                        stack.append((full, node[name]))
                    elif found := re.fullmatch(r"\$\{(?:oc\.select:)?([\w.]+)(?:,.*)?\}", str(raw)):
                        yield full, found[1]


def test_every_key_that_follows_one_that_acts_is_known() -> None:
    pairs = list(interpolations())
    assert ("optimizer.lr", "data.recommended.learning_rate") in pairs and len(pairs) > 30
    for key, root in pairs:
        if acts(root):
            assert key in FOLLOWERS[root], f"{key} follows {root}, which can be changed on resume"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["net.model_channels=16", "trainer.max_steps=16"],
        ["trainer.precision=half", "trainer.max_steps=16"],
        ["+optimizer.amsgrad=true", "trainer.max_steps=16"],
        ["optimizer.lr=-1", "trainer.max_steps=16"],
        ["trainer.max_steps=5"],
    ],
)
def test_a_resume_that_fails_leaves_the_run_as_it_was(own_run: Path, words: list[str], refused: Any) -> None:
    before = {path: path.read_bytes() for path in own_run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert words[0].lstrip("+").partition("=")[0].split(".")[0] in refused("train", f"resume={own_run}", *words)
    after = {path: path.read_bytes() for path in own_run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before
    assert call("sample", f"run={own_run}", "n=1") == 0
