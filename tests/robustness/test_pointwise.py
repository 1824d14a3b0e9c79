"""Pointwise robustness: lazy against full, closed forms, grids, every solver, and witnesses run through the network."""

import copy
import math
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from papertwin.data.images import load_images
from papertwin.errors import ParameterError
from papertwin.nets import mlp, stored
from papertwin.robustness import pointwise as module
from papertwin.robustness.inputs import frozen, runner_up
from papertwin.robustness.pointwise import pointwise_robustness
from papertwin.robustness.program import SOLVERS, Solution, open_program
from papertwin.robustness.region import LinearRegion

FREE = (-np.inf, np.inf)


def convolutional() -> nn.Sequential:
    """Convolutions with and without ReLU, pools that overlap, a norm, dropout."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Dropout2d(0.5),
        nn.Conv2d(4, 6, 2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(24, 5),
    )


NETS = {
    "perceptron": (lambda: mlp((30, 24, 16, 5), seed=0), (30,)),
    "convolutional": (convolutional, (1, 9, 9)),
    "averaged": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 4)),
        (1, 7, 7),
    ),
}
CASES = [(kind, seed) for kind in NETS for seed in range(8)]


def network(kind: str, seed: int) -> nn.Sequential:
    """A network with weights, biases and statistics from a seed, in training mode."""
    model, rng = NETS[kind][0](), np.random.default_rng(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            size = math.sqrt(value[0].numel()) if value.ndim > 1 else 3.0
            draws = torch.from_numpy(rng.normal(size=value.shape)) / size
            value.copy_(draws.abs() + 0.2 if name.endswith("running_var") else draws)
    return model.train()


def image(kind: str, seed: int) -> np.ndarray:
    """A random image of the unit box."""
    return np.random.default_rng(seed + 1000).random(NETS[kind][1])


def same(first, second, tolerance: float = 1e-6) -> bool:
    """Whether two outcomes agree in status and distance."""
    return first.status == second.status and (
        first.epsilon == second.epsilon or abs(first.epsilon - second.epsilon) < tolerance
    )


def check_witness(model: nn.Module, x: np.ndarray, found, box=(0.0, 1.0), margin: float = 0.0) -> None:
    """What every outcome promises, by the network that was given."""
    logits = outputs(model, x)
    assert found.label == logits.argmax()
    if found.status not in ("found", "partial"):
        assert found.witness is None
        assert found.reached is None
        assert found.epsilon == np.inf if found.status == "infeasible" else np.isnan(found.epsilon)
        return
    assert found.witness.shape == x.shape
    assert found.witness.dtype == np.float64
    assert box[0] <= found.witness.min() <= found.witness.max() <= box[1]
    assert found.epsilon == np.abs(found.witness - x).max()
    there = outputs(model, found.witness)
    assert found.target == found.reached != found.label
    others = np.delete(there, found.target).max()
    assert there[found.target] >= others - 1e-6 if margin == 0 else there[found.target] > others


def outputs(model: nn.Module, x: np.ndarray) -> np.ndarray:
    """Logits of one image in float64 and eval mode."""
    with torch.no_grad():
        return copy.deepcopy(model).double().eval()(torch.as_tensor(x).double()[None])[0].numpy()


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


@pytest.fixture
def always_prove(monkeypatch):
    """Try a proof after every first optimum that breaks a row, with few steps."""
    monkeypatch.setattr(module, "MANY", 0)
    monkeypatch.setattr(module, "prove_infeasible", partial(module.prove_infeasible, steps=100))


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("margin", [0.0, 1e-6])
def test_lazy_is_full_with_and_without_proofs_and_as_scipy_says(kind, margin, always_prove):
    statuses, proofs, rounds = [], 0, []
    for seed in range(8):
        model, x = network(kind, seed), image(kind, seed)
        full = pointwise_robustness(model, x, lazy=False, margin=margin)
        expected = by_scipy(model, x, runner_up(outputs(model, x)), margin=margin)
        assert full.epsilon == pytest.approx(expected, abs=1e-6)
        assert (full.rounds, full.steps) == (1, 0)
        for proof in (False, True):
            lazy = pointwise_robustness(model, x, margin=margin, proof=proof)
            assert same(lazy, full)
            assert lazy.rows <= full.rows
            check_witness(model, x, lazy, margin=margin)
            proofs += lazy.steps > 0 and lazy.status == "infeasible"
        check_witness(model, x, full, margin=margin)
        statuses.append(full.status)
        rounds.append(lazy.rounds)
    assert set(statuses) <= {"found", "infeasible"}
    assert "found" in statuses
    assert max(rounds) > 1
    assert kind != "convolutional" or (statuses.count("infeasible") >= 2 and proofs >= 2)


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in NETS for seed in (0, 1, 3)])
def test_all_solvers_agree(kind, seed):
    model, x = network(kind, seed), image(kind, seed)
    first = pointwise_robustness(model, x)
    for solver in SOLVERS:
        for lazy in (True, False):
            other = pointwise_robustness(model, x, solver=solver, lazy=lazy, margin=1e-6)
            assert same(other, first, 1e-5)
            check_witness(model, x, other, margin=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_linear_networks_by_the_closed_form(seed):
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
        check_witness(model, x, found, FREE)
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
def test_the_optimum_never_decreases_over_rounds_and_every_round_adds_rows(seed, monkeypatch):
    monkeypatch.setattr(module, "open_program", lambda *a: Recorded(open_program(*a)))
    monkeypatch.setattr(module, "ROWS_PER_ROUND", 3)
    monkeypatch.setattr(Recorded, "said", [])
    model, x = network("convolutional", seed), image("convolutional", seed)
    found = pointwise_robustness(model, x, proof=False)
    steps = [solution.epsilon for solution in Recorded.said]
    assert len(steps) == found.rounds > 3
    assert (np.diff(steps) >= -1e-7).all()
    assert steps[0] < steps[-1] == pytest.approx(found.epsilon, abs=1e-6)
    assert found.rounds - 1 <= found.rows <= 3 * (found.rounds - 1)
    assert same(found, pointwise_robustness(model, x, lazy=False))


@pytest.mark.parametrize("kind", ["perceptron", "convolutional"])
def test_scaled_logits_change_nothing(kind):
    for seed in (0, 3, 5):
        model, x = network(kind, seed), image(kind, seed)
        first = pointwise_robustness(model, x)
        for scale in (1e-3, 0.3, 1e2, 1e5):
            scaled = network(kind, seed)
            for parameter in scaled[-1].parameters():
                parameter.data *= scale
            assert same(pointwise_robustness(scaled, x), first, 1e-5)


def test_a_box_that_is_scaled_and_moved_scales_the_distance():
    for seed in (0, 5):
        model, x = network("perceptron", seed), image("perceptron", seed)
        first = pointwise_robustness(model, x)
        wide = network("perceptron", seed).double()
        wide[1].bias.data += 0.25 * wide[1].weight.data.sum(1)
        wide[1].weight.data /= 4
        found = pointwise_robustness(wide, 4 * x - 1, box=(-1, 3))
        assert found.epsilon == pytest.approx(4 * first.epsilon, rel=1e-5)
        check_witness(wide, 4 * x - 1, found, (-1, 3))
        assert pointwise_robustness(model, x, box=FREE).epsilon <= first.epsilon + 1e-7


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_tie_at_the_seed_is_at_distance_zero(solver, lazy):
    model = network("perceptron", 2)
    x = image("perceptron", 2)
    model[-1].weight.data[3], model[-1].bias.data[3] = (part[label_of(model, x)] for part in model[-1].parameters())
    found = pointwise_robustness(model, x, solver=solver, lazy=lazy)
    assert found.status == "found"
    assert found.epsilon == pytest.approx(0, abs=1e-7)
    assert {found.label, found.target} == {3, label_of(network("perceptron", 2), x)}
    every = pointwise_robustness(model, x, solver=solver, lazy=lazy, target="all")
    assert every.epsilon == pytest.approx(0, abs=1e-7)
    check_witness(model, x, every)
    if solver != "cbc":
        assert found.epsilon == every.epsilon == 0
        assert np.array_equal(found.witness, x)


def label_of(model: nn.Module, x: np.ndarray) -> int:
    """The network's label of one image."""
    return int(outputs(model, x).argmax())


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("proof", [True, False])
def test_what_an_infeasible_region_reports(lazy, proof, always_prove):
    model, x = network("convolutional", 1), image("convolutional", 1)
    found = pointwise_robustness(model, x, lazy=lazy, proof=proof)
    assert (found.status, found.epsilon, found.witness, found.reached) == ("infeasible", np.inf, None, None)
    assert found.target == runner_up(outputs(model, x))
    assert not found.found
    if lazy and proof:
        assert (found.rounds, found.rows) == (1, 0)
        assert found.steps > 0 > found.bound
    else:
        assert (found.steps, found.bound) == (0, np.inf)
    every = pointwise_robustness(model, x, lazy=lazy, proof=proof, target="all")
    assert (every.status, every.epsilon, every.target) == ("infeasible", np.inf, None)


