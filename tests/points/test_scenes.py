"""The vendored scans load as scenes, and the simulated ones say so."""

import numpy as np
import pytest

from papertwin.errors import DataError
from papertwin.points import load_airborne, load_scene, load_simulated, load_street, points_in_box
from papertwin.points.scenes import STREETS


@pytest.mark.parametrize("name", STREETS)
def test_street_scenes_load_without_the_carrying_vehicle(name):
    scene = load_street(name)
    assert len(scene.points) > 80_000
    assert not ((np.abs(scene.points[:, 0]) < 2.5) & (np.abs(scene.points[:, 1]) < 1.3)).any()
    assert scene.boxes_within(15)
    assert not scene.simulated


def test_simulated_frames_say_so_and_their_boxes_hold_points():
    (frame,) = load_simulated([0])
    assert frame.simulated
    cars = [box for box in frame.boxes_within(30) if box.label == "Car"]
    held = [points_in_box(frame.points, box.centre, box.size, box.yaw).sum() for box in cars]
    assert sum(count > 10 for count in held) >= 3


def test_a_scene_may_be_a_file_or_a_kitti_frame(tmp_path, monkeypatch):
    np.savez(tmp_path / "mine.npz", points=np.eye(3, dtype=np.float32))
    mine = load_scene(str(tmp_path / "mine.npz"))
    assert (mine.name, mine.boxes, len(mine.points)) == ("mine", [], 3)
    assert load_scene("avenue").name == "avenue"
    with pytest.raises(DataError, match="expected one of junction"):
        load_scene("nowhere")
    with pytest.raises(DataError, match="does not exist"):
        load_scene("nowhere.ply")
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    with pytest.raises(DataError, match="kitti"):
        load_scene("kitti/000001")


def test_the_airborne_tile_keeps_its_unit_and_its_classes():
    cloud = load_airborne()
    assert "foot" in cloud.unit
    assert {2, 5, 6} <= set(cloud.attributes["classification"].tolist())
