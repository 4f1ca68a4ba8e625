"""Which sampler suits which model: read from annotations, with nothing to register."""

import functools
from types import SimpleNamespace
from typing import Protocol, runtime_checkable

import pytest
from gaussian_toys import exact_model
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.exact import exact
from heatgen.sampler.heun import heun
from heatgen.sampler.interface import Denoiser, ExactModel, ReverseModel, ScoreModel, check_pair, protocol_of, suitable
from heatgen.sampler.ode import ode
from heatgen.sampler.predictor_corrector import predictor_corrector
from heatgen.sampler.sde import sde

STEPS = {"reverse_mean": abs, "reverse_noise": abs, "noise_last_step": False}
SCORE = {"score": abs, "physics_step": abs, "euler_step": abs}


def model(**members):
    return SimpleNamespace(**members)


def test_a_sampler_needs_what_its_first_parameter_is_annotated_with():
    needs = {ancestral: ReverseModel, exact: ExactModel, heun: Denoiser, ode: ScoreModel, sde: ScoreModel}
    for sampler, protocol in needs.items():
        assert protocol_of(sampler) is protocol
        assert protocol_of(functools.partial(sampler, substeps=2)) is protocol
    check_pair(predictor_corrector, model(**STEPS, **SCORE))
    for part in (STEPS, SCORE):
        with pytest.raises(ConfigError):
            check_pair(predictor_corrector, model(**part))


def test_a_model_that_has_everything_suits_every_sampler():
    assert {"ancestral", "exact", "heun", "ode", "predictor_corrector", "sde"} <= set(suitable(exact_model()))


def test_the_samplers_that_suit_are_named_and_what_is_missing():
    with pytest.raises(ConfigError, match=r"sampler=heun needs denoise, .*sampler=ode or sde\.$"):
        check_pair(heun, model(**SCORE))
    with pytest.raises(ConfigError, match=r"sampler=ode needs score, .*sampler=ancestral\.$"):
        check_pair(functools.partial(ode, substeps=3), model(**STEPS))
    with pytest.raises(ConfigError, match="another model"):
        check_pair(heun, model())


def test_a_method_that_is_none_is_missing():
    with pytest.raises(ConfigError, match="needs denoise"):
        check_pair(heun, model(denoise=None, noise_estimate=abs))


def test_a_sampler_from_elsewhere_may_bring_a_protocol_of_its_own_or_none():
    @runtime_checkable
    class Leaper(Protocol):
        def leap(self, u: Tensor) -> Tensor: ...

    def once(model: Leaper, u: Tensor) -> Tensor:
        return model.leap(u)

    def anything(model, u):
        return u

    class Object:
        def __call__(self, model: Leaper, u: Tensor) -> Tensor:
            return model.leap(u)

    def unknown(model: "ImportedForTypeCheckersAlone", u):  # noqa: F821
        return u

    check_pair(once, model(leap=abs))
    check_pair(anything, model())
    check_pair(unknown, model())
    for sampler in (once, Object(), functools.partial(once, u=None)):
        with pytest.raises(ConfigError, match="needs leap"):
            check_pair(sampler, model(**SCORE))
