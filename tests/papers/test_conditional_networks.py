"""Experiments on conditional networks at tiny sizes: counts, searches and comparisons on answers known beforehand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin.errors import ParameterError
from papertwin.nets import comparing, nin64, vgg
from papertwin.nets.conditional import EnsembleCurve, oversampled_views
from papertwin.papers import conditional_networks as paper
from papertwin.training.pool import Pool
from papertwin.training.trials import SetSizes, Trial, draw_sets

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


# ---- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 7}, "side is 7; it must be at least 8"),
        (
            {"seeds": 1},
            "seeds is 1; it must be at least 2: claims over seeds need intervals, which are drawn from 3 on",
        ),
        ({"halvings": 0}, "halvings is 0; it must be at least 1"),
        ({"union_images": 799}, "union_images is 799; it must be at least 800: ten for each of 80 classes"),
        ({"union_images": 20_001}, "union_images is 20001; it can be at most 20,000"),
        ({"processes": -1}, "processes is -1; it must be at least 0"),
        ({"dataset": "letters"}, "dataset is 'letters'; it must be fashion_mnist, mnist, "),
        ({"search": "grid"}, "search is 'grid'; it must be random or bayesian"),
    ],
)
def test_parameters_that_no_experiment_can_use(change, message):
    with pytest.raises(ParameterError, match=message):
        replace(PARAMS, **change)


def test_parameters_become_sizes_seeds_and_settings():
    params = replace(PARAMS, seed=5, seeds=3, epochs=7)
    assert list(params.every_seed) == [6, 7, 8]
    assert params.sizes == SetSizes("fashion_mnist", 14, 100, 60, 80)
    assert (params.settings["epochs"], params.settings["device"]) == (7, "cpu")
    assert replace(PARAMS, processes=3).open_pool().processes == 3
    assert replace(PARAMS, processes=0).open_pool().processes >= 1


# ---- full-size networks ----------------------------------------------------------------------------------------------


def test_every_published_count_is_rebuilt_exactly():
    table = paper.counts_table()
    assert len(table) == 11
    assert table["exact"].all()
    for kind in ("macs", "params"):
        assert (table[kind] == table[f"published_{kind}"]).all()
    assert table.loc["VGG11 stride1", ["params", "macs"]].tolist() == [132_863_336, 7_609_101_992]
    assert table.loc["CIFAR optimal conditional", ["params", "macs"]].tolist() == [125_226, 36_527_562]
    assert table.loc["VGG11 stride1", "top-5 error"] == pytest.approx(13.83, abs=0.01)
    assert table.loc["CIFAR NiN-64", "error"] == pytest.approx(11.24, abs=0.01)
    cifar = table.index.str.startswith("CIFAR")
    assert (table["top-5 error"].isna() == cifar).all()
    assert (table["error"].isna() == ~cifar).all()
    drawn = paper.imagenet(table)
    assert drawn.index.tolist() == table.index[~cifar].tolist()
    assert drawn["name"].tolist()[:4] == ["VGG11", "VGG-11 GMP", "Cond. Network", "Cond. Network"]
    assert drawn["stride"].tolist() == [1, 1, 1, 2, 4, 2, 4]


def test_a_count_that_differs_is_not_called_exact(monkeypatch):
    table = paper.rebuilt_table(paper.CARD)
    changed = table.assign(
        macs=table["macs"] + (table["network"] == "CIFAR NiN"), exact=table["network"] != "CIFAR NiN"
    )
    monkeypatch.setattr(paper, "rebuilt_table", lambda card: changed)
    found = paper.counts_table()
    assert found.index[~found["exact"]].tolist() == ["CIFAR NiN"]


def test_the_variant_of_the_text_is_exact():
    assert paper.wide_variant() == 36_657_000


# ---- small VGG, ensemble ---------------------------------------------------------------------------------------------


def test_the_small_networks_differ_as_those_of_the_paper():
    built = {name: build(10, in_channels=1, seed=0) for name, build in paper.small_vggs(PARAMS).items()}
    assert list(built) == ["plain", "GMP", "conditional"]
    maps = torch.zeros(2, 1, 14, 14)
    assert all(model.eval()(maps).shape == (2, 10) for model in built.values())
    groups = {name: [layer.groups for layer in model if isinstance(layer, nn.Conv2d)] for name, model in built.items()}
    assert groups == {"plain": [1] * 8, "GMP": [1] * 8, "conditional": [1, 1, 2, 2, 4, 4, 8, 8]}
    last = {name: dict(model.named_children())["conv5-2"].out_channels for name, model in built.items()}
    assert last == {"plain": 64, "GMP": 64, "conditional": 128}
    pooled = [name for name, model in built.items() if any(isinstance(layer, nn.AdaptiveMaxPool2d) for layer in model)]
    assert pooled == ["GMP", "conditional"]
    parameters = {name: sum(p.numel() for p in model.parameters()) for name, model in built.items()}
    assert parameters["plain"] > parameters["GMP"]


def curve(first: float, second: float) -> EnsembleCurve:
    nothing = np.zeros(0)
    return EnsembleCurve(nothing, nothing, nothing, nothing, ((1.0, first), (10.0, second)))


@pytest.mark.parametrize(
    ("first", "second", "reached", "share"),
    [(0.2, 0.1, 0.15, 0.5), (0.2, 0.1, 0.1, 1.0), (0.2, 0.1, 0.2, 0.0), (0.2, 0.1, 0.05, 1.5), (0.2, 0.1, 0.25, -0.5)],
)
def test_the_share_of_the_fall_by_hand(first, second, reached, share):
    assert paper.Ensemble(curve(first, second), (4.2, reached)).share_of_fall == pytest.approx(share)


@pytest.mark.parametrize("second", [0.1, 0.2])
def test_where_nothing_falls_there_is_no_share(second):
    assert math.isnan(paper.Ensemble(curve(0.1, second), (4.2, 0.1)).share_of_fall)


def test_random_views_are_views_of_their_own_image_and_drawn_by_the_seed():
    images = np.random.default_rng(0).random((200, 1, 6, 6)).astype(np.float32)
    drawn = paper.random_views(images, 4, [1, 2])
    views = np.stack([view.numpy() for view in oversampled_views(torch.from_numpy(images), 4, shift=paper.SHIFT)])
    number = [[np.array_equal(view, one) for view in views[:, k]].index(True) for k, one in enumerate(drawn)]
    assert np.bincount(number, minlength=4).min() > 25
    assert np.array_equal(drawn, paper.random_views(images, 4, [1, 2]))
    assert not np.array_equal(drawn, paper.random_views(images, 4, [1, 3]))
    assert np.array_equal(paper.random_views(images, 1, [0]), images)


def test_the_ensemble_chooses_without_the_test_labels(monkeypatch):
    params = replace(PARAMS, train_images=500, check_images=400, test_images=300, epochs=2)
    found = paper.ensemble(1, params)
    assert [cost for cost, _ in found.curve.ends] == [1, 3]
    assert len(found.curve.cost) > 100, "images differ in what they gain"
    assert found.chosen in list(zip(found.curve.cost, found.curve.error)), "a point of the curve of test images"
    assert 1.2 < found.chosen[0] < 2.5, "0.36 of the way from 1 to 3 on validation images"
    sets = draw_sets(params.sizes, 1)
    model = paper.small_vggs(params)["plain"](10, in_channels=1, seed=0)
    router = 2 * (model[-1].in_features + 1) / paper.count(model, sets.shape).macs
    assert found.curve.cost[0] == pytest.approx(1 + router)
    assert found.curve.cost[-1] == pytest.approx(3 + router)
    wrong = replace(sets, test=(sets.test[0], (sets.test[1] + 1) % 10))
    monkeypatch.setattr(paper, "draw_sets", lambda sizes, seed: wrong)
    again = paper.ensemble(1, params)
    assert again.chosen[0] == found.chosen[0]
    assert again.chosen[1] > found.chosen[1]
    images, labels = (np.concatenate([each[:200], np.repeat(each[:1], 200, axis=0)]) for each in sets.check)
    wrong = replace(sets, check=(images, labels))
    once_more = paper.ensemble(1, params)
    assert np.array_equal(once_more.curve.cost, found.curve.cost)
    assert np.array_equal(once_more.curve.error, found.curve.error), "the router learns on the first half only"
    assert once_more.chosen[0] != found.chosen[0], "the second half sets the threshold"


# ---- the search ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
def test_search_spaces_hold_networks_that_can_be_built(width):
    groups, filters = paper.search_spaces(replace(PARAMS, width=width, halvings=4))
    assert (len(groups.allowed), len(filters.allowed)) == (8, 9)
    assert groups.channels == tuple(paper.pairwise(filters.widths))
    rng = np.random.default_rng(0)
    with torch.device("meta"):
        for vector in [tuple(layer[-1] for layer in groups.allowed), *groups.sample(5, rng)]:
            layers = [
                each for each in nin64(groups=groups.groups(vector), width=width, seed=0) if hasattr(each, "groups")
            ]
            assert [layer.groups for layer in layers] == [1, *(2**e for e in vector), 1]
        for vector in [tuple(layer[-1] for layer in filters.allowed), *filters.sample(5, rng)]:
            layers = [
                each for each in nin64(divisors=[2**e for e in vector], width=width, seed=0) if hasattr(each, "groups")
            ]
            wanted = np.array(filters.widths) / 2.0 ** np.array(vector)
            assert np.abs(np.array([layer.out_channels for layer in layers[:-1]]) - wanted).max() < 1
    assert [layer[0] for layer in (*groups.allowed, *filters.allowed)] == [0] * 17
    assert all(layer == (0, 1, 2, 3, 4) for layer in filters.allowed)


def test_the_published_optimum_is_in_the_space_at_full_width_only():
    exponents = [int(math.log2(each)) for each in paper.OPTIMUM]
    assert exponents in paper.search_spaces(replace(PARAMS, width=1.0))[0]
    assert exponents not in paper.search_spaces(PARAMS)[0]
    limits = [2 ** layer[-1] for layer in paper.search_spaces(PARAMS)[0].allowed]
    assert all(limit <= most for limit, most in zip(limits, paper.GROUP_LIMITS))


@pytest.fixture
def untrained(monkeypatch):
    """Trials without a training; a list of those that were asked for."""
    asked = []

    def train_trial(name, build, seed, sizes, **settings):
        asked.append((name, seed))
        model = build(10, in_channels=1, seed=seed).eval()
        logits = np.random.default_rng([seed, len(name)]).random((40, 10))
        labels = np.arange(40) % 10
        return Trial(name, seed, model, logits, logits[:30], labels, labels[:30], 1.0)

    for module in (paper, comparing):
        monkeypatch.setattr(module, "train_trial", train_trial)
    return asked


@pytest.mark.parametrize("search", ["random", "bayesian"])
def test_both_searches_train_every_network_once_a_seed_and_as_many_of_either_kind(untrained, search):
    params = replace(PARAMS, search=search, candidates=4)
    trials = paper.searched(params, Pool(1))
    names = sorted({trial.name for trial in trials})
    assert sorted((trial.name, trial.seed) for trial in trials) == [(name, seed) for name in names for seed in (1, 2)]
    kinds = [name.split()[0] for name in names]
    assert (kinds.count("filters"), kinds.count("NiN-64")) == (4, 1)
    assert kinds.count("groups") in ((4, 5) if search == "bayesian" else (4,))
    assert len([each for each in untrained if not each[0].endswith("1/1/1/1/1/1/1/1")]) == len(trials)
    for trial in trials:
        layers = [layer for layer in trial.model if isinstance(layer, nn.Conv2d)]
        groups = [layer.groups for layer in layers]
        if trial.name.startswith("groups"):
            assert groups == [1, *map(int, trial.name.split()[1].split("/")), 1]
        else:
            assert set(groups) == {1}
        if trial.name.startswith("filters"):
            parts = [int(part) for part in trial.name.split()[1].split("/")]
            full = [layer.out_channels for layer in nin64(width=params.width, seed=0) if isinstance(layer, nn.Conv2d)]
            assert all(abs(a.out_channels - b / p) < 1 for a, b, p in zip(layers, full, parts))
            assert max(parts) <= 2**params.halvings
    table = paper.search_table(trials, params)
    assert len(table) == len(trials)
    assert set(table["search"]) == {"groups", "filters", "NiN-64"}
    first = next(trial for trial in trials if trial.name == "NiN-64" and trial.seed == 1)
    row = table[(table["network"] == "NiN-64") & (table["seed"] == 1)].iloc[0]
    assert row["test error"] == pytest.approx(100 * first.test_error)
    assert row["validation error"] == pytest.approx(100 * first.check_error)
    weights = [p.numel() for layer in first.model if isinstance(layer, nn.Conv2d) for p in layer.parameters()]
    assert row["bytes"] == 4 * sum(weights)
    assert paper.chosen(table).startswith("groups")


def test_the_bayesian_search_maximises_validation_accuracy_per_byte_and_its_trials_are_kept(untrained, monkeypatch):
    vectors, values = [(0,) * 8, (1,) * 8, (2, 1, 1, 1, 1, 1, 1, 1)], []

    def search(space, value, evaluations, seed):
        assert (evaluations, seed) == (PARAMS.candidates + 1, PARAMS.first_seed)
        values.extend(value(vector) for vector in vectors)

    monkeypatch.setattr(paper, "bayesian_search", search)
    trials = paper.searched(replace(PARAMS, search="bayesian"), Pool(1))
    names = {trial.name for trial in trials if not trial.name.startswith("filters")}
    assert names == {"NiN-64", "groups 2/2/2/2/2/2/2/2", "groups 4/2/2/2/2/2/2/2"}, "without groups it is NiN-64"
    assert untrained.count(("groups 2/2/2/2/2/2/2/2", 1)) == untrained.count(("groups 2/2/2/2/2/2/2/2", 2)) == 1
    trial = next(trial for trial in trials if trial.name.startswith("groups 4") and trial.seed == 1)
    assert trial.check_error != trial.test_error
    assert values[2] == (1 - trial.check_error) / paper.costs(trial, PARAMS)[1]


def test_trials_that_are_known_are_not_repeated(untrained):
    builders = {"a": paper.partial(vgg, width=1 / 64, side=14), "b": paper.partial(vgg, width=1 / 64, side=14)}
    known = [SimpleNamespace(name="b", seed=1)]
    found = paper.train_all(builders, PARAMS, Pool(1), known)
    assert untrained == [("a", 1), ("a", 2), ("b", 2)]
    assert [(each.name, each.seed) for each in found] == [("b", 1), ("a", 1), ("a", 2), ("b", 2)]


def test_the_networks_of_cifar_need_cifar_at_its_own_size(monkeypatch):
    asked = []
    monkeypatch.setattr(paper, "train_all", lambda builders, params, pool: asked.append(builders) or ["trained"])
    assert (
        paper.cifar_networks(PARAMS, None)
        == paper.cifar_networks(replace(PARAMS, dataset="cifar10", side=16), None)
        == []
    )
    assert paper.cifar_networks(replace(PARAMS, dataset="cifar10", side=32), None) == ["trained"]
    table = paper.counts_table()
    for name, build in asked[0].items():
        with torch.device("meta"):
            counts = paper.count(build(10, in_channels=3, seed=0), (3, 32, 32))
        assert (counts.params, counts.macs) == tuple(table.loc[name, ["params", "macs"]])


def searches(*rows, seed=1):
    columns = ["network", "search", "MACs", "validation error", "test error"]
    return pd.DataFrame(rows, columns=columns).assign(seed=seed, bytes=1000)


GROUPED = [
    ("NiN-64", "NiN-64", 1000, 10.0, 12.0),
    ("groups a", "groups", 100, 20.0, 22.0),
    ("groups b", "groups", 500, 30.0, 5.0),  # beaten by a, though not on test images
]


def test_the_price_of_shrinking_by_hand():
    halfway = round(math.sqrt(100 * 1000))  # in log MACs: the line stands at 17
    fewer = [
        ("filters 1", "filters", halfway, 20.0, 20.0),
        ("filters 2", "filters", 1000, 15.0, 13.0),
        ("filters 3", "filters", 50, 25.0, 90.0),  # cheaper than any grouped one
        ("filters 4", "filters", 400, 21.0, 90.0),  # beaten by filters 1
        ("filters 5", "filters", 1001, 1.0, 90.0),  # dearer than any grouped one
    ]
    table = pd.concat([searches(*GROUPED, *fewer), searches(*GROUPED, *fewer[2:3], seed=2)])
    prices, numbers = paper.price_of_shrinking(table.sample(frac=1, random_state=0))
    assert prices[0] == pytest.approx(((20 - 17) + (13 - 12)) / 2, abs=0.01)
    assert math.isnan(prices[1])
    assert numbers.tolist() == [2, 0]


def test_the_line_is_level_beyond_the_front_but_ends_with_the_grouped_networks():
    grouped = [("groups a", "groups", 100, 20.0, 22.0), ("groups b", "groups", 500, 5.0, 9.0)]
    grouped += [("NiN-64", "NiN-64", 1000, 10.0, 12.0)]  # beaten by b
    prices, numbers = paper.price_of_shrinking(searches(*grouped, ("filters 1", "filters", 800, 8.0, 14.0)))
    assert (prices.tolist(), numbers.tolist()) == ([14 - 9], [1])
    alone, _ = paper.price_of_shrinking(searches(grouped[1], ("filters 1", "filters", 500, 8.0, 14.0)))
    assert alone.tolist() == [5]


def test_the_chosen_network_is_the_nearest_to_the_origin_of_means():
    cheap, good = ("groups cheap", "groups", 100, 30.0, 0.0), ("groups good", "groups", 1000, 10.0, 0.0)
    between = ("groups between", "groups", 300, 14.0, 0.0)
    table = pd.concat([searches(cheap, good, between, ("NiN-64", "NiN-64", 1, 0.0, 0.0), seed=seed) for seed in (1, 2)])
    assert paper.chosen(table) == "groups between"
    table.loc[(table["network"] == "groups between") & (table["seed"] == 2), "validation error"] = 80.0
    assert paper.chosen(table) == "groups cheap"
