"""Ten layers keep the variance of gradients with the derived weights, lose or multiply it with the others."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import Composite, count
from papertwin.nets.deep import deep_net, padding_share
from papertwin.nets.variances import gradient_ratio, layer_variances

KINDS = ("composite", "join", "grouped", "plain")
SEEDS = range(5)


def chain(depth=10, **options):
    return deep_net(depth=depth, **{"pools": (), "seed": 0, **options})


def ratio(seed, side=14, circular=False, **options):
    """Mean square of gradients at the first layer over that at the tenth."""
    model = chain(seed=seed, **options)
    for each in model.modules():
        if circular and isinstance(each, nn.Conv2d):
            each.padding_mode = "circular"
    images = torch.randn(8, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return gradient_ratio(layer_variances(model, images, seed=seed))


@cache
def mean_ratio(**options):
    """Geometric mean over seeds."""
    return math.exp(np.mean([math.log(ratio(seed, **options)) for seed in SEEDS]))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_keep_their_variance_over_ten_layers(kind):
    assert 1 / 2 < mean_ratio(layer=kind) < 2
    assert all(1 / 4 < ratio(seed, layer=kind) < 4 for seed in SEEDS)  # 48 filters are few


@pytest.mark.parametrize(
    ("kind", "sigma", "due"),
    [
        ("composite", "own", 3**9),  # each of three sets gives what all should
        ("join", "own", 3**9),
        ("grouped", "ungrouped", 8**-9),  # the first module has no groups
        ("composite", "stock", 6**-9),  # 1 / (3 fan_in) instead of 2 / n̂
        ("plain", "stock", 6**-9),
        ("plain", 0.01, (9 * 48 * 1e-4 / 2) ** 9),
        ("composite", 0.01, (4.5 * 48 * 1e-4 / 2) ** 9),
        ("grouped", 0.01, (9 * 6 * 1e-4 / 2) ** 9 * (48 * 1e-4 / 2) ** 10),
    ],
)
def test_other_weights_change_it_by_their_factor_in_each_layer(kind, sigma, due):
    shared = mean_ratio(layer=kind)
    measured = mean_ratio(layer=kind, sigma=sigma)
    assert abs(math.log10(measured / shared)) > 3
    assert measured / shared == pytest.approx(due, rel=0.7)


@pytest.mark.parametrize(("kind", "sigma"), [("plain", "own"), ("grouped", "own"), ("composite", "ungrouped")])
def test_a_mistake_in_what_is_not_there_changes_nothing(kind, sigma):
    first, second = (chain(3, layer=kind, sigma=each, seed=2) for each in ("shared", sigma))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_lost_at_the_border(kind):
    """The same weights and images, padded with zeros or going round."""
    lost = mean_ratio(layer=kind) / mean_ratio(layer=kind, circular=True)
    assert lost == pytest.approx(padding_share(chain(layer=kind), 14), rel=0.15)
    assert lost < 0.8


def test_less_is_lost_of_larger_images():
    for kind in KINDS:
        model = chain(layer=kind)
        shares = [padding_share(model, side) for side in (7, 14, 28, 224)]
        assert shares == sorted(shares)
        assert 0.95 < shares[-1] < 1
    # two layers of 3×3 on one pixel: of nine products one is left
    assert padding_share(chain(2, layer="plain"), 1) == pytest.approx(1 / 9)
    with pytest.raises(InputError, match="pools"):
        padding_share(deep_net(seed=0), 14)


def test_batch_normalisation_hides_it():
    """What differs by more than 10³ without it is within a factor of √10 with it."""
    for kind, sigma in (("composite", "own"), ("composite", 0.01), ("grouped", "ungrouped")):
        hidden = [mean_ratio(layer=kind, sigma=each, norm=True) for each in ("shared", sigma)]
        plain = [mean_ratio(layer=kind, sigma=each) for each in ("shared", sigma)]
        assert abs(math.log10(hidden[1] / hidden[0])) < 0.5
        assert abs(math.log10(plain[1] / plain[0])) > 3


def test_a_maximum_of_two_by_two_leaves_a_quarter():
    with_pool = mean_ratio(layer="composite", side=28, pools=(5,))
    assert with_pool / mean_ratio(layer="composite", side=28) == pytest.approx(1 / 4, rel=0.4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [14, 28])
def test_layers_and_shapes(kind, side):
    model = deep_net(7, depth=4, layer=kind, filters=16, groups=4, in_channels=3, norm=True, pools=(1, 3), seed=0)
    assert model(torch.zeros(2, 3, side, side)).shape == (2, 7)
    counts = count(model, (3, side, side))
    inner = {
        "composite": [16 * 72, 72],
        "join": [16 * 72 + 16 * 16, 72],
        "plain": [16 * 144, 144],
        "grouped": [16 * 36 + 256, 144],
    }[kind]
    first = 3 * inner[1] + (256 if kind in ("join", "grouped") else 0)
    biases = 4 * (32 if kind in ("join", "grouped") else 16)
    assert counts.params == first + 3 * inner[0] + biases + 16 * 7 + 7
    assert [name for name in dict(model.named_children()) if "pool" in name] == ["pool1", "pool3"]
    assert sum(isinstance(each, nn.BatchNorm2d) for each in model.modules()) == (8 if kind == "grouped" else 4)


def test_pools_unless_something_is_said():
    for depth, due in ((10, ["pool2", "pool5"]), (3, ["pool2"]), (1, [])):
        assert [name for name, _ in deep_net(depth=depth, seed=0).named_children() if "pool" in name] == due
    assert deep_net(seed=0)(torch.zeros(1, 1, 14, 14)).shape == (1, 10)


def test_sets_and_groups():
    net = chain(2)
    assert isinstance(net.layer2, Composite)
    assert {name: each.out_channels for name, each in net.layer2.sets.items()} == {"3x1": 18, "1x3": 18, "3x3": 12}
    assert net.layer2.sets["3x1"].kernel_size == (3, 1)  # three high
    net = chain(2, layer="grouped")
    assert (net.layer1.grouped.groups, net.layer2.grouped.groups, net.layer2.join.groups) == (1, 8, 1)


def test_rules_scale_the_same_numbers_and_seeds_differ():
    def weights(**options):
        return chain(2, **options).layer2.sets["3x3"].weight.detach()

    torch.testing.assert_close(weights(seed=1, sigma="own"), weights(seed=1) * math.sqrt(216 / 108))
    assert not torch.equal(weights(seed=1), weights(seed=2))


def test_on_the_meta_device_and_every_other(device):
    with torch.device("meta"):
        assert chain(50, filters=512).layer1.sets["3x3"].weight.is_meta
    net, images = chain(3), torch.randn(4, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    due = layer_variances(net, images, seed=0)
    found = layer_variances(net.to(device), images, seed=0)
    assert found["gradient"].tolist() == pytest.approx(due["gradient"].tolist(), rel=5e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "dense"}, "layer must be one of composite, join, grouped, plain"),
        ({"depth": 0}, "depth must be"),
        ({"filters": 12}, "3/8 of 12 filters"),
        ({"layer": "grouped", "groups": 7}, "groups must divide"),
        ({"pools": (2, 1)}, "pools must be layers from 1 to 10"),
        ({"pools": (11,)}, "pools must be layers from 1 to 10"),
        ({"pools": "1"}, "pools must be layers from 1 to 10"),
        ({"classes": 0}, "classes must be"),
        ({"sigma": "mine"}, "sigma must be one of"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(InputError, match=message):
        deep_net(**{"seed": 0, **options})
