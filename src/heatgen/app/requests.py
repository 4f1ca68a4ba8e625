"""What a verb is asked to do, in small frozen dataclasses: read off the config here, and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app.plain import Options, plain
from heatgen.app.quoting import typed
from heatgen.app.resolvers import data_name
from heatgen.app.sampler_request import SamplerRequest
from heatgen.app.trust import leaves_out_measurements
from heatgen.check import ConfigError
from heatgen.runtime import directory
from heatgen.runtime.files import absolute

FILES = ("path", "data_dir", "num_workers", "cache_limit")  # options of data that say how its files are read, not which
GIVEN_BY_RUN = ("data", "forward")  # groups of evaluate that are for run=null alone


@dataclass(frozen=True)
class LoadRequest:
    """A run, and what to replace of it; None keeps the run's own."""

    run_dir: Path
    checkpoint: str = "last"  # last | best | step_N | a file
    weights: str = "ema"  # ema | raw
    delta: float | None = None
    delta_mode: str | None = None
    prior_std: float | None = None
    sampler: SamplerRequest | None = None
    data: Options = field(default_factory=dict)  # options of its data, of FILES
    trust: bool = False  # whether its config may name any code
    compile: bool | str = "auto"  # whether to compile its network
    cuda_graphs: bool = False  # whether to capture the calls of its network

    @classmethod
    def of(cls, cfg: DictConfig) -> "LoadRequest":
        """That of a config of sample or evaluate."""
        check.choice("weights", cfg.weights, ("ema", "raw"))
        sampler = SamplerRequest.of(cfg.get("sampler"))
        delta = None if OmegaConf.is_list(cfg.delta) else cfg.delta
        if not isinstance(cfg.run, (str, int, float)):
            raise ConfigError(f"run={cfg.run} is no run; give its folder, or run=latest.")
        run_dir = directory.find_run(str(cfg.run), folder_of("runs_dir", cfg.runs_dir), trained=True)
        checkpoint = "last" if OmegaConf.is_list(cfg.checkpoint) else str(cfg.checkpoint)
        words = (checkpoint, cfg.weights, delta, cfg.delta_mode, cfg.prior_std)
        told = (check.boolean("trust", cfg.trust), compile_of(cfg), check.boolean("cuda_graphs", cfg.cuda_graphs))
        if cfg.cuda_graphs and cfg.compile is True:
            raise ConfigError("compile=true and cuda_graphs=true exclude each other; remove one of them.")
        return cls(run_dir, *words, sampler, files_of(cfg.get("data")), *told)

    @property
    def folder(self) -> Path:
        """Where what is made of the run goes: the run, or the folder of the file of an exported model."""
        return self.run_dir if self.run_dir.is_dir() else self.run_dir.parent

    @property
    def label(self) -> str | None:
        """The sampler that replaces the run's own, with its options, as words; None: the run's own."""
        return None if self.sampler is None else " ".join(self.sampler.words()) or None


@dataclass(frozen=True)
class SampleRequest:
    """Samples of a run; see conf/sample.yaml."""

    load: LoadRequest
    n: int | None = None  # None: as many as make a good picture
    seed: int = 0
    batch_size: int | str = 128  # a number, or auto
    same_init: bool = False
    share_noise: bool = False
    interpolate: bool = False
    num_points: int = 20  # of an interpolation

    def __post_init__(self) -> None:
        """ConfigError for a value that is out of range, or that nothing uses."""
        size_of(self.batch_size)
        for key in ("num_points", *(["n"] if self.n is not None else [])):
            check.integer(key, getattr(self, key), minimum=1)
        for key in ("same_init", "share_noise", "interpolate"):
            check.boolean(key, getattr(self, key))
        check.seed("seed", self.seed)
        if self.interpolate and (self.same_init or self.share_noise):
            raise ConfigError("interpolate=true has its own states and noise; remove same_init and share_noise.")
        if self.interpolate and self.n is not None:
            raise ConfigError("interpolate=true does not use n; remove it, or give num_points.")

    @classmethod
    def of(cls, cfg: DictConfig) -> "SampleRequest":
        """That of conf/sample.yaml."""
        keys = ("n", "seed", "batch_size", "same_init", "share_noise", "interpolate", "num_points")
        return cls(LoadRequest.of(cfg), **{key: cfg[key] for key in keys})

    def facts(self) -> Options:
        """What is written beside the samples."""
        own = ("n", "seed", "same_init", "share_noise", "interpolate", "num_points")
        of_run = ("delta", "delta_mode", "prior_std", "weights")
        facts = {key: getattr(self, key) for key in own} | {key: getattr(self.load, key) for key in of_run}
        return facts | {"sampler": self.load.label} | {f"data.{key}": value for key, value in self.load.data.items()}


