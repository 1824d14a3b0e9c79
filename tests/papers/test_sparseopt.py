"""What SparseOpt's notebook trains: parameters, trainings, what they cost, and their tables."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise, product
from types import SimpleNamespace

import pytest
import torch

from papertwin import ledger
from papertwin.errors import ParameterError
from papertwin.nets import cifar_resnet, count
from papertwin.papers import sparseopt as paper
from papertwin.papers.sparseopt import BOTH, GROWTH, HAM, OURS, OURS_ACTIVE, OURS_UNIT, PLAIN, UNIT, Job
from papertwin.run import typed
from papertwin.sparse.protocol import in_words
from papertwin.training.trials import SetSizes
from papertwin.words import duration
from papertwin.words import number as said

PARAMS = paper.Params(
    train_images=200,
    check_images=50,
    test_images=60,
    passes=[1, 3],
    seeds=3,
    few_seeds=2,
    width=16,
    every=1,
    epochs=2,
    conv_images=150,
    conv_passes=5,
    processes=1,
    device="cpu",
)


# ---- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "letters"}, "dataset is 'letters'; it must be fashion_mnist, mnist, "),
        ({"side": 7}, "side is 7; it must be at least 8"),
        ({"side": 9}, "side is 9; it must divide the 28 pixels of fashion_mnist, .*: take 14"),
        ({"train_images": 99}, "train_images is 99; it must be at least 100"),
        ({"check_images": 49}, "check_images is 49; it must be at least 50"),
        ({"test_images": 49}, "test_images is 49; it must be at least 50"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"seeds": 1}, "seeds is 1; it must be at least 2"),
        ({"processes": -1}, "processes is -1; it must be at least 0"),
        ({"conv_depth": 9}, r"conv_depth is 9; residual networks have 18 layers, or 6n \+ 2"),
        ({"width": 15}, "width is 15; it must be at least 16"),
        ({"every": 0}, "every is 0; it must be at least 1"),
        ({"few_seeds": 1}, "few_seeds is 1; it must be at least 2"),
        ({"few_seeds": 4}, "few_seeds is 4; it can be at most the 3 of seeds"),
        ({"conv_images": 99}, "conv_images is 99; it must be at least 100"),
        ({"conv_images": 201}, "conv_images is 201; it can be at most the 200 of train_images"),
        ({"conv_passes": 0}, "conv_passes is 0; it must be at least 1"),
        ({"conv_depth": 7}, "conv_depth is 7; residual networks have 18 layers"),
        ({"conv_width": 0.0}, "conv_width is 0.0; it is a share of the full width, above 0"),
        ({"skew_images": 99}, "skew_images is 99; it must be at least 100"),
        (
            {"sparsities": [0.95]},
            r"sparsities is \[0.95\]; it must hold different shares between 0 and 1, with 0.95 and 0.99 among them",
        ),
        ({"sparsities": [0.9, 0.99]}, "sparsities is"),
        ({"sparsities": [0.95, 0.99, 0.0]}, "sparsities is"),
        ({"sparsities": [0.95, 0.99, 1.0]}, "sparsities is"),
        ({"passes": []}, r"passes is \[\]; it must hold ascending numbers from 1 on"),
        ({"passes": [2]}, "passes is .*; it must hold at least two numbers"),
        ({"passes": [4, 2]}, "passes is"),
        ({"passes": [2, 2, 4]}, "passes is"),
        ({"passes": [0, 2]}, "passes is"),
        ({"alpha": 0.0}, "alpha is 0.0; it must be above 0 and below a million; by default HAM has 200"),
        ({"alpha": -0.2}, "alpha is -0.2"),
        ({"alpha": 1e6}, "alpha is 1000000.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
    ],
)
def test_parameters_that_no_experiment_can_use(change, message):
    with pytest.raises(ParameterError, match=message):
        replace(PARAMS, **change)


def test_the_extremes_of_parameters_can_be_used():
    params = replace(PARAMS, conv_images=200, few_seeds=3, passes=[1, 2], sparsities=[0.99, 0.5, 0.95], alpha=200.0)
    assert {job.sparsity for job in paper.every_job(params) if job.network == "mlp"} == {0.5, 0.9, 0.95, 0.99}


def test_settings_are_those_of_the_recipe():
    settings = replace(PARAMS, epochs=7).settings
    assert settings == {
        "rate": 0.1,
        "batch": 128,
        "weight_decay": 5e-4,
        "memory_format": torch.channels_last,
        "epochs": 7,
        "device": "cpu",
    }


def test_the_shared_protocol_has_check_and_test_images_of_its_own():
    assert paper.Params().protocol_sizes == SetSizes("fashion_mnist", 14, 12000, 1000, 2000)
    other = replace(paper.Params(), check_images=500, test_images=60, train_images=5000, side=28, dataset="mnist")
    assert other.protocol_sizes == SetSizes("mnist", 28, 5000, 1000, 2000)
    assert other.sizes == SetSizes("mnist", 28, 5000, 500, 60)


def test_few_seeds_are_the_first_ones():
    assert list(PARAMS.few) == [1, 2]
    assert list(replace(PARAMS, seed=6, seeds=5, few_seeds=3).few) == [7, 8, 9]


def test_every_profile_trains_what_its_claims_need():
    book = ledger.load("sparseopt")
    for name in book.profiles:
        params = typed("sparseopt", paper.Params, book.parameters(name))
        assert len(params.few) >= 3, name
        assert set(paper.NEEDED) <= set(params.sparsities), name
    quick = typed("sparseopt", paper.Params, book.parameters("quick"))
    assert quick == paper.Params()


# ---- which trainings -------------------------------------------------------------------------------------------------


def asked(params, seeds, few):
    """Every training by hand: what each figure, table and claim needs."""
    short, long = params.passes[0], params.passes[-1]
    due = [
        Job("mlp", method, arm, sparsity, passes, seed)
        for method, arm, sparsity, passes, seed in product(
            ("RigL", "SET"), ("plain", "SparseOpt"), params.sparsities, params.passes, seeds
        )
    ]
    for arm, seed in product(
        ("SparseOpt, mean of active", "norm 1", "SparseOpt, norm 1", "HAM", "SparseOpt and HAM"), seeds
    ):
        due.append(Job("mlp", "RigL", arm, 0.99, short, seed))
    for arm, sparsity, seed in product(("plain", "SparseOpt", "SparseOpt, growth too"), (0.9, 0.95, 0.99), few):
        due.append(Job("mlp", "RigL", arm, sparsity, long, seed))
    for arm, seed in product(("plain", "SparseOpt"), seeds):
        due.append(Job("resnet", "RigL", arm, 0.95, params.conv_passes, seed))
        due += [Job("protocol", method, arm, 0.99, params.epochs, seed) for method in ("RigL", "SET")]
    for sparsity, seed in product((0.9, 0.95, 0.99), seeds):
        due += [Job("protocol", each, "SparseOpt", sparsity, params.epochs, seed) for each in ("static", "SET", "RigL")]
        due.append(Job("protocol", "SRigL", "SparseOpt", sparsity, params.epochs, seed, 0.3))
    for arm, seed in product(("plain", "SparseOpt"), few):
        due.append(Job("mlp", "SRigL", arm, 0.95, short, seed, 0.0))
    return set(due)


@pytest.mark.parametrize(
    ("change", "seeds", "few"),
    [
        ({}, (1, 2, 3), (1, 2)),
        ({"seed": 6, "seeds": 5, "few_seeds": 3}, range(7, 12), (7, 8, 9)),
        ({"sparsities": [0.9, 0.95, 0.97, 0.99], "passes": [5, 10, 20], "few_seeds": 3}, (1, 2, 3), (1, 2, 3)),
        ({"sparsities": [0.99, 0.95], "epochs": 1, "conv_passes": 1}, (1, 2, 3), (1, 2)),
    ],
)
def test_every_training_is_there_once_and_starts_after_the_seed_of_the_pilot(change, seeds, few):
    params = replace(PARAMS, **change)
    jobs = Counter(paper.every_job(params))
    assert set(jobs) == asked(params, seeds, few)
    assert set(jobs.values()) == {1}


def test_every_training_has_its_plain_partner_of_the_same_seed():
    jobs = set(paper.every_job(PARAMS))
    compared = [job for job in jobs if job.network != "protocol" or (job.method, job.sparsity) == ("RigL", 0.99)]
    assert {job.arm for job in compared} == set(paper.ARMS)
    assert all(replace(job, arm=PLAIN) in jobs for job in compared)


def test_what_takes_longest_is_trained_first():
    params = replace(PARAMS, passes=[1, 14], conv_passes=5, epochs=4)
    jobs = paper.every_job(params)
    costs = [15 if job.network == "resnet" else job.passes for job in jobs]
    assert costs == sorted(costs, reverse=True)
    assert [job.network for job in jobs[:6]] == ["resnet"] * 6
    assert {job.passes for job in jobs[6:]} == {14, 4, 1}


def test_a_grid_has_every_case_once_and_only_srigl_has_a_gamma():
    jobs = paper.grid("net", ("SRigL", "SET"), (OURS, HAM), iter((0.8, 0.9)), (2, 3), range(3, 5))
    rest = list(product((0.8, 0.9), (2, 3), (3, 4)))
    cases = list(product((("SRigL", 0.3), ("SET", None)), (OURS, HAM), rest))
    assert jobs == [Job("net", method, arm, *each, gamma) for (method, gamma), arm, each in cases]
    assert len(set(jobs)) == 2 * 2 * 8


def test_srigl_without_ablation_is_trained_with_and_without_the_correction():
    jobs = paper.equal_fan_in_jobs(replace(PARAMS, passes=[2, 9], seed=4))
    assert jobs == [Job("mlp", "SRigL", arm, 0.95, 2, seed, 0.0) for arm in (PLAIN, OURS) for seed in (5, 6)]


def test_arms_say_what_hangs_on_the_optimiser():
    assert paper.ARMS == {
        "plain": {},
        "SparseOpt": {"sparseopt": {}},
        "SparseOpt, growth too": {"sparseopt": {"growth": "corrected"}},
        "SparseOpt, mean of active": {"sparseopt": {"mean": "active"}},
        "norm 1": {"unit_norm": {}},
        "SparseOpt, norm 1": {"sparseopt": {}, "unit_norm": {}},
        "HAM": {"ham": {}},
        "SparseOpt and HAM": {"sparseopt": {}, "ham": {}},
    }
    assert tuple(paper.ARMS) == (PLAIN, OURS, GROWTH, OURS_ACTIVE, UNIT, OURS_UNIT, HAM, BOTH)


# ---- what they cost --------------------------------------------------------------------------------------------------


def test_plan_says_what_trainings_cost(macs_of_perceptron, monkeypatch):
    jobs = [Job("mlp", "RigL", OURS, 0.9, 7, 1), Job("protocol", "SRigL", OURS, 0.9, 3, 1, 0.3)]
    jobs += [Job("resnet", "RigL", PLAIN, 0.95, 5, seed) for seed in (1, 2)]
    monkeypatch.setattr(paper, "every_job", lambda params: jobs)
    plan = paper.plan(replace(PARAMS, train_images=300))
    small = count(cifar_resnet(8, 10, width=0.5, in_channels=1, seed=0), (1, 14, 14)).macs
    spent = 3 * ((7 + 3) * 300 * macs_of_perceptron(16) + 2 * 5 * 150 * small)
    assert plan["trainings"] == 4
    assert plan["optimiser steps"] == (7 + 3) * 3 + 2 * 5 * 2  # 300 images are three batches of at most 128, 150 two
    assert plan["multiply-accumulates of all trainings"] == said(spent)
    assert plan["on one core, 20 billion a second"] == duration(spent / 20e9)
    assert plan["on one GPU, 2 trillion a second"] == duration(spent / 2e12)
    macs = 3_857_974_312
    times = [f"{each} passes {duration(3 * macs * 1_281_167 * each / 2e12)}" for each in (90, 180, 270)]
    cost = f"25.5 million parameters, 3.86 billion multiply-accumulates an image; on one GPU {', '.join(times)}"
    assert plan["one ResNet-50 on ImageNet (not run)"] == cost


def test_the_quick_profile_is_of_246_trainings():
    plan = paper.plan(paper.Params())
    passes = 2 * 2 * 2 * 5 * (2 + 4 + 8)  # RigL and SET, plain and corrected, two sparsities, five seeds, three lengths
    passes += 5 * 5 * 2  # HAM, gradients of norm 1, the mean over active neurons
    passes += (3 * 3 - 2 * 2) * 3 * 8  # weights ever active, where they are not known already
    passes += (4 * 3 + 2) * 5 * 5  # the shared protocol: all methods, and RigL and SET plain at 99 %
    passes += 2 * 3 * 2  # SRigL without ablation
    assert plan["trainings"] == 120 + 25 + 15 + 70 + 6 + 10
    assert plan["optimiser steps"] == passes * 94 + 10 * 4 * 24


# ---- tables ----------------------------------------------------------------------------------------------------------


def trial(number):
    """A stand-in, all of whose values differ and differ from those of others."""
    return SimpleNamespace(test_error=number / 1000, itop=0.5 + number / 1000, active_share=0.9 - number / 1000)


def test_the_table_of_trials_is_in_per_cent_and_sorted():
    due = [
        *(Job("mlp", "RigL", OURS, 0.95, 4, 1), Job("mlp", "RigL", OURS, 0.95, 4, 2)),
        *(Job("mlp", "RigL", OURS, 0.99, 2, 1), Job("mlp", "RigL", PLAIN, 0.95, 2, 2)),
        *(Job("mlp", "RigL", PLAIN, 0.95, 4, 1), Job("mlp", "SET", HAM, 0.9, 2, 1)),
        *(Job("protocol", "SRigL", OURS, 0.9, 5, 1, 0.0), Job("protocol", "SRigL", OURS, 0.9, 5, 1, 0.3)),
        Job("resnet", "RigL", OURS, 0.95, 4, 1),
    ]
    assert all(replace(a, gamma=0) != replace(b, gamma=0) or a.gamma < b.gamma for a, b in pairwise(due))
    table = paper.trial_table({due[number]: trial(number) for number in (3, 7, 1, 0, 8, 6, 2, 5, 4)})
    keys = ["network", "method", "arm", "sparsity", "passes", "seed", "gamma"]
    assert list(table.columns) == [*keys, "test accuracy", "ITOP", "active"]
    assert table.index.tolist() == list(range(9))
    for number, row in enumerate(table.to_dict("records")):
        assert [row[key] for key in keys[:-1]] == [getattr(due[number], key) for key in keys[:-1]]
        assert row["gamma"] == due[number].gamma or due[number].gamma is None
        values = [row["test accuracy"], row["ITOP"], row["active"]]
        assert values == pytest.approx([100 - number / 10, 50 + number / 10, 90 - number / 10])


def test_trainers_are_the_trainings_by_the_shared_protocol():
    due = [
        *((Job("protocol", "RigL", PLAIN, 0.99, 5, 2), "RigL"), (Job("protocol", "RigL", OURS, 0.99, 5, 1), None)),
        *((Job("protocol", "SRigL", OURS, 0.9, 5, 1, 0.3), None), (Job("protocol", "static", OURS, 0.95, 5, 3), None)),
        *((Job("protocol", "SET", PLAIN, 0.99, 5, 1), "SET"), (Job("protocol", "SET", OURS, 0.99, 5, 1), None)),
    ]
    trials = {job: trial(number) for number, (job, _) in enumerate(due)}
    trials |= {Job("mlp", "RigL", PLAIN, 0.99, 8, 1): trial(90), Job("resnet", "RigL", OURS, 0.95, 4, 1): trial(91)}
    found = paper.trainers(paper.trial_table(trials), paper.Params())
    assert list(found.columns) == ["trainer", "sparsity", "seed", "test accuracy", "protocol"]
    rows = {
        (name or f"{job.method} + SparseOpt", job.sparsity, job.seed, round(100 - number / 10, 9))
        for number, (job, name) in enumerate(due)
    }
    assert [(*row[:3], round(row[3], 9)) for row in found.to_numpy().tolist()] == sorted(rows)
    assert {*found["trainer"]} == {*("RigL", "SET"), *(f"{name} + SparseOpt" for name in paper.METHODS)}


def test_the_protocol_in_words_is_that_of_srigl_at_the_quick_parameters():
    table = paper.trial_table({Job("protocol", "RigL", OURS, 0.9, 5, 1): trial(1)})

    def words(**changes):
        return paper.trainers(table, replace(paper.Params(), **changes))["protocol"].tolist()

    assert words() == [in_words(256, SetSizes("fashion_mnist", 14, 12000, 1000, 2000), 5, 25)]
    assert words() == [
        "perceptron 256-256, 12000 images of Fashion-MNIST 14×14, 5 passes, ΔT 25, tested on 2000",
    ]
    other = {"width": 64, "train_images": 5000, "side": 28, "dataset": "mnist", "epochs": 9, "every": 100}
    assert words(**other, passes=[3, 4], check_images=70, test_images=80) == [
        "perceptron 64-64, 5000 images of MNIST 28×28, 9 passes, ΔT 100, tested on 2000"
    ]
