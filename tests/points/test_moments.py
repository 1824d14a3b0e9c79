"""The sums behind the normals: the tree's invariants, and results that do not depend on the threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.points import difference_of_normals, kernels, normals
from papertwin.points.tree import build_tree
from papertwin.training.device import set_threads


@pytest.fixture
def threads():
    """`set_threads`, undone afterwards."""
    yield set_threads
    set_threads(None)


@given(seed=st.integers(0, 1000), count=st.integers(1, 700), digits=st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_tree_invariants(seed, count, digits):
    """Every point once, boxes tight, moments those of the points: also with many duplicates (few digits)."""
    points = np.round(np.random.default_rng(seed).standard_normal((count, 3)), digits)
    tree = build_tree(points)
    assert np.array_equal(np.sort(tree.order), np.arange(count))
    inner = np.c_[tree.x, tree.y, tree.z]
    assert np.array_equal(inner[:count], points[tree.order])
    assert (inner[count:] == kernels.PAD).all()
    for node, (first, leaves) in enumerate(tree.leaf):
        part = inner[first * kernels.LEAF : min(count, (first + leaves) * kernels.LEAF)]
        assert np.array_equal(tree.box[node], np.r_[part.min(axis=0), part.max(axis=0)])
        d = part - 0.5 * (tree.box[node, :3] + tree.box[node, 3:])
        expected = [len(part), *d.sum(axis=0), *(d * d).sum(axis=0)]
        expected += [(d[:, i] * d[:, k]).sum() for i, k in ((0, 1), (0, 2), (1, 2))]
        assert np.allclose(tree.moments[node], expected, atol=1e-9)


def test_groups_cover_every_leaf_once(rng):
    tree = build_tree(rng.random((5000, 3)))
    first, leaves = tree.leaf[tree.groups()].T
    assert leaves.max() <= kernels.GROUP
    assert np.array_equal(
        np.concatenate([np.arange(f, f + m) for f, m in zip(first, leaves)]), np.arange(-(-5000 // kernels.LEAF))
    )


@pytest.mark.parametrize("count", [1, 5, 700, 30_000])
def test_same_bits_with_any_number_of_threads(rng, threads, count):
    points = rng.random((count, 3)) * (30.0, 30.0, 2.0)
    results = []
    for number in (1, 2, 3, 8):
        threads(number)
        found = normals(points, 0.9)
        results.append((found.vectors, found.counts, found.gap, difference_of_normals(points, 0.4, 2.0)))
    for other in results[1:]:
        for one, two in zip(results[0], other):
            assert np.array_equal(one, two)


def test_more_boundary_leaves_than_one_batch(rng, reference, between):
    """A shell of points all near the boundary of each other's balls fills several batches."""
    directions = rng.standard_normal((16_000, 3))
    shell = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    radius = 1.9
    found = normals(shell, radius)
    chosen = np.arange(0, len(shell), 2000)
    vectors, counts, spectrum = reference(shell, radius, shell[chosen])
    assert len(shell) / kernels.LEAF > kernels.BATCH
    assert np.array_equal(found.counts[chosen], counts)
    well = spectrum[:, 1] - spectrum[:, 0] > 0.01 * spectrum[:, 2]
    assert between(found.vectors[chosen], vectors)[well].max() < 1e-6


@given(seed=st.integers(0, 1000), rank=st.integers(1, 3), spread=st.floats(-8.0, 0.0))
@settings(max_examples=40, deadline=None)
def test_eigenvectors_against_lapack(seed, rank, spread):
    """Nearly flat, nearly straight and round clouds: the axis is an eigenvector of the least variance."""
    rng = np.random.default_rng(seed)
    scales = np.array([1.0, 10.0**spread if rank < 2 else 0.7, 10.0**spread if rank < 3 else 0.5])
    points = rng.standard_normal((60, 3)) * scales
    found = normals(points, 100.0)
    covariance = np.cov(points.T, bias=True)
    low, middle, high = np.linalg.eigvalsh(covariance)
    if middle <= 1e-10 * high:
        assert found.degenerate.all()
        return
    rayleigh = np.einsum("ij,jk,ik->i", found.vectors, covariance, found.vectors)
    assert np.allclose(rayleigh, low, atol=1e-12 * high)
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1.0)
    assert np.allclose(found.gap, (middle - low) / high, atol=1e-9)
