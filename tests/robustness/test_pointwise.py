"""Pointwise robustness: lazy against full, closed forms, grids, every solver, and witnesses run through the network."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from papertwin.data.images import load_images
from papertwin.nets import mlp, stored
from papertwin.robustness import pointwise as module
from papertwin.robustness.inputs import frozen, runner_up
from papertwin.robustness.pointwise import pointwise_robustness
from papertwin.robustness.program import SOLVERS, Solution, open_program
from papertwin.robustness.region import LinearRegion

FREE = (-np.inf, np.inf)
KINDS = ("perceptron", "convolutional", "averaged")


def by_scipy(model: nn.Module, x: np.ndarray, target: int, box=(0.0, 1.0), margin: float = 0.0) -> float:
    """The optimum of the program with all its rows, stated here; inf where there is none."""
    region = LinearRegion(frozen(model), torch.from_numpy(x))
    rows, constant = region.constraint_rows(np.arange(region.rows))
    logits, shift = region.logit_rows()
    others = np.arange(len(logits)) != target
    rows = np.concatenate([rows, (logits[target] - logits)[others]])
    least = np.concatenate([-constant, margin - (shift[target] - shift)[others]])
    flat, eye = x.flatten(), np.eye(x.size)
    rows = np.block([[rows, np.zeros((len(rows), 1))], [eye, np.ones((x.size, 1))], [-eye, np.ones((x.size, 1))]])
    least = np.concatenate([least, flat, -flat])
    bounds = [box] * x.size + [(0, None)]
    found = linprog(np.append(np.zeros(x.size), 1.0), A_ub=-rows, b_ub=-least, bounds=bounds, method="highs-ipm")
    assert found.status in (0, 2)
    return found.fun if found.status == 0 else np.inf


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [0.0, 1e-6])
def test_lazy_is_full_with_and_without_proofs_and_as_scipy_says(zoo, kind, margin, always_prove):
    statuses, proofs, rounds = [], 0, []
    for seed in range(8):
        model, x = zoo.network(kind, seed), zoo.image(kind, seed)
        full = pointwise_robustness(model, x, lazy=False, margin=margin)
        expected = by_scipy(model, x, runner_up(zoo.outputs(model, x)), margin=margin)
        assert full.epsilon == pytest.approx(expected, abs=1e-6)
        assert (full.rounds, full.steps) == (1, 0)
        for proof in (False, True):
            lazy = pointwise_robustness(model, x, margin=margin, proof=proof)
            assert zoo.same(lazy, full)
            assert lazy.rows <= full.rows
            zoo.check_witness(model, x, lazy, margin=margin)
            proofs += lazy.steps > 0 and lazy.status == "infeasible"
        zoo.check_witness(model, x, full, margin=margin)
        statuses.append(full.status)
        rounds.append(lazy.rounds)
    assert set(statuses) <= {"found", "infeasible"}
    assert "found" in statuses
    assert max(rounds) > 1
    assert kind != "convolutional" or (statuses.count("infeasible") >= 2 and proofs >= 2)


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in KINDS for seed in (0, 1, 3)])
def test_all_solvers_agree(zoo, kind, seed):
    model, x = zoo.network(kind, seed), zoo.image(kind, seed)
    first = pointwise_robustness(model, x)
    for solver in SOLVERS:
        for lazy in (True, False):
            other = pointwise_robustness(model, x, solver=solver, lazy=lazy, margin=1e-6)
            assert zoo.same(other, first, 1e-5)
            zoo.check_witness(model, x, other, margin=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_linear_networks_by_the_closed_form(zoo, seed):
    """In all of space: (f_y − f_l) / ‖w_y − w_l‖₁, if no third label overtakes l on the way."""
    rng = np.random.default_rng(seed)
    weight, bias, x = rng.normal(size=(4, 12)), rng.normal(size=4), 3 * rng.normal(size=12)
    model = nn.Linear(12, 4).double()
    model.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    logits = weight @ x + bias
    label, distances = int(logits.argmax()), {}
    for target in {0, 1, 2, 3} - {label}:
        apart = weight[label] - weight[target]
        distances[target] = distance = (logits[label] - logits[target]) / np.abs(apart).sum()
        there = weight @ (x - distance * np.sign(apart)) + bias
        found = pointwise_robustness(model, x, target=target, box=FREE)
        zoo.check_witness(model, x, found, FREE)
        if there[target] >= there.max() - 1e-9:
            assert found.epsilon == pytest.approx(distance, rel=1e-6)
        else:
            assert found.epsilon > distance
    nearest = pointwise_robustness(model, x, target="all", box=FREE)
    assert nearest.epsilon == pytest.approx(min(distances.values()), rel=1e-6)
    assert nearest.target == min(distances, key=distances.get)
    assert nearest.rows == 0


def plane_patterns(model: nn.Sequential, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which units are on, (n, units), and the labels, (n,), at points of the plane, by numpy."""
    z, on = points, []
    for layer in model:
        if isinstance(layer, nn.ReLU):
            on.append(z > 0)
            z = np.maximum(z, 0)
        elif isinstance(layer, nn.Linear):
            z = z @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    return np.concatenate(on, 1), z.argmax(1)


