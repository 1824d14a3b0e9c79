"""Diagrams of filter groups and of low-rank filters, after those of arXiv 1605.06489 and 1511.06744.

Every number is read from the layer or counted on it; weights need not be there (the meta device will do). Maps are
blocks, channels to the right; each filter group or set has its own colour, grey filters see all that lies before them.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from papertwin.errors import InputError
from papertwin.figures import architectures
from papertwin.figures.board import FAINT, GREY, LINE, WIDE, Point, arrow, box, canvas, cuboid, word

if TYPE_CHECKING:
    from torch import nn

ROWS = 4  # groups drawn, of more the first two and the last
NOTE, WORDS = 7.5, 7.0  # points
BOTTOM, TOP = 2.3, 8.6  # of what is drawn, between the title and the words below
MIXING = "0.35"  # filters that see all channels of several groups or sets


# ---- filter groups ---------------------------------------------------------------------------------------------------


def convolution(ax: plt.Axes, layer: "nn.Conv2d", side: int) -> None:
    """Draw a convolution as maps, filters, maps, each filter group beside the others; parameters and cost below.

    Args:
        ax: where.
        layer: with or without filter groups.
        side: pixels of its input.
    """
    from papertwin.nets import count

    counts = count(layer, (layer.in_channels, side, side))
    (made,) = counts.layers
    groups, after = layer.groups, made.output[1]
    canvas(ax, "convolution" if groups == 1 else f"convolution, {groups} filter groups")
    deep = 2.0 / max(layer.in_channels, layer.out_channels)
    inner, outer = (deep * channels / groups for channels in (layer.in_channels, layer.out_channels))
    for y, room, number in _rows(groups):
        colour, high = f"C{number % 7}", min(3.0, (room - 0.3) / 1.25)
        before_high, after_high = (high * each / max(side, after) for each in (side, after))
        start = _maps(ax, 1.5, y, inner, before_high, colour)
        end = _filters(ax, 5.6, y, inner, layer.kernel_size, colour, room)
        _maps(ax, 9.8, y, outer, after_high, colour)
        arrow(ax, (start, y), (5.4 - inner / 2, y))
        arrow(ax, (end, y), (9.65 - outer / 2, y))
    _omitted(ax, groups, 1.5, 5.6, 9.8)
    maps = f"{_shared(layer.in_channels, groups)} maps", f"{_shared(layer.out_channels, groups)} maps"
    _columns(ax, [(1.7, f"{maps[0]}\n{side}×{side}"), (5.7, _named(layer)), (10.0, f"{maps[1]}\n{after}×{after}")])
    word(ax, WIDE / 2, 0.45, f"{counts.params:,} parameters, {counts.macs:,} multiply-accumulates", fontsize=NOTE)


def root_module(ax: plt.Axes, module: "nn.Sequential", side: int | None = None) -> None:
    """Draw a root module: filters in groups, then 1×1 filters that see the maps of all groups.

    Args:
        ax: where.
        module: of `papertwin.nets.root_module`; one group is the plain form.
        side: pixels of its input, for the count of its operations; None leaves that out.
    """
    from papertwin.nets import count

    grouped, join, groups = module.grouped, module.join, module.grouped.groups
    canvas(ax, "plain module" if groups == 1 else f"root-{groups} module")
    deep, y = 1.2 / max(grouped.in_channels, grouped.out_channels, join.out_channels), (TOP + BOTTOM) / 2
    inner, middle, outer = (deep * each for each in (grouped.in_channels, grouped.out_channels, join.out_channels))
    for level, room, number in _rows(groups):
        high, colour = min(2.2, (room - 0.3) / 1.25), f"C{number % 7}"
        start = _maps(ax, 0.8, level, inner / groups, high, colour)
        end = _filters(ax, 3.1, level, inner / groups, grouped.kernel_size, colour, room)
        out = _maps(ax, 5.6, level, middle / groups, high, colour)
        arrow(ax, (start, level), (2.9 - inner / groups / 2, level))
        arrow(ax, (end, level), (5.5 - middle / groups / 2, level))
        arrow(ax, (out, level), (8.0 - middle / 2, y), color=GREY)
    _omitted(ax, groups, 0.8, 3.1, 5.6)
    end = _filters(ax, 8.2, y, middle, join.kernel_size, MIXING, TOP - BOTTOM)
    _maps(ax, 10.7, y, outer, 2.2, MIXING)
    arrow(ax, (end, y), (10.6 - outer / 2, y))
    maps = (grouped.in_channels, groups), (grouped.out_channels, groups), (join.out_channels, 1)
    _columns(ax, [(x, f"{_shared(*each)}\nmaps") for x, each in zip((1.0, 5.8, 10.8), maps)])
    _columns(ax, [(3.2, _named(grouped)), (8.3, _named(join))])
    counted = f"{sum(each.numel() for layer in (grouped, join) for each in layer.parameters()):,} parameters"
    if side is not None:
        counted += f", {count(module, (grouped.in_channels, side, side)).macs:,} multiply-accumulates"
    word(ax, WIDE / 2, 0.8, counted, fontsize=NOTE)
    after = {"norm": "normalisation", "relu": "ReLU"}
    said = " and ".join(name for key, name in after.items() if hasattr(module, f"grouped_{key}"))
    word(ax, WIDE / 2, 0.2, f"{said} after both" if said else "nothing between", fontsize=NOTE)


def topology(ax: plt.Axes, model: "nn.Module", title: str) -> None:
    """Draw the convolutions and dense layers of a network, the input at the bottom, cut into their filter groups.

    Args:
        ax: where.
        model: the network.
        title: of the drawing.
    """
    from torch import nn

    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    if not found:
        raise InputError(f"A network must have a convolution or a dense layer, got a {type(model).__name__} with none.")
    kernels = {
        name: f"{name}  {_sides(layer)}" if isinstance(layer, nn.Conv2d) else name for name, layer in found.items()
    }
    architectures.layers(ax, {kernels[name]: layer for name, layer in found.items()}, title)


def _rows(groups: int) -> Iterator[tuple[float, float, int]]:
    """Middle, height and number of each group that is drawn, from above."""
    shown = list(range(groups)) if groups <= ROWS else [0, 1, groups - 1]
    places = np.arange(len(shown)) if groups <= ROWS else np.array([0, 1, 3])
    room = (TOP - BOTTOM) / (places[-1] + 1)
    for place, number in zip(places, shown):
        yield TOP - (place + 0.5) * room, room, number


def _omitted(ax: plt.Axes, groups: int, *across: float) -> None:
    """Say with dots that groups are left out between the second and the last."""
    if groups > ROWS:
        for x in across:
            word(ax, x, TOP - 2.5 * (TOP - BOTTOM) / 4, "⋮", fontsize=11)


def _maps(ax: plt.Axes, x: float, y: float, deep: float, high: float, colour: str) -> float:
    """Draw maps whose front is centred at x; return where an arrow from them starts."""
    cuboid(ax, x - deep / 2, y - 0.6 * high, deep, high, high, colour)
    return x + deep / 2 + 0.28 * high + 0.15


def _filters(ax: plt.Axes, x: float, y: float, deep: float, kernel: Point, colour: str, room: float) -> float:
    """Draw two of the filters of a layer, as deep as the maps that they see; return where an arrow from them starts."""
    unit = min(0.2, 0.35 * room / max(kernel))
    high, wide = (unit * side for side in kernel)
    for shift in (0.3, 0.0):
        cuboid(ax, x - deep / 2 + shift, y - high / 2 + shift * min(1, room / 1.8) - 0.1, deep, high, wide, colour)
    return x + deep / 2 + 0.45 + 0.28 * wide


def _columns(ax: plt.Axes, labels: Sequence[tuple[float, str]]) -> None:
    """Name the columns of a drawing below them."""
    for x, text in labels:
        word(ax, x, BOTTOM - 0.2, text, va="top", fontsize=WORDS)


def _shared(count: int, groups: int) -> str:
    """A number, or that of each group: 64, or 4 × 16."""
    return f"{count}" if groups == 1 else f"{groups} × {count // groups}"


def _sides(layer: "nn.Conv2d") -> str:
    """Height and width of a kernel: 3×1."""
    return "×".join(str(side) for side in layer.kernel_size)


def _named(layer: "nn.Conv2d") -> str:
    """Number and shape of the filters of a layer: height × width × the channels that each sees."""
    seen = layer.in_channels // layer.groups
    return f"{_shared(layer.out_channels, layer.groups)} filters\n{_sides(layer)}×{seen}"


# ---- which inputs are seen -------------------------------------------------------------------------------------------


def connection_map(ax: plt.Axes, layer: "nn.Module", channels: int, title: str = "") -> None:
    """Draw which inputs each kind of filter sees: a row a kind, a window of pixels for each channel.

    Args:
        ax: where.
        layer: convolutions, composite layers and ReLUs; best of few channels and filters.
        channels: of its input.
        title: of the drawing.
    """
    from papertwin.nets.equivalent import seen_inputs

    seen = seen_inputs(layer, channels).numpy()
    kinds, first, many = np.unique(seen.reshape(len(seen), -1), axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    high, wide = seen.shape[2:]
    pitch, step, left = wide + 0.8, high + 1.6, 0.3 * (wide + 0.8) * channels
    canvas(ax, title, left + pitch * channels, step * len(order) + 0.7)
    ax.set_anchor("N")
    for row, kind in enumerate(order):
        low, window = step * (len(order) - 1 - row) + 0.3, kinds[kind].reshape(seen.shape[1:])
        corners = [(left + pitch * c + x, low + high - 1 - y) for c, y, x in np.ndindex(window.shape)]
        colour = _shape_colour(*_extent(window)) if window.any(axis=(1, 2)).all() else f"C{row % 7}"
        style = {"facecolors": [colour if on else "w" for on in window.ravel()], "edgecolors": GREY, "linewidths": 0.5}
        ax.add_collection(PatchCollection([Rectangle(corner, 1, 1) for corner in corners], **style))
        said = f"{many[kind]} filters\nsee" if many[kind] > 1 else "1 filter\nsees"
        text = f"{said} {window.sum()}\nof {window.size}"
        word(ax, left - 0.4, low + high / 2, text, ha="right", fontsize=WORDS)
    top = step * len(order) - 0.5
    for channel in range(channels):
        word(ax, left + pitch * channel + wide / 2, top, f"{channel + 1}", fontsize=WORDS)
    word(ax, left - 0.4, top, "channel", ha="right", fontsize=WORDS)


def _extent(window: np.ndarray) -> tuple[int, int]:
    """Height and width of the pixels that are seen of (c, h, w)."""
    rows, columns = (np.flatnonzero(window.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def _shape_colour(high: int, wide: int) -> str:
    """Of filters by their shape: upright, flat, a point, or full."""
    if (high, wide) == (1, 1):
        return MIXING
    return "C0" if high > wide else "C1" if wide > high else "C2"


# ---- low-rank schemes ------------------------------------------------------------------------------------------------

SCHEMES = {"full": "full 3×3", "separable": "separable", "lr": "low-rank sets side by side", "lr-join": "… with a join"}
Stage = Sequence["nn.Conv2d"]  # side by side
HIGH_MAPS, SQUARE = 1.6, 1.2  # of maps, of the square in which a kernel is drawn


def scheme(ax: plt.Axes, layer: "str | nn.Module", title: str | None = None) -> None:
    """Draw what stands for a layer of filters: its filters, one after the other or side by side, and the ReLU.

    Args:
        ax: where.
        layer: a convolution, a separable pair, a composite layer, or the name of one of 64 channels and filters: full,
            separable, lr or lr-join.
        title: of the drawing; None takes that of the name.

    Raises:
        InputError: an unknown name.
    """
    if isinstance(layer, str):
        if layer not in SCHEMES:
            raise InputError(f"scheme must be a layer or one of {', '.join(SCHEMES)}, got {layer!r}.")
        title, layer = SCHEMES[layer] if title is None else title, _example(layer)
    _flow(ax, _stages(layer), title or "", symbols=False)


def composite(ax: plt.Axes, layer: "nn.Module", title: str = "composite layer") -> None:
    """Draw a composite layer: its filter sets, their maps side by side, the join if there is one, what a pixel costs.

    Args:
        ax: where.
        layer: a `papertwin.nets.Composite`.
        title: of the drawing.
    """
    _flow(ax, _stages(layer), title, symbols=True)


def _example(name: str) -> "nn.Module":
    """A layer of 64 channels and 64 filters, without weights."""
    import torch

    from papertwin import nets

    with torch.device("meta"):
        if name == "full":
            return nets.convolution(64, 64, 3)
        return nets.separable(64, 64) if name == "separable" else nets.low_rank_layer(64, 64, name)


def _stages(layer: "nn.Module") -> list[Stage]:
    """Convolutions of a layer: those side by side in one list, lists one after the other."""
    from torch import nn

    from papertwin.nets import Composite

    if isinstance(layer, nn.Conv2d):
        return [[layer]]
    if isinstance(layer, Composite):
        return [list(layer.sets.values()), *([] if layer.join is None else [[layer.join]])]
    if isinstance(layer, nn.Sequential) and all(isinstance(each, nn.Conv2d) for each in layer):
        return [[each] for each in layer]
    raise InputError(
        f"Expected a convolution, a chain of convolutions or a papertwin.nets.Composite, got a {type(layer).__name__}."
    )


def _flow(ax: plt.Axes, stages: Sequence[Stage], title: str, symbols: bool) -> None:
    """Draw maps, filters, maps … and the ReLU, from left to right, and what a pixel costs."""
    canvas(ax, title)
    middle, channels = (TOP + BOTTOM) / 2, stages[0][0].in_channels
    cells = max(3, *(max(each.kernel_size) for stage in stages for each in stage))
    deep = 0.9 / max(channels, *(sum(each.out_channels for each in stage) for stage in stages))
    sizes = [[deep * channels], *([deep * each.out_channels for each in stage] for stage in stages)]
    solids = [sum(each) + 0.28 * HIGH_MAPS for each in sizes]
    gap = (WIDE - 0.2 - sum(solids) - SQUARE * len(stages) - 1.2) / (2 * len(stages) + 1)
    x = _stack(ax, 0.1, sizes[0], [LINE], f"$c$ = {channels}\nmaps" if symbols else f"{channels}\nmaps")
    mixing = False
    for stage, parts in zip(stages, sizes[1:]):
        colours = [MIXING if mixing else _shape_colour(*each.kernel_size) for each in stage]
        at, after, room = x + gap + SQUARE / 2, x + 2 * gap + SQUARE, (TOP - BOTTOM) / len(stage)
        for place, (layer, colour) in enumerate(zip(stage, colours)):
            y = TOP - (place + 0.5) * room
            symbol = ("$d$ = " if mixing else f"$d_{place + 1}$ = ") if symbols else ""
            half = _kernel(ax, (at, y), layer, (cells, room), colour, symbol) / 2 + 0.1
            arrow(ax, (x + 0.05, middle), (at - half, y), color=GREY)
            arrow(ax, (at + half, y), (after - 0.08, middle), color=GREY)
        symbol = "$m$ = " if symbols and stage is not stages[-1] else ""
        x = _stack(ax, after, parts, colours, f"{symbol}{_summed(stage, symbols)}\nmaps")
        mixing = len(stage) > 1
    arrow(ax, (x + 0.05, middle), (x + gap - 0.05, middle), color=GREY)
    box(ax, x + gap + 0.6, middle, "ReLU", 1.2, 0.9)
    _cost(ax, stages, symbols)


def _summed(stage: Stage, total: bool) -> str:
    """Filters of a stage: of each set, 32 + 32, or of all."""
    counts = [layer.out_channels for layer in stage]
    return str(sum(counts)) if total or len(counts) > 2 else " + ".join(map(str, counts))


def _stack(ax: plt.Axes, left: float, sizes: Sequence[float], colours: Sequence[str], text: str) -> float:
    """Draw maps side by side, named below; return where they end."""
    low, x = (TOP + BOTTOM) / 2 - 0.6 * HIGH_MAPS, left
    for size, colour in zip(sizes, colours):
        cuboid(ax, x, low, size, HIGH_MAPS, HIGH_MAPS, colour)
        x += size
    word(ax, (left + x) / 2 + 0.1, low - 0.3, text, va="top", fontsize=WORDS)
    return x + 0.28 * HIGH_MAPS


def _kernel(ax: plt.Axes, at: Point, layer: "nn.Conv2d", space: tuple[int, float], colour: str, symbol: str) -> float:
    """Draw the shape of the filters of a layer in a square, named below.

    Args:
        ax: where.
        at: middle of the square.
        layer: of these filters.
        space: cells along a side of the square, and the height that square and name share.
        colour: of the cells that a filter has.
        symbol: written before their number.

    Returns:
        Side of the square.
    """
    (high, wide), (many, room) = layer.kernel_size, space
    cell = min(SQUARE, room - 1.0) / many
    corner = at[0] - many * cell / 2, at[1] - many * cell / 2
    up, left = (many - high) // 2, (many - wide) // 2
    for row, column in np.ndindex(many, many):
        on = up <= row < up + high and left <= column < left + wide
        place = corner[0] + column * cell, corner[1] + (many - 1 - row) * cell
        style = {"fc": colour, "ec": "w", "lw": 0.8, "zorder": 3} if on else {"fc": "none", "ec": FAINT, "lw": 0.5}
        ax.add_patch(Rectangle(place, cell, cell, **style))
    word(ax, at[0], corner[1] - 0.12, f"{symbol}{_named(layer)}", va="top", fontsize=WORDS)
    return many * cell


def _cost(ax: plt.Axes, stages: Sequence[Stage], symbols: bool) -> None:
    """Write the weights of a layer as a sum: what a pixel of its output costs where nothing strides."""
    terms = []
    for stage in stages:
        shapes = [f"{_sides(each)}×{each.out_channels}" for each in stage]
        seen = stage[0].in_channels // stage[0].groups
        terms.append(f"{seen}×({' + '.join(shapes)})" if len(shapes) > 1 else f"{seen}×{shapes[0]}")
    total = sum(each.weight.numel() for stage in stages for each in stage)
    strides = {step for stage in stages for each in stage for step in each.stride}
    meaning = "multiply-accumulates a pixel, biases left out" if strides == {1} else "weights"
    word(ax, WIDE / 2, 0.85, f"{' + '.join(terms)} = {total:,}", fontsize=NOTE)
    formula = r"$c\,\Sigma_s\, h_s w_s d_s$" + (r" $+\; m\,d$" if len(stages) > 1 else "") + ": " if symbols else ""
    word(ax, WIDE / 2, 0.25, f"{formula}{meaning}", fontsize=NOTE)
