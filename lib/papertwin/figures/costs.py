"""Error against cost, of networks trained here and as published, and costs of layers; every point named where it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from papertwin.errors import InputError
from papertwin.figures import style
from papertwin.figures.labels import place_labels

SHARES = {"top1_acc": "top-1 error", "top5_acc": "top-5 error", "accuracy": "error"}  # columns of accuracies, 0 to 1
Families = Mapping[str, Sequence[str]] | str | None
Labels = Mapping[str, str] | bool


@dataclass(frozen=True)
class PublishedPoints:
    """Points of a publication, to be drawn in grey behind ours.

    Attributes:
        cost: (n,) in the unit of the axis.
        error: (n,) per cent.
        dataset: on which the errors were measured.
        names: (n,) written at the points; None writes none.
        own_axis: whether the errors have an axis of their own, at the right: they are not to be compared with ours.
    """

    cost: Sequence[float]
    error: Sequence[float]
    dataset: str
    names: Sequence[str] | None = None
    own_axis: bool = True

    @classmethod
    def scaled(cls, table: pd.DataFrame, cost: str, error: str, dataset: str, base: str, at: float) -> Self:
        """Take the rows of a publication that have a cost, scaled so that the network `base` stands at a given one.

        Args:
            table: `network`, costs and errors in per cent; a row a network.
            cost, error: columns.
            dataset: on which the errors were measured.
            base: network.
            at: where it is to stand, in the unit of the axis.

        Raises:
            InputError: a column is missing, or no row has the base's cost and error.
        """
        _check_columns(table, cost, error, "network")
        known = table.dropna(subset=[cost, error]).set_index("network")
        if base not in known.index:
            raise InputError(f"No row has the {cost} and {error} of {base!r}; there are {', '.join(known.index)}.")
        costs = known[cost].astype(float) / float(known.loc[base, cost]) * at
        return cls(costs.tolist(), known[error].tolist(), dataset, known.index.tolist())


def cost_panel(
    ax: plt.Axes,
    table: pd.DataFrame,
    *,
    cost: str,
    error: str,
    name: str = "network",
    families: Families = None,
    seeds: Literal["range", "sd"] = "range",
    published: PublishedPoints | None = None,
    labels: Labels = True,
    xscale: Literal["log", "linear"] = "log",
    scale: float = 1.0,
    unit: str | None = None,
) -> None:
    """Draw error against cost of networks trained here: a dot the mean over seeds, a line their spread.

    Args:
        ax: where.
        table: a row for each network and seed.
        cost: column; the mean over the seeds is drawn.
        error: column, per cent.
        name: column of the networks' names.
        families: family → its networks in the order in which a thin line joins them, a network may be in several; or
            the column that says so, joined by rising cost; None joins none.
        seeds: what the line is: from the best to the worst seed, or one standard deviation up and down.
        published: points drawn in grey behind.
        labels: network → what is written at its dot; True writes the name, False nothing.
        xscale: of the cost.
        scale: the cost is divided by it.
        unit: name of the axis; None takes the name of the column.

    Raises:
        InputError: a column or a network is missing, or `seeds` is unknown.
    """
    if seeds not in ("range", "sd"):
        raise InputError(f"seeds must be 'range' or 'sd', got {seeds!r}.")
    _check_columns(table, cost, error, name)
    groups = table.groupby(name, sort=False)
    points = pd.DataFrame({"x": groups[cost].mean() / scale, "y": groups[error].mean()})
    spread = groups[error].std().fillna(0) if seeds == "sd" else None
    points["low"] = groups[error].min() if spread is None else points["y"] - spread
    points["high"] = groups[error].max() if spread is None else points["y"] + spread
    _axes(ax, xscale, unit or cost, f"{error}, %")
    if published is not None:
        _behind(ax, published)
    colours = _join(ax, points, _families(points, table, name, families))
    for each, point in points.iterrows():
        ax.plot(*([point["x"]] * 2, [point["low"], point["high"]]), "-", color=colours[each], lw=0.8)
        ax.plot(point["x"], point["y"], "o", color=colours[each], label=str(each))
    _tick(ax, xscale)
    _name(ax, points, labels, colours)


def published_panel(
    ax: plt.Axes,
    table: pd.DataFrame,
    *,
    cost: str,
    error: str,
    name: str = "network",
    families: Families = None,
    joined: bool = True,
    spread: Mapping[str, float] | None = None,
    labels: Labels = True,
    xscale: Literal["log", "linear"] = "linear",
    scale: float = 1.0,
    unit: str | None = None,
    dataset: str = "",
) -> None:
    """Draw published errors against costs as hollow markers; rows without either are left out.

    Args:
        ax: where.
        table: a row for each network, as `papertwin.nets.published`, with other columns of costs if wanted.
        cost: column.
        error: column of errors in per cent, or one of the accuracies top1_acc, top5_acc and accuracy, shares of 1.
        name: column of the networks' names; a name that comes twice is a point each time.
        families: as in `cost_panel`.
        joined: whether a line joins the networks of a family, which have their colour either way.
        spread: network → standard deviation of its error, points.
        labels: as in `cost_panel`; True writes the names without what they all begin with.
        xscale: of the cost.
        scale: the cost is divided by it.
        unit: name of the axis; None takes the name of the column.
        dataset: on which the errors were measured.

    Raises:
        InputError: a column or a network is missing, or nothing is left to draw.
    """
    _check_columns(table, cost, error, name)
    rows = table.dropna(subset=[cost, error])
    if rows.empty:
        raise InputError(f"No row has both {cost} and {error}.")
    errors = 100 * (1 - rows[error]) if error in SHARES else rows[error]
    points = pd.DataFrame({"x": rows[cost].astype(float) / scale, "y": errors.astype(float)})
    points.index = rows[name]
    where = f" on {dataset}" if dataset else ""
    _axes(ax, xscale, unit or cost, f"{SHARES.get(error, error)}{where}, %, published")
    colours = _join(ax, points, _families(points, rows, name, families), style.PUBLISHED["color"], joined)
    for each, point in points.iterrows():
        if spread and each in spread:
            ends = point["y"] - spread[each], point["y"] + spread[each]
            ax.plot([point["x"]] * 2, ends, "-_", color=colours[each], lw=0.8)
        style.published(ax, point["x"], point["y"], color=colours[each], label=str(each))
    _tick(ax, xscale)
    _name(ax, points, _shortened(points.index) if labels is True else labels, colours)


def layer_bars(
    ax: plt.Axes,
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    unit: str,
    rotate: float = 60,
) -> None:
    """Draw what each layer costs in several networks, side by side; of more than 20 layers every so many are named.

    Args:
        ax: where.
        names: of the layers.
        series: network → one value a layer.
        unit: of the values.
        rotate: of the names, degrees.

    Raises:
        InputError: a network has another number of values, or there is nothing to draw.
    """
    if not series or not names or any(len(values) != len(names) for values in series.values()):
        sizes = ", ".join(f"{each}: {len(values)}" for each, values in series.items())
        raise InputError(f"series must have a value for each of the {len(names)} names, at least one; got {sizes}.")
    places, wide = np.arange(len(names)), 0.84 / len(series)
    for number, (network, values) in enumerate(series.items()):
        shift = wide * (number - (len(series) - 1) / 2)
        ax.bar(
            places + shift,
            values,
            0.94 * wide if len(names) <= 20 else wide,
            color=f"C{number % 7}",
            label=network,
            linewidth=0,
        )
    every = 1 if len(names) <= 20 else -(-len(names) // 14)
    slanted = {"ha": "right", "rotation_mode": "anchor"} if 0 < rotate < 90 else {}
    ax.set_xticks(places[::every], list(names)[::every], rotation=rotate, fontsize=8 if every == 1 else 7, **slanted)
    ax.set(ylabel=unit, xlim=(-0.6, len(names) - 0.4))
    _name_series(ax, series)


def _name_series(ax: plt.Axes, series: Mapping[str, Sequence[float]]) -> None:
    """Write the networks in their colours above that third of the layers whose bars are lowest."""
    highest = np.max([np.asarray(values, dtype=float) for values in series.values()], axis=0)
    thirds = [part.max() if len(part) else np.inf for part in np.array_split(highest, 3)]
    place = 2 - int(np.argmin(thirds[::-1]))
    room = 0.09 * len(series)  # part of the height that the names take, at most
    ax.set_ylim(0, max(1.05 * highest.max(), min(thirds) / (1 - room)) or 1.0)
    x, side = ((0.02, "left"), (0.5, "center"), (0.98, "right"))[place]
    for number, network in enumerate(series):
        ax.annotate(
            network,
            (x, 1.0),
            (0, -3 - 12 * number),
            xycoords="axes fraction",
            textcoords="offset points",
            ha=side,
            va="top",
            fontsize=8.5,
            color=f"C{number % 7}",
        )


def _check_columns(table: pd.DataFrame, *columns: str) -> None:
    """Check that a table has columns and rows."""
    missing = [each for each in columns if each not in table]
    if missing or table.empty:
        raise InputError(
            f"The table must have rows and the columns {', '.join(columns)}; it lacks {missing or 'rows'}."
        )


def _families(points: pd.DataFrame, table: pd.DataFrame, name: str, families: Families) -> dict[str, list[str]]:
    """Networks of each family, in the order in which a line joins them."""
    if families is None:
        return {}
    if isinstance(families, str):
        _check_columns(table, families)
        members = {key: list(dict.fromkeys(rows[name])) for key, rows in table.groupby(families, sort=False)}
        return {key: sorted(each, key=lambda one: float(points.loc[[one], "x"].min())) for key, each in members.items()}
    missing = [each for members in families.values() for each in members if each not in points.index]
    if missing:
        raise InputError(f"families name networks that the table does not have: {', '.join(missing)}.")
    return {key: list(members) for key, members in families.items()}


def _join(
    ax: plt.Axes, points: pd.DataFrame, families: dict[str, list[str]], alone: str = "0.2", joined: bool = True
) -> dict[str, str]:
    """Join the networks of each family by a thin line; return the colour of each network, its first family's."""
    colours: dict[str, str] = {}
    for number, members in enumerate(families.values()):
        line = points.loc[members if joined else []]
        ax.plot(line["x"], line["y"], "-", color=f"C{number % 7}", lw=0.7, alpha=0.6, zorder=0.5)
        for each in members:
            colours.setdefault(each, f"C{number % 7}")
    shared = {each for each in colours if sum(each in members for members in families.values()) > 1}
    return {each: alone if each in shared else colours.get(each, alone) for each in points.index}


