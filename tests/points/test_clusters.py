"""Euclidean clusters against two other implementations, and their theorems."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from papertwin.errors import InputError
from papertwin.points import euclidean_clusters
from papertwin.points.open3d_loader import open3d


def same_partition(a, b) -> bool:
    pairs = np.unique(np.c_[a, b], axis=0)
    return len(pairs) == len(np.unique(a)) == len(np.unique(b))


@pytest.mark.parametrize("distance", [0.05, 0.2, 0.5, 1.0, 3.0, 50.0])
def test_equal_to_dbscan_with_one_point_cores(street, distance):
    labels = euclidean_clusters(street, distance)
    assert same_partition(labels, DBSCAN(eps=distance, min_samples=1).fit_predict(street))


@pytest.mark.parametrize("distance", [0.2, 0.6])
def test_equal_to_open3d(street, distance):
    module = open3d()
    cloud = module.geometry.PointCloud(module.utility.Vector3dVector(street))
    theirs = np.asarray(cloud.cluster_dbscan(eps=distance, min_points=1))
    assert same_partition(euclidean_clusters(street, distance), theirs)


@given(
    points=st.lists(st.tuples(*[st.integers(-6, 6)] * 3), min_size=1, max_size=60),
    distance=st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 5.0]),
)
@settings(max_examples=60, deadline=None)
def test_lattice_links_are_inclusive(points, distance):
    """Integer points: distances of exactly d occur all the time and must link."""
    array = np.array(points, float)
    gaps = np.linalg.norm(array[:, None] - array[None], axis=2)
    reach = gaps <= distance
    for _ in range(6):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    labels = euclidean_clusters(array, distance)
    assert np.array_equal(labels[:, None] == labels[None], reach)


@given(seed=st.integers(0, 10_000), distance=st.floats(0.02, 0.5), growth=st.floats(1.0, 4.0))
@settings(max_examples=40, deadline=None)
def test_growing_the_distance_only_merges(seed, distance, growth):
    points = np.random.default_rng(seed).random((150, 3))
    fine, coarse = euclidean_clusters(points, distance), euclidean_clusters(points, growth * distance)
    for label in np.unique(fine):
        assert len(np.unique(coarse[fine == label])) == 1


def test_labels_go_by_size_then_by_first_point():
    groups = [(0.0, 2), (10.0, 3), (20.0, 2), (30.0, 5), (40.0, 1)]
    points = np.array([[x + 0.1 * i, 0.0, 0.0] for x, count in groups for i in range(count)])
    expected = [2] * 2 + [1] * 3 + [3] * 2 + [0] * 5 + [4]
    assert euclidean_clusters(points, 0.11).tolist() == expected
    assert euclidean_clusters(points, 0.11, min_size=2).tolist() == [2] * 2 + [1] * 3 + [3] * 2 + [0] * 5 + [-1]
    assert euclidean_clusters(points, 0.11, 2, 4).tolist() == [1] * 2 + [0] * 3 + [2] * 2 + [-1] * 6


def test_order_of_points_does_not_matter(street, rng):
    order = rng.permutation(len(street))
    assert same_partition(euclidean_clusters(street[order], 0.4), euclidean_clusters(street, 0.4)[order])


def test_far_outliers_and_far_origins(rng):
    """More grid cells than int64 can number: empty planes are left out."""
    near = rng.random((300, 3))
    far = np.concatenate((near, [[4e6, 0, 0], [0, 4e6, 0], [0, 0, 4e6]]))
    expected = DBSCAN(eps=0.1, min_samples=1).fit_predict(near)
    assert same_partition(euclidean_clusters(far, 0.1)[:300], expected)
    shifted = np.round(near * 1024) / 1024
    labels = euclidean_clusters(shifted, 0.1)
    assert np.array_equal(labels, euclidean_clusters(shifted + np.array([5e5, 4e6, 100.0]), 0.1))


def test_duplicates_and_one_point():
    assert euclidean_clusters(np.zeros((50, 3)), 1e-3).tolist() == [0] * 50
    assert euclidean_clusters(np.ones((1, 3)), 1.0).tolist() == [0]
    assert euclidean_clusters(np.ones((1, 3)), 1.0, min_size=2).tolist() == [-1]


def test_tensors_come_back_as_tensors(street):
    labels = euclidean_clusters(torch.from_numpy(street), 0.5)
    assert labels.dtype == torch.int64
    assert np.array_equal(labels.numpy(), euclidean_clusters(street, 0.5))


def test_sizes_may_be_any_kind_of_integer(street):
    expected = euclidean_clusters(street, 0.4, 5, 200)
    assert np.array_equal(euclidean_clusters(street, 0.4, np.int32(5), torch.tensor(200)), expected)


def test_bad_input(street):
    for distance in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="distance must be"):
            euclidean_clusters(street, distance)
    for sizes in ((0, None), (5, 4)):
        with pytest.raises(InputError, match="min_size"):
            euclidean_clusters(street, 1.0, *sizes)
    for sizes in ((None, None), ("a", None), (1.9, None), (np.float64(2), None), (1, "many"), (1, 7.5)):
        with pytest.raises(InputError, match=r"m(in|ax)_size must be a whole number of points"):
            euclidean_clusters(street, 1.0, *sizes)
    with pytest.raises(InputError, match="1 of 1500 rows"):
        euclidean_clusters(np.where(np.arange(1500)[:, None] == 3, np.nan, street), 1.0)
    with pytest.raises(InputError, match="too small for a cloud of size"):
        euclidean_clusters(street, 1e-12)
