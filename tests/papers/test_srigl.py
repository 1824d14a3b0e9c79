"""Experiments of SRigL at tiny sizes: which trainings, of which networks, with which settings, and their table."""

from collections import Counter
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin import ledger
from papertwin.errors import ParameterError
from papertwin.nets import cifar_resnet, count
from papertwin.papers import srigl as paper
from papertwin.papers.srigl import Job
from papertwin.run import typed
from papertwin.sparse.trials import Plan
from papertwin.sparse.updaters import LayerUpdate
from papertwin.training.pool import Pool
from papertwin.words import duration, number

PARAMS = paper.Params(
    train_images=200,
    check_images=50,
    test_images=60,
    epochs=3,
    seeds=2,
    width=16,
    every=1,
    conv_images=150,
    conv_seeds=2,
    draws=100,
    rounds=3,
    processes=1,
    device="cpu",
)
FOUR = [0.8, 0.9, 0.95, 0.99]
SPARSE = ("static", "SET", "RigL", "SRigL without ablation", "SRigL")
GAMMAS = {"SRigL without ablation": 0.0, "SRigL": 0.3}


@pytest.fixture(scope="module")
def trials():
    """Perceptrons of two seeds, one of three methods each, and one that is trained twice as long."""
    jobs = [Job("mlp", *each, seed, gamma) for seed in (2, 1) for *each, gamma in THREE]
    jobs.append(Job("mlp", "SRigL", 0.8, 1, 0.3, length=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "every_job", lambda params: jobs)
        return paper.train_all(PARAMS, Pool(1))


THREE = (("SRigL", 0.8, 0.3), ("RigL", 0.9, None), ("dense", 0.0, None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 7}, "side is 7; it must be at least 8"),
        ({"seeds": 1}, "seeds is 1; it must be at least 2"),
        ({"dataset": "letters"}, "dataset is 'letters'; it must be fashion_mnist, mnist, "),
        ({"width": 15}, "width is 15; it must be at least 16"),
        ({"every": 0}, "every is 0; it must be at least 1"),
        ({"conv_images": 99}, "conv_images is 99; it must be at least 100"),
        ({"conv_images": 201}, "conv_images is 201; it can be at most the 200 of train_images"),
        ({"conv_seeds": 1}, "conv_seeds is 1; it must be at least 2"),
        ({"conv_seeds": 3}, "conv_seeds is 3; it can be at most the 2 of seeds"),
        ({"conv_depth": 7}, "conv_depth is 7; residual networks have 18 layers"),
        ({"conv_width": 0.0}, "conv_width is 0.0; it is a share of the full width, above 0"),
        ({"draws": 99}, "draws is 99; it must be at least 100"),
        ({"rounds": 2}, "rounds is 2; it must be at least 3"),
        (
            {"sparsities": [0.8, 0.9]},
            r"sparsities is \[0.8, 0.9\]; it must hold different shares between 0 and 1, with 0.8, 0.9, 0.95 and 0.99",
        ),
        ({"sparsities": [*FOUR, 0.95]}, r"sparsities is .* 0.95\]; it must hold different shares"),
        ({"sparsities": [*FOUR, 0.0]}, "sparsities is"),
        ({"sparsities": [*FOUR, 1.0]}, "sparsities is"),
        ({"gammas": [0.3, 0.5]}, r"gammas is \[0.3, 0.5\]; it must hold different shares from 0 to 1, with 0 and 0.3 "),
        ({"gammas": [0.0, 0.5]}, "gammas is"),
        ({"gammas": [0.0, 0.3, 1.1]}, "gammas is"),
        ({"gammas": [-0.1, 0.0, 0.3]}, "gammas is"),
    ],
)
def test_parameters_that_no_experiment_can_use(change, message):
    with pytest.raises(ParameterError, match=message):
        replace(PARAMS, **change)


def test_the_extremes_of_parameters_can_be_used():
    params = replace(PARAMS, conv_images=200, gammas=[1.0, 0.3, 0.0], sparsities=FOUR[::-1], conv_width=4.0)
    assert [job.sparsity for job in paper.every_job(params) if job.method == "static"] == FOUR[::-1] * 2


