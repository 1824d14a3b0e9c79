"""The network on the plane: its data, losses and regions by hand, its nearest point against the linear program."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from papertwin.robustness import toy
from papertwin.robustness.pointwise import pointwise_robustness

STEPS = 201
SPACING = 1 / (STEPS - 1)


def wave(x):
    """The line between the two classes, written out once more."""
    return 0.5 + 0.25 * np.sin(2 * np.pi * x)


def bent(seed: int, hidden: int = 12) -> nn.Sequential:
    """A random network whose ReLUs bend, and whose label changes, inside the unit square; float32 as trained ones."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 2))
    first, last = rng.normal(size=(hidden, 2)), rng.normal(size=(2, hidden))
    shift = -(first * rng.random((hidden, 2))).sum(1)  # each unit bends along a line through a point of the square
    middle = last @ np.maximum(first @ [0.5, 0.5] + shift, 0)
    for parameter, value in zip(model.parameters(), (first, shift, last, -middle), strict=True):
        parameter.data = torch.tensor(value, dtype=torch.float32)
    return model


@pytest.fixture
def axes():
    """A network without surprises: logits (x, y) while both are above 0.25, label 1 above the diagonal."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    for parameter, value in zip(model.parameters(), (np.eye(2), [-0.25, -0.25], np.eye(2), [0.0, 0.0]), strict=True):
        parameter.data = torch.tensor(value, dtype=torch.float32)
    return model


def bends(model: nn.Sequential, points: np.ndarray) -> np.ndarray:
    """(n, hidden) inputs of the ReLUs, float64, by the first layer's weights alone."""
    weight, shift = (value.detach().double().numpy() for value in model[0].parameters())
    return points @ weight.T + shift


def logits(model: nn.Sequential, points: np.ndarray) -> torch.Tensor:
    """(n, 2) logits, float64, by torch alone."""
    with torch.no_grad():
        return copy.deepcopy(model).double()(torch.tensor(points))


def test_labels_follow_the_wave_and_both_classes_are_there():
    points, labels = toy.plane_data(500, seed=3)
    assert (points.shape, points.dtype) == ((500, 2), np.float32)
    assert (labels.shape, labels.dtype) == ((500,), np.int64)
    assert points.min() >= 0
    assert points.max() <= 1
    assert np.array_equal(labels == 1, points[:, 1] > wave(points[:, 0]))
    assert 150 < labels.sum() < 350
    spread = [np.histogram(side, 4, (0, 1))[0].min() for side in points.T]
    assert min(spread) > 50, "the whole square is drawn from"


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_nearer_to_the_wave_than_the_gap_and_something_is_just_outside(seed):
    points, _ = toy.plane_data(1000, seed)
    heights = np.abs(points[:, 1] - wave(points[:, 0]))
    assert 0.06 - 1e-6 < heights.min() < 0.07


