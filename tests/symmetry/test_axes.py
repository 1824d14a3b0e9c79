"""Descriptions name every axis that channels share, and networks that cannot be described are refused."""

import pytest
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import cifar_resnet, lenet, vgg, wide_resnet
from papertwin.symmetry import Axis, Permutable, permutables


def names(permutable):
    return {(axis.tensor, axis.dim) for axis in permutable.axes}


def given(layer):
    return {(f"{layer}.weight", 0)}


def read(layer):
    return {(f"{layer}.weight", 1)}


def normed(norm):
    return {(f"{norm}.{part}", 0) for part in ("weight", "bias", "running_mean", "running_var")}


def test_streams_and_blocks_of_a_residual_network():
    found = {each.name: each for each in permutables(cifar_resnet(14, width=0.5, seed=0))}
    inner = [f"stage{stage}_block{block}.conv1" for stage in (1, 2, 3) for block in (1, 2)]
    streams = ["conv1", "stage2_block1.projection", "stage3_block1.projection"]
    assert set(found) == {*inner, *streams}
    for name in inner:
        block = name.removesuffix(".conv1")
        assert names(found[name]) == given(name) | normed(f"{block}.norm1") | read(f"{block}.conv2")
        assert (found[name].activation, found[name].relu) == (f"{block}.norm1", True)
    for stage, name in enumerate(streams, start=1):
        blocks = [f"stage{stage}_block{block}" for block in (1, 2)]
        wanted = given(name) | normed("conv1_norm" if stage == 1 else f"{blocks[0]}.projection_norm")
        for block in blocks:
            wanted |= given(f"{block}.conv2") | normed(f"{block}.norm2")
            wanted |= read(f"{block}.conv1") if stage == 1 or block != blocks[0] else set()
        following = f"stage{stage + 1}_block1"
        wanted |= read(f"{following}.conv1") | read(f"{following}.projection") if stage < 3 else read("fc")
        assert names(found[name]) == wanted
        assert (found[name].activation, found[name].relu) == (blocks[1], False)
        assert found[name].size == 8 * 2 ** (stage - 1)


def test_what_lies_inside_a_stage_comes_before_its_stream():
    order = [each.name for each in permutables(cifar_resnet(8, width=0.5, seed=0))]
    assert order.index("stage1_block1.conv1") < order.index("conv1") < order.index("stage2_block1.conv1")
    assert order[-1] == "stage3_block1.projection"


def test_each_axis_of_hidden_channels_is_described(network, kind):
    """Weights have two axes, but those that read images or give outputs one; norms and hidden biases have one."""
    model = network(kind)
    description = permutables(model)
    counts = {}
    for axis in (axis for each in description for axis in each.axes):
        counts[axis.tensor] = counts.get(axis.tensor, 0) + 1
    layers = [name for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    ends = {f"{layers[0]}.weight": 1, f"{layers[-1]}.weight": 1, f"{layers[-1]}.bias": 0}
    state = {name: value for name, value in model.state_dict().items() if value.dim()}
    for name, value in state.items():
        first_norm = kind == "flattened maps" and name.startswith("0.0.")  # of the images themselves
        wanted = 0 if first_norm else ends.get(name, 2 if value.dim() > 1 else 1)
        assert counts.get(name, 0) == wanted, name


def test_channels_without_a_relu_are_shown_by_their_layer():
    assert [(each.name, each.activation) for each in permutables(lenet(seed=0))] == [("0", "0"), ("2", "2"), ("5", "6")]


@pytest.mark.parametrize("norm_first", [True, False])
def test_channels_are_shown_after_their_relu(norm_first):
    between = [nn.BatchNorm1d(4), nn.ReLU()] if norm_first else [nn.ReLU(), nn.BatchNorm1d(4)]
    (found,) = permutables(chain(nn.Linear(3, 4), *between, nn.Linear(4, 2)))
    assert found.activation == ("2" if norm_first else "1")
    assert names(found) == given("0") | {("0.bias", 0)} | normed("2" if not norm_first else "1") | read("3")


def test_an_axis_lies_in_a_tensor_once():
    with pytest.raises(InputError, match=r"a names w twice"):
        Permutable("a", 3, (Axis("w", 0), Axis("w", 1)), "a")
    with pytest.raises(InputError, match=r"size of a must be .*got 0"):
        Permutable("a", 0, (), "a")


def chain(*layers):
    return nn.Sequential(*layers)


SHARED = nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (cifar_resnet(8, shortcut="padding", width=0.5, seed=0), "stage2_block1 appends maps .*shortcut='projection'"),
        (wide_resnet(10, 1, width=0.25, seed=0), "stage1_block1 is WideBlock.*known are Linear"),
        (vgg(5, width=1 / 32, scheme="lr", global_pool=True, seed=0), "is Composite"),
        (
            chain(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(4, 2)),
            "1 has 2 filter groups",
        ),
        (chain(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), "1 is Tanh"),
        (chain(nn.Conv2d(3, 4, 3), nn.Linear(4, 2)), "1 must read values: put nn.Flatten before it; got maps"),
        (chain(nn.Linear(4, 4), nn.Conv2d(4, 2, 1)), "1 must read maps; got values"),
        (chain(nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(4, 2)), "1 must read values"),
        (chain(nn.Linear(4, 4), nn.MaxPool2d(2)), "1 must read maps"),
        (chain(nn.Linear(4, 4), nn.Linear(6, 2)), "1 reads 6 channels; 0 before it gives 4"),
        (chain(nn.Conv2d(3, 4, 3), nn.Conv2d(8, 4, 3)), "1 reads 8 channels; 0 before it gives 4"),
        (chain(nn.Linear(4, 4), nn.Flatten(0), nn.Linear(4, 2)), r"1 must be nn.Flatten\(1, -1\), got \(0, -1\)"),
        (chain(SHARED, nn.ReLU(), SHARED), "stands in two places"),
        (chain(nn.Flatten(), nn.Linear(4, 2)), "no hidden channels"),
        (nn.Linear(4, 2), "must be a chain, nn.Sequential, got Linear"),
    ],
)
def test_networks_that_cannot_be_described(model, message):
    with pytest.raises(InputError, match=message):
        permutables(model)


def test_tied_weights_are_refused():
    model = chain(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    with pytest.raises(InputError, match="two places"):
        permutables(model)
