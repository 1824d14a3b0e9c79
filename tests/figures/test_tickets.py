"""Diagrams of lottery tickets: what stands where, from what is given."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from papertwin.figures import tickets

GRID = np.linspace(-1, 3, 5)
TOY = SimpleNamespace(
    grid=GRID,
    losses=np.square(GRID)[:, None] + np.square(GRID)[None] * 2,
    paths={"LTH": np.array([[1.0, 0.0], [2.0, 0.0]]), "dense A": np.array([[1.0, 0.5], [2.0, -0.5]])},
    last={"LTH": 0.18, "dense A": 1e-9},
)


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_landscape_names_its_trainings_with_their_loss(ax):
    tickets.landscape_panel(ax, TOY, ("LTH", "dense A"), "two")
    assert texts(ax) == ["LTH: loss 0.18", "dense A: loss 0"]
    assert ax.get_title(loc="left") + ax.get_title() == "two"


def test_only_a_path_along_an_axis_highlights_it(ax):
    tickets.landscape_panel(ax, TOY, ("dense A",), "")
    assert not [line for line in ax.lines if line.get_linewidth() == 5]
    tickets.landscape_panel(ax, TOY, ("LTH",), "")
    (wide,) = [line for line in ax.lines if line.get_linewidth() == 5]
    assert set(wide.get_ydata()) == {0}


def test_the_pipeline_ends_in_three_trainings(ax):
    tickets.pipeline(ax)
    assert [each for each in texts(ax) if "with" in each] == [
        "LTH:  $A_k$ with $m$",
        "naive:  $B_k$ with $m$",
        "permuted:  $B_k$ with $\\pi(m)$",
    ]


def test_matrices_stand_under_their_names():
    figure, axes = plt.subplots(2, 1)
    matrix = np.arange(6.0).reshape(2, 3)
    tickets.matrix_rows(axes, {"one": matrix, "none": np.zeros((2, 3))})
    assert [ax.get_ylabel() for ax in axes] == ["one", "none"]
    assert np.array_equal(axes[0].images[0].get_array(), matrix)
    assert axes[1].images[0].get_clim() == (0, 1)
    plt.close(figure)


def test_planes_name_their_networks_where_they_are():
    plane = SimpleNamespace(xs=GRID, ys=GRID, errors=np.outer(GRID, GRID), corners=((0, 0), (2, 0), (1, 3)))
    other = SimpleNamespace(**{**vars(plane), "xs": GRID[1:], "errors": plane.errors[:, 1:]})
    figure, axes = plt.subplots(1, 2)
    tickets.plane_panels(axes, {"one": plane, "two": other}, (("A", "B", "C"), ("D", "B", "E")), [0, 1, 2])
    assert [texts(ax) for ax in axes] == [["A", "B", "C"], ["D", "B", "E"]]
    assert [text.xy for text in axes[0].texts] == [(0, 0), (2, 0), (1, 3)]
    assert [ax.get_xlim() for ax in axes] == [(0, 3)] * 2  # what both have
    assert [ax.get_ylim() for ax in axes] == [(-1, 3)] * 2
    assert axes[1].get_xlabel() == "Euclidean distance, all weights, from D towards B"
    assert len(figure.axes) == 3  # one colour bar
    plt.close(figure)


@pytest.mark.parametrize(("ours", "above"), [((81, 84), True), ((86, 89), False)])
def test_published_points_keep_the_scale_and_hide_nothing(ax, ours, above):
    ax.plot([0, 1], ours)
    ax.set_ylim(80, 90)
    tickets.published_box(ax, {"LTH": 95.0, "naive": 92.0, "permuted": 94.5}, "paper")
    own = ax.figure.axes[-1]
    assert np.ptp(own.get_ylim()) == np.ptp(ax.get_ylim())
    assert {line.get_label(): float(line.get_ydata()[0]) for line in own.lines} == {
        "naive": 92.0,
        "permuted": 94.5,
        "LTH": 95.0,
    }
    assert len({line.get_marker() for line in own.lines}) == 3
    assert {"LTH 95", "permuted 94.5", "naive 92", "paper"} == set(texts(own))
    (frame,) = own.patches
    shift = own.get_ylim()[0] - 80
    low, high = frame.get_y() - shift, frame.get_y() + frame.get_height() - shift
    assert 80 < low < high < 90
    assert low > ours[1] if above else high < ours[0]


def test_heights_are_spread_only_as_far_as_needed():
    assert tickets.spread([1.0, 2.0, 4.0], 1.0).tolist() == [1, 2, 4]
    found = tickets.spread([1.0, 1.0, 1.5], 1.0)
    assert np.diff(found).tolist() == [1, 1]
    assert found.mean() == 1.25


def test_lines_between_networks_are_dashed_or_solid_each_with_a_name():
    table = pd.DataFrame({"mean": [1.0, 2.0], "min": [0.0, 1.0], "max": [2.0, 4.0]}, index=[0.0, 1.0])
    figure, axes = plt.subplots(1, 2)
    plain = SimpleNamespace(colour=0, renumbered=False, loss=table, accuracy=10 * table)
    tickets.between(
        axes, {"plain": plain, "moved": SimpleNamespace(**{**vars(plain), "colour": 2, "renumbered": True})}
    )
    assert [(line.get_linestyle(), line.get_color()) for line in axes[0].lines] == [("--", "C0"), ("-", "C2")]
    assert axes[1].lines[0].get_ydata().tolist() == [10, 20]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "moved"]
    plt.close(figure)


def test_a_line_has_the_range_behind_it(ax):
    table = pd.DataFrame({"mean": [1.0, 2.0], "min": [0.0, 1.0], "max": [2.0, 4.0]}, index=[0.0, 1.0])
    tickets.band_line(ax, table, "C0", "--", "name")
    (line,) = ax.lines
    assert line.get_ydata().tolist() == [1, 2]
    assert (line.get_linestyle(), line.get_label()) == ("--", "name")
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == 4