def test_on_the_plane_against_a_grid():
    """Never farther than the nearest grid point of its region, and never nearer than the nearest of the whole plane."""
    axis = np.linspace(0, 1, 301)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    excess, statuses = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        model, x = mlp((2, 7, 6, 3), seed=seed), rng.random(2)
        for parameter in model.parameters():
            parameter.data = torch.from_numpy(rng.normal(size=parameter.shape)).float()
        on, labels = plane_patterns(model, np.concatenate([x[None], grid]))
        distance, inside = np.abs(grid - x).max(1), (on[1:] == on[0]).all(1)
        anywhere = distance[labels[1:] != labels[0]].min(initial=np.inf)
        nearest = distance[inside & (labels[1:] != labels[0])].min(initial=np.inf)
        found = pointwise_robustness(model, x, target="all")
        statuses.append(found.status)
        assert found.epsilon <= nearest + 1e-9
        assert found.epsilon >= anywhere - 1 / 300
        if found.found:
            (here, there), (_, label) = plane_patterns(model, np.stack([x, 0.99999 * found.witness + 1e-5 * x]))
            assert (here == there).all()
            assert label in (labels[0], found.target)
            excess.append(nearest - found.epsilon)
    assert statuses.count("found") >= 8
    assert statuses.count("infeasible") >= 8
    assert np.median(excess) < 1 / 300


class Recorded:
    """A program that remembers what its solver said."""

    said: ClassVar[list[Solution]] = []

    def __init__(self, program):
        self.program, self.add_rows = program, program.add_rows

    def solve(self, seconds):
        """Solve and remember."""
        self.said.append(self.program.solve(seconds))
        return self.said[-1]


@pytest.mark.parametrize("seed", [0, 5, 7])
def test_the_optimum_never_decreases_over_rounds_and_every_round_adds_rows(zoo, seed, monkeypatch):
    monkeypatch.setattr(module, "open_program", lambda *a: Recorded(open_program(*a)))
    monkeypatch.setattr(module, "ROWS_PER_ROUND", 3)
    monkeypatch.setattr(Recorded, "said", [])
    model, x = zoo.network("convolutional", seed), zoo.image("convolutional", seed)
    found = pointwise_robustness(model, x, proof=False)
    steps = [solution.epsilon for solution in Recorded.said]
    assert len(steps) == found.rounds > 3
    assert (np.diff(steps) >= -1e-7).all()
    assert steps[0] < steps[-1] == pytest.approx(found.epsilon, abs=1e-6)
    assert found.rounds - 1 <= found.rows <= 3 * (found.rounds - 1)
    assert zoo.same(found, pointwise_robustness(model, x, lazy=False))


class Sloppy(Recorded):
    """A program whose solver keeps no row exactly."""

    def solve(self, seconds):
        """Solve, and move every pixel a little."""
        found = super().solve(seconds)
        if len(self.said) > 20:
            raise TimeoutError("The same rows again and again.")
        return Solution(found.status, found.x - 1e-4, found.epsilon) if found.status == "optimal" else found


def test_rows_that_the_solver_breaks_are_not_given_again(zoo, monkeypatch):
    monkeypatch.setattr(module, "open_program", lambda *a: Sloppy(open_program(*a)))
    monkeypatch.setattr(Recorded, "said", [])
    for seed in range(3):
        model, x = zoo.network("perceptron", seed), zoo.image("perceptron", seed)
        zoo.check_witness(model, x, pointwise_robustness(model, x))
    assert len(Recorded.said) > 3


@pytest.mark.parametrize("kind", ["perceptron", "convolutional"])
def test_scaled_logits_change_nothing(zoo, kind):
    for seed in (0, 3, 5):
        model, x = zoo.network(kind, seed), zoo.image(kind, seed)
        first = pointwise_robustness(model, x)
        for scale in (1e-9, 1e-3, 0.3, 1e2, 1e5):
            scaled = zoo.network(kind, seed)
            for parameter in scaled[-1].parameters():
                parameter.data *= scale
            assert zoo.same(pointwise_robustness(scaled, x), first, 1e-5)


