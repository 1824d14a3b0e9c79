"""Planted blocks are found, whatever their order; the measure of block structure by brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.errors import InputError
from papertwin.nets.conditional import activation_correlation, block_order, block_structure, cluster_classes, clusters
from papertwin.nets.conditional.clusters import check_clusters


def planted(sizes, seed, noise=0.1, per_class=4):
    """Λ12 with strong values of either sign inside blocks, weak ones elsewhere, shuffled; with its clusters."""
    rng = np.random.default_rng(seed)
    of_class = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    of_feature = rng.permutation(np.repeat(np.arange(len(sizes)), np.multiply(sizes, per_class)))
    inside = of_feature[:, None] == of_class
    signs = rng.choice([-1, 1], size=inside.shape)
    return signs * np.where(inside, rng.uniform(0.5, 1, inside.shape), rng.uniform(0, noise, inside.shape)), of_class


def partition(of):
    return {frozenset(np.flatnonzero(of == j).tolist()) for j in np.unique(of)}


@given(sizes=st.lists(st.integers(2, 7), min_size=2, max_size=4), seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_planted_blocks_are_found(sizes, seed):
    correlation, truth = planted(sizes, seed)
    found = cluster_classes(correlation, len(sizes), seed=seed % 7)
    assert partition(found) == partition(truth)
    firsts = [int(np.flatnonzero(found == j)[0]) for j in range(len(sizes))]
    assert firsts == sorted(firsts)
    assert found[0] == 0


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_names_of_classes_and_order_of_features_do_not_matter(seed):
    correlation, _ = planted([3, 2, 5], seed)
    rng = np.random.default_rng(seed)
    classes, features = rng.permutation(10), rng.permutation(len(correlation))
    found, other = cluster_classes(correlation, 3), cluster_classes(correlation[features][:, classes], 3)
    assert partition(other) == {frozenset(np.flatnonzero(np.isin(classes, list(s)))) for s in partition(found)}
    share = block_structure(correlation, found, draws=1).share
    assert block_structure(correlation[features][:, classes], found[classes], draws=1).share == pytest.approx(share)


def test_blocks_without_any_link_are_found():
    correlation, truth = planted([3, 4, 2], 1, noise=0)
    assert partition(cluster_classes(correlation, 3)) == partition(truth)


def test_from_activations_to_clusters():
    """Classes of a cluster share the features that tell it from others."""
    rng = np.random.default_rng(0)
    truth = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    labels = rng.integers(9, size=4000)
    means = np.kron(np.eye(3), np.ones((1, 6)))[truth] * 3 + rng.normal(size=(9, 18)) * 0.3
    correlation = activation_correlation(rng.normal(size=(4000, 18)) + means[labels], labels)
    found = cluster_classes(correlation, 3)
    assert found.tolist() == truth.tolist()
    assert block_structure(correlation, found).p_value < 0.05


def test_only_positive_correlation_if_asked_for():
    """A tells 0 from 1, B tells 2 from 3; weaker features bring 0 and 2 together, and 1 and 3."""
    a, b, c, d = [1, -1, 0, 0], [0, 0, 1, -1], [0.8, 0, 0.8, 0], [0, 0.8, 0, 0.8]
    correlation = np.array([a, b, c, d]) * 0.9
    assert cluster_classes(correlation, 2).tolist() == [0, 0, 1, 1]
    assert cluster_classes(correlation, 2, positive=True).tolist() == [0, 1, 0, 1]


def test_negative_correlation_neither_links_nor_parts_if_only_positive_counts():
    """Classes 0 and 1 share a feature, and so do 2 and 3; that others oppose them does not matter."""
    shared, opposed = [[0.6, 0.6, 0, 0], [0, 0, 0.6, 0.6]], [[0.9, -0.9, 0, 0], [0, 0, 0.9, -0.9]]
    weak = [[0.2, 0, 0.2, 0], [0, 0.2, 0, 0.2]]
    assert cluster_classes(np.array([*shared, *opposed, *weak]), 2, positive=True).tolist() == [0, 0, 1, 1]


def test_one_cluster_and_one_for_each():
    correlation, _ = planted([3, 2], 0)
    assert cluster_classes(correlation, 1).tolist() == [0] * 5
    assert cluster_classes(correlation, 5).tolist() == list(range(5))


def test_a_seed_gives_one_answer_also_for_noise_and_dead_features():
    correlation = np.random.default_rng(0).normal(size=(30, 12))
    correlation[:, 4] = 0
    first = cluster_classes(correlation, 3, seed=5)
    assert first.tolist() == cluster_classes(correlation, 3, seed=5).tolist()
    assert np.unique(first).tolist() == [0, 1, 2]


def test_fewer_clusters_than_asked_for(monkeypatch):
    monkeypatch.setattr(clusters.SpectralClustering, "fit_predict", lambda self, x: np.zeros(len(x), int))
    with pytest.raises(InputError, match="Only 1 clusters"):
        cluster_classes(planted([3, 2], 0)[0], 2)


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 10**6))
@settings(deadline=None)
def test_the_order_brings_blocks_together(sizes, seed):
    correlation, truth = planted(sizes, seed, noise=0)
    order = block_order(correlation, truth)
    assert sorted(order.rows) == list(range(len(correlation)))
    assert sorted(order.columns) == list(range(len(truth)))
    assert order.sizes.tolist() == [[4 * size, size] for size in sizes]
    ordered = correlation[np.ix_(order.rows, order.columns)]
    row = column = 0
    for features, classes in order.sizes:
        block = ordered[row : row + features, column : column + classes]
        assert (block != 0).all()
        ordered[row : row + features, column : column + classes] = 0
        row, column = row + features, column + classes
    assert not ordered.any()
    assert block_structure(correlation, truth, draws=0).share == pytest.approx(1)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_features_go_where_they_make_the_share_largest(seed):
    rng = np.random.default_rng(seed)
    squares = (correlation := rng.uniform(-1, 1, (4, 5))) ** 2
    chosen = np.append([0, 1, 2], rng.integers(3, size=2))
    every = [
        sum(squares[f, chosen == j].sum() for f, j in enumerate(of)) for of in itertools.product(range(3), repeat=4)
    ]
    order = block_order(correlation, chosen)
    here = sum(squares[f, chosen == j].sum() for f, j in enumerate(order.features))
    assert here == pytest.approx(max(every))
    assert block_structure(correlation, chosen, draws=0).share == pytest.approx(max(every) / squares.sum())


def test_chance_is_the_same_clustering_of_features_permuted_over_the_classes():
    correlation, truth = planted([3, 2, 4], 3)
    found = block_structure(correlation, truth, draws=6, seed=1)
    rng, due = np.random.default_rng(1), []
    for _ in range(6):
        mixed = rng.permuted(correlation, axis=1)
        assert np.array_equal(np.sort(mixed, axis=1), np.sort(correlation, axis=1))
        due.append(block_structure(mixed, cluster_classes(mixed, 3, 1), draws=0).share)
    np.testing.assert_allclose(found.random, sorted(due))
    assert found.p_value == (1 + sum(share >= found.share - 1e-12 for share in due)) / 7


@pytest.mark.parametrize("positive", [False, True])
def test_clusters_fitted_to_noise_are_not_significant_and_planted_blocks_are(positive):
    """On noise p is uniform: the median of 12 lies where that of uniform numbers nearly always does."""

    def p_value(correlation):
        found = cluster_classes(correlation, 3, positive=positive)
        return block_structure(correlation, found, draws=19, positive=positive).p_value

    noise = [p_value(np.random.default_rng(seed).uniform(-1, 1, (60, 12))) for seed in range(12)]
    assert 0.2 < np.median(noise) < 0.8
    assert sum(p <= 0.05 for p in noise) <= 2
    assert [p_value(np.abs(planted([4, 4, 4], seed)[0])) for seed in range(3)] == [0.05] * 3


def test_one_cluster_and_one_for_each_are_like_chance():
    correlation, _ = planted([4, 4, 4], 0)
    for same in (np.zeros(12, int), np.arange(12)):
        assert block_structure(correlation, same, draws=5).p_value == 1
    assert block_structure(correlation, np.zeros(12, int), draws=3).share == pytest.approx(1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: cluster_classes(np.ones((3, 4)), 5),
        lambda: cluster_classes(np.ones((3, 4)), 0),
        lambda: cluster_classes(np.ones((3, 4)), 2.0),
        lambda: cluster_classes(np.ones(3), 1),
        lambda: cluster_classes(np.full((3, 4), np.nan), 2),
        lambda: block_order(np.ones((3, 2)), [0]),
        lambda: block_order(np.ones((3, 2)), [0, 2]),
        lambda: block_order(np.ones((3, 2)), [0.0, 1.0]),
        lambda: check_clusters([1, 2], 2),
        lambda: check_clusters([-1, 0], 2),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match="got"):
        call()


def test_no_correlation_has_no_structure():
    with pytest.raises(InputError, match="0 everywhere"):
        block_structure(np.zeros((3, 2)), [0, 1])
