"""Pictures of masks show every cell as it is: active, empty, ablated, kept, dropped, grown, and the numbers beside."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from papertwin.errors import InputError
from papertwin.figures import masks, style

BLUE, WHITE, GREY, ORANGE, GREEN = "#0072b2", "#ffffff", "#e8e8e8", "#e8a27c", "#009e73"


@pytest.fixture
def ax():
    """Axes in the house style; no figure is left open."""
    with plt.rc_context():
        style.use()
        yield plt.subplots(figsize=(6, 3))[1]
    plt.close("all")


def mask(*rows):
    """A mask as it is written: `x` is a weight."""
    return torch.tensor([[letter == "x" for letter in row] for row in rows])


def cells(ax):
    """The colour of every cell."""
    (image,) = ax.images
    colours = image.cmap(image.norm(image.get_array()))
    return [[to_hex(colour) for colour in row] for row in colours]


def painted(letters, rows):
    return [[letters[letter] for letter in row] for row in rows]


def words(ax):
    """What is written in a panel: at (column, row)."""
    return {text.get_position(): text.get_text() for text in ax.texts}


def test_a_mask_is_drawn_cell_by_cell_with_the_fan_in_of_each_row(ax):
    masks.mask_panel(ax, mask("x.x.", "....", "xxx.", "...x"), "RigL")
    rows = ("x.x.", "----", "xxx.", "...x")
    assert cells(ax) == painted({"x": BLUE, ".": WHITE, "-": GREY}, rows)
    assert words(ax) == {(3.9, 0): "2", (3.9, 1): "0", (3.9, 2): "3", (3.9, 3): "1"}
    assert (ax.get_title(loc="left"), ax.get_ylabel(), ax.get_xlabel()) == ("RigL", "neurons", "inputs")
    assert ax.get_ylim() == (3.5, -0.5), "the first neuron is on top"
    assert ax.get_xlim() == (-0.5, 3.5)


@pytest.mark.parametrize(("rows", "colour"), [(("xx", "xx"), BLUE), (("..", ".."), GREY)])
def test_masks_of_one_kind_have_its_colour(ax, rows, colour):
    masks.mask_panel(ax, mask(*rows), "")
    assert cells(ax) == [[colour] * 2] * 2


@pytest.mark.parametrize("shape", [(2, 3), (12, 16)])
def test_lines_part_the_cells(ax, shape):
    masks.mask_panel(ax, torch.ones(shape, dtype=torch.bool), "")
    for axis, number in ((ax.yaxis, shape[0]), (ax.xaxis, shape[1])):
        assert axis.get_minorticklocs().tolist() == [place - 0.5 for place in range(number + 1)]
        assert all(tick.gridline.get_visible() for tick in axis.get_minor_ticks())
        assert len(axis.get_majorticklocs()) == 0
    assert ax.get_aspect() == 1


def test_a_condensed_array_has_the_numbers_of_the_inputs_of_active_neurons(ax):
    masks.condensed_panel(ax, mask("x..x.", ".....", "..xx.", ".x..x"), "condensed")
    assert cells(ax) == [[BLUE] * 2] * 3
    assert words(ax) == {
        **{(0, 0): "0", (1, 0): "3"},
        **{(0, 1): "2", (1, 1): "3"},
        **{(0, 2): "1", (1, 2): "4"},
    }
    assert {text.get_color() for text in ax.texts} == {"white"}
    assert ax.get_title(loc="left") == "condensed"
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("active neurons", "weights of a neuron")


def test_an_update_shows_what_is_kept_dropped_and_grown(ax):
    before = mask("xx..", ".xx.", "x..x", "....", "....")
    after = mask("x.x.", "....", "x..x", ".xx.", "....")
    salient = mask("x.x.", "..x.", "xxxx", "....", "...x")
    masks.update_panel(ax, before, after, salient, "update")
    rows = ("kdg.", "-dd-", "k..k", ".gg.", "....")
    letters = {"k": BLUE, "d": ORANGE, "g": GREEN, ".": WHITE, "-": GREY}
    assert cells(ax) == painted(letters, rows)
    assert list(words(ax).values()) == ["2", "1", "4", "0", "1"]
    assert [place[1] for place in words(ax)] == [0, 1, 2, 3, 4]
    (dots,) = ax.lines
    assert dots.get_xydata().tolist() == [[0, 0], [2, 0], [2, 1], [0, 2], [1, 2], [2, 2], [3, 2], [3, 4]]
    assert (dots.get_marker(), dots.get_linestyle(), dots.get_color()) == ("o", "None", "black")
    handles = {
        text.get_text(): patch for text, patch in zip(ax.get_legend().get_texts(), ax.get_legend().get_patches())
    }
    assert {name: to_hex(patch.get_facecolor()) for name, patch in handles.items()} == {
        **{"kept": BLUE, "dropped": ORANGE, "grown": GREEN, "ablated neuron": GREY}
    }
    assert (ax.get_title(loc="left"), ax.get_ylabel(), ax.get_xlabel()) == ("update", "neurons", "inputs")


def test_an_update_may_leave_no_dots(ax):
    masks.update_panel(ax, mask("x."), mask(".x"), mask(".."), "")
    assert cells(ax) == [[ORANGE, GREEN]]
    assert list(words(ax).values()) == ["0"]


def test_panels_look_at_masks_and_change_nothing(ax):
    given = mask("x.", ".x")
    kept = given.clone()
    masks.mask_panel(ax, given, "")
    masks.condensed_panel(ax, given, "")
    masks.update_panel(ax, given, given, given, "")
    assert torch.equal(given, kept)


@pytest.mark.parametrize("shape", [(4,), (4, 4, 3, 3)])
def test_masks_must_have_two_dimensions(ax, shape):
    given = torch.ones(shape, dtype=torch.bool)
    message = rf"mask must have shape \(out, in\), got \({shape[0]}"
    for panel in (masks.mask_panel, masks.condensed_panel):
        with pytest.raises(InputError, match=message):
            panel(ax, given, "")
    flat = mask("xx", "..")
    for three in ((given, flat, flat), (flat, given, flat), (flat, flat, given)):
        with pytest.raises(InputError, match=message):
            masks.update_panel(ax, *three, "")


def test_neurons_with_different_fan_ins_cannot_be_condensed(ax):
    with pytest.raises(InputError, match=r"one fan-in for all its active neurons, got \[0, 1, 2\]"):
        masks.condensed_panel(ax, mask("xx.", "x..", "..."), "")
    with pytest.raises(InputError, match=r"one fan-in for all its active neurons, got \[0\]"):
        masks.condensed_panel(ax, mask("...", "..."), "")


@pytest.mark.parametrize("odd", range(3))
def test_masks_of_an_update_must_have_one_shape(ax, odd):
    three = [mask("xx", "..")] * 3
    three[odd] = mask("xx.", "...")
    with pytest.raises(InputError, match="The masks must have one shape"):
        masks.update_panel(ax, *three, "")


def test_a_grid_of_numbers_has_the_index_along_and_no_number_where_there_is_none(ax):
    table = pd.DataFrame({0.8: [12.0, np.nan], 0.9: [3.0, 0.0]}, index=["fc1", "fc2"])
    masks.number_grid(ax, table, "perceptron")
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts == {(0, 0): "12", (1, 0): "–", (0, 1): "3", (1, 1): "0"}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["fc1", "fc2"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.8", "0.9"]
    shades = ax.images[0].get_array()
    assert shades[0, 0] > shades[1, 0] > shades[1, 1] == shades[0, 1]
    with pytest.raises(InputError, match="must have rows and columns"):
        masks.number_grid(ax, pd.DataFrame(), "none")
