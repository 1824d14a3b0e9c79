"""Factors of neurons against the quotient of roots, and the skew itself, measured in a network with normalisation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.masks import constant_fan_in_mask, random_mask
from papertwin.sparse.skew import corrections, gradient_skew

SHARES = [0.5, 0.8, 0.9, 0.95]


def rows(*fan_ins, width=20):
    """A mask whose neurons have these fan-ins."""
    return torch.arange(width) < torch.tensor(fan_ins)[:, None]


@pytest.mark.parametrize("mean", ["all", "active"])
def test_equal_fan_ins_give_exactly_one(mean):
    """Also 1 - (1 - s), of which the quotient of roots makes something else; dense layers are a case of it."""
    for number in range(1, 70):
        for width in (1, 3, 10, 49, 784):
            for fan_in in {1, width // 3, width - 1, width} - {0}:
                mask = rows(*[fan_in] * number, width=width)
                assert (corrections(mask, mean) == 1).all()


@given(st.lists(st.integers(0, 36), min_size=1, max_size=30).filter(any))
def test_factors_are_the_quotient_of_roots(fan_ins):
    share = 1 - np.array(fan_ins) / 36
    wanted = np.sqrt(1 - share) / np.sqrt(1 - share.mean())
    mask = rows(*fan_ins, width=36)
    assert corrections(mask).dtype == torch.float64
    assert corrections(mask).numpy() == pytest.approx(wanted, rel=1e-9)
    assert float(corrections(mask).square().sum()) == pytest.approx(len(fan_ins), rel=1e-12)
    active = corrections(mask, "active")
    assert active.numpy() == pytest.approx(wanted * math.sqrt(np.count_nonzero(fan_ins) / len(fan_ins)), rel=1e-9)
    assert float(active.square().sum()) == pytest.approx(np.count_nonzero(fan_ins), rel=1e-12)
    assert torch.equal(active == 0, ~mask.any(1))


def test_ablated_neurons_count_for_the_mean_or_not():
    assert corrections(rows(4, 0, 4, 0)).tolist() == [math.sqrt(2), 0, math.sqrt(2), 0]
    assert corrections(rows(4, 0, 4, 0), "active").tolist() == [1, 0, 1, 0]
    assert corrections(rows(1, 0, 9)).tolist() == pytest.approx([math.sqrt(0.3), 0, math.sqrt(2.7)])
    assert corrections(rows(1, 0, 9), "active").tolist() == pytest.approx([math.sqrt(0.2), 0, math.sqrt(1.8)])


@pytest.mark.parametrize("mean", ["all", "active"])
@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (4, 2, 3, 3)])
def test_layers_that_have_nothing_left(mean, shape):
    assert corrections(torch.zeros(shape).bool(), mean).tolist() == [0] * shape[0]


@pytest.mark.parametrize("mean", ["all", "active"])
def test_neurons_of_convolutions_are_filters(mean):
    mask = random_mask((8, 4, 3, 3), 60, torch.Generator().manual_seed(0))
    factors = corrections(mask, mean)
    assert factors.shape == (8,)
    assert torch.equal(factors, corrections(mask.reshape(8, 36), mean))
    assert torch.equal(factors, corrections(mask.contiguous(memory_format=torch.channels_last), mean))
    assert torch.equal(gradient_skew(mask), gradient_skew(mask.reshape(8, 36)))
    fan_ins = mask.flatten(1).sum(1).double()
    assert torch.allclose(factors, (fan_ins / fan_ins.mean()).sqrt())


def test_skew_of_neurons():
    skew = gradient_skew(rows(100, 50, 10, 5, 0, width=100))
    assert skew.dtype == torch.float64
    assert skew.tolist() == pytest.approx([1, 1.414214, 3.162278, 4.472136, math.inf], rel=1e-6)
    assert gradient_skew(torch.ones(2, 3, 3, 3).bool()).tolist() == [1, 1]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12))
def test_factors_undo_the_skew(fan_ins):
    """What they leave is the same for every neuron: 1/√(1 - s̄)."""
    left = corrections(rows(*fan_ins)) * gradient_skew(rows(*fan_ins))
    assert left.tolist() == pytest.approx([math.sqrt(20 / np.mean(fan_ins))] * len(fan_ins))


def test_means_that_are_none():
    with pytest.raises(InputError, match="mean must be all or active, got 'median'"):
        corrections(rows(1, 2), "median")


def first_gradient(weight, rest, inputs, classes, norm):
    """Gradient of the first layer of a multi-layer perceptron."""
    weight = weight.clone().requires_grad_()
    hidden = inputs @ weight.T
    hidden = nn.functional.batch_norm(hidden, None, None, training=True, eps=1e-12) if norm else hidden
    nn.functional.cross_entropy(hidden.relu() @ rest.T, classes).backward()
    return weight.grad


def measured(share, norm, rescaled=False, seeds=6, width=400, hidden=60):
    """Mean |gradient| of the active weights over that of the dense network; the dense weights are masked."""
    ratios = []
    for seed in range(seeds):
        rng = torch.Generator().manual_seed(seed)
        weight = torch.randn(hidden, width, generator=rng, dtype=torch.float64) * math.sqrt(2 / width)
        rest = torch.randn(10, hidden, generator=rng, dtype=torch.float64) * math.sqrt(1 / hidden)
        inputs = torch.randn(256, width, generator=rng, dtype=torch.float64)
        data = (rest, inputs, torch.randint(0, 10, (256,), generator=rng), norm)
        mask = constant_fan_in_mask(weight.shape, round((1 - share) * width), rng)
        sparse = weight * mask / (math.sqrt(1 - share) if rescaled else 1)
        dense = first_gradient(weight, *data).abs().mean()
        ratios.append(float(first_gradient(sparse, *data)[mask].abs().mean() / dense))
    return float(np.mean(ratios))


@pytest.mark.parametrize("share", SHARES)
def test_normalisation_enlarges_gradients_of_sparse_neurons(share):
    """The paper's first claim: by 1/√(1 - s) with normalisation, and not without it."""
    assert measured(share, norm=True) == pytest.approx(1 / math.sqrt(1 - share), rel=0.03)
    assert measured(share, norm=False) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("share", SHARES)
def test_weights_that_know_their_fan_in_bring_no_skew(share):
    """It comes from the smaller variance of what a masked neuron sums: rescaled weights have none."""
    assert measured(share, norm=True, rescaled=True) == pytest.approx(1, abs=0.03)


def test_neurons_of_one_layer_are_skewed_each_by_its_own_fan_in():
    """And what is left after the correction is the same for all."""
    raw, corrected = np.zeros(3), np.zeros(3)
    mask = rows(*[20] * 30, *[80] * 30, *[400] * 30, width=400)
    for seed in range(6):
        rng = torch.Generator().manual_seed(seed)
        shapes = ((90, 400), (10, 90), (512, 400))
        weight, rest, inputs = (torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes)
        classes = torch.randint(0, 10, (512,), generator=rng)
        gradient = first_gradient(weight.sign() * mask, rest.sign() / 9, inputs, classes, norm=True)
        for sums, each in ((raw, gradient), (corrected, gradient * corrections(mask)[:, None])):
            sums += [float(each[part][mask[part]].abs().mean()) for part in torch.arange(90).split(30)]
    assert raw / raw[2] == pytest.approx([math.sqrt(20), math.sqrt(5), 1], rel=0.05)
    assert corrected / corrected[2] == pytest.approx(1, rel=0.05)
