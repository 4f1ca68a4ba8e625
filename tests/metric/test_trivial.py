"""Bits of coders that know next to nothing, by hand and beside bounds that are worse."""

import math

import pytest
import torch

from heatgen.data.images import Pixels
from heatgen.data.module import DataModule, DataSpec
from heatgen.metric.result import Result, Value
from heatgen.metric.trivial import compare_with_trivial, trivial_bits


def data(**splits):
    module = DataModule(shape=[1, 1, 4])
    module.read = lambda split: Pixels(torch.tensor(splits[split], dtype=torch.uint8).reshape(-1, 1, 1, 4))
    return module


TWO = data(train=[[0, 0, 0, 255], [0, 0, 0, 255]], test=[[0, 0, 0, 0], [255, 255, 255, 255], [7, 0, 0, 0]])


def test_the_bits_of_both_coders_are_those_by_hand():
    uniform, histogram = trivial_bits(TWO, "test", [0, 1])
    zero, full = (-math.log2((count + 0.5) / (8 + 128)) for count in (6, 2))
    assert uniform.value == 1 and uniform.error is None and histogram.value == pytest.approx((zero + full) / 2)
    assert histogram.error == pytest.approx(abs(full - zero) / 2) and histogram.unit == "bits/dim"
    uniform, histogram = trivial_bits(TWO, "test", [2, 0])  # 7 is not in the training images
    assert uniform.value == pytest.approx(math.log2(3))
    new = -math.log2(0.5 / (8 + 128))
    assert histogram.value == pytest.approx(((new + 3 * zero) / 4 + zero) / 2)


def test_a_long_training_histogram_is_its_entropy_for_images_of_its_own_kind():
    """Half of the pixels 0 and the others uniform on 1 .. 16, as in digits: 1/2 + 1/2 (1 + 4) bits."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(1, 17, (40000, 4), generator=generator) * torch.randint(0, 2, (40000, 4), generator=generator)
    uniform, histogram = trivial_bits(data(train=values.tolist(), test=values[:4000].tolist()), "test", range(4000))
    assert uniform.value == pytest.approx(math.log2(17))
    assert histogram.value == pytest.approx(3, abs=4 * histogram.error + 0.01) and histogram.error < 0.02


def test_a_bound_above_the_histogram_is_vacuous_and_says_so():
    bits = trivial_bits(TWO, "test", [0, 1])[1].value
    for bound, vacuous in ((bits - 0.01, False), (bits + 0.01, True), (math.nan, True)):
        result = Result([Value("nll_bound", bound, 0.1, "bits/dim")], headline=("nll_bound",))
        compare_with_trivial(result, "nll_bound", TWO, "test", [0, 1])
        assert any(note.startswith("vacuous: ") and f"{bits:.4g}" in note for note in result.notes) == vacuous
        assert result.values["trivial_histogram"] == bits and result.values["trivial_uniform"] == 1
        assert ("trivial_histogram" in result.headline) == vacuous
        assert result.references["uniform over the values"] == {"nll_bound": 1}
        assert "pixel histogram" in result.reference_errors and "uniform over the values" not in result.reference_errors


def test_numbers_that_are_no_bytes_have_no_trivial_coder():
    module = data(train=[[0, 0, 0, 0]], test=[[0, 0, 0, 0]])
    module.spec = DataSpec((1, 1, 4), bits=None)
    assert trivial_bits(module, "test", [0]) == []
