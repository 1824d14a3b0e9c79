"""The vocabulary does what its words say: groups are diagonal blocks, composites are crosses, sizes stay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from papertwin.errors import InputError
from papertwin.nets import Composite, convolution, root_module, separable
from papertwin.nets.initial import seeded
from papertwin.nets.layers import activated, chain, dropped


def block_diagonal(layer):
    """The weights of a grouped convolution as those of an ungrouped one: zero outside the blocks."""
    filters, inside, groups = layer.out_channels, layer.in_channels // layer.groups, layer.groups
    dense = torch.zeros(filters, layer.in_channels, *layer.kernel_size)
    for place in range(groups):
        rows = slice(place * filters // groups, (place + 1) * filters // groups)
        dense[rows, place * inside : (place + 1) * inside] = layer.weight.detach()[rows]
    return dense


@given(
    groups=st.integers(1, 4),
    inside=st.integers(1, 3),
    outside=st.integers(1, 3),
    kernel=st.sampled_from([1, 3, (3, 1), (1, 5)]),
    stride=st.integers(1, 2),
)
@settings(max_examples=30, deadline=None)
def test_a_grouped_convolution_is_a_dense_one_with_diagonal_blocks(groups, inside, outside, kernel, stride):
    with seeded(1):
        layer = convolution(groups * inside, groups * outside, kernel, groups=groups, stride=stride)
        nn.init.normal_(layer.bias)
        images = torch.randn(2, groups * inside, 7, 6)
    due = F.conv2d(images, block_diagonal(layer), layer.bias, stride, layer.padding)
    torch.testing.assert_close(layer(images), due, atol=1e-5, rtol=1e-5)
    assert layer.weight.numel() * groups == block_diagonal(layer).numel()


def test_a_root_module_is_diagonal_blocks_and_then_a_join():
    with seeded(2):
        module = root_module(8, 12, 3, 4, 6)
        images = torch.randn(2, 8, 5, 5)
    inner = F.conv2d(images, block_diagonal(module.grouped), module.grouped.bias, padding=1).relu()
    due = F.conv2d(inner, module.join.weight, module.join.bias).relu()
    torch.testing.assert_close(module(images), due, atol=1e-5, rtol=1e-5)
    assert module.join.groups == 1
    names = [name for name, _ in root_module(8, 12, 3, 4, 6, norm=True).named_children()]
    assert names == ["grouped", "grouped_norm", "grouped_relu", "join", "join_norm", "join_relu"]


def test_a_join_of_flat_and_tall_filters_is_a_convolution_with_crosses():
    with seeded(3):
        layer = Composite(4, [(6, 3, 1), (6, 1, 3)], join=5)
        images = torch.randn(2, 4, 9, 8)
    tall, flat, join = layer.sets["3x1"], layer.sets["1x3"], layer.join.weight.detach()[:, :, 0, 0]
    assert tall.kernel_size == (3, 1)
    crosses = torch.zeros(5, 4, 3, 3)
    crosses[:, :, :, 1] += torch.einsum("of,fch->och", join[:, :6], tall.weight.detach()[..., 0])
    crosses[:, :, 1, :] += torch.einsum("of,fcw->ocw", join[:, 6:], flat.weight.detach()[:, :, 0, :])
    assert not crosses[:, :, ::2, ::2].any()  # the corners
    torch.testing.assert_close(layer(images), F.conv2d(images, crosses, padding=1), atol=1e-5, rtol=1e-5)


def test_three_by_one_is_three_high():
    layer = Composite(1, [(1, 3, 1), (1, 1, 3)])
    nn.init.ones_(layer.sets["3x1"].weight)
    nn.init.ones_(layer.sets["1x3"].weight)
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 1
    tall, flat = layer(image)[0]
    assert tall.nonzero().tolist() == [[1, 2], [2, 2], [3, 2]]
    assert flat.nonzero().tolist() == [[2, 1], [2, 2], [2, 3]]


@pytest.mark.parametrize("stride", [1, 2])
def test_same_padding_keeps_the_size_and_strides_divide_it(stride):
    layer = Composite(3, [(2, 7, 1), (3, 1, 7), (4, 5, 3)], stride=stride)
    assert layer(torch.zeros(2, 3, 14, 10)).shape == (2, 9, 14 // stride, 10 // stride)
    assert layer.filters == 9
    assert separable(3, 4, size=5, stride=stride)(torch.zeros(2, 3, 14, 10)).shape == (2, 4, 14 // stride, 10 // stride)
    for kernel in (1, 3, 5, (3, 1), (1, 7)):
        assert convolution(3, 4, kernel, stride=stride)(torch.zeros(2, 3, 14, 10)).shape[2:] == (
            14 // stride,
            10 // stride,
        )


def test_a_composite_layer_sees_all_channels():
    layer = Composite(4, [(2, 3, 1), (2, 1, 3)])
    with seeded(0):
        images = torch.randn(1, 4, 5, 5)
    due = [F.conv2d(images, each.weight, each.bias, padding=each.padding) for each in layer.sets.values()]
    torch.testing.assert_close(layer(images), torch.cat(due, dim=1))
    assert all(each.groups == 1 and each.in_channels == 4 for each in layer.sets.values())


def test_a_separable_pair_is_flat_then_tall_with_nothing_between():
    with seeded(4):
        pair = separable(3, 5)
        images = torch.randn(2, 3, 6, 6)
    flat, tall = pair
    assert (flat.kernel_size, tall.kernel_size) == ((1, 3), (3, 1))
    full = torch.einsum("omh,mcw->ochw", tall.weight.detach()[..., 0], flat.weight.detach()[:, :, 0, :])
    torch.testing.assert_close(pair(images), F.conv2d(images, full, padding=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("channels", "filters", "groups"), [(6, 8, 4), (8, 6, 4), (3, 3, 2)])
def test_groups_divide_channels_and_filters(channels, filters, groups):
    with pytest.raises(InputError, match=f"groups must divide {channels} channels and {filters} filters, got {groups}"):
        convolution(channels, filters, 3, groups=groups)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: convolution(0, 1, 3), "channels must be"),
        (lambda: convolution(1, 1.5, 3), "filters must be"),
        (lambda: convolution(1, 1, 0), "kernel must be"),
        (lambda: convolution(1, 1, (3, 3, 3)), "kernel must be"),
        (lambda: convolution(1, 1, 3, stride=0), "stride must be"),
        (lambda: convolution(1, 1, 3, groups=True), "groups must be"),
        (lambda: Composite(1, []), "sets must be"),
        (lambda: Composite(1, [(1, 3, 1), (2, 3, 1)]), "sets must be.*each shape once"),
        (lambda: Composite(1, [(1, 2, 1)]), "must be odd"),
        (lambda: list(dropped("dropout", 1)), "dropout must be"),
        (lambda: list(dropped("dropout", -0.1)), "dropout must be"),
    ],
)
def test_arguments_that_build_nothing(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_named_layers():
    layers = chain(
        [*activated("conv", convolution(1, 2, 3), norm=2, affine=False), *dropped("d", 0), *dropped("e", 0.5)]
    )
    assert [name for name, _ in layers.named_children()] == ["conv", "conv_norm", "conv_relu", "e"]
    assert not layers.conv_norm.affine
