"""Image galleries: each picture in its place, as it is, with its words next to it."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from papertwin.figures import pictures, style

TITLES = ("original", "LP", "difference, LP")


@pytest.fixture(autouse=True)
def _closed():
    """Leave no figure open."""
    yield
    plt.close("all")


def grey(seed: int) -> np.ndarray:
    """A random grey image, (1, 5, 4)."""
    return np.random.default_rng(seed).random((1, 5, 4))


@pytest.fixture
def drawn():
    """Axes of two rows, three columns: the second row's witness was not found."""
    first, second = grey(0), grey(1)
    rows = [[first, second, second - first], [grey(2), None, None]]
    captions = [["label 3", "label 8", "max 0.05"], ["label 4", "none", ""]]
    figure = pictures.gallery(rows, ["MLP", "LeNet"], TITLES, captions)
    return np.array(figure.axes).reshape(2, 3), rows


def image_of(ax):
    """The only image in its place."""
    (image,) = ax.images
    return image


def test_one_place_an_image_in_rows_and_columns(drawn):
    axes, rows = drawn
    boxes = np.array([[ax.get_position().get_points().mean(0) for ax in line] for line in axes])
    assert (np.diff(boxes[:, :, 0], axis=1) > 0).all(), "columns go to the right"
    assert (np.diff(boxes[:, :, 1], axis=0) < 0).all(), "rows go down"
    for line, images in zip(axes, rows):
        for ax, image in zip(line, images):
            assert len(ax.images) == (image is not None)
            assert len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert np.array_equal(image_of(axes[0, 1]).get_array(), rows[0][1][0])
    assert np.array_equal(image_of(axes[1, 0]).get_array(), rows[1][0][0])


def test_none_leaves_its_place_empty_but_keeps_its_caption(drawn):
    axes, _ = drawn
    framed = [[any(spine.get_visible() for spine in ax.spines.values()) for ax in line] for line in axes]
    assert framed == [[True, True, True], [True, False, False]]
    assert [ax.get_xlabel() for ax in axes[1]] == ["label 4", "none", ""]
    assert not axes[1, 1].lines
    assert not axes[1, 1].texts


def test_originals_are_drawn_from_white_to_black_over_the_whole_range(drawn):
    axes, _ = drawn
    for ax in (axes[0, 0], axes[0, 1], axes[1, 0]):
        assert image_of(ax).get_clim() == (0, 1)
        assert image_of(ax).cmap(0.0)[:3] == (1, 1, 1)
        assert image_of(ax).cmap(1.0)[:3] == (0, 0, 0)


def test_a_faint_image_stays_faint():
    faint = 0.1 * grey(0)
    figure = pictures.gallery([[faint]], ["a"], ["original"], [["b"]])
    image = image_of(figure.axes[0])
    shades = image.to_rgba(image.get_array())[..., :3]
    assert shades.min() > 0.85


def test_differences_are_white_at_none_red_above_and_blue_below(drawn):
    axes, rows = drawn
    image = image_of(axes[0, 2])
    assert np.array_equal(image.get_array(), rows[0][2][0])
    end = np.abs(rows[0][2]).max()
    assert image.get_clim() == (-end, end)
    more, less, same = image.to_rgba(np.array([[0.9 * end, -0.9 * end, 0.0]]))[0, :, :3]
    assert more[0] > more[2] + 0.2
    assert less[2] > less[0] + 0.2
    assert same.min() > 0.95


def test_differences_of_a_row_have_one_scale_and_rows_have_their_own():
    """The largest change in a row, of either sign, gives both ends; originals and empty places have no say."""
    titles = ("original", "difference, LP", "difference, L-BFGS-B")
    change = np.zeros((1, 5, 4))
    small, large, weak = (change.copy() for _ in range(3))
    small[0, 1, 2], large[0, 0, 0], weak[0, 2, 2] = 0.1, -0.4, 0.02
    rows = [[grey(0), small, large], [grey(1), None, weak], [grey(2), None, None]]
    axes = np.array(pictures.gallery(rows, "abc", titles, [["", "", ""]] * 3).axes).reshape(3, 3)
    assert [image_of(ax).get_clim() for ax in axes[0]] == [(0, 1), (-0.4, 0.4), (-0.4, 0.4)]
    assert image_of(axes[1, 2]).get_clim() == (-0.02, 0.02)
    assert not axes[2, 1].images


def test_the_title_alone_says_what_is_a_difference():
    image = 0.25 * np.ones((1, 5, 4))
    figure = pictures.gallery([[image, image]], ["a"], ["L-BFGS-B", "difference, L-BFGS-B"], [["", ""]])
    assert [image_of(ax).get_clim() for ax in figure.axes] == [(0, 1), (-0.25, 0.25)]


def test_colour_images_are_drawn_channel_last_and_their_differences_as_the_mean():
    colour = np.random.default_rng(0).random((3, 6, 4))
    change = np.random.default_rng(1).uniform(-0.2, 0.2, (3, 6, 4))
    figure = pictures.gallery([[colour, colour, change]], ["NiN"], TITLES, [["a", "b", "c"]])
    shown = image_of(figure.axes[0]).get_array()
    assert shown.shape == (6, 4, 3)
    for channel in range(3):
        assert np.array_equal(shown[..., channel], colour[channel])
    difference = image_of(figure.axes[2]).get_array()
    assert np.allclose(difference, change.mean(0))


def test_titles_stand_above_the_first_row_only_and_names_left_of_the_first_column_only(drawn):
    axes, _ = drawn
    assert [ax.get_title() for ax in axes[0]] == list(TITLES)
    assert [ax.get_title(loc) for ax in axes[1] for loc in ("left", "center", "right")] == [""] * 9
    assert [[ax.get_ylabel() for ax in line] for line in axes] == [["MLP", "", ""], ["LeNet", "", ""]]
    assert [ax.get_xlabel() for ax in axes[0]] == ["label 3", "label 8", "max 0.05"]


def test_words_stand_beside_their_image_and_touch_no_other():
    with plt.rc_context():
        style.use()
        rows = [[grey(0), grey(1), grey(2)]] * 3
        captions = [["label 3", "label 8", "max 0.053"]] * 3
        figure = pictures.gallery(rows, ["MLP", "MLP", "LeNet"], TITLES, captions)
        figure.canvas.draw()
    axes = np.array(figure.axes).reshape(3, 3)
    frames = [ax.get_window_extent() for ax in axes.flat]
    for ax, frame in zip(axes.flat, frames):
        caption = ax.xaxis.label.get_window_extent()
        assert caption.y1 <= frame.y0 + 1
        assert abs((caption.x0 + caption.x1) / 2 - (frame.x0 + frame.x1) / 2) < 1
        assert not any(caption.overlaps(other) for other in frames)
    for line in axes:
        assert line[0].yaxis.label.get_window_extent().x1 <= line[0].get_window_extent().x0 + 1
    for ax in axes[0]:
        assert ax.title.get_window_extent().y0 >= ax.get_window_extent().y1 - 1


@pytest.mark.parametrize("count", [1, 4])
def test_the_figure_grows_with_its_rows_and_columns(count):
    rows, captions = [[grey(0)] * 2] * count, [["", ""]] * count
    small, large = (pictures.gallery(rows, ["a"] * count, ["b", "c"], captions, size=size) for size in (1.0, 2.0))
    assert len(small.axes) == 2 * count
    assert (large.get_size_inches() - small.get_size_inches()).tolist() == pytest.approx([2, count])
