"""Surface normals within a fixed radius, and the Difference of Normals operator.

Y. Ioannou, B. Taati, R. Harrap, M. Greenspan: Difference of Normals as a Multi-Scale Operator in Unorganized Point
Clouds. 3DIMPVT 2012, arXiv 1209.1759. Conventions as in the first author's code for the Point Cloud Library
(`pcl/features/don.h`, BSD): support is a radius and never a number of neighbours, the difference is halved, the
viewpoint of the examples lies at infinity on every axis.

    Δn̂(p; r_s, r_l) = (n̂(p, r_s) - n̂(p, r_l)) / 2

Ours: a normal perpendicular to the viewing direction (its sign would be rounding noise) gets a positive largest
component; points without a normal at either scale have Δn̂ = 0.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from papertwin.errors import InputError
from papertwin.points import moments
from papertwin.points.arrays import is_tensor, positive, take_points
from papertwin.points.voxels import centroids

Orientation = Literal["viewpoint", "pairwise"]


@dataclass(frozen=True)
class Normals:
    """Normals of n points.

    Attributes:
        vectors: (n, 3) unit vectors; zero where `degenerate`.
        counts: (n,) int64, neighbours with distance ≤ radius, the point itself counted where it is on the surface.
        degenerate: (n,) bool, fewer than 3 neighbours, or collinear or coincident ones: no normal exists.
        gap: (n,) (λ₂ - λ₁) / λ₃ in [0, 1] of the eigenvalues λ₁ ≤ λ₂ ≤ λ₃: how well the direction is determined; near
            0 the neighbours spread equally in two or three directions. 0 where `degenerate`.
    """

    vectors: Any
    counts: Any
    degenerate: Any
    gap: Any


def normals(
    points: Any,
    radius: float,
    *,
    viewpoint: Any = None,
    surface: Any = None,
    surface_voxel: float | None = None,
    device: Any = None,
) -> Normals:
    """Fit a plane to all points within `radius` of each point: n̂ is the axis of least variance.

    Exact: every neighbour with distance ≤ radius counts (on lattices pass radius + 1e-9). Time and memory do not
    grow with the number of neighbours: whole tree nodes inside the ball are summed at once.

    Args:
        points: (n, 3) array or tensor, finite; the places where normals are wanted.
        radius: > 0, in the unit of the points.
        viewpoint: (3,) place to which the normals turn. Infinite entries are a direction: (inf, inf, inf), the
            default, turns all normals towards (1, 1, 1).
        surface: (m, 3) points whose neighbourhoods are taken; the points themselves unless given.
        surface_voxel: decimation. The surface is replaced by the centroids of its voxels of side
            radius / surface_voxel: faster on dense clouds, approximate; the point itself then need not be a neighbour.
        device: None (where the tensor is; the CPU for arrays), auto, cpu, cuda or mps. MPS has no float64: there the
            sums run on the CPU, in float64, and only the result moves.

    Returns:
        Normals of the same kind (numpy or torch, device, float32 or float64) as `points`.

    Raises:
        InputError: wrong shape, empty, NaN or infinite coordinates (their number and first row are named), a radius
            that is not above 0, a viewpoint that is not three numbers.
        ParameterError: the device does not exist.

    Example:
        >>> import numpy as np
        >>> from papertwin.points import normals
        >>> plane = np.array([[x, y, 0.0] for x in range(5) for y in range(5)])
        >>> normals(plane, 1.5).vectors[0].tolist()
        [0.0, 0.0, 1.0]
    """
    array, kind = take_points(points, device=device)
    radius = positive(radius, "radius")
    eye = _viewpoint(viewpoint)
    searched = None if surface is None else take_points(surface, "surface")[0]
    if surface_voxel is not None:
        searched = centroids(array if searched is None else searched, radius / positive(surface_voxel, "surface_voxel"))
    (found,) = moments.normals_at(array, [radius], [searched], eye, kind.device)
    parts = found.vectors, found.counts, found.gaps < 0.0, np.maximum(found.gaps, 0.0)
    return Normals(*(kind.back(part) for part in parts))


def difference_of_normals(
    points: Any,
    r_small: float,
    r_large: float,
    *,
    orientation: Orientation = "viewpoint",
    viewpoint: Any = None,
    surface_voxel: float | None = None,
    return_undefined: bool = False,
    device: Any = None,
) -> Any:
    """Half the difference of the normals at two radii: ‖Δn̂‖ = sin(θ/2), θ the angle between them.

    Args:
        points: (n, 3) array or tensor, finite.
        r_small: small radius r_s, in the unit of the points.
        r_large: large radius r_l > r_s; the authors advise about 10 r_s.
        orientation: `viewpoint` turns the normals of both scales to the same viewpoint: norm ≤ 1. `pairwise` then
            flips the large-scale normal where the two disagree: norm ≤ √½, and rotating the cloud changes no norm.
        viewpoint: (3,) as in `normals`.
        surface_voxel: decimation as in `normals`: at each scale the surface becomes voxel centroids of side
            r / surface_voxel (the authors' example: 100).
        return_undefined: also tell where Δn̂ is zero for want of a normal (and not because the two agree).
        device: as in `normals`.

    Returns:
        (n, 3) Δn̂, already halved, of the same kind as `points`; zero where a normal is missing at either scale.
        With `return_undefined` a pair: Δn̂, and (n,) bool, true where a normal is missing.

    Raises:
        InputError: as in `normals`; also r_small ≥ r_large, or an unknown orientation.
    """
    array, kind = take_points(points, device=device)
    r_small, r_large = positive(r_small, "r_small"), positive(r_large, "r_large")
    if r_small >= r_large:
        raise InputError(f"r_small must be smaller than r_large, got {r_small} and {r_large}: swap or change them.")
    if orientation not in ("viewpoint", "pairwise"):
        raise InputError(f"orientation must be 'viewpoint' or 'pairwise', got {orientation!r}.")
    eye, surfaces = _viewpoint(viewpoint), [None, None]
    if surface_voxel is not None:
        decimation = positive(surface_voxel, "surface_voxel")
        surfaces = [centroids(array, radius / decimation) for radius in (r_small, r_large)]
    small, large = moments.normals_at(array, [r_small, r_large], surfaces, eye, kind.device)
    undefined = (small.gaps < 0.0) | (large.gaps < 0.0)
    difference = kind.back(_halved(small, large, orientation, undefined))
    return (difference, kind.back(undefined)) if return_undefined else difference


def tilt(vectors: np.ndarray) -> np.ndarray:
    """Angle between unit normals (n, 3) and the vertical, whatever their sign, in degrees: (n,) in [0, 90]."""
    return np.degrees(np.arccos(np.clip(np.abs(vectors[:, 2]), 0, 1)))


def _halved(small: moments.Found, large: moments.Found, orientation: Orientation, undefined: np.ndarray) -> np.ndarray:
    """(n̂_s - n̂_l) / 2 in place of the small-scale normals."""
    difference, other = small.vectors, large.vectors
    if orientation == "pairwise":
        other[np.einsum("ij,ij->i", difference, other) < 0.0] *= -1.0
    difference -= other
    difference *= 0.5
    difference[undefined] = 0.0
    return difference


def _viewpoint(viewpoint: Any) -> tuple[np.ndarray, bool]:
    """The viewpoint as three numbers, and whether they are a direction instead of a place."""
    if viewpoint is None:
        return np.ones(3), True
    value = viewpoint.detach().cpu().numpy() if is_tensor(viewpoint) else viewpoint
    try:
        eye = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        eye = np.empty(0)
    if eye.shape != (3,) or np.isnan(eye).any():
        raise InputError(f"viewpoint must be three numbers (inf allowed, NaN not), got {viewpoint!r}.")
    far = np.isinf(eye)
    if far.any():
        return np.where(far, np.sign(eye), 0.0), True
    return eye, False
