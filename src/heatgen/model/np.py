"""model=np, and every other neural process: the distribution of frames at any times, given frames at some times."""

import dataclasses
import math
from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.data.stream import Batch
from heatgen.forward.process import ForwardProcess
from heatgen.frames import Context, Frames, Representation, concatenate
from heatgen.model import objectives
from heatgen.model.module import Method, MethodSettings, OptimizerFactory
from heatgen.model.objectives import OBJECTIVES, normal_log_prob
from heatgen.model.prediction import Prediction
from heatgen.model.tasks import PRIVILEGED_DIM, Task, clean_frames, make_task, observation_noise, privileged_features
from heatgen.net.neural_process import NeuralProcess
from heatgen.noise import Noise, SampleNoise
from heatgen.regime.split import Regime, Split
from heatgen.runtime.peers import ALONE, Peers
from heatgen.sampler.interface import OnStep, Sampler

COUNTED = ("auto", "all", "targets")
PRIVILEGED = ("none", "facts", "zero", "shuffled", "oracle")


class NeuralProcessMethod(Method):
    """p(frames at target times | frames at context times), learned from trajectories of the forward map.

    A trajectory is u_0 under the map, seen through noise: y_i = A(t_i) u_0 + b(t_i) + noise_std eps_i at every level, the
    first one too. `generate` draws u_0 from the state at level K.

    Args:
        regime: which frames are context and which are targets.
        objective: in nats a dimension of the frames that it counts. elbo: with the posterior q(z | context and targets)
            | npml: ln (1/K) sum_k p(y | z_k) with z from the context alone | iwae: with importance weights from q | cnp:
            for a network without z | auto: cnp without z, npml if causal, else elbo.
        counted: all: context frames too | targets | auto: all with z, as published, and targets without, as frames that
            were seen are predicted too well, which makes a network too sure of the others.
        draws: K, in training.
        noise_std: of the noise on every frame; None for the map's sigma.
        privileged: features of the clean frames for the posterior of z, in training alone (LUPI). none | facts: their
            maximum, mean and entropy | zero: zeros | shuffled: the features of another training field at the same
            times, whose choice depends on the task's key alone | oracle: the features for z given the context too, in
            training and at prediction: an upper bound that no test may use in earnest, as nobody has them; it cannot
            `generate`.
        net: a `NeuralProcess`; for the others see `Method`. No sampler is used.

    Raises:
        ConfigError: an option is out of range, or options do not fit.

    Source: Garnelo et al. 2018; Foong et al. 2020 (npml); the references of the networks stand at `NeuralProcess`.
    """

    uses_sampler = False
    not_compiled = "a neural process calls its network in parts"
    net: NeuralProcess

    def __init__(
        self,
        process: ForwardProcess,
        net: nn.Module,
        sampler: Sampler | None,
        optimizer: OptimizerFactory | None,
        regime: Regime,
        objective: str = "auto",
        counted: str = "auto",
        draws: int = 4,
        noise_std: float | None = None,
        privileged: str = "none",
        **settings: Unpack[MethodSettings],
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        assert isinstance(net, NeuralProcess), "by check_net"
        regime(self.process.num_levels + 1, SampleNoise([0], "check"))  # too few frames are refused now
        self.regime, self.noise_std = regime, observation_noise(self.process, noise_std)
        self.draws = check.integer("model.draws", draws, minimum=1)
        self._data: DataModule | None = None  # whose fields have the features of privileged=shuffled
        self.privileged = check.choice("model.privileged", privileged, PRIVILEGED)
        if net.privileged_dim != (PRIVILEGED_DIM if self.privileged != "none" else 0):
            use = "model=lupi_np without model.privileged=none, or another network, such as conv_np"
            if privileged != "none":
                use = f"net.privileged_dim={PRIVILEGED_DIM}" if net.privileged_dim else "net=lupi_np, or model=np"
            raise ConfigError(
                f"model.privileged={privileged} does not fit net.privileged_dim={net.privileged_dim}; use {use}."
            )
        self.objective = self._choose(check.choice("model.objective", objective, ("auto", *OBJECTIVES)))
        self.counted = check.choice("model.counted", counted, COUNTED)
        if counted == "auto":
            self.counted = self.chosen["counted"] = "all" if net.has_latent else "targets"
        if self.privileged not in ("none", "oracle") and self.objective == "npml":
            raise ConfigError(
                f"model.privileged={privileged} is for a posterior, and model.objective=npml has none; use elbo or iwae."
            )

    def check_net(self) -> None:
        """ConfigError for a network that does not represent frames."""
        if not isinstance(self.net, NeuralProcess):
            raise ConfigError("model=np needs net=neural_process or one of its presets, such as net=grid_conv_np.")

    def _choose(self, wanted: str) -> str:
        net = self.net
        latent = net.has_latent
        if wanted == "auto":
            wanted = self.chosen["objective"] = ("npml" if net.causal else "elbo") if latent else "cnp"
        if (wanted == "cnp") == latent:
            has = "a" if latent else "no"
            raise ConfigError(
                f"model.objective={wanted} does not fit a network that has {has} latent; use auto, or set net.latent."
            )
        if net.causal and wanted in ("elbo", "iwae"):
            raise ConfigError(f"model.objective={wanted} has one posterior for all times; with net.causal=true use npml.")
        return wanted

    # what the network sees ----------------------------------------------------------------------------------------------

    def tau(self, t: Tensor) -> Tensor:
        """Times in units of the last level's number, as networks see them, float32 of the same shape."""
        return (self.process.level(t.flatten()) / self.process.num_levels).reshape(t.shape).float()

    def _context(self, frames: Frames, task: Task) -> Context:
        pixel_mask = task.pixel_mask
        if pixel_mask is not None and len(frames.times[0]) > pixel_mask.shape[1]:  # targets are observed whole
            whole = torch.ones_like(frames.values[:, pixel_mask.shape[1] :, :1], dtype=torch.bool)
            pixel_mask = torch.cat([pixel_mask, whole], dim=1)
        cond = None if task.cond is None else task.cond.float()
        return Context(Frames(self.tau(frames.times), frames.values.float(), frames.mask), pixel_mask, cond)

    def make_task(self, u0: Tensor, regime: Callable[[int, SampleNoise], Split], rng: SampleNoise) -> Task:
        """Tasks of the forward map from fields u0, (B, C, H, W), with this regime."""
        return make_task(self.process, u0, regime, rng, self.noise_std)

    def predict(self, task: Task, draws: int, rng: Noise | None = None, times: Tensor | None = None) -> Prediction:
        """Predict frames from the context alone.

        Args:
            task: its context.
            draws: K, of the latent.
            rng: their noise; None: torch's own generator.
            times: (B, M) on the map's clock; None: those of the task's targets.
        """
        target_times = self.tau(task.target.times if times is None else times)
        context = self._context(task.context, task)
        self.calls.all += len(target_times)
        known = self.net.represent(context, target_times, self._given_privileged(task))
        return Prediction(*self.net.decode(known, self._draw(known, draws, rng), target_times, context.cond))

    @staticmethod
    def _draw(known: Representation, draws: int, rng: Noise | None) -> Tensor | None:
        """Draws of z, (K, B, M or 1, Z), one eps for all times; None where there is none."""
        if known.mu is None or known.sigma is None:
            return None
        like = known.mu[:, None, :1].expand(-1, draws, -1, -1)  # (B, K, 1, Z): each sample has a stream of its own
        eps = torch.randn_like(like) if rng is None else rng.normal_like(like)
        return known.mu + known.sigma * eps.transpose(0, 1)

    # training ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """Minus the objective, in nats a dimension of the frames that it counts, (B,)."""
        task = self.make_task(batch["u0"], self.regime, rng)
        whole = concatenate(task.context, task.target)
        counted = whole if self.counted == "all" else task.target
        target_times, context = self.tau(counted.times), self._context(task.context, task)
        prior = known = self.net.represent(context, target_times, self._given_privileged(task))
        if self.objective in ("elbo", "iwae"):
            features = self._privileged(task.privileged, whole.times, batch)
            known = self.net.represent(self._context(whole, task), target_times, features)
            known.r = prior.r  # targets reach the decoder through z alone
        z = self._draw(known, self.draws, rng)
        prediction = Prediction(*self.net.decode(known, z, target_times, context.cond))
        log_p = prediction.joint(counted.values.float(), counted.mask)
        return -self._value(log_p, z, known, prior) / (counted.count * math.prod(counted.values.shape[2:]))

    def _privileged(self, features: Tensor, times: Tensor, batch: Batch) -> Tensor | None:
        """What the posterior sees of the clean frames, (B, N, 3), in training alone unless privileged=oracle."""
        if self.privileged == "oracle":
            return features
        if self.privileged == "none" or not self.training:
            return None
        if self.privileged == "shuffled":
            return self._features_of_others(times, batch)
        return {"facts": features, "zero": torch.zeros_like(features)}[self.privileged]

    def _features_of_others(self, times: Tensor, batch: Batch) -> Tensor:
        """The features of another training field for each task, with a draw of the map of its own, at times (B, N).

        Which one depends on the task's key alone, whatever else is in its batch, on however many processes.
        """
        assert self._data is not None, "prepare(data), or calibrate(data), comes first"
        rng = SampleNoise(batch["key"], self.seed, "other task")
        place = rng.integers(0, len(self._data.images("train")) - 2)
        others = self._data.take("train", place + (place >= batch["index"]).long()).to(batch["u0"])
        levels = self.process.level(times.flatten()).round().long().reshape(times.shape)
        return privileged_features(clean_frames(self.process, others, levels, self.process.draw(rng), rng))

    def prepare(self, data: DataModule, peers: Peers = ALONE) -> None:
        """Keep the data, where the tasks are told of other fields. ConfigError where there is no other one."""
        if self.privileged == "shuffled":
            if len(data.images("train")) < 2:
                raise ConfigError("model.privileged=shuffled needs 2 training fields; raise data.train_size.")
            self._data = data

    calibrate = prepare

    def _given_privileged(self, task: Task) -> Tensor | None:
        """What z given the context sees of the clean context frames, (B, N, 3): nothing unless privileged=oracle."""
        return task.privileged[:, : task.context.times.shape[1]] if self.privileged == "oracle" else None

    def _value(self, log_p: Tensor, z: Tensor | None, known: Representation, prior: Representation) -> Tensor:
        if z is None or known.mu is None or known.sigma is None or prior.mu is None or prior.sigma is None:
            return log_p[0]
        if self.objective == "npml":
            return objectives.npml(log_p)
        if self.objective == "elbo":
            return objectives.elbo(log_p, objectives.kl(known.mu, known.sigma, prior.mu, prior.sigma)[:, 0])
        ratio = normal_log_prob(z, prior.mu, prior.sigma) - normal_log_prob(z, known.mu, known.sigma)
        return objectives.iwae(log_p, ratio.sum((2, 3)))

    # u_0 from u_K ----------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(self, u_last: Tensor, rng: Noise, on_step: OnStep | None = None) -> Tensor:
        """Draws of u_0 given states u_last at level K, (B, C, H, W): one z, and the deviation beyond that of the noise.

        on_step(0, u_0) sees them too. ConfigError with privileged=oracle, as there is no clean frame to have features of.
        """
        if self.privileged == "oracle":
            raise ConfigError(
                "model.privileged=oracle cannot draw samples, whose clean frames nobody knows; use model.privileged=facts, "
                "or train with callback.pictures.every=0."
            )
        b, device = len(u_last), u_last.device
        times = torch.stack([self.process.times[-1], self.process.times[0]]).to(device).expand(b, -1)
        cond = self.process.cond(times[:, 0], times[:, 1])
        context = Frames.of(times[:, :1], u_last[:, None])
        task = Task(context, Frames.of(times[:, 1:], u_last[:, None]), u_last[:, None], u_last.new_zeros(b, 2, 3), cond=cond)
        with self.calls.sampling(b):
            prediction = self.predict(task, 1, rng)
        std = (prediction.own.square() - self.noise_std**2).clamp(min=0).sqrt()
        u0 = dataclasses.replace(prediction, own=std).sample(rng)[0, :, 0].to(u_last)
        if on_step is not None:
            on_step(0, u0)
        return u0
