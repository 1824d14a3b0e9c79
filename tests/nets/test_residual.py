"""Residual networks have the blocks, strides, groups and biases that were counted."""

import pytest
import torch
from torch import nn

from papertwin import nets
from papertwin.errors import InputError
from papertwin.nets.counting import count
from papertwin.nets.residual import Bottleneck


def on_meta(builder, **options):
    with torch.device("meta"):
        return builder(**options, seed=0)


def blocks(model):
    return [layer for layer in model.modules() if isinstance(layer, Bottleneck)]


BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
NAMED = {50: nets.resnet50, 101: nets.resnet101, 152: nets.resnet152, 200: nets.resnet200}


@pytest.mark.parametrize(("builder", "sizes"), [(NAMED[depth], sizes) for depth, sizes in BLOCKS.items()])
def test_stages(builder, sizes):
    model = on_meta(builder, root=64)
    groups = [block.conv2.groups for block in blocks(model)]
    assert groups == [64] * sizes[0] + [32] * sizes[1] + [16] * sizes[2] + [8] * sizes[3]
    assert sum(block.projection is not None for block in blocks(model)) == 4
    outputs = {row.name: row.output for row in count(model, (3, 224, 224)).layers}
    last = [outputs[f"stage{stage}_block{size}.conv3"] for stage, size in enumerate(sizes, start=1)]
    assert last == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]


def by_formula(depth, classes=1000):
    """Weights and biases without normalisation, stage by stage."""
    total, before = 3 * 49 * 64 + (64 if depth < 200 else 0), 64
    for stage, blocks in enumerate(BLOCKS[depth]):
        m = 64 * 2**stage
        total += before * m + before * 4 * m  # first 1×1 and projection of the first block
        total += (blocks - 1) * 4 * m * m + blocks * (9 * m * m + 4 * m * m)
        before = 4 * m
    return total + 2048 * classes + classes


@pytest.mark.parametrize("depth", BLOCKS)
def test_parameters_by_a_formula(depth):
    model = on_meta(NAMED[depth])
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and "projection" not in name]
    assert len(layers) == depth - 1
    assert count(model, (3, 224, 224)).params == by_formula(depth)
    assert f"{by_formula(depth):,}" in nets.resnet.__doc__
    small = count(on_meta(NAMED[depth], classes=7, in_channels=3), (3, 64, 64)).params
    assert small == by_formula(depth, 7)


@pytest.mark.parametrize(("depth", "known"), [(50, 25_557_032), (101, 44_549_160), (152, 60_192_808)])
def test_parameters_are_those_of_torchvision_and_a_bias(depth, known):
    assert sum(p.numel() for p in on_meta(NAMED[depth]).parameters()) == known + 64


@pytest.mark.parametrize("depth", [0, 18, 50.5, "50", None])
def test_other_depths_are_refused(depth):
    with pytest.raises(InputError, match=r"depth must be one of 50, 101, 152, 200, got"):
        nets.resnet(depth, seed=0)


def test_names_build_what_the_depth_says():
    one, two = nets.resnet101(4, width=0.0625, seed=3), nets.resnet(101, 4, width=0.0625, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_few_groups_end_with_one():
    assert {block.conv2.groups for block in blocks(on_meta(nets.resnet50, root=4))} == {4, 2, 1}


@pytest.mark.parametrize(
    ("builder", "strides", "biased"),
    [
        *((NAMED[depth], (2, 1), ["conv1", "fc"]) for depth in (50, 101, 152)),
        (nets.resnet200, (1, 2), ["fc"]),
    ],
)
def test_strides_and_biases(builder, strides, biased):
    model = on_meta(builder)
    halving = [block for block in blocks(model) if block.conv1.stride[0] * block.conv2.stride[0] > 1]
    assert [(block.conv1.stride[0], block.conv2.stride[0]) for block in halving] == [strides] * 3
    assert all(block.projection.stride[0] == 2 for block in halving)
    with_bias = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.bias is not None]
    assert with_bias == biased


def test_a_block_adds_its_input():
    after = Bottleneck(8, 2, groups=1, stride=1, project=False, pre=False).eval()
    before = Bottleneck(8, 2, groups=1, stride=1, project=False, pre=True).eval()
    maps = torch.randn(2, 8, 5, 5)
    for block in (after, before):
        nn.init.zeros_(block.conv3.weight)
    torch.testing.assert_close(after(maps), maps.relu())
    torch.testing.assert_close(before(maps), maps)


def test_pre_activation_projects_the_activated_input():
    block = Bottleneck(4, 2, groups=1, stride=2, project=True, pre=True).eval()
    nn.init.zeros_(block.conv3.weight)
    maps = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(maps), block.projection(block.norm1(maps).relu()))
