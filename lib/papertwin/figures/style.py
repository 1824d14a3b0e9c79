"""The one style of every figure, and the marks that keep a figure honest."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

PUBLISHED = {"color": "0.55", "markerfacecolor": "none", "linestyle": "none", "marker": "o", "zorder": 1}
GREY = "0.45"


def use() -> None:
    """Apply the house style to every figure drawn from now on."""
    plt.style.use(Path(__file__).with_name("papertwin.mplstyle"))


def published(axes: Axes, x: Any, y: Any, **options: Any) -> None:
    """Draw the paper's published points as hollow grey markers behind ours."""
    axes.plot(x, y, **{**PUBLISHED, "label": "published", **options})


def stamp(figure: Figure, text: str) -> None:
    """Write on the figure itself that its data are simulated, synthetic or a substitute.

    Args:
        figure: the figure to stamp.
        text: for example "simulated data".
    """
    figure.supxlabel(text, x=0.995, ha="right", fontsize=7.5, color="#A03000", style="italic")


def plain_ticks(axes: Axes, x: Iterable[float] | None = None, y: Iterable[float] | None = None) -> None:
    """Give logarithmic axes just these ticks, written as 430k or 0.5 and not as powers of ten.

    Args:
        axes: where.
        x: ticks of the horizontal axis; None leaves it as it is.
        y: ticks of the vertical axis.
    """
    for axis, ticks in ((axes.xaxis, x), (axes.yaxis, y)):
        if ticks is not None:
            axis.set_major_locator(FixedLocator(list(ticks)))
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}" if v < 1e4 else f"{v / 1e3:.0f}k"))
            axis.set_minor_locator(NullLocator())


def direct_label(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """Name a line or a point where it is, in place of a legend box."""
    axes.annotate(
        text,
        (x, y),
        **{"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8.5, **options},
    )
