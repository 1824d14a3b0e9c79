"""What was measured for each claim on conditional networks; the rules stand in `conditional_networks.toml`.

Part of `papertwin.papers.conditional_networks`, whose trials and tables come in here.
"""

import numpy as np
import pandas as pd

from papertwin.claims import Measured, median_ratio, over_seeds
from papertwin.nets.comparing import paired
from papertwin.papers.conditional_networks import Ensemble, price_of_shrinking
from papertwin.papers.conditional_networks_routes import SHOWN, Perceptron, cheap_tree
from papertwin.training.trials import Trial

LEAST = 3  # seeds
WIDE = 36_657_000  # published parameters of the variant with 1024 filters in conv5-2
FILE_SLACK = 4096  # bytes of a model file that are no weights
FILES = {"CIFAR NiN": 3_869_859, "CIFAR NiN-64": 5_060_805, "CIFAR optimal conditional": 503_099}
AT_SCALE = Measured(None, note="needs ImageNet, which is not here and takes weeks to train on")
CIFAR = Measured(None, note="needs CIFAR-10 at its own size: profile paper, with your copy of the data")


def _exact(table: pd.DataFrame, names: list[str]) -> bool:
    return bool(table.loc[names, "exact"].all())


def pooling_saves(table: pd.DataFrame, wide: int) -> Measured:
    """C1a: exact parameters of both networks and of the text's variant, and the shares removed."""
    names = ["VGG11 stride1", "*VGG-11 GMP stride1"]
    plain, pooled = table.loc[names, "params"]
    shares = 1 - wide / plain, 1 - pooled / plain
    good = _exact(table, names) and wide == WIDE and [round(share, 2) for share in shares] == [0.72, 0.76]
    return Measured(good, note=f"{shares[0]:.1%} by the variant with 1024 filters, {shares[1]:.1%} by the table's")


def conditional_saves(table: pd.DataFrame) -> Measured:
    """C2a: exact counts of both networks, and both ratios."""
    names = ["VGG11 stride1", "Cond. Network stride1"]
    ratios = [table.loc[names[1], column] / table.loc[names[0], column] for column in ("macs", "params")]
    good = _exact(table, names) and round(ratios[0], 2) in (0.45, 0.46) and round(ratios[1], 2) == 0.21
    return Measured(good, note=f"{ratios[0]:.4f} of the multiply-accumulates, {ratios[1]:.4f} of the parameters")


def cifar_counts(table: pd.DataFrame) -> Measured:
    """C4a: exact multiply-accumulates of the three networks, and files of four bytes a parameter."""
    gaps = [size - 4 * table.loc[name, "params"] for name, size in FILES.items()]
    good = _exact(table, list(FILES)) and all(0 <= gap <= FILE_SLACK for gap in gaps)
    return Measured(good, note=f"files are {', '.join(map(str, gaps))} bytes larger than their weights")


def cifar_errors(trials: list[Trial], table: pd.DataFrame) -> Measured:
    """C4b: the largest distance of three mean test errors from the published ones, points."""
    if not trials:
        return CIFAR
    means = pd.DataFrame([(each.name, 100 * each.test_error) for each in trials]).groupby(0)[1].mean()
    gaps = (means - table.loc[means.index, "error"]).abs()
    if len({each.seed for each in trials}) < LEAST:
        return Measured(None, note=f"fewer than {LEAST} seeds")
    return Measured(gaps.max(), note="; ".join(f"{name} {value:.2f} %" for name, value in means.items()))


def pooling_helps(table: pd.DataFrame) -> Measured:
    """C1c: accuracy with global max pooling minus without, points."""
    return over_seeds(paired(table, "plain", "GMP"), "accuracy, points")


def conditional_loses_little(table: pd.DataFrame) -> Measured:
    """C2c: error of the conditional network minus that of the plain one, points."""
    return over_seeds(paired(table, "conditional", "plain"), "error, points")


def cheap_last_layer(found: list[Perceptron], times: float) -> Measured:
    """C3b, C3c: points lost by the best tree that is so many times as cheap."""
    lost = [cheap_tree(each, times) for each in found]
    chosen = [f"{row.routes:.0f}/{row.evaluated:.0f}" for loss, row in lost if not np.isnan(loss)]
    if not chosen:
        least = min(each.trees["validation MACs"].min() / each.dense[0] for each in found)
        return Measured(None, note=f"no tree is {times:g} times as cheap; the cheapest has {least:.0%} of the cost")
    return over_seeds(np.array([loss for loss, _ in lost]), f"points; routes and evaluated {', '.join(chosen)}")


def shrinking_is_worse(table: pd.DataFrame) -> Measured:
    """C4c: points by which fewer filters are worse than groups at equal cost."""
    prices, numbers = price_of_shrinking(table)
    return over_seeds(
        prices, f"points; networks compared {', '.join(map(str, numbers))}; the interval is over seeds only"
    )


def below_the_chord(found: list[Ensemble]) -> Measured:
    """C5b: share of the fall reached at 0.36 of the way in cost."""
    ends = ", ".join("{:.1f} → {:.1f} %".format(*(100 * error for _, error in each.curve.ends)) for each in found)
    spent = ", ".join(f"{each.chosen[0]:.2f}" for each in found)
    return over_seeds(np.array([each.share_of_fall for each in found]), f"errors of the routes {ends}; costs {spent}")


def routing_saves_time(times: pd.DataFrame) -> Measured:
    """C6: time with one route over time with all, repeat by repeat, with the bootstrap interval of the median."""
    one, every = (times[f"routed, {top} of {SHOWN}"].to_numpy() for top in (1, SHOWN))
    return median_ratio(one / every, f"{np.median(one):.0f} and {np.median(every):.0f} µs an image")
