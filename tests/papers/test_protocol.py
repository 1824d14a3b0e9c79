"""The protocol that several papers share: one network, one recipe, and the same training whoever does it."""

import math
from dataclasses import fields, replace

import pytest
import torch

from papertwin.papers import lth_rebasin, sparseopt, srigl
from papertwin.sparse.protocol import RECIPE, perceptron

SMALL = {"train_images": 200, "width": 64, "epochs": 2, "every": 1, "processes": 1, "device": "cpu"}


@pytest.fixture
def small(monkeypatch):
    """Both papers' parameters at a small size, with the images for validation and test that the protocol has."""
    one = srigl.Params(**SMALL, conv_images=150)
    return one, sparseopt.Params(**SMALL, conv_images=150)


@pytest.mark.parametrize(("method", "sparsity"), [("RigL", 0.9), ("SET", 0.9), ("SRigL", 0.8), ("static", 0.9)])
def test_two_papers_do_the_same_training_to_the_bit(small, method, sparsity, same_state):
    one, other = small
    gamma = srigl.METHODS[method][1].get("gamma")
    first = srigl.train_job(srigl.Job("mlp", method, sparsity, 3, gamma), one)
    second = sparseopt.train_job(
        sparseopt.Job("protocol", method, sparseopt.PLAIN, sparsity, 2, 3, gamma), replace(other, passes=[1, 2])
    )
    assert same_state(first.model, second.model)
    assert all(torch.equal(mask, second.masks[name]) for name, mask in first.masks.items())
    assert (first.losses, first.test_error) == (second.losses, second.test_error)


def test_the_papers_agree_on_what_the_protocol_is():
    tickets, plain, corrected = lth_rebasin.Params(), srigl.Params(), sparseopt.Params()
    assert plain.sizes == corrected.protocol_sizes == tickets.sizes
    assert plain.epochs == corrected.epochs == tickets.epochs
    assert plain.width == corrected.width == lth_rebasin.PROTOCOL_NEURONS
    assert plain.every == corrected.every == lth_rebasin.EVERY
    for params in (plain, corrected):
        assert {name: params.settings[name] for name in RECIPE} == RECIPE
    assert tickets.rate == tickets.sparse_rate == RECIPE["rate"]
    assert {"rate", "sparse_rate"} <= {field.name for field in fields(tickets)}


def test_first_weights_of_the_perceptron():
    """Hidden layers have variance 2 over their outputs, as the house draws them; the last one 1 over its inputs."""
    model = perceptron(10, in_channels=1, seed=0, neurons=1000, side=28)
    for name, variance in (("fc1", 2 / 1000), ("fc2", 2 / 1000), ("fc3", 1 / 1000)):
        weight = model.get_submodule(name).weight
        spread = 4 * variance * math.sqrt(2 / weight.numel())
        assert float(weight.detach().square().mean()) == pytest.approx(variance, abs=spread), name
