"""A composite layer is one convolution with crosses; what a layer says it sees is what changes its outputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from papertwin.errors import InputError
from papertwin.nets import Composite, convolution, low_rank_layer, root_module, separable
from papertwin.nets.equivalent import joined_kernels, seen_inputs
from papertwin.nets.initial import seeded

SETS = {
    "lr": [(4, 3, 1), (6, 1, 3)],
    "wfull": [(3, 3, 1), (2, 1, 3), (4, 3, 3)],
    "one": [(5, 1, 3)],
    "long": [(2, 5, 1), (3, 1, 7), (2, 3, 3), (1, 1, 1)],
}


def composite(sets, join, stride=1, channels=3, seed=0):
    with seeded(seed):
        layer = Composite(channels, sets, join=join, stride=stride)
        for each in layer.modules():
            if isinstance(each, nn.Conv2d):
                nn.init.normal_(each.bias)
    return layer


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("join", [None, 5])
@pytest.mark.parametrize("sets", SETS.values(), ids=SETS)
def test_a_composite_layer_is_one_convolution_with_the_joined_kernels(sets, join, stride, device):
    layer = composite(sets, join, stride).to(device).double()
    kernels = joined_kernels(layer)
    high, wide = max(h for _, h, _ in sets), max(w for _, _, w in sets)
    assert kernels.shape == (layer.filters, 3, high, wide)
    images = torch.randn(2, 3, 11, 12, generator=torch.Generator().manual_seed(1)).to(device).double()
    due = layer(images) - layer(torch.zeros_like(images))  # without what biases add, the same everywhere
    got = F.conv2d(images, kernels, None, stride, (high // 2, wide // 2))
    torch.testing.assert_close(got, due, atol=1e-12, rtol=1e-10)
    assert not kernels.requires_grad


@given(
    first=st.integers(1, 4),
    second=st.integers(1, 4),
    out=st.integers(1, 5),
    channels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_a_join_of_flat_and_tall_sets_has_zero_corners_and_each_kernel_is_their_sum(first, second, out, channels, seed):
    layer = composite([(first, 3, 1), (second, 1, 3)], out, channels=channels, seed=seed)
    kernels = joined_kernels(layer)
    for row in (0, 2):
        for column in (0, 2):
            assert torch.count_nonzero(kernels[:, :, row, column]) == 0
    tall, flat = layer.sets["3x1"].weight, layer.sets["1x3"].weight
    for o in range(out):  # by hand, one filter after the other
        for c in range(channels):
            due = torch.zeros(3, 3)
            for m in range(first):
                due[:, 1] += layer.join.weight[o, m, 0, 0].detach() * tall[m, c, :, 0].detach()
            for m in range(second):
                due[1] += layer.join.weight[o, first + m, 0, 0].detach() * flat[m, c, 0].detach()
            torch.testing.assert_close(kernels[o, c], due, atol=1e-5, rtol=1e-5)


def test_with_full_filters_the_corners_are_theirs_and_without_a_join_sets_lie_one_below_the_other():
    full = composite(SETS["wfull"], 4)
    corner = torch.einsum("om,mc->oc", full.join.weight[:, 5:, 0, 0], full.sets["3x3"].weight[:, :, 0, 2])
    torch.testing.assert_close(joined_kernels(full)[:, :, 0, 2], corner.detach())
    assert torch.count_nonzero(corner) > 0
    apart = composite(SETS["lr"], None)
    kernels = joined_kernels(apart)
    assert torch.equal(kernels[:4, :, :, 1], apart.sets["3x1"].weight[..., 0])
    assert torch.equal(kernels[4:, :, 1], apart.sets["1x3"].weight[:, :, 0])
    assert torch.count_nonzero(kernels[:4, :, :, ::2]) + torch.count_nonzero(kernels[4:, :, ::2]) == 0


def test_other_layers_are_refused():
    with pytest.raises(InputError, match="Composite, got a Conv2d"):
        joined_kernels(nn.Conv2d(1, 1, 3))


LAYERS = {
    "full": lambda: convolution(4, 6, 3),
    "groups": lambda: convolution(4, 6, 3, groups=2),
    "valid": lambda: convolution(4, 3, 3, padding=0),
    "strided": lambda: convolution(4, 3, (5, 3), stride=2),
    "separable": lambda: separable(4, 3),
    "lr": lambda: low_rank_layer(4, 4, "lr"),
    "lr join": lambda: low_rank_layer(4, 4, "lr-join"),
    "root": lambda: root_module(4, 4, 3, 2, 3, norm=True),
    "two strides": lambda: nn.Sequential(convolution(4, 3, 1, stride=3), convolution(3, 2, 5, stride=2)),
    "pointwise": lambda: convolution(4, 2, 1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_layer_sees_is_what_changes_its_outputs(name, device):
    with seeded(3):
        layer = LAYERS[name]().to(device).double().eval()
    linear = nn.Sequential(*(each for each in layer if not isinstance(each, nn.ReLU))) if name == "root" else layer
    seen = seen_inputs(layer, 4)
    side = 21
    with torch.no_grad():
        base = linear(torch.zeros(1, 4, side, side, device=device).double())
        row, column = (size // 2 for size in base.shape[2:])
        pixels = torch.eye(4 * side * side, device=device).double().view(-1, 4, side, side)
        changed = (linear(pixels)[:, :, row, column] - base[:, :, row, column] != 0).T.view(-1, 4, side, side).cpu()
    rows, columns = (changed.any(dim=axes).nonzero().flatten() for axes in ((0, 1, 3), (0, 1, 2)))
    due = changed[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert torch.equal(seen, due)


def test_asking_changes_nothing_and_needs_no_weights():
    layer = low_rank_layer(4, 4, "lr").train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    seen = seen_inputs(layer, 4)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.training
    assert all(value.grad is None for value in layer.parameters())
    with torch.device("meta"):
        assert torch.equal(seen_inputs(low_rank_layer(4, 4, "lr"), 4), seen)
    cross = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]]) > 0
    joined = seen_inputs(low_rank_layer(4, 4, "lr-join"), 4)
    assert torch.equal(joined, cross.expand(4, 4, 3, 3))


def test_layers_that_cannot_be_asked_are_refused():
    with pytest.raises(InputError, match="does not take 5 channels"):
        seen_inputs(convolution(4, 6, 3), 5)
    with pytest.raises(InputError, match="channels must be a whole number"):
        seen_inputs(convolution(4, 6, 3), 0)
    with pytest.raises(InputError, match="1 is a MaxPool2d"):
        seen_inputs(nn.Sequential(convolution(4, 6, 3), nn.MaxPool2d(2)), 4)
