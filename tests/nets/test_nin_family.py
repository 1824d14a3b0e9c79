"""Networks in Network have the topologies, sizes and layers of their papers."""

import pytest
import torch
from torch import nn

from papertwin import nets


def sides(model, side, channels=3):
    """Side of the map after each pool, and before the mean."""
    maps, seen = torch.zeros(1, channels, side, side), []
    model.eval()
    for name, layer in model.named_children():
        if name == "mean":
            return [*seen, maps.shape[-1]]
        maps = layer(maps)
        if name.startswith("pool"):
            seen.append(maps.shape[-1])
    raise AssertionError("no mean")


def groups(model):
    return [layer.groups for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def test_pools_end_at_the_border():
    narrow = {"width": 1 / 16, "seed": 0}
    assert sides(nets.cifar_nin(**narrow), 32) == [16, 8, 8]
    assert sides(nets.cifar_nin(**narrow), 30) == [15, 7, 7]
    assert sides(nets.cifar_nin(**narrow), 14) == [7, 3, 3]
    assert sides(nets.nin64(**narrow), 32) == [16, 8, 4, 4]
    assert sides(nets.imagenet_nin(**narrow), 224) == [27, 13, 6, 6]


def test_topologies():
    assert nets.nin_groups("root", 8) == (1, 8, 4)
    assert nets.nin_groups("root", 1) == (1, 1, 1)
    assert nets.nin_groups("column", 8) == (1, 8, 8)
    assert nets.nin_groups("tree", 8) == (1, 8, 16)


def test_groups_are_in_the_layers_that_are_named():
    model = nets.cifar_nin(groups=(1, 4, 2), seed=0)
    assert [model.conv1a.groups, model.conv2a.groups, model.conv3a.groups] == [1, 4, 2]
    assert groups(model) == [1, 1, 1, 4, 1, 1, 2, 1, 1]
    searched = (32, 8, 32, 32, 8, 1, 32, 1)
    assert groups(nets.nin64(groups=searched, seed=0)) == [1, *searched, 1]


def test_the_network_of_the_robustness_paper_is_the_same_one():
    plain, named = nets.nin(seed=4), nets.cifar_nin(dropout=0.5, fan="in", seed=4)
    for one, other in zip(plain.parameters(), named.parameters(), strict=True):
        assert torch.equal(one, other)
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(plain.eval()(images), named.eval()(images))
    assert list(plain.state_dict())[:2] == ["0.weight", "0.bias"]


def test_its_weights_are_those_it_always_had():
    sums = [nets.nin(seed=seed)[0].weight.double().sum().item() for seed in (0, 7)]
    assert sums == pytest.approx([-43.47146373793839, -48.18376789962349], abs=1e-6)


def test_nothing_follows_the_last_convolution_unless_asked_for():
    kinds = [type(layer).__name__ for layer in nets.cifar_nin(norm=True, seed=0)]
    assert kinds[:3] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds[-3:] == ["Conv2d", "AdaptiveAvgPool2d", "Flatten"]
    assert "Dropout" not in kinds


def test_the_last_convolution_starts_with_logits_near_one():
    last = nets.cifar_nin(100, seed=0).conv3c.weight.detach()
    assert last.std().item() == pytest.approx((1 / 192) ** 0.5, rel=0.03)
    under_relu = nets.cifar_nin(100, last_relu=True, seed=0).conv3c.weight.detach()
    assert under_relu.std().item() == pytest.approx((2 / 100) ** 0.5, rel=0.03)


def test_divisors_reduce_filters():
    filters = [
        layer.out_channels
        for layer in nets.nin64(divisors=(1, 2, 4, 8, 16, 1, 2, 4, 8), seed=0)
        if isinstance(layer, nn.Conv2d)
    ]
    assert filters == [64, 96, 40, 12, 12, 192, 96, 48, 24, 10]