def test_only_the_papers_own_network_and_images_are_at_full_size():
    full = {"dataset": "cifar10", "side": 32, "conv_depth": 18, "conv_width": 1.0, "epochs": 250}
    full |= {"train_images": 45_000, "check_images": 5000, "conv_images": 45_000}
    assert replace(PARAMS, **full).at_full_size
    for change in ({"side": 16}, {"conv_depth": 20}, {"conv_width": 0.5}, {"epochs": 249}, {"conv_images": 44_999}):
        assert not replace(PARAMS, **full | change).at_full_size
    assert not replace(PARAMS, **full | {"dataset": "mnist", "side": 28}).at_full_size
    book = ledger.load("srigl")
    sizes = {name: typed("srigl", paper.Params, book.parameters(name)).at_full_size for name in book.profiles}
    assert sizes == {"quick": False, "full": False, "paper": True}


# ---- which trainings -------------------------------------------------------------------------------------------------


def asked(params, seeds, few):
    """Every training by hand: what each figure and table needs."""
    due = [Job("mlp", "dense", 0.0, seed) for seed in seeds]
    due += [Job("mlp", name, s, n, GAMMAS.get(name)) for name, s, n in product(SPARSE, params.sparsities, seeds)]
    due += [Job("mlp", "SRigL", s, n, 0.3, length) for s, n, length in product(paper.LONG, few, (2, 5))]
    other = [gamma for gamma in params.gammas if gamma not in (0.0, 0.3)]
    due += [Job("mlp", "SRigL", s, n, gamma) for s, n, gamma in product(paper.GAMMA_AT, few, other)]
    for network, sparsities in (("resnet", paper.CONV), ("mobile", (0.9,))):
        due += [Job(network, "dense", 0.0, seed) for seed in few]
        due += [Job(network, name, s, n, GAMMAS.get(name)) for name, s, n in product(SPARSE[2:], sparsities, few)]
    for seed, width in product(few, sorted({*paper.WIDTHS} - {1.0})):
        due += [Job("resnet", *each, width=width) for each in (("dense", 0.0, seed), ("RigL", 0.9, seed))]
        due.append(Job("resnet", "SRigL", 0.9, seed, 0.3, width=width))
    return due


@pytest.mark.parametrize(
    ("change", "seeds", "few"),
    [
        ({}, (1, 2), (1, 2)),
        ({"seeds": 3, "seed": 6}, (7, 8, 9), (7, 8)),
        ({"seeds": 3, "conv_seeds": 3, "gammas": [0.0, 0.3]}, (1, 2, 3), (1, 2, 3)),
        ({"sparsities": [*FOUR, 0.5], "gammas": [0.3, 0.7, 0.0]}, (1, 2), (1, 2)),
    ],
)
def test_every_training_is_there_once_and_starts_after_the_seed_of_the_pilot(change, seeds, few):
    params = replace(PARAMS, **change)
    jobs = paper.every_job(params)
    assert Counter(jobs) == Counter(asked(params, seeds, few))
    assert set(Counter(jobs).values()) == {1}
    assert {0.99} <= set(paper.LONG) <= set(paper.GAMMA_AT) <= set(FOUR)


def test_what_is_asked_for_twice_is_trained_once():
    settings = {"first_seed": 1, "every_seed": (1, 2), "conv_seeds": 2}
    one = SimpleNamespace(**settings, sparsities=[0.95], gammas=[0.5])
    two = SimpleNamespace(**settings, sparsities=[0.95, 0.95], gammas=[0.5, 0.5])
    assert paper.every_job(two) == paper.every_job(one)


def test_what_takes_longest_is_trained_first():
    jobs = paper.every_job(PARAMS)
    kinds = [(job.network != "mlp", job.length) for job in jobs]
    assert kinds[: kinds.count((False, 5))] == [(False, 5)] * 2 * len(paper.LONG)
    usual = kinds.index((False, 1))
    assert set(kinds[usual:]) == {(False, 1)}
    assert {(True, 1), (False, 2)} <= set(kinds[:usual])


def test_a_training_that_two_figures_share_is_done_once():
    jobs = paper.grid("mlp", ("dense", "SRigL", "SET"), (0.8, 0.9), range(3, 5), length=2)
    per = [("dense", 0.0, None), *(("SRigL", s, 0.3) for s in (0.8, 0.9)), *(("SET", s, None) for s in (0.8, 0.9))]
    assert jobs == [Job("mlp", name, s, seed, gamma, 2) for seed in (3, 4) for name, s, gamma in per]


