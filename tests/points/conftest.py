"""Brute-force references and small clouds for the tests of the point functions."""

import numpy as np
import pytest


def brute_normals(points: np.ndarray, radius: float, at: np.ndarray | None = None):
    """Unoriented normals, counts and eigenvalues by the definition: all pairs, numpy's eigh."""
    points = points.astype(np.float64)
    places = points if at is None else at.astype(np.float64)
    vectors, counts, spectrum = np.zeros(places.shape), np.zeros(len(places), int), np.zeros(places.shape)
    for i, place in enumerate(places):
        offset = points - place
        near = offset[(offset * offset).sum(axis=1) <= radius * radius]
        counts[i] = len(near)
        if len(near) >= 3:
            centred = near - near.mean(axis=0)
            spectrum[i], axes = np.linalg.eigh(centred.T @ centred / len(near))
            vectors[i] = axes[:, 0]
    return vectors, counts, spectrum


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between lines of direction a and b, accurate for small angles."""
    sine = np.linalg.norm(np.cross(a, b), axis=1)
    return np.degrees(np.arctan2(sine, np.abs(np.einsum("ij,ij->i", a, b))))


def make_street(rng: np.random.Generator, count: int) -> np.ndarray:
    """A ground that thins out with distance, a wall, a pole and a few lone points; metres."""
    radius = 15.0 * rng.random(count // 2) ** 2 + 0.5
    turn = 2.0 * np.pi * rng.random(count // 2)
    ground = np.c_[radius * np.cos(turn), radius * np.sin(turn), 0.02 * rng.standard_normal(count // 2)]
    wall = rng.random((count // 3, 3)) * (12.0, 0.0, 4.0) + (-6.0, 6.0, 0.0)
    pole = rng.random((count // 12, 3)) * (0.0, 0.0, 3.0) + (2.0, 2.0, 0.0)
    lone = rng.random((count - len(ground) - len(wall) - len(pole), 3)) * 40.0 - 20.0
    return np.concatenate((ground, wall, pole, lone))


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts the same in every test."""
    return np.random.default_rng(7)


@pytest.fixture
def street(rng) -> np.ndarray:
    """The small street, 1,500 points."""
    return make_street(rng, 1500)


@pytest.fixture
def reference():
    """The brute-force reference, as a function."""
    return brute_normals


@pytest.fixture
def between():
    """Degrees between lines, as a function."""
    return angles
