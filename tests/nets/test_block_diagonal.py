"""Block structure by brute force; none in equal or permuted matrices, all of it in block-diagonal ones."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag

from papertwin.errors import InputError
from papertwin.nets.block_diagonal import block_diagonal, group_of, share_inside


def blocks(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return block_diag(*(rng.uniform(0.5, 1, shape) * rng.choice([-1, 1], shape) for shape in shapes))


@given(groups=st.integers(2, 6), rows=st.integers(1, 4), columns=st.integers(1, 4), seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_block_diagonal_matrices_have_all_of_it(groups, rows, columns, seed):
    found = block_diagonal(blocks([(rows, columns)] * groups, seed), groups, draws=20, seed=seed)
    assert found.share == pytest.approx(1)
    assert found.chance == pytest.approx(1 / groups)
    assert found.contrast == pytest.approx(1)
    assert (found.random <= found.share + 1e-12).all()


@pytest.mark.parametrize(("shape", "groups"), [((6, 4), 2), ((192, 96), 16), ((7, 5), 3)])
def test_equal_entries_have_none(shape, groups):
    found = block_diagonal(np.full(shape, -0.3), groups)
    assert found.share == pytest.approx(found.chance)
    assert found.contrast == pytest.approx(0, abs=1e-12)
    assert found.p_value == 1


@given(rows=st.integers(1, 7), columns=st.integers(1, 7), seed=st.integers(0, 10**6), data=st.data())
@settings(deadline=None)
def test_the_share_by_brute_force(rows, columns, seed, data):
    groups = data.draw(st.integers(1, min(rows, columns)))
    matrix = np.random.default_rng(seed).normal(size=(rows, columns))
    inside = [(i, j) for i in range(rows) for j in range(columns) if i * groups // rows == j * groups // columns]
    found = block_diagonal(matrix, groups, draws=3)
    assert found.share == pytest.approx(sum(matrix[i, j] ** 2 for i, j in inside) / (matrix**2).sum())
    assert found.chance == pytest.approx(len(inside) / (rows * columns))
    assert block_diagonal(-5 * matrix, groups, draws=3).share == pytest.approx(found.share)
    assert block_diagonal(matrix.T, groups, draws=3).share == pytest.approx(found.share)


def test_groups_are_those_of_a_convolution():
    assert group_of(6, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert group_of(5, 2).tolist() == [0, 0, 0, 1, 1]
    assert group_of(4, 4).tolist() == [0, 1, 2, 3]


def test_random_shares_are_those_of_permuted_columns():
    """Of all 24 orders of four columns, each share occurs, none other, and the mean is that of all."""
    matrix = np.random.default_rng(0).normal(size=(6, 4))
    every = [block_diagonal(matrix[:, list(order)], 2, draws=0).share for order in itertools.permutations(range(4))]
    found = block_diagonal(matrix, 2, draws=3000, seed=1)
    assert set(found.random.round(9)) == set(np.round(every, 9))
    assert (np.diff(found.random) >= 0).all()
    assert np.mean(every) == pytest.approx(found.chance)  # the blocks are equal
    assert found.random.mean() == pytest.approx(np.mean(every), abs=4 * np.std(every) / math.sqrt(3000))
    low, high = found.quantiles(0.25, 0.75)
    assert low == np.quantile(found.random, 0.25) < high == np.quantile(found.random, 0.75)
    assert found.p_value == pytest.approx(np.mean(np.array(every) >= found.share - 1e-12), abs=0.05)


def test_structure_is_significant_and_noise_is_not():
    noise = np.random.default_rng(0).normal(size=(24, 24))
    clear = block_diagonal(noise * 0.3 + blocks([(6, 6)] * 4), 4, draws=199)
    assert clear.p_value == pytest.approx(1 / 200)
    assert 0 < clear.contrast < 1
    assert clear.share > clear.quantiles()[1]
    ranks = [block_diagonal(np.random.default_rng(s).normal(size=(24, 24)), 4, draws=99).p_value for s in range(30)]
    assert 0.3 < np.mean(ranks) < 0.7


def test_structure_may_be_less_than_chance():
    assert block_diagonal(1 - np.eye(2), 2, draws=0).contrast == pytest.approx(-1)


def test_a_seed_gives_one_answer():
    matrix = np.random.default_rng(0).normal(size=(8, 8))
    first, same, other = (block_diagonal(matrix, 4, draws=50, seed=seed).random for seed in (3, 3, 4))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_one_group_has_no_outside_and_no_draws_no_quantiles():
    found = block_diagonal(np.ones((3, 2)), 1, draws=0)
    assert (found.share, found.chance, found.p_value) == (1, 1, 1)
    assert math.isnan(found.contrast)
    assert all(map(math.isnan, found.quantiles()))


def test_any_groups_of_rows_and_columns():
    squares = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert share_inside(squares, np.array([1, 0]), np.array([0, 1, 0])) == pytest.approx((2 + 4 + 6) / 21)


@pytest.mark.parametrize(
    "call",
    [
        lambda: block_diagonal(np.ones(3), 1),
        lambda: block_diagonal(np.ones((0, 3)), 1),
        lambda: block_diagonal([[np.nan]], 1),
        lambda: block_diagonal([[np.inf]], 1),
        lambda: block_diagonal(np.zeros((2, 2)), 2),
        lambda: block_diagonal(np.ones((3, 2)), 3),
        lambda: block_diagonal(np.ones((3, 2)), 0),
        lambda: block_diagonal(np.ones((3, 2)), 2.0),
        lambda: block_diagonal(np.ones((3, 2)), 2, draws=-1),
        lambda: block_diagonal(np.ones((3, 2)), 2, seed=-1),
        lambda: block_diagonal(np.ones((3, 2)), 2).quantiles(0.9, 0.1),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match="got"):
        call()