def test_plan_says_what_trainings_cost(macs_of_perceptron, monkeypatch):
    jobs = [Job("mlp", "SRigL", 0.9, 1, 0.3, 5), Job("resnet", "dense", 0.0, 1, width=1.5), Job("mlp", "SET", 0.8, 2)]
    monkeypatch.setattr(paper, "every_job", lambda params: jobs)
    plan = paper.plan(PARAMS)
    wide = count(cifar_resnet(8, 10, width=0.75, in_channels=1, seed=0), (1, 14, 14)).macs
    spent = 3 * (6 * 3 * 200 * macs_of_perceptron(16) + 3 * 150 * wide)
    assert plan["trainings"] == 3
    assert plan["optimiser steps"] == 3 * (5 * 2 + 2 + 2)  # 200 and 150 images are two batches of at most 128
    assert plan["multiply-accumulates of all trainings"] == number(spent)
    assert plan["on one core, 20 billion a second"] == duration(spent / 20e9)
    assert plan["on one GPU, 2 trillion a second"] == duration(spent / 2e12)
    large = [plan[f"one {name} on ImageNet (not run)"] for name in ("ResNet-50", "ViT-B/16")]
    for cost, macs in zip(large, (3_857_974_312, 17_563_912_936)):
        assert f"{number(macs)} multiply-accumulates an image" in cost
        assert cost.endswith(f"on one GPU 103 passes {duration(3 * macs * 1_281_167 * 103 / 2e12)}")
    assert [cost.split(" parameters")[0] for cost in large] == ["25.5 million", "86.5 million"]


def test_methods_stand_in_the_order_of_the_text():
    assert list(paper.METHODS) == ["dense", *SPARSE]
    assert set(paper.SHORT) <= set(paper.METHODS)


# ---- networks --------------------------------------------------------------------------------------------------------


def built(network, seed=3, channels=1, **options):
    return paper.builders(PARAMS)[network](10, in_channels=channels, seed=seed, **options)


