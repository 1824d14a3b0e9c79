"""Masks have the counts that they should, every choice of inputs is as likely, and the right layers are masked."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.masks import (
    active_share,
    constant_fan_in_mask,
    fan_ins,
    has_constant_fan_in,
    largest,
    last_layer,
    random_mask,
    sparse_layers,
)

SHAPES = st.one_of(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@given(shape=SHAPES, seed=st.integers(0, 10**6), data=st.data())
@settings(deadline=None)
def test_every_neuron_has_its_fan_in(shape, seed, data):
    fan_in = data.draw(st.integers(0, int(np.prod(shape[1:]))))
    mask = constant_fan_in_mask(shape, fan_in, generator(seed))
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert [int(np.count_nonzero(row)) for row in mask.numpy()] == [fan_in] * shape[0]
    assert torch.equal(mask, constant_fan_in_mask(shape, fan_in, generator(seed)))


@given(shape=SHAPES, seed=st.integers(0, 10**6), data=st.data())
@settings(deadline=None)
def test_random_masks_have_their_count(shape, seed, data):
    nonzero = data.draw(st.integers(0, int(np.prod(shape))))
    mask = random_mask(shape, nonzero, generator(seed))
    assert mask.shape == shape
    assert mask.dtype == torch.bool
    assert np.count_nonzero(mask.numpy()) == nonzero
    assert torch.equal(mask, random_mask(shape, nonzero, generator(seed)))


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: constant_fan_in_mask((3000, 5), 2, g),
        lambda g: torch.cat([random_mask((1, 5), 2, g) for _ in range(3000)]),
    ],
    ids=["constant fan-in", "random"],
)
def test_every_choice_of_inputs_is_as_likely(draw):
    """Ten pairs of five inputs; χ² with 9 degrees of freedom stays below 27.9 in 999 of 1000 cases."""
    found = Counter(tuple(np.flatnonzero(row)) for row in draw(generator(0)).numpy())
    assert set(found) == set(itertools.combinations(range(5), 2))
    assert sum((count - 300) ** 2 / 300 for count in found.values()) < 27.9


def test_draws_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    first = generator(0)
    masks = [constant_fan_in_mask((9, 9), 3, first) for _ in range(2)]
    masks += [random_mask((9, 9), 27, first) for _ in range(2)]
    assert torch.equal(before, torch.get_rng_state())
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(masks, 2))


@given(shape=SHAPES, seed=st.integers(0, 10**6), values=st.sampled_from([2, 5, 10**6]), data=st.data())
@settings(deadline=None)
def test_the_largest_of_each_row_are_those_of_a_sorted_one(shape, seed, values, data):
    """And where some are equal, those that `topk` chooses, whose order is asked for."""
    numbers = torch.randint(0, values, shape, generator=generator(seed)).float()
    count = data.draw(st.integers(0, shape[-1]))
    mask = largest(numbers, count)
    assert torch.equal(mask, torch.zeros(shape).bool().scatter_(-1, numbers.topk(count).indices, True))
    for row, chosen in zip(numbers.flatten(0, -2).tolist(), mask.flatten(0, -2).tolist()):
        assert sorted(itertools.compress(row, chosen)) == sorted(row)[len(row) - count :]


def test_counts_of_a_mask():
    rows = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0]]).bool()
    for mask in (rows, rows.view(3, 1, 2, 2)):
        assert fan_ins(mask).tolist() == [2, 0, 2]
        assert has_constant_fan_in(mask)
    rows[2, 0] = True
    assert fan_ins(rows).tolist() == [2, 0, 3]
    assert not has_constant_fan_in(rows)
    assert has_constant_fan_in(torch.zeros(3, 2).bool())


def test_active_neurons_are_those_of_all_hidden_layers_together():
    """The last layer counts neither where it has a mask nor where it has none; the order of masks does not matter."""
    masks = {"head": torch.ones(5, 4).bool(), "a": torch.eye(4, 3).bool(), "b": torch.zeros(6, 1, 2, 2).bool()}
    assert active_share(masks, "head") == pytest.approx(3 / 10)
    del masks["head"]
    assert active_share(masks, "head") == pytest.approx(3 / 10)
    assert active_share({"head": torch.zeros(5, 4).bool()}, "head") == active_share({}, "head") == 1


def test_the_last_layer_is_the_last_that_has_weights_to_mask():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Softmax(1))
    assert last_layer(model) == "1.0"
    assert last_layer(nn.Linear(2, 3)) == ""
    with pytest.raises(InputError, match="no linear layer or convolution"):
        last_layer(nn.Sequential(nn.ReLU()))


def test_linear_layers_and_convolutions_in_their_order():
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), nn.Sequential(nn.Flatten(), nn.Linear(8, 6)), nn.Linear(6, 2)
    )
    assert list(sparse_layers(model)) == ["0", "2.1", "3"]
    assert sparse_layers(model)["2.1"] is model[2][1]
    assert list(sparse_layers(model, dense=["2.1"])) == ["0", "3"]
    assert list(sparse_layers(model, dense=(name for name in ("0", "3")))) == ["2.1"]
    assert list(sparse_layers(nn.Linear(3, 2))) == [""]
    mask = constant_fan_in_mask(model[0].weight.shape, 5, generator(0))
    assert mask.shape == (8, 2, 3, 3)
    assert fan_ins(mask).tolist() == [5] * 8


def shared():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def test_layers_that_share_weights_stay_dense_together():
    assert list(sparse_layers(shared(), dense=["0", "2"])) == ["1"]
    for dense in ([], ["0"], ["2"]):  # a mask on one would be a mask on both
        with pytest.raises(InputError, match="share"):
            sparse_layers(shared(), dense=dense)


def test_weights_that_belong_to_another_kind_of_module_too_are_not_masked():
    """Embeddings that are the transposed last layer: a mask would zero them as well."""
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False))
    model[2].weight = model[0].weight
    with pytest.raises(InputError, match=r"Weights of 2 are shared .* `dense`"):
        sparse_layers(model)
    assert list(sparse_layers(model, dense=["2"])) == ["1"]


def test_a_layer_that_runs_twice_is_one_layer():
    layer = nn.Linear(4, 4)
    assert list(sparse_layers(nn.Sequential(layer, nn.ReLU(), layer))) == ["0"]


def test_layers_that_are_not_there():
    with pytest.raises(InputError, match=r"dense names 1, nine; the model has the layers 0, 2"):
        sparse_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), dense=["nine", "1"])
    with pytest.raises(InputError, match="no linear layer or convolution"):
        sparse_layers(nn.Sequential(nn.ReLU()))
    with pytest.raises(InputError, match="no linear layer or convolution"):
        sparse_layers(nn.Sequential(nn.Linear(2, 2)), dense=["0"])


@pytest.mark.parametrize("count", [-1, 7, 2.0, True, "2"])
def test_counts_that_cannot_be(count):
    with pytest.raises(InputError, match="nonzero must be a whole number from 0 to 6, got"):
        random_mask((2, 3), count, generator(0))
    with pytest.raises(InputError, match=r"fan_in must be a whole number from 0 to 3, got"):
        constant_fan_in_mask((2, 3), count, generator(0))
