"""Pictures of filters hold the weights: each in its place, all on one scale, parted where groups change."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from papertwin.errors import InputError
from papertwin.figures import filters
from papertwin.figures.arrays import figure_arrays
from papertwin.nets import Composite
from papertwin.nets.equivalent import joined_kernels


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def weights(count, channels, high, wide, seed=0):
    return np.random.default_rng(seed).normal(size=(count, channels, high, wide)).astype(np.float32)


@pytest.mark.parametrize(("count", "high", "wide", "columns"), [(7, 5, 5, 3), (4, 3, 1, 4), (5, 1, 3, 1)])
def test_grey_filters_lie_row_by_row_with_gaps_between(ax, count, high, wide, columns):
    each = weights(count, 1, high, wide)
    image = filters.filter_mosaic(ax, each, columns=columns)
    shown, seen = image.get_array(), 0
    for number in range(count):
        row, column = divmod(number, columns)
        piece = shown[row * (high + 1) :, column * (wide + 1) :][:high, :wide]
        assert np.array_equal(piece, each[number, 0])
        seen += piece.size
    assert shown.count() == seen, "everything else is masked"
    most = np.abs(each).max()
    assert image.get_clim() == pytest.approx((-most, most))
    assert ax.get_xlabel() == f"{count} filters {high}×{wide}\nblack −{most:.2g}, white {most:.2g}"


def test_colours_are_symmetrical_about_half(ax):
    each = weights(6, 3, 3, 3)
    shown = np.asarray(filters.filter_mosaic(ax, each, columns=3).get_array())
    assert shown.shape == (2 * 4 - 1, 3 * 4 - 1, 3)
    flipped = np.asarray(filters.filter_mosaic(ax, -each, columns=3).get_array())
    piece, opposite = shown[4:7, 4:7], flipped[4:7, 4:7]
    np.testing.assert_allclose(piece + opposite, 1, atol=1e-6)
    np.testing.assert_allclose(piece, 0.5 + 0.5 * each[4].transpose(1, 2, 0) / np.abs(each).max(), atol=1e-6)
    assert (shown[3] == 1).all(), "gaps are white"
    assert {float(shown.min()), float(shown.max())} & {0.0, 1.0}


def test_a_given_scale_holds_for_several_mosaics_and_cuts_what_is_larger(ax):
    each = weights(4, 3, 2, 2)
    shown = np.asarray(filters.filter_mosaic(ax, each, columns=4, largest=0.1).get_array())
    assert (shown.min(), shown.max()) == (0, 1)
    image = filters.filter_mosaic(ax, weights(4, 1, 2, 2), largest=7)
    assert image.get_clim() == (-7, 7)
    zero = filters.filter_mosaic(ax, np.zeros((2, 1, 2, 2)))
    assert zero.get_clim() == (-1, 1)


def test_mosaics_are_about_square_and_take_tensors(ax, device):
    each = torch.from_numpy(weights(64, 1, 5, 5)).to(device).requires_grad_()
    shown = filters.filter_mosaic(ax, each).get_array()
    assert shown.shape == (8 * 6 - 1, 8 * 6 - 1)
    tall = filters.filter_mosaic(ax, weights(32, 1, 3, 1)).get_array()
    assert 0.5 < tall.shape[0] / tall.shape[1] < 2
    assert filters.filter_mosaic(ax, weights(1, 1, 9, 1)).get_array().shape == (9, 1)
    assert figure_arrays(ax.figure)[0]["series"][0]["kind"] == "image"


@pytest.mark.parametrize(("count", "columns", "groups"), [(12, 4, 3), (12, 5, 2), (12, 12, 4), (10, 1, 5), (9, 4, 1)])
def test_lines_part_pictures_of_different_groups_and_no_others(ax, count, columns, groups):
    filters.filter_mosaic(ax, weights(count, 1, 2, 3), columns=columns, groups=groups)
    drawn = {tuple(map(tuple, segment)) for collection in ax.collections for segment in collection.get_segments()}
    due = set()
    for first in range(count):
        for second in range(first + 1, count):
            (r1, c1), (r2, c2) = divmod(first, columns), divmod(second, columns)
            if first // (count // groups) == second // (count // groups):
                continue
            if r1 == r2 and c2 == c1 + 1:
                due.add(((4 * c2 - 1, 3 * r1 - 1), (4 * c2 - 1, 3 * r1 + 2)))
            if c1 == c2 and r2 == r1 + 1:
                due.add(((4 * c1 - 1, 3 * r2 - 1), (4 * c1 + 3, 3 * r2 - 1)))
    assert drawn == due


@pytest.mark.parametrize(
    ("each", "options", "said"),
    [
        (np.zeros((4, 2, 3, 3)), {}, r"1 or 3 channels, height, width\), got \(4, 2, 3, 3\)"),
        (np.zeros((4, 3, 3)), {}, "got"),
        (np.zeros((0, 1, 3, 3)), {}, "got"),
        (np.full((1, 1, 2, 2), np.nan), {}, "finite"),
        (np.zeros((4, 1, 3, 3)), {"groups": 3}, "divide the 4 filters, got 3"),
        (np.zeros((4, 1, 3, 3)), {"columns": 0}, "columns must be a whole number"),
        (np.zeros((4, 1, 3, 3)), {"largest": 0.0}, "largest"),
    ],
)
def test_what_cannot_be_drawn_is_refused(ax, each, options, said):
    with pytest.raises(InputError, match=said):
        filters.filter_mosaic(ax, each, **options)


@pytest.mark.parametrize("join", [None, 12])
def test_crosses_are_the_kernels_of_the_one_convolution(join):
    torch.manual_seed(0)
    layer = Composite(1, [(6, 3, 1), (4, 1, 3)], join=join)
    figure, axes = plt.subplots(1, 3)
    filters.cross_filters(axes, layer, columns=4)
    tall, flat, last = (ax.images[0].get_array() for ax in axes)
    assert sorted(tall.compressed()) == sorted(layer.sets["3x1"].weight.detach().numpy().ravel())
    assert sorted(flat.compressed()) == sorted(layer.sets["1x3"].weight.detach().numpy().ravel())
    kernels = joined_kernels(layer).numpy()
    for number in range(len(kernels)):
        row, column = divmod(number, 4)
        np.testing.assert_array_equal(last[4 * row : 4 * row + 3, 4 * column : 4 * column + 3], kernels[number, 0])
    assert [ax.get_title(loc="center") or ax.get_title(loc="left") for ax in axes] == [
        "3×1 set",
        "1×3 set",
        "not joined" if join is None else "joined by the 1×1 layer",
    ]
    with pytest.raises(InputError, match="axes must be 3"):
        filters.cross_filters(axes[:2], layer)
    plt.close(figure)