def test_the_perceptron_has_two_hidden_layers_of_the_asked_width():
    shapes = [tuple(layer.weight.shape) for layer in built("mlp") if isinstance(layer, nn.Linear)]
    assert shapes == [(16, 196), (16, 16), (10, 16)]
    kinds = [type(layer).__name__ for layer in built("mlp")]
    assert kinds == ["Flatten", *["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    wide = [tuple(each.weight.shape) for each in built("mlp", channels=3, width=1.5) if isinstance(each, nn.Linear)]
    assert wide == [(24, 588), (24, 24), (10, 24)]
    assert built("mlp", channels=3)(torch.zeros(2, 3, 14, 14)).shape == (2, 10)


def test_the_residual_network_is_of_its_depth_and_width(same_state):
    model, same = built("resnet", width=1.5), cifar_resnet(8, 10, width=0.75, in_channels=1, seed=3)
    assert str(model) == str(same)
    assert same_state(model, same)
    assert [built("resnet", channels=3).conv1.weight.shape, model.conv1.weight.shape] == [(8, 3, 3, 3), (12, 1, 3, 3)]
    deep = paper.builders(replace(PARAMS, conv_depth=14))["resnet"](10, in_channels=1, seed=0)
    assert hasattr(deep, "stage3_block2")


def test_the_separable_network_has_four_pairs():
    model = built("mobile")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    assert [(name, layer.out_channels, layer.groups, layer.stride[0]) for name, layer in layers.items()] == [
        *(("conv1", 32, 1, 2), ("depthwise1", 32, 32, 1), ("pointwise1", 64, 1, 1), ("depthwise2", 64, 64, 2)),
        *(("pointwise2", 64, 1, 1), ("depthwise3", 64, 64, 1), ("pointwise3", 64, 1, 1)),
        *(("depthwise4", 64, 64, 2), ("pointwise4", 128, 1, 1)),
    ]
    sides = [1 if name.startswith("pointwise") else 3 for name in layers]
    assert [layer.kernel_size for layer in layers.values()] == [(side, side) for side in sides]
    assert all(layer.bias is None for layer in layers.values())
    norms = [layer.num_features for layer in model if isinstance(layer, nn.BatchNorm2d)]
    assert norms == [layer.out_channels for layer in layers.values()]
    assert model(torch.zeros(2, 1, 14, 14)).shape == (2, 10)
    wide = built("mobile", channels=3, width=1.5)
    assert (wide.conv1.weight.shape, wide.fc.weight.shape) == ((48, 3, 3, 3), (10, 192))


@pytest.mark.parametrize("network", ["mlp", "resnet", "mobile"])
def test_first_weights_are_those_of_the_seed(network, same_state):
    first, second, other = (built(network, seed=seed) for seed in (3, 3, 4))
    assert same_state(first, second)
    assert not same_state(first, other)


# ---- trainings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "plan", "images", "epochs", "inputs"),
    [
        (Job("mlp", "dense", 0.0, 4), Plan("dense", 0.0, 7, {}), 200, 3, (16, 196)),
        (Job("mlp", "static", 0.8, 4), Plan("static", 0.8, 7, {}), 200, 3, (16, 196)),
        (Job("mlp", "SET", 0.8, 5), Plan("set", 0.8, 7, {}), 200, 3, (16, 196)),
        (Job("mlp", "SRigL", 0.9, 5, 0.5, 5), Plan("srigl", 0.9, 7, {"gamma": 0.5}), 200, 15, (16, 196)),
        (Job("resnet", "RigL", 0.95, 6, width=1.5), Plan("rigl", 0.95, 7, {}), 150, 3, (12, 1, 3, 3)),
        (
            Job("mobile", "SRigL without ablation", 0.9, 6, 0.0, 2),
            *(Plan("srigl", 0.9, 7, {"gamma": 0.0}), 150, 6, (32, 1, 3, 3)),
        ),
    ],
)
def test_a_training_is_of_its_job(job, plan, images, epochs, inputs, monkeypatch):
    monkeypatch.setattr(paper, "train_sparse", lambda *given, **settings: (given, settings))
    params = replace(PARAMS, every=7)
    (network, build, *given), settings = paper.train_job(job, params)
    assert (network, *given) == (job.network, plan, job.seed, replace(params.sizes, train=images))
    chosen = {"epochs": epochs, "rate": 0.1, "batch": 128, "weight_decay": 5e-4, "device": "cpu"}
    assert settings == {**params.settings, **chosen}
    model = build(10, in_channels=1, seed=job.seed)
    assert next(model.parameters()).shape == inputs
    assert "gamma" not in paper.METHODS["RigL"][1]
    assert paper.METHODS["SRigL"][1] == {"gamma": 0.3}  # of the methods, untouched by other γ


def test_trials_belong_to_their_jobs(trials):
    assert len(trials) == 7
    for job, trial in trials.items():
        assert (trial.network, trial.seed, trial.plan.sparsity) == (job.network, job.seed, job.sparsity)
        assert trial.plan.method == job.method.lower()
        assert trial.images == 200 * 3 * job.length


def test_the_table_of_trials_is_read_off_masks_and_logs(trials, macs_of_perceptron):
    update = LayerUpdate(1, "fc1", 0.3, 5, 5, 9, 4, 3, 2, revived=3, least=1)
    revived = {job: replace(each, log=(update, replace(update, revived=job.seed))) for job, each in trials.items()}
    table = paper.trial_table(revived)
    keys = ["network", "method", "sparsity", "length", "width", "seed"]
    assert table[keys].to_numpy().tolist() == [
        *(["mlp", "RigL", 0.9, 1, 1.0, 1], ["mlp", "RigL", 0.9, 1, 1.0, 2], ["mlp", "SRigL", 0.8, 1, 1.0, 1]),
        *(["mlp", "SRigL", 0.8, 1, 1.0, 2], ["mlp", "SRigL", 0.8, 2, 1.0, 1]),
        *(["mlp", "dense", 0.0, 1, 1.0, 1], ["mlp", "dense", 0.0, 1, 1.0, 2]),
    ]
    assert table.index.tolist() == list(range(7))
    dense = macs_of_perceptron(16)
    for row in table.to_dict("records"):
        gamma = None if np.isnan(row["gamma"]) else row["gamma"]
        trial = revived[Job("mlp", row["method"], row["sparsity"], row["seed"], gamma, row["length"], row["width"])]
        hidden = [np.asarray(trial.masks[name]) for name in ("fc1", "fc2") if name in trial.masks]
        active = np.mean([each.any() for mask in hidden for each in mask]) if hidden else 1.0
        left = sum(int(mask.sum()) for mask in trial.masks.values())
        macs = left + 16 + 16 + 10 if hidden else dense
        step = 3 * dense if not hidden else (3 * macs + 2 * macs + dense) / 2
        due = {"validation accuracy": 100 - 100 * trial.check_error, "test accuracy": 100 - 100 * trial.test_error}
        due |= {"active": 100 * active, "ITOP": trial.itop, "MACs": macs, "dense MACs": dense}
        due |= {"training MACs": step * 600 * row["length"], "revived": 3 + row["seed"]}
        assert {name: row[name] for name in due} == pytest.approx(due), row
    assert table["validation accuracy"].tolist() != table["test accuracy"].tolist()


# ---- reading the table -----------------------------------------------------------------------------------------------

COLUMNS = ["network", "method", "sparsity", "seed", "gamma", "length", "width", "test accuracy"]
TABLE = pd.DataFrame(
    [
        ("mlp", "SRigL", 0.9, 2, 0.3, 1, 1.0, 81.0),
        ("mlp", "SRigL", 0.9, 1, 0.3, 1, 1.0, 80.0),
        ("mlp", "SRigL", 0.9, 3, 0.3, 1, 1.0, 85.0),
        ("mlp", "SRigL", 0.8, 1, 0.3, 1, 1.0, 90.0),
        ("mlp", "SRigL", 0.9, 1, 0.5, 1, 1.0, 10.0),
        ("mlp", "SRigL", 0.9, 1, 0.3, 2, 1.0, 83.0),
        ("mlp", "SRigL", 0.9, 1, 0.3, 1, 1.5, 20.0),
        ("mlp", "SRigL without ablation", 0.9, 1, 0.0, 1, 1.0, 79.0),
        ("mlp", "RigL", 0.9, 1, None, 1, 1.0, 84.0),
        ("mlp", "RigL", 0.9, 3, None, 1, 1.0, 82.0),
        ("mlp", "RigL", 0.9, 2, None, 1, 1.0, 86.0),
        ("mlp", "dense", 0.0, 3, None, 1, 1.0, 97.0),
        ("mlp", "dense", 0.0, 1, None, 1, 1.0, 95.0),
        ("mlp", "dense", 0.0, 2, None, 1, 1.0, 96.5),
        ("resnet", "RigL", 0.9, 1, None, 1, 1.0, 30.0),
    ],
    columns=COLUMNS,
)


def test_usual_rows_are_of_one_network_at_its_length_width_and_gamma():
    assert paper.usual(TABLE, "mlp").index.tolist() == [0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13]
    assert paper.usual(TABLE, "resnet").index.tolist() == [14]
    assert paper.usual(TABLE, "mlp", length=2).index.tolist() == [5]
    assert paper.usual(TABLE, "mlp", width=1.5).index.tolist() == [6]


def test_curves_are_means_and_ranges_in_the_order_of_the_methods():
    found = paper.curves(paper.usual(TABLE, "mlp"), "test accuracy")
    assert list(found) == ["dense", "RigL", "SRigL without ablation", "SRigL"]
    assert found["SRigL"].index.tolist() == [0.8, 0.9]
    assert found["SRigL"].to_numpy().tolist() == [[90, 90, 90], [82, 80, 85]]
    assert found["RigL"].loc[0.9].tolist() == [84, 82, 86]
    assert list(found["RigL"].columns) == ["mean", "min", "max"]
    by_seed = paper.curves(paper.usual(TABLE, "mlp"), "test accuracy", "seed")
    assert by_seed["SRigL"].loc[1].tolist() == [85, 80, 90]


def test_differences_are_seed_by_seed():
    rows = paper.usual(TABLE, "mlp")
    assert paper.paired(rows, "RigL", "SRigL", 0.9).tolist() == [4, 5, -3]
    assert paper.paired(rows, "dense", "RigL", 0.9).tolist() == [11, 10.5, 15]
    assert paper.paired(rows, "RigL", "SRigL", 0.9, "length").tolist() == [0, 0, 0]
