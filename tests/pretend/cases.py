"""What is run on the pretend GPU: tiny models of every kind over every map, their training steps and their ways back."""

import collections
import copy
import functools
import itertools
import warnings
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app.build import build, build_sampler
from heatgen.app.compose import compose
from heatgen.data.module import DataModule
from heatgen.data.stream import Items
from heatgen.model.module import Method
from heatgen.model.prior import start
from heatgen.sampler.interface import suitable

from .gpu import CUDA, Gpu, Site

Waits = collections.Counter[Site]

CONF = Path(__file__).resolve().parents[2] / "conf"
BATCH, LEVELS, SIZE = 2, 3, 4
COMMON = [
    *("data.train_size=8", "data.val_size=4", "data.test_size=4", f"data.batch_size={BATCH}", "data.law=assume"),
    *(f"data.recommended.num_levels={LEVELS}", "data.recommended.warmup_steps=0", "trainer.accelerator=cpu"),
]
FIELDS = ["data=grf", f"data.resolution={SIZE}", *COMMON]
FIELDS += [f"data.recommended.unet.{word}" for word in ("model_channels=4", "multipliers=[1]", "norm_groups=2")]
FIELDS += [f"data.recommended.encoder_decoder.{word}" for word in ("channels=4", "blocks=2")]
POINTS = ["data=ring", *COMMON]
DROPOUT = "data.recommended.unet.dropout=0.2"
SMALL_NP = ["net.width=8", "net.hidden=8", "regime.targets=1"]
MLP = ["net=mlp", "net.width=8"]  # few operations
DRAWN = ["forward.diffusivity=[0.02,0.1]", "forward.conditional=true", "net.conditional=true"]

MAPS: dict[str, list[str]] = {  # every map of conf/forward, and the ways in which its code parts
    **{path.stem: [] for path in sorted((CONF / "forward").glob("[!_]*.yaml"))},
    "heat_kernel geometric": ["forward.clock=geometric"],
    "neumann_heat ftcs": ["forward.solver=ftcs"],
    "neumann_heat drawn": DRAWN,
    "neumann_heat drawn ftcs": [*DRAWN, "forward.solver=ftcs"],
    "random_basis_heat channel": ["forward.acts_on=channel"],
    "random_matrix both": ["forward.acts_on=rows_and_columns"],
    "random_matrix channel": ["forward.acts_on=channel"],
    "random_velocity": ["net.conditional=true"],
    "random_velocity step": ["forward.per=step", "net.conditional=true"],
    "random_velocity batch": ["forward.per=batch", "net.conditional=true"],
    "random_velocity hidden": ["forward.conditional=false"],
    "scale_space": ["forward.blur.levels=3"],
    "spectral_noise matern": ["forward/colour=matern"],
    "spectral_noise two_band": ["forward/colour=two_band", "forward.scale.schedule=cosine", "forward/basis=haar"],
    "stochastic_heat euler": ["forward.scheme=euler_maruyama"],
}
NETS = ["cnp", "attentive_np", "causal_np", "conv_cnp", "conv_np", "gnp", "heat_cnp", "grid_conv_cnp", "grid_conv_np", "tnp"]
MODELS: dict[str, list[str]] = {  # over the map that suits them
    "ihd": ["model=ihd", DROPOUT],
    "ihd x0": ["model=ihd", "model.parametrisation=x0", *MLP],
    "ihd ratio": ["model=ihd", "model.parametrisation=ratio", "forward=constant_velocity", *MLP],
    "ihd spectral": ["model=ihd", "model.delta_mode=spectral", *MLP],
    "diffusion": ["model=diffusion"],
    "diffusion scalar": ["model=diffusion", "model.preconditioning=scalar", *MLP],
    "diffusion x0": ["model=diffusion", "model.prediction_type=x0", *MLP],
    "diffusion eps": ["model=diffusion", "model.prediction_type=eps", "forward=variance_exploding", *MLP],
    "diffusion velocity": ["model=flow_matching", "model.time_density=logit_normal", "model.norm=l1", *MLP],
    "diffusion lognormal": ["model=edm", "model.prediction_type=velocity", "model.weight=velocity", *MLP],
    "diffusion soft": ["model=soft", "forward=blurring", *MLP],
    "diffusion score": ["model=diffusion", "model.prediction_type=score", "sampler=sde", "forward=stochastic_heat", *MLP],
    "heat_kernel_score": ["model=heat_kernel_score"],
    "smdp": ["model=smdp"],
    "smdp both": ["model=smdp", "model.losses=both", "model.inputs=2"],
    "smdp zero": ["model=smdp", "model.losses=backward_and_zero"],
    "autoregressive": ["model=autoregressive"],
    "ssm": ["model=ssm"],
    "ssm projections": ["model=ssm", "model.projections=2", "forward=stochastic_heat"],
    "supervised fno": ["model=supervised", "net=fno"],
    "supervised resnet": ["model=supervised", "net=resnet", "model.loss=physics"],
    "supervised bayesian_unet": ["model=supervised", "net=bayesian_unet", "net.channels=[4,4]", "model.input=white"],
    "np": ["model=np"],
    **{f"np {name}": ["model=np", f"net={name}"] for name in NETS},
    "np iwae": ["model=np", "model.objective=iwae"],
    "np sensors": ["model=np", "net=conv_cnp", "regime=sensors", "regime.sensors=3"],
    "np forecast": ["model=np", "regime=forecast", "forward=stochastic_heat"],
    "np retrodict": ["model=np", "regime=retrodict", "forward=neumann_heat"],
    "np first_frame": ["model=np", "regime=first_frame"],
    **{name: [f"model={name}"] for name in ("lupi_np", "lupi_np_shuffled", "lupi_np_zero", "lupi_np_oracle")},
    "oracle": ["model=oracle"],
    "oracle dense": ["model=oracle", "forward=random_matrix"],
    "oracle points": ["model=oracle", "data=gaussian_mixture", "forward=heat_kernel"],
}


