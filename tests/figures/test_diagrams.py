"""Diagrams show what they are given: blocks, thicknesses, joins and costs can be read back from what was drawn."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from papertwin.figures import board, diagrams, use
from papertwin.figures.arrays import figure_arrays
from papertwin.nets import count
from papertwin.nets.conditional import block_order


@pytest.fixture
def axes():
    with plt.style.context("default"):
        use()
        figure, axes = plt.subplots(figsize=(4, 3.4))
        yield axes
        plt.close(figure)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def patches(ax, kind):
    return [patch for patch in ax.patches if type(patch) is kind]


def segments(ax):
    """Every line of a collection with its width, as ((x, y), (x, y), width)."""
    return [
        (tuple(a), tuple(b), wide)
        for each in ax.collections
        if isinstance(each, LineCollection)
        for (a, b), wide in zip(each.get_segments(), np.broadcast_to(each.get_linewidths(), len(each.get_segments())))
    ]


def overlaps(ax):
    """Pairs of texts that lie on each other, or texts that leave the figure."""
    ax.figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in ax.texts if text.get_text()]
    found = [(a, b) for k, (a, first) in enumerate(boxes) for b, second in boxes[k + 1 :] if first.overlaps(second)]
    whole = ax.figure.bbox
    return found + [(a, "edge") for a, each in boxes if not (whole.x0 <= each.x0 and each.x1 <= whole.x1)]


DRAWINGS = {
    "notation": diagrams.notation,
    "explicit": lambda ax: diagrams.routing(ax, "explicit"),
    "implicit": lambda ax: diagrams.routing(ax, "implicit"),
    "one route": lambda ax: diagrams.routed_convolution(ax, 1, 9_437_248),
    "two routes": lambda ax: diagrams.routed_convolution(ax, 2, 4_718_656),
    "four routes": lambda ax: diagrams.routed_convolution(ax, 4, 2_359_360),
    "toy": diagrams.toy_router,
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_words_keep_apart_and_everything_lies_on_the_board(axes, name):
    DRAWINGS[name](axes)
    assert overlaps(axes) == []
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, board.WIDE), (0, board.HIGH))
    places = [text.xy for text in axes.texts] + [place for a, b, _ in segments(axes) for place in (a, b)]
    places += [place for line in axes.lines for place in zip(*line.get_data())]
    places += [place for patch in patches(axes, Polygon) for place in patch.get_xy()]
    x, y = np.array(places, dtype=float).T
    assert x.min() >= 0
    assert x.max() <= board.WIDE
    assert y.min() >= 0
    assert y.max() <= board.HIGH
    assert figure_arrays(axes.figure)[0]["series"]


def test_a_network_is_joined_fully_and_a_tree_has_one_way(axes):
    diagrams.notation(axes)
    lines = segments(axes)
    assert len([line for line in lines if line[2] < 0.7]) == 4 * 4 + 4 * 3
    bold = [line for line in lines if line[2] == diagrams.BOLD]
    assert len(bold) == 1 + 2  # one step of the stump, two of the tree
    (_, end, _), (start, _, _) = bold[1:]
    assert end == start, "the second step of the tree begins where the first ended"
    dots = [line for line in axes.lines if line.get_color() == diagrams.ROUTER]
    answers = [line for line in axes.lines if line.get_marker() == "s"]
    assert (len(dots), len(answers)) == (1 + 3, 2 + 4)


def test_explicit_routing_has_a_share_for_each_route(axes):
    diagrams.routing(axes, "explicit")
    shown = texts(axes)
    for number in (1, 2, 3):
        assert {f"$P^{number}$", f"$r_{number}$", f"$v_1^{number}$"} <= set(shown)
    boxes = patches(axes, FancyBboxPatch)
    assert [box.get_facecolor() == to_rgba(diagrams.ROUTER) for box in boxes].count(True) == 1
    bold = [patch for patch in patches(axes, FancyArrowPatch) if patch.get_linewidth() == diagrams.BOLD]
    assert len(bold) == 3  # into, through and out of the one route


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "groups"), [(6, 6, 1, 3), (8, 4, 3, 2), (4, 8, 5, 4), (4, 4, 1, 1)]
)
def test_implicit_routing_is_drawn_from_the_weights_of_the_layer(axes, channels, filters, kernel, groups):
    torch.manual_seed(groups)
    layer = torch.nn.Conv2d(channels, filters, kernel, groups=groups)
    weights = diagrams.seen_weights(layer)
    a, b = filters // groups, channels // groups
    expected = np.zeros((filters, channels))
    for g in range(groups):
        rows = slice(g * a, (g + 1) * a)
        expected[rows, g * b : (g + 1) * b] = layer.weight[rows].detach().abs().sum(dim=(2, 3)).numpy()
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    diagrams.routing(axes, "implicit", layer)
    shown = np.asarray(axes.images[0].get_array())
    assert np.array_equal(shown > 0, expected > 0)
    order = np.argsort(expected[expected > 0])
    assert (np.diff(shown[expected > 0][order]) >= 0).all(), "a larger weight is darker"
    left, right = axes.lines
    ends = [sorted({place[1] for place in zip(*line.get_data())}, reverse=True) for line in (left, right)]
    drawn = {(ends[1].index(b[1]), ends[0].index(a[1])) for a, b, _ in segments(axes)}
    assert drawn == set(zip(*np.nonzero(expected)))


def test_the_layer_of_the_diagram_is_a_real_one_in_groups_and_costs_no_randomness(axes):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    weights = diagrams.seen_weights()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(weights, diagrams.seen_weights())
    assert np.array_equal(weights > 0, np.kron(np.eye(3), np.ones((2, 2))) > 0)


@pytest.mark.parametrize("routes", [1, 2, 4])
def test_a_routed_convolution_says_what_it_costs_and_shares_out_its_channels(axes, routes):
    macs = count(torch.nn.Conv2d(64, 64, 3, padding=1, groups=routes), (64, 16, 16)).macs
    diagrams.routed_convolution(axes, routes, macs)
    assert f"{macs:,} multiply-accumulates" in texts(axes)
    part = "" if routes == 1 else f"/{routes}"
    for words in (f"$c{part}$ maps", f"$d{part}$ maps", f"$d{part}$ filters"):
        assert texts(axes).count(words) == routes
    fronts = [patch.get_xy() for patch in patches(axes, Polygon)][::3]
    assert len(fronts) == routes * 4  # maps in, maps out, two filters of many
    np.testing.assert_allclose([np.ptp(front[:, 0]) for front in fronts], 2.2 / routes)
    colours = {tuple(patch.get_edgecolor()) for patch in patches(axes, Polygon)}
    assert len(colours) == routes


def test_the_toy_router_takes_one_route(axes):
    diagrams.toy_router(axes, routes=4, taken=2)
    bold = [patch for patch in patches(axes, FancyArrowPatch) if patch.get_linewidth() == diagrams.BOLD]
    assert len(bold) == 1
    assert "4 routes" in axes.get_title(loc="left")
    height = bold[0]._posA_posB[1][1]
    columns = [line for line in axes.lines if line.get_marker() == "o"]
    routes = [line for line in columns if line.get_xdata()[0] in (6.4, 8.8)]
    heights = sorted({np.mean(line.get_ydata()) for line in routes}, reverse=True)
    assert heights.index(min(heights, key=lambda y: abs(y - height))) == 2, "counted from above, from 0"
    dark = [line.get_color() == board.LINE for line in routes]
    assert dark.count(True) == 2
    assert all(abs(np.mean(line.get_ydata()) - height) < 1e-9 for line, on in zip(routes, dark) if on)


# ---- what was found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(185, 216, 59, 540), (3, 1), (37, 24, 12, 7)])
def test_branches_are_as_thick_as_their_clusters_are_big(sizes):
    figure, ax = plt.subplots(figsize=(9, 3.4))
    clusters = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    names = [f"class {k:03d}" for k in range(len(clusters))]
    diagrams.class_tree(ax, clusters, names, 128)
    bands = [patch.get_xy()[:-1] for patch in patches(ax, Polygon)]
    thick = np.array([band[:40, 1] - band[40:, 1][::-1] for band in bands])
    assert np.ptp(thick, axis=1).max() < 1e-9, "as thick at its end as at its start"
    np.testing.assert_allclose(thick[:, 0] / thick[:, 0].sum(), np.array(sizes) / sum(sizes))
    starts = [band[0, 1] for band in bands]
    np.testing.assert_allclose(starts[:-1] - thick[:-1, 0], starts[1:], err_msg="side by side at the router")
    shown = texts(ax)
    assert f"router\n128 → {len(sizes)}" in shown
    for number, size in enumerate(sizes):
        assert {f"{size} classes", f"128 → {size}"} <= set(shown)
        members = [names[k] for k in np.flatnonzero(clusters == number)]
        (listed,) = [text for text in shown if text.startswith(members[0])]
        assert set(listed.split(" and ")[0].split(", ")) <= set(members)
    assert overlaps(ax) == []
    assert figure_arrays(figure)[0]["title"] == f"128 features → {sum(sizes)} classes in {len(sizes)} routes"
    plt.close(figure)


def test_names_end_where_the_room_does():
    names = ["one", "two", "three", "four"]
    assert board.fitting(names, 10) == "one, two and 2 more"
    assert board.fitting(names, 9) == board.fitting(names, 1) == "one and 3 more"
    assert board.fitting(names, 99) == "one, two, three, four"


@pytest.fixture
def four():
    figure, axes = plt.subplots(1, 4, figsize=(11, 4.2))
    yield axes
    plt.close(figure)


def test_blocks_of_a_correlation_by_hand(four):
    correlation = np.array([[0.9, 0.1, -0.8], [0.2, -0.7, 0.1], [0.6, 0.0, 0.5], [0.1, 0.4, 0.3]])
    order = block_order(correlation, [0, 1, 0])
    diagrams.blocks(four, correlation, order)
    raw, ordered, cut = (np.asarray(ax.images[0].get_array()) for ax in four[:3])
    assert np.array_equal(raw, np.abs(correlation))
    wanted = np.array([[0.9, 0.8, 0.1], [0.6, 0.5, 0.0], [0.2, 0.1, 0.7], [0.1, 0.3, 0.4]])
    assert np.array_equal(ordered, wanted)
    zeroed = np.array([[0.9, 0.8, 0], [0.6, 0.5, 0], [0, 0, 0.7], [0, 0, 0.4]])
    assert np.array_equal(cut, zeroed)
    for ax in four[1:3]:
        outlines = [(*box.get_xy(), box.get_width(), box.get_height()) for box in patches(ax, Rectangle)]
        assert outlines == [(-0.5, -0.5, 2, 2), (1.5, 1.5, 1, 2)]
    assert not patches(four[0], Rectangle)
    assert {image.get_clim() for ax in four[:3] for image in ax.images} == {(0, 0.9)}
    assert (four[0].get_xlabel(), four[0].get_ylabel()) == ("3 classes", "4 features")


@pytest.mark.parametrize("sizes", [[(46, 37), (41, 24), (24, 12), (17, 7)], [(3, 1), (0, 2)]])
def test_what_lies_in_the_blocks_is_kept_and_the_routes_are_as_high_as_they_are_big(four, sizes):
    sizes = np.array(sizes)
    rng = np.random.default_rng(1)
    features, classes = sizes.sum(axis=0)
    order = SimpleNamespace(rows=rng.permutation(features), columns=rng.permutation(classes), sizes=sizes)
    correlation = rng.uniform(-1, 1, (features, classes))
    diagrams.blocks(four, correlation, order)
    cut = np.asarray(four[2].images[0].get_array())
    assert np.count_nonzero(cut) == (sizes[:, 0] * sizes[:, 1]).sum()
    bars = np.array([(box.get_x(), box.get_y(), box.get_height()) for box in patches(four[3], Rectangle)])
    for side in (0, 1):
        x, low, high = bars[side::2].T
        assert len(set(x)) == 1
        np.testing.assert_allclose(high / high.sum(), sizes[:, side] / sizes[:, side].sum())
        assert (low[:-1] > (low + high)[1:]).all(), "one below the other"
        assert low.min() > -1e-9
    assert [text for text in texts(four[3]) if text.isdigit()] == [str(number) for pair in sizes for number in pair]
    for outline, left, right in zip(patches(four[3], Polygon), bars[::2], bars[1::2]):
        heights = outline.get_xy()[:4, 1]
        np.testing.assert_allclose(heights, [left[1] + left[2], right[1] + right[2], right[1], left[1]])
