"""Synthetic surfaces that vary along one direction only, for sketches and tests in two dimensions."""

import numpy as np

from papertwin.points.difference import normals


def bumpy_profile(count: int = 600) -> np.ndarray:
    """Make a gentle hill, 5 m long, with ripples of 0.6 m wavelength: (count, 2), x and height in metres."""
    x = np.linspace(0, 5, count)
    return np.column_stack([x, 0.4 * np.sin(2 * np.pi * x / 5) + 0.06 * np.sin(2 * np.pi * x / 0.6)])


def extrude(profile: np.ndarray, reach: float, rows: int = 31) -> np.ndarray:
    """Extrude a profile along y by ± `reach` into a surface that fills balls of that radius, (rows · count, 3)."""
    y = np.linspace(-reach, reach, rows)
    return np.concatenate([np.column_stack([profile[:, 0], np.full(len(profile), v), profile[:, 1]]) for v in y])


def profile_normals(profile: np.ndarray, radius: float) -> np.ndarray:
    """Upward unit normals of a profile in its plane, (count, 2): computed in 3-D on the extruded profile.

    Args:
        profile: (count, 2), x and height.
        radius: of the neighbourhood, same unit.
    """
    surface = extrude(profile, radius)
    middle = len(surface) // 2 - len(profile) // 2
    found = normals(surface, radius, viewpoint=(0, 0, np.inf)).vectors
    return found[middle : middle + len(profile), [0, 2]]
