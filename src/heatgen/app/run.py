"""A trained run in Python: what it draws, what it makes of degraded fields, and what it is worth."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app import batch
from heatgen.app.build import build
from heatgen.app.compose import compose, words_of
from heatgen.app.draw import draw_samples, drawn_map, given_states, settings_of, states_of, times_below, usual_n
from heatgen.app.evaluate import keep, measured, metric_of
from heatgen.app.load import Loaded, changed, data_name, refuse_sampler
from heatgen.app.pages import told
from heatgen.app.requests import LoadRequest, SampleRequest, size_of
from heatgen.app.sampler_request import SamplerRequest
from heatgen.check import ConfigError, did_you_mean
from heatgen.data.memory import as_batch
from heatgen.data.module import DataModule
from heatgen.metric.context import EvalContext
from heatgen.model.interface import Calls
from heatgen.model.module import Method
from heatgen.picture import Film
from heatgen.report.notebook import EvaluationResult, Samples, html_table
from heatgen.runtime.devices import Devices


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained run, ready to sample; `model, data, config = run` takes it apart.

    Args:
        model: with averaged weights and calibrated, on its device.
        data: what it was trained on.
        config: of its training.
        request: which run it is, and what of it was replaced.
        devices: where it computes.
    """

    model: Method
    data: DataModule
    config: DictConfig
    request: LoadRequest
    devices: Devices

    @classmethod
    def of(cls, loaded: Loaded, request: LoadRequest, devices: Devices) -> "Run":
        """One that was read, whose weights are not to be trained."""
        loaded.model.requires_grad_(False)
        return cls(*loaded, replace(request, compile=False), devices)

    def __iter__(self) -> Iterator[Method | DataModule | DictConfig]:
        return iter((self.model, self.data, self.config))

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.request.run_dir

    def __repr__(self) -> str:
        return f"Run({self.config.get('name')}, {self.folder})"

    def _repr_html_(self) -> str:
        parts = {group: str(self.config[group]._target_).split(".")[-2] for group in ("model", "forward", "net")}
        facts = parts | {"data": data_name(self.config), "shape": " x ".join(map(str, self.model.process.shape))}
        weights = sum(weights.numel() for weights in self.model.parameters())
        rows = [(key, str(value)) for key, value in (facts | {"weights": f"{weights:,}", "folder": self.folder}).items()]
        return html_table(("run", str(self.config.get("name"))), rows)

    def using(self, sampler: str | None = None, **options: object) -> "Run":
        """The same run with another way back: another sampler, or other times for its own.

        Args:
            sampler: its name; None: the run's own.
            options: steps, spacing and rho (see conf/sample.yaml); of a sampler that is named, also its own.

        Raises:
            ConfigError: the run's model cannot go that way.
        """
        node: object = OmegaConf.create(options)
        if sampler is not None:
            named = {"sampler": str(sampler)} | {f"sampler.{key}": value for key, value in options.items()}
            node = compose(*words_of(named), verb="sample").sampler
        wanted = SamplerRequest.of(node)
        if wanted is None:
            return self
        own = self.request.sampler.node if self.request.sampler and sampler is None else {}
        request = replace(self.request, sampler=SamplerRequest(own | wanted.node))
        refuse_sampler(self.model, request)
        config = changed(copy.deepcopy(self.config), LoadRequest(self.folder, sampler=wanted))
        model, _ = build(config)
        model.load_state_dict(self.model.state_dict())
        with self.devices.autocast():
            model.eval().to(self.devices.device).calibrate(self.data, self.devices)
        return Run.of(Loaded(model, self.data, config), request, self.devices)

    def sample(
        self,
        n: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        batch_size: int | str = 128,
        same_init: bool = False,
        share_noise: bool = False,
        interpolate: bool = False,
        num_points: int = 20,
    ) -> Samples:
        """Samples of u_0, with the same bits as those of `heatgen sample`.

        Args:
            n: how many; None: 36 images, or 2000 points.
            seed: of the initial states and of all noise.
            steps: of the sampler; None: the run's own.
            batch_size: samples at a time; auto: as many as fit.
            same_init: all samples start from one initial state.
            share_noise: all samples share the noise of each step.
            interpolate: num_points samples between two samples.
            num_points: see there.

        Raises:
            ConfigError: an option does not fit the run, or samples are not finite.
        """
        if steps is not None:
            own = (batch_size, same_init, share_noise, interpolate, num_points)
            return self.using(steps=steps).sample(n, seed, None, *own)
        wanted = SampleRequest(self.request, n, seed, batch_size, same_init, share_noise, interpolate, num_points)
        model, shape = self._counting(), self.model.process.shape
        count = num_points if interpolate else n or usual_n(shape)
        size = batch.settle(wanted.batch_size, model, self.data, self.devices, count, seed, None)
        film = Film(model.num_steps, count)
        states = states_of(model, self.data, self.devices, wanted, count)
        with batch.explained(size, self.devices):
            samples, initial = draw_samples(model, states, self.devices, count, size, film)
        settings = settings_of(wanted, model, count)
        return Samples(samples, initial, film.states(torch.empty(0, *shape)), settings, self.data.spec)

    def reconstruct(
        self,
        u: object,
        t: float | None = None,
        seed: int = 0,
        steps: int | None = None,
        batch_size: int = 128,
        draws: object = None,
    ) -> Samples:
        """Clean fields u_0 given degraded ones, by the run's way back: a draw of p(u_0 | u) as the model has learned it.

        Args:
            u: (B, C, H, W), a tensor or an array in the range of the data, such as `model.process.perturb(u0, t)`.
            t: when they are seen, on the map's clock; None: at level K.
            seed: of all noise; another seed is another draw.
            steps: of the sampler, from level K; None: the run's own.
            batch_size: fields at a time.
            draws: the random numbers of a map that is drawn at random, (B, ...), as `process.draw` gave them.

        Raises:
            ConfigError: u does not fit the run, or the model knows no way back from t.
        """
        if steps is not None:
            return self.using(steps=steps).reconstruct(u, t, seed, None, batch_size, draws)
        model = self._counting()
        check.seed("seed", seed)
        check.integer("batch_size", batch_size, minimum=1)
        fields, times = as_batch("u", u, model.process.shape), times_below(model, t)
        states = given_states(model, fields, drawn_map(model, draws, len(fields)), seed, self.devices.device)
        film = Film(model.num_steps, len(fields))
        with batch.explained(batch_size, self.devices):
            samples, _ = draw_samples(model, states, self.devices, len(fields), batch_size, film, times)
        shown = film.states(torch.empty(0, *model.process.shape))
        settings = {"n": len(fields), "seed": seed, "t": t, "nfe": model.calls.nfe, "sampler": self.request.label}
        return Samples(samples, fields, shown, settings, self.data.spec)

    def evaluate(
        self,
        mode: str = "elbo",
        n: int | None = None,
        seed: int = 0,
        batch_size: int | str = 128,
        save: bool = False,
        **options: object,
    ) -> EvaluationResult:
        """What `heatgen evaluate mode=MODE` measures, the same numbers; nothing is written unless asked.

        Args:
            mode: such as elbo, fid or reconstruction.
            n: samples or images; None: the mode's default.
            seed: of all noise.
            batch_size: samples at a time; auto: as many as fit.
            save: also write the result into the run and its experiment's table, as the command does.
            options: of the mode, those of conf/mode/MODE.yaml under `metric`.

        Raises:
            ConfigError: there is no such mode or option, or it does not fit the run.
        """
        cfg = compose(*words_of({"mode": str(mode)}), verb="evaluate")
        for key, value in options.items():
            if key not in cfg.metric or key == "_target_":
                hint = did_you_mean(key, [str(name) for name in cfg.metric if name != "_target_"])
                raise ConfigError(f"mode={mode} has no option {key!r}{hint or f'; remove {key}=.'}")
            OmegaConf.update(cfg, f"metric.{key}", value, merge=False)
        metric = metric_of(cfg, mode, self.request)
        model, count = self._counting(), cfg.n if n is None else n
        how = (self.devices, count, 1, check.seed("seed", seed), model.process)
        ctx = EvalContext(model, self.data, data_name(self.config), *how)
        result = measured(metric, mode, ctx, self.request, size_of(batch_size))
        if save:
            experiment = str(self.config.get("experiment_name") or "default")
            written = keep(
                result, mode, self.folder, str(cfg.runs_dir), experiment, self.request, variant=self.request.label
            )
            print(told(written, self.folder))
        return EvaluationResult.of(mode, result)

    def _counting(self) -> Method:
        """The model with counts of calls of its own."""
        model = copy.copy(self.model)
        model.calls = Calls()
        return model
