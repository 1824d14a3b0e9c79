"""Segmentation of a cloud by the Difference of Normals, and its score against annotated boxes.

Source: Ioannou et al., 3DIMPVT 2012 (arXiv 1209.1759); threshold and clustering as in the Point Cloud Library's
example by the first author. The scores are our choice (no evaluation protocol could be verified).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from papertwin.errors import InputError
from papertwin.points.boxes import points_in_box
from papertwin.points.cloud import Box
from papertwin.points.clusters import euclidean_clusters
from papertwin.points.difference import difference_of_normals


@dataclass(frozen=True)
class Segmentation:
    """What the pipeline leaves of a cloud of n points.

    Attributes:
        difference: the operator Δn̂, (n, 3), already halved.
        magnitude: ‖Δn̂‖, (n,), in [0, 1].
        undefined: points without a normal at either radius, whose Δn̂ is therefore 0, (n,) bool.
        kept: magnitude above the threshold (and inside the region of interest), (n,) bool.
        labels: cluster of each kept point, −1 elsewhere, (n,) int64; 0 is the largest cluster.
    """

    difference: np.ndarray
    magnitude: np.ndarray
    undefined: np.ndarray
    kept: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class ObjectMatch:
    """One annotated object and the cluster that overlaps it most.

    Attributes:
        box: the annotation.
        points: number of points O inside the box, thresholded or not.
        recall: share of O that is kept.
        iou: max over clusters C of |C ∩ O| / |C ∪ O|, 0 without an overlapping cluster.
        cluster: label of that cluster, −1 if none.
    """

    box: Box
    points: int
    recall: float
    iou: float
    cluster: int


def segment(
    points: np.ndarray,
    r_small: float,
    r_large: float,
    *,
    threshold: float = 0.25,
    link: float | None = None,
    sizes: tuple[int, int] = (50, 100_000),
    orientation: str = "viewpoint",
    region: np.ndarray | None = None,
    device: Any = None,
) -> Segmentation:
    """Cut a cloud into scale-salient clusters: operator, threshold, clustering.

    Args:
        points: (n, 3), any unit.
        r_small: small radius, same unit.
        r_large: large radius, same unit.
        threshold: τ; a point is kept if ‖Δn̂‖ > τ (strictly).
        link: largest gap inside a cluster, same unit; r_small if None (as the tutorial has it).
        sizes: smallest and largest cluster that count, in points.
        orientation: "viewpoint" (the library's fixed direction) or "pairwise" (sign-free).
        region: (n,) bool, points that may be kept; every point still supports its neighbours' normals.
        device: torch device of the normals; None is the fast CPU path.

    Returns:
        Segmentation of the n points.

    Raises:
        InputError: τ outside [0, 1), or what `difference_of_normals` and `euclidean_clusters` refuse.
    """
    if not 0 <= threshold < 1:
        raise InputError(
            f"threshold is {threshold}; ‖Δn̂‖ lies in [0, 1], so choose 0 ≤ threshold < 1, for example 0.25."
        )
    difference, undefined = difference_of_normals(
        points, r_small, r_large, orientation=orientation, return_undefined=True, device=device
    )
    magnitude = np.linalg.norm(difference, axis=1)
    kept = magnitude > threshold
    if region is not None:
        kept &= region
    labels = cluster_kept(points, kept, r_small if link is None else link, sizes)
    return Segmentation(difference, magnitude, undefined, kept, labels)


def cluster_kept(points: np.ndarray, kept: np.ndarray, link: float, sizes: tuple[int, int]) -> np.ndarray:
    """Cluster the kept points only; (n,) labels with −1 for the rest."""
    labels = np.full(len(points), -1, dtype=np.int64)
    if kept.any():
        labels[kept] = euclidean_clusters(points[kept], link, *sizes)
    return labels


def match_objects(points: np.ndarray, boxes: Sequence[Box], segmentation: Segmentation) -> list[ObjectMatch]:
    """Find for every annotated box the cluster that overlaps it most.

    Args:
        points: (n, 3), the cloud that was segmented.
        boxes: annotations; a box without any point is skipped.
        segmentation: result of `segment` on the same points.
    """
    sizes = np.bincount(segmentation.labels[segmentation.labels >= 0])
    matches = []
    for box in boxes:
        inside = points_in_box(points, box.centre, box.size, box.yaw)
        count = int(inside.sum())
        if count == 0:
            continue
        labels = segmentation.labels[inside]
        shared = np.bincount(labels[labels >= 0], minlength=len(sizes))
        iou = shared / (sizes + count - shared) if len(sizes) else np.zeros(1)
        best = int(iou.argmax())
        matches.append(
            ObjectMatch(
                box, count, float(segmentation.kept[inside].mean()), float(iou[best]), best if iou[best] > 0 else -1
            )
        )
    return matches


def precision(points: np.ndarray, boxes: Sequence[Box], kept: np.ndarray) -> float:
    """Share of the kept points that lie in any annotated box (NaN if nothing is kept)."""
    inside = np.zeros(len(points), dtype=bool)
    for box in boxes:
        inside |= points_in_box(points, box.centre, box.size, box.yaw)
    return float(inside[kept].mean()) if kept.any() else float("nan")
