"""Held layers: against torch's own layers and Jacobians, pooling windows by hand, ties, and what cannot be held."""

from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.functional import jacobian

from papertwin.errors import InputError
from papertwin.robustness.inputs import frozen
from papertwin.robustness.layers import HeldMaxPool, HeldReLU, hold

CONV = {
    "plain": {"kernel_size": 3},
    "stride": {"kernel_size": (3, 2), "stride": (2, 3), "bias": False},
    "padding": {"kernel_size": 3, "stride": 2, "padding": (2, 1)},
    "dilation": {"kernel_size": 2, "dilation": (2, 3), "padding": 1},
    "groups": {"kernel_size": 3, "groups": 2, "stride": 2},
    "same": {"kernel_size": (5, 3), "padding": "same", "dilation": (1, 2)},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "reflect": {"kernel_size": 3, "padding": 2, "padding_mode": "reflect", "stride": 2},
    "circular": {"kernel_size": 3, "padding": "same", "padding_mode": "circular"},
}
POOL = {
    "plain": {"kernel_size": 2},
    "overlapping": {"kernel_size": 3, "stride": (2, 1)},
    "apart": {"kernel_size": 2, "stride": 3},
    "padded": {"kernel_size": (3, 4), "stride": 2, "padding": (1, 2)},
    "dilated": {"kernel_size": (2, 3), "stride": 1, "dilation": (3, 2)},
    "ceil": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "all at once": {"kernel_size": (3, 2), "stride": (3, 2), "padding": 1, "dilation": (2, 1), "ceil_mode": True},
}
IMAGE = (2, 6, 7)
AFFINE = {
    "linear": (nn.Linear(9, 5), (9,)),
    "linear without bias": (nn.Linear(9, 5, bias=False), (9,)),
    "flatten": (nn.Flatten(), IMAGE),
    "flatten the pixels": (nn.Flatten(2), IMAGE),
    "flatten the channels": (nn.Flatten(1, 2), IMAGE),
    "average": (nn.AvgPool2d(2), IMAGE),
    "average padded": (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), IMAGE),
    "average inside": (nn.AvgPool2d((3, 2), 1, padding=1, count_include_pad=False), IMAGE),
    "average divided": (nn.AvgPool2d(2, divisor_override=3), IMAGE),
    "norm 1d": (nn.BatchNorm1d(9), (9,)),
    "norm 1d of maps": (nn.BatchNorm1d(4), (4, 3)),
    "norm 2d": (nn.BatchNorm2d(2), IMAGE),
    "norm 2d without weights": (nn.BatchNorm2d(2, affine=False), IMAGE),
    **{f"conv {name}": (nn.Conv2d(2, 4, **options), IMAGE) for name, options in CONV.items()},
}
BENDING = {"relu": (nn.ReLU(), IMAGE), "relu in place": (nn.ReLU(inplace=True), (9,))} | {
    f"pool {name}": (nn.MaxPool2d(**options), IMAGE) for name, options in POOL.items()
}


def normal(shape, seed: int, device="cpu") -> torch.Tensor:
    """Draws of a normal distribution, float64, on the device that a float64 network gets."""
    draws = torch.from_numpy(np.random.default_rng(seed).normal(size=shape))
    return draws.to("cpu" if str(device) == "mps" else device)


def with_statistics(module: nn.Module) -> nn.Module:
    """Give a BatchNorm statistics and weights that are not those of a new one."""
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        count = module.num_features
        module.running_mean, module.running_var = normal(count, 1).float(), normal(count, 2).float().abs() + 0.1
        if module.affine:
            module.weight.data, module.bias.data = normal(count, 3).float(), normal(count, 4).float()
    return module


def held_alone(module: nn.Module, z: torch.Tensor, device="cpu"):
    """The float64 copy of one layer, and the layer held at z."""
    twin = frozen(with_statistics(module), device)
    (held,) = hold(nn.Sequential(twin), z)
    return twin, held


def matrix_of(function, z: torch.Tensor) -> torch.Tensor:
    """Jacobian at z, (1, …), as a matrix (outputs, inputs)."""
    return jacobian(function, z, vectorize=True).reshape(-1, z.numel())


