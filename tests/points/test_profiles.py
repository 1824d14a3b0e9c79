"""Profiles: normals in the plane against the slope of the curve."""

import numpy as np
import pytest

from papertwin.points.profiles import bumpy_profile, extrude, profile_normals


def test_profile_normals_are_the_slope_of_a_smooth_hill():
    x = np.linspace(0, 10, 800)
    hill = np.column_stack([x, 0.5 * np.sin(2 * np.pi * x / 10)])
    found = profile_normals(hill, 0.2)
    slope = 0.5 * 2 * np.pi / 10 * np.cos(2 * np.pi * x / 10)
    expected = np.column_stack([-slope, np.ones_like(x)]) / np.hypot(slope, 1)[:, None]
    inner = slice(40, -40)
    assert np.abs(found[inner] - expected[inner]).max() < 2e-3


def test_an_extruded_profile_fills_the_ball():
    profile = bumpy_profile(50)
    surface = extrude(profile, 0.7, rows=5)
    assert surface.shape == (250, 3)
    assert sorted(set(surface[:, 1])) == pytest.approx([-0.7, -0.35, 0, 0.35, 0.7])
    assert np.array_equal(surface[100:150][:, [0, 2]], profile)