@dataclass(frozen=True)
class EvaluateRequest:
    """A measurement of a run, or of a data set alone; see conf/evaluate.yaml."""

    load: LoadRequest | None  # None: a data set alone
    folder: Path  # whose results they are: the run, or a folder for the data set
    mode: str
    data_name: str | None  # of a data set alone
    n: int | None
    seed: int
    batch_size: int | str  # a number, or auto
    swept: str | None  # the key whose values are measured with one by one, delta or checkpoint
    loads: tuple[tuple[float | None, LoadRequest | None], ...]  # what is measured: the value (a checkpoint's step), the run
    parameter: tuple[str, Any] | None  # a key and its value, which stand beside the results
    runs_dir: str
    experiment_name: str | None
    variant: str | None
    picture: str | None

    @classmethod
    def of(cls, cfg: DictConfig, choices: Mapping[str, str | None]) -> "EvaluateRequest":
        """That of conf/evaluate.yaml and Hydra's choices. ConfigError for a value that is wrong, or that nothing uses."""
        alone = cfg.run is None
        if alone and choices.get("data") is None:
            raise ConfigError("run=null measures a data set alone; say which with data=NAME.")
        if not alone and (choices.get("data") or choices.get("forward")):
            raise ConfigError(
                "A run has its own data and forward; remove data= and forward=, or measure them with run=null."
            )
        if alone:
            given = {f"{key}=": cfg.get(key) is not None for key in ("delta", "delta_mode", "prior_std")}
            given |= {"sampler=": SamplerRequest.of(cfg.get("sampler")) is not None, "checkpoint=": cfg.checkpoint != "last"}
            given |= {f"{key}=true": cfg[key] is True for key in ("compile", "cuda_graphs")}
            if word := next((word for word in given if given[word]), None):
                raise ConfigError(f"run=null has no model, which {word.partition('=')[0]} is for; remove {word}.")
        if cfg.picture is not None and Path(str(cfg.picture)).suffix not in (".png", ".jpg"):
            raise ConfigError(f"picture={cfg.picture} must end in .png or .jpg.")
        chosen, experiment = choices.get("data"), cfg.experiment_name
        name = None if chosen is None else data_name(chosen, OmegaConf.select(cfg, "data.path"))
        load = None if alone else LoadRequest.of(cfg)
        swept, loads = (None, ()) if load is None else points_of(cfg, load)
        return cls(
            load=load,
            folder=Path(folder_of("runs_dir", cfg.runs_dir)) / f"data-{name}" if load is None else load.folder,
            mode=str(choices["mode"]),
            data_name=name,
            n=cfg.n,
            seed=check.seed("seed", cfg.seed),
            batch_size=size_of(cfg.batch_size),
            swept=swept,
            loads=loads or ((None, load),),
            parameter=parameter_of(cfg),
            runs_dir=folder_of("runs_dir", cfg.runs_dir),
            experiment_name=None if experiment is None else check.name("experiment_name", str(experiment), True),
            variant=None if cfg.variant is None else one_line("variant", str(cfg.variant)),
            picture=cfg.picture,
        )


@dataclass(frozen=True)
class TrainRequest:
    """A training; see conf/train.yaml."""

    run_dir: Path
    overrides: tuple[str, ...]  # what the user typed
    resume: bool
    seed: int
    runs_dir: str
    trainer: Options  # of lightning.Trainer
    evaluate: tuple[str, ...] | None  # the arguments of the measurements that follow; None: none are asked for

    @classmethod
    def of(cls, cfg: DictConfig, run_dir: Path, overrides: list[str]) -> "TrainRequest":
        """That of the config of a run, in a folder, started with these overrides."""
        for key in ("experiment_name", "data_name", "name"):
            if key in cfg and (key == "name" or cfg[key] is not None):
                check.name(key, "" if cfg[key] is None else str(cfg[key]), parts=True)
        if not OmegaConf.is_list(cfg.get("evaluate", [])) and cfg.evaluate is not None:
            raise ConfigError(f"evaluate must be a list such as ['mode=forward'], not {cfg.evaluate!r}.")
        wanted = cfg.get("evaluate")  # a run of before there was this key has none
        if leaves_out_measurements(cfg, overrides):
            wanted = ()
        return cls(
            run_dir=run_dir,
            overrides=tuple(overrides),
            resume=bool(cfg.resume),
            seed=check.seed("seed", cfg.seed),
            runs_dir=folder_of("runs_dir", cfg.runs_dir),
            trainer=plain(cfg.trainer),
            evaluate=None if wanted is None else tuple(map(str, wanted)),
        )


def size_of(wanted: object) -> int | str:
    """The key batch_size: a number, or auto. ConfigError for anything else."""
    return "auto" if wanted == "auto" else check.integer("batch_size", wanted, minimum=1)


def compile_of(cfg: DictConfig) -> bool | str:
    """The key compile; a run of before there was one says nothing. ConfigError for what is not true, false or auto."""
    wanted: bool | str = cfg.get("compile", "auto")
    if isinstance(wanted, bool) or wanted == "auto":
        return wanted
    raise ConfigError(f"compile must be true, false or auto, not {wanted!r}.")