@pytest.mark.parametrize("kind", [*AFFINE, *BENDING])
def test_a_held_layer_is_the_layer_and_its_transpose_the_adjoint(kind, device):
    module, shape = (AFFINE | BENDING)[kind]
    z = normal((1, *shape), 5, device)
    twin, held = held_alone(module, z, device)
    torch.testing.assert_close(held.forward(z), twin(z.clone()))
    matrix = matrix_of(lambda z: twin(z.clone()), z)
    batch = normal((3, *shape), 6, device)
    out = held.forward(batch)
    assert out.shape == twin(batch.clone()).shape
    shift = held.forward(torch.zeros_like(z)).flatten()
    torch.testing.assert_close(out.flatten(1), batch.flatten(1) @ matrix.T + shift)
    gradient = normal(out.shape, 7, device)
    with torch.no_grad():
        back = held.transpose(gradient)
    assert back.shape == batch.shape
    torch.testing.assert_close(back.flatten(1), gradient.flatten(1) @ matrix)
    torch.testing.assert_close(((out.flatten(1) - shift) * gradient.flatten(1)).sum(), (batch * back).sum())


@pytest.mark.parametrize("kind", BENDING)
def test_slacks_their_adjoint_and_their_single_gradients(kind, device):
    module, shape = BENDING[kind]
    z = normal((1, *shape), 8, device)
    _, held = held_alone(module, z, device)
    assert (held.slack(z) > 0).all()
    matrix = matrix_of(held.slack, normal((1, *shape), 9, device))
    assert matrix.shape == (held.slacks, z.numel())
    batch, weights = normal((3, *shape), 10, device), normal((3, held.slacks), 11, device)
    torch.testing.assert_close(held.slack(batch), batch.flatten(1) @ matrix.T)
    torch.testing.assert_close(held.slack_transpose(weights).flatten(1), weights @ matrix)
    assert held.slack_transpose(weights).shape == batch.shape
    rows = torch.tensor([0, held.slacks - 1, held.slacks // 2, 0], device=z.device)
    single = held.slack_gradient(rows)
    assert single.shape == (4, *shape)
    torch.testing.assert_close(single.flatten(1), matrix[rows])


@pytest.mark.parametrize("kind", [k for k, (module, _) in AFFINE.items() if not isinstance(module, nn.Flatten)])
def test_the_transpose_of_an_affine_layer_knows_no_shift(kind):
    """Held at one input or at another, an affine layer is the same."""
    module, shape = AFFINE[kind]
    _, here = held_alone(module, normal((1, *shape), 1))
    _, there = held_alone(module, 100 * normal((1, *shape), 2))
    gradient = normal((2, *here.forward(normal((1, *shape), 3)).shape[1:]), 4)
    assert torch.equal(here.transpose(gradient), there.transpose(gradient))


def windows_of(module: nn.MaxPool2d, size, out) -> list[list[int]]:
    """Flat places inside the image of each pooling window, row by row, by plain loops."""
    pair = {
        name: (value, value) if isinstance(value := getattr(module, name), int) else value
        for name in ("kernel_size", "stride", "padding", "dilation")
    }
    found = []
    for i in range(out[0]):
        for j in range(out[1]):
            places = []
            for a in range(pair["kernel_size"][0]):
                for b in range(pair["kernel_size"][1]):
                    row = i * pair["stride"][0] - pair["padding"][0] + a * pair["dilation"][0]
                    column = j * pair["stride"][1] - pair["padding"][1] + b * pair["dilation"][1]
                    if 0 <= row < size[0] and 0 <= column < size[1]:
                        places.append(row * size[1] + column)
            found.append(places)
    return found


@st.composite
def pools(draw):
    """A pooling layer and an image of few values, so that ties abound."""
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    module = nn.MaxPool2d(
        kernel,
        stride=draw(st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding=tuple(draw(st.integers(0, k // 2)) for k in kernel),
        dilation=draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        ceil_mode=draw(st.booleans()),
    )
    shape = (draw(st.integers(1, 2)), draw(st.integers(5, 8)), draw(st.integers(5, 8)))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(-1, 2, (1, *shape))
    return module, torch.from_numpy(values).double()


@settings(max_examples=150, deadline=None)
@given(pools())
def test_pooling_windows_by_hand_and_the_first_of_equals_wins(drawn):
    module, z = drawn
    held = HeldMaxPool(module, z)
    out = module(z)
    _, channels, *size = z.shape
    flat, winners, pairs = z.flatten().tolist(), [], Counter()
    for channel in range(channels):
        for places in windows_of(module, size, out.shape[2:]):
            places = [channel * size[0] * size[1] + place for place in places]
            best = max(places, key=lambda k: (flat[k], -k))
            winners.append(best)
            pairs.update((best, other) for other in places if other != best)
    assert held.winner.tolist() == winners
    assert Counter(zip(held.better.tolist(), held.worse.tolist())) == pairs
    assert held.slacks == sum(pairs.values())
    assert torch.equal(held.forward(z), out)
    assert not held.slacks or held.slack(z).min() >= 0


def test_a_blank_image_is_won_by_the_first_pixel_of_each_window(device):
    for memory in (torch.contiguous_format, torch.channels_last):
        z = torch.zeros_like(normal((1, 2, 4, 4), 0, device)).to(memory_format=memory)
        held = HeldMaxPool(nn.MaxPool2d(2), z)
        assert held.winner.tolist() == [0, 2, 8, 10, 16, 18, 24, 26]
        assert held.slack(z).tolist() == [[0.0] * 24]
        brighter = z.clone()
        brighter[..., 0::2, 0::2] = 1
        assert (held.slack(brighter) == 1).all()
        assert (held.slack(-brighter) == -1).all()
    padded = HeldMaxPool(nn.MaxPool2d(3, 2, padding=1), torch.zeros_like(normal((1, 1, 4, 4), 0, device)))
    assert padded.winner.tolist() == [0, 1, 4, 5]


def test_a_unit_at_zero_counts_as_off(device):
    z = torch.tensor([[0.0, -0.0, 1.0, -1.0]], dtype=torch.float64).to(normal((1,), 0, device).device)
    held = HeldReLU(z)
    assert held.on.tolist() == [[0, 0, 1, 0]]
    assert held.sign.tolist() == [-1, -1, 1, -1]
    assert held.slack(z).tolist() == [[0, 0, 1, 1]]
    assert held.forward(z + 5).tolist() == [[0, 0, 6, 0]]
    assert held.slack(z + 5).tolist() == [[-5, -5, 6, -4]]


def test_nested_networks_are_held_in_their_order_and_layers_that_do_nothing_left_out():
    inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()), nn.Dropout2d(0.9))
    model = nn.Sequential(nn.Identity(), inner, nn.MaxPool2d(2), nn.Sequential(nn.Flatten(), nn.Dropout(0.9)))
    model.append(nn.Linear(8, 3))
    model64, z = frozen(model.train()), normal((1, 1, 6, 6), 3)
    held = hold(model64, z)
    kinds = ["Conv2d", "BatchNorm2d", "HeldReLU", "HeldMaxPool", "Flatten", "Linear"]
    assert [type(getattr(layer, "module", layer)).__name__ for layer in held] == kinds
    assert [layer.shape for layer in held] == [(1, 6, 6), (2, 4, 4), (2, 4, 4), (2, 4, 4), (2, 2, 2), (8,)]
    x = z
    for layer in held:
        x = layer.forward(x)
    torch.testing.assert_close(x, model64(z))


def test_a_layer_that_comes_twice_is_held_twice():
    bend, square = nn.ReLU(), nn.Linear(5, 5)
    model64, z = frozen(nn.Sequential(square, bend, square, bend, square)), normal((1, 5), 0)
    held = hold(model64, z)
    assert [layer.slacks for layer in held] == [0, 5, 0, 5, 0]
    x = z
    for layer in held:
        x = layer.forward(x)
    torch.testing.assert_close(x, model64(z))


class Residual(nn.Sequential):
    """A Sequential that is not one."""

    def forward(self, x):
        """Add the input."""
        return x + super().forward(x)


@pytest.mark.parametrize(
    ("model", "place", "kind"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()), "1", "Sigmoid"),
        (nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh()))), "1.1.0", "Tanh"),
        (nn.Sequential(OrderedDict(body=nn.Linear(4, 4), act=nn.LeakyReLU())), "act", "LeakyReLU"),
        (nn.Softmax(1), "at the top", "Softmax"),
        (nn.Sequential(Residual(nn.Linear(4, 4))), "0", "Residual"),
        (nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.BatchNorm2d(1, track_running_stats=False)), "0", "Unflatten"),
    ],
)
def test_a_layer_without_encoding_is_named_by_its_place(model, place, kind):
    with pytest.raises(InputError, match=f"Layer {place} is a {kind}.*Linear, Conv2d"):
        hold(frozen(model), normal((1, 4), 0))


