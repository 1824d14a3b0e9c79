"""Sides of maps are those that torch's layers give, and numbers that cannot be used are refused."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import sizes


@given(side=st.integers(1, 60), kernel=st.integers(1, 7), stride=st.integers(1, 7), padding=st.integers(0, 3))
@settings(deadline=None)
def test_sides_after_a_pool_are_those_of_torch(side, kernel, stride, padding):
    assume(stride <= kernel and padding <= min(kernel // 2, kernel - stride) and side + 2 * padding > kernel - stride)
    image = torch.zeros(1, 1, side, side, device="meta")
    layer = nn.MaxPool2d(kernel, stride, padding, ceil_mode=True)
    assert sizes.pooled(side, kernel, stride, padding) == layer(image).shape[-1]


@given(side=st.integers(1, 60), kernel=st.integers(1, 11), stride=st.integers(1, 7), padding=st.integers(0, 3))
@settings(deadline=None)
def test_sides_after_a_convolution_are_those_of_torch(side, kernel, stride, padding):
    assume(side + 2 * padding >= kernel)
    layer = nn.Conv2d(1, 1, kernel, stride, padding, device="meta")
    due = layer(torch.zeros(1, 1, side, side, device="meta")).shape[-1]
    assert sizes.convolved(side, kernel, stride, padding) == due


def test_a_map_of_which_nothing_is_left():
    with pytest.raises(InputError, match="side 1 is too small"):
        sizes.pooled(1)
    with pytest.raises(InputError, match="side 10 is too small"):
        sizes.convolved(10, 11)


def test_the_width_multiplies_filters_to_the_nearest_number():
    assert [sizes.scaled(n, 0.25) for n in (64, 6, 1)] == [16, 2, 1]
    assert sizes.scaled(64, 1) == sizes.scaled(64, 1.0) == 64
    for width in (0, -1, float("nan"), float("inf"), True, "1"):
        with pytest.raises(InputError, match="width must be"):
            sizes.scaled(64, width)


def test_parts_are_whole_or_refused():
    assert sizes.share(64, Fraction(3, 8)) == 24
    with pytest.raises(InputError, match=r"3/8 of 12 filters is 4\.5.*multiple of 8"):
        sizes.share(12, Fraction(3, 8))


def test_whole_numbers():
    assert sizes.whole("n", np.int64(3)) == 3
    for value in (0, 1.0, True, "3", None):
        with pytest.raises(InputError, match=r"n must be a whole number above 0, got"):
            sizes.whole("n", value)
