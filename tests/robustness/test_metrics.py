"""Adversarial frequency and severity: by counting, their theorems, and the rules for inf and NaN."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from papertwin.errors import InputError
from papertwin.robustness.metrics import (
    Wins,
    adversarial_frequency,
    adversarial_severity,
    frequency_curve,
    frequency_interval,
    severity_interval,
    wins,
)
from papertwin.training.intervals import mean_interval, wilson

distance = st.one_of(st.floats(0, 2), st.sampled_from([0.0, 0.5, 1.0, math.inf]))
many = st.lists(distance, min_size=1, max_size=30)
threshold = st.one_of(st.floats(0, 3), st.sampled_from([0.0, 0.5, 1.0]))


@given(many, threshold)
def test_both_by_counting(epsilons, limit):
    near = [e for e in epsilons if e <= limit]
    assert adversarial_frequency(epsilons, limit) == pytest.approx(len(near) / len(epsilons))
    severity = adversarial_severity(epsilons, limit)
    assert severity == pytest.approx(math.fsum(near) / len(near)) if near else math.isnan(severity)
    assert not severity > limit
    assert frequency_interval(epsilons, limit) == wilson(len(near), len(epsilons))
    assert frequency_curve(epsilons, [limit]).tolist() == [len(near)]


@given(many, st.lists(threshold, min_size=1, max_size=6))
def test_more_points_are_near_as_the_threshold_grows(epsilons, limits):
    limits = sorted(limits)
    shares = [adversarial_frequency(epsilons, limit) for limit in limits]
    assert shares == sorted(shares)
    assert frequency_curve(epsilons, limits).tolist() == [round(share * len(epsilons)) for share in shares]
    assert frequency_curve(epsilons, limits[::-1]).tolist() == frequency_curve(epsilons, limits).tolist()[::-1]


@given(many, threshold, st.sampled_from([2.0, 256.0, 2.0**40]))
def test_the_unit_does_not_matter(epsilons, limit, unit):
    scaled = [e * unit for e in epsilons]
    assert adversarial_frequency(scaled, limit * unit) == adversarial_frequency(epsilons, limit)
    severity = adversarial_severity(epsilons, limit) * unit
    assert adversarial_severity(scaled, limit * unit) == pytest.approx(severity, nan_ok=True)


def test_nothing_found_counts_in_the_frequency_and_not_in_the_severity():
    assert adversarial_frequency([0.1, math.inf, math.inf, math.inf], 1e300) == 0.25
    assert adversarial_severity([0.1, math.inf], 1e300) == 0.1
    assert adversarial_frequency([math.inf], 1.0) == 0
    assert math.isnan(adversarial_severity([math.inf], 1.0))
    assert math.isnan(adversarial_severity([0.5], 0.1))


measures = [
    lambda e: adversarial_frequency(e, 1.0),
    lambda e: adversarial_severity(e, 1.0),
    lambda e: frequency_interval(e, 1.0),
    lambda e: severity_interval(e, 1.0),
    lambda e: frequency_curve(e, [1.0]),
    lambda e: wins(e, e),
]


@pytest.mark.parametrize("measure", measures)
@pytest.mark.parametrize(
    ("epsilons", "message"),
    [
        ([0.1, math.nan], "1 of 2 .* out of time"),
        ([-0.1], "at least 0"),
        ([], "no points"),
        ([[0.1]], "shape"),
        (["a"], "numbers"),
    ],
)
def test_what_was_not_measured_is_refused(measure, epsilons, message):
    with pytest.raises(InputError, match=message):
        measure(epsilons)


@pytest.mark.parametrize("limit", [math.inf, math.nan, -0.1])
def test_thresholds_that_mean_nothing_are_refused(limit):
    for measure in (adversarial_frequency, adversarial_severity, frequency_interval, severity_interval):
        with pytest.raises(InputError, match="threshold"):
            measure([0.1], limit)
    with pytest.raises(InputError, match="grid"):
        frequency_curve([0.1], [0.0, limit])


def test_the_interval_of_the_severity():
    epsilons = [*np.random.default_rng(0).uniform(0, 0.1, 40), 0.5, math.inf]
    low, high = severity_interval(epsilons, 0.1)
    assert low < adversarial_severity(epsilons, 0.1) < high
    assert (low, high) == mean_interval(np.array(epsilons[:40]), 0)
    assert (low, high) != severity_interval(epsilons, 0.1, seed=1)
    assert severity_interval([0.05, 0.2, math.inf], 0.1) is None
    assert severity_interval([0.05, 0.05, math.inf], 0.1) == pytest.approx((0.05, 0.05))


@given(st.lists(st.tuples(distance, distance), min_size=1, max_size=20), st.sampled_from([0.0, 1e-6, 0.1]))
def test_wins_by_counting(pairs, tolerance):
    a, b = zip(*pairs)
    counts = [0, 0, 0, 0]
    for x, y in pairs:
        if x == y == math.inf:
            counts[3] += 1
        elif x < y - tolerance:
            counts[0] += 1
        elif y < x - tolerance:
            counts[1] += 1
        else:
            counts[2] += 1
    result = wins(a, b, tolerance)
    assert result == Wins(*counts)
    assert result.first + result.second + result.equal + result.neither == len(pairs)
    assert wins(b, a, tolerance) == Wins(result.second, result.first, result.equal, result.neither)


def test_wins_with_one_or_none_found():
    assert wins([0.1, math.inf, math.inf, 0.3], [math.inf, 0.1, math.inf, 0.3]) == Wins(1, 1, 1, 1)


def test_comparisons_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match="same points"):
        wins([0.1], [0.1, 0.2])
    for tolerance in (-1, math.nan, math.inf):
        with pytest.raises(InputError, match="tolerance"):
            wins([0.1], [0.1], tolerance)