def test_a_bound_holds_for_the_margin_that_is_reached(always_prove):
    model, x = network("convolutional", 0), image("convolutional", 0)
    found = pointwise_robustness(model, x)
    assert found.found
    assert 0 <= found.bound < np.inf
    assert found.steps == 100


def test_where_the_time_went(always_prove):
    model, threads = network("convolutional", 1), torch.get_num_threads()
    for target in ("runner-up", "all"):
        for options in ({}, {"proof": False}, {"lazy": False}):
            found = pointwise_robustness(model, image("convolutional", 1), target=target, **options)
            assert list(found.timings) == ["rows", "model", "solve", "proof"]
            assert 0 < sum(found.timings.values()) <= found.seconds
            assert (found.timings["proof"] > 0) == (found.steps > 0) == (not options)
            assert min(found.timings[stage] for stage in ("rows", "model", "solve")) > 0
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("target", ["runner-up", "all"])
@pytest.mark.parametrize("limit", [0, -1.0, math.nan])
@pytest.mark.parametrize("solver", SOLVERS)
def test_out_of_time_is_not_infeasible(solver, limit, target):
    for seed in (0, 1):
        model, x = network("convolutional", seed), image("convolutional", seed)
        for lazy in (True, False):
            found = pointwise_robustness(model, x, limit=limit, solver=solver, lazy=lazy, target=target)
            assert found.status == "timeout"
            assert np.isnan(found.epsilon)
            assert found.witness is None
            assert not found.found


