"""VGG networks have the layers of their paper, their variants those of the low-rank and conditional papers."""

import pytest
import torch
from torch import nn

from papertwin import nets
from papertwin.nets.counting import count


def on_meta(**options):
    with torch.device("meta"):
        return nets.vgg(**options, seed=0)


def kernels(model):
    return [layer.kernel_size for layer in model.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(("configuration", "layers"), [("A", 11), ("B", 13), ("C", 16), ("D", 16), ("E", 19)])
def test_depth_and_pools(configuration, layers):
    counts = count(on_meta(configuration=configuration), (3, 224, 224))
    assert len(counts.layers) == layers
    last = [row.output for row in counts.layers if row.name.startswith("conv")][-1]
    assert last == (512, 14, 14)
    points = [row.name for row, kernel in zip(counts.layers, kernels(on_meta(configuration="C"))) if kernel == (1, 1)]
    assert configuration != "C" or points == ["conv3-3", "conv4-3", "conv5-3"]


def test_names_are_those_of_the_paper():
    names = [row.name for row in count(on_meta(), (3, 224, 224)).layers]
    stages = ["conv1", "conv2", "conv3-1", "conv3-2", "conv4-1", "conv4-2", "conv5-1", "conv5-2"]
    assert names == [*stages, "fc6", "fc7", "fc8"]
    low = count(on_meta(scheme="lr-join", global_pool=True), (3, 224, 224)).layers
    assert [row.name for row in low[:3]] == ["conv1.sets.3x1", "conv1.sets.1x3", "conv1.join"]


def test_schemes_share_out_the_filters():
    def shapes(scheme):
        layer = nets.low_rank_layer(32, 64, scheme)
        assert layer(torch.zeros(1, 32, 5, 5)).shape == (1, layer.filters, 5, 5)
        return {name: each.out_channels for name, each in layer.sets.items()}, layer.filters

    assert shapes("lr") == ({"3x1": 32, "1x3": 32}, 64)
    assert shapes("lr-2x") == ({"3x1": 64, "1x3": 64}, 128)
    assert shapes("lr-join") == ({"3x1": 32, "1x3": 32}, 64)
    assert shapes("lr-join-wfull") == ({"3x1": 24, "1x3": 24, "3x3": 16}, 64)
    assert shapes("lr-lde") == ({"3x1": 48, "1x3": 48, "3x3": 16}, 32)


def test_relus_come_last_only():
    model = on_meta(scheme="separable", global_pool=True)
    assert [type(layer).__name__ for layer in model.children()][:3] == ["Sequential", "ReLU", "MaxPool2d"]
    inside = {type(layer) for layer in model.conv1.modules()}
    assert inside == {nn.Sequential, nn.Conv2d}
    assert {type(m) for m in on_meta(scheme="lr-join").conv1.modules()} >= {nn.Conv2d}
    assert not any(isinstance(m, nn.ReLU) for m in on_meta(scheme="lr-join").conv1.modules())


def test_groups_of_the_conditional_network_have_64_then_128_channels():
    model = on_meta(groups=(1, 1, 2, 4, 8), last_stage=1024, global_pool=True)
    inside = {
        name: layer.in_channels // layer.groups
        for name, layer in model.named_children()
        if "conv" in name and isinstance(layer, nn.Conv2d)
    }
    assert [inside[f"conv{stage}-1"] for stage in (3, 4, 5)] == [64] * 3
    assert [inside[f"conv{stage}-2"] for stage in (3, 4, 5)] == [128] * 3


def test_global_pooling_takes_images_of_any_size():
    model = nets.vgg(5, global_pool=True, width=1 / 16, seed=0)
    assert [model(torch.zeros(2, 3, side, side)).shape for side in (14, 33)] == [(2, 5)] * 2
    kinds = [type(layer).__name__ for layer in model]
    assert kinds.count("MaxPool2d") == 4
    assert kinds.count("AdaptiveMaxPool2d") == 1


def test_pools_stand_where_they_are_asked_for():
    standard = count(on_meta(), (3, 224, 224))
    assert count(on_meta(pools=(1, 2, 3, 4)), (3, 224, 224)) == standard
    assert (standard.params, standard.macs) == (132_863_336, 7_609_101_992)
    for pools in ((), (2,), (1, 3), [1, 4], (1, 2, 3, 4)):
        for global_pool in (True, False):
            names = [name for name, _ in on_meta(side=32, pools=pools, global_pool=global_pool).named_children()]
            before = {name: names[at - 2] for at, name in enumerate(names) if name.startswith("pool")}
            assert list(before) == [f"pool{stage}" for stage in (*pools, 5)]
            assert all(layer.split("-")[0] == name.replace("pool", "conv") for name, layer in before.items())


def test_fewer_pools_leave_a_small_image_maps_to_take_the_maximum_of():
    def counted(**options):
        return count(on_meta(side=14, in_channels=1, width=1 / 8, **options), (1, 14, 14))

    def last(counts):
        return {row.name: row for row in counts.layers}["conv5-2"].output

    assert last(counted()) == (64, 1, 1)
    plain, pooled = counted(pools=(1, 3)), counted(pools=(1, 3), global_pool=True)
    assert last(plain) == last(pooled) == (64, 4, 4)
    assert plain.params - pooled.params == 512 * 64 * (2 * 2 - 1)  # fc6 sees the 2×2 maps of the fifth pool, or one
    assert counted().params == counted(global_pool=True).params


def test_the_table_that_doubles_every_layer_is_another_network():
    doubled = count(on_meta(scheme="lr-2x", global_pool=True), (3, 224, 224))
    assert (doubled.params, doubled.macs) == (37_371_368, 9_947_887_976)
