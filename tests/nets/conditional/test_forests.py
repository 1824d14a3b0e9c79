"""Trees and forests: comparisons counted by a slow walk, accuracy on what can be learned."""

import numpy as np
import pytest
import torch

from papertwin.errors import InputError
from papertwin.nets.conditional import fit_forest
from papertwin.nets.conditional.forests import comparisons


def blobs(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=n)
    return rng.normal(size=(n, 1, 2, 3)) + (2.5 * np.eye(4, 6)[labels]).reshape(n, 1, 2, 3), labels


def walk(tree, image):
    """Go from the root to a leaf, one comparison at a time; return how many, and the leaf's class."""
    nodes, at, steps = tree.tree_, 0, 0
    while nodes.children_left[at] != -1:
        left = np.float32(image[nodes.feature[at]]) <= nodes.threshold[at]
        at = nodes.children_left[at] if left else nodes.children_right[at]
        steps += 1
    return steps, tree.classes_[nodes.value[at].argmax()]


@pytest.mark.parametrize(("trees", "depth"), [(1, None), (1, 3), (5, None), (5, 4)])
def test_comparisons_by_a_slow_walk(trees, depth):
    x, y = blobs(300, 0)
    test_x, test_y = blobs(120, 1)
    forest = fit_forest(x, y, test_x, test_y, trees=trees, depth=depth, seed=3)
    grown = [forest.estimator] if trees == 1 else forest.estimator.estimators_
    rows = test_x.reshape(120, -1)
    steps = np.array([[walk(tree, image)[0] for tree in grown] for image in rows])
    assert len(grown) == trees
    assert forest.comparisons == pytest.approx(steps.sum(axis=1).mean())
    assert forest.path == pytest.approx(steps.mean())
    assert forest.nodes == sum(tree.tree_.node_count for tree in grown)
    np.testing.assert_array_equal(comparisons(grown[0], rows.astype(np.float32)), steps[:, 0])
    assert depth is None or steps.max() <= depth
    if trees == 1:
        assert forest.accuracy == np.mean([walk(forest.estimator, image)[1] == y for image, y in zip(rows, test_y)])


def test_more_trees_cost_more_and_know_more():
    x, y = blobs(400, 0)
    test_x, test_y = blobs(400, 1)
    tree, forest = (fit_forest(x, y, test_x, test_y, trees=trees) for trees in (1, 25))
    assert 0.6 < tree.accuracy < forest.accuracy
    assert forest.comparisons > 10 * tree.comparisons
    assert forest.comparisons == pytest.approx(25 * forest.path)


def test_a_stump_compares_once_and_one_class_never():
    x, y = blobs(100, 0)
    assert fit_forest(x, y, x, y, depth=1).comparisons == 1
    alone = fit_forest(x, np.zeros(100, int), x, np.zeros(100, int))
    assert (alone.comparisons, alone.accuracy, alone.nodes) == (0, 1, 1)


def test_a_seed_gives_one_forest_from_arrays_and_tensors(device):
    x, y = blobs(200, 0)
    first = fit_forest(x, y, x, y, trees=3, depth=4, seed=1)
    tensor = torch.tensor(x, device=device)
    again = fit_forest(tensor, torch.tensor(y, device=device), tensor, y, trees=3, depth=4, seed=1)
    other = fit_forest(x, y, x, y, trees=3, depth=4, seed=2)
    numbers = [(f.accuracy, f.comparisons, f.nodes) for f in (first, again, other)]
    assert numbers[0] == numbers[1] != numbers[2]


@pytest.mark.parametrize(
    "change",
    [
        {"trees": 0},
        {"depth": 0},
        {"trees": 2.0},
        {"labels": [0]},
        {"labels": [0.5, 1.5]},
        {"features": [1.0, 2.0]},
        {"features": [[np.nan], [1.0]]},
        {"test_features": [[1.0, 2.0], [1.0, 2.0]]},
        {"test_labels": [1]},
    ],
)
def test_arguments_that_cannot_be_used(change):
    data = {"features": [[1.0], [2.0]], "labels": [0, 1], "test_features": [[1.0], [2.0]], "test_labels": [0, 1]}
    with pytest.raises(InputError, match="got"):
        fit_forest(**(data | change))
