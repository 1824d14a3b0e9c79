"""The experiments on the Difference of Normals: scores, intervals and the loaders, on answers known beforehand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from papertwin.errors import ParameterError
from papertwin.papers import don
from papertwin.points import Box, Scene, difference_of_normals, points_in_box


def crate_scene(name: str = "toy", x: float = 5.0) -> Scene:
    """A floor with a crate of 1.2 m at (x, 0), annotated exactly."""
    line = np.arange(-8, 8.01, 0.1)
    floor = np.array([(a, b, 0) for a in line for b in line])
    edge, up = np.arange(-0.6, 0.61, 0.1), np.arange(0.1, 1.21, 0.1)
    crate = np.array([(x + a, b, c) for c in up for a in edge for b in edge if max(abs(a), abs(b)) > 0.55 or c > 1.15])
    return Scene(name, np.vstack([floor, crate]), [Box("car", (x, 0, 0.05), (1.3, 1.3, 1.3), 0.0)])


PARAMS = replace(don.Params(), r_small=0.25, r_large=2.0, link=0.25, min_size=20, orientation="pairwise")


def test_a_crate_is_found_and_counted_per_class():
    scene = crate_scene()
    result = don.run_scene(scene, PARAMS)
    objects = don.match_frame([scene], [result], PARAMS.max_range)
    assert objects.loc[0, "class"] == "car"
    table = don.class_table(objects)
    assert table.loc["car", "objects"] == 1
    assert table.loc["car", "recall"] == objects.recall[0] > 0.5
    assert don.cluster_count(result) >= don.matched_clusters(objects)
    whole = don.evaluation_table([scene], PARAMS)
    assert 0 < whole["precision"].iloc[0] <= 1
    assert whole.index.get_level_values("within (m)").tolist() == ["15", "15", "30"]


def test_two_objects_in_one_cluster_match_it_once():
    objects = pd.DataFrame({"scene": ["a", "a", "b", "b"], "cluster": [1, 1, 1, 2], "iou": [0.5, 0.6, 0.7, 0.4]})
    assert don.matched_clusters(objects) == 2


def test_sensitivity_changes_one_setting_at_a_time():
    table = don.sensitivity_table([crate_scene()], PARAMS)
    assert table.loc["as above", "car"].endswith("/ 1")
    assert table.loc["at least 20 points"].equals(table.loc["as above"].rename("at least 20 points"))
    assert len(table) == 7


def test_nothing_is_kept_beyond_the_range_and_objects_there_do_not_count():
    scene, near = crate_scene(), replace(PARAMS, max_range=3.0)
    result = don.run_scene(scene, near)
    assert not result.kept[~scene.within(3.0)].any()
    assert don.match_frame([scene], [result], 3.0).empty
    assert don.run_scene(scene, PARAMS).kept.any()


def test_found_share_and_its_interval():
    scenes = ["a", "b"] * 5 + ["a"]
    objects = pd.DataFrame({"class": ["car"] * 10 + ["pole"], "iou": [0.5] * 8 + [0.49, 0.0, 1.0], "scene": scenes})
    cars = don.found_share(objects, "car")
    assert cars.value == 0.8
    assert cars.interval == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson, 8 of 10
    assert "8 of 10 objects (a 4 of 5, b 4 of 5)" in cars.note
    assert don.found_share(objects, "pole").value == 1.0
    assert don.found_share(objects, "people").value is None


def test_the_advice_is_judged_against_the_best_other_ratio():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.6, 40)
    sweep = pd.DataFrame({2: base - 0.1, 3: base, 5: base + 0.05, 10: base + 0.3, 20: base})
    margin = don.advice_margin(sweep, seed=0)
    assert margin.value == pytest.approx(0.25)
    assert margin.interval == pytest.approx((0.25, 0.25))
    assert margin.note == "best other ratio: 5; 40 objects"
    assert don.advice_margin(sweep.rename(columns={10: 20, 20: 10}), seed=0).value < -0.2


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
    scene = Scene("toy", np.random.default_rng(0).uniform(0, 5, (400, 3)), [])
    timings = don.cost_scaling(scene, replace(PARAMS, tiles=6), repeats=2)
    assert sorted(set(timings.points)) == [400, 800, 1600, 2400]
    assert don.cost_exponent(timings[timings.points == 400]).value is None
    assert (timings.seconds > 0).all()


def test_bounds_hold_on_noise():
    noise = Scene("noise", np.random.default_rng(0).normal(size=(3000, 3)), [])
    bounds = don.magnitude_bounds([noise], replace(PARAMS, r_small=0.3, r_large=0.8))
    assert bounds.value is True
    largest = [float(part.rsplit(" ", 1)[1]) for part in bounds.note.split(", ")]
    assert 0.9 < largest[0] <= 1
    assert 0.6 < largest[1] <= 0.7072


def test_responses_are_missing_where_a_normal_is():
    points = np.vstack([crate_scene().points, [[90.0, 0, 0]]])
    found = don.response(points, 0.25, 2.0, PARAMS)
    assert np.isnan(found).nonzero()[0].tolist() == [len(points) - 1]


def test_land_cover_shares_add_up_by_hand():
    codes = np.array([2, 2, 2, 6, 1])
    table = don.land_cover_table(np.array([0.1, 0.3, 0.25, 0.9, 0.9]), codes, 0.25)
    assert table.loc["ground", "above τ"] == pytest.approx(1 / 3)  # strictly above
    assert table.loc["building", "points"] == 1
    assert "high vegetation" not in table.index


def test_kitti_needs_a_hundred_frames_and_missing_data_is_a_clear_error(monkeypatch, tmp_path):
    assert don.kitti_objects(don.Params())[:2] == (0, "kitti_frames = 0")
    cars = pd.DataFrame({"class": ["car"] * 4, "iou": [0.9, 0.9, 0.9, 0.1], "scene": ["0", "0", "1", "1"]})
    assert don.kitti_cars(99, "", cars).value is None
    assert don.kitti_cars(100, "", cars).value == 0.75
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    frames, reason, objects = don.kitti_objects(replace(don.Params(), kitti_frames=100))
    assert frames == 0
    assert str(tmp_path / "kitti") in reason
    assert reason in don.kitti_cars(frames, reason, objects).note


def test_kitti_frames_are_scored_with_our_class_names(monkeypatch, tmp_path):
    """A folder in KITTI's layout, made here: a floor, a car of 4 × 2 × 1.5 m, an identity calibration."""
    folder = tmp_path / "kitti"
    for kind in ("velodyne", "label_2", "calib"):
        (folder / kind).mkdir(parents=True)
    scene = crate_scene(x=6.0)
    rows = np.column_stack([scene.points, np.zeros(len(scene.points))]).astype("<f4")
    rows.tofile(folder / "velodyne" / "000000.bin")
    identity = "1 0 0 0 0 1 0 0 0 0 1 0"
    turned = "0 -1 0 0 0 0 -1 0 1 0 0 0"  # x right, y down, z forward
    (folder / "calib" / "000000.txt").write_text(
        f"P2: {identity}\nR0_rect: 1 0 0 0 1 0 0 0 1\nTr_velo_to_cam: {turned}\n"
    )
    (folder / "label_2" / "000000.txt").write_text(
        "Car 0 0 0 0 0 0 0 1.3 1.3 1.3 0 -0.05 6 0\nTram 0 0 0 0 0 0 0 1 1 1 0 0 6 0\n"
    )
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    frames, _, objects = don.kitti_objects(replace(PARAMS, kitti_frames=5))
    assert frames == 1
    assert objects["class"].tolist() == ["car"]
    assert objects.points[0] > 100
    assert objects.iou[0] > 0.3


