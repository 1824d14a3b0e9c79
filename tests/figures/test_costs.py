"""Panels show what their tables hold: means, spreads, families, published points behind, layers side by side."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.text import Text

from papertwin.errors import InputError
from papertwin.figures import costs, style, use
from papertwin.figures.arrays import figure_arrays
from papertwin.nets import published

TABLE = pd.DataFrame(
    [
        ("plain", 0, 4000.0, 10.0),
        ("plain", 1, 4000.0, 12.0),
        ("plain", 2, 4000.0, 17.0),
        ("root-2", 0, 2000.0, 11.0),
        ("root-2", 1, 2000.0, 13.0),
        ("tree-2", 0, 1000.0, 20.0),
        ("alone", 0, 500.0, 25.0),
    ],
    columns=["network", "seed", "MACs", "test error"],
)
FAMILIES = {"root": ["plain", "root-2"], "tree": ["plain", "tree-2"]}


@pytest.fixture
def ax():
    with plt.style.context("default"):
        use()
        figure, axes = plt.subplots(figsize=(6, 4))
        yield axes
        plt.close(figure)


def lines(ax, marker):
    return {line.get_label(): line for line in ax.lines if line.get_marker() == marker and line.get_label()[0] != "_"}


def apart(*panels):
    """Pairs of words of some axes that lie on each other."""
    figure = panels[0].figure
    figure.canvas.draw()
    drawn = [Text.get_window_extent(text) for ax in panels for text in ax.texts if text.get_text()]
    return not any(a.overlaps(b) for k, a in enumerate(drawn) for b in drawn[:k])


# ---- trained here ----------------------------------------------------------------------------------------------------


def test_a_dot_is_the_mean_and_its_line_the_range_or_a_standard_deviation(ax):
    costs.cost_panel(ax, TABLE, cost="MACs", error="test error", scale=1e3, unit="thousand operations")
    dots = {name: tuple(line.get_xydata()[0]) for name, line in lines(ax, "o").items()}
    assert dots == {"plain": (4, 13), "root-2": (2, 12), "tree-2": (1, 20), "alone": (0.5, 25)}
    ends = {line.get_xdata()[0]: list(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) == 2}
    assert ends == {4: [10, 17], 2: [11, 13], 1: [20, 20], 0.5: [25, 25]}
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("thousand operations", "test error, %", "log")
    ax.clear()
    costs.cost_panel(ax, TABLE, cost="MACs", error="test error", seeds="sd", xscale="linear")
    ends = {line.get_xdata()[0]: np.array(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) == 2}
    np.testing.assert_allclose(ends[4000] - 13, np.std([10, 12, 17], ddof=1) * np.array([-1, 1]))
    np.testing.assert_allclose(ends[500], 25, err_msg="one seed has no spread")
    assert ax.get_xscale() == "linear"


def test_families_are_joined_in_their_order_and_a_shared_network_has_a_colour_of_its_own(ax):
    costs.cost_panel(ax, TABLE, cost="MACs", error="test error", families=FAMILIES)
    joined = [line for line in ax.lines if line.get_alpha() == 0.6]
    assert [line.get_xydata().tolist() for line in joined] == [[[4000, 13], [2000, 12]], [[4000, 13], [1000, 20]]]
    assert [line.get_color() for line in joined] == ["C0", "C1"]
    colours = {name: line.get_color() for name, line in lines(ax, "o").items()}
    assert colours == {"plain": "0.2", "root-2": "C0", "tree-2": "C1", "alone": "0.2"}
    assert {text.get_text(): text.get_color() for text in ax.texts} == colours


def test_families_may_be_a_column_joined_by_cost(ax):
    table = TABLE.assign(kind=["a", "a", "a", "a", "a", "b", "a"])
    costs.cost_panel(ax, table, cost="MACs", error="test error", families="kind")
    joined = [line.get_xdata().tolist() for line in ax.lines if line.get_alpha() == 0.6]
    assert joined == [[500, 2000, 4000], [1000]]


@pytest.mark.parametrize(
    ("labels", "due"), [(True, ["plain", "root-2", "tree-2", "alone"]), (False, []), ({"plain": "NiN"}, ["NiN"])]
)
def test_labels_are_names_or_what_is_said(ax, labels, due):
    costs.cost_panel(ax, TABLE, cost="MACs", error="test error", labels=labels)
    assert [text.get_text() for text in ax.texts] == due
    assert apart(ax)


def test_published_points_lie_behind_on_an_axis_of_their_own(ax):
    points = costs.PublishedPoints([1000, 4000], [8.0, 7.5], "CIFAR-10", names=["root-2", "Orig."])
    costs.cost_panel(ax, TABLE, cost="MACs", error="test error", published=points)
    twin = ax.figure.axes[1]
    (theirs,) = twin.lines
    assert theirs.get_xydata().tolist() == [[1000, 8], [4000, 7.5]]
    assert (theirs.get_markerfacecolor(), theirs.get_color()) == ("none", style.PUBLISHED["color"])
    assert twin.get_ylabel() == "published error on CIFAR-10, %"
    assert twin.get_zorder() < ax.get_zorder()
    assert not ax.patch.get_visible()
    assert {to_rgba(style.GREY)} == {to_rgba(twin.yaxis.label.get_color()), to_rgba(twin.spines["right"].get_ec())}
    assert ax.dataLim.y0 == 10, "our axis is our own"
    assert apart(ax, twin)
    assert figure_arrays(ax.figure)[1]["series"][0]["label"] == "published"


def test_published_points_are_scaled_so_that_one_of_them_stands_where_ours_does():
    table = pd.DataFrame({"network": ["a", "b", "c"], "macs": [100, 50, None], "error": [1.0, 2.0, 3.0]})
    points = costs.PublishedPoints.scaled(table, "macs", "error", "CIFAR-10", "b", 3.0)
    assert (list(points.cost), list(points.error)) == ([6.0, 3.0], [1.0, 2.0])
    assert (points.names, points.dataset, points.own_axis) == (["a", "b"], "CIFAR-10", True)
    with pytest.raises(InputError, match="No row has the macs and error of 'c'; there are a, b"):
        costs.PublishedPoints.scaled(table, "macs", "error", "CIFAR-10", "c", 3.0)
    with pytest.raises(InputError, match="lacks \\['ms'\\]"):
        costs.PublishedPoints.scaled(table, "ms", "error", "CIFAR-10", "b", 3.0)


def test_families_have_their_colours_without_a_line_too(ax):
    table = pd.DataFrame(
        {"network": ["a", "b", "c"], "macs": [1, 2, 3], "error": [3.0, 2.0, 1.0], "kind": ["x", "y", "x"]}
    )
    options = {"cost": "macs", "error": "error", "families": "kind", "joined": False}
    costs.published_panel(ax, table, **options)
    drawn = lines(ax, style.PUBLISHED["marker"])
    assert [drawn[name].get_color() for name in "abc"] == ["C0", "C1", "C0"]
    assert not any(len(line.get_xdata()) > 1 for line in ax.lines)
    costs.published_panel(ax, table, **{**options, "joined": True})
    assert any(len(line.get_xdata()) > 1 for line in ax.lines)


def test_published_points_on_our_axis_make_no_other(ax):
    points = costs.PublishedPoints([1000], [8.0], "CIFAR-10", own_axis=False)
    costs.cost_panel(ax, TABLE, cost="MACs", error="test error", published=points)
    assert ax.figure.axes == [ax]
    assert ax.lines[0].get_label() == "published"
    assert ax.dataLim.y0 == 8


def test_logarithmic_axes_have_plain_ticks():
    figure, axes = plt.subplots(1, 2)
    for ax, table in zip(axes, (TABLE[:-1], TABLE.assign(MACs=TABLE["MACs"] ** 2))):
        costs.cost_panel(ax, table, cost="MACs", error="test error")
    figure.canvas.draw()
    near, far = ([text.get_text() for text in ax.get_xticklabels()] for ax in axes)
    assert {"1000", "1500", "2000", "4000"} <= set(near)
    assert {"500k", "1000k", "2000k"} <= set(far)
    assert "1500k" not in far
    plt.close(figure)


def test_what_is_missing_is_named(ax):
    good = {"cost": "MACs", "error": "test error"}
    with pytest.raises(InputError, match=r"lacks \['time'\]"):
        costs.cost_panel(ax, TABLE, cost="time", error="test error")
    with pytest.raises(InputError, match="lacks rows"):
        costs.cost_panel(ax, TABLE.iloc[:0], **good)
    with pytest.raises(InputError, match="does not have: root-8"):
        costs.cost_panel(ax, TABLE, families={"root": ["plain", "root-8"]}, **good)
    with pytest.raises(InputError, match="seeds must be 'range' or 'sd', got 'all'"):
        costs.cost_panel(ax, TABLE, seeds="all", **good)
    with pytest.raises(InputError, match=r"lacks \['kind'\]"):
        costs.cost_panel(ax, TABLE, families="kind", **good)


# ---- published -------------------------------------------------------------------------------------------------------


def test_accuracies_become_errors_and_rows_without_numbers_are_left_out(ax):
    table = pd.DataFrame(
        {
            "network": ["net a", "net b", "net c", "net d"],
            "macs": [1e6, 2e6, np.nan, 3e6],
            "top5_acc": [0.9, 0.8, 0.7, None],
        }
    )
    costs.published_panel(ax, table, cost="macs", error="top5_acc", scale=1e6, unit="million", dataset="ImageNet")
    found = lines(ax, "o")
    assert {name: tuple(line.get_xydata()[0]) for name, line in found.items()} == {
        "net a": (1, pytest.approx(10)),
        "net b": (2, pytest.approx(20)),
    }
    assert {line.get_markerfacecolor() for line in found.values()} == {"none"}
    assert [text.get_text() for text in ax.texts] == ["a", "b"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("million", "top-5 error on ImageNet, %, published")
    ax.clear()
    costs.published_panel(ax, table.assign(error=[5, 6, 7, 8]), cost="macs", error="error", labels=False)
    assert [line.get_ydata()[0] for line in lines(ax, "o").values()] == [5, 6, 8]
    assert not ax.texts
    with pytest.raises(InputError, match="No row has both"):
        costs.published_panel(ax, table.iloc[2:], cost="macs", error="top5_acc")


NIN = {
    kind: ["NiN Orig.", *(f"NiN {short}-{k}" for k in (2, 4, 8, 16))]
    for kind, short in (("root", "root"), ("tree", "tree"), ("column", "col"))
}


def test_the_published_networks_in_network(ax):
    table = published("deep-roots")
    nin = table[table["network"].str.startswith("NiN")]
    options = {"error": "accuracy", "families": NIN, "spread": {"NiN Orig.": 0.13}}
    costs.published_panel(ax, nin, cost="published_params", scale=1e3, **options)
    assert len(lines(ax, "o")) == 13
    joined = [line for line in ax.lines if line.get_alpha() == 0.6]
    assert [len(line.get_xdata()) for line in joined] == [5, 5, 5]
    (bar,) = [line for line in ax.lines if line.get_marker() == "_"]
    np.testing.assert_allclose(bar.get_ydata(), 100 * (1 - 0.921125) + np.array([-0.13, 0.13]))
    np.testing.assert_allclose(bar.get_xdata(), 966.986)
    assert [text.get_text() for text in ax.texts][:2] == ["Orig.", "root-2"]
    assert apart(ax)


@pytest.mark.parametrize("start", ["ResNet-50", "GoogLeNet", "ResNet-200", "AlexNet"])
def test_every_other_table_of_deep_roots_has_labels_that_keep_apart(start):
    table = published("deep-roots")
    rows = table[table["network"].str.startswith(start)]
    columns = ["published_params", "published_macs", "gpu_ms_per_image", "cpu_ms_per_image"]
    columns = [each for each in columns if rows[each].notna().all()]
    assert len(columns) == (4 if start in ("ResNet-50", "GoogLeNet") else 2)
    with plt.style.context("default"):
        use()
        figure, axes = plt.subplots(1, len(columns), figsize=(3.5 * len(columns), 3.5), sharey=True)
        for ax, column in zip(axes, columns):
            costs.published_panel(ax, rows, cost=column, error="top5_acc", families={"root": list(rows["network"])})
        assert apart(*axes)
    assert [ax.get_ylabel() for ax in axes] == ["top-5 error, %, published"] + [""] * (len(columns) - 1)
    plt.close(figure)


def test_the_state_of_the_art_has_names_twice_and_many_of_them():
    table = published("low-rank-filters")
    rows = table[~table["network"].str.contains("MIT|CIFAR")]
    with plt.style.context("default"):
        use()
        figure, axes = plt.subplots(1, 2, figsize=(14, 5), sharey=True)
        for ax, column in zip(axes, ("published_macs", "published_params")):
            costs.published_panel(ax, rows, cost=column, error="top5_acc", xscale="log", scale=1e6)
        twice = [line for line in axes[0].lines if line.get_label() == "sota-aug GoogLeNet"]
        assert sorted(line.get_xdata()[0] for line in twice) == [15910.5668, 229112.16192]
        assert len(axes[0].texts) == len(rows)
        assert apart(*axes)
    plt.close(figure)


# ---- layers ----------------------------------------------------------------------------------------------------------


def test_bars_of_a_layer_stand_side_by_side(ax):
    series = {"a": [3.0, 1.0, 2.0], "b": [1.0, 0.5, 4.0]}
    costs.layer_bars(ax, ["one", "two", "three"], series, "thousands")
    bars = {group.get_label(): group.patches for group in ax.containers}
    assert {name: [bar.get_height() for bar in group] for name, group in bars.items()} == series
    for place, (first, second) in enumerate(zip(*bars.values())):
        middles = [bar.get_x() + bar.get_width() / 2 for bar in (first, second)]
        assert np.mean(middles) == pytest.approx(place)
        assert first.get_x() + first.get_width() <= second.get_x() + 1e-9
    assert [text.get_text() for text in ax.get_xticklabels()] == ["one", "two", "three"]
    assert ax.get_ylabel() == "thousands"
    assert [(text.get_text(), text.get_color()) for text in ax.texts] == [("a", "C0"), ("b", "C1")]


def test_of_many_layers_every_fourth_is_named_and_bars_do_not_overlap(ax):
    names = [f"layer{k}" for k in range(53)]
    values = np.random.default_rng(0).uniform(1, 9, (2, 53))
    costs.layer_bars(ax, names, {"a": values[0], "b": values[1]}, "m", rotate=90)
    assert [text.get_text() for text in ax.get_xticklabels()] == names[::4]
    x = np.sort(np.array([(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]), axis=0)
    assert (x[1:, 0] >= x[:-1, 1] - 1e-9).all()
    ax.figure.canvas.draw()
    ticks = [text.get_window_extent() for text in ax.get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(ticks))


@pytest.mark.parametrize("values", [[9, 9, 9, 9, 1, 1], [1, 1, 9, 9, 9, 9], [9, 9, 2, 2, 9, 9], [9.0] * 6, [0.0] * 6])
def test_names_of_networks_stand_above_the_bars(ax, values):
    costs.layer_bars(ax, list("abcdef"), {"first": values, "second": values, "third": values}, "m")
    ax.figure.canvas.draw()
    words = [text.get_window_extent() for text in ax.texts]
    assert not any(bar.get_window_extent().overlaps(box) for bar in ax.patches for box in words if bar.get_height())
    assert apart(ax)
    whole = ax.bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0 for box in words)
    assert ax.get_ylim()[1] >= max(values)


@pytest.mark.parametrize(("names", "series"), [(["a"], {}), ([], {"x": []}), (["a", "b"], {"x": [1]})])
def test_values_that_do_not_fit_are_refused(ax, names, series):
    with pytest.raises(InputError, match="series must have a value for each"):
        costs.layer_bars(ax, names, series, "m")
