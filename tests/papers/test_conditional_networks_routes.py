"""Experiments on explicit routing at tiny sizes: data that can be turned back, operations added up image by image."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin.data.images import Images
from papertwin.papers import conditional_networks as paper
from papertwin.papers import conditional_networks_routes as routes
from papertwin.training import clock
from papertwin.training.trials import Sets, draw_sets, shrink

PARAMS = paper.Params(
    side=14,
    train_images=100,
    check_images=60,
    test_images=80,
    union_images=800,
    epochs=1,
    seeds=2,
    candidates=3,
    views=3,
    repeats=3,
    processes=1,
    device="cpu",
)


# ---- the perceptron --------------------------------------------------------------------------------------------------


@pytest.fixture
def numbered(monkeypatch):
    """Two image sets whose first four pixels tell the row; what the union draws is left as it is."""
    sets = {}
    for kind, shade in (("mnist", 0), ("fashion_mnist", 1)):
        for split, count in (("train", 1000), ("test", 600)):
            pictures = np.random.default_rng(count + shade).integers(0, 255, (count, 1, 28, 28), dtype=np.uint8)
            pictures[:, 0, :2, :2] = (np.arange(count) // 5)[:, None, None]
            classes = tuple(f"{kind[0]}{k}" for k in range(10))
            sets[kind, split] = Images(pictures, np.arange(count) % 10, classes)
    monkeypatch.setattr(routes, "whole_set", lambda kind, split: sets[kind, split])
    monkeypatch.setattr(routes, "standardised", lambda parts, classes: Sets(*parts, classes))
    return sets


@pytest.mark.parametrize("seed", [0, 3])
def test_turned_back_every_image_of_the_union_is_one_of_its_source(numbered, seed):
    union = routes.union_sets(400, seed)
    assert union.classes[:5] == ("m0 0°", "m0 90°", "m0 180°", "m0 270°", "m1 0°")
    assert union.classes[-1] == "f9 270°"
    assert (len(union.classes), union.shape) == (80, (1, 14, 14))
    small = {key: shrink(source.scaled(), 14) for key, source in numbered.items()}
    drawn = {}
    for part, split, count in (("train", "train", 400), ("check", "train", 100), ("test", "test", 200)):
        images, labels = getattr(union, part)
        assert len(images) == len(labels) == count
        found = []
        for image, label in zip(images, labels):
            kind = ("mnist", "fashion_mnist")[label // 40]
            upright = np.rot90(image, -(label % 4), axes=(1, 2))
            (row,) = np.flatnonzero((small[kind, split] == upright).all(axis=(1, 2, 3)))
            assert numbered[kind, split].labels[row] == label // 4 % 10
            found.append((kind, int(row)))
        assert len(set(found)) == count, "no image twice"
        assert {kind for kind, _ in found} == {"mnist", "fashion_mnist"}
        assert np.bincount(labels % 4, minlength=4).min() > count / 8, "every turn occurs"
        drawn[part] = set(found)
    assert not drawn["train"] & drawn["check"]
    assert max(row for _, row in drawn["train"]) < 500 <= min(row for _, row in drawn["check"])


def test_the_union_is_drawn_by_its_seed(numbered):
    first, again, other = (routes.union_sets(100, seed) for seed in (1, 1, 2))
    for part in ("train", "check", "test"):
        assert np.array_equal(getattr(first, part)[0], getattr(again, part)[0])
        assert not np.array_equal(getattr(first, part)[1], getattr(other, part)[1])


def trees(*rows):
    columns = ["routes", "evaluated", "validation MACs", "validation error", "test error"]
    return pd.DataFrame(rows, columns=columns)


def perceptron(table, clusters=None):
    return routes.Perceptron(np.zeros((1, 1)), clusters or {}, tuple("abcdef"), (1000, 19.0, 20.0), table)


def test_the_cheap_tree_is_chosen_on_validation_images():
    found = perceptron(
        trees(
            (2, 1, 251.0, 1.0, 1.0),  # too dear
            (4, 1, 250.0, 12.0, 23.0),
            (4, 2, 249.0, 11.0, 24.5),
            (8, 1, 100.0, 13.0, 20.0),  # the best on test images
        )
    )
    lost, row = routes.cheap_tree(found, 4.0)
    assert lost == 4.5
    assert (row["routes"], row["evaluated"]) == (4, 2)
    assert routes.cheap_tree(found, 2.0)[0] == -19.0
    assert routes.cheap_tree(found, 10.0)[1]["routes"] == 8
    nothing, none = routes.cheap_tree(found, 11.0)
    assert math.isnan(nothing)
    assert none.empty


def test_digits_and_clothes_of_each_cluster_are_counted():
    found = perceptron(trees(), {2: np.array([0, 0, 1, 1, 1, 0])})
    assert routes.kinds_of_clusters(found, 2) == "2+1, 1+2"


def test_a_perceptron_at_tiny_size():
    found = routes.perceptron(1, PARAMS)
    assert found.correlation.shape == (routes.FEATURES, 80)
    assert found.dense[0] == 128 * 80 + 80
    assert {r: sorted(set(members)) for r, members in found.clusters.items()} == {
        r: list(range(r)) for r in routes.ROUTES
    }
    assert len(found.trees) == sum(routes.ROUTES)
    for number, of in found.trees.groupby("routes"):
        router, sizes = 129 * number, np.bincount(found.clusters[number])
        assert of["evaluated"].tolist() == list(range(1, number + 1))
        for part in ("validation", "test"):
            macs = of[f"{part} MACs"].to_numpy()
            assert macs[-1] == pytest.approx(router + 129 * 80), "all routes and the router"
            assert (np.diff(macs) > 0).all()
            assert router + 129 * sizes.min() <= macs[0] <= router + 129 * sizes.max()


# ---- the models in between -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "channels"), [(14, 1), (8, 3), (9, 1)])
@pytest.mark.parametrize("top", [1, 2, 4, None])
def test_operations_of_the_routed_network_are_those_of_every_image_added_up(side, channels, top):
    network = routes.SmallNetwork(5, in_channels=channels, side=side, routes=4, seed=3).eval()
    images = torch.randn(37, channels, side, side, generator=torch.Generator().manual_seed(side))
    with torch.inference_mode():  # spread the images over the routes, or one of them takes all
        means = network.stem(images).flatten(2).mean(dim=2)
        linear = network.middle.router.linear
        linear.weight.div_(means.std(dim=0).clamp_min(1e-3))
        linear.bias.copy_(-linear.weight @ means.mean(dim=0))
        network.middle.top = top
        for batch in images.split(10):
            network(batch)
        shares = network.middle.router(network.stem(images))
    half, quarter = -(-side // 2), -(-side // 4)
    conv = {name: 9 * c * d * s**2 + d for name, c, d, s in (("stem", channels, 16, side), ("route", 16, 32, half))}
    route = conv["route"] + 32 * quarter**2 * 32 + 32
    total = 0
    for row in shares:
        total += conv["stem"] + (16 * 4 + 4) + (32 * 5 + 5)
        total += sum(route for _ in sorted(row, reverse=True)[: top or 4])
    assert network.macs == pytest.approx(total / 37)
    assert (network.middle.frequencies > 0).all()


def test_routes_of_unequal_cost_count_by_how_often_they_are_taken():
    network = routes.SmallNetwork(5, in_channels=1, side=8, routes=2, seed=0).eval()
    network.middle.routes[1] = nn.Sequential(nn.Flatten(), nn.Linear(16 * 4 * 4, 32))
    network.middle.top = 1
    linear = network.middle.router.linear
    with torch.inference_mode():
        linear.weight.zero_()
        for wanted, count in ((0, 3), (1, 9)):
            linear.bias.copy_(torch.tensor([1.0, 0.0] if wanted == 0 else [0.0, 1.0]))
            network(torch.zeros(count, 1, 8, 8))
    dear = 9 * 16 * 32 * 16 + 32 + 32 * 4 * 32 + 32
    shared = 9 * 16 * 64 + 16 + 2 * 17 + 5 * 33
    assert network.macs == pytest.approx(shared + (3 * dear + 9 * (256 * 32 + 32)) / 12)


def test_the_plain_network_is_as_wide_as_four_routes_and_counted_whole():
    plain = routes.SmallNetwork(10, in_channels=1, side=14, routes=None, seed=0)
    wide = 4 * 32
    expected = 9 * 16 * 14**2 + 16 + 9 * 16 * wide * 7**2 + wide + wide * 16 * wide + wide + 10 * (wide + 1)
    assert plain.macs == expected


def test_the_models_between_tree_and_network():
    found = routes.models_between(1, PARAMS)
    names = ["decision tree", "forest of 20", "perceptron tree, 1 of 4", *(f"routed, {k} of 4" for k in (1, 2, 3, 4))]
    assert [model.name for model in found] == [*names, "plain network"]
    assert all(0 < model.error <= 100 and model.seed == 1 for model in found)
    macs = {model.name: model.macs for model in found}
    steps = np.diff([macs[f"routed, {k} of 4"] for k in (1, 2, 3, 4)])
    half, quarter = 7, 4
    np.testing.assert_allclose(steps, 9 * 16 * 32 * half**2 + 32 + 32 * quarter**2 * 32 + 32)
    below, router, largest = 196 * 64 + 64, 65 * 4, 65 * 7  # four clusters of ten classes
    assert below + router + 65 <= macs["perceptron tree, 1 of 4"] <= below + router + largest
    assert macs["decision tree"] < 100 < macs["forest of 20"] < macs["perceptron tree, 1 of 4"] < macs["plain network"]
    sets = draw_sets(PARAMS.sizes, 1)
    images, labels = sets.test
    for model in found:
        wrong = (np.asarray(model.answer(images)) != labels).mean()
        assert model.error == pytest.approx(100 * wrong), "what is timed is what was judged"
    times = routes.timed(found, PARAMS)
    assert times.shape == (PARAMS.repeats, len(found))
    assert times.columns.tolist() == [model.name for model in found]
    assert (times > 0).all(axis=None)


def test_times_are_microseconds_an_image_and_the_first_turn_is_left_out(monkeypatch):
    asked = []
    ticks = iter(np.cumsum([5.0] * 5 + [1.0, 0.064, 1.0, 0.128] * 3 + [1.0]).tolist())
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(ticks))
    models = [
        routes.Model(name, "kind", 1, 0.0, 0.0, lambda images, name=name: asked.append((name, len(images))))
        for name in "ab"
    ]
    times = routes.timed(models, PARAMS)
    np.testing.assert_allclose(times.to_numpy(), [[1000.0, 2000.0]] * 3)
    assert asked == [("a", 64), ("b", 64)] * 4


def test_the_table_of_models_groups_by_model_over_seeds():
    def model(name, kind, seed, error, macs):
        return routes.Model(name, kind, seed, error, macs, lambda images: None)

    models = [
        [model("plain", "network", 1, 10.0, 100.0), model("tree", "tree", 1, 30.0, 8.0)],
        [model("plain", "network", 2, 14.0, 100.0), model("tree", "tree", 2, 33.0, 12.0)],
        [model("plain", "network", 3, 18.0, 100.0), model("tree", "tree", 3, 24.0, 10.0)],
    ]
    times = pd.DataFrame({"plain": [5.0, 1.0, 90.0], "tree": [1.0, 3.0, 2.0]})
    table = routes.between_table(models, times)
    assert table.to_dict("records") == [
        {
            **{"name": "plain", "kind": "network", "error mean": 14.0, "error min": 10.0, "error max": 18.0},
            **{"MACs": 100.0, "microseconds": 5.0},
        },
        {
            **{"name": "tree", "kind": "tree", "error mean": 29.0, "error min": 24.0, "error max": 33.0},
            **{"MACs": 10.0, "microseconds": 2.0},
        },
    ]
