"""Experiments on lottery tickets and weight symmetry: parameters, which trainings, of which networks, at what cost."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from torch import nn

from papertwin import ledger, words
from papertwin.errors import ParameterError
from papertwin.nets import count
from papertwin.papers import lth_rebasin as paper
from papertwin.papers.lth_rebasin import Dense, Job
from papertwin.run import typed
from papertwin.symmetry import permutables

PARAMS = paper.Params()
BOOK = ledger.load("lth_rebasin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 7}, "side is 7; it must be at least 8"),
        ({"neurons": 7}, "neurons is 7; it must be at least 8"),
        ({"depth": 9}, r"depth is 9; residual networks have 18 layers, or 6n \+ 2"),
        ({"members": 1}, "members is 1; it must be at least 2"),
        ({"few_seeds": 1}, "few_seeds is 1; it must be at least 2"),
        ({"few_seeds": 6}, "few_seeds is 6; it can be at most the 5 of seeds"),
        ({"points": 2}, "points is 2; it must be at least 3"),
        ({"network": "vgg"}, "network is 'vgg'; it must be mlp or resnet"),
        (
            {"widths": [1.0, 2.0]},
            r"widths is \[1.0, 2.0\]; it must hold .*, with 1 and 4 among them, at which the claims are judged",
        ),
        ({"widths": [4.0, 1.0]}, "widths is .*; it must hold ascending factors above 0 and below 64"),
        ({"widths": [0.0, 1.0, 4.0]}, "widths is .*; it must hold ascending factors above 0"),
        ({"sparsities": [0.9, 0.97]}, "sparsities is .*; it must hold .*, with 0.9, 0.95 and 0.97 among them"),
        ({"sparsities": [0.9, 0.95, 0.97, 1.0]}, "sparsities is .*; it must hold ascending shares between 0 and 1"),
        (
            {"rewinds": [1, 2]},
            "rewinds is .*; it must hold .*, with 0, 1 and 2 among them, for the first weights, near and far",
        ),
        ({"rewinds": [0, 1, 2, 5]}, "rewinds is .*; it must hold ascending passes from 0 to 4"),
        ({"far": 3}, "rewinds is .*; it must hold .*, with 0, 1 and 3 among them"),
        ({"near": 2}, "near is 2; it must be above 0 and below far, 2"),
        ({"early": []}, "early is .*; it must hold ascending"),
        ({"early": [0, 1]}, "early is .*; it must hold ascending passes from 1"),
        ({"early": [5]}, "early is .*; it must hold ascending passes from 1 to 4"),
        ({"share": 1.0}, "share is 1.0; it must be between 0 and 1"),
        ({"rate": 0.0}, "rate is 0.0; it must be above 0"),
        ({"prune_rate": -1.0}, "prune_rate is -1.0"),
        ({"conv_rewind": 8}, "conv_rewind is 8; it must be below conv_epochs, 8"),
        ({"conv_images": 12001}, "conv_images is 12001; it can be at most the 12,000 of train_images"),
        ({"match_images": 12001}, "match_images is 12001"),
        ({"conv_width": 0.0}, "conv_width is 0.0; it is a share of the full width, above 0"),
    ],
)
def test_parameters_that_no_experiment_can_use(change, message):
    with pytest.raises(ParameterError, match=message):
        replace(PARAMS, **change)


SMALLER = (
    {"prune_epochs": 49},
    {"share": 0.5},
    {"train_images": 44999, "conv_images": 44999, "match_images": 44999},
    {"rate": 0.1},
    {"sparse_rate": 0.08},
)


def test_only_the_papers_own_networks_and_images_are_at_full_size():
    found = {name: typed("lth_rebasin", paper.Params, BOOK.parameters(name)) for name in BOOK.profiles}
    assert {name: each.at_full_size for name, each in found.items()} == {"quick": False, "full": False, "paper": True}
    assert {name: each.vgg_at_full_size for name, each in found.items()} == {
        "quick": False,
        "full": False,
        "paper": True,
    }
    full = found["paper"]
    assert replace(full, dataset="cifar100").at_full_size
    for change in (
        {"side": 16},
        {"base": 0.5},
        {"near": 25},
        {"far": 100},
        {"epochs": 199},
        {"network": "mlp"},
        *SMALLER,
    ):
        assert not replace(full, **change).at_full_size
    for change in ({"vgg_width": 0.5}, {"conv_rewind": 49}, {"conv_epochs": 199}, {"conv_images": 44999}, *SMALLER[:2]):
        assert not replace(full, **change).vgg_at_full_size


def test_only_full_size_has_no_stamp():
    """CIFAR-10 and the network's name alone do not make the paper's training."""
    params = {name: typed("lth_rebasin", paper.Params, BOOK.parameters(name)) for name in BOOK.profiles}
    stamps = {name: {each.id: each.stamped(params[name]) for each in BOOK.figures} for name in params}
    ours = "perceptron on Fashion-MNIST in place of ResNet20 on CIFAR-10"
    assert {stamps["quick"][name] for name in ("fig3a", "fig4a", "fig4b", "fig5", "fig9")} == {ours}
    assert stamps["full"]["fig5"] == "ResNet20 on CIFAR-10, smaller or trained for less than there"
    assert stamps["full"]["fig8"] == "VGG11 on CIFAR-10, smaller or trained for less than there"
    assert (stamps["paper"]["fig5"], stamps["paper"]["fig8"]) == ("", "")
    assert {each["fig1"] for each in stamps.values()} == {"a toy of two weights"}
    for name in ("full", "paper"):
        assert stamps[name]["fig2"] == "masks of a ResNet20 on CIFAR-10"
        assert stamps[name]["fig3b"] == "ResNet8 on CIFAR-10 in place of ResNet20 on CIFAR-100"


# ---- which trainings -------------------------------------------------------------------------------------------------


def asked(params):
    """Every sparse training by hand: what each figure, table and claim needs."""
    due, few, all_seeds = [], (1, 2, 3), (1, 2, 3, 4, 5)
    methods = ("LTH", "naive", "permuted")
    for width, k in product((1.0, 2.0, 4.0), (0, 1, 2)):
        seeds = all_seeds if width == 1 or (width == 4 and k > 0) else few
        at = (0.9, 0.95, 0.97) if k == 1 and width != 2 else (0.9, 0.97)
        due += [Job("grid", width, name, s, k, seed) for name, s, seed in product(methods, at, seeds)]
    due += [Job("grid", 1.0, "random", s, 1, seed) for s, seed in product((0.9, 0.97), all_seeds)]
    due += [Job("grid", 1.0, "permuted", 0.9, 1, seed, matched=t) for seed, t in product(all_seeds, (1, 2))]
    due += [Job("grid", 1.0, name, 0.9, 1, seed, m) for name, seed, m in product(methods, few, (1, 2, 3, 4))]
    due += [Job("resnet", 1.0, name, 0.9, 2, seed) for name, seed in product(methods, few)]
    return due


def test_every_sparse_training_is_done_once():
    jobs = paper.every_job(PARAMS)
    assert Counter(jobs) == Counter(asked(PARAMS))
    assert max(Counter(jobs).values()) == 1


def test_all_points_are_trained_where_that_is_asked_for():
    params = replace(PARAMS, all_points=True, sparsities=[0.8, 0.9, 0.95, 0.97])
    jobs = [job for job in paper.every_job(params) if (job.network, job.method, job.member) == ("grid", "naive", 0)]
    found = {(job.width, job.sparsity, job.rewind) for job in jobs}
    assert found == set(product((1.0, 2.0, 4.0), (0.8, 0.9, 0.95, 0.97), (0, 1, 2)))


def test_vgg_is_trained_where_it_has_a_width():
    jobs = [job for job in paper.every_job(replace(PARAMS, vgg_width=0.25)) if job.network == "vgg"]
    assert {(job.method, job.sparsity, job.rewind, job.seed) for job in jobs} == set(
        product(("LTH", "naive", "permuted"), (0.8, 0.9), (0, 2), (1, 2, 3))
    )
    assert not any(job.network == "vgg" for job in paper.every_job(PARAMS))


def test_dense_networks_are_those_that_the_sparse_ones_need_each_once():
    dense = paper.every_dense(PARAMS)
    assert max(Counter(dense).values()) == 1
    main = {job for job in dense if job.seed == job.order}
    due = {(n, w, s) for n, w, seeds in PAIRS for s in seeds}
    assert {(job.network, job.width, job.seed) for job in main if job.sparsities} == due
    assert {(job.network, job.width, job.seed) for job in main if not job.sparsities} == due
    assert all(job.weights == job.seed + 1000 * bool(job.sparsities) for job in main)
    others = {job for job in dense if job.seed != job.order}
    assert len(others) == 3 * 4 * 2
    assert all((job.network, job.width) == ("grid", 1.0) for job in others)
    assert {job.sparsities for job in others} == {(), (0.9,)}
    assert len({job.weights for job in others}) == len(others)


PAIRS = (
    ("grid", 1.0, range(1, 6)),
    ("grid", 2.0, range(1, 4)),
    ("grid", 4.0, range(1, 6)),
    ("resnet", 1.0, range(1, 4)),
)


def test_seeds_follow_the_first_one():
    jobs = paper.every_job(replace(PARAMS, seed=7, seeds=3))
    assert {job.seed for job in jobs} == {8, 9, 10}


def test_no_two_networks_share_first_weights_by_accident():
    dense = [job for job in paper.every_dense(PARAMS) if job.network == "grid" and job.width == 1]
    assert len({job.weights for job in dense}) == len(dense)


def test_the_path_of_pruning_passes_every_target():
    path = paper.path_to((0.9, 0.95, 0.97), 0.2)
    assert {0.9, 0.95, 0.97} <= set(path)
    assert path == sorted(path)
    left = [1.0, *(1 - each for each in path)]
    assert all(after / before >= 0.8 - 1e-9 for before, after in pairwise(left))
    assert len(paper.path_to((0.36,), 0.2)) == 2  # 0.36 is reached by two rounds of a fifth, up to rounding


# ---- networks and cost -----------------------------------------------------------------------------------------------


def test_the_widest_perceptron_is_that_of_the_shared_protocol():
    model = paper.build(PARAMS, Dense("grid", 4.0, 3, 3, 3), 10, 3)
    shapes = [tuple(m.weight.shape) for m in model if isinstance(m, nn.Linear)]
    assert shapes == [(256, 196), (256, 256), (10, 256)]
    alike = paper.perceptron(10, in_channels=1, seed=3, neurons=256, side=14)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), alike.parameters()))


@pytest.mark.parametrize("network", ["grid", "resnet", "vgg"])
@pytest.mark.parametrize("side", [14, 32])
def test_networks_can_be_built_and_renumbered(network, side):
    change = {"dataset": "cifar10"} if side == 32 else {}
    params = replace(PARAMS, side=side, vgg_width=0.0625, network="resnet", depth=8, base=0.25, **change)
    model = paper.build(params, Dense(network, 1.0, 0, 0, 0), 10)
    assert model.eval()(torch.zeros(2, *params.sizes.shape)).shape == (2, 10)
    assert permutables(model)
    norms = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert norms == (network != "vgg")


def test_the_plan_counts_trainings_steps_and_operations():
    params = replace(PARAMS, seeds=2, few_seeds=2, train_images=300, conv_images=200, match_images=200)
    found = paper.plan(params)
    dense, jobs = paper.every_dense(params), paper.every_job(params)
    assert (found["dense trainings"], found["sparse trainings"]) == (len(dense), len(jobs))
    steps = work = 0
    for job in [*dense, *jobs]:
        grid = job.network == "grid"
        passes = (5 if grid else 8) - getattr(job, "rewind", 0)
        passes += len(paper.path_to(job.sparsities, 0.2 if grid else 0.5)) if getattr(job, "sparsities", ()) else 0
        steps += passes * (3 if grid else 2)  # batches of 128
        with torch.device("meta"):
            macs = count(paper.build(params, job, 10), (1, 14, 14)).macs
        work += 3 * macs * passes * (300 if grid else 200)
    assert found["optimiser steps"] == steps
    assert found["multiply-accumulates of all trainings"] == words.number(work)
    assert "25.5 million parameters" in found["one ResNet50 on ImageNet (not run)"]


@pytest.mark.parametrize("profile", ["full", "paper"])
def test_larger_profiles_have_a_plan(profile):
    params = typed("lth_rebasin", paper.Params, {**BOOK.parameters(profile), "profile": profile})
    found = paper.plan(params)
    assert found["sparse trainings"] > 200
    assert any(job.network == "vgg" for job in paper.every_job(params))


def test_rates_of_a_network_without_norms_are_its_own():
    assert PARAMS.rates_of("grid") == PARAMS.rates_of("resnet") == (0.1, 0.1, 0.01)
    assert PARAMS.rates_of("vgg") == pytest.approx((0.02, 0.02, 0.002))
