"""SET, RigL and SRigL against loops over single weights, and what holds for any weights, gradients and counts."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.sparse.growing import rigl_mask, set_mask, srigl_mask


def entries(mask):
    return [(i, j) for i in range(len(mask)) for j in range(len(mask[0]))]


def largest(places, values, count):
    """The places of the largest absolute values."""
    return sorted(places, key=lambda place: -abs(values[place[0]][place[1]]))[:count]


def slow_rigl(weight, gradient, mask, count):
    active = [(i, j) for i, j in entries(mask) if mask[i][j]]
    kept = largest(active, weight, len(active) - count)
    return set(kept) | set(largest([place for place in entries(mask) if place not in kept], gradient, count))


def slow_srigl(weight, gradient, mask, budget, count, gamma):
    """Return places of active weights, fan-in, threshold and active neurons, step by step as the method says."""
    neurons, dense_fan_in = len(mask), len(mask[0])
    n1 = sum(map(sum, mask))
    nonzero = [(i, j) for i, j in entries(mask) if mask[i][j] and weight[i][j] != 0]
    keep = min(n1 - count, len(nonzero))
    salient = set(largest(nonzero, weight, keep)) | set(largest(entries(mask), gradient, n1 - keep))
    counts = [sum(i == neuron for i, _ in salient) for neuron in range(neurons)]
    threshold = max(1, math.floor(gamma * (budget // neurons)))
    threshold = min(threshold, sorted(counts, reverse=True)[budget // dense_fan_in])
    if gamma == 0:
        threshold = 0
    active = [neuron for neuron in range(neurons) if counts[neuron] >= threshold]
    fan_in = budget // len(active)
    kept = largest([(i, j) for i, j in nonzero if i in active], weight, keep)
    chosen = set()
    for neuron in active:
        own = largest([place for place in kept if place[0] == neuron], weight, fan_in)
        others = [(neuron, j) for j in range(dense_fan_in) if (neuron, j) not in own]
        chosen |= set(own) | set(largest(others, gradient, fan_in - len(own)))
    return chosen, fan_in, threshold, active


def places_of(mask):
    return {(int(i), int(j)) for i, j in mask.flatten(1).nonzero()}


@st.composite
def layers(draw, structured=False, ties=False):
    """A layer in the midst of training: some active weights are still 0, some neurons have none."""
    shape = draw(
        st.one_of(
            st.tuples(st.integers(1, 9), st.integers(2, 16)),
            st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.integers(2, 3)),
        )
    )
    neurons, inputs = shape[0], math.prod(shape[1:])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    budget = draw(st.integers(neurons, neurons * inputs - 1))
    if structured:
        active = draw(st.integers(budget // inputs + 1, neurons))
        counts = rng.permutation([budget // active] * active + [0] * (neurons - active))
        mask = np.stack([rng.permutation(np.arange(inputs) < count) for count in counts])
    else:
        mask = rng.permutation(np.arange(neurons * inputs) < budget).reshape(neurons, inputs)
    scale = 10.0 ** draw(st.integers(-12, 12))
    weight, gradient = rng.normal(size=(2, neurons, inputs)) * scale * np.exp(rng.normal(size=(2, neurons, 1)) * 2)
    if ties:
        weight, gradient = np.sign(weight), np.sign(gradient) * draw(st.integers(0, 1))
    weight = weight * mask * (rng.random(mask.shape) < draw(st.sampled_from([1, 0.8, 0])))
    count = draw(st.integers(0, int(mask.sum())))
    return *(torch.tensor(each).view(shape) for each in (weight, gradient, mask)), budget, count


@given(layer=layers())
@settings(deadline=None)
def test_rigl_by_a_loop(layer):
    weight, gradient, mask, _, count = layer
    weight = torch.where(weight == 0, 1e-30 * gradient.flip(0), weight) * mask  # no ties
    found = rigl_mask(weight, gradient, mask, count)
    assert found.shape == mask.shape
    assert found.dtype == torch.bool
    slow = (each.flatten(1).tolist() for each in (weight, gradient, mask))
    assert places_of(found) == slow_rigl(*slow, count)


@given(layer=layers(), seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_set_by_a_loop(layer, seed):
    """It is RigL with random numbers in place of gradients."""
    weight, gradient, mask, _, count = layer
    weight = torch.where(weight == 0, 1e-30 * gradient.flip(0), weight) * mask
    found = set_mask(weight, mask, count, torch.Generator().manual_seed(seed))
    draw = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed))
    slow = (each.flatten(1).tolist() for each in (weight, draw, mask))
    assert places_of(found) == slow_rigl(*slow, count)
    assert found.sum() == mask.sum()


@given(layer=layers(structured=True), gamma=st.integers(0, 100))
@settings(deadline=None, max_examples=300)
def test_srigl_by_a_loop(layer, gamma):
    weight, gradient, mask, budget, count = layer
    found = srigl_mask(weight, gradient, mask, budget=budget, count=count, gamma=gamma / 100)
    slow = (each.flatten(1).tolist() for each in (weight, gradient, mask))
    places, fan_in, threshold, active = slow_srigl(*slow, budget, count, Fraction(gamma, 100))
    assert places_of(found.mask) == places
    assert (found.fan_in, found.least) == (fan_in, threshold)
    assert found.active.nonzero().flatten().tolist() == active
    assert found.mask.shape == mask.shape


@given(layer=layers(), gamma=st.integers(0, 100))
@settings(deadline=None)
def test_srigl_by_a_loop_from_a_mask_without_structure(layer, gamma):
    weight, gradient, mask, budget, count = layer
    found = srigl_mask(weight, gradient, mask, budget=budget, count=count, gamma=gamma / 100)
    slow = (each.flatten(1).tolist() for each in (weight, gradient, mask))
    assert places_of(found.mask) == slow_srigl(*slow, budget, count, Fraction(gamma, 100))[0]


@given(layer=st.one_of(layers(structured=True), layers(structured=True, ties=True)), gamma=st.integers(0, 100))
@settings(deadline=None, max_examples=300)
def test_the_structure_holds_for_any_weights(layer, gamma):
    """Also where all gradients are 0, all weights are equal, all are new, or none is dropped."""
    weight, gradient, mask, budget, count = layer
    neurons, inputs = mask.flatten(1).shape
    found = srigl_mask(weight, gradient, mask, budget=budget, count=count, gamma=gamma / 100)
    counts = found.mask.flatten(1).sum(1)
    active = int(found.active.sum())
    assert counts.tolist() == [found.fan_in if each else 0 for each in found.active]
    assert 1 <= found.fan_in <= inputs
    assert 0 <= budget - int(found.mask.sum()) < active
    assert budget // inputs + 1 <= active <= neurons
    if gamma == 0:
        assert active == neurons


@given(layer=layers(ties=True), seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_counts_stay_for_any_weights(layer, seed):
    weight, gradient, mask, _, count = layer
    for found in (
        rigl_mask(weight, gradient, mask, count),
        set_mask(weight, mask, count, torch.Generator().manual_seed(seed)),
    ):
        assert found.sum() == mask.sum()
        assert (found & mask).sum() >= mask.sum() - count


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_new_weights_are_active_and_first_to_be_dropped():
    mask = rows([1, 1, 1, 0, 0]).bool()
    weight, gradient = rows([0.1, 0, -0.2, 0, 0]), rows([0, 0, 0, 1, 2])
    for new in (rigl_mask(weight, gradient, mask, 1), srigl_mask(weight, gradient, mask, budget=3, count=1).mask):
        assert new.tolist() == [[True, False, True, False, True]]
    assert rigl_mask(weight, gradient, mask, 0).equal(mask)
    # SRigL keeps only weights that have moved: the new one makes room even if none is to be dropped
    assert srigl_mask(weight, gradient, mask, budget=3, count=0).mask.tolist() == [[True, False, True, False, True]]


def test_just_dropped_weights_may_grow_again():
    weight, mask = rows([3, 1, 2, 0]), rows([1, 1, 1, 0]).bool()
    gradient = rows([0, 9, 0, 5])
    assert rigl_mask(weight, gradient, mask, 1).equal(mask)
    assert srigl_mask(weight, gradient, mask, budget=3, count=1).mask.equal(mask)


def test_signs_do_not_matter():
    weight, mask, gradient = rows([-3, 1, -2, 0, 0]), rows([1, 1, 1, 0, 0]).bool(), rows([0, 0, 0, 1, -4])
    for new in (rigl_mask(weight, gradient, mask, 1), srigl_mask(weight, gradient, mask, budget=3, count=1).mask):
        assert new.tolist() == [[True, False, True, False, True]]


def test_random_growth_is_uniform():
    """Of the 4 places that are not kept, each grows in half of the draws: 500 ± 5 · √250."""
    weight, mask = rows([5, 4, 1, 2, 0, 0]), rows([1, 1, 1, 1, 0, 0]).bool()
    generator = torch.Generator().manual_seed(0)
    total = sum(set_mask(weight, mask, 2, generator).int() for _ in range(1000))
    assert total[0, :2].tolist() == [1000, 1000]
    assert all(abs(count - 500) < 80 for count in total[0, 2:].tolist())


def test_neurons_that_matter_too_little_are_ablated_and_can_revive():
    mask = torch.ones(3, 4).bool()
    mask[:, 2:] = False
    weight = rows([5, 6, 0, 0], [7, 8, 0, 0], [0.1, 0.2, 0, 0])
    gradient = rows([0, 0, 3, 4], [0, 0, 5, 2], [0, 0, 0.1, 0])
    found = srigl_mask(weight, gradient, mask, budget=6, count=2, gamma=1.0)
    assert found.active.tolist() == [True, True, False]
    assert (found.fan_in, found.least) == (3, 2)
    assert found.mask.int().tolist() == [[1, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]]
    weight *= found.mask
    gradient[2] = rows([9, 8, 7, 6])  # now the layer wants the third neuron
    again = srigl_mask(weight, gradient, found.mask, budget=6, count=3, gamma=0.5)
    assert again.active.tolist() == [True, True, True]
    assert again.fan_in == 2
    assert again.mask.int().tolist() == [[0, 1, 0, 1], [1, 1, 0, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize(("gamma", "inputs", "least"), [(0.3, 10, 3), (0.29, 100, 29), (0.7, 10, 7), (0.01, 10, 1)])
def test_the_least_number_is_exact(gamma, inputs, least):
    """0.29 · 100 is 28.999… in floating point; `least` weights matter in the second neuron."""
    mask = torch.zeros(4, 5 * inputs).bool()
    mask[:, :inputs] = True
    weight = mask * (1e-3 + torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))).double()
    dropped = 0
    for row, matter in enumerate((inputs, least, least - 1, inputs)):
        weight[row, matter:inputs] *= 1e-6
        dropped += inputs - matter
    gradient = torch.zeros(mask.shape).double()
    gradient[0, :] = torch.arange(1, 5 * inputs + 1)
    gradient[0, :inputs] = 10**6 + torch.arange(inputs)
    assert dropped < 4 * inputs
    found = srigl_mask(weight, gradient, mask, budget=4 * inputs, count=dropped, gamma=gamma)
    assert found.least == least
    assert found.active.tolist() == [True, True, False, True]


def test_weights_of_ablated_neurons_take_no_place_of_others():
    """The 8 is among the four largest, but its neuron is ablated; so 0.1 is the fourth that stays."""
    mask = rows([1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]).bool()
    weight = rows([5, 6, 0, 0], [7, 0.1, 0, 0], [8, 0.05, 0, 0])
    gradient = rows([0, 0, 0, 1], [0, 0, 3, 4], [0, 0, 0, 0])
    found = srigl_mask(weight, gradient, mask, budget=6, count=2, gamma=1.0)
    assert found.mask.int().tolist() == [[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0]]


def test_no_more_neurons_are_ablated_than_the_budget_allows():
    """All that matters is in one neuron of 4 inputs, but the budget of 9 weights needs three of them."""
    mask, weight, gradient = torch.zeros(5, 4).bool(), torch.zeros(5, 4).double(), torch.zeros(5, 4).double()
    mask.view(-1)[:9] = True
    weight[0] = rows([1, 2, 3, 4])
    gradient[0] = rows([5, 6, 7, 8])
    gradient[1, 0] = 1
    found = srigl_mask(weight, gradient, mask, budget=9, count=2, gamma=1.0)
    assert found.least <= 1
    assert int(found.active.sum()) >= 3
    assert found.fan_in == 9 // int(found.active.sum())


def test_what_was_trimmed_is_the_smallest_of_any_size():
    """Sizes that differ by less than double precision resolves beside the largest of the layer."""
    mask = rows([1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]).bool()
    weight = rows([1e-20, 2e-20, 4e-20, 3e-20, 0, 0], [1, 2, 3, 0, 0, 0], [0, 0, 0, 0, 0, 0])
    gradient = rows([0] * 6, [0] * 6, [1e-30, 2e-30, 4e-30, 3e-30, 0, 0])
    found = srigl_mask(weight, gradient, mask, budget=7, count=0)
    assert found.fan_in == 2
    assert found.mask.int().tolist() == [[0, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0]]


def test_one_neuron_is_never_ablated():
    mask = rows([1, 1, 0, 0]).bool()
    found = srigl_mask(rows([1, 2, 0, 0]), rows([0, 0, 0, 0]), mask, budget=2, count=1, gamma=1.0)
    assert found.active.tolist() == [True]
    assert int(found.mask.sum()) == 2
    assert found.mask[0, 1]


def test_memory_formats_and_precisions_make_no_difference(device):
    rng = torch.Generator().manual_seed(0)
    weight, gradient = torch.randn(2, 6, 4, 3, 3, generator=rng).unbind()
    mask = torch.zeros(6, 4, 3, 3).bool()
    mask[:, :2] = True
    weight *= mask
    expected = srigl_mask(weight, gradient, mask, budget=110, count=30, gamma=0.5)
    moved = [each.to(device, memory_format=torch.channels_last) for each in (weight, gradient, mask)]
    found = srigl_mask(*moved, budget=110, count=30, gamma=0.5)
    assert torch.equal(found.mask.cpu(), expected.mask)
    assert torch.equal(rigl_mask(*moved, 30).cpu(), rigl_mask(weight, gradient, mask, 30))
    both = [set_mask(w, m, 30, torch.Generator().manual_seed(1)).cpu() for w, m in ((weight, mask), moved[::2])]
    assert torch.equal(*both)
    half = [weight.half(), gradient.half(), mask]
    assert srigl_mask(*half, budget=110, count=30, gamma=0.5).mask.flatten(1).sum() == expected.mask.sum()
