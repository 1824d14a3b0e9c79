"""Tests of the study of one network: which points count, and that a broken witness is noticed."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.robustness.inputs import frozen
from papertwin.robustness.outcome import Adversarial
from papertwin.robustness.pointwise import pointwise_robustness
from papertwin.robustness.study import (
    Study,
    comparison,
    conduct,
    fates,
    metrics,
    rows_broken,
    survives_rounding,
    survives_single,
    witness_problems,
)


def outcome(epsilon, label=0, status="found"):
    """A result without a witness image; only its numbers matter."""
    return Adversarial(epsilon, None, label, 1, None, 0.0, status)


@pytest.fixture
def study():
    """Five points: one misclassified, one timed out by the first method, one infeasible."""
    ours = [outcome(0.05), outcome(0.02, label=1), outcome(math.nan, status="timeout"), outcome(math.inf), outcome(0.3)]
    theirs = [outcome(0.06), outcome(0.01, label=1), outcome(0.01), outcome(0.2), outcome(0.1)]
    return Study("toy", nn.Identity(), 0.9, np.zeros((5, 1)), np.zeros(5, int), {"lp": ours, "lbfgs": theirs})


def test_only_points_measured_by_both_are_compared(study):
    ours, theirs = study.measured("lp", "lbfgs")
    assert ours.tolist() == [0.05, math.inf, 0.3]
    assert theirs.tolist() == [0.06, 0.2, 0.1]
    row = comparison(study, "lp", "lbfgs")
    assert (row["first nearer"], row["second nearer"], row["neither found"]) == (1, 2, 0)


def test_metrics_leave_out_misclassified_and_timed_out_points(study):
    row = metrics(*study.measured("lp"), "lp", 0.1, 0)
    assert row["φ LP"] == pytest.approx(1 / 3)
    assert row["μ LP"] == pytest.approx(0.05)


def test_rounding_to_grey_levels_counts_whole_levels():
    """A seed from a file holds k/255 in single precision; a change of exactly 20 levels is within 20/255."""
    model = nn.Sequential(nn.Linear(1, 2))
    model[0].weight.data, model[0].bias.data = torch.tensor([[1.0], [-1.0]]), torch.tensor([-0.5, 0.5])
    for level in range(108, 127):
        seed = np.array([np.float32(level / 255)], dtype=float)
        for change, kept in ((20, level + 20 > 127.5), (21, False)):
            witness = np.array([(level + change) / 255 + 1e-9])
            found = Adversarial(float(np.abs(witness - seed).max()), witness, 1, 0, 0, 0.0, "found")
            assert survives_rounding(frozen(model), found, seed, 20 / 255) == kept


def test_a_witness_is_asked_about_in_the_networks_own_precision():
    model = nn.Sequential(nn.Linear(1, 2))
    model[0].weight.data, model[0].bias.data = torch.tensor([[1.0], [-1.0]]), torch.tensor([-0.5, 0.5])
    for beyond, kept in ((1e-3, True), (1e-10, False)):  # 0.5 + 1e-10 is 0.5 in single precision, a tie: label 0
        witness = np.array([0.5 - beyond])
        assert survives_single(model, Adversarial(0.1, witness, 0, 1, 1, 0.0, "found")) == kept


def test_fates_add_up(study):
    fate = fates(study, "lp", 0.1)
    assert fate["points"] == sum(fate[name] for name in ("misclassified", "found", "infeasible", "timed out", "other"))
    assert (fate["misclassified"], fate["timed out"]) == (1, 1)


@pytest.fixture
def real():
    """A random network and what the linear program finds for some points."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    model[2].weight.data *= 5  # labels change within the box
    images = np.random.default_rng(0).random((40, 4))
    labels = model.double()(torch.from_numpy(images)).argmax(1).numpy()
    search = {"lp": lambda network, seeds: [pointwise_robustness(network, x, margin=1e-6) for x in seeds]}
    return conduct("random", model, 1.0, (images, labels), search)


def test_witnesses_keep_their_promises_and_broken_ones_are_named(real):
    assert any(found.found for found in real.outcomes["lp"])
    assert witness_problems(real, "lp") == []
    place = next(i for i, found in enumerate(real.outcomes["lp"]) if found.found)
    for change in ({"witness": real.images[place]}, {"epsilon": 0.5 * real.outcomes["lp"][place].epsilon}):
        broken = list(real.outcomes["lp"])
        broken[place] = dataclasses.replace(broken[place], **change)
        spoiled = dataclasses.replace(real, outcomes={"lp": broken})
        assert len(witness_problems(spoiled, "lp")) == 1


def test_a_witness_of_the_program_breaks_no_row(real):
    for image, found in zip(real.images, real.outcomes["lp"]):
        if found.found:
            assert (
                rows_broken(real.model, image, found.witness) <= 1 / 8
            )  # on the border, within the solver's tolerance
