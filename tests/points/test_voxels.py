"""Voxel centroids against a dictionary of voxels, and Open3D."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.errors import InputError
from papertwin.points import voxel_centroids


@given(seed=st.integers(0, 10_000), leaf=st.floats(0.05, 2.0), count=st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_equal_to_a_dictionary(seed, leaf, count):
    points = np.random.default_rng(seed).random((count, 3)) * (3.0, 1.0, 2.0) - 1.0
    voxels = {}
    for row, cell in zip(points, np.floor((points - points.min(axis=0)) / leaf).astype(int)):
        voxels.setdefault(tuple(cell), []).append(row)
    expected = [np.mean(rows, axis=0) for _, rows in sorted(voxels.items())]
    assert np.allclose(voxel_centroids(points, leaf), expected, atol=1e-12)


def test_one_huge_voxel_is_the_mean_and_tiny_ones_keep_every_point(street):
    assert np.allclose(voxel_centroids(street, 1e4), street.mean(axis=0))
    tiny = voxel_centroids(street, 1e-6)
    assert len(tiny) == len(street)
    assert np.allclose(np.sort(tiny, axis=0), np.sort(street, axis=0))


def test_empty_planes_are_left_out_only_when_the_grid_is_too_large(rng):
    points = np.concatenate((rng.random((50, 3)), [[9e5, 0, 0], [0, 9e5, 0], [0, 0, 9e5]]))
    assert len(voxel_centroids(points, 1e-3)) == 53
    assert len(voxel_centroids(points, 2.0)) == 4


def test_kind_is_kept():
    assert voxel_centroids(np.zeros((3, 3), np.float32), 1.0).dtype == np.float32
    assert voxel_centroids(torch.zeros((3, 3), dtype=torch.float64), 1.0).shape == (1, 3)


def test_bad_leaf(street):
    with pytest.raises(InputError, match="leaf must be"):
        voxel_centroids(street, 0.0)
    with pytest.raises(InputError, match="too small"):
        voxel_centroids(street, 1e-9)