def test_time_that_is_enough_is_enough():
    model, x = network("convolutional", 0), image("convolutional", 0)
    assert same(pointwise_robustness(model, x, limit=600), pointwise_robustness(model, x))


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in NETS for seed in (1, 2, 3)])
def test_the_nearest_of_all_labels_is_the_nearest_of_the_single_ones(kind, seed):
    model, x = network(kind, seed), image(kind, seed)
    classes, label = len(outputs(model, x)), label_of(model, x)
    single = {k: pointwise_robustness(model, x, target=k) for k in range(classes) if k != label}
    every = pointwise_robustness(model, x, target="all")
    assert all(one.target == k for k, one in single.items())
    nearest = min(one.epsilon for one in single.values())
    assert every.epsilon == pytest.approx(nearest, abs=1e-6)
    assert all(every.epsilon <= one.epsilon + 1e-6 for one in single.values())
    if every.found:
        assert single[every.target].epsilon == pytest.approx(nearest, abs=1e-6)
    check_witness(model, x, every)
    second = runner_up(outputs(model, x))
    assert same(single[second], pointwise_robustness(model, x), 1e-9)
    assert same(single[second], pointwise_robustness(model, x, target=np.int64(second)), 1e-9)


class Stubborn:
    """A program whose solver says one thing, whatever it is asked."""

    def __init__(self, status: str):
        self.status = status

    def add_rows(self, matrix, least):
        """Take no notice."""

    def solve(self, seconds):
        """Say it."""
        return Solution(self.status)


@pytest.mark.parametrize("status", ["timeout", "failed"])
def test_a_target_that_stays_open_is_told(status, monkeypatch):
    model, x = network("perceptron", 1), image("perceptron", 1)
    opened = []

    def some(*arguments):
        opened.append(Stubborn(status) if len(opened) == 1 else open_program(*arguments))
        return opened[-1]

    monkeypatch.setattr(module, "open_program", some)
    partial_one = pointwise_robustness(model, x, target="all")
    assert (partial_one.status, partial_one.found) == ("partial", True)
    check_witness(model, x, partial_one)
    monkeypatch.setattr(module, "open_program", lambda *a: Stubborn(status))
    for target in ("runner-up", "all"):
        nothing = pointwise_robustness(model, x, target=target)
        assert nothing.status == status
        assert np.isnan(nothing.epsilon)
        assert nothing.witness is None
    infeasible = network("convolutional", 1)
    opened.clear()
    monkeypatch.setattr(module, "open_program", some)
    left_open = pointwise_robustness(infeasible, image("convolutional", 1), target="all")
    assert left_open.status == status, "one open target: nobody knows that there is no witness"
    assert np.isnan(left_open.epsilon)


