"""Measured variances are those of a pass by hand, and those that theory expects of filter sets and of gradients."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import Composite, convolution, googlenet
from papertwin.nets.initial import LINEAR, RELU, seeded
from papertwin.nets.initialising import init_, products
from papertwin.nets.layers import dense
from papertwin.nets.variances import gradient_ratio, layer_variances, set_variances

SETS = [(24, 3, 1), (24, 1, 3), (16, 3, 3)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(*, norm=False, dropout=0.0, inplace=False):
    """A convolution, a composite layer and a fully connected one."""
    with seeded(0):
        return nn.Sequential(
            convolution(3, 8, 3),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(inplace=inplace),
            Composite(8, [(4, 3, 1), (4, 1, 3)], join=6),
            nn.ReLU(inplace=inplace),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)),
            dense(6, 5, last=True),
        )


def by_hand(model, images, seed):
    """The table of `layer_variances` for a chain, by keeping everything."""
    kept, maps = [], images.clone().requires_grad_()
    for layer in copy.deepcopy(model):
        maps.retain_grad()
        before, maps = maps, layer(maps)
        if isinstance(layer, nn.Conv2d | nn.Linear | Composite):
            maps.retain_grad()
            kept.append((before, maps))
    with seeded(seed):
        maps.backward(torch.randn(maps.shape))
    rows = [
        [
            after.detach().numpy().astype(float).var(),
            *(np.mean(m.grad.numpy().astype(float) ** 2) for m in (after, before)),
        ]
        for before, after in kept
    ]
    return pd.DataFrame(rows, columns=["activation", "gradient", "input_gradient"])


@pytest.mark.parametrize("norm", [False, True])
def test_a_pass_by_hand_gives_the_same(norm, device):
    model, images = small(norm=norm), normal(6, 3, 9, 8)
    table = layer_variances(copy.deepcopy(model).to(device), images, seed=3)
    assert table.columns.tolist() == ["layer", "kind", "activation", "gradient", "input_gradient"]
    assert table["layer"].tolist() == ["0", "3", "8"]
    assert table["kind"].tolist() == ["conv", "composite", "fc"]
    due = by_hand(model, images, 3)
    tolerance = 1e-5 if torch.device(device).type == "cpu" else 5e-3  # accelerators may round factors
    pd.testing.assert_frame_equal(table[due.columns.tolist()], due, rtol=tolerance)


def test_relus_in_place_hide_nothing():
    images = normal(4, 3, 7, 7)
    due, found = (layer_variances(small(inplace=inplace), images, seed=1) for inplace in (False, True))
    pd.testing.assert_frame_equal(due, found)


class Parallel(nn.Module):
    """Two layers on the same maps, and one that is asked for nothing."""

    def __init__(self):
        super().__init__()
        self.second, self.first = convolution(3, 4, 3), convolution(3, 4, 1)
        self.unused, self.idle = convolution(3, 4, 1), convolution(3, 4, 1)

    def forward(self, maps):
        self.unused(maps)
        return self.first(maps) + self.second(maps)


def test_gradients_at_an_input_are_those_that_come_through_the_layer():
    with seeded(1):
        model = Parallel()
    images = normal(4, 3, 6, 6)
    table = layer_variances(model, images, seed=2).set_index("layer")
    assert table.index.tolist() == ["unused", "first", "second"]  # in order of execution; idle did not run
    assert table.loc["unused", ["gradient", "input_gradient"]].tolist() == [0, 0]
    with seeded(2):
        cotangent = torch.randn(4, 4, 6, 6)
    for name in ("first", "second"):
        leaf = images.clone().requires_grad_()
        (due,) = torch.autograd.grad(getattr(model, name)(leaf), leaf, cotangent)
        assert table.loc[name, "input_gradient"] == pytest.approx(due.square().mean().item(), rel=1e-5)
        assert table.loc[name, "gradient"] == pytest.approx(cotangent.square().mean().item(), rel=1e-6)


def test_a_network_with_several_outputs():
    model = googlenet(10, width=0.125, side=64, geometry="B", norm=True, seed=0)
    table = layer_variances(model, normal(2, 3, 64, 64), seed=0)
    heads = table["layer"].str.startswith("heads")
    assert heads.sum() == 6
    assert (table["gradient"] > 0).all()
    assert not layer_variances(model.eval(), normal(2, 3, 64, 64), seed=0)["layer"].str.startswith("heads").any()


def test_the_network_stays_as_it_was(device):
    model, images = small(norm=True, dropout=0.5).to(device), normal(6, 3, 8, 8)
    model(images.to(device)).sum().backward()
    before = copy.deepcopy(model.state_dict()), [each.grad.clone() for each in model.parameters()]
    state = torch.get_rng_state()
    with torch.no_grad():  # it asks for gradients by itself
        first = layer_variances(model, images, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[0][name], each) for name, each in model.state_dict().items())
    assert all(torch.equal(old, each.grad) for old, each in zip(before[1], model.parameters()))
    assert all(each.requires_grad for each in model.parameters())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert model.training
    assert not images.requires_grad
    pd.testing.assert_frame_equal(first, layer_variances(model, images.numpy(), seed=5), rtol=1e-5)
    assert first["gradient"].tolist() != layer_variances(model, images, seed=6)["gradient"].tolist()


@pytest.mark.parametrize(
    "layer",
    [
        lambda gain: convolution(64, 64, 3, groups=8, gain=gain),
        lambda gain: convolution(64, 96, (3, 1), gain=gain),
        lambda gain: Composite(64, SETS, gain=gain),
        lambda gain: Composite(64, SETS, join=64, gain=gain),
    ],
    ids=["grouped", "wider", "composite", "join"],
)
@pytest.mark.parametrize("gain", [RELU, LINEAR])
def test_a_layer_multiplies_the_variance_of_gradients_by_its_gain(layer, gain):
    """Without borders: padding goes round. A join of gain 1 after its basis keeps it as well."""
    ratios = []
    for seed in range(3):
        with seeded(seed):
            model = layer(gain)
        for each in model.modules():
            if isinstance(each, nn.Conv2d):
                each.padding_mode = "circular"
        (row,) = layer_variances(model, normal(4, 64, 12, 12), seed=seed).to_dict("records")
        ratios.append(row["input_gradient"] / row["gradient"])
    assert np.mean(ratios) == pytest.approx(gain, rel=0.04)


def test_groups_that_are_left_out_cost_a_factor_of_their_number():
    model = nn.Sequential(convolution(64, 64, 3, groups=8), nn.ReLU())
    ratios = {}
    for sigma in ("shared", "ungrouped"):
        (row,) = layer_variances(init_(model, seed=0, sigma=sigma), normal(4, 64, 12, 12), seed=0).to_dict("records")
        ratios[sigma] = row["input_gradient"] / row["gradient"]
    assert ratios["shared"] / ratios["ungrouped"] == pytest.approx(8, rel=1e-4)  # the same numbers, times 1/√8


@pytest.mark.parametrize("join", [None, 32])
def test_filter_sets_differ_in_forward_variance_as_theory_says(join, device):
    """With pixels that are not centred, the means of d_s filters differ: √(2 / d_s) · (share of the squared mean)."""
    with seeded(0):
        layer = Composite(64, [(240, 3, 1), (240, 1, 3), (160, 3, 3)], join=join).to(device)
    nn.init.ones_(layer.sets["3x1"].bias)  # theory is without
    images = normal(8, 64, 14, 14).relu()
    table = set_variances(layer, images).set_index("set")
    gain = RELU if join is None else LINEAR
    assert table.index.tolist() == ["3x1", "1x3", "3x3", "all"]
    assert table["filters"].tolist() == [240, 240, 160, 640]
    power, variance = images.square().mean().item(), gain / (240 * 3 + 240 * 3 + 160 * 9)
    theory = [64 * area * variance * power for area in (3, 3, 9)]
    assert table["theory"].tolist()[:3] == pytest.approx(theory, rel=0.03)  # σ is that of the weights that were drawn
    assert table["theory"]["all"] == pytest.approx(gain * 64 / 640 * power, rel=1e-6)
    assert np.average(theory, weights=[240, 240, 160]) == pytest.approx(table["theory"]["all"], rel=1e-6)
    chance = images.mean().item() ** 2 / power * np.sqrt(2 / np.array([240, 240, 160]))
    off = (table["measured"] / table["bordered"])[:3] - 1
    assert (off.abs() < 3 * chance).all()
    assert table["theory"]["3x3"] / table["theory"]["3x1"] == pytest.approx(3, rel=0.05)
    assert table["measured"]["3x3"] / table["measured"]["3x1"] == pytest.approx(3, rel=0.25)


def test_measured_and_bordered_agree_closely_where_pixels_are_independent_and_centred():
    with seeded(1):
        layer = Composite(64, SETS, stride=2)
    table = set_variances(layer, normal(64, 64, 9, 14))
    assert table["measured"].tolist() == pytest.approx(table["bordered"].tolist(), rel=0.02)
    assert (table["bordered"][:3] < 0.99 * table["theory"][:3]).all()


def test_products_with_padding_are_left_out_one_by_one():
    layer = Composite(2, [(5, 3, 1), (4, 3, 5)], stride=2)
    images = normal(2, 2, 6, 7).double()
    table = set_variances(layer.double(), images).set_index("set")
    for name, each in layer.sets.items():
        height, width = each.kernel_size
        sums = []
        for image in images:
            for row in range(0, 6, 2):
                for column in range(0, 7, 2):
                    top, left = row - height // 2, column - width // 2
                    part = image[:, max(top, 0) : top + height, max(left, 0) : left + width]
                    sums.append(part.square().sum().item())
        sigma = each.weight.square().mean().sqrt().item()
        assert table["bordered"][name] == pytest.approx(sigma**2 * np.mean(sums))
        assert table["sigma"][name] == pytest.approx(sigma)


def test_forward_variance_is_equal_by_fan_in():
    layer = init_(nn.Sequential(Composite(64, SETS), nn.ReLU()), seed=0, fan="in")[0]
    table = set_variances(layer, normal(8, 64, 14, 14))
    assert table["theory"][:3].tolist() == pytest.approx([2] * 3, rel=0.06)
    assert products(layer) == 288


def test_ratio_of_the_first_layer_to_the_last_that_is_not_fully_connected():
    table = pd.DataFrame({"kind": ["conv", "composite", "fc", "fc"], "gradient": [3.0, 2.0, 7.0, 0.0]})
    assert gradient_ratio(table) == 1.5
    for wrong in (table[2:], table.assign(gradient=0.0)):
        with pytest.raises(InputError, match="composite layer that a gradient reaches"):
            gradient_ratio(wrong)


def test_wrong_arguments():
    model, images = small(), normal(2, 3, 5, 5)
    with torch.device("meta"):
        meta = small()
    cases = [
        (lambda: layer_variances(meta, images, seed=0), "on the meta device"),
        (lambda: layer_variances(nn.ReLU(), images, seed=0), "ReLU has no convolution"),
        (lambda: layer_variances("net", images, seed=0), "must be a torch.nn.Module, got str"),
        (lambda: layer_variances(model, normal(2, 4, 5, 5), seed=0), r"does not take images \(2, 4, 5, 5\)"),
        (lambda: layer_variances(model, images.long(), seed=0), "images must be floating"),
        (lambda: layer_variances(model, images, seed=True), "seed must be"),
        (lambda: set_variances(model, images), "Expected a papertwin.nets.Composite, got a Sequential"),
        (lambda: set_variances(model[3], images), r"images must be \(B, 8, H, W\), got \(2, 3, 5, 5\)"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
