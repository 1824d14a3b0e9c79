"""What was published about the convolutional networks of three papers, in `published_counts.csv` beside this module.

Cards: conditional-networks (arXiv 1603.01250), deep-roots (1605.06489), low-rank-filters (1511.06744).
"""

from functools import cache
from pathlib import Path

import pandas as pd

from papertwin.errors import InputError

FILE = Path(__file__).with_name("published_counts.csv")
PLOT_ONLY = "plot data only"
# milliseconds of the 3×1 and the 1×3 filters of each layer of gmp-lr, CPU then GPU (arXiv 1511.06744, figure 6); the
# size of the batch is not given
GMP_LR_MS = {
    "conv1": ((246.8, 226.6), (2.23, 2.40)),
    "conv2": ((405.6, 391.4), (5.00, 5.04)),
    "conv3-1": ((372.1, 370.4), (2.98, 2.95)),
    "conv3-2": ((703.9, 695.4), (5.39, 5.38)),
    "conv4-1": ((323.3, 318.5), (2.55, 2.46)),
    "conv4-2": ((623.6, 614.9), (5.07, 4.45)),
    "conv5-1": ((156.0, 154.0), (1.74, 1.73)),
    "conv5-2": ((159.6, 161.3), (1.73, 1.74)),
}


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


def gmp_lr_times() -> pd.DataFrame:
    """Return the published milliseconds of each layer of gmp-lr, both filter sets together.

    Returns:
        Index: layer; columns `CPU ms` and `GPU ms`.
    """
    rows = {layer: [sum(cpu), sum(gpu)] for layer, (cpu, gpu) in GMP_LR_MS.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["CPU ms", "GPU ms"])


@cache
def _table() -> pd.DataFrame:
    """The file as a table, whole numbers as such."""
    table = pd.read_csv(FILE, comment="#")
    whole = {"published_macs": "int64", "published_params": "int64"}
    single = table["recipe"].str.extract(r"single-view MACs (\d+)", expand=False)
    return table.astype(whole).assign(single_view_macs=pd.to_numeric(single).astype("Int64"))
