"""Time things that are to be compared: they take turns, so that whatever else the machine does meets all of them alike.

A ratio of two times is taken round by round, and its median reported: a round that something disturbed is one value.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.training.loop import torch_threads

MOST = 1000  # rounds


def interleaved(
    calls: Mapping[Any, Callable[[], Any]], *, rounds: int, seconds: float = 0.0, threads: int | None = 1
) -> pd.DataFrame:
    """Call everything in turns, and say how long each call took.

    Args:
        calls: name → what is timed; it must have finished when it returns.
        rounds: in which each is called once, at least 1; one more comes before and is not counted.
        seconds: rounds go on until so much time has passed, up to 1000 of them.
        threads: of torch meanwhile; None leaves them as they are.

    Returns:
        Seconds: a row a round, a column a name.

    Raises:
        InputError: nothing to call, or `rounds` is no whole number above 0.
    """
    if not calls or not is_whole(rounds, 1):
        raise InputError(
            f"There must be something to time in 1 round or more, got {len(calls)} calls, {rounds!r} rounds."
        )
    taken: dict[Any, list[float]] = {name: [] for name in calls}
    with torch_threads(threads):
        for name, counts in turns(calls, rounds=rounds, seconds=seconds):
            start = time.perf_counter()
            calls[name]()
            spent = time.perf_counter() - start
            if counts:
                taken[name].append(spent)
    return pd.DataFrame(taken)


def turns(names: Iterable[Any], *, rounds: int, seconds: float = 0.0, most: int = MOST) -> Iterator[tuple[Any, bool]]:
    """Whose turn it is, round after round, and whether that turn counts: those of the first round do not.

    Args:
        names: of what takes turns.
        rounds: that count, at least.
        seconds: rounds go on until so much time has passed since the first began.
        most: rounds that count then.

    Yields:
        A name, and whether its turn counts.
    """
    every, begun = list(names), time.perf_counter()
    for number in range(max(rounds, most) + 1):
        if number > rounds and time.perf_counter() - begun >= seconds:
            return
        yield from ((name, number > 0) for name in every)
