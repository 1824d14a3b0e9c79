"""Spaces of exponents: legal vectors only, all of them, each once."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import nin64
from papertwin.nets.conditional import ExponentSpace, FilterSpace, GroupSpace

# conv2 … conv9 of NiN-64
NIN64 = [(64, 192), (192, 160), (160, 96), (96, 192), (192, 192), (192, 192), (192, 192), (192, 192)]
spaces = st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=1, max_size=3).map(
    lambda lists: ExponentSpace([sorted(layer) for layer in lists])
)


def every(space):
    return list(itertools.product(*space.allowed))


@given(spaces)
def test_numbers_name_all_vectors(space):
    assert [space.at(k) for k in range(space.size)] == every(space)
    assert all(vector in space and list(vector) in space for vector in every(space))


@given(spaces, st.integers(0, 10**6), st.data())
def test_samples_are_different_legal_and_new(space, seed, data):
    without = data.draw(st.lists(st.sampled_from(every(space)), unique=True))
    count = data.draw(st.integers(0, space.size - len(without)))
    found = space.sample(count, seed, without)
    assert len(found) == len(set(found)) == count
    assert set(found) <= set(every(space)) - set(without)
    assert found == space.sample(count, seed, without)
    with pytest.raises(InputError, match="vectors that are left"):
        space.sample(space.size - len(without) + 1, seed, without)


def test_few_of_many_are_different_too():
    space = ExponentSpace([range(6)] * 3)
    without = space.sample(10, 0)
    for seed in range(20):
        assert len({*without, *space.sample(44, seed, without)}) == 54  # a quarter, drawn one by one


def test_samples_are_uniform_in_both_ways_of_drawing():
    small = ExponentSpace([(0, 1, 2), (0, 3)])
    large = ExponentSpace([(0, 1, 2), (0, 3), range(30)])
    rng = np.random.default_rng(0)
    for space in (small, large):
        drawn = [vector[:2] for _ in range(1200) for vector in space.sample(2, rng)]
        counts = [drawn.count(vector) for vector in every(small)]
        assert sum(counts) == 2400
        assert 320 < min(counts) <= max(counts) < 480


def test_what_does_not_belong_to_a_space():
    space = ExponentSpace([(0, 1), (0, 2)])
    for vector in ((0, 1), (0,), (0, 0, 0), (2, 2), (0.5, 0)):
        assert vector not in space
    assert space.sample(4, 0, without=[(7, 7)]) != []  # a stranger takes nothing away


@given(spaces)
def test_neighbours_are_one_step_away(space):
    for vector in every(space)[:20]:
        steps = [[layer.index(e) for e, layer in zip(v, space.allowed)] for v in (vector, *every(space))]
        due = [v for v, at in zip(every(space), steps[1:]) if np.abs(np.subtract(at, steps[0])).sum() == 1]
        assert sorted(space.neighbours(vector)) == due


def test_points_of_the_unit_cube():
    space = ExponentSpace([(1, 2, 5), (3,)])
    np.testing.assert_allclose(space.unit([(1, 3), (2, 3), (5, 3)]), [[0, 0], [0.25, 0], [1, 0]])
    assert space.unit([]).shape == (0, 2)


@given(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4), st.integers(1, 40))
@settings(deadline=None)
def test_groups_divide_both_sides_of_a_layer(channels, largest):
    space = GroupSpace(channels, largest=largest)
    for (c_in, c_out), layer in zip(channels, space.allowed):
        due = [e for e in range(8) if c_in % 2**e == 0 and c_out % 2**e == 0 and 2**e <= largest]
        assert list(layer) == due
    vector = space.sample(1, 0)[0]
    for groups, (c_in, c_out) in zip(space.groups(vector), channels):
        assert math.gcd(c_in, c_out) % groups == 0


def test_the_published_search_space():
    space = GroupSpace(NIN64, largest=32)
    assert space.size == 6**8
    assert space.groups((5, 3, 5, 5, 3, 0, 5, 0)) == (32, 8, 32, 32, 8, 1, 32, 1)
    assert GroupSpace(NIN64).allowed[0] == (0, 1, 2, 3, 4, 5, 6)
    mixed = GroupSpace(NIN64[:3], largest=[16, 8, 1])
    assert mixed.allowed == (tuple(range(5)), tuple(range(4)), (0,))


def test_filters_are_halved_and_rounded():
    space = FilterSpace([192, 10, 1])
    assert space.allowed == ((0, 1, 2, 3, 4),) * 3
    assert space.filters((4, 2, 3)) == (12, 2, 1)
    assert space.filters((0, 0, 0)) == (192, 10, 1)
    for vector in space.sample(30, 0):
        due = [max(1, round(width / 2**e)) for width, e in zip(space.widths, vector)]
        assert list(space.filters(vector)) == due


@pytest.mark.parametrize("width", [0.25, 0.3, 1.0])
def test_networks_are_built_as_the_space_says(width):
    def built(**options):
        with torch.device("meta"):
            model = nin64(width=width, seed=0, **options)
        return tuple(layer.out_channels for layer in model if isinstance(layer, nn.Conv2d))[:-1]

    space = FilterSpace(built())
    for vector in space.sample(50, 0):
        assert built(divisors=[2**e for e in vector]) == space.filters(vector)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ExponentSpace([]),
        lambda: ExponentSpace([[0], []]),
        lambda: ExponentSpace([[0, 0]]),
        lambda: ExponentSpace([[-1]]),
        lambda: ExponentSpace([[0.5]]),
        lambda: ExponentSpace([[0, 1]]).sample(-1, 0),
        lambda: GroupSpace([(64, 0)]),
        lambda: GroupSpace([(64, 2.0)]),
        lambda: GroupSpace([(64, 64)], largest=0),
        lambda: GroupSpace([(64, 64)], largest=[2, 2]),
        lambda: GroupSpace([(64, 64)]).groups((7,)),
        lambda: FilterSpace([0]),
        lambda: FilterSpace([4], halvings=-1),
        lambda: FilterSpace([4]).filters((5,)),
        lambda: FilterSpace([]),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match=r"got|expected"):
        call()


def test_illegal_groups_are_named():
    with pytest.raises(InputError, match=r"Layer 1 has 160 → 96 channels, which 2\^6 groups .*up to 5"):
        GroupSpace([(64, 64), (160, 96)], [[0, 6], [0, 6]])
    assert GroupSpace([(64, 64), (160, 96)], [[6, 0], [5]]).allowed == ((0, 6), (5,))
    for arguments in ({"exponents": [[0]], "largest": 2}, {"exponents": [[0], [0]]}):
        with pytest.raises(InputError, match="not both"):
            GroupSpace([(64, 64)], **arguments)
