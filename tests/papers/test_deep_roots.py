"""Experiments of Deep Roots at tiny sizes: counts, groups, trials, covariances, times, on answers known beforehand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin import words
from papertwin.errors import ParameterError
from papertwin.nets import comparing, count, layer_covariances, nin_groups
from papertwin.nets.block_diagonal import block_diagonal
from papertwin.papers import deep_roots as paper
from papertwin.training.pool import Pool

PARAMS = paper.Params(
    train_images=100,
    check_images=60,
    test_images=80,
    covariance_images=50,
    epochs=1,
    seeds=2,
    rounds=3,
    processes=1,
    device="cpu",
)


@pytest.fixture(scope="module")
def trials():
    """Three networks, each from two seeds."""
    chosen = ("standard", "root-4", "root-8")
    networks = {name: build for name, build in paper.networks(PARAMS).items() if name in chosen}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "networks", lambda params: networks)
        return paper.train_all(PARAMS, Pool(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 7}, "side is 7; it must be at least 8"),
        ({"seeds": 1}, "seeds is 1; it must be at least 2"),
        ({"rounds": 2}, "rounds is 2; it must be at least 3"),
        ({"dataset": "letters"}, "dataset is 'letters'; it must be fashion_mnist, mnist, "),
        ({"batches": []}, r"batches is \[\]; it must hold different numbers of images, each at least 1"),
        ({"batches": [1, 0]}, r"batches is \[1, 0\]"),
        ({"covariance_images": 81}, "covariance_images is 81; it can be at most the 80 of test_images"),
        ({"covariance_images": 101, "test_images": 101}, "101; it can be at most the 100 of train_images"),
    ],
)
def test_parameters_that_no_experiment_can_use(change, message):
    with pytest.raises(ParameterError, match=message):
        replace(PARAMS, **change)


def test_parameters_become_sizes_and_seeds():
    params = replace(PARAMS, seed=5, seeds=3, epochs=7)
    assert list(params.every_seed) == [6, 7, 8]
    assert params.settings["epochs"] == 7
    assert not PARAMS.at_full_size
    full = replace(PARAMS, dataset="cifar10", side=32, width=1.0, train_images=45000, check_images=5000, epochs=300)
    assert full.at_full_size
    for change in ({"side": 16}, {"width": 0.5}, {"dataset": "cifar100"}, {"train_images": 44_000}, {"epochs": 299}):
        assert not replace(full, **change).at_full_size


# ---- full size -------------------------------------------------------------------------------------------------------


def test_every_published_count_is_rebuilt_exactly():
    tables = {family: paper.results(family) for family in paper.FAMILIES}
    assert [len(table) for table in tables.values()] == [13, 7, 7, 5, 3]
    assert all(table["exact"].all() for table in tables.values())
    nin = tables["NiN"]
    assert nin.loc["root-8", ["params", "macs"]].tolist() == [314_954, 103_343_498]
    assert nin.loc["Orig.", "error"] == pytest.approx(7.8875)
    assert nin.loc["col-16", ["kind", "groups"]].tolist() == ["column", 16]
    assert nin.loc["Orig.", ["kind", "groups"]].tolist() == ["standard", 1]
    assert tables["ResNet-200"].loc["root-32", "true_macs"] / 1e9 == pytest.approx(8.17, abs=0.005)
    assert tables["ResNet-50"].loc["root-64", "CPU ms"] == pytest.approx(425.736)
    assert tables["ResNet-50"].loc["root-64", "GPU ms"] == pytest.approx(10.1702)
    assert tables["ResNet-50"].loc["root-64", "top-1 error"] == pytest.approx(26.806)
    assert tables["ResNet-50"].loc["root-64", "top-5 error"] == pytest.approx(8.466)


def test_lines_begin_at_the_standard_network_and_follow_the_groups():
    rows = [("tree-16", "tree", 16), ("column-4", "column", 4), ("root-16", "root", 16), ("tree-2", "tree", 2)]
    rows += [("root-2", "root", 2), ("Orig.", "standard", 1), ("root-8", "root", 8), ("root-2", "root", 2)]
    found = paper.families(pd.DataFrame(rows, columns=["network", "kind", "groups"]))
    assert found == {
        "root": ["Orig.", "root-2", "root-8", "root-16"],
        "tree": ["Orig.", "tree-2", "tree-16"],
        "column": ["Orig.", "column-4"],
    }
    assert list(found) == ["root", "tree", "column"]


def test_lines_are_those_of_the_kinds_that_are_there():
    assert paper.families(paper.results("GoogLeNet").reset_index()) == {
        "root": ["Orig.", "root-2", "root-4", "root-8", "root-16"]
    }
    assert list(paper.families(paper.results("NiN").reset_index())) == ["root", "tree", "column"]
    assert paper.families(paper.results("AlexNet").reset_index()) == {}


def test_groups_are_read_off_the_layers():
    table = paper.groups_table().set_index(["family", "layers"])
    assert table.loc[("NiN", "conv3a"), ["root-8", "tree-4", "col-16"]].tolist() == ["4", "8", "16"]
    assert table["root-64"].loc["ResNet-50"].tolist() == ["64", "32", "16", "8"]
    assert table["root-8"].loc["GoogLeNet"].tolist() == ["8", "4", "2", "1"]
    assert table.loc[("NiN", "conv2a"), "root-64"] == ""
    mixed = nn.ModuleDict({"stage1_block1": nn.Conv2d(4, 4, 3, groups=2), "stage1_block2": nn.Conv2d(4, 4, 3)})
    assert paper._groups(mixed).groupby(level=0).agg(paper._listed).to_dict() == {"stage1": "1/2"}


def test_layers_of_a_network_add_up():
    layers = paper.per_layer("ResNet-50 root-64")
    assert layers["macs"].sum() == 2_114_860_072
    assert layers["params"].sum() == 15_312_808
    assert layers["short"].iloc[[0, 1, 4, 5, -1]].tolist() == ["conv1", "1.1 conv1", "1.1 proj", "1.2 conv1", "fc"]


def test_names_of_layers_fit_under_an_axis():
    names = ("conv1", "stage1_block1.projection", "stage2_block3.conv1", "stage4_block10.conv3", "fc")
    assert [paper.short(name) for name in names] == ["conv1", "1.1 proj", "2.3 conv1", "4.10 conv3", "fc"]


# ---- small networks --------------------------------------------------------------------------------------------------


def test_every_published_topology_is_there_with_its_groups():
    networks = paper.networks(PARAMS)
    assert len(networks) == 14
    for name, build in networks.items():
        model = build(10, in_channels=1, seed=0)
        kind, _, number = name.partition("-")
        groups = nin_groups(kind, int(number)) if number else (1, 1, 1)
        assert tuple(model.get_submodule(f"conv{place}a").groups for place in (1, 2, 3)) == groups
        assert paper.groups_of(name) == groups[2]
        assert model.conv2a.in_channels == 32


def test_networks_are_named_once_each_and_normalised_at_the_width_that_is_asked_for():
    networks = paper.networks(replace(PARAMS, width=2 / 3))
    assert list(networks) == [
        *("standard", "root-2", "root-4", "root-8", "root-16", "root-32"),
        *("tree-2", "tree-4", "tree-8", "tree-16", "column-2", "column-4", "column-8", "column-16"),
    ]
    for build in networks.values():
        layers = list(build(10, in_channels=1, seed=0).modules())
        norms = [layer.num_features for layer in layers if isinstance(layer, nn.BatchNorm2d)]
        assert norms == [128, 107, 64, 128, 128, 128, 128, 128]


def test_plan_says_what_trainings_cost():
    plan = paper.plan(replace(PARAMS, seeds=3, epochs=2))
    assert plan["trainings"] == 42
    assert plan["optimiser steps"] == 42 * 2 * 2
    base = count(paper.networks(PARAMS)["standard"](10, in_channels=1, seed=0), (1, 14, 14))
    assert plan["multiply-accumulates an image"].endswith(f"to {words.number(base.macs)}")


def test_the_table_of_trials_names_kind_and_groups(trials):
    table = paper.trial_table(trials, PARAMS)
    assert table["kind"].tolist() == ["standard", "root", "root"] * 2
    assert table["groups"].tolist() == [1, 4, 8] * 2
    assert (table.groupby("network")["MACs"].nunique() == 1).all()
    assert table["MACs"].iloc[2] < table["MACs"].iloc[1] < table["MACs"].iloc[0]
    times = comparing.trial_times(trials, PARAMS, PARAMS.rounds)
    assert set(times.index) == {"standard", "root-4", "root-8"}
    assert (times > 0).all()


def test_the_table_of_trials_reads_trees_and_columns_off_the_names(trials):
    asked = [replace(trials[1], name=name) for name in ("tree-16", "standard", "column-2", "root-32")]
    table = paper.trial_table(asked, PARAMS)
    assert table.columns[:4].tolist() == ["network", "kind", "groups", "seed"]
    assert table[["network", "kind", "groups"]].to_numpy().tolist() == [
        *(["tree-16", "tree", 16], ["standard", "standard", 1], ["column-2", "column", 2], ["root-32", "root", 32])
    ]
    assert table["groups"].dtype.kind == "i"
    right = (trials[1].test.argmax(1) == trials[1].test_labels).sum()
    assert table["test error"].tolist() == pytest.approx([100 * (80 - right) / 80] * 4)


# ---- covariance ------------------------------------------------------------------------------------------------------


def test_covariances_are_those_of_the_responses(trials):
    trial = trials[1]
    found = paper.covariances(trial, PARAMS, "test")
    assert list(found) == [
        *(("conv1a_relu", "conv1b"), ("conv1b_relu", "conv1c"), ("conv1c_relu", "conv2a"), ("conv2a_relu", "conv2b")),
        *(("conv2b_relu", "conv2c"), ("conv2c_relu", "conv3a"), ("conv3a_relu", "conv3b")),
        ("conv3b_relu", "conv3c"),
    ]
    images = torch.from_numpy(paper.draw_sets(PARAMS.sizes, trial.seed).test[0][:50])
    with torch.no_grad():
        names = [name for name, _ in trial.model.named_children()]
        first = trial.model[: names.index("conv2c_relu") + 1](images)
        second = trial.model[names.index("conv2c_relu") + 1 : names.index("conv3a") + 1](first)
    rows = np.arange(7) * second.shape[-1] // 7
    maps = second[:, :, rows[:, None], rows] if second.shape[-1] < 7 else second
    both = [each.movedim(1, -1).flatten(0, 2).numpy() for each in (first, maps)]
    expected = np.cov(*(side.T for side in both))[: first.shape[1], first.shape[1] :]
    assert np.allclose(found[paper.PAIR].cross, expected, atol=1e-5)
    alone = paper.covariances(trial, PARAMS, "train", every=False)
    assert list(alone) == [paper.PAIR]
    assert not np.allclose(alone[paper.PAIR].cross, expected, atol=1e-5)
    second = trials[4]
    images = paper.draw_sets(PARAMS.sizes, 2).train[0][:50]
    due = layer_covariances(second.model, images, [paper.PAIR])[paper.PAIR]
    assert np.allclose(paper.covariances(second, PARAMS, "train")[paper.PAIR].cross, due.cross, atol=1e-9)


def test_contrasts_compare_with_the_standard_network_by_the_same_blocks(trials):
    table = paper.contrasts(trials, PARAMS, Pool(1))
    first = table[table["seed"] == 1]
    assert first[["network", "blocks"]].to_numpy().tolist() == [
        *(["standard", 2], ["standard", 4], ["root-4", 2], ["root-8", 4])
    ]
    assert (table["contrast"] <= 1).all()
    assert (table["permuted"] > -0.5).all()
    assert not np.allclose(table["contrast"], table["before training"])


def inside(matrix, blocks):
    """Contrast by hand: what part of the squares lies in the diagonal blocks, beyond their area."""
    squares, size = matrix**2, len(matrix) // blocks
    assert squares.shape == (size * blocks, size * blocks)
    within = sum(squares[at : at + size, at : at + size].sum() for at in range(0, len(squares), size))
    return (within / squares.sum() - 1 / blocks) / (1 - 1 / blocks)


def test_contrasts_are_those_of_test_images_of_permuted_columns_and_of_first_weights(trials):
    table = paper.contrasts([replace(trials[0], name="root-2"), *trials], PARAMS, Pool(1))
    rows = [("standard", 2), ("standard", 4), ("root-4", 2), ("root-8", 4)]
    keys = table[["network", "blocks", "seed"]].itertuples(index=False, name=None)
    assert list(keys) == [(*row, seed) for seed in (1, 2) for row in rows]
    known = table.set_index(["network", "blocks", "seed"])
    for trial in trials:
        images = paper.draw_sets(PARAMS.sizes, trial.seed).test[0][:50]
        fresh = paper.networks(PARAMS)[trial.name](10, in_channels=1, seed=trial.seed).eval()
        matrix, before = (
            layer_covariances(model, images, [("conv2c_relu", "conv3a")])["conv2c_relu", "conv3a"].whitened()
            for model in (trial.model, fresh)
        )
        for blocks in {"standard": (2, 4), "root-4": (2,), "root-8": (4,)}[trial.name]:
            row = known.loc[(trial.name, blocks, trial.seed)]
            drawn = block_diagonal(matrix, blocks, draws=200, seed=trial.seed).random
            high = (np.quantile(drawn, 0.975) - 1 / blocks) / (1 - 1 / blocks)
            assert row["contrast"] == pytest.approx(inside(matrix, blocks), abs=1e-9)
            assert row["permuted"] == pytest.approx(high, abs=1e-9)
            assert row["before training"] == pytest.approx(inside(before, blocks), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("standard", "standard, 4 parts: 0.64"),
        ("root-4", "root-4, 2 groups: 0.82"),
        ("root-8", "root-8, 4 groups: 0.64"),
        ("column-2", "column-2, 2 groups: 0.82"),
        ("tree-2", "tree-2, 4 groups: 0.64"),
        ("tree-4", "tree-4, 8 groups: 0.27"),
    ],
)
def test_the_contrast_of_its_own_blocks_is_said_of_a_network(name, text):
    quarters, halves = (np.kron(np.eye(n), np.ones((8 // n, 8 // n))) for n in (4, 2))
    matrix = quarters + halves / 2 + 0.5  # 2 in quarters, 1 in what halves hold beside them, 0.5 elsewhere
    of_pair = SimpleNamespace(whitened=lambda: matrix, cross=np.ones((8, 8)))
    other = SimpleNamespace(whitened=lambda: np.eye(8))
    assert paper.said(name, {("conv1a_relu", "conv1b"): other, paper.PAIR: of_pair}) == text


def test_no_contrast_is_said_of_a_network_without_groups_there():
    assert paper.said("root-2", {}) == "root-2, no groups"


def test_an_untrained_network_has_the_weights_from_which_its_training_started(trials):
    start = paper.untrained(trials[1], PARAMS)
    fresh = paper.networks(PARAMS)["root-4"](10, in_channels=1, seed=trials[1].seed)
    assert torch.equal(start.model.conv2a.weight, fresh.conv2a.weight)
    assert not torch.equal(start.model.conv2a.weight, trials[1].model.conv2a.weight)
    assert not start.model.training


def test_an_untrained_network_is_of_the_name_seed_classes_channels_and_width_of_its_trial(trials):
    trained = trials[5]
    weights = {name: value.clone() for name, value in trained.model.state_dict().items()}
    start = paper.untrained(trained, PARAMS)
    assert (start.name, start.seed, start.test is trained.test) == ("root-8", 2, True)
    fresh = paper.networks(PARAMS)["root-8"](10, in_channels=1, seed=2).state_dict()
    assert start.model.state_dict().keys() == fresh.keys()
    assert all(torch.equal(value, fresh[name]) for name, value in start.model.state_dict().items())
    assert all(torch.equal(value, weights[name]) for name, value in trained.model.state_dict().items())
    other = replace(PARAMS, dataset="cifar10", side=16, width=2 / 3)
    model = paper.untrained(replace(trained, test=np.zeros((4, 7))), other).model
    assert (model.conv1a.in_channels, model.conv2a.in_channels, model.conv3a.groups) == (3, 64, 4)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 7)


def contrasts(**values):
    known = {"standard 2": 0.1, "standard 4": 0.0, "root-4 2": 0.5, "root-8 4": 0.3} | values
    rows = [(*key.split(), 1, value, 0.05) for key, value in known.items()]
    table = pd.DataFrame(rows, columns=["network", "blocks", "seed", "contrast", "permuted"])
    return table.astype({"blocks": int})


def test_the_smaller_gain_counts():
    assert paper.block_gain(contrasts()).tolist() == pytest.approx([0.3])
    assert paper.block_gain(contrasts(**{"standard 4": 0.2})).tolist() == pytest.approx([0.1])
    assert paper.block_gain(contrasts(**{"root-4 2": 0.15})).tolist() == pytest.approx([0.05])
    assert paper.block_surplus(contrasts()).tolist() == pytest.approx([0.25])
    assert paper.block_surplus(contrasts(**{"standard 2": -1.0})).tolist() == pytest.approx([0.25])
