"""How many times as fast a cheaper network is, against how many times fewer operations it needs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from papertwin.figures.style import GREY, PUBLISHED, direct_label, plain_ticks

MARKERS = {"eager": "o", "channels_last": "s", "fastest": "^", "compile": "D"}
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6)


def speed_panel(ax: plt.Axes, table: pd.DataFrame) -> None:
    """Draw measured and published speed-ups; on the dashed line time falls as operations do, below 1 it rises.

    Args:
        ax: where.
        table: `network` (family, a space, variant), `way`, `MACs` (times fewer), `faster` (times as fast), `published
            CPU` and `published GPU` (the same, NaN where unknown); the standard networks themselves are left out.
    """
    shown = table[table["MACs"] > 1].copy()
    shown["family"] = shown["network"].str.partition(" ")[0]
    for column, marker in (("published CPU", "o"), ("published GPU", "v")):
        known = shown[shown["way"] == "eager"].dropna(subset=[column])
        ax.plot(known["MACs"], known[column], **{**PUBLISHED, "marker": marker}, label=column)
    for number, (family, rows) in enumerate(shown.groupby("family", sort=False)):
        for way, part in rows.groupby("way", sort=False):
            line = "-" if way == "eager" else "none"
            ax.plot(part["MACs"], part["faster"], MARKERS[way], ls=line, lw=0.8, ms=4.5, color=f"C{number}")
        last = rows[rows["way"] == "eager"].iloc[-1]
        direct_label(ax, last["MACs"], last["faster"], family, color=f"C{number}")
    for way in shown["way"].unique():
        ax.plot([], [], MARKERS[way], color="0.2", ls="none", ms=4.5, label=way.replace("_", " "))
    most = 1.1 * shown["MACs"].max()
    ax.plot([1, most], [1, most], "--", color=GREY, lw=0.8, zorder=0)
    ax.axhline(1, color=GREY, lw=0.8, zorder=0)
    ax.set(xscale="log", yscale="log", xlabel="times fewer multiply-accumulates", ylabel="times as fast")
    low, high = shown[["faster", "published CPU", "published GPU"]].min().min(), most
    plain_ticks(
        ax, [tick for tick in TICKS if 1 <= tick <= most], [tick for tick in TICKS if 0.8 * low <= tick <= high]
    )
    ax.set_ylim(0.9 * min(low, 1), np.nextafter(high, np.inf))
    ax.legend(fontsize=7.5, loc="upper left")
