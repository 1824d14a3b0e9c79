"""Whole numbers that builders take: checks, the width multiplier, sides of maps after a convolution or a pool.

Pools end at the border as in Caffe (`ceil_mode` of torch), convolutions leave out what does not fit.
"""

import math
from fractions import Fraction
from typing import Any

from papertwin.checks import is_whole
from papertwin.errors import InputError


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number as int.

    Args:
        name: of the argument, for the message.
        value: what the caller gave.
        least: smallest number allowed.

    Raises:
        InputError: it is no whole number, or below `least`.
    """
    if not is_whole(value, least):
        raise InputError(f"{name} must be a whole number above {least - 1}, got {value!r}.")
    return int(value)


def scaled(filters: int, width: float) -> int:
    """Multiply a number of filters by the width of a network, to the nearest whole number, at least 1.

    Raises:
        InputError: `width` is not a finite number above 0.
    """
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width < math.inf:
        raise InputError(f"width must be a finite number above 0, got {width!r}.")
    return max(1, round(filters * width))


def divided(filters: int, divisor: int) -> int:
    """Divide a number of filters, to the nearest whole number, at least 1; halves go to the even one, as in `scaled`.

    >>> [divided(40, divisor) for divisor in (1, 2, 16, 64)]
    [40, 20, 2, 1]

    Raises:
        InputError: a number is no whole one above 0.
    """
    return max(1, round(Fraction(whole("filters", filters), whole("divisors", divisor))))


def share(filters: int, part: Fraction) -> int:
    """Return a part of the filters of a layer, such as ⅜ of 64.

    Raises:
        InputError: the part is no whole number of filters.
    """
    taken = filters * part
    if taken.denominator != 1 or taken < 1:
        raise InputError(
            f"{part} of {filters} filters is {float(taken):g}: expected a whole number above 0. "
            f"Choose a width that makes the filters a multiple of {part.denominator}."
        )
    return int(taken)


def pooled(side: int, kernel: int = 3, stride: int = 2, padding: int = 0) -> int:
    """Side of a map after a pool: ⌈(h + 2p − k) / s⌉ + 1, for s ≤ k and p ≤ k − s.

    Raises:
        InputError: nothing is left of the map.
    """
    return _left(side, -(-(side + 2 * padding - kernel) // stride) + 1)


def convolved(side: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Side of a map after a convolution: ⌊(h + 2p − k) / s⌋ + 1.

    Raises:
        InputError: nothing is left of the map.
    """
    return _left(side, (side + 2 * padding - kernel) // stride + 1)


def _left(before: int, after: int) -> int:
    """Check that something is left of a map."""
    if after < 1:
        raise InputError(f"A map of side {before} is too small for the next layer: got {after}. Take larger images.")
    return after