def _name(ax: plt.Axes, points: pd.DataFrame, labels: Labels, colours: Mapping[str, str]) -> None:
    """Write the networks at their points, in darker letters of their colours."""
    if labels is False:
        return
    texts = [str(each) if labels is True else labels.get(each, "") for each in points.index]
    hues = ["0.25" if colours[each] == style.PUBLISHED["color"] else colours[each] for each in points.index]
    place_labels(ax, points["x"].tolist(), points["y"].tolist(), texts, colours=hues)


def _behind(ax: plt.Axes, points: PublishedPoints) -> None:
    """Draw published points in grey behind ours, with an axis of their own where the errors are on other images."""
    where = ax
    if points.own_axis:
        where = ax.twinx()
        ax.set_zorder(where.get_zorder() + 1)
        ax.patch.set_visible(False)
        where.set_ylabel(f"published error on {points.dataset}, %", color=style.GREY)
        where.tick_params(axis="y", colors=style.GREY)
        where.spines["right"].set(visible=True, color=style.GREY)
        where.margins(y=0.15)
    style.published(where, list(points.cost), list(points.error))
    if points.names is not None:
        place_labels(where, list(points.cost), list(points.error), list(points.names), colours=style.GREY)


def _axes(ax: plt.Axes, xscale: str, cost: str, error: str) -> None:
    """Name the axes, the vertical one only where no axes at the left share it, with room for labels at the ends."""
    ax.set(xscale=xscale, xlabel=cost)
    ax.margins(x=0.12, y=0.12)
    spec = ax.get_subplotspec()
    if spec is None or spec.is_first_col() or len(ax.get_shared_y_axes().get_siblings(ax)) == 1:
        ax.set_ylabel(error)


def _tick(ax: plt.Axes, xscale: str) -> None:
    """Give the axis of costs few ticks, plain numbers on a logarithmic one as well."""
    if xscale == "linear":
        ax.locator_params(axis="x", nbins=6)
        return
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 12 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1e4 else f"{value / 1e3:g}k"))
    ax.xaxis.set_minor_locator(NullLocator())


def _shortened(names: Sequence[str]) -> dict[str, str]:
    """Names without the words that they all begin with."""
    split = [str(each).split(" ") for each in names]
    same = 0
    while all(len(words) > same + 1 for words in split) and len({words[same] for words in split}) == 1:
        same += 1
    return {each: " ".join(words[same:]) for each, words in zip(names, split)}
