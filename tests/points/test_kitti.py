"""KITTI frames: boxes in the LIDAR frame, proven by the points inside them."""

import math

import numpy as np
import pytest

from papertwin import paths
from papertwin.errors import DataError
from papertwin.points import points_in_box, read_kitti

TR = "0 -1 0 0.1 0 0 -1 -0.2 1 0 0 -0.3"  # camera x = -LIDAR y, y = -z, z = x, and a shift
TURN = 0.05  # rectification: a small turn about the camera's y axis


def write_frame(folder, label: str, calib: str | None = None) -> None:
    for name in ("velodyne", "label_2", "calib"):
        (folder / name).mkdir()
    cos, sin = math.cos(TURN), math.sin(TURN)
    rectify = f"{cos} 0 {sin} 0 1 0 {-sin} 0 {cos}"
    np.zeros((4, 4), "<f4").tofile(folder / "velodyne/000003.bin")
    (folder / "label_2/000003.txt").write_text(label)
    (folder / "calib/000003.txt").write_text(calib or f"P2: 1 0\nR0_rect: {rectify}\nTr_velo_to_cam: {TR}\n")


def test_a_box_made_in_the_lidar_frame_comes_back(tmp_path):
    centre, size, yaw = np.array([12.0, -3.0, -1.6]), (4.2, 1.8, 1.5), 0.7
    axes = np.array(TR.split(), float).reshape(3, 4)
    cos, sin = math.cos(TURN), math.sin(TURN)
    rectify = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    x, y, z = rectify @ (axes[:, :3] @ centre + axes[:, 3])
    along = rectify @ axes[:, :3] @ (math.cos(yaw), math.sin(yaw), 0.0)
    r_y = math.atan2(-along[2], along[0])
    line = f"Car 0 0 0 1 2 3 4 {size[2]} {size[1]} {size[0]} {x} {y} {z} {r_y}\n"
    write_frame(tmp_path, line + "\nDontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10\n")
    cloud, boxes = read_kitti(tmp_path, 3)
    assert len(cloud) == 4
    assert len(boxes) == 1
    assert boxes[0].label == "Car"
    assert boxes[0].centre == pytest.approx(centre)
    assert boxes[0].size == pytest.approx(size)
    assert boxes[0].yaw == pytest.approx(yaw)


@pytest.mark.parametrize("frame", range(5))
def test_simulated_boxes_hold_their_points(frame):
    """Cars within 60 m: most points of a slightly larger box are in the box, and every other reading finds fewer."""
    cloud, boxes = read_kitti(paths.root() / "data/liguard", frame, layout="liguard")
    near = [box for box in boxes if math.hypot(*box.centre[:2]) < 60.0]

    def held(yaw=0.0, up=0.0, swap=False):
        total = 0
        for box in near:
            length, width, height = box.size
            size = (width, length, height) if swap else box.size
            x, y, z = box.centre
            total += int(points_in_box(cloud.points, (x, y, z + up * height), size, box.yaw + yaw).sum())
        return total

    right = held()
    assert right > 450
    for wrong in (held(yaw=math.pi / 2), held(yaw=math.pi / 4), held(up=-0.5), held(up=0.5), held(swap=True)):
        assert wrong < 0.75 * right


def test_other_files_and_layouts(tmp_path):
    with pytest.raises(DataError, match=r"velodyne.*does not exist"):
        read_kitti(tmp_path, 0)
    with pytest.raises(DataError, match="layout must be"):
        read_kitti(tmp_path, 0, layout="nuscenes")
    write_frame(tmp_path, "Car 0 0 0 1 2 3 4 1.5 oops 4.2 1 2 3 0\n")
    with pytest.raises(DataError, match=r"000003.txt, line 1: .*oops"):
        read_kitti(tmp_path, "000003")
    (tmp_path / "label_2/000003.txt").write_text("Car 0 0 0 1 2 3 4 1.5\n")
    with pytest.raises(DataError, match="line 1: expected a class and at least 14 numbers"):
        read_kitti(tmp_path, 3)
    (tmp_path / "label_2/000003.txt").unlink()
    with pytest.raises(DataError, match=r"label_2.*does not exist"):
        read_kitti(tmp_path, 3)


@pytest.mark.parametrize(
    ("calib", "words"),
    [
        ("R0_rect: 1 0 0 0 1 0 0 0 1\n", "Tr_velo_to_cam.*12 numbers"),
        (f"Tr_velo_to_cam: {TR}\n", "R0_rect.*9 numbers, got 'nothing'"),
        (f"Tr_velo_to_cam: {TR} 5\nR0_rect: 1 0 0 0 1 0 0 0 1\n", "Tr_velo_to_cam.*12 numbers"),
        (f"Tr_velo_to_cam: {' 0' * 12}\nR0_rect: 1 0 0 0 1 0 0 0 1\n", "cannot be inverted"),
    ],
)
def test_bad_calibration(tmp_path, calib, words):
    write_frame(tmp_path, "", calib)
    with pytest.raises(DataError, match=words):
        read_kitti(tmp_path, 3)
