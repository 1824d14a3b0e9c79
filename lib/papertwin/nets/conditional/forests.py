"""The other end of the continuum: decision trees and forests, and what they cost.

Paper: Y. Ioannou et al., arXiv 1603.01250 (2016), which puts trees at one end and convolutional networks at the other.

Cost model (ours): a comparison of one feature with a threshold counts as one multiply-accumulate. An image costs the
comparisons on its way from the root to a leaf, in each tree of the forest, averaged over the images.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.nets.conditional.inputs import as_features, as_labels

Estimator = DecisionTreeClassifier | RandomForestClassifier


@dataclass(frozen=True)
class Forest:
    """A tree or forest that was fitted, and how it does on the test images.

    Attributes:
        accuracy: share of the test images it names rightly.
        comparisons: mean comparisons of a test image, in all trees together.
        path: mean comparisons of a test image in one tree.
        nodes: of all trees, leaves included: its size.
        estimator: the fitted scikit-learn object.
    """

    accuracy: float
    comparisons: float
    path: float
    nodes: int
    estimator: Estimator


def fit_forest(
    features: Any,
    labels: Any,
    test_features: Any,
    test_labels: Any,
    *,
    trees: int = 1,
    depth: int | None = None,
    seed: int = 0,
) -> Forest:
    """Fit a decision tree, or a random forest of several, and measure it.

    Args:
        features: (n, …) numbers, for example pixels, NumPy or torch; further axes are flattened.
        labels: (n,) whole numbers.
        test_features: (m, …) of the test images.
        test_labels: (m,).
        trees: 1 is scikit-learn's decision tree on all images and features, more a random forest.
        depth: most comparisons on a way to a leaf; None lets trees grow until their leaves are pure.
        seed: of everything random.

    Raises:
        InputError: shapes do not fit or a number is out of range.
    """
    for name, value in (("trees", trees), ("depth", depth if depth is not None else 1)):
        if not is_whole(value, 1):
            raise InputError(f"{name} must be a whole number above 0, got {value!r}.")
    x, test_x = as_features(features), as_features(test_features)
    y, test_y = as_labels(labels, len(x)), as_labels(test_labels, len(test_x))
    if x.shape[1] != test_x.shape[1]:
        raise InputError(f"Test images must have {x.shape[1]} features, as those of training, got {test_x.shape[1]}.")
    if trees == 1:
        return _measured(DecisionTreeClassifier(max_depth=depth, random_state=seed).fit(x, y), test_x, test_y)
    return _measured(RandomForestClassifier(trees, max_depth=depth, random_state=seed).fit(x, y), test_x, test_y)


def comparisons(tree: DecisionTreeClassifier, features: np.ndarray) -> np.ndarray:
    """Comparisons of each image on its way to a leaf of one tree: (n, features) → (n,) int64."""
    return np.asarray(tree.decision_path(features).sum(axis=1)).ravel().astype(np.int64) - 1


def _measured(estimator: Estimator, features: np.ndarray, labels: np.ndarray) -> Forest:
    """Ask a fitted tree or forest for the test images."""
    grown = getattr(estimator, "estimators_", [estimator])
    lengths = sum(comparisons(tree, features) for tree in grown)
    return Forest(
        accuracy=float((estimator.predict(features) == labels).mean()),
        comparisons=float(lengths.mean()),
        path=float(lengths.mean() / len(grown)),
        nodes=sum(tree.tree_.node_count for tree in grown),
        estimator=estimator,
    )
