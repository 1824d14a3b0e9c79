"""First weights have the variance that the papers derive, and that keeps gradients as large as they were."""

import math

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import Composite, convolution
from papertwin.nets.initial import composite_fan_out, deviation, fan_out, seeded
from papertwin.nets.layers import dense


def spread(layer):
    return layer.weight.detach().std().item()


def test_a_grouped_layer_takes_filters_per_group():
    with seeded(0):
        layer = convolution(256, 256, 3, groups=8)
        stock = nn.Conv2d(256, 256, 3, groups=8)
        nn.init.kaiming_normal_(stock.weight, mode="fan_out", nonlinearity="relu")
    due = math.sqrt(2 / (9 * 256 / 8))
    assert spread(layer) == pytest.approx(due, rel=0.02)
    assert spread(stock) == pytest.approx(due / math.sqrt(8), rel=0.02)  # torch leaves out the groups
    assert not layer.bias.any()


def test_gradients_keep_their_variance_through_a_grouped_layer():
    with seeded(0):
        layer = convolution(64, 128, 3, groups=4, gain=1.0, bias=False)
        images = torch.randn(8, 64, 16, 16, requires_grad=True)
        layer(images).backward(torch.randn(8, 128, 16, 16))
    inner = images.grad[..., 1:-1, 1:-1]
    assert inner.var().item() == pytest.approx(1, rel=0.1)


def test_composite_sets_share_a_deviation_and_keep_the_variance_of_gradients():
    sets = [(24, 3, 1), (24, 1, 3), (16, 3, 3)]
    with seeded(0):
        layer = Composite(64, sets, gain=1.0)
        images = torch.randn(8, 64, 16, 16, requires_grad=True)
        layer(images).backward(torch.randn(8, 64, 16, 16))
    due = math.sqrt(1 / (24 * 3 + 24 * 3 + 16 * 9))
    assert [spread(each) for each in layer.sets.values()] == pytest.approx([due] * 3, rel=0.04)
    assert images.grad[..., 1:-1, 1:-1].var().item() == pytest.approx(1, rel=0.1)


def test_other_deviations_of_a_composite_layer():
    sets = [(32, 3, 1), (32, 5, 5)]
    with seeded(0):
        own, fixed = Composite(64, sets, sigma="own"), Composite(64, sets, sigma=0.01)
        joined = Composite(64, sets, join=64)
    due = [math.sqrt(2 / (32 * 3)), math.sqrt(2 / (32 * 25))]
    assert [spread(each) for each in own.sets.values()] == pytest.approx(due, rel=0.04)
    assert [spread(each) for each in fixed.sets.values()] == pytest.approx([0.01] * 2, rel=0.04)
    assert [spread(each) for each in joined.sets.values()] == pytest.approx([math.sqrt(1 / (32 * 28))] * 2, rel=0.04)
    assert spread(joined.join) == pytest.approx(math.sqrt(2 / 64), rel=0.04)
    for sigma in ("mine", 0, -1.0, True):
        with pytest.raises(InputError, match="sigma must be"):
            Composite(64, sets, sigma=sigma)


def test_fully_connected_layers_by_what_follows():
    with seeded(0):
        hidden, last = dense(400, 300), dense(400, 300, last=True)
    assert spread(hidden) == pytest.approx(math.sqrt(2 / 300), rel=0.02)
    assert spread(last) == pytest.approx(math.sqrt(1 / 400), rel=0.02)


def test_formulas():
    assert fan_out(64, 3, 5, 4) == 240
    assert composite_fan_out([(64, 3, 1), (32, 1, 5)]) == 352
    assert deviation(8) == pytest.approx(0.5)


def test_drawing_leaves_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(3):
        assert torch.equal(torch.rand(4), first)
    for seed in (-1, 1.0, True, 2**32):
        with pytest.raises(InputError, match="seed must be"), seeded(seed):
            pass
