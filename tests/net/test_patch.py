"""net.patch of the U-Net and of the encoder-decoder: a network of smaller fields with more channels."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.net.encoder_decoder import EncoderDecoder
from heatgen.net.unet import UNet

NETS = {
    "unet": lambda shape, **options: UNet(shape, 8, (1, 2), 1, (1,), 0.0, 4, **options),
    "encoder_decoder": lambda shape, **options: EncoderDecoder(shape, channels=4, blocks=2, **options),
}
every_net = pytest.mark.parametrize("name", NETS)


def randomised(net):
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return net.eval()


def images(batch, *shape):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


@every_net
@pytest.mark.parametrize("inputs", [1, 2])
def test_it_is_the_network_of_the_patches_as_channels(name, inputs):
    net = randomised(NETS[name]((2, 8, 12), patch=2, inputs=inputs))
    inner = NETS[name]((8, 4, 6), inputs=inputs).eval()
    inner.load_state_dict(net.state_dict())
    x, t = images(3, 2 * inputs, 8, 12), torch.tensor([1.0, 5.0, 20.0])
    expected = F.pixel_shuffle(inner(F.pixel_unshuffle(x, 2), t), 2)
    assert expected.abs().max() > 0.1 and expected.shape == (3, 2, 8, 12)
    assert_close(net(x, t), expected, atol=1e-6, rtol=1e-6)


@every_net
def test_a_patch_of_one_pixel_is_no_patch(name):
    one, plain = NETS[name]((2, 8, 6), patch=1), NETS[name]((2, 8, 6))
    assert {key: value.shape for key, value in one.state_dict().items()} == {
        key: value.shape for key, value in plain.state_dict().items()
    }
    one.load_state_dict(randomised(plain).state_dict())
    assert torch.equal(one.eval()(images(2, 2, 8, 6), torch.ones(2)), plain(images(2, 2, 8, 6), torch.ones(2)))


@every_net
def test_a_new_net_gives_exactly_zero(name):
    assert not NETS[name]((1, 8, 8), patch=2)(images(2, 1, 8, 8), torch.ones(2)).any()


@every_net
@pytest.mark.parametrize(
    ("patch", "words"),
    [
        (3, r"=3 must divide both sides of fields of 8 x 12 pixels; use net\.patch=2\.$"),
        (16, r"=16 must divide both sides of fields of 8 x 12 pixels; use net\.patch=4\.$"),
        (0, " must be a whole number of at least 1, not 0"),
        ("two", " must be a whole number"),
        (True, " must be a whole number"),
    ],
)
def test_patches_that_do_not_tile_the_field_are_refused(name, patch, words):
    with pytest.raises(ConfigError, match=rf"^net\.patch{words}"):
        NETS[name]((1, 8, 12), patch=patch)
