"""Trainings of SparseOpt at tiny sizes: of which networks, from which first weights, with what on the optimiser."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn

from papertwin.nets import cifar_resnet
from papertwin.papers import sparseopt as paper
from papertwin.papers.sparseopt import BOTH, GROWTH, HAM, OURS, OURS_UNIT, PLAIN, UNIT, Job
from papertwin.sparse import trials as sparse_trials
from papertwin.sparse.protocol import perceptron
from papertwin.sparse.trials import Plan
from papertwin.training.pool import Pool
from papertwin.training.trials import SetSizes

SIZES = {"train_images": 200, "check_images": 50, "test_images": 60, "conv_images": 150}
PARAMS = paper.Params(**SIZES, passes=[1, 3], width=16, every=1, processes=1, device="cpu")


# ---- networks --------------------------------------------------------------------------------------------------------


def built(network, seed=3, channels=1, **changes):
    return paper.builders(replace(PARAMS, **changes))[network](10, in_channels=channels, seed=seed)


@pytest.mark.parametrize("network", ["mlp", "protocol"])
def test_the_perceptron_is_that_of_the_shared_protocol(network, same_state):
    assert same_state(built(network), perceptron(10, in_channels=1, seed=3, neurons=16, side=14))
    wide = built(network, channels=3, width=20, side=28)
    assert [tuple(layer.weight.shape) for layer in wide if isinstance(layer, nn.Linear)] == [
        *((20, 3 * 28 * 28), (20, 20), (10, 20)),
    ]
    assert not same_state(built(network), built(network, seed=4))


def test_the_residual_network_is_of_its_depth_and_width(same_state):
    assert same_state(built("resnet"), cifar_resnet(8, 10, width=0.5, in_channels=1, seed=3))
    large = built("resnet", channels=3, conv_depth=14, conv_width=1.0, seed=5)
    assert same_state(large, cifar_resnet(14, 10, width=1.0, in_channels=3, seed=5))
    assert not same_state(built("resnet"), built("resnet", seed=4))


# ---- trainings -------------------------------------------------------------------------------------------------------

RIGL = Job("mlp", "RigL", PLAIN, 0.9, 3, 1)
MASKED, FAN_IN = {"first": "masked"}, {"first": "fan_in"}


@pytest.mark.parametrize(
    ("job", "plan", "images"),
    [
        (RIGL, Plan("rigl", 0.9, 7, MASKED), (200, 50, 60)),
        (Job("mlp", "SET", OURS, 0.99, 4, 5), Plan("set", 0.99, 7, MASKED, hung={"sparseopt": {}}), (200, 50, 60)),
        (
            Job("mlp", "RigL", GROWTH, 0.95, 9, 2),
            Plan("rigl", 0.95, 7, MASKED, hung={"sparseopt": {"growth": "corrected"}}),
            (200, 50, 60),
        ),
        (replace(RIGL, arm=UNIT), Plan("rigl", 0.9, 7, MASKED, hung={"unit_norm": {}}), (200, 50, 60)),
        (
            replace(RIGL, arm=OURS_UNIT, seed=8),
            Plan("rigl", 0.9, 7, MASKED, hung={"sparseopt": {}, "unit_norm": {}}),
            (200, 50, 60),
        ),
        (replace(RIGL, arm=HAM), Plan("rigl", 0.9, 7, MASKED, hung={"ham": {"alpha": 0.6}}), (200, 50, 60)),
        (
            replace(RIGL, arm=BOTH),
            Plan("rigl", 0.9, 7, MASKED, hung={"sparseopt": {}, "ham": {"alpha": 0.6}}),
            (200, 50, 60),
        ),
        (
            Job("mlp", "SRigL", OURS, 0.95, 1, 2, 0.0),
            Plan("srigl", 0.95, 7, MASKED | {"gamma": 0.0}, hung={"sparseopt": {}}),
            (200, 50, 60),
        ),
        (
            Job("resnet", "RigL", OURS, 0.95, 6, 3),
            Plan("rigl", 0.95, 7, MASKED, hung={"sparseopt": {}}),
            (150, 50, 60),
        ),
        (Job("protocol", "static", PLAIN, 0.9, 2, 1), Plan("static", 0.9, 7, FAN_IN), (200, 1000, 2000)),
        (
            Job("protocol", "SRigL", OURS, 0.9, 2, 1, 0.3),
            Plan("srigl", 0.9, 7, FAN_IN | {"gamma": 0.3}, hung={"sparseopt": {}}),
            (200, 1000, 2000),
        ),
    ],
)
def test_a_training_is_of_its_job(job, plan, images, monkeypatch, same_state):
    monkeypatch.setattr(paper, "train_sparse", lambda *given, **settings: (given, settings))
    params = replace(PARAMS, every=7, alpha=0.6)
    (network, build, *given), settings = paper.train_job(job, params)
    assert (network, *given) == (job.network, plan, job.seed, SetSizes("fashion_mnist", 14, *images))
    assert settings == {**params.settings, "epochs": job.passes, "curve": job.network == "mlp" and job.passes == 3}
    assert same_state(build(10, in_channels=1, seed=3), built(job.network))
    assert paper.ARMS["HAM"] == {"ham": {}}, "α of one run stays there"


@pytest.fixture
def untrained(monkeypatch):
    """Masks and first weights as they are before the first step, in place of trainings."""

    def fit(model, images, labels, *, follow, **settings):
        follow(model, torch.optim.SGD(model.parameters(), lr=0.1), 10)
        return [0.0]

    monkeypatch.setattr(sparse_trials, "fit", fit)
    return lambda job: paper.train_job(job, PARAMS)


@pytest.mark.parametrize("job", [RIGL, replace(RIGL, method="SET"), Job("resnet", "RigL", PLAIN, 0.9, 1, 1)])
def test_first_weights_are_those_of_the_dense_network_masked_and_the_same_for_every_arm(untrained, job, same_state):
    first, dense = untrained(job), built(job.network, seed=1)
    for name, mask in first.masks.items():
        dense.get_submodule(name).weight.data.mul_(mask)
    active, every = (sum(map(torch.Tensor.sum if n else torch.numel, first.masks.values())) for n in (1, 0))
    assert int(active) == pytest.approx(every / 10, rel=0.02)
    assert same_state(first.model, dense)
    for arm in paper.ARMS:
        other = untrained(replace(job, arm=arm))
        assert same_state(first.model, other.model), arm
        assert all(torch.equal(mask, other.masks[name]) for name, mask in first.masks.items()), arm
    assert not same_state(first.model, untrained(replace(job, seed=2)).model)


@pytest.mark.parametrize("method", paper.METHODS)
def test_first_weights_of_the_shared_protocol_are_scaled_to_the_fan_in(untrained, method, same_state):
    job = Job("protocol", method, PLAIN, 0.9, 2, 1, 0.3 if method == "SRigL" else None)
    trial, dense = untrained(job), built("protocol", seed=1)
    mask, weight = trial.masks["fc1"], trial.model.fc1.weight.detach()
    scaled = weight * (mask.sum(1, keepdim=True) / 2).sqrt()
    assert float(scaled[mask].std()) == pytest.approx(1, rel=0.15)
    assert torch.equal(weight != 0, mask)
    assert not torch.isclose(weight, dense.fc1.weight)[mask].all()
    assert same_state(trial.model, untrained(replace(job, arm=OURS)).model)


def test_arms_train_other_networks_from_the_same_start(same_state):
    arms = {arm: paper.train_job(replace(RIGL, arm=arm), PARAMS) for arm in paper.ARMS}
    for first, second in combinations(arms, 2):
        assert not same_state(arms[first].model, arms[second].model), (first, second)
    stronger = paper.train_job(replace(RIGL, arm=HAM), replace(PARAMS, alpha=0.6))
    assert not same_state(stronger.model, arms[HAM].model)
    again = paper.train_job(replace(RIGL, arm=BOTH), PARAMS)
    assert same_state(again.model, arms[BOTH].model)
    assert all(trial.curve.shape == (3, 2) and trial.images == 3 * 200 for trial in arms.values())


def test_srigl_without_ablation_is_the_same_network_with_the_correction(same_state):
    one, other = (paper.train_job(Job("mlp", "SRigL", arm, 0.9, 3, 1, 0.0), PARAMS) for arm in (PLAIN, OURS))
    assert one.log, "connections have changed"
    assert same_state(one.model, other.model)
    assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())


def test_only_the_longest_trainings_of_the_perceptron_are_looked_at_after_each_pass_and_trials_belong_to_their_jobs(
    monkeypatch,
):
    jobs = [Job("mlp", "SET", OURS, 0.9, 3, 2), Job("protocol", "static", OURS, 0.9, 1, 3)]
    jobs += [Job("resnet", "RigL", PLAIN, 0.8, 1, 1), Job("mlp", "RigL", PLAIN, 0.95, 1, 2)]
    monkeypatch.setattr(paper, "every_job", lambda params: jobs)
    seen = []
    trials = paper.train_all(PARAMS, Pool(1), lambda *progress: seen.append(progress))
    assert list(trials) == jobs
    assert seen == [(number, 4) for number in range(1, 5)]
    for job, trial in trials.items():
        assert (trial.network, trial.seed, trial.plan.sparsity) == (job.network, job.seed, job.sparsity)
        assert trial.plan.method == job.method.lower()
        assert trial.images == (150 if job.network == "resnet" else 200) * job.passes
        assert (trial.curve is not None) == (job.network == "mlp" and job.passes == 3)
