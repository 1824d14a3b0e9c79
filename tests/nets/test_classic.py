"""The networks have the layers and sizes of their papers, and weights that depend on the seed alone."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin import nets
from papertwin.errors import InputError
from papertwin.nets import lenet, mlp, nin

BUILDERS = [mlp, lenet, lambda *, seed: lenet("average", seed=seed), nin]
IDS = ["mlp", "lenet", "lenet average", "nin"]
SHAPES = {"mlp": (1, 28, 28), "lenet": (1, 28, 28), "lenet average": (1, 28, 28), "nin": (3, 32, 32)}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def kinds(model):
    return [type(layer).__name__ for layer in model]


def weights(model):
    return torch.cat([p.detach().ravel() for p in model.parameters()])


@pytest.mark.parametrize("name", nets.__all__)
def test_public_names_resolve_to_objects_of_that_name(name):
    assert getattr(nets, name).__name__ == name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'densenet'"):
        _ = nets.densenet


def test_parameters_are_those_counted_by_hand():
    convolutions = 20 * (5 * 5 * 1 + 1) + 50 * (5 * 5 * 20 + 1)
    assert parameters(lenet(seed=0)) == convolutions + 500 * (4 * 4 * 50 + 1) + 10 * 501 == 431_080
    assert parameters(lenet("average", seed=0)) == 431_080
    assert parameters(mlp(seed=0)) == 785 * 100 + 101 * 50 + 51 * 10 == 84_060
    blocks = [(75, 192), (192, 160), (160, 96), (25 * 96, 192), (192, 192), (192, 192), (9 * 192, 192), (192, 192)]
    due = sum(fan_out * (fan_in + 1) for fan_in, fan_out in [*blocks, (192, 10)])
    assert parameters(nin(seed=0)) == due == 966_986


@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_a_perceptron_is_affine_maps_with_relu_between(sizes, seed):
    model = mlp(sizes, seed=seed)
    images = np.random.default_rng(seed).normal(size=(3, 1, 1, sizes[0])).astype(np.float32)
    values = images.reshape(3, -1)
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == list(pairwise(sizes))
    for place, layer in enumerate(layers):
        values = np.maximum(values, 0) if place else values
        values = values @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    np.testing.assert_allclose(model(torch.from_numpy(images)).detach().numpy(), values, atol=1e-6)


@pytest.mark.parametrize("pool", ["max", "average"])
def test_lenet_has_one_relu_and_no_padding(pool):
    model = lenet(pool, seed=0)
    pooling = {"max": "MaxPool2d", "average": "AvgPool2d"}[pool]
    assert kinds(model) == ["Conv2d", pooling, "Conv2d", pooling, "Flatten", "Linear", "ReLU", "Linear"]
    images = torch.rand(2, 1, 28, 28)
    shapes = [tuple((images := layer(images)).shape[1:]) for layer in model]
    assert shapes == [(20, 24, 24), (20, 12, 12), (50, 8, 8), (50, 4, 4), (800,), (500,), (500,), (10,)]


def test_network_in_network_is_three_blocks_and_a_global_average():
    model = nin(seed=0)
    block = ["Conv2d", "ReLU"] * 3
    middle = [[*block, pool, "Dropout"] for pool in ("MaxPool2d", "AvgPool2d")]
    assert kinds(model) == [*middle[0], *middle[1], *block[:-1], "AvgPool2d", "Flatten"]
    convolutions = [layer for layer in model if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size[0] for layer in convolutions] == [5, 1, 1, 5, 1, 1, 3, 1, 1]
    images = torch.rand(2, 3, 32, 32)
    model.eval()
    sides = []
    for layer in model[:-2]:
        images = layer(images)
        if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            sides.append(images.shape[-1])
    assert sides == [16, 8]
    np.testing.assert_allclose(model[-2:](images).detach(), images.mean(dim=(2, 3)).detach(), rtol=1e-5)
    assert 0.1 < images.std() < 10  # the signal neither dies nor explodes on its way through nine layers


@pytest.mark.parametrize(("build", "name"), list(zip(BUILDERS, IDS)), ids=IDS)
def test_every_network_is_a_sequence_that_gives_a_logit_a_class(build, name, device):
    model = build(seed=1).to(device)
    assert isinstance(model, nn.Sequential)
    assert model(torch.rand(3, *SHAPES[name], device=device)).shape == (3, 10)
    assert len(model(torch.rand(1, *SHAPES[name], device=device))) == 1


@pytest.mark.parametrize("build", BUILDERS, ids=IDS)
def test_weights_depend_on_the_seed_alone(build):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(weights(build(seed=3)), weights(first))
    assert torch.equal(weights(build(seed=np.int64(3))), weights(first))
    assert not torch.equal(weights(build(seed=4)), weights(first))


@pytest.mark.parametrize("build", BUILDERS, ids=IDS)
def test_networks_can_be_planned_without_memory(build):
    with torch.device("meta"):
        model = build(seed=0)
    assert all(p.is_meta for p in model.parameters())
    assert parameters(model) == parameters(build(seed=0))


@pytest.mark.parametrize(
    "build",
    [
        lambda: mlp((784,), seed=0),
        lambda: mlp((784, 0), seed=0),
        lambda: mlp((784, 1.5), seed=0),
        lambda: mlp((784, True), seed=0),
        lambda: lenet("median", seed=0),
        lambda: nin(0, seed=0),
        lambda: nin("ten", seed=0),
        lambda: mlp(seed=-1),
        lambda: lenet(seed=1.0),
        lambda: nin(seed=True),
    ],
)
def test_arguments_that_build_nothing(build):
    with pytest.raises(InputError, match=r"must be .*got"):
        build()
