"""Ends of the line are the networks themselves, and a barrier is what rises above it."""

import math

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.symmetry import barrier, interpolated, losses_along


def test_ends_are_exact(network, kind):
    state_a, state_b = (network(kind, seed).state_dict() for seed in (0, 1))
    for alpha, state in ((0, state_a), (1, state_b), (0.0, state_a), (1.0, state_b)):
        mix = interpolated(state_a, state_b, alpha)
        assert all(torch.equal(mix[name], value) for name, value in state.items())
        assert not any(mix[name].data_ptr() == value.data_ptr() for name, value in state.items())


def test_all_tensors_are_mixed(network, kind):
    state_a, state_b = (network(kind, seed).state_dict() for seed in (0, 1))
    mix = interpolated(state_a, state_b, 0.25)
    for name, value in mix.items():
        if value.is_floating_point():
            assert torch.allclose(value, 0.75 * state_a[name] + 0.25 * state_b[name], atol=1e-6)


def test_equal_networks_stay_equal_and_counts_whole(network):
    state = network("resnet").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in interpolated(state, state, 0.3).items())
    other = {name: value + 1 if not value.is_floating_point() else value for name, value in state.items()}
    counts = [name for name in state if name.endswith("num_batches_tracked")]
    assert counts
    for alpha, nearer in ((0.5, state), (0.6, other)):
        mix = interpolated(state, other, alpha)
        assert all(torch.equal(mix[name], nearer[name]) for name in counts)


def test_losses_along_the_line():
    model = nn.Linear(1, 1, bias=False)
    states = [{"weight": torch.tensor([[value]])} for value in (0.0, 4.0)]
    before = model.weight.clone()
    alphas = [0, 0.25, 0.5, 1]
    losses = losses_along(model, *states, alphas, lambda m: (m.weight.item() - 2) ** 2 + 100 * m.training)
    assert losses == [4.0, 1.0, 0.0, 4.0]
    assert torch.equal(model.weight, before)
    assert model.training


@pytest.mark.parametrize(
    ("alphas", "losses", "height"),
    [
        ([0, 0.5, 1], [1.0, 5.0, 3.0], 3.0),
        ([0, 0.25, 0.75, 1], [1.0, 2.5, 2.0, 3.0], 1.0),
        ([0, 0.25, 0.75, 1], [3.0, 2.5, 2.0, 1.0], 0.5),
        ([0, 0.5, 1], [1.0, 0.1, 1.0], 0.0),
        ([0, 0.1, 0.3, 1], [0.3] * 4, 0.0),
        ([0, 1], [2.0, 1.0], 0.0),
        ([0, 0.5, 1], [1.0, math.inf, 1.0], math.inf),
    ],
)
def test_barriers(alphas, losses, height):
    assert barrier(alphas, losses) == height


def test_a_barrier_of_nan_is_nan():
    assert math.isnan(barrier([0, 0.5, 1], [1.0, math.nan, 1.0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: interpolated(s, s, 1.5), "alpha must be .*got 1.5"),
        (lambda s: interpolated(s, s, math.nan), "alpha must be .*got nan"),
        (lambda s: interpolated(s, s, True), "alpha must be .*got True"),
        (lambda s: interpolated(s, {}, 0.5), "only one has w"),
        (lambda s: interpolated(s, {"w": torch.ones(3)}, 0.5), r"w must be alike, got \(2,\) and \(3,\)"),
        (lambda s: barrier([0, 1], [1.0]), "a loss for each α, got 1 for 2"),
        (lambda s: barrier([0, 0.5], [1.0, 1.0]), "ascend from 0 to 1, got"),
        (lambda s: barrier([0.1, 1], [1.0, 1.0]), "ascend from 0 to 1, got"),
        (lambda s: barrier([0, 0.5, 0.5, 1], [1.0] * 4), "ascend from 0 to 1, got"),
        (lambda s: barrier([], []), "ascend from 0 to 1, got"),
    ],
)
def test_arguments_that_cannot_be_used(call, message):
    with pytest.raises(InputError, match=message):
        call({"w": torch.ones(2)})
