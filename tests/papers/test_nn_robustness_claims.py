"""What is measured for the claims on robustness: every judgement on answers known beforehand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.papers import nn_robustness as paper
from papertwin.papers import nn_robustness_claims as claims
from papertwin.robustness.outcome import Adversarial
from papertwin.robustness.study import Study
from papertwin.training import intervals
from papertwin.training.intervals import wilson

PARAMS = paper.Params()
# one letter a point: near or far of the threshold (20/255 = 0.078), exactly at it, infeasible, timed out, misclassified
REACH = {"n": 0.05, "f": 0.2, "=": 20 / 255, "i": math.inf, "?": math.nan, "x": 0.05}
STATUS = {"i": "infeasible", "?": "timeout"}


def outcome(letter: str = "n", epsilon: float | None = None, witness: float | None = None) -> Adversarial:
    """A result on a point with true label 0."""
    image = None if witness is None else np.array([witness])
    distance = REACH[letter] if epsilon is None else epsilon
    return Adversarial(distance, image, int(letter == "x"), 1, 1, 0.0, STATUS.get(letter, "found"))


def study(name: str = "toy", model: nn.Module | None = None, **found) -> Study:
    """A study from a string of letters, or distances, for each algorithm."""
    results = {
        method: [outcome(each) if isinstance(each, str) else outcome(epsilon=each) for each in each_one]
        for method, each_one in found.items()
    }
    count = len(next(iter(results.values())))
    return Study(name, model or nn.Identity(), 0.9, np.zeros((count, 1)), np.zeros(count, int), results)


def tuned(before: tuple[str, str], **after: tuple[str, str]) -> paper.Tuning:
    """A fine-tuning: letters by (lp, lbfgs) before, and after each branch; branches not named change nothing."""
    names = {"own": "L-BFGS-B T=2", "lp": "LP T=2", "control": "control T=2", "early": "LP T=1"}
    studies = [study("MLP", lp=before[0], lbfgs=before[1])]
    for key, name in names.items():
        letters = after.get(key, before)
        studies.append(study(f"MLP, {name}", lp=letters[0], lbfgs=letters[1]))
    return paper.Tuning(studies[0], studies[1:], {})


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    """Intervals from a tenth of the draws."""
    monkeypatch.setattr(intervals, "RESAMPLES", 500)


# C1a, C1b: witnesses


@pytest.fixture
def witnessed():
    """A network with label 1 above 0.5, three seeds, and two true witnesses by the linear program."""
    model = nn.Sequential(nn.Linear(1, 2))
    model[0].weight.data, model[0].bias.data = torch.tensor([[0.0], [1.0]]), torch.tensor([0.5, 0.0])
    seeds = [0.3, 0.4, 0.1]
    found = [outcome(epsilon=0.3, witness=0.6), outcome(epsilon=0.2, witness=0.6), outcome("i")]
    return Study("real", model, 1.0, np.array(seeds)[:, None], np.zeros(3, int), {"lp": found})


def flat(optimum: float, grid: float) -> paper.Plane:
    """What is known of the plane; the distance outside the region must not matter."""
    return paper.Plane(np.zeros((1, 2)), np.zeros(1), nn.Sequential(), np.zeros(2), outcome(epsilon=optimum), grid, 9.0)


def spoiled(true: Study, **change) -> Study:
    """The study with one of its witnesses changed."""
    first, *others = true.outcomes["lp"]
    return replace(true, outcomes={"lp": [replace(first, **change), *others]})


BROKEN = {
    "same label": {"witness": np.array([0.45]), "epsilon": 0.15},
    "outside the box": {"witness": np.array([1.2]), "epsilon": 0.9},
    "another distance": {"epsilon": 0.25},
}


def test_the_encoding_holds_with_true_witnesses_and_the_grids_optimum(witnessed):
    found = claims.encoding_holds([witnessed, witnessed], [flat(0.1, 0.102), flat(0.2, 0.1985)])
    assert found.value is True
    assert found.note.startswith("4 witnesses")
    assert found.note.endswith("0 of them broken; 2 optima on the plane, at most 0.0020 from those of the grid")
    assert claims.encoding_cifar(witnessed, "").value is True


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_one_broken_witness_is_enough(witnessed, change):
    broken = spoiled(witnessed, **change)
    found = claims.encoding_holds([witnessed, broken], [flat(0.1, 0.1)])
    assert found.value is False
    assert "1 of them broken" in found.note
    assert claims.encoding_cifar(broken, "").value is False


def test_without_any_witness_of_the_program_nothing_has_been_shown(witnessed):
    bare = replace(witnessed, outcomes={"lbfgs": witnessed.outcomes["lp"], "lp": [outcome("i")] * 3})
    assert claims.encoding_holds([bare, bare], [flat(0.1, 0.1)]).value is False
    assert claims.encoding_cifar(bare, "").value is False


@pytest.mark.parametrize(("optimum", "grid"), [(0.1, 0.0974), (0.1, 0.1026), (0.1, math.inf), (math.inf, 0.1)])
def test_one_optimum_off_the_grid_flips_it(witnessed, optimum, grid):
    good = [flat(0.1, 0.1 + 0.0024), flat(0.1, 0.1 - 0.0024)]
    assert claims.encoding_holds([witnessed], good).value is True
    for place in range(3):
        planes = [*good[:place], flat(optimum, grid), *good[place:]]
        assert claims.encoding_holds([witnessed], planes).value is False


def test_cifar_that_is_not_here_is_not_judged():
    found = claims.encoding_cifar(None, "no data")
    assert (found.value, found.note) == (None, "no data")


# C2: frequencies and nearer examples


def test_frequency_gain_on_a_published_example():
    """Newcombe 1998, table II: 36 both, 12 only first, 2 only second; four more points are not measured by both."""
    each = study(lp="n" * 48 + "ff" + "?nxn", lbfgs="n" * 36 + "f" * 12 + "nn" + "n?nx")
    found = claims.frequency_gain(each, PARAMS)
    assert found.value == pytest.approx(0.2)
    assert found.interval == pytest.approx((0.0569, 0.3404), abs=1e-4)
    assert found.note == "48 and 38 of 50 points; 50 programs feasible"
    turned = replace(each, outcomes={"lp": each.outcomes["lbfgs"], "lbfgs": each.outcomes["lp"]})
    assert claims.frequency_gain(turned, PARAMS).value == pytest.approx(-0.2)


def test_frequency_gain_counts_the_threshold_itself_and_follows_levels():
    each = study(lp="=fi", lbfgs="fff")
    assert claims.frequency_gain(each, PARAMS).value == pytest.approx(1 / 3)
    assert claims.frequency_gain(each, replace(PARAMS, levels=19)).value is None
    assert "1 and 0 of 3 points; 2 programs" in claims.frequency_gain(each, PARAMS).note


@pytest.mark.parametrize(
    ("lp", "lbfgs", "why"),
    [
        ("ffii", "ffff", "neither found an example within the threshold at 4 points; 2 programs feasible"),
        ("n?x", "nnn", "fewer than two points"),
        ("??", "nn", "fewer than two points"),
    ],
)
def test_no_gain_where_nothing_is_found_or_measured(lp, lbfgs, why):
    found = claims.frequency_gain(study(lp=lp, lbfgs=lbfgs), PARAMS)
    assert found.value is None
    assert why in found.note


def test_one_side_alone_is_a_gain_with_a_width():
    found = claims.frequency_gain(study(lp="n" * 8 + "f" * 8, lbfgs="f" * 16), PARAMS)
    assert found.value == 0.5
    assert 0.1 < found.interval[0] < 0.5 < found.interval[1] < 0.8
    same = claims.frequency_gain(study(lp="nn" + "f" * 57, lbfgs="nn" + "f" * 57), PARAMS)
    assert same.interval[0] < same.value == 0 < same.interval[1]


def test_nearer_share_by_hand():
    """Nearer at 0, 1 and, as the only one, 3 and 9; farther at 2 and, being none, 4; equal to within 1e-4."""
    ours = [0.1, 0.1, 0.2, 0.3, math.inf, 0.1, 0.1, math.inf, math.nan, 0.1]
    theirs = [0.2, 0.1003, 0.1, math.inf, 0.3, 0.10005, 0.1, math.inf, 0.1, math.inf]
    found = claims.nearer_share(study(lp=ours, lbfgs=theirs))
    assert found.value == pytest.approx(2 / 3)
    assert found.interval == pytest.approx(wilson(4, 6))
    assert found.note.startswith("4 nearer, 2 farther, 1 of these because the program is infeasible")


@pytest.mark.parametrize(("lp", "lbfgs", "share"), [("ff", "ii", 1.0), ("ii", "nf", 0.0), ("fnf", "fni", 1.0)])
def test_who_alone_finds_an_example_is_nearer(lp, lbfgs, share):
    assert claims.nearer_share(study(lp=lp, lbfgs=lbfgs)).value == share


def test_no_different_distance_is_not_judged():
    found = claims.nearer_share(study(lp="nfi", lbfgs="nfi"))
    assert (found.value, found.note) == (None, "no point has different distances")


# C3, C4: fine-tuning


@pytest.fixture
def three():
    """Three perceptrons; the last three points of the first are not measured in every study of a branch."""
    first = tuned(("nnfnnn?", "nnnfnnn"), own=("nffn?nn", "fnnnfxn"), lp=("ffffnnn", "nnnnnnn"))
    second = tuned(("nf", "nn"), own=("fn", "ff"), lp=("nf", "fn"))
    return [first, second, tuned(("nn", "nn"), own=("nn", "nf"), lp=("fn", "nn"))]


def test_falls_by_hand(three):
    """1 where the example within the threshold went, −1 where one came; points measured by both, before and after."""
    for method, expected in (("lp", [0, 1, 0, 0, 1, -1, 0, 0]), ("lbfgs", [1, 0, 0, -1, 1, 1, 0, 1])):
        values, groups = claims.falls(three, "L-BFGS-B T=2", method, PARAMS)
        assert values.tolist() == expected
        assert groups.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert claims.falls(three, "control T=2", "lp", PARAMS)[0].tolist() == [0] * 10
    at_it = [tuned(("nf", "nn"), own=("==", "nn"))]
    assert claims.falls(at_it, "L-BFGS-B T=2", "lp", PARAMS)[0].tolist() == [0, -1]


def test_overfitting_by_hand(three):
    """By L-BFGS-B 3 of 8 fall, by the linear program 1 of 8: the difference is the weaker condition."""
    found = claims.overfitting(three, PARAMS)
    assert found.value == pytest.approx(3 / 8 - 1 / 8)
    assert found.interval[0] < found.value < found.interval[1]
    assert "fall by L-BFGS-B +0.375 (per network +0.000, +1.000, +0.500)" in found.note
    assert "that minus fall by LP +0.250 (per network -0.250, +1.000, +0.500)" in found.note
    assert "8 points" in found.note


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (("ffff", "nnnf"), 0.25 - 1.0),  # the other measure improves more
        (("fnnn", "ffff"), 1.0 - 0.25),
        (("nnnn", "ffnn"), 0.5),
    ],
)
def test_overfitting_of_networks_that_agree(own, expected):
    each = tuned(("nnnn", "nnnn"), own=own, lp=("nnnn", "ffff"), early=("nnnn", "ffff"))
    assert claims.overfitting([each] * 3, PARAMS).value == pytest.approx(expected)


def test_a_measure_that_gets_worse_is_no_overfitting_although_the_other_gets_worse_still():
    each = tuned(("ffff", "ffff"), own=("nnnn", "nfff"))
    found = claims.overfitting([each] * 3, PARAMS)
    assert found.value == -0.25
    assert found.interval[0] < -0.25
    assert found.interval[1] <= 0


def test_improvement_is_the_smaller_fall_after_the_programs_own_examples(three):
    """By LP: 1, 1, 0, 1, 0, 0 and 0, 0 and 1, 0; by L-BFGS-B: 0, 0, 0, −1, 0, 0 and 1, 0 and 0, 0."""
    found = claims.both_improve(three, PARAMS)
    assert found.value == 0
    assert found.interval[0] < 0 < found.interval[1]
    assert "LP +0.400 (per network +0.500, +0.000, +0.500)" in found.note
    better = [tuned(("nnnn", "nnnn"), lp=("nnff", "ffff"))] * 3
    assert claims.both_improve(better, PARAMS).value == 0.5
    turned = [tuned(("nnnn", "nnnn"), lp=("ffff", "nfff"))] * 3
    assert claims.both_improve(turned, PARAMS).value == 0.75
    assert claims.both_improve([tuned(("ffff", "nnnn"), lp=("nnnf", "ffff"))] * 3, PARAMS).value == -0.75


@pytest.mark.parametrize("judge", [claims.overfitting, claims.both_improve])
def test_networks_are_drawn_before_points(judge):
    """All points of some networks improve and none of the others: whole networks are drawn, so much may come out."""
    still, better = ("n" * 40, "n" * 40), ("n" * 40, "f" * 40)
    gained = tuned(still, own=better, lp=("f" * 40, "f" * 40))
    found = judge([gained, tuned(still), gained, tuned(still)], PARAMS)
    assert found.value == 0.5
    assert found.interval == (0, 1)
    assert judge([gained] * 3, PARAMS).interval == (1, 1)


def test_the_interval_has_the_smaller_ends_of_both_conditions():
    """Half of the points fall by one measure, surely all by the other: the first alone gives both ends."""
    each = tuned(("n" * 40, "n" * 40), lp=("n" * 20 + "f" * 20, "f" * 40))
    found = claims.both_improve([each] * 3, PARAMS)
    assert found.value == 0.5
    assert 0.3 < found.interval[0] < 0.5 < found.interval[1] < 0.7


@pytest.mark.parametrize("judge", [claims.overfitting, claims.both_improve])
def test_fine_tuning_is_judged_on_three_networks_that_change(judge):
    gained = tuned(("nn", "nn"), own=("nn", "nf"), lp=("nf", "fn"))
    assert judge([gained] * 3, PARAMS).value is not None
    few = judge([gained] * 2, PARAMS)
    assert few.value is None
    assert "2 network(s), 3 are needed" in few.note
    for unchanged in (tuned(("nn", "nn")), tuned(("nn", "nn"), own=("nf", "nn"), lp=("nf", "nn"))):
        still = judge([unchanged] * 3, PARAMS)
        assert still.value is None
        assert "no point changed" in still.note
