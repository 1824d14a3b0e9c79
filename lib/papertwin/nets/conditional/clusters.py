"""Clusters of classes that use the same features, and how block-diagonal they make the correlation Λ12.

Paper: Y. Ioannou et al., arXiv 1603.01250 (2016), which reorders Λ12 and zeroes what lies off its blocks.

Ours: classes are clustered by spectral clustering (J. Shi, J. Malik, 2000, as in scikit-learn) on the cosine of their
columns of |Λ12|, or of its positive part: with |Λ12| two classes that a feature tells apart count as alike. A feature
belongs to the cluster with the largest sum of its squared correlations, which makes the share of squared correlation
inside the blocks as large as it can be for given clusters of classes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import SpectralClustering
from threadpoolctl import threadpool_limits

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.nets.block_diagonal import finite_matrix, p_value, share_inside


@dataclass(frozen=True)
class BlockOrder:
    """An order of features and classes that makes Λ12 block-diagonal: `correlation[np.ix_(rows, columns)]`.

    Attributes:
        rows: (features,) row numbers, those of cluster 0 first.
        columns: (C,) class numbers, those of cluster 0 first.
        features: (features,) cluster of each feature, in the features' own order.
        sizes: (R, 2) features and classes of each block.
    """

    rows: np.ndarray
    columns: np.ndarray
    features: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class BlockStructure:
    """How block-diagonal a correlation is, against chance.

    Attributes:
        share: share of the squared correlation that lies inside the blocks, in [0, 1].
        random: (draws,) the same for correlations without structure, clustered in the same way, sorted.
    """

    share: float
    random: np.ndarray

    @property
    def p_value(self) -> float:
        """Share of correlations, ours among them, that are as block-diagonal: (1 + #{random ≥ share}) / (1 + draws)."""
        return p_value(self.share, self.random)


def cluster_classes(correlation: np.ndarray, routes: int, seed: int = 0, *, positive: bool = False) -> np.ndarray:
    """Cluster the classes by the features that they correlate with.

    Args:
        correlation: (features, C) Λ12.
        routes: R, the number of clusters, from 1 to C.
        seed: of the clustering.
        positive: whether only positive correlations count, instead of all by their size.

    Returns:
        (C,) int64 in 0 … R - 1, no cluster empty; clusters are numbered in the order of their first class.

    Raises:
        InputError: `correlation` cannot be used, or holds fewer than R different columns.
    """
    table = _checked(correlation)
    classes = table.shape[1]
    if not is_whole(routes, 1, classes):
        raise InputError(f"routes must be a whole number from 1 to {classes}, the classes, got {routes!r}.")
    found = _clustered(table, routes, seed, positive)
    if len(np.unique(found)) < routes:
        raise InputError(f"Only {len(np.unique(found))} clusters of classes can be told apart: ask for fewer routes.")
    return _by_first(found)


def block_order(correlation: np.ndarray, clusters: Sequence[int]) -> BlockOrder:
    """Return the order of features and classes that makes a correlation block-diagonal.

    Args:
        correlation: (features, C) Λ12.
        clusters: (C,) cluster of each class, all of 0 … R - 1.

    Raises:
        InputError: `clusters` does not name one cluster a class.
    """
    squares = _checked(correlation) ** 2
    chosen = check_clusters(clusters, squares.shape[1])
    features = _best_blocks(squares, chosen)
    routes = chosen.max() + 1
    sizes = np.stack([np.bincount(of, minlength=routes) for of in (features, chosen)], axis=1)
    return BlockOrder(np.argsort(features, kind="stable"), np.argsort(chosen, kind="stable"), features, sizes)


def block_structure(
    correlation: np.ndarray, clusters: Sequence[int], draws: int = 50, seed: int = 0, *, positive: bool = False
) -> BlockStructure:
    """Measure how block-diagonal a correlation is, and how block-diagonal clustering makes one without structure.

    Fitted clusters always look better than clusters at random. So the values of each feature are permuted over the
    classes, which leaves each feature its values but no company, and the result is clustered anew: if Λ12 had no
    structure, ours were one more of these.

    Args:
        correlation: (features, C) Λ12.
        clusters: (C,) cluster of each class, all of 0 … R - 1.
        draws: permuted correlations.
        seed: of the permutations, and of each clustering.
        positive: as given to `cluster_classes`.

    Raises:
        InputError: `clusters` does not name one cluster a class, or the correlation is 0 everywhere.
    """
    table = _checked(correlation)
    squares = table**2
    chosen = check_clusters(clusters, table.shape[1])
    if not squares.any():
        raise InputError("The correlation is 0 everywhere: no feature varies with any class, so it has no structure.")
    rng = np.random.default_rng(seed)

    shuffled = (rng.permuted(table, axis=1) for _ in range(draws))
    routes = int(chosen.max()) + 1
    chance = [_share(each**2, _clustered(each, routes, seed, positive)) for each in shuffled]
    return BlockStructure(_share(squares, chosen), np.sort(chance))


def check_clusters(clusters: Sequence[int], classes: int) -> np.ndarray:
    """Return clusters as an array, (C,) int64, once each of 0 … R - 1 is known to occur.

    Raises:
        InputError: they are not one a class, or a number is left out.
    """
    array = np.asarray(clusters)
    if array.dtype.kind not in "iu" or array.shape != (classes,):
        raise InputError(
            f"clusters must be {classes} whole numbers, one a class, got {array.dtype} of shape {array.shape}."
        )
    present = np.unique(array)
    if not np.array_equal(present, np.arange(len(present))):
        raise InputError(f"clusters must be numbered 0, 1, … without a gap, got the numbers {present.tolist()}.")
    return array.astype(np.int64)


def _clustered(table: np.ndarray, routes: int, seed: int, positive: bool) -> np.ndarray:
    """Cluster of each class, in any order; there may be fewer than `routes`."""
    strength = table.clip(0) if positive else np.abs(table)
    if routes in (1, strength.shape[1]):
        return np.arange(strength.shape[1]) % routes
    length = np.linalg.norm(strength, axis=0)
    unit = np.divide(strength, length, out=np.zeros_like(strength), where=length > 0)
    affinity = unit.T @ unit
    np.fill_diagonal(affinity, 1)
    method = SpectralClustering(routes, affinity="precomputed", random_state=seed, n_init=10)
    with warnings.catch_warnings(), threadpool_limits(1):  # sums would depend on the number of threads
        warnings.simplefilter("ignore")  # unconnected blocks are the best case; too few clusters are seen below
        return method.fit_predict(affinity.clip(0, 1))


def _share(squares: np.ndarray, clusters: np.ndarray) -> float:
    """Share of the squared correlation inside the blocks, each feature in the one that suits it best."""
    return share_inside(squares, _best_blocks(squares, clusters), clusters)


def _best_blocks(squares: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(features,), the cluster with the largest sum of squared correlations with each feature."""
    return (squares @ np.eye(clusters.max() + 1)[clusters]).argmax(axis=1)


def _by_first(found: np.ndarray) -> np.ndarray:
    """Number clusters in the order of their first class."""
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse].astype(np.int64)


def _checked(correlation: np.ndarray) -> np.ndarray:
    return finite_matrix(correlation, "correlation", "(features, C)")
