"""The arrays stored beside a figure hold what it shows, as standard JSON."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from papertwin.figures.arrays import SAMPLE, figure_arrays, pack


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def series(axes) -> list[dict]:
    """What is stored of an axes, after a round trip through JSON that knows no NaN and no infinity."""
    (stored,) = json.loads(json.dumps(figure_arrays(axes.figure), allow_nan=False))
    return stored["series"]


def test_lines_and_coloured_points(axes):
    axes.plot([0, 1, 2], [1.0, 4.0, np.nan], label="squares")
    axes.scatter([1, 2], [3, 4], c=[0.1, 0.9])
    axes.set_title("left", loc="left")
    line, points = series(axes)
    assert line == {
        "kind": "line",
        "label": "squares",
        "x": {"shape": [3], "values": [0, 1, 2]},
        "y": {"shape": [3], "values": [1.0, 4.0, None]},
    }
    assert points["value"]["values"] == [0.1, 0.9]
    assert figure_arrays(axes.figure)[0]["title"] == "left"


def test_every_kind_of_artist(axes):
    axes.imshow(np.arange(6).reshape(2, 3))
    axes.quiver([0, 1], [0, 1], [1, 0], [0, 1])
    axes.bar([0, 1], [5, 6])
    axes.fill_between([0, 1], [0, 0], [1, 2])
    axes.vlines([0.5], 0, 1)
    axes.pcolormesh(np.ones((2, 2)))
    axes.text(0, 0, "here")
    kinds = sorted(each["kind"] for each in series(axes))
    assert kinds == ["area", "arrows", "image", "mesh", "patch", "patch", "segments", "text"]
    arrows = next(s for s in series(axes) if s["kind"] == "arrows")
    assert arrows["u"]["values"] == [1, 0]
    bars = [s for s in series(axes) if s["kind"] == "patch"]
    assert max(bars[1]["vertices"]["values"]) == 6


@pytest.mark.parametrize("place", [(0, 0), (2, 3)])
def test_a_lone_point_is_a_point_wherever_it_lies(axes, place):
    axes.scatter(*place)
    (point,) = series(axes)
    assert (point["kind"], point["x"]["values"], point["y"]["values"]) == ("points", [place[0]], [place[1]])


def test_a_scatter_of_nothing_is_stored_as_no_points(axes):
    axes.scatter([], [])
    (points,) = series(axes)
    assert (points["kind"], points["x"]["shape"]) == ("points", [0])


def test_points_with_a_colour_each_keep_them(axes):
    axes.scatter([0, 1], [0, 1], c=["red", "blue"])
    axes.scatter([0, 1], [0, 1], c="red")
    own, common = series(axes)
    assert own["colour"] == {"shape": [2, 4], "values": [1, 0, 0, 1, 0, 0, 1, 1]}
    assert "colour" not in common


def test_an_image_knows_where_it_lies(axes):
    axes.imshow(np.eye(2), extent=(-3, 5, 10, 20), origin="lower")
    axes.imshow(np.eye(2))
    placed, plain = (image["extent"]["values"] for image in series(axes))
    assert placed == [-3, 5, 10, 20]
    assert plain == [-0.5, 1.5, 1.5, -0.5]


def test_texts_are_stored_with_the_point_that_they_name(axes):
    axes.text(0.25, 4, "road")
    axes.annotate("0.71", (7, 8), xytext=(0, 2), textcoords="offset points")
    axes.annotate("", (1, 1), xytext=(2, 2), arrowprops={"arrowstyle": "->"})
    axes.text(1, 1, "  ")
    assert [(text["text"], text["at"]["values"]) for text in series(axes)] == [("road", [0.25, 4]), ("0.71", [7, 8])]


def test_a_text_on_an_axis_of_names_is_stored_by_its_number(axes):
    axes.bar(["cars", "poles"], [1, 2])
    axes.text("poles", 2, "best")
    assert series(axes)[-1]["at"]["values"] == [1, 2]


def test_the_third_coordinate_is_stored():
    figure = plt.figure()
    axes = figure.add_subplot(projection="3d")
    axes.plot([0, 1], [2, 3], [4, 5])
    axes.scatter([0, 1, 2], [3, 4, 5], [8, 7, 6])
    figure.canvas.draw()  # drawing replaces the coordinates in the artists by projected ones
    line, points = series(axes)
    plt.close(figure)
    assert [line[name]["values"] for name in "xyz"] == [[0, 1], [2, 3], [4, 5]]
    assert [points[name]["values"] for name in "xyz"] == [[0, 1, 2], [3, 4, 5], [8, 7, 6]]


def test_infinities_and_nan_stay_apart_in_standard_json():
    packed = pack(np.array([1.5, np.inf, -np.inf, np.nan]))
    assert packed["values"] == [1.5, "inf", "-inf", None]
    long = pack(np.concatenate(([np.inf, np.nan], np.ones(4 * SAMPLE))))
    assert long["sum"] == 4 * SAMPLE
    json.dumps([packed, long], allow_nan=False)


def test_masked_entries_count_as_nan():
    assert pack(np.ma.masked_greater([1.0, 9.0], 5)) == {"shape": [2], "values": [1.0, None]}


def test_long_arrays_are_sampled_but_every_value_counts_in_the_sum():
    values = np.arange(10 * SAMPLE, dtype=float)
    packed = pack(values)
    assert packed["shape"] == [10 * SAMPLE]
    assert len(packed["values"]) == SAMPLE
    assert packed["values"][1] == packed["every"] == 10
    changed = values.copy()
    changed[3] += 1e6
    assert pack(changed)["sum"] != packed["sum"]
