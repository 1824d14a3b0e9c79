"""Diagrams of filters say what their layers say: groups, shapes, windows and costs can be read back from them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from papertwin.errors import InputError
from papertwin.figures import board, use
from papertwin.figures import filter_diagrams as diagrams
from papertwin.figures.arrays import figure_arrays
from papertwin.nets import Composite, build, convolution, count, low_rank_layer, root_module, separable


@pytest.fixture
def ax():
    with plt.style.context("default"):
        use()
        figure, axes = plt.subplots(figsize=(4.6, 3.6))
        yield axes
        plt.close(figure)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def fronts(ax):
    """Front of each block of maps or filters: left, low, deep, high, colour."""
    found = []
    for patch in [patch for patch in ax.patches if isinstance(patch, Polygon)][::3]:
        (left, low), (right, top) = patch.get_xy()[0], patch.get_xy()[2]
        found.append((left, low, right - left, top - low, patch.get_edgecolor()))
    return found


def overlaps(ax):
    """Pairs of words that lie on each other, and words that leave the figure."""
    ax.figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in ax.texts if text.get_text()]
    found = [(a, b) for k, (a, first) in enumerate(boxes) for b, second in boxes[k + 1 :] if first.overlaps(second)]
    whole = ax.figure.bbox
    return found + [(a, "edge") for a, each in boxes if each.x0 < whole.x0 or each.x1 > whole.x1 or each.y0 < 0]


SETS = [(24, 3, 1), (24, 1, 3), (16, 3, 3)]
DRAWINGS = {
    **{
        f"convolution {groups}": lambda ax, groups=groups: diagrams.convolution(
            ax, convolution(64, 128, 3, groups=groups), 32
        )
        for groups in (1, 2, 4, 8, 64)
    },
    "stride": lambda ax: diagrams.convolution(ax, convolution(3, 64, 7, stride=2), 224),
    "narrowing": lambda ax: diagrams.convolution(ax, convolution(256, 64, 1), 28),
    **{
        f"root {groups}": lambda ax, groups=groups: diagrams.root_module(
            ax, root_module(96, 192, 5, groups, 192, norm=True), 16
        )
        for groups in (1, 2, 4, 8)
    },
    "widening root": lambda ax: diagrams.root_module(ax, root_module(64, 64, 3, 2, 256)),
    **{name: lambda ax, name=name: diagrams.scheme(ax, name) for name in diagrams.SCHEMES},
    "composite": lambda ax: diagrams.composite(ax, Composite(64, SETS, join=64)),
    "composite, no join": lambda ax: diagrams.composite(ax, Composite(64, [*SETS, (8, 5, 5)])),
    "windows": lambda ax: diagrams.connection_map(ax, Composite(6, SETS), 6, "windows"),
    "topology": lambda ax: diagrams.topology(ax, build("deep-roots", "NiN root-4"), "root-4"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_words_keep_apart_and_everything_lies_on_the_board(ax, name):
    DRAWINGS[name](ax)
    assert overlaps(ax) == []
    (left, right), (low, top) = ax.get_xlim(), ax.get_ylim()
    corners = [corner for patch in ax.patches if isinstance(patch, Polygon) for corner in patch.get_xy()]
    corners += [text.xy for text in ax.texts]
    corners += [(box.get_x() + box.get_width(), box.get_y()) for box in ax.patches if isinstance(box, FancyBboxPatch)]
    x, y = np.array(corners, dtype=float).T
    assert x.min() >= left
    assert x.max() <= right
    assert y.min() >= low
    assert y.max() <= top
    arrows = [patch._posA_posB for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    assert all(start[0] < end[0] - 0.1 for start, end in arrows), "arrows point to the right"
    assert figure_arrays(ax.figure)[0]["series"]


# ---- filter groups ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_shares_out_its_channels_and_says_what_it_costs(ax, groups):
    layer = convolution(8, 16, 3, groups=groups, stride=2)
    diagrams.convolution(ax, layer, 12)
    blocks = fronts(ax)
    assert len(blocks) == groups * 4  # maps in, two filters of many, maps out
    before, filters, after = blocks[::4], blocks[1::4], blocks[3::4]
    deep = [[block[2] for block in row] for row in (before, filters, after)]
    assert sum(deep[2]) / sum(deep[0]) == pytest.approx(16 / 8)
    assert deep[1] == pytest.approx(deep[0]), "a filter is as deep as the maps that it sees"
    assert sum(deep[0]) == pytest.approx(1.0), "half of the two units that the widest maps take"
    assert [block[3] for block in after] == pytest.approx([block[3] / 2 for block in before]), "12 pixels, then 6"
    assert len({block[4] for block in blocks}) == groups
    counts = count(layer, (8, 12, 12))
    assert f"{counts.params:,} parameters, {counts.macs:,} multiply-accumulates" in texts(ax)
    each = "" if groups == 1 else f"{groups} × "
    due = {f"{each}{8 // groups} maps\n12×12", f"{each}{16 // groups} maps\n6×6"}
    assert due | {f"{each}{16 // groups} filters\n3×3×{8 // groups}"} <= set(texts(ax))


def test_of_many_groups_the_first_two_and_the_last_are_drawn(ax):
    diagrams.convolution(ax, convolution(16, 16, 3, groups=16), 8)
    assert len(fronts(ax)) == 3 * 4
    assert texts(ax).count("⋮") == 3
    assert "16 × 1 filters\n3×3×1" in texts(ax)
    with torch.device("meta"):
        diagrams.root_module(ax, root_module(16, 32, 3, 8, 16))
    assert "8 × 4 filters\n3×3×2" in texts(ax)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_join_of_a_root_module_sees_the_maps_of_all_groups(ax, groups):
    module = root_module(8, 16, 3, groups, 12)
    diagrams.root_module(ax, module, 6)
    blocks = fronts(ax)
    mixing = [block for block in blocks if block[4] == to_rgba(diagrams.MIXING)]
    assert len(blocks) - len(mixing) == groups * 4
    *filters, maps = mixing
    middle = [block[2] for block in blocks[3 : 4 * groups : 4]]
    assert filters[0][2] == pytest.approx(sum(middle)), "as deep as the maps of all groups"
    assert maps[2] / filters[0][2] == pytest.approx(12 / 16)
    ends = [patch._posA_posB[1] for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    assert sum(end == (8.0 - filters[0][2] / 2, (diagrams.TOP + diagrams.BOTTOM) / 2) for end in ends) == groups
    counts = count(module, (8, 6, 6))
    assert f"{counts.params:,} parameters, {counts.macs:,} multiply-accumulates" in texts(ax)
    assert {"12 filters\n1×1×16", "ReLU after both"} <= set(texts(ax))
    assert ax.get_title(loc="left") == ("plain module" if groups == 1 else f"root-{groups} module")


def test_normalisation_is_named_and_left_out_of_the_parameters(ax):
    diagrams.root_module(ax, root_module(8, 16, 3, 2, 12, norm=True))
    assert f"{16 * 4 * 9 + 16 + 12 * 16 + 12:,} parameters" in texts(ax)
    assert "normalisation and ReLU after both" in texts(ax)


def test_a_topology_has_the_layers_of_the_network_and_their_groups(ax):
    diagrams.topology(ax, build("deep-roots", "NiN root-4"), "root-4")
    assert {"conv2a  5×5", "conv2b  1×1", "192 in 4 groups", "192 in 2 groups", "10"} <= set(texts(ax))
    pieces = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    rows = [sum(int(piece.get_y()) == row for piece in pieces) for row in range(9)]
    assert rows == [1, 1, 1, 4, 1, 1, 2, 1, 1], "the input at the bottom"
    with pytest.raises(InputError, match="got a ReLU"):
        diagrams.topology(ax, torch.nn.ReLU(), "nothing")


# ---- windows ---------------------------------------------------------------------------------------------------------


def windows(ax):
    """Cells of each row of a connection map: (kinds, cells), whether they are filled, and their colours."""
    rows = [collection for collection in ax.collections if isinstance(collection, PatchCollection)]
    colours = np.array([row.get_facecolors() for row in rows])
    return (colours != 1).any(axis=2), [{tuple(c) for c in row if (c != 1).any()} for row in colours]


def test_windows_of_full_low_rank_and_grouped_layers(ax):
    diagrams.connection_map(ax, convolution(4, 6, 3), 4)
    filled, _ = windows(ax)
    assert filled.shape == (1, 36)
    assert filled.all()
    assert "6 filters\nsee 36\nof 36" in texts(ax)

    ax.clear()
    diagrams.connection_map(ax, low_rank_layer(4, 4, "lr"), 4)
    filled, colours = windows(ax)
    tall, flat = filled.reshape(2, 4, 3, 3)
    assert tall[:, :, 1].all()
    assert not tall[:, :, ::2].any()
    assert np.array_equal(flat, tall.transpose(0, 2, 1))
    assert colours == [{to_rgba("C0")}, {to_rgba("C1")}]
    assert texts(ax).count("2 filters\nsee 12\nof 36") == 2

    ax.clear()
    diagrams.connection_map(ax, convolution(4, 2, 3, groups=2), 4)
    filled, _ = windows(ax)
    assert np.array_equal(
        filled.reshape(2, 4, 9), np.kron(np.eye(2), np.ones((1, 2))).astype(bool)[:, :, None].repeat(9, 2)
    )
    assert texts(ax).count("1 filter\nsees 18\nof 36") == 2

    ax.clear()
    diagrams.connection_map(ax, low_rank_layer(4, 4, "lr-join"), 4)
    assert "4 filters\nsee 20\nof 36" in texts(ax), "every filter sees a cross"


def test_cells_lie_where_their_pixels_are(ax):
    diagrams.connection_map(ax, Composite(2, [(1, 1, 5), (1, 3, 1)]), 2)
    row = [collection for collection in ax.collections if isinstance(collection, PatchCollection)][1]
    corners = np.array([path.vertices.min(axis=0) for path in row.get_paths()]).reshape(2, 3, 5, 2)
    assert np.allclose(np.diff(corners[..., 0], axis=2), 1), "pixels of a row lie side by side"
    assert np.allclose(np.diff(corners[..., 1], axis=1), -1), "the first row lies above"
    assert (corners[1, ..., 0].min() - corners[0, ..., 0].max()) > 1, "channels keep apart"


# ---- schemes ---------------------------------------------------------------------------------------------------------


def kernels(ax):
    """Cells that filters have, by colour: how many rows and columns they fill, and the middle of them."""
    found = {}
    for patch in ax.patches:
        if isinstance(patch, Rectangle) and patch.get_zorder() == 3:
            found.setdefault(patch.get_facecolor(), []).append((*patch.get_xy(), patch.get_width()))
    out = {}
    for colour, cells in found.items():
        x, y, size = np.array(cells).T
        out[colour] = (len(set(y.round(6))), len(set(x.round(6))), x.mean() + size[0] / 2, y.mean() + size[0] / 2)
    return out


@pytest.fixture
def colours(ax):
    """Of upright, flat, full and mixing filters, in the style of the figure."""
    return [to_rgba(each) for each in ("C0", "C1", "C2", diagrams.MIXING)]


def test_the_four_schemes(ax, colours):
    upright, flat, full, mix = colours
    shown = {}
    for name in diagrams.SCHEMES:
        ax.clear()
        diagrams.scheme(ax, name)
        shown[name] = kernels(ax), texts(ax), max(b.get_x() for b in ax.patches if isinstance(b, FancyBboxPatch))
    assert {name: set(found) for name, (found, _, _) in shown.items()} == {
        "full": {full},
        "separable": {upright, flat},
        "lr": {upright, flat},
        "lr-join": {upright, flat, mix},
    }
    for found, words, last in shown.values():
        assert "ReLU" in words
        assert all(each[2] < last for each in found.values()), "the ReLU comes last"
    assert {each[:2] for each in shown["full"][0].values()} == {(3, 3)}
    pair = shown["separable"][0]
    assert (pair[flat][:2], pair[upright][:2]) == ((1, 3), (3, 1))
    assert pair[flat][2] < pair[upright][2], "1×3 first"
    assert pair[flat][3] == pytest.approx(pair[upright][3])
    for name in ("lr", "lr-join"):
        found = shown[name][0]
        assert found[flat][2] == pytest.approx(found[upright][2]), "side by side"
        assert found[flat][3] != pytest.approx(found[upright][3])
    assert shown["lr-join"][0][mix][:2] == (1, 1)
    assert shown["lr-join"][0][mix][2] > shown["lr-join"][0][flat][2]
    with pytest.raises(InputError, match="one of full, separable, lr, lr-join, got 'rank'"):
        diagrams.scheme(ax, "rank")
    with pytest.raises(InputError, match="got a Linear"):
        diagrams.scheme(ax, torch.nn.Linear(2, 2))


LAYERS = {
    "full": lambda: convolution(6, 8, 3),
    "grouped": lambda: convolution(6, 8, 3, groups=2),
    "separable": lambda: separable(6, 8),
    "lr": lambda: low_rank_layer(6, 8, "lr"),
    "wfull": lambda: low_rank_layer(6, 8, "lr-join-wfull"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_costs_of_a_pixel_are_those_counted(ax, name):
    layer = LAYERS[name]()
    diagrams.scheme(ax, layer, name)
    counts = count(layer, (6, 10, 10))
    biases = sum(each.output[0] for each in counts.layers)
    (said,) = [text for text in texts(ax) if "=" in text]
    terms, total = said.split(" = ")
    assert int(total.replace(",", "")) * 100 == counts.macs - biases
    assert eval(terms.replace("×", "*")) * 100 == counts.macs - biases
    assert "multiply-accumulates a pixel, biases left out" in texts(ax)


def test_a_strided_layer_has_weights_only(ax):
    diagrams.scheme(ax, convolution(6, 8, 3, stride=2), "strided")
    assert "weights" in texts(ax)


@pytest.mark.parametrize("join", [None, 10])
def test_a_composite_layer_names_its_sets_and_lays_their_maps_side_by_side(ax, colours, join):
    layer = Composite(8, [(6, 3, 1), (4, 1, 3), (2, 3, 3)], join=join)
    diagrams.composite(ax, layer)
    sets = {"$d_1$ = 6 filters\n3×1×8", "$d_2$ = 4 filters\n1×3×8", "$d_3$ = 2 filters\n3×3×8", "$c$ = 8\nmaps"}
    assert sets <= set(texts(ax))
    middle = [block for block in fronts(ax) if block[4] in colours[:3]]
    assert [block[4] for block in middle] == colours[:3]
    lefts, deep = np.array([block[0] for block in middle]), np.array([block[2] for block in middle])
    assert lefts[1:] == pytest.approx(lefts[:-1] + deep[:-1])
    assert deep / deep.sum() == pytest.approx(np.array([6, 4, 2]) / 12)
    joined = "$d$ = 10 filters\n1×1×12" in texts(ax)
    assert joined == (join is not None)
    assert ("$m$ = 12\nmaps" in texts(ax)) == joined
    assert ax.get_xlim() == (0, board.WIDE)
