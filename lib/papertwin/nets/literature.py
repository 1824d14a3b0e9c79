"""What was published about the convolutional networks of three papers, in `published_counts.csv` beside this module.

Cards: conditional-networks (arXiv 1603.01250), deep-roots (1605.06489), low-rank-filters (1511.06744).
"""

from functools import cache
from pathlib import Path

import pandas as pd

from papertwin.errors import InputError

FILE = Path(__file__).with_name("published_counts.csv")
PLOT_ONLY = "plot data only"


def published(card: str | None = None) -> pd.DataFrame:
    """Return the published counts, accuracies and times, one row a network.

    Args:
        card: conditional-networks, deep-roots or low-rank-filters; None takes all three.

    Returns:
        Columns card, network, published_macs and published_params (whole numbers), top1_acc, top5_acc and accuracy
        (shares of 1), cpu_ms_per_image, gpu_ms_per_image, rebuilt_here, recipe, single_view_macs (where the published
        operations are those of several views). NaN where nothing was published.

    Raises:
        InputError: unknown card.
    """
    table = _table()
    if card is None:
        return table.copy()
    if card not in set(table["card"]):
        raise InputError(f"No card {card!r}: expected one of {', '.join(table['card'].unique())}.")
    return table[table["card"] == card].reset_index(drop=True)


@cache
def _table() -> pd.DataFrame:
    """The file as a table, whole numbers as such."""
    table = pd.read_csv(FILE, comment="#")
    whole = {"published_macs": "int64", "published_params": "int64"}
    single = table["recipe"].str.extract(r"single-view MACs (\d+)", expand=False)
    return table.astype(whole).assign(single_view_macs=pd.to_numeric(single).astype("Int64"))
