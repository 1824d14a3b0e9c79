"""Cloud drawings put points and boxes where they are."""

import matplotlib.pyplot as plt
import numpy as np

from papertwin.figures import clouds
from papertwin.points import Box, points_in_box


def test_top_view_draws_the_highest_point_last_with_its_own_value():
    _, axes = plt.subplots()
    points = np.array([[0, 0, 5.0], [1, 1, 1.0], [2, 2, 3.0]])
    drawn = clouds.top_view(axes, points, np.array([50, 10, 30]))
    assert drawn.get_array().tolist() == [10, 30, 50]
    assert drawn.get_offsets()[-1].tolist() == [0, 0]


def test_the_outline_of_a_box_encloses_exactly_the_points_in_the_box():
    from matplotlib.path import Path

    _, axes = plt.subplots()
    box = Box("car", (3.0, -2.0, 0.0), (4.0, 1.8, 1.5), 0.6)
    clouds.draw_boxes(axes, [box])
    outline = Path(np.column_stack(axes.lines[0].get_data()))
    points = np.random.default_rng(0).uniform([-1, -6, 0.5], [7, 2, 0.6], (2000, 3))
    inside = points_in_box(points, box.centre, box.size, box.yaw)
    assert 50 < inside.sum() < 1950
    assert (outline.contains_points(points[:, :2]) == inside).all()


def test_turnable_view_stays_small_and_keeps_its_colours():
    points = np.random.default_rng(0).normal(size=(50_000, 3))
    figure = clouds.turnable(points, np.arange(50_000), "title", most=1000)
    assert len(figure.data[0].x) <= 1000
    assert figure.data[0].marker.color[1] == 50
    labels = clouds.cluster_colours(np.array([0, 1, 18]))
    assert (labels[0] == labels[2]).all()
    assert (labels[0] != labels[1]).any()
    colours = clouds.cluster_colours(np.arange(-1, 18))
    grey = np.ptp(colours[:, :3], axis=1) < 0.05
    assert grey.tolist() == [True] + [False] * 18
    coloured = clouds.turnable(points, labels[np.arange(50_000) % 3], "t", most=50_000).data[0].marker
    names = [name for _, name in coloured.colorscale]
    expected = [tuple((row[:3] * 255).round().astype(int)) for row in labels]
    for k in range(3):
        assert names[int(coloured.color[k])] == "rgb({},{},{})".format(*expected[k])


def test_a_map_shows_the_mean_of_each_cell_and_nothing_elsewhere():
    _, axes = plt.subplots()
    points = np.array([[0.1, 0.1, 0], [0.2, 0.3, 0], [2.5, 0.1, 0], [0.1, 1.5, 0], [1.3, 0.2, 0], [2.4, 0.2, 1]])
    shown = clouds.top_map(axes, points, np.array([1.0, 3.0, 5.0, 7.0, np.nan, np.nan]), 1.0).get_array()
    assert shown[0, 0] == 2.0
    assert shown[0, 2] == 5.0
    assert shown[1, 0] == 7.0
    hidden = np.ma.getmaskarray(shown)
    assert hidden[1, 1]
    assert hidden[0, 1], "a cell whose only point has no value shows none"
    grey = axes.images[0].get_array()
    assert grey[0, 1] == 0.75
    assert np.ma.getmaskarray(grey).sum() == grey.size - 1


def test_an_oblique_view_draws_what_is_nearer_to_the_eye_last():
    _, axes = plt.subplots()
    points = np.array([[5.0, 0, 0], [-5.0, 0, 0], [0, 3.0, 0], [0, 0, 2.0]])
    clouds.oblique_view(axes, points, np.arange(4.0), azimuth=0, elevation=0)
    (drawn,) = axes.collections
    assert drawn.get_array().tolist() == [1, 2, 3, 0]
    assert np.allclose(drawn.get_offsets()[[1, 2]], [[3, 0], [0, 2]])
