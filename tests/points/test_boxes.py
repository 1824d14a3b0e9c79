"""Points in a box against a box built from its corners."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from papertwin.errors import InputError
from papertwin.points import points_in_box


@given(
    seed=st.integers(0, 10_000),
    yaw=st.floats(-7.0, 7.0),
    size=st.tuples(*[st.floats(0.2, 6.0)] * 3),
    centre=st.tuples(*[st.floats(-3.0, 3.0)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_equal_to_building_the_box(seed, yaw, size, centre):
    """Points made in the box's own frame and then turned and moved: membership is known."""
    rng = np.random.default_rng(seed)
    local = (rng.random((200, 3)) * 4.0 - 2.0) * size
    inside = (np.abs(local[:, 0]) < size[0] / 2) & (np.abs(local[:, 1]) < size[1] / 2)
    inside &= (local[:, 2] > 0.0) & (local[:, 2] < size[2])
    world = Rotation.from_euler("z", yaw).apply(local) + centre
    assert np.array_equal(points_in_box(world, centre, size, yaw), inside)


def test_bottom_face_and_all_faces_belong():
    points = np.array([[2, 1, 0], [-2, -1, 3], [2.001, 0, 1], [0, 1.001, 1], [0, 0, -0.001], [0, 0, 3.001]])
    assert points_in_box(points, (0, 0, 0), (4, 2, 3), 0.0).tolist() == [True, True, False, False, False, False]


def test_yaw_turns_counter_clockwise():
    points = np.array([[1.0, 1.0, 0.5], [1.0, -1.0, 0.5]])
    assert points_in_box(points, (0, 0, 0), (4, 0.2, 1), np.pi / 4).tolist() == [True, False]


def test_tensor_comes_back_as_tensor():
    inside = points_in_box(torch.zeros((2, 3)), (0, 0, 0), (1, 1, 1), 0.0)
    assert inside.dtype == torch.bool
    assert inside.tolist() == [True, True]


@pytest.mark.parametrize(
    ("centre", "size", "yaw", "words"),
    [
        ((0, 0), (1, 1, 1), 0.0, "centre must be three"),
        ((0, 0, np.nan), (1, 1, 1), 0.0, "centre must be three"),
        ((0, 0, 0), (1, 0, 1), 0.0, "size must be three lengths above 0"),
        ((0, 0, 0), "big", 0.0, "size must be three"),
        ((0, 0, 0), (1, 1, 1), np.inf, "yaw must be one finite angle in radians, got inf"),
        ((0, 0, 0), (1, 1, 1), None, "yaw must be one finite angle in radians, got None"),
        ((0, 0, 0), (1, 1, 1), "north", "yaw must be"),
        ((0, 0, 0), (1, 1, 1), (0.0, 1.0), "yaw must be"),
    ],
)
def test_bad_boxes(centre, size, yaw, words):
    with pytest.raises(InputError, match=words):
        points_in_box(np.zeros((1, 3)), centre, size, yaw)
