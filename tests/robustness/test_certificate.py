"""Proofs of infeasibility: against the largest margin by linear programming, and recomputed from the explicit rows."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from papertwin.nets import mlp
from papertwin.robustness.certificate import CHECK, prove_infeasible
from papertwin.robustness.inputs import frozen
from papertwin.robustness.region import LinearRegion


def convolutional() -> nn.Sequential:
    """A small LeNet with ReLU, pools that overlap and a norm."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(3, 1),
        nn.Flatten(),
        nn.Linear(12, 6),
        nn.ReLU(),
        nn.Linear(6, 4),
    )


NETS = {"perceptron": (lambda: mlp((7, 8, 6, 4), seed=0), (7,)), "convolutional": (convolutional, (1, 6, 6))}
CASES = [(kind, seed) for kind in NETS for seed in range(4)]


def region_of(kind: str, seed: int, device="cpu") -> LinearRegion:
    """The region of a random point of a network with random weights, biases and statistics."""
    model, rng = NETS[kind][0](), np.random.default_rng(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            draws = torch.from_numpy(rng.normal(size=value.shape))
            value.copy_(draws.abs() + 0.2 if name.endswith("running_var") else draws)
    model64 = frozen(model, device)
    return LinearRegion(model64, torch.from_numpy(rng.random(NETS[kind][1])).to(next(model64.parameters()).device))


def unit_box(region: LinearRegion) -> tuple[torch.Tensor, torch.Tensor]:
    """The box [0, 1] in the shape of the seed."""
    return torch.zeros_like(region.seed), torch.ones_like(region.seed)


def label_rows(region: LinearRegion, target: int) -> tuple[np.ndarray, np.ndarray]:
    """D and d: the target's logit minus each other."""
    matrix, shift = region.logit_rows()
    others = np.arange(len(matrix)) != target
    return (matrix[target] - matrix)[others], (shift[target] - shift)[others]


@cache
def largest_margin(kind: str, seed: int, target: int) -> float:
    """Of the target in the region and the unit box, by scipy: max m with A x + c ≥ 0 and D x + d ≥ m."""
    region = region_of(kind, seed)
    matrix, constant = region.constraint_rows(np.arange(region.rows))
    contrast, shift = label_rows(region, target)
    rows = np.block([[matrix, np.zeros((len(matrix), 1))], [contrast, -np.ones((len(contrast), 1))]])
    size = region.seed.numel()
    found = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=-rows,
        b_ub=np.concatenate([constant, shift]),
        bounds=[(0, 1)] * size + [(None, None)],
    )
    assert found.status == 0
    return -found.fun


def by_hand(region: LinearRegion, target: int, certificate, low, high) -> float:
    """The bound b(λ, μ) from the rows themselves."""
    matrix, constant = region.constraint_rows(np.arange(region.rows))
    contrast, shift = label_rows(region, target)
    pull = certificate.weights @ matrix + certificate.label_weights @ contrast
    reach = np.maximum(pull * low.flatten().cpu().numpy(), pull * high.flatten().cpu().numpy()).sum()
    return reach + certificate.weights @ constant + certificate.label_weights @ shift


def test_proven_only_where_a_solver_finds_nothing_and_never_below_the_largest_margin():
    proven = dict.fromkeys(NETS, 0)
    reachable = dict.fromkeys(NETS, 0)
    for kind, seed in CASES:
        region = region_of(kind, seed)
        for target in range(len(region.logits)):
            largest = largest_margin(kind, seed, target)
            certificate = prove_infeasible(region, target, *unit_box(region))
            assert certificate.bound >= largest - 1e-9 * max(1.0, abs(largest))
            assert certificate.proven == (certificate.bound < -1e-6)
            if certificate.proven:
                assert largest < 0
                assert certificate.steps % CHECK == 0
            proven[kind] += certificate.proven
            reachable[kind] += largest >= 0
            assert certificate.proven or largest > -0.01, "this search has been able to prove such a case"
    assert min(proven.values()) >= 5
    assert min(reachable.values()) >= 5


