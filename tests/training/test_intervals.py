"""Intervals: against scipy, at their promised rate, and wider when objects come in groups."""

import numpy as np
import pytest
from scipy import stats

from papertwin.training.intervals import (
    bootstrap,
    grouped_mean_interval,
    mean_interval,
    paired_difference,
    t_interval,
    wilson,
)


def test_wilson_by_its_formula():
    k, n, z = 8, 10, stats.norm.ppf(0.975)
    middle = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    assert wilson(k, n) == pytest.approx((middle - half, middle + half))
    assert wilson(2, 2)[0] < 0.5


def test_paired_difference_on_a_published_example():
    """Newcombe 1998, table II, method 10: 36 both, 12 only first, 2 only second, 0 neither."""
    first, second = (np.repeat(values, [36, 12, 2, 0]) for values in ([1, 1, 0, 0], [1, 0, 1, 0]))
    low, high = paired_difference(first.astype(bool), second.astype(bool))
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=1e-4)
    assert paired_difference(second.astype(bool), first.astype(bool)) == pytest.approx((-high, -low))


@pytest.mark.parametrize("hits", [0, 2, 30])
def test_paired_difference_keeps_a_width_where_nothing_differs(hits):
    same = np.arange(30) < hits
    low, high = paired_difference(same, same)
    assert -0.2 < low < -0.01
    assert 0.01 < high < 0.2


def test_paired_difference_covers_at_about_the_promised_rate():
    rng = np.random.default_rng(2)
    shared, own = rng.random((2, 400, 60))
    first, second = shared < 0.3, (shared < 0.2) | (own < 0.05)
    truth = 0.3 - (0.2 + 0.8 * 0.05)
    intervals = [paired_difference(*pair) for pair in zip(first, second)]
    assert 0.92 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.99


def test_the_t_interval_agrees_with_scipy():
    values = np.random.default_rng(3).normal(size=5)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((theirs.low, theirs.high))


def test_the_bootstrap_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(size=50)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    assert mean_interval(values, 0) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_it_covers_at_about_the_promised_rate():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(40):
        low, high = mean_interval(rng.normal(0.3, 1, 40), seed=0)
        hits += low <= 0.3 <= high
    assert 33 <= hits < 40


def test_an_interval_holds_its_own_estimate_and_depends_only_on_the_seed():
    values = np.array([0.0, 0.0, 1.0])

    def largest(rows):
        return float(values[rows].max())

    low, high = bootstrap(largest, 3, seed=0)
    assert low <= 1.0 <= high
    assert mean_interval(values, 3) == mean_interval(values, 3)


def test_values_that_agree_within_groups_give_a_wider_interval():
    groups = np.repeat(["a", "b", "c", "d"], 20)
    values = np.repeat([0.0, 0.2, 0.8, 1.0], 20) + np.random.default_rng(0).normal(0, 0.01, 80)
    alone, together = mean_interval(values, 0), grouped_mean_interval(values, groups, 0)
    assert together[1] - together[0] > 1.8 * (alone[1] - alone[0])
