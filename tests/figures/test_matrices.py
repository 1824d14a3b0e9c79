"""Panels of matrices: absolute values, lines between groups, and a colour bar that says what black is."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection

from papertwin.errors import InputError
from papertwin.figures import matrices, style
from papertwin.figures.arrays import figure_arrays


@pytest.fixture(autouse=True)
def _closed():
    """The house style; no figure is left open."""
    with plt.rc_context():
        style.use()
        yield
    plt.close("all")


def values(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def lines_of(ax):
    """Ends of the lines drawn in a panel."""
    return [
        segment.tolist()
        for each in ax.collections
        if isinstance(each, LineCollection)
        for segment in each.get_segments()
    ]


def test_a_panel_shows_absolute_values_from_white_to_black():
    ax = plt.figure().add_subplot()
    matrix = values(6, 4)
    image = matrices.covariance_panel(ax, matrix, title="root-2")
    assert np.array_equal(image.get_array(), np.abs(matrix))
    assert image.get_clim() == (0, np.abs(matrix).max())
    assert image.cmap(0.0)[:3] == (1, 1, 1)
    assert image.cmap(1.0)[:3] == (0, 0, 0)
    assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert ax.get_title(loc="left") == "root-2"
    assert lines_of(ax) == []


def test_lines_stand_where_the_groups_change_and_move_no_limit():
    ax = plt.figure().add_subplot()
    matrices.covariance_panel(ax, values(6, 4), title="", groups=2)
    assert lines_of(ax) == [[[-0.5, 2.5], [3.5, 2.5]], [[1.5, -0.5], [1.5, 5.5]]]
    assert ax.get_xlim() == (-0.5, 3.5)
    assert ax.get_ylim() == (5.5, -0.5)
    other = plt.figure().add_subplot()
    matrices.covariance_panel(other, values(5, 5), title="", groups=2)
    assert lines_of(other) == [[[-0.5, 2.5], [4.5, 2.5]], [[2.5, -0.5], [2.5, 4.5]]]
    one = plt.figure().add_subplot()
    matrices.covariance_panel(one, values(5, 5), title="", groups=1)
    assert lines_of(one) == []


def test_a_largest_value_may_be_given_and_zeros_are_white():
    ax = plt.figure().add_subplot()
    assert matrices.covariance_panel(ax, values(3, 3), title="", largest=0.2).get_clim() == (0, 0.2)
    zeros = matrices.covariance_panel(ax, np.zeros((3, 3)), title="")
    assert zeros.to_rgba(zeros.get_array())[..., :3].min() == 1


def grid(scale, **options):
    rows = [[values(6, 4), 3 * values(4, 4, 1)], [None, values(8, 8, 2)]]
    figure = matrices.covariance_grid(rows, ["plain", "root-4"], ["a", "b"], scale=scale, **options)
    return rows, figure.axes[:4], figure.axes[4], figure


def test_one_scale_for_all():
    rows, axes, bar, _ = grid("shared", label="|Σ|")
    largest = max(np.abs(each).max() for row in rows for each in row if each is not None)
    assert [ax.images[0].get_clim() for ax in axes if ax.images] == [(0, largest)] * 3
    assert bar.get_ylabel() == "|Σ|, one scale"
    assert bar.get_ylim() == pytest.approx((0, largest))
    assert [ax.get_xlabel() for ax in axes] == [""] * 4


def test_own_scales_say_what_black_is():
    rows, axes, bar, _ = grid("own", label="|Σ|")
    due = [np.abs(each).max() if each is not None else None for row in rows for each in row]
    assert [ax.images[0].get_clim()[1] if ax.images else None for ax in axes] == due
    assert [ax.get_xlabel() for ax in axes] == [f"black: {each:.2g}" if each else "" for each in due]
    assert bar.get_ylabel() == "|Σ| / largest of the panel"
    assert bar.get_ylim() == pytest.approx((0, 1))


def test_names_titles_places_and_groups():
    _, axes, _, figure = grid("shared", groups=[[2, None], [None, 4]])
    assert [ax.get_title(loc="left") for ax in axes] == ["a", "b", "", ""]
    assert [ax.get_ylabel() for ax in axes] == ["plain", "", "root-4", ""]
    assert [len(lines_of(ax)) for ax in axes] == [2, 0, 0, 6]
    assert not axes[2].images
    figure.canvas.draw()
    frames = [ax.get_window_extent() for ax in figure.axes]
    assert not any(a.overlaps(b) for k, a in enumerate(frames) for b in frames[:k])
    for frame, ax in zip(frames[:4], axes):
        if ax.images:
            assert frame.width == pytest.approx(frame.height, rel=0.02)  # squares, whatever the counts


def test_the_data_file_holds_the_values_that_were_drawn():
    rows, _, _, figure = grid("shared")
    stored = figure_arrays(figure)[0]["series"][0]
    assert stored["kind"] == "image"
    np.testing.assert_allclose(np.reshape(stored["data"]["values"], (6, 4)), np.abs(rows[0][0]), rtol=1e-8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: matrices.covariance_panel(plt.figure().add_subplot(), values(3, 3), title="", groups=4),
        lambda: matrices.covariance_panel(plt.figure().add_subplot(), values(3, 3), title="", largest=0),
        lambda: grid("row"),
        lambda: matrices.covariance_grid([[None]], ["a"], ["b"]),
        lambda: matrices.covariance_grid([[values(2, 2)]], ["a"], ["b", "c"]),
        lambda: matrices.covariance_grid([[values(2, 2)]], ["a", "b"], ["b"]),
        lambda: matrices.covariance_grid([[values(2, 2)]], ["a"], ["b"], groups=[[]]),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match="got"):
        call()