def arguments(model: str) -> list[str]:
    """The arguments of `heatgen train` for one of MODELS."""
    words, points = list(MODELS[model]), model in ("heat_kernel_score", "oracle points")
    if "np" in model.replace("_", " ").split():
        words += [*SMALL_NP, *(["regime.context=[1,2]"] if model != "np first_frame" else [])]
    return [*(POINTS if points else FIELDS), *words]


@functools.cache
def config(*words: str) -> DictConfig:
    """The config of a training with these arguments."""
    GlobalHydra.instance().clear()
    return compose(*words)


def node(group: str, name: str) -> DictConfig:
    """conf/<group>/<name>.yaml on top of its bases."""
    content = OmegaConf.load(CONF / group / f"{name}.yaml")
    merged = OmegaConf.merge(*(node(group, base) for base in content.pop("defaults", [])), content)
    assert isinstance(merged, DictConfig)
    return merged


def over(model: str, chosen: str) -> tuple[Method, DataModule]:
    """The model and the data of a training of one of MODELS with a fully connected network over one of MAPS, on the CPU."""
    name, options = chosen.split()[0], [word for word in MAPS[chosen] if word.startswith(("forward.", "forward/"))]
    flow = ["sampler=heun"] if (model, name) == ("diffusion", "student_t") else []  # Gaussian steps are wrong there
    cfg = copy.deepcopy(config(*FIELDS, *MODELS[model], *MLP, f"forward={name}", *options, *flow))
    OmegaConf.set_struct(cfg, False)
    cfg.net.conditional = len(options) < len(MAPS[chosen])
    if model == "diffusion":
        cfg.model.reverse_variance = "small"  # nothing to measure first
    return make(cfg)


def make(cfg: DictConfig) -> tuple[Method, DataModule]:
    """The model and the data of a training with this config, on the CPU."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, data = build(copy.deepcopy(cfg))
    model.log = lambda *_, **__: None  # type: ignore[method-assign]  # which wants a Trainer
    if hasattr(model, "window"):
        model.window = lambda: 2
    return model, data


def train(gpu: Gpu, model: Method, data: DataModule) -> Waits:
    """What a training step waits for, forward and backward."""
    model.to(CUDA).train()
    model.prepare(data)
    batch: dict[str, Any] = {**Items(data.images("train")).__getitems__(range(BATCH))}
    batch = {key: value.to(CUDA) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    if data.resident("train", CUDA) is None:
        raise AssertionError("small sets are on the GPU before a training begins")
    before, doubts = gpu.waits(), list[check.Doubt]()
    with check.deferred(doubts):  # as `Finite` does
        model.training_step(batch, 0).backward()  # type: ignore[arg-type]
    waits = gpu.waits() - before
    assert check.settle(doubts) is None
    return waits


def sample(gpu: Gpu, model: Method, data: DataModule) -> Waits:
    """What the step of the way back waits for that waits most, the first step left out; of one pass, all of it."""
    model.to(CUDA).eval()
    model.calibrate(data)
    counts: list[Waits] = []
    with torch.no_grad():
        begin = start(model, data, range(3), 0, CUDA)
        if not model.uses_sampler:
            counts.append(gpu.waits())
        begin.model.generate(begin.state, begin.rng, lambda k, u: counts.append(gpu.waits()))
    steps = [after - before for before, after in itertools.pairwise(counts)]
    return max(steps, key=lambda waits: waits.total(), default=Waits())


EXCEPT = {  # what a step may wait for: the function, and why
    "GaussianOracle.dense": "it reads the time, by which the matrices over all pixels are kept",
    "GaussianOracle.precision.<locals>.<lambda>": "a system of all pixels is solved, and PyTorch looks whether it could be",
}  # both for Gaussian data under a map that is not diagonal in their basis, where nothing is trained


def unexpected(waits: Waits) -> dict[Site, int]:
    """The waits that no exception is made for."""
    return {site: n for site, n in waits.items() if site[2].split()[-1] not in EXCEPT}


def samplers(model: Method) -> list[str | None]:
    """The samplers that suit a model; None alone for one that draws in one pass."""
    return list(suitable(model)) if model.uses_sampler else [None]


def with_sampler(model: Method, name: str | None) -> Method:
    """The model with another way back, in its default options."""
    other = copy.copy(model)
    other.sampler = None if name is None else build_sampler(node("sampler", name))
    return other
