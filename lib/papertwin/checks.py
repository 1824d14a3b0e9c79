"""What arguments are made of: the one question that builders, searches and trainings all ask of a number."""

from typing import Any

import numpy as np

SEEDS = 2**32  # seeds are whole numbers below this


def is_whole(value: Any, least: int | None = None, most: int | None = None) -> bool:
    """Whether a value is a whole number, Python's or NumPy's and no boolean, from `least` to `most`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return bool(whole and (least is None or value >= least) and (most is None or value <= most))
