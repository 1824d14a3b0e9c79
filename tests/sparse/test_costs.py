"""Multiply-accumulates of masked networks by counting products one by one, and by torch's own counter where dense."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from papertwin.errors import InputError
from papertwin.nets import count
from papertwin.sparse.costs import METHODS, forward_macs, training_macs
from papertwin.sparse.masks import random_mask, sparse_layers


def net(bias=True):
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2, bias=bias),
        nn.ReLU(),
        nn.Conv2d(4, 6, (3, 1), groups=2, bias=bias),
        nn.Flatten(),
        nn.Linear(6 * 2 * 4, 5, bias=bias),
    )


SHAPE = (2, 7, 8)
PLACES = {"0": 4 * 4, "2": 2 * 4, "4": 1}  # of an image of 7 × 8 pixels


def masks_of(model, seed=0, share=0.3):
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: layer.weight.shape for name, layer in sparse_layers(model).items()}
    return {name: random_mask(shape, int(share * shape.numel()), generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("bias", [False, True])
def test_active_weights_count_at_every_place(bias):
    model = net(bias)
    masks = masks_of(model)
    biases = 4 + 6 + 5 if bias else 0
    every = sum(PLACES[name] * int(mask.sum()) for name, mask in masks.items())
    assert forward_macs(model, SHAPE, masks) == every + biases
    one = {"2": masks["2"]}
    dense = sum(PLACES[name] * masks[name].numel() for name in ("0", "4"))
    assert forward_macs(model, SHAPE, one) == dense + PLACES["2"] * int(masks["2"].sum()) + biases


def test_dense_networks_cost_what_torch_counts():
    model = net(bias=False)
    full = {name: torch.ones_like(mask) for name, mask in masks_of(model).items()}
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *SHAPE))
    assert forward_macs(model, SHAPE, {}) == forward_macs(model, SHAPE, full) == counter.get_total_flops() // 2
    assert forward_macs(net(), SHAPE, {}) == count(net(), SHAPE).macs


def test_active_weights_by_setting_them_off_one_by_one():
    """A product that matters changes the output; with images and weights of ones, the sum counts them."""
    model = net(bias=False)[:1]
    masks = masks_of(model)
    with torch.no_grad():
        model[0].weight.copy_(masks["0"])
        padded = nn.functional.conv2d(torch.ones(1, 2, 9, 10), model[0].weight, stride=2)  # padding counts as well
    assert forward_macs(model, SHAPE, masks) == int(padded.sum())


def test_layers_that_run_twice_cost_twice():
    layer = nn.Linear(6, 6)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(6, 2))
    mask = random_mask((6, 6), 10, torch.Generator().manual_seed(0))
    assert forward_macs(model, (6,), {}) == count(model, (6,)).macs == 2 * 42 + 14
    assert forward_macs(model, (6,), {"0": mask}) == 2 * (10 + 6) + 14


def test_a_bias_for_each_weight():
    mask = torch.tensor([[True], [False], [True]])
    assert forward_macs(nn.Linear(1, 3), (1,), {"": mask}) == 2 + 3


def test_masks_of_layers_that_are_not_counted():
    with pytest.raises(InputError, match="masks name 1, nine; counted are 0, 2, 4"):
        forward_macs(net(), SHAPE, {"nine": torch.ones(1), "1": torch.ones(1)})


def test_masks_of_another_shape():
    with pytest.raises(InputError, match=r"mask of 0 must be of shape \(4, 2, 3, 3\), got \(4, 18\)"):
        forward_macs(net(), SHAPE, {"0": torch.ones(4, 18).bool()})


@given(dense=st.integers(1, 10**9), share=st.floats(0, 1), every=st.integers(1, 10**4))
@settings(deadline=None)
def test_training_by_the_sum_over_a_period(dense, share, every):
    """ΔT steps of three sparse passes, and one with a sparse forward pass, error and the dense gradient of weights."""
    sparse = share * dense
    period = every * 3 * sparse + (sparse + sparse + dense)
    for method in ("rigl", "srigl"):
        assert training_macs(dense, sparse, method, every) == pytest.approx(period / (every + 1))
        assert 3 * sparse * (1 - 1e-9) <= training_macs(dense, sparse, method, every) <= 3 * dense * (1 + 1e-9)
    assert training_macs(dense, sparse, "dense", every) == 3 * dense
    assert training_macs(dense, sparse, "static", every) == training_macs(dense, sparse, "set", every) == 3 * sparse


def test_limits_of_training():
    assert training_macs(100, 10, "rigl", 10**9) == pytest.approx(30, rel=1e-6)  # as a static network
    assert training_macs(100, 0, "rigl", 4) == pytest.approx(100 / 5)  # the dense gradient alone
    for every in (1, 7):
        assert training_macs(100, 100, "srigl", every) == pytest.approx(300)
    assert training_macs(100, 10, "rigl") == training_macs(100, 10, "rigl", 100)
    costs = [training_macs(100, 10, "rigl", every) for every in (1, 2, 10, 100)]
    assert costs == sorted(costs, reverse=True)
    assert all(math.isfinite(training_macs(100, 10, method)) for method in METHODS)


@pytest.mark.parametrize(("method", "every"), [("rigged", 100), ("rigl", 0), ("rigl", 2.5), ("dense", True)])
def test_arguments_that_cannot_be_used(method, every):
    with pytest.raises(InputError, match=f"got '{method}', {every}"):
        training_macs(2, 1, method, every)
