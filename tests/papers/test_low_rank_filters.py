"""Experiments of low-rank filters at tiny sizes: counts, architectures, first weights and times on known answers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from papertwin.errors import ParameterError
from papertwin.nets import Composite, build, comparing, count
from papertwin.papers import low_rank_filters as paper
from papertwin.training.loop import single_thread
from papertwin.training.pool import Pool

PARAMS = paper.Params(
    train_images=100,
    check_images=60,
    test_images=80,
    epochs=1,
    seeds=2,
    sweep_seeds=2,
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
        ({"sweep_seeds": 1}, "sweep_seeds is 1; it must be at least 2"),
        ({"rounds": 2}, "rounds is 2; it must be at least 3"),
        ({"dataset": "letters"}, "dataset is 'letters'; expected fashion_mnist"),
    ],
)
def test_parameters_that_no_experiment_can_use(change, message):
    with pytest.raises(ParameterError, match=message):
        replace(PARAMS, **change)


def test_parameters_become_seeds_and_stamps():
    assert list(replace(PARAMS, seed=5, seeds=3).every_seed) == [6, 7, 8]
    assert paper.stamp(PARAMS, "ImageNet") == "Fashion-MNIST in place of ImageNet"
    assert not PARAMS.at_full_size
    assert replace(PARAMS, dataset="cifar10", side=32, width=1.0).at_full_size


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
    printed = pd.DataFrame({"network": ["a", "b", "c"], "macs": [100, 50, None], "error": [1.0, 2.0, 3.0]})
    rows = pd.DataFrame({"network": ["a", "z"], "MACs": [3000, 1]})
    cost, error = paper.behind(printed, "macs", "a", "error", rows, "MACs", 1000.0)
    assert cost.tolist() == [3.0, 1.5]
    assert error.tolist() == [1.0, 2.0]
    assert paper.behind(printed, None, "a", "error", rows, "MACs", 1000.0) is None


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


def test_variances_of_ten_layers_tell_the_rules_apart():
    table = paper.sweep(replace(PARAMS, sweep_seeds=2), Pool(1))
    assert len(table) == len(paper.RULES) * 2 * paper.DEPTH
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
