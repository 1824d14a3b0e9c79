"""Whole numbers: Python's and NumPy's count, booleans and floats do not."""

import numpy as np
import pytest

from papertwin.checks import is_whole


@pytest.mark.parametrize(
    ("value", "bounds", "answer"),
    [
        (3, (), True),
        (np.int64(3), (3, 3), True),
        (-1, (), True),
        (2, (3,), False),
        (4, (3, 3), False),
        (3, (None, 2), False),
        (True, (), False),
        (np.bool_(True), (), False),
        (3.0, (), False),
        (np.float64(3), (), False),
        ("3", (), False),
        (None, (), False),
    ],
)
def test_what_counts_as_a_whole_number(value, bounds, answer):
    assert is_whole(value, *bounds) is answer