def test_scale_selectivity_is_the_paired_gain_of_cars_by_hand():
    scenes = [crate_scene("a"), crate_scene("b", x=-5.0), crate_scene("c", x=3.0)]
    params = replace(PARAMS, threshold=0.2)
    found = don.scale_selectivity(scenes, params)
    gains = []
    for scene in scenes:
        box = scene.boxes[0]
        inside = points_in_box(scene.points, box.centre, box.size, box.yaw)
        above = [
            np.linalg.norm(difference_of_normals(scene.points, *radii, orientation="pairwise"), axis=1)[inside] > 0.2
            for radii in ((0.4, 4.0), (0.1, 1.0))
        ]
        gains.append(above[0].mean() - above[1].mean())
    assert found.value == pytest.approx(np.mean(gains))
    assert min(gains) <= found.interval[0] <= found.interval[1] <= max(gains)
    assert found.note.startswith("3 cars; drawing scenes too")


def test_without_objects_every_claim_says_so():
    bare = Scene("bare", crate_scene().points)
    result = don.run_scene(bare, PARAMS)
    objects = don.match_frame([bare], [result], PARAMS.max_range)
    assert don.found_share(objects, "car").value is None
    assert don.scale_selectivity([bare], PARAMS).value is None
    sweep = don.ratio_sweep([bare], PARAMS, ratios=(2, 10))
    assert don.advice_margin(sweep, 0).value is None
    assert don.sweep_means(sweep, 0)["mean"].isna().all()


def test_points_without_a_normal_are_counted_per_scene():
    scene = crate_scene()
    lonely = Scene("lonely", np.vstack([scene.points, [[12.0, 0, 0], [14.0, 0, 0], [40.0, 0, 0]]]))
    table = don.undefined_table([lonely], [don.run_scene(lonely, PARAMS)], 15.0)
    assert table.loc["lonely", "no normal"] == 2
    assert table.loc["lonely", "points"] == len(scene.points) + 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"show": "nowhere"}, "show is 'nowhere'; only scenes are computed, so .*: set show=junction as well"),
        ({"scenes": ["avenue"]}, "show is 'junction'; .* set show=avenue as well"),
        ({"scenes": []}, r"scenes is \[\]; it must name one scene or more, each once"),
        ({"scenes": ["junction", "junction"]}, "scenes is .*; it must name one scene or more, each once"),
        ({"orientation": "up"}, "orientation is 'up'; it must be viewpoint or pairwise"),
        ({"r_small": 0.0}, "r_small is 0.0; it must be above 0"),
        ({"link": -1.0}, "link is -1.0; it must be above 0"),
        ({"max_range": 0.0}, "max_range is 0.0; it must be above 0"),
        ({"r_large": 0.4}, "r_large is 0.4; it must be above r_small, 0.4 m"),
        ({"threshold": 1.0}, "threshold is 1.0; it must be at least 0 and below 1"),
        ({"threshold": -0.1}, "threshold is -0.1; it must be"),
        ({"min_size": 0}, "min_size is 0; it must be at least 1"),
        ({"min_size": 100_001}, "min_size is 100001; it can be at most the 100,000 of max_size"),
        ({"tiles": 0}, "tiles is 0; it must be at least 1"),
        ({"kitti_frames": -1}, "kitti_frames is -1; it must be at least 0"),
    ],
)
def test_parameters_that_no_experiment_can_use(changes, message):
    with pytest.raises(ParameterError, match=message):
        replace(don.Params(), **changes)
