"""How many times as fast a cheaper network is, against how many times fewer operations it needs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from papertwin.errors import InputError
from papertwin.figures.style import GREY, PUBLISHED, direct_label, plain_ticks

MARKERS = {"eager": "o", "channels_last": "s", "fastest": "^", "compile": "D"}
MEASURED, PUBLISHED_RATIOS = ("MACs", "faster"), ("published CPU", "published GPU")
COLUMNS = ("network", "way", *MEASURED, *PUBLISHED_RATIOS)
TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6)


def speed_panel(ax: plt.Axes, table: pd.DataFrame) -> None:
    """Draw measured and published speed-ups; on the dashed line time falls as operations do, below 1 it rises.

    Args:
        ax: where.
        table: `network` (family, a space, variant), `way`, `MACs` (times fewer), `faster` (times as fast), `published
            CPU` and `published GPU` (the same, NaN where unknown); the standard networks themselves are left out.

    Raises:
        InputError: a column is missing, a ratio is not above 0, a way is unknown, no row is left to draw, or a family
            has no row of the way "eager", by which it is named and joined.
    """
    shown = _shown(table)
    for column, marker in zip(PUBLISHED_RATIOS, "ov"):
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
    low, high = shown[["faster", *PUBLISHED_RATIOS]].min().min(), most
    plain_ticks(
        ax, [tick for tick in TICKS if 1 <= tick <= most], [tick for tick in TICKS if 0.8 * low <= tick <= high]
    )
    ax.set_ylim(0.9 * min(low, 1), np.nextafter(high, np.inf))
    ax.legend(fontsize=7.5, loc="upper left")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that are drawn, with the `family` of each; raise InputError where they cannot be."""
    missing = [each for each in COLUMNS if each not in table]
    if missing:
        raise InputError(f"The table must have the columns {', '.join(COLUMNS)}; it lacks {', '.join(missing)}.")
    for column in (*MEASURED, *PUBLISHED_RATIOS):
        values = table[column] if column in MEASURED else table[column].dropna()
        wrong = values[~((values > 0) & np.isfinite(values))].tolist()
        if wrong:
            raise InputError(f"{column} must be finite numbers above 0, got {wrong}.")
    shown = table[table["MACs"] > 1].copy()
    if shown.empty:
        raise InputError(
            f"The table must have a network that needs fewer operations, MACs above 1; got {len(table)} rows, none so."
        )
    unknown = sorted(set(shown["way"]) - set(MARKERS))
    if unknown:
        raise InputError(f"way must be one of {', '.join(MARKERS)}, got {', '.join(map(repr, unknown))}.")
    shown["family"] = shown["network"].str.partition(" ")[0]
    alone = sorted(set(shown["family"]) - set(shown.loc[shown["way"] == "eager", "family"]))
    if alone:
        raise InputError(f"Every family must have a row of the way 'eager', got none of {', '.join(alone)}.")
    return shown
