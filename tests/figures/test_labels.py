"""Names find free places: beside their points, within the axes, off each other, whatever becomes of the figure."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from papertwin.errors import InputError
from papertwin.figures import labels, use
from papertwin.figures.arrays import figure_arrays
from papertwin.figures.labels import place_labels


@pytest.fixture
def ax():
    with plt.style.context("default"):
        use()
        figure, axes = plt.subplots(figsize=(5, 3.5))
        yield axes
        plt.close(figure)


def boxes(found):
    """Box of the letters of each label, in pixels."""
    renderer = found[0].figure.canvas.get_renderer()
    return [Text.get_window_extent(label, renderer) for label in found]


def collisions(found, *marked):
    """Labels on labels, on markers, or out of their axes."""
    found[0].figure.canvas.draw()
    drawn = boxes(found)
    bad = [(a, b) for a in range(len(drawn)) for b in range(a) if drawn[a].overlaps(drawn[b])]
    for number, box in enumerate(drawn):
        for ax in marked:
            points = np.concatenate([line.get_transform().transform(line.get_xydata()) for line in ax.lines])
            bad += [(number, "marker") for x, y in points if box.contains(x, y)]
        whole = found[number].axes.bbox
        bad += [(number, "edge")] * (not (whole.x0 <= box.x0 and box.x1 <= whole.x1))
        bad += [(number, "edge")] * (not (whole.y0 <= box.y0 and box.y1 <= whole.y1))
    return bad


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("seed", range(4))
def test_names_of_a_crowd_keep_apart(ax, seed, scale):
    x, y = np.exp(np.random.default_rng(seed).normal(size=(2, 16)))
    ax.plot(x, y, "o")
    ax.set(xscale=scale, yscale=scale)
    found = place_labels(ax, x, y, [f"name {k}" for k in range(16)])
    assert collisions(found, ax) == []


def test_a_figure_that_changes_afterwards_gets_new_places(ax):
    x = np.linspace(0, 1, 6)
    ax.plot(x, x, "o")
    found = place_labels(ax, x, x, ["a rather long name"] * 6)
    assert collisions(found, ax) == []
    before = [label.xyann for label in found]
    ax.figure.set_size_inches(3, 2.6)
    ax.set(xlim=(-0.02, 1.02), title="a title", ylabel="another label")
    assert collisions(found, ax) == []
    assert [label.xyann for label in found] != before


def test_the_same_figure_gets_the_same_places_on_every_drawing(ax):
    x, y = np.random.default_rng(0).uniform(size=(2, 12))
    ax.plot(x, y, "o")
    found = place_labels(ax, x, y, [f"name {k}" for k in range(12)])
    pictures = []
    for _ in range(2):
        ax.figure.canvas.draw()
        pictures.append(np.array(ax.figure.canvas.buffer_rgba()))
    assert np.array_equal(*pictures), "the first drawing has them already"
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        ax.figure.savefig(file, dpi=150)
    assert files[0].getvalue() == files[1].getvalue()
    first = [label.xyann for label in found]
    ax.figure.canvas.draw()
    for (a, b), label in zip(first, found):
        assert label.xyann == pytest.approx((a, b), abs=1.5), "places do not depend on the resolution"


def test_a_free_point_is_named_at_its_right_and_one_at_the_edge_at_its_left(ax):
    ax.set(xlim=(0, 1), ylim=(0, 1))
    first, last = place_labels(ax, [0.3, 0.99], [0.5, 0.5], ["here", "edge"])
    ax.figure.canvas.draw()
    left, right = boxes([first, last])
    spot = ax.transData.transform([(0.3, 0.5), (0.99, 0.5)])
    gap = (left.x0 - spot[0, 0]) * 72 / ax.figure.dpi
    assert labels.STEPS[0] <= gap < labels.STEPS[0] + 2
    assert right.x1 < spot[1, 0]
    assert not first.arrow_patch.get_visible()


def test_lines_are_avoided_while_there_is_room(ax):
    ax.plot([0, 1], [0.5, 0.5])
    ax.vlines([0.5], 0, 0.5)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    (label,) = place_labels(ax, [0.5], [0.5], ["here"])
    ax.figure.canvas.draw()
    (box,) = boxes([label])
    middle = ax.transData.transform((0.5, 0.5))[1]
    assert box.y0 > middle


def test_a_label_is_nearer_to_its_own_point_than_to_another_while_there_is_room(ax):
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.figure.canvas.draw()
    (low, _), (high, _) = ax.transData.inverted().transform([(0, 0), (1, 0)])
    (label,) = place_labels(ax, [0.5], [0.5], ["a name"])
    ax.figure.canvas.draw()
    (box,) = boxes([label])
    neighbour = 0.5 + (high - low) * (box.width + 12 * ax.figure.dpi / 72)
    ax.plot([0.5, neighbour], [0.5, 0.5], "o")
    ax.figure.canvas.draw()
    spots = ax.transData.transform([(0.5, 0.5), (neighbour, 0.5)])
    (box,) = boxes([label])
    own, other = (np.hypot(*np.maximum(0, np.maximum(box.min - spot, spot - box.max))) for spot in spots)
    assert own < other - 5


def test_a_label_pushed_far_away_has_a_line_to_its_point(ax):
    ax.set(xlim=(0, 1), ylim=(0, 1))
    x, y = np.meshgrid(np.linspace(0.46, 0.54, 9), np.linspace(0.46, 0.54, 9))
    ax.plot(x.ravel(), y.ravel(), "o")
    (label,) = place_labels(ax, [0.5], [0.5], ["here"])
    ax.figure.canvas.draw()
    assert label.arrow_patch.get_visible()
    assert collisions([label], ax) == []


def test_labels_of_twins_and_other_words_are_in_each_others_way(ax):
    twin = ax.twinx()
    x = np.array([0.2, 0.5, 0.8])
    for each in (ax, twin):
        each.plot(x, [1, 1, 1], "o")
        each.set(xlim=(0, 1), ylim=(0, 2))
    ax.text(0.53, 1.0, "a word", va="center")
    found = place_labels(ax, x, [1, 1, 1], ["ours"] * 3) + place_labels(twin, x, [1, 1, 1], ["theirs"] * 3)
    assert collisions(found, ax, twin) == []
    word = ax.texts[0].get_window_extent()
    assert not any(box.overlaps(word) for box in boxes(found))
    assert len(ax.figure.artists) == 1, "one chooses for the whole figure"


def test_labels_are_texts_at_their_points_and_leave_the_layout_alone(ax):
    ax.plot([1, 2], [3, 4], "o")
    ax.figure.canvas.draw()
    before = ax.get_position().bounds
    found = place_labels(ax, [1, 2], [3, 4], ["a", ""], colours=["C1", "C2"])
    ax.figure.canvas.draw()
    assert ax.get_position().bounds == before
    assert [label.get_text() for label in found] == ["a"]
    assert found[0].get_color() == "C1"
    (said,) = [each for each in figure_arrays(ax.figure)[0]["series"] if each["kind"] == "text"]
    assert said["at"]["values"] == [1, 3]


def test_an_axes_that_was_cleared_has_no_labels_left(ax):
    place_labels(ax, [0.5], [0.5], ["gone"])
    ax.clear()
    (label,) = place_labels(ax, [0.5], [0.5], ["there"])
    ax.figure.canvas.draw()
    assert ax.texts[:] == [label]


def test_numbers_that_do_not_fit_are_refused(ax):
    with pytest.raises(InputError, match="equally many, got 2, 2, 1, 1"):
        place_labels(ax, [1, 2], [1, 2], ["a"])
    with pytest.raises(InputError, match="got 1, 1, 1, 2"):
        place_labels(ax, [1], [1], ["a"], colours=["C0", "C1"])