@pytest.mark.parametrize(("kind", "seed"), CASES[::3])
def test_margins_on_both_sides_of_the_largest(kind, seed):
    region = region_of(kind, seed)
    label = int(region.logits.argmax())
    for target in {0, 1, 2, 3} - {label}:
        largest = largest_margin(kind, seed, target)
        assert not prove_infeasible(region, target, *unit_box(region), margin=largest, steps=150).proven
        assert not prove_infeasible(region, target, *unit_box(region), margin=largest - 0.1, steps=150).proven
        certificate = prove_infeasible(region, target, *unit_box(region), margin=1e6, steps=150)
        assert certificate.proven == np.isfinite(certificate.bound)
        assert certificate.bound >= largest - 1e-9


@pytest.mark.parametrize(("kind", "seed"), CASES[::2])
def test_a_proof_can_be_checked_by_hand(kind, seed, device):
    region = region_of(kind, seed, device)
    low, high = 0.5 * region.seed, region.seed + 0.3
    for target in range(4):
        certificate = prove_infeasible(region, target, low, high, steps=130)
        assert certificate.weights.shape == (region.rows,)
        assert certificate.weights.min() >= 0
        assert certificate.label_weights.shape == (3,)
        assert certificate.label_weights.min() >= 0
        assert certificate.label_weights.sum() == pytest.approx(1)
        if np.isfinite(certificate.bound):
            assert by_hand(region, target, certificate, low, high) == pytest.approx(certificate.bound, rel=1e-9)


def test_in_a_box_that_holds_the_seed_alone_the_bound_is_about_the_margin_of_the_seed():
    for kind, seed in CASES[::4]:
        region = region_of(kind, seed)
        logits = region.logits.numpy()
        for target in range(4):
            own = logits[target] - np.delete(logits, target).max()
            certificate = prove_infeasible(region, target, region.seed, region.seed, margin=-1e9, steps=300)
            assert certificate.bound >= own - 1e-9
            assert certificate.proven is False
            if target != logits.argmax():
                assert certificate.bound < 0.5 * own


def test_more_steps_never_worsen_the_bound_and_nothing_is_drawn_from_torch():
    region, state = region_of("perceptron", 2), torch.get_rng_state()
    bounds = [
        prove_infeasible(region, 1, *unit_box(region), margin=-1e9, steps=k).bound for k in (0, 50, 100, 200, 600)
    ]
    assert bounds[0] == np.inf
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == pytest.approx(largest_margin("perceptron", 2, 1), abs=0.2)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_proven_in_a_box_without_end():
    region = region_of("perceptron", 4)
    wide = torch.full_like(region.seed, torch.inf)
    certificate = prove_infeasible(region, 3, -wide, wide, steps=100)
    assert (certificate.proven, certificate.bound, certificate.steps) == (False, np.inf, 100)
    assert prove_infeasible(region, 3, *unit_box(region)).proven


def test_a_linear_network_by_the_closed_form():
    """Without rows the bound is the largest margin in the box: of two classes, a sum over pixels."""
    rng = np.random.default_rng(0)
    model = frozen(nn.Linear(5, 2))
    nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(0))
    nn.init.constant_(model.bias[1:], -9.0)
    region = LinearRegion(model, torch.from_numpy(rng.random(5)))
    (weight,), (bias,) = label_rows(region, 1)
    certificate = prove_infeasible(region, 1, *unit_box(region), margin=-1e9, steps=CHECK)
    assert certificate.bound == pytest.approx(np.maximum(weight, 0).sum() + bias)
    assert certificate.weights.shape == (0,)
    assert prove_infeasible(region, 1, *unit_box(region), margin=certificate.bound + 1e-5).proven
    assert not prove_infeasible(region, 1, *unit_box(region), margin=certificate.bound).proven
