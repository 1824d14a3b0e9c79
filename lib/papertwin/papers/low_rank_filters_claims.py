"""What was measured for each claim of low-rank filters; the rules stand in `low_rank_filters.toml`.

Part of `papertwin.papers.low_rank_filters`, whose trials and tables come in here.
"""

import pandas as pd

from papertwin.claims import Measured, exact_shares, median_ratio, over_seeds
from papertwin.nets.comparing import paired
from papertwin.papers.low_rank_filters import CLASSIFIER, PLAIN_IN_C, Params, Start, googlenet_macs, results
from papertwin.training.intervals import t_interval

IMAGENET = Measured(None, note="needs ImageNet, which is not here and takes weeks to train on")
CIFAR = Measured(None, note="needs CIFAR-10 at its own size and width: profile paper, with your copy of the data")
LEAST_SWEEPS = 5


def less_compute(table: pd.DataFrame) -> Measured:
    """C1b: per cent of VGG-11's operations that GMP-LR-2X saves."""
    macs = table.set_index("network")["macs"]
    left = macs["gmp-lr-2x"] / macs["vgg-11"]
    return Measured(100 * (1 - left), note=f"it needs {left:.1%} of them: 41 % is what remains, not what is saved")


def separable_saves(table: pd.DataFrame) -> Measured:
    """C4a: exact counts, and 13 to 14 % saved."""
    rows = table.set_index("network").loc[["gmp", "gmp-sf"]]
    saved = 1 - rows.loc["gmp-sf", "macs"] / rows.loc["gmp", "macs"]
    return Measured(bool(rows["exact"].all() and 0.13 <= saved <= 0.14), note=f"{saved:.2%} saved")


def googlenet_saves(table: pd.DataFrame, plain_in_c: int) -> Measured:
    """C5a: exact counts, and all four shares.

    Args:
        table: `results` of GoogLeNet.
        plain_in_c: operations of the plain network on the maps on which the low-rank one was counted.
    """
    rows = table.set_index("network").loc[["GoogLeNet", "lr"]]
    low, plain = rows.loc["lr"], rows.loc["GoogLeNet"]
    found = [1 - low["macs"] / plain["macs"], 1 - low["params"] / plain["params"], 1 - low["macs"] / plain_in_c]
    found.append(1 - (low["params"] + CLASSIFIER) / (plain["params"] + CLASSIFIER))
    good = (
        rows["exact"].all()
        and plain_in_c == PLAIN_IN_C
        and [round(each, 2) for each in found] == [0.26, 0.41, 0.33, 0.35]
    )
    texts = (
        "operations as printed",
        "parameters as printed",
        "operations on equal maps",
        "parameters with classifiers",
    )
    return Measured(bool(good), note="; ".join(f"{text}: {each:.1%} saved" for text, each in zip(texts, found)))


def share_of_parameters(table: pd.DataFrame) -> Measured:
    """C6b: per cent of Network in Network's parameters that nin-c3 has."""
    params = table.set_index("network")["params"]
    return Measured(
        100 * params["nin-c3"] / params["NiN"], note="54 % is the share of nin-c3-lr's multiply-accumulates"
    )


def worse_by(table: pd.DataFrame, first: str, second: str, sign: int = 1) -> Measured:
    """C2c, C3c, C3d, C4c, C6c, C6d: test error of one network minus another's, points; with sign −1 accuracy."""
    return over_seeds(sign * paired(table, first, second), "accuracy, points" if sign < 0 else "error, points")


def at_full_size(params: Params, found: Measured) -> Measured:
    """What was measured at the paper's own size and data; nothing otherwise."""
    return found if params.at_full_size else CIFAR


