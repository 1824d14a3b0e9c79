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
    labels = clouds.cluster_colours(np.array([0, 1, 20]))
    assert (labels[0] == labels[2]).all()
    assert (labels[0] != labels[1]).any()
    assert clouds.turnable(points, np.tile(labels[:1], (50_000, 1)), "t").data[0].marker.color[0].startswith("rgb(")
