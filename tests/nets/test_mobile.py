"""MobileNets have the sizes of their paper's tables, and small images are halved as seldom as it says."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from papertwin.errors import InputError
from papertwin.nets import count, mobilenet


def on_meta(**options):
    with torch.device("meta"):
        return mobilenet(**options, seed=0)


def convolutions(model):
    return {name: layer for name, layer in model.named_children() if isinstance(layer, nn.Conv2d)}


def test_parameters_of_the_published_network():
    model = on_meta()
    norms = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert sum(p.numel() for p in model.parameters()) == 4_231_976
    assert count(model, (3, 224, 224)).params == 4_231_976 - norms
    assert f"4,231,976 parameters by default, {norms:,}" in mobilenet.__doc__


# Tables 6 and 7 of the paper: million operations and parameters
@pytest.mark.parametrize(
    ("width", "side", "operations", "parameters"),
    [
        *((1.0, 224, 569, 4.2), (0.75, 224, 325, 2.6), (0.5, 224, 149, 1.3), (0.25, 224, 41, 0.5)),
        *((1.0, 192, 418, 4.2), (1.0, 160, 290, 4.2), (1.0, 128, 186, 4.2)),
    ],
)
def test_the_tables_of_the_paper(width, side, operations, parameters):
    model = on_meta(width=width, side=side)
    assert abs(count(model, (3, side, side)).macs / 1e6 - operations) < 1
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == parameters


@pytest.mark.parametrize(("channels", "side", "width"), [(3, 224, 1.0), (3, 32, 0.5), (1, 14, 0.25)])
def test_operations_are_those_of_torchs_counter(channels, side, width):
    model = on_meta(classes=10, side=side, in_channels=channels, width=width)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, channels, side, side, device="meta"))
    assert count(model, (channels, side, side)).macs == counter.get_total_flops() // 4 + 10  # + biases of fc


def test_28_layers_of_two_kinds():
    layers = convolutions(on_meta(width=0.5))
    pairs = [name for number in range(1, 14) for name in (f"depthwise{number}", f"pointwise{number}")]
    assert list(layers) == ["conv1", *pairs]
    assert all(layer.bias is None for layer in layers.values())
    for name, layer in layers.items():
        deep = name.startswith("depthwise")
        assert layer.groups == (layer.in_channels if deep else 1)
        assert layer.kernel_size == ((1, 1) if name.startswith("pointwise") else (3, 3))
        assert layer.out_channels == layer.in_channels or not deep
    filters = [16, 32, 64, 64, 128, 128, *[256] * 6, 512, 512]
    assert [layer.out_channels for name, layer in layers.items() if not name.startswith("depth")] == filters


def test_each_convolution_is_normalised_and_cut():
    children = list(on_meta().named_children())
    kinds = [type(layer) for _, layer in children]
    assert kinds == [*[nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 27, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
    for (_, layer), (_, norm) in pairwise(children):
        assert not isinstance(norm, nn.BatchNorm2d) or norm.num_features == layer.out_channels


# side → layers with stride 2, side of the last maps
STRIDES = {
    224: ("conv1 depthwise2 depthwise4 depthwise6 depthwise12", 7),
    65: ("conv1 depthwise2 depthwise4 depthwise6 depthwise12", 3),
    64: ("depthwise2 depthwise4 depthwise6 depthwise12", 4),
    33: ("depthwise2 depthwise4 depthwise6 depthwise12", 3),
    32: ("depthwise4 depthwise6 depthwise12", 4),
    28: ("depthwise4 depthwise6 depthwise12", 4),
    14: ("depthwise6 depthwise12", 4),
    5: ("depthwise12", 3),
    4: ("", 4),
    1: ("", 1),
}


@pytest.mark.parametrize("side", STRIDES)
def test_small_images_are_halved_as_seldom_as_needed(side):
    strided, last = STRIDES[side]
    model = on_meta(side=side, in_channels=1)
    strides = {name: layer.stride for name, layer in convolutions(model).items()}
    assert [name for name, stride in strides.items() if stride == (2, 2)] == strided.split()
    assert set(strides.values()) <= {(1, 1), (2, 2)}
    assert count(model, (1, side, side)).layers[-2].output == (1024, last, last)


def test_logits_by_formula():
    model = mobilenet(5, width=0.125, side=14, in_channels=1, seed=2)
    images = torch.randn(6, 1, 14, 14)
    maps, state = images, model.state_dict()
    for name in ["conv1", *(f"{kind}{n}" for n in range(1, 14) for kind in ("depthwise", "pointwise"))]:
        weight = state[f"{name}.weight"]
        groups = maps.shape[1] // weight.shape[1]
        stride = 2 if name in ("depthwise6", "depthwise12") else 1
        maps = F.conv2d(maps, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        maps = F.relu(F.batch_norm(maps, None, None, training=True))
    expected = maps.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
    torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=1e-4)
    assert model.eval()(torch.randn(2, 1, 20, 20)).shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes must be"),
        ({"width": 0}, "width must be"),
        ({"in_channels": 0}, "channels must be"),
        ({"side": 0}, "side must be"),
        ({"side": 32.0}, "side must be"),
    ],
)
def test_arguments_that_build_nothing(options, message):
    with pytest.raises(InputError, match=message):
        on_meta(**options)


def test_seeds_are_checked():
    with pytest.raises(InputError, match="seed must be"):
        mobilenet(seed=None)
