"""Updates come at multiples of ΔT before T_end, and drop what the cosine says."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papertwin.errors import InputError
from papertwin.sparse.schedule import DropSchedule


def test_an_example():
    schedule = DropSchedule(steps=100, every=10)
    assert schedule.end == 75
    assert [step for step in range(102) if schedule.due(step)] == [10, 20, 30, 40, 50, 60, 70]
    assert [schedule.waits(step) for step in (1, 2, 9, 10, 11, 61, 70, 71, 75, 99)] == [
        9,
        8,
        1,
        0,
        9,
        9,
        0,
        *[None] * 3,
    ]
    assert DropSchedule(steps=100, every=25).fraction(25) == pytest.approx(0.3 / 2 * (1 + 0.5))
    assert not DropSchedule(steps=100, every=25).due(75)
    assert not DropSchedule(steps=100, every=25).due(0)


@given(steps=st.integers(1, 200), every=st.integers(1, 30), stop=st.integers(0, 100))
@settings(deadline=None)
def test_updates_come_before_the_end_and_hooks_know_when(steps, every, stop):
    schedule = DropSchedule(steps=steps, every=every, stop=stop / 100)
    assert schedule.end == steps * stop // 100
    due = [step for step in range(steps + 1) if schedule.due(step)]
    assert due == list(range(every, steps * stop // 100, every))
    for step in range(1, steps + 1):
        following = [other for other in due if other >= step]
        assert schedule.waits(step) == (following[0] - step if following else None)


@given(steps=st.integers(2, 500), drop=st.floats(0, 1), stop=st.floats(0.1, 1))
@settings(deadline=None)
def test_the_share_falls_as_a_cosine(steps, drop, stop):
    schedule = DropSchedule(steps=steps, drop=drop, stop=stop)
    shares = [schedule.fraction(step) for step in range(steps + 1)]
    assert shares[0] == pytest.approx(drop if schedule.end else 0)
    assert all(later <= earlier for earlier, later in itertools.pairwise(shares))
    assert shares[schedule.end :] == [0] * (steps + 1 - schedule.end)
    for step in range(schedule.end):
        assert shares[step] == pytest.approx(drop * math.cos(math.pi * step / schedule.end / 2) ** 2)


def test_nine_tenths_of_a_hundred_steps_are_whole():
    assert DropSchedule(steps=100, stop=1 - 0.9).end == 10


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"steps": 10.0},
        {"steps": 10, "every": 0},
        {"steps": 10, "every": True},
        {"steps": 10, "drop": 1.1},
        {"steps": 10, "drop": -0.1},
        {"steps": 10, "stop": 1.5},
        {"steps": 10, "stop": math.nan},
    ],
)
def test_arguments_that_cannot_be_used(settings):
    with pytest.raises(InputError, match=f"{list(settings)[-1]} must be a .*number .*got"):
        DropSchedule(**settings)
