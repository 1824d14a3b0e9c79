"""Everything takes turns, the first round is not counted, and times are those of the calls."""

import pytest
import torch

from papertwin.errors import InputError
from papertwin.training import clock
from papertwin.training.loop import torch_threads


@pytest.fixture
def clockwork(monkeypatch):
    """A clock that moves only when a call moves it."""
    now = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    return now


def test_calls_take_turns_and_the_first_round_is_not_counted(clockwork):
    order = []

    def call(name, seconds):
        def work():
            order.append(name)
            clockwork[0] += seconds * (1 + order.count(name))

        return work

    found = clock.interleaved({"a": call("a", 1.0), "b": call("b", 10.0)}, rounds=3)
    assert order == ["a", "b"] * 4
    assert found["a"].tolist() == [3, 4, 5]
    assert found["b"].tolist() == [30, 40, 50]


def test_rounds_go_on_until_the_seconds_have_passed(clockwork):
    def work():
        clockwork[0] += 1.0

    assert len(clock.interleaved({"a": work}, rounds=2, seconds=7.0)) == 6
    assert len(clock.interleaved({"a": work}, rounds=9, seconds=3.0)) == 9
    assert len(clock.interleaved({"a": lambda: None}, rounds=2, seconds=7.0)) == clock.MOST


def test_threads_are_those_asked_for_and_come_back():
    seen = []
    with torch_threads(2):
        clock.interleaved({"a": lambda: seen.append(torch.get_num_threads())}, rounds=1)
        clock.interleaved({"a": lambda: seen.append(torch.get_num_threads())}, rounds=1, threads=None)
        assert seen == [1, 1, 2, 2]
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("calls", "rounds"), [({}, 3), ({"a": print}, 0), ({"a": print}, 1.5)])
def test_nothing_to_time_is_refused(calls, rounds):
    with pytest.raises(InputError, match="must be something to time in 1 round or more"):
        clock.interleaved(calls, rounds=rounds)


def test_names_may_be_tuples():
    found = clock.interleaved({("a", 1): int, ("b", 2): int}, rounds=2)
    assert list(found.columns) == [("a", 1), ("b", 2)]
    assert found.shape == (2, 2)


def test_turns_alone_say_which_of_them_count(clockwork):
    assert list(clock.turns("ab", rounds=1)) == [("a", False), ("b", False), ("a", True), ("b", True)]
    assert len(list(clock.turns(iter("ab"), rounds=2, seconds=1.0, most=5))) == 2 * (1 + 5)
    assert len(list(clock.turns("a", rounds=7, seconds=1.0, most=5))) == 1 + 7
