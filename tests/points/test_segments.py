"""The pipeline and its scores, on clouds whose answer is known."""

import numpy as np
import pytest

from papertwin.errors import InputError
from papertwin.points import Box, points_in_box
from papertwin.points.segments import Segmentation, match_objects, precision, segment


def street() -> tuple[np.ndarray, Box]:
    """A flat 12 m × 12 m floor and a crate of 1.2 m standing on it, sampled every 0.1 m."""
    line = np.arange(-6, 6.01, 0.1)
    floor = np.array([(x, y, 0) for x in line for y in line])
    edge = np.arange(-0.6, 0.61, 0.1)
    up = np.arange(0.1, 1.21, 0.1)
    sides = [(x, y, z) for z in up for x in edge for y in edge if max(abs(x), abs(y)) > 0.55]
    lid = [(x, y, 1.2) for x in edge for y in edge]
    crate = np.unique(np.round(np.array(sides + lid), 6), axis=0)
    return np.vstack([floor, crate]), Box("crate", (0, 0, 0.05), (1.3, 1.3, 1.3), 0.0)


def test_the_crate_is_found_and_the_floor_out_of_its_reach_is_not():
    points, box = street()
    result = segment(points, 0.25, 2.0, sizes=(20, 10_000), orientation="pairwise")
    (match,) = match_objects(points, [box], result)
    assert match.cluster == 0
    assert match.iou > 0.3
    assert match.recall > 0.5
    flat = (np.abs(points[:, :2]).max(axis=1) > 2.7) & (np.abs(points[:, :2]).max(axis=1) < 3.9)
    assert flat.sum() > 1000
    assert not result.kept[flat].any()


def test_the_threshold_is_strict_and_monotone():
    points, _ = street()
    loose = segment(points, 0.25, 2.0, threshold=0.1)
    level = float(np.sort(loose.magnitude[loose.kept])[loose.kept.sum() // 2])
    strict = segment(points, 0.25, 2.0, threshold=level)
    assert (loose.magnitude == level).any()
    assert not strict.kept[loose.magnitude == level].any()
    assert (loose.kept >= strict.kept).all()
    assert 0 < strict.kept.sum() < loose.kept.sum()


def test_a_region_limits_what_is_kept_but_not_what_supports_normals():
    points, _ = street()
    region = points[:, 0] > 0
    everything, half = segment(points, 0.25, 2.0), segment(points, 0.25, 2.0, region=region)
    assert np.array_equal(half.difference, everything.difference)
    assert np.array_equal(half.kept, everything.kept & region)
    assert (half.labels[~region] == -1).all()


def test_scores_against_counting_by_hand():
    rng = np.random.default_rng(0)
    points = rng.uniform(-2, 2, (3000, 3))
    boxes = [Box("a", (0, 0, -1), (2, 1, 2), 0.3), Box("empty", (50, 0, 0), (1, 1, 1), 0)]
    labels = rng.integers(-1, 4, 3000)
    kept = labels >= 0
    (match,) = match_objects(points, boxes, Segmentation(points, points[:, 0], ~kept, kept, labels))
    inside = points_in_box(points, boxes[0].centre, boxes[0].size, boxes[0].yaw)
    members = set(np.flatnonzero(inside))
    clusters = [set(np.flatnonzero(labels == k)) for k in range(4)]
    by_hand = [len(members & cluster) / len(members | cluster) for cluster in clusters]
    assert match.iou == pytest.approx(max(by_hand))
    assert match.cluster == int(np.argmax(by_hand))
    assert match.recall == pytest.approx(kept[inside].mean())
    assert precision(points, boxes, kept) == pytest.approx(inside[kept].mean())


def test_no_cluster_gives_zero_and_no_label():
    points, box = street()
    no = np.zeros(len(points), bool)
    nothing = Segmentation(points, points[:, 0], no, no, np.full(len(points), -1))
    (match,) = match_objects(points, [box], nothing)
    assert (match.iou, match.cluster, match.recall) == (0, -1, 0)
    assert np.isnan(precision(points, [box], nothing.kept))


def test_a_lonely_point_is_undefined_and_never_kept():
    points = np.vstack([street()[0], [[50.0, 50.0, 0.0]]])
    result = segment(points, 0.25, 2.0, threshold=0.0)
    assert result.undefined.nonzero()[0].tolist() == [len(points) - 1]
    assert result.magnitude[-1] == 0
    assert not result.kept[-1]


def test_a_link_of_zero_is_refused_and_not_replaced():
    with pytest.raises(InputError):
        segment(street()[0], 0.25, 2.0, link=0.0)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 2])
def test_a_threshold_that_means_nothing_is_refused(threshold):
    with pytest.raises(InputError, match="threshold"):
        segment(street()[0], 0.25, 2.0, threshold=threshold)
