"""The search finds a known optimum sooner than chance; the front and the nearest point by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.errors import InputError
from papertwin.nets.conditional import (
    Evaluated,
    ExponentSpace,
    bayesian_search,
    nearest_to_origin,
    pareto_front,
    propose,
    random_search,
)
from papertwin.nets.conditional.search import expected_improvement

SPACE = ExponentSpace([range(5)] * 4)
SMALL = ExponentSpace([(0, 1, 3), (0, 2)])


def bowl(vector):
    """Largest, 0, at (3, 1, 4, 0); layers matter unequally."""
    return -float(((np.array(vector) - [3, 1, 4, 0]) ** 2 * [1, 0.5, 0.2, 0.05]).sum())


def accuracy_per_byte(vector):
    """As in the paper's search: each halving saves bytes, and costs accuracy more and more."""
    halved = 0.5 ** np.array(vector)
    accuracy = 0.9 - ((1 / halved - 1) * [0.03, 0.004, 0.02, 0.001]).sum()
    return max(accuracy, 0.1) / (20 + halved @ [300, 200, 400, 100])


def best(trials):
    return max(trial.value for trial in trials)


@pytest.mark.parametrize(("objective", "evaluations"), [(bowl, 14), (accuracy_per_byte, 20)])
def test_it_beats_chance_on_known_functions(objective, evaluations):
    """For each seed: nearly the optimum, which random search with as many evaluations misses on average."""
    every = sorted(objective(SPACE.at(k)) for k in range(SPACE.size))
    guided = [best(bayesian_search(SPACE, objective, evaluations, seed)) for seed in range(3)]
    chance = [best(random_search(SPACE, objective, evaluations, seed)) for seed in range(40)]
    ranks = [SPACE.size - np.searchsorted(every, value, side="right") for value in guided]  # how many are better
    assert max(ranks) <= 6  # of 625; a random search leaves about 30 or 40 better ones
    assert min(guided) > np.mean(chance)
    assert np.mean(guided) > np.quantile(chance, 0.9)


@pytest.mark.parametrize("search", [bayesian_search, random_search])
def test_each_vector_is_evaluated_once_and_a_seed_decides(search):
    calls = []
    trials = search(SMALL, lambda v: calls.append(v) or float(sum(v)), 6, 3)
    assert sorted(calls) == [SMALL.at(k) for k in range(6)]
    assert [trial.exponents for trial in trials] == calls
    assert all(trial.value == sum(trial.exponents) for trial in trials)
    first, same, other = (search(SPACE, bowl, 8, seed) for seed in (1, 1, 2))
    assert first == same
    assert first != other
    with pytest.raises(InputError, match=r"left to propose|vectors that are left"):
        search(SMALL, bowl_of_two, 7, 0)


def bowl_of_two(vector):
    return -float(sum(vector))


def test_a_search_goes_on_from_earlier_trials():
    before = random_search(SPACE, bowl, 12, 0)
    after = bayesian_search(SPACE, bowl, 6, 0, tried=before)
    assert len(after) == 6
    assert not {t.exponents for t in after} & {t.exponents for t in before}
    assert best(after) > best(before)
    assert len(bayesian_search(SPACE, bowl, 2, 0, tried=before[:1], starts=3)) == 2


def test_the_first_trials_are_random():
    trials = bayesian_search(SPACE, bowl, 5, 4, starts=5)
    assert [t.exponents for t in trials] == SPACE.sample(5, 4)
    flat = bayesian_search(SMALL, lambda vector: 1.0, 6, 0, starts=1)  # equal values are no obstacle
    assert len({t.exponents for t in flat}) == 6


def test_the_last_untried_vector_is_proposed():
    trials = [Evaluated(SMALL.at(k), float(k)) for k in range(6) if k != 2]
    assert propose(SMALL, trials, 0) == SMALL.at(2)


def test_a_clear_slope_is_followed():
    line = ExponentSpace([range(12)])
    trials = [Evaluated((k,), float(k)) for k in range(0, 9, 2)]
    assert propose(line, trials, 0)[0] > 8


@given(st.floats(-2, 2), st.floats(0.05, 2), st.floats(-2, 2))
@settings(max_examples=20, deadline=None)
def test_expected_improvement_is_that_of_many_draws(mean, deviation, peak):
    draws = np.random.default_rng(0).normal(mean, deviation, 200_000)
    found = expected_improvement(np.array([mean]), np.array([deviation]), peak)[0]
    assert found == pytest.approx((draws - peak).clip(0).mean(), abs=0.02)
    assert found >= max(mean - peak, 0)


def test_expected_improvement_without_doubt():
    assert expected_improvement(np.array([1.0, 3.0]), np.zeros(2), 2.0).tolist() == [0, 1]


measures = st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=15).map(np.array)


@given(measures)
def test_the_front_holds_what_no_other_beats(costs):
    def beaten(row):
        return any(
            all(o <= r for o, r in zip(other, row)) and any(o < r for o, r in zip(other, row)) for other in costs
        )

    assert pareto_front(costs).tolist() == [not beaten(row) for row in costs]


@given(measures)
def test_the_nearest_to_the_origin(costs):
    largest = [max(column) or 1 for column in costs.T]
    lengths = [sum((value / top) ** 2 for value, top in zip(row, largest)) for row in costs]
    found = nearest_to_origin(*costs.T)
    assert lengths[found] == pytest.approx(min(lengths))
    assert not any(length < lengths[found] - 1e-9 for length in lengths)
    assert found == nearest_to_origin(costs[:, 0] / 128, costs[:, 1] * 2**20, costs[:, 2] * 4)  # units do not matter


def test_the_nearest_is_on_the_front_and_the_published_one_is_nearer_than_both_baselines():
    costs = np.random.default_rng(0).random((50, 3))
    assert pareto_front(costs)[nearest_to_origin(*costs.T)]
    errors, macs, size = [10.58, 11.24, 13.37], [222_487_946, 527_138_250, 36_527_562], [3_869_859, 5_060_805, 503_099]
    assert nearest_to_origin(errors, macs, size) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: nearest_to_origin([], [], []),
        lambda: nearest_to_origin([1], [1, 2], [1]),
        lambda: nearest_to_origin([1], [-1], [1]),
        lambda: nearest_to_origin([1], [np.inf], [1]),
        lambda: pareto_front([1.0, 2.0]),
        lambda: pareto_front([["a"]]),
        lambda: propose(SMALL, [], 0),
        lambda: propose(SMALL, [Evaluated((9, 9), 0.0)], 0),
        lambda: bayesian_search(SMALL, bowl_of_two, 3, 0, starts=0),
        lambda: bayesian_search(SMALL, lambda v: np.nan, 3, 0),
        lambda: random_search(SMALL, lambda v: np.inf, 3, 0),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match=r"got|expected|must be"):
        call()
