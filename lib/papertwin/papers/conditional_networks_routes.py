"""Experiments on explicit routing: the last layer of a perceptron as a tree, and the models between tree and network.

Part of `papertwin.papers.conditional_networks`. For the perceptron digits and clothes are seen in four rotations: 80
classes, so that a tree of several routes can be four times as cheap as the dense layer, router included. Digits such as
0, 1 and 8 look alike upside down; that error is the same for every network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from papertwin.nets import count, mlp
from papertwin.nets.conditional import (
    PerceptronTree,
    Routed,
    Router,
    activation_correlation,
    cluster_classes,
    expected_cost,
    fit_forest,
    fit_tree,
)
from papertwin.nets.initial import seeded
from papertwin.nets.layers import activated, chain, convolution, dense
from papertwin.papers.conditional_networks import Params
from papertwin.training.clock import interleaved
from papertwin.training.loop import fit, scores
from papertwin.training.trials import Sets, draw_sets, error, shrink, standardised, whole_set

ROUTES = (2, 4, 8, 16)
SHOWN = 4  # routes of figures 1 and 3a, and of the routed network
TURNS = 4  # rotations by 90°
SIDE = 14  # pixels of the union's images
FEATURES = 128  # inputs of the perceptron
CHECK, TEST = 1 / 4, 1 / 2  # images for validation and test, as shares of the training images
SLOWER = 0.2  # rate of the trees' training, as a share of the network's
BATCH = 64  # images that are timed together
TREES = 20  # of the forest


# ---- the perceptron --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Perceptron:
    """The perceptron experiment of one seed.

    Attributes:
        correlation: (features, classes) Λ12 of the inputs and outputs of the dense layer on the training images.
        clusters: routes → (classes,) cluster of each class.
        classes: their names.
        dense: operations, validation and test error in per cent of the dense layer.
        trees: a row for each number of routes and of evaluated ones: mean operations and error in per cent, on
            validation and on test images.
    """

    correlation: np.ndarray
    clusters: dict[int, np.ndarray]
    classes: tuple[str, ...]
    dense: tuple[int, float, float]
    trees: pd.DataFrame


def union_sets(images: int, seed: int) -> Sets:
    """Digits and clothes, each turned by 0, 90, 180 or 270 degrees, drawn by a seed.

    Args:
        images: for training; a quarter as many for validation, half as many for test.
        seed: of the draws and turns.

    Returns:
        80 classes, number 4 · class + turns, digits first.
    """
    rng = np.random.default_rng(seed)
    parts, names = [], [name for kind in ("mnist", "fashion_mnist") for name in whole_set(kind, "train").classes]
    for split, first, share in (("train", 0.0, 1.0), ("train", 0.5, CHECK), ("test", 0.0, TEST)):
        pictures, labels = [], []
        for number, kind in enumerate(("mnist", "fashion_mnist")):
            source = whole_set(kind, split)
            half = len(source) // 2  # validation images are of the other half of the training images
            rows = int(first * len(source)) + rng.permutation(half)[: int(images * share) // 2]
            turns = rng.integers(TURNS, size=len(rows))
            small = shrink(source.scaled(rows), SIDE)
            pictures.append(np.stack([np.rot90(one, turn, axes=(1, 2)) for one, turn in zip(small, turns)]))
            labels.append(TURNS * (source.labels[rows] + 10 * number) + turns)
        parts.append((np.concatenate(pictures), np.concatenate(labels)))
    return standardised(parts, tuple(f"{name} {90 * turn}°" for name in names for turn in range(TURNS)))


def trunk(classes: int, *, seed: int) -> nn.Sequential:
    """A small network for 14×14 images whose last layer, the perceptron, takes `FEATURES` inputs."""
    with seeded(seed):
        return chain(
            [
                *activated("conv1", convolution(1, 16, 3)),
                ("pool1", nn.MaxPool2d(2, ceil_mode=True)),
                *activated("conv2", convolution(16, 32, 3)),
                ("pool2", nn.MaxPool2d(2, ceil_mode=True)),
                ("flat", nn.Flatten()),
                *activated("fc1", dense(32 * 4 * 4, FEATURES)),
                ("fc2", dense(FEATURES, classes, last=True)),
            ]
        )


def perceptron(seed: int, params: Params) -> Perceptron:
    """Train the network, freeze what lies below its last layer, and turn that layer into trees.

    The dense layer trains on for as long as the second part of a tree's training.
    """
    sets = union_sets(params.union_images, seed)
    model = trunk(len(sets.classes), seed=seed)
    fit(model, *sets.train, seed=seed, **params.settings)
    last, parts = model[-1], (sets.train, sets.check, sets.test)
    given = [(scores(model[:-1], images), labels) for images, labels in parts]
    correlation = activation_correlation(given[0][0], scores(last, given[0][0]))
    clusters = {routes: cluster_classes(correlation, routes, seed) for routes in ROUTES}
    settings = params.settings | {"rate": SLOWER * params.settings["rate"], "seed": seed}
    rows = []
    for routes, members in clusters.items():
        tree = PerceptronTree.from_linear(last, members)
        fit_tree(tree, *given[0], router_epochs=params.epochs, **settings)
        for top in range(1, routes + 1):
            tree.top = top
            rows.append({"routes": routes, "evaluated": top, **_measured(tree, given)})
    fit(last, *given[0], **settings)
    errors = (100 * error(scores(last, features), labels) for features, labels in given[1:])
    return Perceptron(correlation, clusters, sets.classes, (count(last, (FEATURES,)).macs, *errors), pd.DataFrame(rows))


def _measured(tree: PerceptronTree, given: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Error and mean operations of a tree on validation and on test images."""
    row = {}
    for part, (features, labels) in zip(("validation", "test"), given[1:]):
        tree.reset()
        row[f"{part} error"] = 100 * error(scores(tree, features), labels)
        row[f"{part} MACs"] = tree.expected_macs()
    return row