def thin(gap: float) -> nn.Sequential:
    """Two pixels, a boundary x + y = 1.1 that the region just reaches, a steep ReLU beyond y = 0.5."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    first = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]], [0.0, 0.0, -0.5, -0.6 - gap]
    last = [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -1e4, 0.0]], [0.0, -1.1]
    for layer, (weight, bias) in ((model[0], first), (model[2], last)):
        layer.weight.data, layer.bias.data = (torch.tensor(part, dtype=torch.float64) for part in (weight, bias))
    return model


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("gap", [3e-7, 2e-6, 1e-3])
def test_rounding_never_makes_a_region_infeasible(solver, gap):
    """The first optimum breaks a row by less than the tolerance, and the network answers with the old label."""
    x = np.array([0.2 - 5e-7, 0.1 + 5e-7])
    assert pointwise_robustness(thin(gap), x, lazy=False).epsilon == pytest.approx(0.4000005, abs=1e-7)
    found = pointwise_robustness(thin(gap), x, solver=solver)
    assert found.status in ("found", "unverified")
    check_witness(thin(gap), x, found)
    if found.found:
        assert found.epsilon == pytest.approx(0.4000005, abs=1.2e-5)
    if gap == 1e-3:
        assert found.found


def test_a_witness_with_which_the_network_disagrees_is_no_witness(monkeypatch):
    """The margin is raised twice; when the raised one is out of reach the outcome is still only unverified."""
    for far, rounds in ((0.7, 3), (0.500001, 2)):
        model = nn.Linear(1, 2).double()
        model.weight.data, model.bias.data = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([0.0, -0.5]).double()
        seen = []
        monkeypatch.setattr(module, "logits_of", lambda net, x, seen=seen: seen.append(x) or np.array([1.0, 0.0]))
        found = pointwise_robustness(model, np.array([0.2]), box=(0.0, far), margin=1e-7)
        assert found.status == "unverified"
        assert np.isnan(found.epsilon)
        assert found.witness is None
        assert found.rounds == 3
        assert len(seen) == 1 + rounds
        assert [float(x[0]) for x in seen[1:]] == pytest.approx([0.5 + 1e-7, 0.5 + 1e-6, 0.5 + 1e-5][:rounds], abs=1e-9)


def test_a_margin_is_kept():
    model, x = network("perceptron", 0), image("perceptron", 0)
    distances = []
    for margin in (0.0, 1e-3, 0.1, 0.3):
        found = pointwise_robustness(model, x, margin=margin)
        logits = outputs(model, found.witness)
        assert logits[found.target] - np.delete(logits, found.target).max() == pytest.approx(margin, abs=1e-6)
        distances.append(found.epsilon)
    assert (np.diff(distances) > 0).all()
    assert pointwise_robustness(model, x, margin=100.0).status == "infeasible"


def test_the_network_stays_as_it_is(device):
    model, x = network("convolutional", 5).train(), image("convolutional", 5).astype(np.float32)
    model[1].eval()
    model[-1].bias.requires_grad_(False)
    model[-1].weight.grad = torch.ones_like(model[-1].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state, image_before = [m.training for m in model.modules()], torch.get_rng_state(), x.copy()
    found = pointwise_robustness(model, x, device=device)
    again = pointwise_robustness(model, torch.from_numpy(x), device=device)
    calm = pointwise_robustness(frozen(model), x)
    assert found.found
    assert np.array_equal(found.witness, again.witness)
    assert same(found, calm)
    check_witness(model, x, found)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [True] * 7 + [False]
    assert torch.equal(model[-1].weight.grad, torch.ones_like(model[-1].weight))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(x, image_before)


def test_one_relu_in_two_places():
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
        assert same(once, twice, 1e-12)
        statuses.add(once.status)
    assert "found" in statuses


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": 5}, "target"),
        ({"target": -1}, "target"),
        ({"target": "nearest"}, "target"),
        ({"target": True}, "target"),
        ({"target": None}, "target"),
        ({"solver": "glpk"}, "glpk"),
        ({"margin": -1e-9}, "margin"),
        ({"margin": math.nan}, "margin"),
        ({"box": (0.0, 0.5)}, "box"),
        ({"box": (1.0, 0.0)}, "box"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        pointwise_robustness(network("perceptron", 0), image("perceptron", 0), **wrong)


def test_the_label_of_the_seed_and_a_layer_without_encoding_are_refused():
    model, x = network("perceptron", 0), image("perceptron", 0)
    with pytest.raises(ParameterError, match="target"):
        pointwise_robustness(model, x, target=label_of(model, x))
    with pytest.raises(ParameterError, match="Layer 6 is a Sigmoid"):
        pointwise_robustness(model.append(nn.Sigmoid()), x)


@pytest.fixture(scope="module")
def digits():
    """The first test images of MNIST, float32."""
    return load_images("mnist", "test").scaled(range(5))


def test_lazy_is_full_on_digits(digits):
    """The perceptron of 784, 100, 50 and 10."""
    model = stored("mlp-0")
    reached = 0
    for x in digits[:5]:
        lazy = pointwise_robustness(model, x, margin=1e-6)
        full = pointwise_robustness(model, x, margin=1e-6, lazy=False)
        assert same(lazy, full)
        assert (lazy.rounds > 1) == (lazy.rows > 0)
        assert lazy.rows < full.rows == 150
        check_witness(model, x, lazy, margin=1e-6)
        reached += lazy.found
    assert reached >= 4


def test_the_lenet_of_a_digit_is_infeasible_by_proof_and_by_solver(digits):
    model = stored("lenet")
    proven = pointwise_robustness(model, digits[0], margin=1e-6)
    solved = pointwise_robustness(model, digits[0], margin=1e-6, proof=False)
    assert proven.status == solved.status == "infeasible"
    assert proven.rows == 0 < solved.rows
    assert proven.bound < 0
