"""The second input of smdp, and the maps that have none."""

import pytest
import torch
from conftest import FORWARDS, shipped_map

from heatgen.check import ConfigError
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.model.inputs import check_inputs, show, unit

PROCESS = StochasticHeat((1, 8, 8), 4)


def test_the_second_input_is_what_the_map_does_in_a_level_in_units_of_its_noise():
    u, t = torch.randn(2, 1, 8, 8).double(), PROCESS.times[[2, 4]]
    decay = (-PROCESS.eigenvalues * 0.05).exp()
    increment = PROCESS.basis.inverse((decay - 1) * PROCESS.basis(u))
    assert torch.allclose(show(PROCESS, u, t, 2, 0.5), torch.cat([u, increment / 0.5], dim=1))
    assert show(PROCESS, u, t, 1, 0.5) is u
    assert unit(PROCESS) == pytest.approx(PROCESS.step_std(t[:1] - 0.05, t[:1]).square().mean().sqrt().item())


def test_a_map_without_noisy_steps_is_refused_a_second_input():
    refused = 0
    for process in (shipped_map(forward, (1, 8, 8), 4) for forward in FORWARDS):
        assert check_inputs(1, process) == 1
        if process.is_random or not process.is_markov:
            refused += 1
            with pytest.raises(ConfigError, match=rf"model\.inputs=2 .*forward={process.name}.*use model\.inputs=1"):
                check_inputs(2, process)
        else:
            assert check_inputs(2, process) == 2 and unit(process) > 0
    assert 0 < refused < len(FORWARDS)


def test_another_number_is_refused():
    for inputs in (0, 3, 1.5):
        with pytest.raises(ConfigError, match=r"model\.inputs must be"):
            check_inputs(inputs, PROCESS)