class Doubled(nn.Linear):
    """A Linear that is something else."""

    def forward(self, x):
        """Bend."""
        return super().forward(x).abs()


class Padded(nn.Conv2d):
    """A Conv2d whose convolution is something else."""

    def _conv_forward(self, *args):
        return super()._conv_forward(*args).abs()


class Always(nn.Dropout):
    """Dropout that also drops in eval mode."""

    def forward(self, x):
        """Drop."""
        return nn.functional.dropout(x, self.p, training=True)


class Capped(nn.ReLU):
    """A ReLU with a ceiling."""

    def forward(self, x):
        """Cut both ends."""
        return x.clamp(0, 1)


class Twin(nn.Linear):
    """A Linear by another name."""


def hooked(module: nn.Module, name: str) -> nn.Module:
    """The module with a hook."""
    getattr(module, name)(lambda *args: None)
    return module


def patched(module: nn.Module) -> nn.Module:
    """The module with a forward of this object alone."""
    module.forward = torch.abs
    return module


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (Doubled(4, 4), "Doubled with a forward of its own"),
        (Padded(1, 1, 1), "Padded with a forward of its own"),
        (Always(), "Always with a forward of its own"),
        (Capped(), "Capped with a forward of its own"),
        (patched(nn.Linear(4, 4)), "Linear with a forward of its own"),
        (patched(nn.Sequential()), "Sequential with a forward of its own"),
        (hooked(nn.Linear(4, 4), "register_forward_hook"), "Linear with a forward hook"),
        (hooked(nn.ReLU(), "register_forward_pre_hook"), "ReLU with a forward hook"),
        (hooked(nn.Sequential(nn.ReLU()), "register_forward_hook"), "Sequential with a forward hook"),
        (nn.MaxPool2d(2, return_indices=True), "MaxPool2d with return_indices=True"),
    ],
)
def test_a_layer_that_may_compute_anything_is_not_trusted(layer, kind):
    model = nn.Sequential(nn.Sequential(nn.Identity(), layer), nn.Flatten())
    with pytest.raises(InputError, match=f"Layer 0.1 is a {kind}, which has no linear encoding"):
        hold(frozen(model), normal((1, 4), 0))


def test_a_subclass_that_computes_the_same_and_a_parametrised_weight_are_held():
    model = nn.Sequential(Twin(4, 4), nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    z = normal((1, 4), 0)
    held = hold(frozen(model), z)
    for layer in held:
        z = layer.forward(z)
    torch.testing.assert_close(z, frozen(model)(normal((1, 4), 0)))
    torch.testing.assert_close(held[2].transpose(torch.eye(3).double()), frozen(model)[2].weight)


@pytest.mark.parametrize(("norm", "shape"), [(nn.BatchNorm1d, (2, 5)), (nn.BatchNorm2d, (2, 3, 3))])
def test_a_norm_by_the_statistics_of_its_batch_is_not_affine(norm, shape):
    model = nn.Sequential(norm(2, track_running_stats=False), nn.Flatten())
    with pytest.raises(InputError, match=r"Layer 0 is a BatchNorm.*running statistics"):
        hold(frozen(model), normal((1, *shape), 0))
