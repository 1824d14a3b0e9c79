"""The experiments on the Difference of Normals: scores, intervals and the loaders, on answers known beforehand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from papertwin.claims import Measured
from papertwin.errors import DataError
from papertwin.papers import don
from papertwin.points import Box


def crate_scene(name: str = "toy", x: float = 5.0) -> don.Scene:
    """A floor with a crate of 1.2 m at (x, 0), annotated exactly."""
    line = np.arange(-8, 8.01, 0.1)
    floor = np.array([(a, b, 0) for a in line for b in line])
    edge, up = np.arange(-0.6, 0.61, 0.1), np.arange(0.1, 1.21, 0.1)
    crate = np.array([(x + a, b, c) for c in up for a in edge for b in edge if max(abs(a), abs(b)) > 0.55 or c > 1.15])
    return don.Scene(name, np.vstack([floor, crate]), [Box("car", (x, 0, 0.05), (1.3, 1.3, 1.3), 0.0)])


PARAMS = replace(don.Params(), r_small=0.25, r_large=2.0, link=0.25, min_size=20, orientation="pairwise")


def test_a_crate_is_found_and_counted_per_class():
    scene = crate_scene()
    result = don.run_scene(scene, PARAMS)
    objects = don.match_frame([scene], [result], PARAMS.max_range)
    assert objects.loc[0, "class"] == "car"
    table = don.class_table(objects)
    assert table.loc["car", "objects"] == 1
    assert table.loc["car", "recall"] == objects.recall[0] > 0.5
    assert 0 < don.mean_precision([scene], [result]) <= 1


def test_nothing_is_kept_beyond_the_range_and_objects_there_do_not_count():
    scene, near = crate_scene(), replace(PARAMS, max_range=3.0)
    result = don.run_scene(scene, near)
    assert not result.kept[~scene.within(3.0)].any()
    assert don.match_frame([scene], [result], 3.0).empty
    assert don.run_scene(scene, PARAMS).kept.any()


def test_found_share_and_its_interval():
    objects = pd.DataFrame({"class": ["car"] * 10 + ["pole"], "iou": [0.5] * 8 + [0.49, 0.0, 1.0]})
    cars = don.found_share(objects, "car")
    assert cars.value == 0.8
    assert cars.interval == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson, 8 of 10
    assert don.found_share(objects, "pole").value == 1.0
    assert don.found_share(objects, "people").value is None


def test_the_advice_is_judged_against_the_best_other_ratio():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.6, 40)
    sweep = pd.DataFrame({2: base - 0.1, 3: base, 5: base + 0.05, 10: base + 0.3, 20: base})
    margin = don.advice_margin(sweep, seed=0)
    assert margin.value == pytest.approx(0.25)
    assert margin.interval == pytest.approx((0.25, 0.25))
    assert margin.note == "best other ratio: 5"
    assert don.advice_margin(sweep.rename(columns={10: 20, 20: 10}), seed=0).value < -0.2


def test_the_bootstrap_covers_the_mean_at_about_the_promised_rate():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        low, high = don.bootstrap_mean(rng.normal(0.3, 1, 40), seed=0).interval
        hits += low <= 0.3 <= high
    assert 50 <= hits < 60
    assert don.bootstrap_mean(np.array([1.0]), seed=0).value is None


def test_the_cost_exponent_reads_the_slope():
    rows = [
        {"points": n, "repeat": k, "seconds": (1 + 0.01 * k) * n**power}
        for k in range(3)
        for n in (1e5, 2e5, 4e5)
        for power in (1.5,)
    ]
    found = don.cost_exponent(pd.DataFrame(rows))
    assert found.value == pytest.approx(1.5)
    assert found.interval == pytest.approx((1.5, 1.5))


def test_cost_scaling_lays_copies_side_by_side_without_contact():
    scene = don.Scene("toy", np.random.default_rng(0).uniform(0, 5, (400, 3)), [])
    timings = don.cost_scaling(scene, replace(PARAMS, tiles=4), repeats=2)
    assert sorted(set(timings.points)) == [400, 800, 1600]
    assert (timings.seconds > 0).all()


def test_bounds_hold_and_fail():
    assert don.bounds_hold({"viewpoint": 1.0, "pairwise": np.sqrt(0.5)}).value is True
    assert don.bounds_hold({"viewpoint": 1.0, "pairwise": 0.8}).value is False
    assert don.bounds_hold({"viewpoint": 1.1, "pairwise": 0.5}).value is False


def test_profile_normals_are_the_slope_of_a_smooth_hill():
    x = np.linspace(0, 10, 800)
    hill = np.column_stack([x, 0.5 * np.sin(2 * np.pi * x / 10)])
    found = don.profile_normals(hill, 0.2)
    slope = 0.5 * 2 * np.pi / 10 * np.cos(2 * np.pi * x / 10)
    expected = np.column_stack([-slope, np.ones_like(x)]) / np.hypot(slope, 1)[:, None]
    inner = slice(40, -40)
    assert np.abs(found[inner] - expected[inner]).max() < 2e-3


def test_tilt_is_the_angle_to_the_vertical():
    vectors = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0], [0, np.sqrt(0.5), np.sqrt(0.5)]])
    assert don.tilt(vectors) == pytest.approx([0, 0, 90, 45])


def test_slices_combine_their_limits():
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 5, 0.0]])
    assert don.slice_of(points, x=(0.5, 2), y=(-1, 1)).tolist() == [False, True, False]


@pytest.mark.parametrize("name", don.Params().scenes)
def test_street_scenes_load_without_the_carrying_vehicle(name):
    scene = don.load_scene(name)
    assert len(scene.points) > 80_000
    assert not ((np.abs(scene.points[:, 0]) < 2.5) & (np.abs(scene.points[:, 1]) < 1.3)).any()
    assert scene.boxes_within(15)
    assert not scene.simulated


def test_simulated_frames_say_so_and_their_boxes_hold_points():
    from papertwin.points import points_in_box

    (frame,) = don.load_simulated([0])
    assert frame.simulated
    cars = [box for box in frame.boxes_within(30) if box.label == "car"]
    held = [points_in_box(frame.points, box.centre, box.size, box.yaw).sum() for box in cars]
    assert sum(count > 10 for count in held) >= 3


def test_land_cover_shares_add_up_by_hand():
    codes = np.array([2, 2, 2, 6, 1])
    table = don.land_cover_table(np.array([0.1, 0.3, 0.25, 0.9, 0.9]), codes, 0.25)
    assert table.loc["ground", "above τ"] == pytest.approx(1 / 3)  # strictly above
    assert table.loc["building", "points"] == 1
    assert "high vegetation" not in table.index


def test_kitti_is_not_judged_without_frames_and_missing_data_is_a_clear_error(monkeypatch, tmp_path):
    assert don.kitti_cars(don.Params()).value is None
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    with pytest.raises(DataError, match="kitti"):
        don.kitti_cars(replace(don.Params(), kitti_frames=100))


def test_scale_selectivity_is_paired_over_cars():
    scenes = [crate_scene("a"), crate_scene("b", x=-5.0), crate_scene("c", x=3.0)]
    found = don.scale_selectivity(scenes, replace(PARAMS, threshold=0.2))
    assert isinstance(found, Measured)
    assert found.note == "3 cars"
    assert found.interval[0] <= found.value <= found.interval[1]