@pytest.mark.parametrize("scale", [1e-7, 1e-5, 1e-2, 1e3, 1e7])
@pytest.mark.parametrize("kind", ["perceptron", "convolutional"])
def test_scaled_hidden_layers_change_nothing(zoo, kind, scale):
    """A layer before a ReLU times s and the next one's weights divided by s are the same function."""
    for seed in (0, 2, 5):
        x = zoo.image(kind, seed)
        model, scaled = zoo.network(kind, seed).double(), zoo.network(kind, seed).double()
        first, second = (scaled[1], scaled[3]) if kind == "perceptron" else (scaled[0][1], scaled[3])
        first.weight.data *= scale
        first.bias.data *= scale
        second.weight.data /= scale
        for lazy in (True, False):
            found = pointwise_robustness(scaled, x, lazy=lazy, margin=1e-6)
            assert zoo.same(found, pointwise_robustness(model, x, lazy=lazy, margin=1e-6))
            zoo.check_witness(scaled, x, found, margin=1e-6)


def test_a_box_that_is_scaled_and_moved_scales_the_distance(zoo):
    for seed in (0, 5):
        model, x = zoo.network("perceptron", seed), zoo.image("perceptron", seed)
        first = pointwise_robustness(model, x)
        wide = zoo.network("perceptron", seed).double()
        wide[1].bias.data += 0.25 * wide[1].weight.data.sum(1)
        wide[1].weight.data /= 4
        found = pointwise_robustness(wide, 4 * x - 1, box=(-1, 3))
        assert found.epsilon == pytest.approx(4 * first.epsilon, rel=1e-5)
        zoo.check_witness(wide, 4 * x - 1, found, (-1, 3))
        assert pointwise_robustness(model, x, box=FREE).epsilon <= first.epsilon + 1e-7


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in KINDS for seed in (1, 2, 3)])
def test_the_nearest_of_all_labels_is_the_nearest_of_the_single_ones(zoo, kind, seed):
    model, x = zoo.network(kind, seed), zoo.image(kind, seed)
    classes, label = len(zoo.outputs(model, x)), zoo.label_of(model, x)
    single = {k: pointwise_robustness(model, x, target=k) for k in range(classes) if k != label}
    every = pointwise_robustness(model, x, target="all")
    assert all(one.target == k for k, one in single.items())
    nearest = min(one.epsilon for one in single.values())
    assert every.epsilon == pytest.approx(nearest, abs=1e-6)
    assert all(every.epsilon <= one.epsilon + 1e-6 for one in single.values())
    if every.found:
        assert single[every.target].epsilon == pytest.approx(nearest, abs=1e-6)
    zoo.check_witness(model, x, every)
    second = runner_up(zoo.outputs(model, x))
    assert zoo.same(single[second], pointwise_robustness(model, x), 1e-9)
    assert zoo.same(single[second], pointwise_robustness(model, x, target=np.int64(second)), 1e-9)


def test_a_margin_is_kept(zoo):
    model, x = zoo.network("perceptron", 0), zoo.image("perceptron", 0)
    distances = []
    for margin in (0.0, 1e-3, 0.1, 0.3):
        found = pointwise_robustness(model, x, margin=margin)
        logits = zoo.outputs(model, found.witness)
        assert logits[found.target] - np.delete(logits, found.target).max() == pytest.approx(margin, abs=1e-6)
        distances.append(found.epsilon)
    assert (np.diff(distances) > 0).all()
    assert pointwise_robustness(model, x, margin=100.0).status == "infeasible"


def test_one_relu_in_two_places(zoo):
    """The same object twice is two layers: the outcome is that of two objects."""
    bend, draw = nn.ReLU(), torch.Generator().manual_seed(1)
    layers = [nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 3)]
    for layer in layers:
        nn.init.normal_(layer.weight, generator=draw)
    first, second, last = layers
    statuses = set()
    for seed in range(6):
        x = np.random.default_rng(seed).random(8)
        once = pointwise_robustness(nn.Sequential(first, bend, second, bend, last), x)
        twice = pointwise_robustness(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last), x)
        assert zoo.same(once, twice, 1e-12)
        statuses.add(once.status)
    assert "found" in statuses


@pytest.fixture(scope="module")
def digits():
    """The first test images of MNIST, float32."""
    return load_images("mnist", "test").scaled(range(5))


def test_lazy_is_full_on_digits(zoo, digits):
    """The perceptron of 784, 100, 50 and 10."""
    model = stored("mlp-0")
    reached = 0
    for x in digits[:5]:
        lazy = pointwise_robustness(model, x, margin=1e-6)
        full = pointwise_robustness(model, x, margin=1e-6, lazy=False)
        assert zoo.same(lazy, full)
        assert (lazy.rounds > 1) == (lazy.rows > 0)
        assert lazy.rows < full.rows == 150
        zoo.check_witness(model, x, lazy, margin=1e-6)
        reached += lazy.found
    assert reached >= 4


def test_the_lenet_of_a_digit_is_infeasible_by_proof_and_by_solver(digits):
    model = stored("lenet")
    proven = pointwise_robustness(model, digits[0], margin=1e-6)
    solved = pointwise_robustness(model, digits[0], margin=1e-6, proof=False)
    assert proven.status == solved.status == "infeasible"
    assert proven.rows == 0 < solved.rows
    assert proven.bound < 0
