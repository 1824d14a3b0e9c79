"""First weights and times of low-rank filters: sweeps, starts and clocks on known answers."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin.errors import DivergenceError
from papertwin.nets import build, count, timing
from papertwin.nets.deep import deep_net
from papertwin.nets.variances import layer_variances
from papertwin.papers import low_rank_filters as paper
from papertwin.training import clock
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