def test_the_draw_depends_on_count_and_seed_alone():
    first, second, other = toy.plane_data(60, 1), toy.plane_data(60, 1), toy.plane_data(60, 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert [len(part) for part in toy.plane_data(1, 0)] == [1, 1]


def test_a_network_of_the_plane_learns_its_points_and_is_repeatable(monkeypatch):
    fit = toy.fit
    monkeypatch.setattr(toy, "fit", lambda *data, **settings: fit(*data, **{**settings, "epochs": 40}))
    points, labels = toy.plane_data(120, 0)
    before = torch.get_rng_state()
    one, two, other = (toy.plane_network(points, labels, hidden=7, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert one[0].weight.shape == (7, 2)
    assert not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one[0].weight, other[0].weight)
    assert ((toy.logit_lead(one, points) > 0) == labels).mean() > 0.9
    monkeypatch.setattr(toy, "fit", lambda *data, **settings: None)
    assert not torch.equal(*(toy.plane_network(points, labels, seed=seed)[0].weight for seed in (4, 5)))


def test_the_grid_goes_row_by_row_from_the_bottom():
    assert toy.grid(3)[:4].tolist() == [[0, 0], [0.5, 0], [1, 0], [0, 0.5]]
    assert toy.grid(11).shape == (121, 2)
    assert toy.grid(11)[-1].tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(3))
def test_lead_and_loss_are_those_of_torch(seed):
    model, points = bent(seed).train(), np.random.default_rng(seed).random((300, 2))
    expected = logits(model, points)
    wanted = functional.cross_entropy(expected, torch.ones(300, dtype=torch.long), reduction="none").numpy()
    assert toy.logit_lead(model, points) == pytest.approx((expected[:, 1] - expected[:, 0]).numpy(), abs=1e-12)
    assert toy.loss_surface(model, points) == pytest.approx(wanted, abs=1e-12)
    assert model.training
    assert model[0].weight.dtype == torch.float32


def test_the_loss_is_log_two_on_the_line_and_finite_far_from_it(axes):
    on_the_line = np.array([[0.4, 0.4], [0.9, 0.9], [0.1, 0.2]])
    assert toy.logit_lead(axes, on_the_line).tolist() == [0, 0, 0]
    assert toy.loss_surface(axes, on_the_line) == pytest.approx([math.log(2)] * 3)
    axes[2].weight.data *= 1e5
    below, above = toy.loss_surface(axes, np.array([[0.9, 0.3], [0.3, 0.9]]))
    assert (below, above) == (pytest.approx(6e4, rel=1e-4), 0)


@pytest.mark.parametrize("seed", range(4))
def test_a_region_holds_the_points_with_the_seeds_pattern_of_relus(seed):
    model, rng = bent(seed, hidden=5), np.random.default_rng(seed)
    points, start = rng.random((4000, 2)), rng.random(2)
    same = ((bends(model, points) > 0) == (bends(model, start[None]) > 0)).all(1)
    inside = toy.inside_region(model, start, points)
    assert inside.dtype == bool
    assert np.array_equal(inside, same)
    assert 0 < same.sum() < len(points)


def test_a_region_holds_its_seed_and_its_border(axes):
    seed = np.array([0.5, 0.3])
    places = np.array([seed, [0.25, 0.25], [0.25, 1.0], [0.2499, 0.3], [0.3, 0.2499], [1.0, 1.0]])
    assert toy.inside_region(axes, seed, places).tolist() == [True, True, True, False, False, True]


def by_loop(model: nn.Sequential, seed: np.ndarray, steps: int, within: bool) -> float:
    """The nearest grid point with another label, one point at a time."""
    label, best = logits(model, seed[None])[0].argmax(), math.inf
    pattern = bends(model, seed[None])[0] > 0
    for row in range(steps):
        for column in range(steps):
            place = np.array([column, row]) / (steps - 1)
            if within and ((bends(model, place[None])[0] > 0) != pattern).any():
                continue
            if logits(model, place[None])[0].argmax() != label:
                best = min(best, max(abs(place[0] - seed[0]), abs(place[1] - seed[1])))
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("within", [True, False])
def test_the_nearest_point_is_that_of_a_slow_loop(seed, within):
    model, start = bent(seed, hidden=4), np.random.default_rng(seed).random(2)
    found = toy.nearest_on_grid(model, start, 23, within=within)
    assert found == pytest.approx(by_loop(model, start, 23, within), abs=1e-12)


def test_the_nearest_point_by_hand(axes):
    """Label 1 needs y > x: from (0.6, 0.4) half of the gap, to the next point of the grid beyond the diagonal."""
    seed = np.array([0.6, 0.4])
    assert toy.nearest_on_grid(axes, seed, 101, within=True) == pytest.approx(0.11)
    assert toy.nearest_on_grid(axes, seed[::-1].copy(), 101, within=True) == pytest.approx(0.1), "a tie has label 0"
    assert toy.nearest_on_grid(axes, np.array([0.2, 0.1]), 101, within=True) == math.inf
    assert toy.nearest_on_grid(axes, np.array([0.2, 0.1]), 101, within=False) == pytest.approx(0.16)
    always = copy.deepcopy(axes)
    always[2].bias.data = torch.tensor([9.0, 0.0])
    assert toy.nearest_on_grid(always, seed, 11, within=False) == math.inf


def test_a_region_never_holds_a_nearer_point_than_the_plane_and_often_a_farther_one():
    farther = 0
    for seed in range(12):
        model, start = bent(seed), np.random.default_rng(seed).random(2)
        region, plane = (toy.nearest_on_grid(model, start, 81, within=within) for within in (True, False))
        assert region >= plane
        farther += region > plane
    assert farther >= 3


def test_the_linear_program_finds_what_the_grid_finds():
    """No grid point is nearer than the optimum, and the optimum is a point of the region on the decision line.

    Where the region is thin its nearest grid point may be several spacings off, or missing.
    """
    gaps = []
    for seed in range(16):
        model, start = bent(seed, hidden=4), np.random.default_rng(100 + seed).random(2)
        optimum = pointwise_robustness(model, start)
        nearest = toy.nearest_on_grid(model, start, STEPS, within=True)
        if optimum.status == "infeasible":
            assert nearest == math.inf, f"seed {seed}"
            continue
        gaps.append(nearest - optimum.epsilon)
        lead = toy.logit_lead(model, np.array([start, optimum.witness]))
        assert abs(lead[1]) < 1e-5 < abs(lead[0])
        there, here = bends(model, np.array([optimum.witness, start]))
        assert (there * np.sign(here)).min() > -1e-5
    assert len(gaps) > 9
    assert min(gaps) > -1e-6
    assert np.median(gaps) < SPACING
    assert np.isfinite(gaps).sum() > 8
