"""The matrix products find the same neighbours, and the same normals, as the compiled kernels."""

import numpy as np
import pytest
import torch

from papertwin.points import moments, moments_torch
from papertwin.points.moments import normals_at

EYE = (np.ones(3), True)


def both(points, radius, device, surface=None, eye=EYE):
    return [
        normals_at(points, [radius], [surface], eye, torch.device(device), backend)[0] for backend in ("numba", "torch")
    ]


@pytest.fixture
def float64_device(device):
    """The device, unless it has no float64."""
    if device == "mps":
        pytest.skip("MPS has no float64: there the compiled kernels are used")
    return device


@pytest.mark.parametrize("radius", [0.1, 0.7, 5.0, 100.0])
def test_same_counts_and_normals(street, between, float64_device, radius):
    one, two = both(street, radius, float64_device)
    assert np.array_equal(one.counts, two.counts)
    assert np.array_equal(one.gaps < 0, two.gaps < 0)
    well = one.gaps > 0.01
    assert between(one.vectors, two.vectors)[well].max(initial=0.0) < 1e-6
    assert np.einsum("ij,ij->i", one.vectors, two.vectors)[well].min(initial=1.0) > 0.999
    assert np.allclose(one.gaps, two.gaps, atol=1e-9)


def test_other_surface_and_a_finite_viewpoint(street, between, float64_device):
    eye = (np.array([1.0, 2.0, 3.0]), False)
    one, two = both(street[::3], 0.9, float64_device, surface=street[1::2], eye=eye)
    assert np.array_equal(one.counts, two.counts)
    well = one.gaps > 0.01
    assert np.einsum("ij,ij->i", one.vectors, two.vectors)[well].min() > 0.999


@pytest.mark.parametrize("budget", [20_000, 200_000, 2**25])
def test_any_budget_gives_the_same_sums(street, float64_device, budget):
    points = street[:400]
    whole, _ = moments_torch.moments(points, points, 2.0, torch.device(float64_device))
    parts, _ = moments_torch.moments(points, points, 2.0, torch.device(float64_device), budget=budget)
    assert np.array_equal(whole[:, 0], parts[:, 0])
    assert np.allclose(whole, parts, atol=1e-9)


def test_moments_by_the_definition(rng, float64_device):
    points = rng.random((300, 3)) + 100.0
    sums, scale = moments_torch.moments(points, points, 0.4, torch.device(float64_device))
    for i in (0, 17, 299):
        d = points - points[i]
        d = d[(d * d).sum(axis=1) <= 0.16]
        expected = [len(d), *d.sum(axis=0), *(d * d).sum(axis=0)]
        expected += [(d[:, a] * d[:, b]).sum() for a, b in ((0, 1), (0, 2), (1, 2))]
        assert np.allclose(sums[i], expected, atol=1e-10)
        assert scale[i] >= 0.0


def test_coincident_points_far_from_their_tile_have_no_normal(float64_device):
    points = np.repeat(np.array([[0.0, 0, 0], [0.9, 0, 0], [0, 0.9, 0]]) + 0.1234567, 9, axis=0)
    for found in both(points, 0.5, float64_device):
        assert (found.counts == 9).all()
        assert (found.gaps < 0).all()


def test_auto_uses_the_kernels_off_cuda(street, monkeypatch):
    monkeypatch.setattr(moments, "_multiply", lambda *_: pytest.fail("matrix products on the CPU"))
    for device in (None, torch.device("cpu"), torch.device("mps")):
        assert len(normals_at(street, [0.5], [None], EYE, device)[0].counts) == len(street)


def test_auto_uses_matrix_products_on_cuda(street, monkeypatch):
    """Seen without such a device: the work is handed over with the device that was asked for."""
    asked = []
    monkeypatch.setattr(moments, "_multiply", lambda *arguments: asked.append(arguments[-1]))
    normals_at(street, [0.5], [None], EYE, torch.device("cuda"))
    assert asked == [torch.device("cuda")]