def cheap_tree(found: Perceptron, times: float = 4.0) -> tuple[float, pd.Series]:
    """Of all trees that are so many times as cheap as the dense layer the best on validation images.

    Returns:
        Points of test error that it loses against the dense layer, NaN where no tree is so cheap; and its row.
    """
    cost, _, base = found.dense
    cheap = found.trees[found.trees["validation MACs"] <= cost / times]
    if cheap.empty:
        return np.nan, pd.Series(dtype=float)
    best = cheap.loc[cheap["validation error"].idxmin()]
    return float(best["test error"] - base), best


# ---- the models in between -------------------------------------------------------------------------------------------


class SmallNetwork(nn.Module):
    """One convolution for all, then R routes of a convolution and a layer of 32 units, then one dense layer.

    With `routes` None, one route as wide as four, and no router: the plain network. The dense layer sees what the
    routes give, weighted by the router.
    """

    def __init__(self, classes: int, *, in_channels: int, side: int, routes: int | None, seed: int):
        """Build it for square images."""
        super().__init__()
        self.shape = (in_channels, side, side)
        wide = 32 * (SHOWN if routes is None else 1)
        with seeded(seed):
            stem = activated("conv1", convolution(in_channels, 16, 3))
            self.stem = chain([*stem, ("pool1", nn.MaxPool2d(2, ceil_mode=True))])
            parts = [_route(wide, -(-side // 4)) for _ in range(routes or 1)]
            self.middle = parts[0] if routes is None else Routed(Router(16, routes, seed=seed), parts)
            self.head = dense(wide, classes, last=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, c, side, side) → (B, classes)."""
        return self.head(self.middle(self.stem(images)))

    @property
    def macs(self) -> float:
        """Mean operations of an image, by how often each route was taken since the last reset."""
        if not isinstance(self.middle, Routed):
            return float(count(self, self.shape).macs)
        half = -(-self.shape[1] // 2)
        routes = [count(route, (16, half, half)).macs for route in self.middle.routes]
        shared = count(self.stem, self.shape).macs + count(self.head, (self.head.in_features,)).macs
        return shared + expected_cost(self.middle.router.macs, routes, self.middle.frequencies)


def _route(wide: int, left: int) -> nn.Sequential:
    """A convolution of `wide` filters, a pool that leaves `left` pixels a side, and as many units."""
    layers = [*activated("conv2", convolution(16, wide, 3)), ("pool2", nn.MaxPool2d(2, ceil_mode=True))]
    return chain([*layers, ("flat", nn.Flatten()), *activated("fc1", dense(wide * left**2, wide))])


@dataclass(frozen=True)
class Model:
    """One of the models in between.

    Attributes:
        name: of the model.
        kind: tree, perceptron tree, routed or plain.
        seed: of its training.
        error: test error, per cent.
        macs: mean operations of an image; a comparison of a tree counts as one.
        answer: gives its answer for a batch of images, for the clock.
    """

    name: str
    kind: str
    seed: int
    error: float
    macs: float
    answer: Callable[[np.ndarray], Any]


def models_between(seed: int, params: Params) -> list[Model]:
    """Train every model on the same images of one seed."""
    sets = draw_sets(params.sizes, seed)
    return [*_forests(sets, seed), *_trees(sets, seed, params), *_networks(sets, seed, params)]


def _forests(sets: Sets, seed: int) -> list[Model]:
    found = []
    for name, trees in (("decision tree", 1), (f"forest of {TREES}", TREES)):
        forest = fit_forest(*sets.train, *sets.test, trees=trees, seed=seed)
        answer = _Flat(forest.estimator.predict)
        found.append(Model(name, "tree", seed, 100 * (1 - forest.accuracy), forest.comparisons, answer))
    return found


@dataclass(frozen=True)
class _Flat:
    """Hands images to a function of vectors."""

    function: Callable[[np.ndarray], Any]

    def __call__(self, images: np.ndarray) -> Any:
        return self.function(images.reshape(len(images), -1))


@dataclass(frozen=True)
class _Network:
    """A network that answers with so many routes of its conditional part."""

    model: nn.Module
    part: Any = None
    top: int | None = None

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> Any:
        if self.part is not None:
            self.part.top = self.top
        return self.model(torch.from_numpy(images)).argmax(1)


def _trees(sets: Sets, seed: int, params: Params) -> list[Model]:
    """A perceptron of two layers whose last one is a tree of four routes, one of them evaluated."""
    model = mlp((int(np.prod(sets.shape)), 64, len(sets.classes)), seed=seed)
    fit(model, *sets.train, seed=seed, **params.settings)
    below, last = model[:-1], model[-1]
    features = scores(below, sets.train[0])
    clusters = cluster_classes(activation_correlation(features, scores(last, features)), SHOWN, seed)
    tree = PerceptronTree.from_linear(last, clusters)
    settings = params.settings | {"rate": SLOWER * params.settings["rate"], "seed": seed}
    fit_tree(tree, features, sets.train[1], router_epochs=params.epochs, **settings)
    whole, before = nn.Sequential(*below, tree).eval(), count(below, sets.shape).macs
    network = _Network(whole, tree, 1)
    return [
        _judged(
            "perceptron tree, 1 of 4", "perceptron tree", network, lambda: before + tree.expected_macs(), sets, seed
        )
    ]


def _judged(name: str, kind: str, network: _Network, macs: Callable[[], float], sets: Sets, seed: int) -> Model:
    """Ask a network about the test images; `macs` then says what an image has cost."""
    if network.part is not None:
        network.part.top = network.top
        network.part.reset()
    wrong = error(scores(network.model, sets.test[0]), sets.test[1])
    return Model(name, kind, seed, 100 * wrong, macs(), network)


def _networks(sets: Sets, seed: int, params: Params) -> list[Model]:
    """The routed network with one to four routes evaluated, and the plain one."""
    options = {"in_channels": sets.shape[0], "side": sets.shape[1], "seed": seed}
    routed = SmallNetwork(len(sets.classes), routes=SHOWN, **options)
    plain = SmallNetwork(len(sets.classes), routes=None, **options)
    for network in (routed, plain):
        fit(network, *sets.train, seed=seed, **params.settings)
        network.eval().cpu()
    asked = [
        (f"routed, {top} of {SHOWN}", "routed", _Network(routed, routed.middle, top)) for top in range(1, SHOWN + 1)
    ]
    asked.append(("plain network", "plain", _Network(plain)))
    return [_judged(*each, lambda network=each[2]: network.model.macs, sets, seed) for each in asked]


def timed(models: list[Model], params: Params) -> pd.DataFrame:
    """Microseconds an image, batches of 64, one thread: a row a repeat, in which all models take turns."""
    images = draw_sets(params.sizes, models[0].seed).test[0][:BATCH]
    calls = {model.name: partial(model.answer, images) for model in models}
    return 1e6 * interleaved(calls, rounds=params.repeats) / len(images)


def between_table(models: list[list[Model]], times: pd.DataFrame) -> pd.DataFrame:
    """Table 2: a row a model; mean error over seeds and its range, operations, and median time of the first seed's."""
    rows = [vars(each) for of_seed in models for each in of_seed]
    found = pd.DataFrame(rows).groupby(["name", "kind"], sort=False)
    table = found["error"].agg(["mean", "min", "max"]).rename(columns=lambda name: f"error {name}")
    table["MACs"] = found["macs"].mean()
    return table.reset_index().assign(microseconds=lambda frame: frame["name"].map(times.median()))


def kinds_of_clusters(found: Perceptron, routes: int = SHOWN) -> str:
    """How many digits and how many clothes each cluster holds, as `11+7`: whether clusters are the super-classes."""
    digit = np.arange(len(found.classes)) < len(found.classes) // 2
    sizes = [(digit & (found.clusters[routes] == j), ~digit & (found.clusters[routes] == j)) for j in range(routes)]
    return ", ".join(f"{first.sum()}+{second.sum()}" for first, second in sizes)
