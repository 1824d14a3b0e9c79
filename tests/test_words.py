"""Quantities are said as people say them, and rounding never gives a number that belongs to the next unit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papertwin.words import SCALES, TIMES, duration, listed, number

DAY, YEAR = 86_400, 31_557_600


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "less than a second"),
        (0.9, "less than a second"),
        (1, "1 second"),
        (1.04, "1 second"),
        (2.4, "2.4 seconds"),
        (9.96, "10 seconds"),
        (59.4, "59 seconds"),
        (59.9, "1 minute"),
        (90, "1.5 minutes"),
        (240, "4 minutes"),
        (3600, "1 hour"),
        (2.3 * 3600, "2.3 hours"),
        (DAY, "1 day"),
        (10.4 * DAY, "10 days"),
        (364 * DAY, "1 year"),
        (1.3 * YEAR, "1.3 years"),
        (2.5e6 * YEAR, "2,500,000 years"),
    ],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


@given(st.floats(1, 1e12))
def test_a_duration_is_right_to_a_twentieth_and_stays_within_its_unit(seconds):
    amount, unit = duration(seconds).removesuffix("s").split()
    value = float(amount.replace(",", ""))
    assert abs(value * TIMES[unit] - seconds) <= 0.05 * seconds + 1e-9
    units = list(TIMES)
    above = TIMES[units[units.index(unit) - 1]] if unit != "year" else float("inf")
    assert 1 <= value <= above / TIMES[unit]


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0"),
        (999, "999"),
        (23_999, "23,999"),
        (999_499, "999,499"),
        (1_000_000, "1 million"),
        (4.65e12, "4.65 trillion"),
        (999_600_000, "1 billion"),
        (8.19e19, "81.9 quintillion"),
        (8.19e22, "81,900 quintillion"),
    ],
)
def test_numbers(count, said):
    assert number(count) == said


@given(st.integers(0, 10**20))
def test_a_number_has_three_digits(count):
    amount, _, scale = number(count).partition(" ")
    value = float(amount.replace(",", "")) * (SCALES[scale] if scale else 1)
    assert abs(value - count) <= 0.005 * count if scale else value == count


def test_lists():
    assert listed([1]) == "1"
    assert listed(["a", "b"], "or") == "a or b"
    assert listed([0.9, 0.95, 1.0]) == "0.9, 0.95 and 1"
