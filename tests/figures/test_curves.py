"""Lines over seeds show what their tables hold: means, ranges, levels, places, names beside their ends."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.text import Annotation

from papertwin.errors import InputError
from papertwin.figures import curves, style

ROWS = [(0.8, 84.0, 82.0, 85.0), (0.9, 80.0, 79.0, 83.0), (0.99, 60.0, 50.0, 66.0)]
LOWER = [(0.8, 74.0, 72.0, 79.0), (0.99, 30.0, 20.0, 33.0)]


def table(rows):
    return pd.DataFrame(rows, columns=["at", "mean", "min", "max"]).set_index("at")


THREE = {"RigL": table(ROWS), "dense": table([(0.0, 90.0, 88.0, 91.0)]), "SET": table(LOWER)}


@pytest.fixture
def ax():
    """Axes in the house style; no figure is left open."""
    with plt.rc_context():
        style.use()
        yield plt.subplots(figsize=(8, 4.4))[1]
    plt.close("all")


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def bars(ax):
    """Of each line with bars, in order: where they stand, from where, to where."""
    found = [each.get_segments() for each in ax.collections if isinstance(each, LineCollection)]
    return [[(start[0], start[1], end[1]) for start, end in segments] for segments in found]


def names(ax):
    return {text.get_text(): text for text in ax.texts if isinstance(text, Annotation)}


def heights(ax):
    """Of the names, as shares of the axes, from the lowest to the highest."""
    return {name: text.xy[1] for name, text in sorted(names(ax).items(), key=lambda each: each[1].xy[1])}


def height(ax, value):
    """Of a value, as a share of the axes, on a linear scale."""
    low, high = ax.get_ylim()
    return (value - low) / (high - low)


def test_a_line_is_the_mean_and_a_bar_the_range_of_the_seeds(ax):
    curves.seed_curves(ax, THREE, levels=["dense"])
    drawn = lines(ax)
    assert list(drawn) == ["RigL", "dense", "SET"]
    assert drawn["RigL"].get_ydata().tolist() == [84, 80, 60]
    assert drawn["SET"].get_ydata().tolist() == [74, 30]
    for name, rows in (("RigL", ROWS), ("SET", LOWER)):
        np.testing.assert_allclose(drawn[name].get_xdata(), [row[0] for row in rows], atol=0.02 * 0.19)
        assert drawn[name].get_marker() == "o"
    assert [[bar[1:] for bar in each] for each in bars(ax)] == [[row[2:] for row in rows] for rows in (ROWS, LOWER)]
    for each, name in zip(bars(ax), ("RigL", "SET")):
        assert [bar[0] for bar in each] == drawn[name].get_xdata().tolist()
    assert drawn["RigL"].get_xdata()[0] != drawn["SET"].get_xdata()[0], "bars stand beside each other"


def test_a_level_is_a_line_across_the_axes_whatever_its_index(ax):
    more = THREE | {"bound": table([(0.7, 40.0, 1.0, 99.0), (0.8, 44.0, 2.0, 98.0)])}
    curves.seed_curves(ax, more, places=[0.8, 0.9, 0.99], levels=["bound", "dense"])
    for name, value in (("dense", 90), ("bound", 40)):
        level = lines(ax)[name]
        assert level.get_ydata() == [value, value]
        assert level.get_xdata() == [0, 1]
        assert level.get_transform() == ax.get_yaxis_transform(which="grid"), "from the left of the axes to their right"
        assert level.get_linestyle() == "--"
    assert lines(ax)["RigL"].get_linestyle() == "-"
    assert len(bars(ax)) == 2
    assert heights(ax)["bound"] == pytest.approx(height(ax, 40))


def test_a_table_of_one_row_is_a_point_with_its_range(ax):
    curves.seed_curves(ax, {"SET": table(LOWER), "one": table(ROWS[1:2])}, places=[0.8, 0.9, 0.99])
    np.testing.assert_array_equal(lines(ax)["one"].get_ydata(), [np.nan, 80, np.nan])
    np.testing.assert_allclose(lines(ax)["one"].get_xdata()[1], 1, atol=0.06)
    assert [bar[1:] for bar in bars(ax)[1]] == [(79, 83)]


def test_bars_of_lines_stand_beside_each_other_at_equal_distances(ax):
    given = {"long": table(ROWS), "ends": table(LOWER), "one": table(ROWS[:1])}
    curves.seed_curves(ax, given, places=[0.8, 0.9, 0.99])
    first = np.array([line.get_xdata()[0] for line in ax.lines])  # of each line, all at the first place
    np.testing.assert_allclose(np.diff(first), 0.005 * 2)
    assert abs(first).max() < 0.05


def test_levels_alone_can_be_drawn(ax):
    curves.seed_curves(ax, {"dense": THREE["dense"]}, levels=["dense"])
    assert [line.get_ydata() for line in ax.lines] == [[90, 90]]


def test_places_stand_at_equal_distances_in_their_order(ax):
    curves.seed_curves(ax, THREE, places=[0.99, 0.95, 0.9, 0.8], levels=["dense"])
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["RigL"].get_ydata(), [60, np.nan, 80, 84])
    np.testing.assert_array_equal(drawn["SET"].get_ydata(), [30, np.nan, np.nan, 74], "no line across what is missing")
    shifts = [drawn[name].get_xdata() - np.arange(4) for name in ("SET", "RigL")]
    assert len({round(shift, 9) for shift in np.ravel(shifts)}) == 2, "lines are shifted as a whole"
    assert np.abs(shifts).max() < 0.06
    assert [[round(bar[0]) for bar in each] for each in bars(ax)] == [[0, 2, 3], [0, 3]]
    assert heights(ax)["SET"] == pytest.approx(height(ax, 74)), "where the line ends"
    assert ax.get_xticks().tolist() == [0, 1, 2, 3]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0.99", "0.95", "0.9", "0.8"]


def test_points_of_one_place_stand_on_it_if_they_are_not_to_stand_beside_each_other(ax):
    curves.seed_curves(ax, {"RigL": table(ROWS), "SET": table(LOWER)}, beside=False)
    assert lines(ax)["RigL"].get_xdata().tolist() == [0.8, 0.9, 0.99]
    assert [[bar[0] for bar in each] for each in bars(ax)] == [[0.8, 0.9, 0.99], [0.8, 0.99]]


def test_without_places_the_index_is_the_axis(ax):
    curves.seed_curves(ax, {"one": table(ROWS)})
    ax.figure.canvas.draw()
    assert [text.get_text() for text in ax.get_xticklabels()] != ["0.8", "0.9", "0.99"]
    assert ax.get_xlim()[1] - ax.get_xlim()[0] < 0.25


def test_colours_are_those_of_the_style_or_what_is_asked_for(ax):
    many = {f"line {number}": table([(x, y + number, y, y + 9) for x, y, *_ in ROWS]) for number in range(8)}
    curves.seed_curves(ax, many)
    drawn = lines(ax)
    assert [line.get_color() for line in drawn.values()] == [*(f"C{number}" for number in range(7)), "C0"]
    assert {name: text.get_color() for name, text in names(ax).items()} == {
        name: line.get_color() for name, line in drawn.items()
    }
    other = plt.subplots()[1]
    curves.seed_curves(other, THREE, colours={"SET": "black", "dense": "0.5"})
    assert [line.get_color() for line in other.lines] == ["C0", "0.5", "black"]
    assert {name: text.get_color() for name, text in names(other).items()} == {
        **{"RigL": "C0", "dense": "0.5", "SET": "black"}
    }


def test_names_stand_at_the_right_beside_the_ends_of_their_lines(ax):
    ax.set_ylim(0, 100)
    curves.seed_curves(ax, THREE, places=[0.8, 0.9, 0.99], levels=["dense"])
    assert heights(ax) == pytest.approx({"SET": 0.3, "RigL": 0.6, "dense": 0.9})
    assert list(heights(ax)) == ["SET", "RigL", "dense"]
    ax.figure.canvas.draw()
    right = ax.get_window_extent().x1
    assert all(text.get_window_extent().x0 > right for text in names(ax).values())
    other = plt.subplots()[1]
    curves.seed_curves(other, THREE, names=False)
    assert not other.texts


def test_names_follow_the_scale(ax):
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(-10, 10)
    curves.seed_curves(ax, {"far": table([(0.8, -1, -1, -1), (0.9, -10, -10, -10)]), "none": table([(0.9, 0, 0, 0)])})
    assert heights(ax) == pytest.approx({"far": 0, "none": 0.5})


def test_names_follow_the_limits_that_the_lines_make(ax):
    curves.seed_curves(ax, THREE)
    assert ax.get_ylim() != (0, 100)
    assert heights(ax) == pytest.approx({n: height(ax, y) for n, y in (("SET", 30), ("RigL", 60), ("dense", 90))})


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("number", [2, 5, 8])
def test_names_of_lines_that_end_together_do_not_lie_on_each_other(ax, number, spread):
    ends = [50 + spread * place for place in range(number)]
    drawn = {f"SRigL {end:g}, {n}": table([(0.8, 90, 90, 90), (0.9, end, 10, 95)]) for n, end in enumerate(ends)}
    ax.set_ylim(0, 100)
    curves.seed_curves(ax, drawn)
    ax.figure.canvas.draw()
    placed = list(heights(ax).items())
    assert [name for name, _ in placed] == list(drawn), "in the order of the ends"
    boxes = [names(ax)[name].get_window_extent() for name, _ in placed]
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
    assert np.mean([height for _, height in placed]) == pytest.approx(np.mean(ends) / 100)
    assert placed[-1][1] - placed[0][1] <= 0.056 * (number - 1), "no farther than they must"


@pytest.mark.parametrize(
    ("given", "places", "message"),
    [
        ({}, None, "curves must have tables with rows and the columns mean, min, max, at least one table"),
        ({"a": table(ROWS), "b": table(ROWS).drop(columns="min")}, None, "curves must have tables"),
        ({"a": table(ROWS), "b": table([])}, None, "curves must have tables"),
        (THREE, [0.8, 0.99], r"places lacks \[0.9\], at which there are points; got \[0.8, 0.99\]"),
        (THREE, [], r"places lacks \[0.8, 0.9, 0.99\]"),
        ({"RigL": table(ROWS[:1])}, [0.9], r"places lacks \[0.8\]"),
    ],
)
def test_what_cannot_be_drawn_is_refused(ax, given, places, message):
    with pytest.raises(InputError, match=message):
        curves.seed_curves(ax, given, places=places, levels=["dense"])
    assert not ax.lines
