"""What pointwise robustness says: infeasible, out of time, partial, unverified; ties, rounding, refused settings."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.robustness import certificate, region
from papertwin.robustness import pointwise as module
from papertwin.robustness.certificate import prove_infeasible
from papertwin.robustness.inputs import frozen, runner_up
from papertwin.robustness.pointwise import pointwise_robustness
from papertwin.robustness.program import SOLVERS, Solution, open_program
from papertwin.robustness.region import LinearRegion

FREE = (-np.inf, np.inf)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_tie_at_the_seed_is_at_distance_zero(zoo, solver, lazy):
    model = zoo.network("perceptron", 2)
    x = zoo.image("perceptron", 2)
    model[-1].weight.data[3], model[-1].bias.data[3] = (part[zoo.label_of(model, x)] for part in model[-1].parameters())
    found = pointwise_robustness(model, x, solver=solver, lazy=lazy)
    assert found.status == "found"
    assert found.epsilon == pytest.approx(0, abs=1e-7)
    assert {found.label, found.target} == {3, zoo.label_of(zoo.network("perceptron", 2), x)}
    every = pointwise_robustness(model, x, solver=solver, lazy=lazy, target="all")
    assert every.epsilon == pytest.approx(0, abs=1e-7)
    zoo.check_witness(model, x, every)
    if solver != "cbc":
        assert found.epsilon == every.epsilon == 0
        assert np.array_equal(found.witness, x)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("proof", [True, False])
def test_what_an_infeasible_region_reports(zoo, lazy, proof, always_prove):
    model, x = zoo.network("convolutional", 1), zoo.image("convolutional", 1)
    found = pointwise_robustness(model, x, lazy=lazy, proof=proof)
    assert (found.status, found.epsilon, found.witness, found.reached) == ("infeasible", np.inf, None, None)
    assert found.target == runner_up(zoo.outputs(model, x))
    assert not found.found
    if lazy and proof:
        assert (found.rounds, found.rows) == (1, 0)
        assert found.steps > 0 > found.bound
    else:
        assert (found.steps, found.bound) == (0, np.inf)
    every = pointwise_robustness(model, x, lazy=lazy, proof=proof, target="all")
    assert (every.status, every.epsilon, every.target) == ("infeasible", np.inf, None)


def test_a_bound_holds_for_the_margin_that_is_reached(zoo, always_prove):
    model, x = zoo.network("convolutional", 0), zoo.image("convolutional", 0)
    found = pointwise_robustness(model, x)
    assert found.found
    assert 0 <= found.bound < np.inf
    assert found.steps == 100


def test_where_the_time_went(zoo, always_prove):
    model, threads = zoo.network("convolutional", 1), torch.get_num_threads()
    for target in ("runner-up", "all"):
        for options in ({}, {"proof": False}, {"lazy": False}):
            found = pointwise_robustness(model, zoo.image("convolutional", 1), target=target, **options)
            assert list(found.timings) == ["rows", "model", "solve", "proof"]
            assert 0 < sum(found.timings.values()) <= found.seconds
            assert (found.timings["proof"] > 0) == (found.steps > 0) == (not options)
            assert min(found.timings[stage] for stage in ("rows", "model", "solve")) > 0
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("target", ["runner-up", "all"])
@pytest.mark.parametrize("limit", [0, -1.0, math.nan])
@pytest.mark.parametrize("solver", SOLVERS)
def test_out_of_time_is_not_infeasible(zoo, solver, limit, target):
    for seed in (0, 1):
        model, x = zoo.network("convolutional", seed), zoo.image("convolutional", seed)
        for lazy in (True, False):
            found = pointwise_robustness(model, x, limit=limit, solver=solver, lazy=lazy, target=target)
            assert found.status == "timeout"
            assert np.isnan(found.epsilon)
            assert found.witness is None
            assert not found.found


def test_time_that_is_enough_is_enough(zoo):
    model, x = zoo.network("convolutional", 0), zoo.image("convolutional", 0)
    assert zoo.same(pointwise_robustness(model, x, limit=600), pointwise_robustness(model, x))


class Clock:
    """A clock that is past every deadline once a method has been called `after` times."""

    def __init__(self, monkeypatch, owner, name: str, after: int):
        self.calls, self.after, self.true = 0, after, getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: (self.tick(), self.true(*args))[1])
        for place in (module, certificate):
            monkeypatch.setattr(place.time, "perf_counter", lambda: 1e9 if self.calls >= self.after else 0.0)

    def tick(self) -> None:
        """Count a call."""
        self.calls += 1


def test_a_full_program_stops_between_two_portions_of_rows(zoo, monkeypatch):
    model, x = zoo.network("convolutional", 0), zoo.image("convolutional", 0)
    monkeypatch.setattr(region, "BUDGET", 10 * 196 * 8)  # the widest layer has 4 maps of 7×7
    whole = pointwise_robustness(model, x, lazy=False)
    assert whole.rows > 100
    clock = Clock(monkeypatch, LinearRegion, "constraint_rows", 3)
    found = pointwise_robustness(model, x, lazy=False, limit=60)
    assert (found.status, found.rows, found.rounds, clock.calls) == ("timeout", 30, 0, 3)


def test_a_lazy_search_does_not_build_rows_once_its_time_is_up(zoo, monkeypatch):
    model, x = zoo.network("convolutional", 0), zoo.image("convolutional", 0)
    clock = Clock(monkeypatch, LinearRegion, "slack", 4)
    found = pointwise_robustness(model, x, limit=60)
    assert (found.status, found.rows, found.rounds, clock.calls) == ("timeout", 0, 1, 4)


def test_a_proof_stops_when_its_time_is_up(zoo, monkeypatch):
    model, x = zoo.network("convolutional", 0), zoo.image("convolutional", 0)
    monkeypatch.setattr(module, "MANY", 0)
    assert pointwise_robustness(model, x).steps == certificate.STEPS
    clock = Clock(monkeypatch, certificate._Search, "step", certificate.CHECK + 1)
    found = pointwise_robustness(model, x, limit=60)
    assert (found.status, found.rows, found.steps, clock.calls) == ("timeout", 0, 50, 50)
    assert found.bound < np.inf


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
def test_a_target_that_stays_open_is_told(zoo, status, monkeypatch):
    model, x = zoo.network("perceptron", 1), zoo.image("perceptron", 1)
    opened = []

    def some(*arguments):
        opened.append(Stubborn(status) if len(opened) == 1 else open_program(*arguments))
        return opened[-1]

    monkeypatch.setattr(module, "open_program", some)
    partial_one = pointwise_robustness(model, x, target="all")
    assert (partial_one.status, partial_one.found) == ("partial", True)
    zoo.check_witness(model, x, partial_one)
    monkeypatch.setattr(module, "open_program", lambda *a: Stubborn(status))
    for target in ("runner-up", "all"):
        nothing = pointwise_robustness(model, x, target=target)
        assert nothing.status == status
        assert np.isnan(nothing.epsilon)
        assert nothing.witness is None
    infeasible = zoo.network("convolutional", 1)
    opened.clear()
    monkeypatch.setattr(module, "open_program", some)
    left_open = pointwise_robustness(infeasible, zoo.image("convolutional", 1), target="all")
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
def test_rounding_never_makes_a_region_infeasible(zoo, solver, gap):
    """The first optimum breaks a row by less than the tolerance, and the network answers with the old label."""
    x = np.array([0.2 - 5e-7, 0.1 + 5e-7])
    assert pointwise_robustness(thin(gap), x, lazy=False).epsilon == pytest.approx(0.4000005, abs=1e-7)
    found = pointwise_robustness(thin(gap), x, solver=solver)
    assert found.status in ("found", "unverified")
    zoo.check_witness(thin(gap), x, found)
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


def test_a_tie_within_rounding_counts_at_margin_zero_only(zoo, monkeypatch):
    model, x = zoo.network("perceptron", 0), zoo.image("perceptron", 0)
    label, target = zoo.label_of(model, x), runner_up(zoo.outputs(model, x))
    rows, _ = LinearRegion(frozen(model), torch.from_numpy(x)).logit_rows()
    unit = np.abs(rows[target] - np.delete(rows, target, 0)).max()
    answers, lead = [], 0.0

    def nearly_tied(net, point):
        answers.append(zoo.outputs(model, x) if not answers else np.zeros(5))
        answers[-1][label] += lead * (len(answers) > 1)
        return answers[-1]

    monkeypatch.setattr(module, "logits_of", nearly_tied)
    for lead, margin, status in (  # noqa: B007  (nearly_tied reads it)
        (0.9e-6 * unit, 0.0, "found"),
        (1.1e-6 * unit, 0.0, "unverified"),
        (0.9e-6 * unit, 1e-7, "unverified"),
    ):
        answers.clear()
        found = pointwise_robustness(model, x, margin=margin)
        assert (found.status, found.target) == (status, target)
        assert found.reached == (target if status == "found" else None)


def test_when_a_proof_is_tried(zoo, monkeypatch):
    """Where many rows are broken and the box has an end, for the margin that was asked for."""
    model, x = zoo.network("perceptron", 0), zoo.image("perceptron", 0)
    asked = []

    def prove(region, target, low, high, *, margin, deadline):
        asked.append(margin)
        return prove_infeasible(region, target, low, high, margin=margin, deadline=deadline, steps=1)

    monkeypatch.setattr(module, "prove_infeasible", prove)
    for many, options in ((300, {}), (0, {"proof": False}), (0, {"lazy": False}), (0, {"box": FREE})):
        monkeypatch.setattr(module, "MANY", many)
        found = pointwise_robustness(model, x, margin=0.01, **options)
        assert found.found
        assert (found.steps, found.bound, asked) == (0, np.inf, [])
    assert pointwise_robustness(model, x, margin=0.01).steps == 1
    assert asked == [0.01]


def test_the_network_stays_as_it_is(zoo, device):
    model, x = zoo.network("convolutional", 5).train(), zoo.image("convolutional", 5).astype(np.float32)
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
    assert zoo.same(found, calm)
    zoo.check_witness(model, x, found)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [True] * 7 + [False]
    assert torch.equal(model[-1].weight.grad, torch.ones_like(model[-1].weight))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(x, image_before)


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
        ({"threads": 0}, "threads"),
        ({"threads": 1.5}, "threads"),
        ({"threads": None}, "threads"),
        ({"box": (0.0, 0.5)}, "box"),
        ({"box": (1.0, 0.0)}, "box"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_settings_that_mean_nothing_are_refused(zoo, wrong, message):
    with pytest.raises(InputError, match=message):
        pointwise_robustness(zoo.network("perceptron", 0), zoo.image("perceptron", 0), **wrong)


def test_the_label_of_the_seed_and_a_layer_without_encoding_are_refused(zoo):
    model, x = zoo.network("perceptron", 0), zoo.image("perceptron", 0)
    with pytest.raises(InputError, match="target"):
        pointwise_robustness(model, x, target=zoo.label_of(model, x))
    with pytest.raises(InputError, match="Layer 6 is a Sigmoid"):
        pointwise_robustness(model.append(nn.Sigmoid()), x)
    with pytest.raises(InputError, match=r"does not take an image of shape \(31,\)"):
        pointwise_robustness(zoo.network("perceptron", 0), np.append(x, 0.5))
    pool = nn.Sequential(nn.MaxPool2d(2, return_indices=True), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InputError, match="Layer 0 is a MaxPool2d with return_indices"):
        pointwise_robustness(pool, np.zeros((1, 4, 4)))
