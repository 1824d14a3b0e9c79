"""First weights: variance 2/k of each neuron's own fan-in, masked ones 0, the same on every device."""

import math

import pytest
import torch

from papertwin.errors import InputError
from papertwin.sparse.initialising import sparse_init_

FAN_INS = (1, 3, 50, 400)
DRAWS = 4000  # weights of each fan-in


def uneven(device="cpu"):
    """Rows of 400 inputs of which the first k are active, as many rows of each k as give 4000 weights."""
    counts = torch.tensor([k for k in FAN_INS for _ in range(DRAWS // k)])
    mask = torch.arange(400)[None] < counts[:, None]
    return counts, mask.to(device)


@pytest.mark.parametrize(("how", "variance"), [("fan_in", lambda k: 2 / k), ("as_coded", lambda k: (2 / k) ** 2)])
def test_the_variance_follows_from_the_fan_in(how, variance):
    """The variance of m normal numbers deviates by √(2/m) of itself; five times that is allowed."""
    counts, mask = uneven()
    weight = torch.randn(mask.shape)
    sparse_init_(weight, mask, how, torch.Generator().manual_seed(0))
    assert (weight[~mask] == 0).all()
    assert (weight[mask] != 0).all()
    for k in FAN_INS:
        drawn = weight[counts == k][:, :k].double()
        assert drawn.square().mean() == pytest.approx(variance(k), rel=5 * math.sqrt(2 / drawn.numel()))
        assert abs(drawn.mean()) < 5 * math.sqrt(variance(k) / drawn.numel())


def test_filters_are_neurons_too():
    mask = torch.zeros(2000, 3, 2, 2).bool()
    mask[:, 1] = True
    weight = torch.zeros(mask.shape)
    sparse_init_(weight, mask, "fan_in", torch.Generator().manual_seed(0))
    assert weight[mask].var() == pytest.approx(2 / 4, rel=0.1)
    assert (weight[~mask] == 0).all()


def test_weights_of_the_dense_network_stay():
    mask = torch.rand(7, 5) < 0.5
    weight = torch.randn(7, 5)
    before, generator = weight.clone(), torch.Generator().manual_seed(0)
    state = generator.get_state()
    sparse_init_(weight, mask, "masked", generator)
    assert torch.equal(weight, torch.where(mask, before, 0))
    assert torch.equal(generator.get_state(), state)


def test_ablated_neurons_stay_empty():
    weight = torch.ones(3, 4)
    sparse_init_(weight, torch.zeros(3, 4).bool(), "fan_in", torch.Generator())
    assert (weight == 0).all()


def test_parameters_are_changed_in_place_without_a_gradient():
    layer = torch.nn.Linear(4, 3)
    weight = layer.weight
    sparse_init_(layer.weight, torch.ones(3, 4).bool(), "fan_in", torch.Generator().manual_seed(0))
    assert layer.weight is weight
    assert weight.is_leaf
    assert weight.grad_fn is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_every_device_and_precision_gets_the_same_draws(device, dtype):
    """A device without double precision gets single."""
    if device == "mps" and dtype == torch.float64:
        dtype = torch.float32
    _, mask = uneven()
    here, there = torch.zeros(mask.shape, dtype=torch.float64), torch.zeros(mask.shape, dtype=dtype, device=device)
    before = torch.get_rng_state()
    sparse_init_(here, mask, "fan_in", torch.Generator().manual_seed(3))
    sparse_init_(there, mask.to(device), "fan_in", torch.Generator().manual_seed(3))
    assert torch.equal(here.to(dtype), there.cpu())
    assert torch.equal(before, torch.get_rng_state())


def test_kinds_that_are_none():
    with pytest.raises(InputError, match="how must be one of fan_in, as_coded, masked, got 'kaiming'"):
        sparse_init_(torch.zeros(2, 2), torch.ones(2, 2).bool(), "kaiming", torch.Generator())
