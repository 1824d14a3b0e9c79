"""Residual networks have the blocks, strides, groups and biases that were counted."""

import pytest
import torch
from torch import nn

from papertwin import nets
from papertwin.nets.counting import count
from papertwin.nets.residual import Bottleneck


def on_meta(builder, **options):
    with torch.device("meta"):
        return builder(**options, seed=0)


def blocks(model):
    return [layer for layer in model.modules() if isinstance(layer, Bottleneck)]


@pytest.mark.parametrize(("builder", "sizes"), [(nets.resnet50, (3, 4, 6, 3)), (nets.resnet200, (3, 24, 36, 3))])
def test_stages(builder, sizes):
    model = on_meta(builder, root=64)
    groups = [block.conv2.groups for block in blocks(model)]
    assert groups == [64] * sizes[0] + [32] * sizes[1] + [16] * sizes[2] + [8] * sizes[3]
    assert sum(block.projection is not None for block in blocks(model)) == 4
    outputs = {row.name: row.output for row in count(model, (3, 224, 224)).layers}
    last = [outputs[f"stage{stage}_block{size}.conv3"] for stage, size in enumerate(sizes, start=1)]
    assert last == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]


def test_few_groups_end_with_one():
    assert {block.conv2.groups for block in blocks(on_meta(nets.resnet50, root=4))} == {4, 2, 1}


@pytest.mark.parametrize(
    ("builder", "strides", "biased"),
    [(nets.resnet50, (2, 1), ["conv1", "fc"]), (nets.resnet200, (1, 2), ["fc"])],
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