def gradients_kept(falls: pd.DataFrame) -> Measured:
    """C7a: |log₂| of gradients, first layer over last, with shared deviations.

    Args:
        falls: index rule, columns seeds.
    """
    values = falls.loc["shared"].to_numpy(dtype=float)
    others = ", ".join(f"{rule} {falls.loc[rule].mean():.1f}" for rule in falls.index if rule != "shared")
    if len(values) < LEAST_SWEEPS:
        return Measured(None, note=f"{len(values)} seeds, at least {LEAST_SWEEPS} are needed; {others}")
    return Measured(values.mean(), t_interval(values), f"powers of two; {others}")


def start_gain(found: list[Start], rule: str) -> Measured:
    """C7b, C7c, C7d: accuracy from shared deviations minus that from another rule, points."""
    table = pd.DataFrame(
        [(each.rule, each.seed, each.error) for each in found], columns=["network", "seed", "test error"]
    )
    means = table.groupby("network")["test error"].mean()
    note = f"accuracy, points; errors {means['shared']:.1f} and {means[rule]:.1f} %"
    return over_seeds(paired(table, rule, "shared"), note)


def saves_time(times: pd.DataFrame) -> Measured:
    """C8: time of GMP-LR over that of GMP, round by round, with the bootstrap interval of the median."""
    note = "{:.0f} and {:.0f} ms".format(*times[["gmp-lr", "gmp"]].median())
    return median_ratio(times["gmp-lr"] / times["gmp"], note)


def every_claim(
    params: Params,
    table: pd.DataFrame,
    falls: pd.DataFrame,
    found: list[Start],
    times: pd.DataFrame,
) -> dict[str, Measured]:
    """What was measured for each claim of the ledger.

    Args:
        params: of the run.
        table: of trials.
        falls: of gradients, index rule, columns seeds.
        found: trainings without normalisation.
        times: of GMP and GMP-LR, milliseconds.
    """
    vgg, googlenet, cifar = results(), results("GoogLeNet "), results("CIFAR ")
    vgg_rows = vgg.set_index("network")
    lr_2x = {("gmp-lr-2x", "vgg-11", "params"): 0.24, ("gmp-lr-2x", "vgg-11", "macs"): 0.41}
    lr = {("gmp-lr", "gmp", "macs"): 0.34, ("gmp-lr-join", "gmp", "macs"): 0.51}
    lde = {("gmp-lr-lde", "gmp", "macs"): 0.14, ("gmp-lr-lde", "gmp stride2", "macs"): 0.54}
    nin = {("nin-c3-lr", "NiN", "macs"): 0.54, ("nin-c3-lr", "NiN", "params"): 0.45, ("nin-c3", "NiN", "macs"): 0.74}
    return dict.fromkeys(("C1c", "C2b", "C3b", "C3f", "C4b", "C5b"), IMAGENET) | {
        "C1a": exact_shares(vgg_rows, lr_2x),
        "C1b": less_compute(vgg),
        "C2a": exact_shares(vgg_rows, {("gmp-lr-join-wfull", "gmp", "macs"): 0.84}),
        "C2c": worse_by(table, "gmp-lr-join-wfull", "gmp", sign=-1),
        "C3a": exact_shares(vgg_rows, lr),
        "C3c": worse_by(table, "gmp-lr", "gmp"),
        "C3d": worse_by(table, "gmp-lr", "gmp-lr-join"),
        "C3e": exact_shares(vgg_rows, lde),
        "C4a": separable_saves(vgg),
        "C4c": worse_by(table, "gmp-sf", "gmp"),
        "C5a": googlenet_saves(googlenet, googlenet_macs("C", "none")),
        "C6a": exact_shares(cifar.set_index("network"), nin),
        "C6b": share_of_parameters(cifar),
        "C6c": at_full_size(params, worse_by(table, "nin-c3-lr", "NiN")),
        "C6d": worse_by(table, "nin-c3-lr", "nin-c3"),
        "C7a": gradients_kept(falls),
        "C7b": start_gain(found, "0.01"),
        "C7c": start_gain(found, "torch"),
        "C7d": start_gain(found, "own"),
        "C8": saves_time(times),
    }
