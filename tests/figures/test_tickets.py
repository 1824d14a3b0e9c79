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


def test_a_plane_names_its_networks_where_they_are(ax):
    plane = SimpleNamespace(xs=GRID, ys=GRID, errors=np.outer(GRID, GRID), corners=((0, 0), (2, 0), (1, 3)))
    drawn = tickets.plane_panel(ax, plane, ("A", "B", "C"), "plane", [0, 1, 2])
    assert texts(ax) == ["A", "B", "C"]
    assert [text.xy for text in ax.texts] == [(0, 0), (2, 0), (1, 3)]
    assert list(drawn.levels) == [0, 1, 2]


def test_a_line_has_the_range_behind_it(ax):
    table = pd.DataFrame({"mean": [1.0, 2.0], "min": [0.0, 1.0], "max": [2.0, 4.0]}, index=[0.0, 1.0])
    tickets.band_line(ax, table, "C0", "--", "name")
    (line,) = ax.lines
    assert line.get_ydata().tolist() == [1, 2]
    assert (line.get_linestyle(), line.get_label()) == ("--", "name")
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == 4
