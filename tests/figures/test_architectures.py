"""Diagrams of whole networks: what they say of layers is read from the layers."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch import nn

from papertwin.figures import architectures


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def words(ax):
    return [text.get_text() for text in ax.texts]


def test_layers_have_a_piece_for_each_group_and_are_as_wide_as_their_outputs(ax):
    modules = {"a": nn.Conv2d(4, 16, 3), "b": nn.Conv2d(16, 64, 3, groups=4), "c": nn.Linear(64, 64)}
    architectures.layers(ax, modules, "three layers")
    pieces = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    rows = [[piece for piece in pieces if int(piece.get_y()) == row] for row in range(3)]
    assert [len(row) for row in rows] == [1, 4, 1]
    wide = [max(p.get_x() + p.get_width() for p in row) - min(p.get_x() for p in row) for row in rows]
    assert wide[0] < wide[2]
    assert wide[1] == pytest.approx(wide[2], rel=0.08)
    assert [text for text in words(ax) if "groups" in text] == ["64 in 4 groups"]
    assert {"a", "b", "c", "16", "64"} <= set(words(ax))
    assert ax.get_title(loc="left") == "three layers" or ax.get_title() == "three layers"


@pytest.mark.parametrize("views", [2, 10])
def test_the_ensemble_names_its_views_and_its_cost(ax, views):
    architectures.ensemble(ax, views)
    assert f"network,\n{views} views" in words(ax)
    assert f"cost: 1 + {views - 1} f + router" in words(ax)
    assert sum(isinstance(patch, FancyBboxPatch) for patch in ax.patches) == 6


def test_the_generic_network_has_both_kinds_of_routing(ax):
    architectures.generic(ax)
    assert {"router", "explicit", "implicit", "full", "join"} <= set(words(ax))