def points_of(cfg: DictConfig, load: LoadRequest) -> tuple[str | None, tuple[tuple[float, LoadRequest], ...]]:
    """The key of evaluate that is a list, and the run with each of its values; None where none is."""
    keys = ("delta", "checkpoint", "sampler.steps")
    lists = {key: list(value) for key in keys if OmegaConf.is_list(value := OmegaConf.select(cfg, key))}
    if cfg.checkpoint == "all":
        lists["checkpoint"] = directory.snapshots(load.run_dir)
        if not lists["checkpoint"]:
            raise ConfigError(f"{load.run_dir} has no numbered checkpoints; train with callback.checkpoints.keep_every=N.")
    if len(lists) > 1:
        raise ConfigError(f"{' and '.join(lists)} are both lists; give one value of one of them.")
    for key, example in (("delta", "[0.01,0.0125]"), ("sampler.steps", "[5,10,20]")):
        values = lists.get(key)
        if values is not None and not (values and all(isinstance(value, (int, float)) for value in values)):
            raise ConfigError(f"{key}={values} must be a list of numbers, such as {example}.")
    deltas, names, counts = map(lists.get, keys)
    if deltas is not None:
        values = [check.number("delta", delta, minimum=0) for delta in deltas]
        return "delta", tuple((value, replace(load, delta=value)) for value in values)
    if counts is not None:
        node = load.sampler.node if load.sampler else {}
        counts = sorted(set(check.integers("sampler.steps", counts, minimum=1)), reverse=True)  # the least likely first
        return "sampler.steps", tuple((n, replace(load, sampler=SamplerRequest(node | {"steps": n}))) for n in counts)
    if names is None:
        return None, ()
    if not names:
        raise ConfigError("checkpoint=[] must be a list of checkpoints, such as [step_1000,step_2000].")
    files = [directory.find_checkpoint(load.run_dir, str(name)) for name in names]
    steps = [int(directory.read_checkpoint(path).get("global_step", 0)) for path in files]
    in_order = sorted(zip(steps, map(str, names), strict=True))
    return "checkpoint", tuple((step, replace(load, checkpoint=name)) for step, name in in_order)


def needed(trainer: Options, keys: Sequence[str]) -> Options:
    """These options of a node `trainer`. ConfigError for one that a user took away with ~."""
    if missing := next((key for key in keys if key not in trainer), None):
        raise ConfigError(f"trainer.{missing} cannot be left out; give trainer.{missing}=VALUE.")
    return {key: trainer[key] for key in keys}


def files_of(node: object) -> Options:
    """What a config of sample or evaluate says of the files of a run's data. ConfigError for anything else of its data."""
    told = {key: value for key, value in plain(node).items() if value is not None} if isinstance(node, DictConfig) else {}
    wrong = ["data"] if isinstance(node, str) else [f"data.{key}" for key in told if key not in FILES]
    if wrong:
        raise ConfigError(own_of_the_run(wrong[0]))
    return {key: file_path(f"data.{key}", value) if key in FILES[:2] else value for key, value in told.items()}


def own_of_the_run(key: str) -> str:
    """The sentence for a key or a group that a run has of its training."""
    files = ", ".join(f"data.{name}" for name in FILES)
    of_data = f" (of its data, {files} can be given)" if key.split(".")[0] == "data" else ""
    alone = "; mode=NAME run=null looks at data or a map alone" if key in GIVEN_BY_RUN else ""
    return f"{key} is the run's own, which was trained with it; remove {key}={of_data}{alone}."


def file_path(key: str, value: object) -> str:
    """The path that a key names, absolute, with ~ written out. ConfigError where it is no text."""
    if isinstance(value, str) and value:
        return str(absolute(value))
    fix = f"a folder of that name is written {typed(key, str(value))}" if value not in (None, "") else "give the folder"
    raise ConfigError(f"{key}={value} is not a path; {fix}.")


def folder_of(key: str, value: object) -> str:
    """The folder that a key names. ConfigError where it names none."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value):
        return str(value)
    raise ConfigError(f"{key}={value} is no folder; give one, or remove {key}=.")


def one_line(key: str, text: str) -> str:
    """A text that can stand in a cell of a table. ConfigError otherwise."""
    if 0 < len(text) <= 150 and text.isprintable() and "|" not in text and "/" not in text:
        return text
    raise ConfigError(f"{key} must be a few words on one line, without | and /, not {text[:150]!r}.")


def parameter_of(cfg: DictConfig) -> tuple[str, Any] | None:
    """The name and value of `param_name`, which stands beside the results in the experiment's table."""
    if cfg.param_name is None:
        return None
    value = OmegaConf.select(cfg, cfg.param_name) if isinstance(cfg.param_name, str) else None
    if value is None:
        raise ConfigError(f"param_name={cfg.param_name} is not a key that has a value; give one, such as delta.")
    return cfg.param_name, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
