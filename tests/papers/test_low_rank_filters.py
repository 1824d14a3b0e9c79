"""Experiments of low-rank filters at tiny sizes: counts, architectures, first weights and times on known answers."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin.errors import DivergenceError, InputError, ParameterError
from papertwin.figures import costs
from papertwin.nets import Composite, build, comparing, count, timing
from papertwin.nets.deep import deep_net
from papertwin.nets.variances import layer_variances
from papertwin.papers import low_rank_filters as paper
from papertwin.training import clock
from papertwin.training.loop import single_thread
from papertwin.training.pool import Pool
from papertwin.training.trials import Sets

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


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with single_thread():
        yield


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 7}, "side is 7; it must be at least 8"),
        ({"seeds": 1}, "seeds is 1; it must be at least 2"),
        ({"sweep_seeds": 4}, "sweep_seeds is 4; it must be at least 5"),
        ({"rounds": 2}, "rounds is 2; it must be at least 3"),
        ({"dataset": "letters"}, "dataset is 'letters'; expected one of .*fashion_mnist"),
        ({"side": 12}, "side is 12; it must divide the 28"),
        ({"width": 0.0}, "width is 0.0; expected a share above 0"),
        ({"vgg_width": 4.5}, "vgg_width is 4.5; expected a share above 0"),
    ],
)
def test_parameters_that_no_experiment_can_use(change, message):
    with pytest.raises(ParameterError, match=message):
        replace(PARAMS, **change)


def test_parameters_become_seeds_and_stamps():
    assert list(replace(PARAMS, seed=5, seeds=3).every_seed) == [6, 7, 8]
    assert PARAMS.stamp("ImageNet") == "Fashion-MNIST in place of ImageNet"
    assert not PARAMS.at_full_size


def test_full_size_is_that_of_data_images_and_networks():
    full = replace(PARAMS, dataset="cifar10", side=32, width=1.0)
    assert full.at_full_size
    for change in ({"side": 16}, {"width": 0.5}, {"dataset": "mnist", "side": 28}):
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


# ---- first weights ---------------------------------------------------------------------------------------------------


def test_the_fall_is_that_from_the_first_to_the_last_layer():
    rows = [
        (rule, seed, place, 2.0 ** (step * place))
        for rule, step in zip(paper.RULES, (0.0, 1, -2, 3))
        for seed in (1, 2)
        for place in range(1, 11)
    ]
    table = pd.DataFrame(rows, columns=["rule", "seed", "place", "gradient"])
    falls = paper.fall(table)
    assert falls.index.tolist() == list(paper.RULES)
    assert np.allclose(falls[1], [0, 9, 18, 27])
    table.loc[(table["rule"] == "0.01") & (table["place"] == 1), "gradient"] = 0.0
    assert np.isinf(paper.fall(table).loc["0.01"]).all()


def test_rules_of_first_weights_by_their_names():
    assert paper.RULES == {"shared": "shared", "own": "own", "torch": "stock", "0.01": 0.01}


def test_a_sweep_has_every_rule_every_seed_and_every_layer(monkeypatch):
    asked = []

    def variances(net, images, *, seed):
        asked.append((net, tuple(images.shape), seed))
        values = np.arange(paper.DEPTH + 1.0)
        return pd.DataFrame({"layer": values, "activation": values + seed, "gradient": values - seed})

    monkeypatch.setattr(paper, "deep_net", lambda **options: options)
    monkeypatch.setattr(paper, "layer_variances", variances)
    table = paper.sweep(replace(PARAMS, seed=40, sweep_seeds=6, seeds=3), Pool(1))
    seeds = [paper.SWEEP_FIRST + 40 + number for number in range(6)]
    tasks = [(rule, seed) for rule in paper.RULES for seed in seeds]
    assert table[["rule", "seed", "place"]].to_numpy().tolist() == [
        [rule, seed, place] for rule, seed in tasks for place in range(1, paper.DEPTH + 1)
    ]
    assert (table["activation"] == table["place"] - 1 + table["seed"]).all()
    assert (table["gradient"] == table["place"] - 1 - table["seed"]).all()
    options = {"depth": paper.DEPTH, "filters": paper.FILTERS, "pools": ()}
    shape = (paper.SWEEP_IMAGES, 1, paper.SWEEP_SIDE, paper.SWEEP_SIDE)
    assert asked == [({**options, "sigma": paper.RULES[rule], "seed": seed}, shape, seed) for rule, seed in tasks]


@pytest.mark.parametrize(("rule", "sigma"), [("own", "own"), ("torch", "stock"), ("0.01", 0.01)])
def test_a_sweep_is_of_standard_normal_images_and_networks_of_its_seed(monkeypatch, rule, sigma):
    monkeypatch.setattr(paper, "RULES", {rule: sigma})
    monkeypatch.setattr(paper, "SWEEP_IMAGES", 3)
    table = paper.sweep(replace(PARAMS, seed=7), Pool(1))
    seed = paper.SWEEP_FIRST + 7 + 4
    found = table[table["seed"] == seed]
    images = torch.randn(3, 1, paper.SWEEP_SIDE, paper.SWEEP_SIDE, generator=torch.Generator().manual_seed(seed))
    net = deep_net(depth=paper.DEPTH, filters=paper.FILTERS, sigma=sigma, pools=(), seed=seed)
    wanted = layer_variances(net, images, seed=seed)
    assert wanted["kind"].tolist() == ["composite"] * paper.DEPTH + ["fc"]
    for column in ("activation", "gradient"):
        assert found[column].tolist() == pytest.approx(wanted[column].tolist()[: paper.DEPTH], rel=1e-9)


def test_variances_of_ten_layers_tell_the_rules_apart():
    table = paper.sweep(PARAMS, Pool(1))
    assert len(table) == len(paper.RULES) * 5 * paper.DEPTH
    falls = paper.fall(table)
    assert (falls.loc["shared"] < 2).all()
    assert (falls.drop(index="shared") > 8).all(axis=None)


def test_a_start_that_diverges_counts_as_guessing(monkeypatch):
    def fit(net, images, labels, *, progress, **settings):
        assert settings["rate"] == paper.SWEEP_RATE
        progress(1, 2.5)
        raise paper.DivergenceError("The loss is nan")

    monkeypatch.setattr(paper, "fit", fit)
    found = paper.start("own", 1, PARAMS)
    assert (found.losses, found.error) == ((2.5,), 90.0)


@dataclass
class Laboratory:
    """Stands for data, network, training and answers of a start, and keeps what each was asked for."""

    asked: dict = field(default_factory=dict)
    diverges: bool = False

    def __post_init__(self):
        self.sets = Sets(
            train=(np.zeros((4, 3, 14, 14), np.float32), np.array([6, 6, 6, 6])),
            check=(np.ones((4, 3, 14, 14), np.float32), np.array([0, 0, 5, 5])),
            test=(np.full((4, 3, 14, 14), 2, np.float32), np.array([0, 1, 2, 4])),
            classes=tuple("abcdefg"),
        )

    def draw_sets(self, sizes, seed):
        self.asked["sets"] = sizes, seed
        return self.sets

    def deep_net(self, **options):
        self.asked["net"] = options
        return "the net"

    def fit(self, net, images, labels, *, progress, **settings):
        self.asked["fit"] = net, images, labels
        self.asked["settings"] = settings
        progress(1, 2.0)
        progress(2, 1.5)
        if self.diverges:
            raise DivergenceError("The loss is inf")

    def scores(self, net, images):
        self.asked["scores"] = net, images
        return np.eye(7)[[0, 1, 2, 3]]


@pytest.fixture(params=[False, True], ids=["ends", "diverges"])
def laboratory(request, monkeypatch):
    made = Laboratory(diverges=request.param)
    for name in ("draw_sets", "deep_net", "fit", "scores"):
        monkeypatch.setattr(paper, name, getattr(made, name))
    return made


@pytest.mark.parametrize(("rule", "sigma"), [("shared", "shared"), ("own", "own"), ("torch", "stock"), ("0.01", 0.01)])
def test_a_start_trains_ten_layers_of_its_rule_and_seed_and_is_judged_on_test_images(laboratory, rule, sigma):
    params = replace(PARAMS, epochs=2, seed=3, dataset="cifar10", side=16)
    found = paper.start(rule, 9, params)
    asked, sets = laboratory.asked, laboratory.sets
    assert asked["sets"] == (params.sizes, 9)
    assert asked["net"] == {
        **{"classes": 7, "in_channels": 3, "depth": paper.DEPTH, "filters": paper.FILTERS},
        **{"sigma": sigma, "seed": 9},
    }
    net, images, labels = asked["fit"]
    assert net == "the net"
    assert images is sets.train[0]
    assert labels is sets.train[1]
    assert asked["settings"] == {**params.settings, "rate": 0.02, "seed": 9}
    assert (found.rule, found.seed, found.losses) == (rule, 9, (2.0, 1.5))
    if laboratory.diverges:
        assert found.error == pytest.approx(100 * 6 / 7)
    else:
        net, images = asked["scores"]
        assert net == "the net"
        assert images is sets.test[0]
        assert found.error == 25.0


def test_starts_are_those_of_every_seed_and_every_rule(monkeypatch):
    monkeypatch.setattr(paper, "start", lambda rule, seed, params: (rule, seed, params))
    params = replace(PARAMS, seed=4, seeds=3)
    found = paper.starts(params, Pool(1))
    rules = ("shared", "own", "torch", "0.01")
    assert found == [(rule, seed, params) for seed in (5, 6, 7) for rule in rules]


def test_a_start_is_a_training_from_its_rule():
    found = paper.start("0.01", 1, PARAMS)
    assert len(found.losses) == 1
    assert found.losses[0] == pytest.approx(np.log(10), abs=0.02)


def test_the_table_of_starts_has_falls_and_errors_in_the_order_of_the_rules():
    found = [
        paper.Start(rule, seed, (1.0,), 10.0 * seed + number)
        for number, rule in enumerate(paper.RULES)
        for seed in (1, 2)
    ]
    falls = pd.DataFrame({1: [1.0, 2, 3, 4], 2: [3.0, 4, 5, 6]}, index=list(paper.RULES))
    table = paper.start_table(found[::-1], falls)
    assert table["rule"].tolist() == list(paper.RULES)
    assert table["|log₂ first/last|"].tolist() == [2, 3, 4, 5]
    assert table[["test error mean", "test error min", "test error max"]].to_numpy()[1].tolist() == [16, 11, 21]


# ---- time ------------------------------------------------------------------------------------------------------------


class Built(nn.Module):
    """Stands for a network at full size, and knows which one it is."""

    def __init__(self, *asked, **options):
        super().__init__()
        self.asked, self.options = asked, options


def test_full_times_are_milliseconds_of_both_networks(monkeypatch):
    asked = []

    def forward_times(models, shape, **options):
        asked.append((shape, options))
        assert not any(model.training for model in models.values())
        assert {name: model.asked for name, model in models.items()} == {
            name: (paper.CARD, name) for name in ("gmp", "gmp-lr")
        }
        assert all(model.options == {"device": "cpu"} for model in models.values())
        return pd.DataFrame({"gmp": [0.25, 0.5], "gmp-lr": [0.125, 0.0625]})

    monkeypatch.setattr(paper, "build", Built)
    monkeypatch.setattr(paper, "forward_times", forward_times)
    times = paper.full_times(replace(PARAMS, rounds=9))
    assert times.to_dict("list") == {"gmp": [250.0, 500.0], "gmp-lr": [125.0, 62.5]}
    assert asked == [((3, 224, 224), {"rounds": 9})]


def test_full_times_have_a_row_a_round_by_the_clock(monkeypatch):
    now = [0.0]

    class Slow(Built):
        def forward(self, images):
            assert images.shape == (1, 3, 224, 224)
            now[0] += {"gmp": 0.5, "gmp-lr": 0.125}[self.asked[1]]
            return images

    monkeypatch.setattr(paper, "build", Slow)
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(timing, "_check", lambda *_: None)  # these networks have no parameters to be anywhere
    times = paper.full_times(replace(PARAMS, rounds=4))
    assert times.to_dict("list") == {"gmp": [500.0] * 4, "gmp-lr": [125.0] * 4}


def test_the_sets_of_a_layer_are_added_and_each_network_has_its_own_columns(monkeypatch):
    rows = {
        "gmp": [("conv1", 100, 7.0), ("conv2", 900, 60.0), ("total", 1000, 99.0)],
        "gmp-lr": [
            *(("conv1.sets.3x1", 10, 1.5), ("conv1.sets.1x3", 20, 2.25)),
            *(("conv2.sets.3x1", 200, 8.0), ("conv2.sets.1x3", 400, 16.5), ("total", 630, 50.0)),
        ],
    }
    asked = []

    def layer_times(network, images, **options):
        asked.append((network.asked, network.options, network.training, images, options))
        return pd.DataFrame(rows[network.asked[1]], columns=["layer", "MACs", "ms"])

    monkeypatch.setattr(paper, "build", Built)
    monkeypatch.setattr(paper, "sample_images", lambda *named: ("images of", *named))
    monkeypatch.setattr(paper, "layer_times", layer_times)
    table = paper.layer_table(replace(PARAMS, rounds=9)).set_index("layer")
    columns = ["MACs", "ms here", "gmp MACs", "gmp ms here"]
    assert table.loc["conv1", columns].tolist() == [30, 3.75, 100, 7.0]
    assert table.loc["conv2", columns].tolist() == [600, 24.5, 900, 60.0]
    assert "total" not in table.index
    assert asked == [
        ((paper.CARD, name), {"device": "cpu"}, False, ("images of", paper.CARD, name), {"rounds": 9})
        for name in ("gmp", "gmp-lr")
    ]


def test_layers_are_those_of_the_published_times(monkeypatch):
    asked = []

    def layer_times(model, images, rounds):
        asked.append(tuple(images.shape))
        rows = count(model, tuple(images.shape[1:])).layers
        return pd.DataFrame([(row.name, row.macs, 1.0) for row in rows], columns=["layer", "MACs", "ms"])

    monkeypatch.setattr(paper, "layer_times", layer_times)
    monkeypatch.setattr(paper, "build", lambda card, name, device: build(card, name))  # on the meta device
    table = paper.layer_table(PARAMS).set_index("layer")
    assert asked == [(1, 3, 224, 224)] * 2
    assert table.loc["conv1", "CPU ms"] == pytest.approx(473.4)
    assert table.loc["conv4-2", "GPU ms"] == pytest.approx(9.52)
    assert (table["ms here"] == 2.0).all()
    assert (table["gmp ms here"] == 1.0).all()
    assert table.loc["conv2", "MACs"] == pytest.approx(table.loc["conv2", "gmp MACs"] / 3, rel=1e-3)
