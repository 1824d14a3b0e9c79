"""What was measured for each claim of Deep Roots; the rules stand in `deep_roots.toml`.

Part of `papertwin.papers.deep_roots`, whose trials and tables come in here.
"""

import numpy as np
import pandas as pd

from papertwin.claims import Measured, exact_shares, median_ratio, over_seeds
from papertwin.nets.comparing import above_front, paired
from papertwin.papers.deep_roots import FAMILIES, STANDARD, Params, block_gain, block_surplus, results

IMAGENET = Measured(None, note="needs ImageNet, which is not here and takes weeks to train on")
CIFAR = Measured(None, note="needs CIFAR-10 at its own size and width: profile paper, with your copy of the data")
NO_GPU = Measured(None, note="times here are those of a processor; a GPU was not measured")


def parameters_saved(table: pd.DataFrame) -> Measured:
    """C4a: exact counts and what is left, with what the publication's rule leaves out in the note."""
    found = exact_shares(table, {("root-32", "Orig.", "params"): 0.56})
    true = 1 - table.loc["root-32", "true_params"] / table.loc["Orig.", "true_params"]
    return Measured(found.value, note=f"{found.note}; of all its parameters it saves {true:.1%}")


def operations_saved(table: pd.DataFrame) -> Measured:
    """C4b: per cent of the operations of an image that ResNet-200 root-32 saves."""
    true, printed = (1 - table.loc["root-32", key] / table.loc["Orig.", key] for key in ("true_macs", "macs"))
    note = f"the published count, which multiplies by the filters twice, falls by {printed:.1%}"
    return Measured(100 * true, note=f"{note}; one image takes {table.loc['root-32', 'true_macs'] / 1e9:.2f} billion")


def alexnet_counts(table: pd.DataFrame) -> Measured:
    """C6a: all counts of the three networks."""
    return Measured(bool(table["exact"].all()) and len(table) == 3, note=f"{len(table)} networks")


def alexnet_weights(table: pd.DataFrame) -> Measured:
    """C6c: per cent of the parameters that two groups save."""
    params, macs = (table.loc["no groups", key] / table.loc["2 groups", key] for key in ("params", "macs"))
    return Measured(100 * (1 - 1 / params), note=f"ungrouped it has {macs - 1:.1%} more multiply-accumulates")


def root_loses_little(table: pd.DataFrame) -> Measured:
    """C1b, C1c: error of root-8 minus that of the standard network, points."""
    return over_seeds(paired(table, "root-8", STANDARD), "error, points")


def root_beats_others(table: pd.DataFrame) -> Measured:
    """C2a, C2b: points by which columns and trees are worse than the front of roots at equal cost."""
    prices, numbers = [], []
    for _, rows in table.groupby("seed"):
        roots = rows["kind"].isin(["root", STANDARD])
        price, number = above_front(rows[~roots], rows[roots])
        prices.append(price)
        numbers.append(number)
    return over_seeds(np.array(prices), f"points; networks compared {', '.join(map(str, numbers))}")


def at_full_size(params: Params, found: Measured) -> Measured:
    """What was measured at the paper's own size and data; nothing otherwise."""
    return found if params.at_full_size else CIFAR


def faster(times: pd.DataFrame, first: str, second: str) -> Measured:
    """C1d, C3c, C5c: time of the first network over that of the second, plain torch, one image.

    Args:
        times: rounds × (network, batch, way), milliseconds an image.
        first, second: networks.
    """
    batch = min(times.columns.get_level_values("batch"))
    way = "fastest" if (first, batch, "fastest") in times else "channels_last"
    best = times[first, batch, way].median() / times[second, batch, way].median()
    ms = [times[name, batch, "eager"].median() for name in (first, second)]
    note = f"{ms[0]:.1f} and {ms[1]:.1f} ms, batch {batch}; {best:.2f} in the way {way}"
    return median_ratio(times[first, batch, "eager"] / times[second, batch, "eager"], note)


def blocks_are_seen(table: pd.DataFrame) -> Measured:
    """C7a: contrast of the blocks of root-4 and root-8 minus that of the standard network, the smaller one."""
    means = table.groupby(["network", "blocks"], sort=False)["contrast"].mean()
    each = ", ".join(f"{name} with {blocks} blocks {value:.2f}" for (name, blocks), value in means.items())
    judged = table[table["network"] != STANDARD]
    start = f"before training the blocks have {judged['before training'].mean():.2f}"
    return over_seeds(block_gain(table), f"contrast; {each}; {start}")


def blocks_beat_chance(table: pd.DataFrame) -> Measured:
    """C7b: contrast of the blocks of root-4 and root-8 beyond that of permuted columns, the smaller one."""
    return over_seeds(block_surplus(table), "contrast")


def every_claim(
    params: Params, table: pd.DataFrame, contrasts: pd.DataFrame, times: pd.DataFrame
) -> dict[str, Measured]:
    """What was measured for each claim of the ledger.

    Args:
        params: of the run.
        table: of trials.
        contrasts: of the blocks.
        times: rounds × (network, batch, way), milliseconds an image.
    """
    nin, resnet50, resnet200, googlenet, alexnet = (results(family) for family in FAMILIES)
    little, beats = root_loses_little(table), root_beats_others(table)
    nin_shares = {("root-8", "Orig.", "params"): 0.33, ("root-8", "Orig.", "macs"): 0.46}
    resnet50_shares = {("root-64", "Orig.", "params"): 0.60, ("root-64", "Orig.", "macs"): 0.55}
    resnet50_shares |= {("root-16", "Orig.", "params"): 0.73, ("root-16", "Orig.", "macs"): 0.63}
    googlenet_shares = {("root-8", "Orig.", "params"): 0.93, ("root-8", "Orig.", "macs"): 0.56}
    unknown = dict.fromkeys(("C3b", "C5b", "C6b"), IMAGENET) | dict.fromkeys(("C1e", "C3d", "C5d"), NO_GPU)
    return unknown | {
        "C1a": exact_shares(nin, nin_shares),
        "C1b": at_full_size(params, little),
        "C1c": little,
        "C1d": faster(times, "NiN root-8", "NiN Orig."),
        "C2a": at_full_size(params, beats),
        "C2b": beats,
        "C3a": exact_shares(resnet50, resnet50_shares),
        "C3c": faster(times, "ResNet-50 root-64", "ResNet-50 Orig."),
        "C4a": parameters_saved(resnet200),
        "C4b": operations_saved(resnet200),
        "C5a": exact_shares(googlenet, googlenet_shares),
        "C5c": faster(times, "GoogLeNet root-8", "GoogLeNet Orig."),
        "C6a": alexnet_counts(alexnet),
        "C6c": alexnet_weights(alexnet),
        "C7a": blocks_are_seen(contrasts),
        "C7b": blocks_beat_chance(contrasts),
    }
