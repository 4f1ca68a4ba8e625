"""Every network takes several fields stacked along the channels of its input, and answers with one."""

import pytest
import torch

from heatgen.check import ConfigError
from heatgen.net.bayesian_unet import BayesianUNet
from heatgen.net.dit import DiT
from heatgen.net.encoder_decoder import EncoderDecoder
from heatgen.net.fno import FNO
from heatgen.net.mlp import MLP
from heatgen.net.none import NullNet
from heatgen.net.unet import UNet

SHAPE = (2, 8, 6)
NETS = {
    "unet": lambda inputs: UNet(SHAPE, 8, (1, 2), 1, (), 0.0, 4, inputs=inputs),
    "encoder_decoder": lambda inputs: EncoderDecoder(SHAPE, channels=4, blocks=2, inputs=inputs),
    "fno": lambda inputs: FNO(SHAPE, modes=2, width=4, inputs=inputs),
    "bayesian_unet": lambda inputs: BayesianUNet(SHAPE, channels=(4, 4), inputs=inputs),
    "dit": lambda inputs: DiT(SHAPE, 2, 8, 2, 2, inputs=inputs),
    "patches": lambda inputs: UNet(SHAPE, 8, (1, 2), 1, (), 0.0, 4, inputs=inputs, patch=2),
    "mlp": lambda inputs: MLP(SHAPE, width=8, depth=2, embedding=8, inputs=inputs),
}


@pytest.mark.parametrize("name", list(NETS))
def test_both_fields_are_seen(name):
    torch.manual_seed(0)
    net = NETS[name](2).eval()
    for parameter in net.parameters():  # also those that start at 0
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(3, 4, 8, 6, requires_grad=True), torch.tensor([1.0, 2.0, 3.0])
    y = net(x, t)
    y.square().sum().backward()
    assert y.shape == (3, *SHAPE)
    assert (x.grad.abs().amax((0, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", list(NETS))
def test_a_number_of_fields_below_one_is_refused(name):
    with pytest.raises(ConfigError, match=r"^net\.inputs must be a whole number of at least 1, not 0"):
        NETS[name](0)


def test_no_network_answers_with_what_to_choose():
    with pytest.raises(ConfigError, match=r"^net=none is for model=oracle; this model needs a network, such as net=unet\.$"):
        NullNet()(torch.zeros(1, *SHAPE), torch.zeros(1))
