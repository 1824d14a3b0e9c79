"""Experiments of low-rank filters at tiny sizes: counts, architectures, first weights and times on known answers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin.errors import InputError, ParameterError
from papertwin.figures import costs
from papertwin.nets import Composite, comparing, count
from papertwin.papers import low_rank_filters as paper
from papertwin.training.pool import Pool

PARAMS = paper.Params(
    train_images=100,
    check_images=60,
    test_images=80,
    epochs=1,
    seeds=2,
    sweep_seeds=5,
    rounds=3,
    processes=1,
    device="cpu",
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 7}, "side is 7; it must be at least 8"),
        ({"seeds": 1}, "seeds is 1; it must be at least 2"),
        ({"sweep_seeds": 4}, "sweep_seeds is 4; it must be at least 5"),
        ({"rounds": 2}, "rounds is 2; it must be at least 3"),
        ({"dataset": "letters"}, "dataset is 'letters'; it must be fashion_mnist, mnist, "),
        ({"side": 12}, "side is 12; it must divide the 28 pixels of fashion_mnist"),
        (
            {"train_images": 59_941},
            "train_images is 59941; it can be at most 59,940, what check_images leaves of the 60,000",
        ),
        ({"test_images": 10_001}, "test_images is 10001; fashion_mnist has 10,000"),
        ({"seed": -1}, "seed is -1; it must be from 0 to"),
        ({"width": 0.0}, "width is 0.0; it is a share of the full width, above 0"),
        ({"vgg_width": 4.5}, "vgg_width is 4.5; it is a share of the full width, above 0 and at most 4"),
    ],
)
def test_parameters_that_no_experiment_can_use(change, message):
    with pytest.raises(ParameterError, match=message):
        replace(PARAMS, **change)


def test_parameters_become_seeds():
    assert list(replace(PARAMS, seed=5, seeds=3).every_seed) == [6, 7, 8]
    assert not PARAMS.at_full_size


def test_full_size_is_that_of_data_images_and_networks():
    full = replace(PARAMS, dataset="cifar10", side=32, width=1.0, train_images=45000, check_images=5000, epochs=300)
    assert full.at_full_size
    less = [{"train_images": 44_000}, {"epochs": 299}]
    for change in ({"side": 16}, {"width": 0.5}, {"dataset": "mnist", "side": 28}, *less):
        assert not replace(full, **change).at_full_size


# ---- full size -------------------------------------------------------------------------------------------------------


def test_every_count_that_can_be_rebuilt_is_exact():
    sizes = {"": 10, "MIT Places ": 4, "GoogLeNet ": 3, "CIFAR ": 3, "sota-aug ": 11}
    tables = {prefix: paper.results(prefix) for prefix in sizes}
    assert {prefix: len(table) for prefix, table in tables.items()} == sizes
    for prefix in ("", "MIT Places ", "GoogLeNet ", "CIFAR "):
        assert tables[prefix]["exact"].all()
    assert tables["sota-aug "]["exact"].sum() == 5
    vgg = tables[""].set_index("network")
    assert vgg.loc["gmp-lr", ["params", "macs"]].tolist() == [26_054_888, 2_518_134_440]
    assert vgg.loc["gmp", "top-5 error"] == pytest.approx(11.3)
    places = tables["MIT Places "].set_index("network")
    assert places.loc["gmp", "true_macs"] == pytest.approx(4 * places.loc["gmp", "macs"], abs=4)


PREFIXES = {
    "": [
        *("vgg-11", "gmp", "gmp-sf", "gmp-lr-join-wfull", "gmp-lr-join", "gmp-lr-2x", "gmp-lr", "gmp-lr-lde"),
        *("gmp stride2", "sf without global pooling"),
    ],
    "MIT Places ": ["gmp", "gmp-sf", "gmp-lr-join", "gmp-lr"],
    "GoogLeNet ": ["GoogLeNet", "lr", "lr-conv1"],
    "CIFAR ": ["NiN", "nin-c3", "nin-c3-lr"],
    "sota-aug ": [
        *("MSRA-C", "MSRA-B", "MSRA-A", "VGG-E", "VGG-D", "VGG-C", "VGG-B", "VGG-A", "GoogLeNet", "GoogLeNet"),
        "ResNet-50",
    ],
}


@pytest.mark.parametrize(
    ("prefix", "networks"), PREFIXES.items(), ids=lambda each: each if isinstance(each, str) else ""
)
def test_each_table_has_its_own_networks_and_no_others(prefix, networks):
    assert paper.results(prefix)["network"].tolist() == networks


@pytest.mark.parametrize(
    ("prefix", "network", "error", "first", "fifth"),
    [
        ("", "gmp", None, 31.5, 11.3),
        ("", "gmp-lr-2x", None, 30.6941, 11.0674),
        ("MIT Places ", "gmp", None, 47.4, 17.0),
        ("GoogLeNet ", "lr", None, 32.75, 12.044),
        ("CIFAR ", "NiN", 8.12, None, None),
        ("CIFAR ", "nin-c3-lr", 8.22, None, None),
        ("sota-aug ", "VGG-D", None, 27.0, 8.8),
    ],
)
def test_errors_are_what_accuracies_leave_of_100_per_cent(prefix, network, error, first, fifth):
    row = paper.results(prefix).set_index("network").loc[network]
    found = row[["error", "top-1 error", "top-5 error"]].tolist()
    wanted = [np.nan if each is None else each for each in (error, first, fifth)]
    assert found == pytest.approx(wanted, abs=1e-3, nan_ok=True)


def test_counts_are_by_the_rule_of_the_publication_and_those_of_one_image():
    columns = ["params", "macs", "true_params", "true_macs"]
    googlenet, places = (paper.results(each).set_index("network") for each in ("GoogLeNet ", "MIT Places "))
    assert googlenet.loc["GoogLeNet", columns].tolist() == [5_973_552, 1_591_056_680, 13_378_280, 1_591_056_680]
    assert places.loc["gmp-lr", columns].tolist() == [26_054_888, 629_533_610, 26_054_888, 2_518_134_440]


def test_places_as_they_were_trained():
    table = paper.places().set_index("network")
    assert table.loc["gmp", ["trained_macs", "trained_params"]].tolist() == [1_891_089_293, 28_942_925]
    assert table.loc["gmp-lr", ["trained_macs", "trained_params"]].tolist() == [643_513_229, 22_797_773]
    assert table.loc["gmp-lr-join", "trained_macs"] == 977_487_437
    assert table.loc["gmp-sf", ["trained_macs", "trained_params"]].tolist() == [1_684_112_973, 57_858_189]


def test_googlenets_on_equal_maps():
    table = paper.googlenets().set_index("network")
    assert table["equal_macs"].tolist() == [1_591_056_680, 1_075_046_696, 742_680_872]
    assert paper.googlenet_macs("C", "none") == paper.PLAIN_IN_C


def test_the_state_of_the_art_names_every_network_once():
    table = paper.state_of_the_art()
    assert table["network"].is_unique
    assert {"GoogLeNet-lr", "gmp-lr-2x", "alexnet", "VGG-D ×2", "GoogLeNet ×10", "GoogLeNet ×144"} <= set(
        table["network"]
    )
    assert table.groupby("kind").size().to_dict() == {"augmented": 11, "others": 3, "paper": 11}
    assert not table[["published_macs", "published_params", "top-5 error"]].isna().any(axis=None)


@pytest.mark.parametrize(
    ("network", "macs", "params", "error", "kind"),
    [
        ("gmp-lr-2x", 3_136_795_304, 31_298_792, 11.0674, "paper"),
        ("gmp stride2", 1_894_346_408, 32_200_040, 13.1459, "paper"),
        ("GoogLeNet-lr", 1_178_239_528, 3_503_664, 12.044, "paper"),
        ("GoogLeNet-lr-conv1", 837_542_440, 3_421_872, 13.0378, "paper"),
        ("alexnet", 724_417_384, 60_965_224, 18.14, "others"),
        ("vgg-11", 7_609_101_992, 132_863_336, 13.83, "others"),
        ("GoogLeNet", 1_591_056_680, 13_378_280, 11.7479, "others"),
        ("VGG-D ×2", 30_968_867_088, 138_357_544, 8.8, "augmented"),
        ("GoogLeNet ×144", 229_112_161_920, 13_378_280, 7.89, "augmented"),
        ("ResNet-50", 3_857_974_312, 25_503_976, 8.434, "augmented"),
    ],
)
def test_the_state_of_the_art_is_that_of_the_publications(network, macs, params, error, kind):
    row = paper.state_of_the_art().set_index("network").loc[network]
    assert row[["published_macs", "published_params", "kind"]].tolist() == [macs, params, kind]
    assert row["top-5 error"] == pytest.approx(error, abs=1e-3)


def test_architectures_are_read_off_the_layers():
    table = paper.architectures().set_index("layer")
    assert table.loc["conv1", "gmp-lr"] == "3×1,32 ‖ 1×3,32"
    assert table.loc["conv3-1", "gmp-sf"] == "1×3,256 → 3×1,256"
    assert table.loc["conv5-2", "gmp-lr-join-wfull"] == "3×1,384 ‖ 1×3,384 ‖ 3×3,256 → 1×1,1024"
    assert table.loc["conv1", "gmp-lr-lde"] == "3×1,48 /2 ‖ 1×3,48 /2 ‖ 3×3,16 /2 → 1×1,32"
    assert table.loc["fc8", "gmp"] == "fc 1000"


# ---- small networks --------------------------------------------------------------------------------------------------


def test_small_networks_are_the_counted_ones_made_narrow():
    for name, make in paper.small_vggs(PARAMS).items():
        model = make(10, in_channels=1, seed=0).eval()
        assert model(torch.zeros(2, 1, 14, 14)).shape == (2, 10)
        first = model.conv1
        if name == "gmp-lr-lde":
            assert (first.filters, next(iter(first.sets.values())).stride) == (4, (2, 2))
        elif isinstance(first, Composite):
            assert first.filters == 8
        else:
            assert not name.startswith("gmp-lr")
    wide, narrow = (paper.small_vggs(PARAMS)[name](10, in_channels=1, seed=0) for name in ("gmp-lr-2x", "gmp-lr"))
    assert (wide.get_submodule("conv5-2").filters, narrow.get_submodule("conv5-2").filters) == (128, 64)
    assert wide.conv1.filters == narrow.conv1.filters
    counts = [count(make(10, in_channels=1, seed=0), (1, 14, 14)).macs for make in paper.small_nins(PARAMS).values()]
    assert counts == sorted(counts, reverse=True)


def counts_on_meta(builders, classes, shape, **options):
    with torch.device("meta"):
        models = {name: make(classes, norm=False, seed=0, **options) for name, make in builders.items()}
    return {name: [count(model, shape).params, count(model, shape).macs] for name, model in models.items()}


def test_small_vggs_at_full_width_with_every_pool_are_the_published_ones():
    found = counts_on_meta(
        paper.small_vggs(replace(PARAMS, vgg_width=1.0)), 1000, (3, 224, 224), pools=(1, 2, 3, 4), side=224
    )
    published = paper.results().set_index("network").loc[list(paper.SCHEMES), ["params", "macs"]]
    assert len(found) == 8
    assert found == {name: [params, macs] for name, params, macs in published.itertuples()}


def test_small_nins_at_full_width_are_the_published_ones():
    found = counts_on_meta(paper.small_nins(replace(PARAMS, width=1.0)), 10, (3, 30, 30))
    published = paper.results("CIFAR ").set_index("network")[["params", "macs"]]
    assert list(found) == ["NiN", "nin-c3", "nin-c3-lr"]
    assert found == {name: [params, macs] for name, params, macs in published.itertuples()}


@pytest.mark.parametrize("name", paper.SCHEMES)
def test_small_vggs_are_normalised_and_have_two_pools_and_the_maximum_of_each_map(name):
    params = replace(PARAMS, side=28, vgg_width=0.25, width=0.5)
    make = paper.small_vggs(params)[name]
    model = make(10, in_channels=1, seed=0)
    layers = dict(model.named_children())
    assert [each for each, layer in layers.items() if isinstance(layer, nn.MaxPool2d)] == ["pool1", "pool3"]
    assert isinstance(layers["pool5"], nn.AdaptiveMaxPool2d)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers.values()) == 8
    assert layers["fc6"].out_features == 1024
    assert layers["conv1_norm"].num_features == (8 if name == "gmp-lr-lde" else 16)
    assert make.keywords["side"] == 28


@pytest.mark.parametrize("name", paper.NIN)
def test_small_nins_are_normalised_and_as_wide_as_the_parameters_say(name):
    model = paper.small_nins(replace(PARAMS, width=0.5, vgg_width=0.25))[name](10, in_channels=1, seed=0)
    norms = [layer.num_features for layer in model if isinstance(layer, nn.BatchNorm2d)]
    assert norms == [96, 80, 48, *([96] * (5 if name == "NiN" else 6))]


def test_every_network_is_of_one_family_and_is_counted_on_its_own_images(monkeypatch):
    names = [*paper.SCHEMES, *paper.NIN]
    asked = []

    def table(trials, shape):
        asked.append((trials, shape))
        return pd.DataFrame({"network": trials, "seed": 1})

    monkeypatch.setattr(comparing, "trial_table", table)
    found = paper.trial_table(names, replace(PARAMS, dataset="cifar10", side=16))
    assert asked == [(names, (3, 16, 16))]
    assert found.columns.tolist() == ["network", "family", "seed"]
    assert found["network"].tolist() == names
    assert found["family"].tolist() == ["VGG"] * 8 + ["NiN"] * 3


def test_trials_have_families_costs_and_times(monkeypatch):
    vggs, nins = paper.small_vggs(PARAMS), paper.small_nins(PARAMS)
    monkeypatch.setattr(paper, "small_vggs", lambda params: {"gmp-lr": vggs["gmp-lr"]})
    monkeypatch.setattr(paper, "small_nins", lambda params: {"nin-c3": nins["nin-c3"]})
    trials = paper.train_all(PARAMS, Pool(1))
    table = paper.trial_table(trials, PARAMS)
    assert table[["family", "network", "seed"]].to_numpy().tolist() == [
        *(["VGG", "gmp-lr", 1], ["NiN", "nin-c3", 1], ["VGG", "gmp-lr", 2], ["NiN", "nin-c3", 2])
    ]
    assert (comparing.trial_times(trials, PARAMS, PARAMS.rounds) > 0).all()
    plan = paper.plan(PARAMS)
    assert (plan["trainings"], plan["optimiser steps"]) == (4, 8)


def test_published_points_stand_where_our_network_does():
    printed = pd.DataFrame(
        {
            "network": ["b", "a", "c"],
            "macs": [50, 100, None],
            "params": [7, 14, 28],
            "error": [2.0, 1.0, 3.0],
            "top-5 error": [20.0, 10.0, 30.0],
        }
    )
    points = costs.PublishedPoints.scaled(printed, "macs", "error", "CIFAR-10", "a", 3.0)
    assert (points.cost, points.error, points.dataset, points.names) == (
        *([1.5, 3.0], [2.0, 1.0], "CIFAR-10", ["b", "a"]),
    )
    points = costs.PublishedPoints.scaled(printed, "params", "top-5 error", "ImageNet", "c", 1.0)
    assert (points.cost, points.error, points.names) == ([0.25, 0.5, 1.0], [20.0, 10.0, 30.0], ["b", "a", "c"])
    with pytest.raises(InputError, match="No row has the macs and error of 'c'; there are b, a"):
        costs.PublishedPoints.scaled(printed, "macs", "error", "CIFAR-10", "c", 1.0)
