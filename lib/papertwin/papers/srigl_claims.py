"""What was measured for each claim of SRigL; the rules stand in `srigl.toml`.

Part of `papertwin.papers.srigl`, whose trials and tables come in here.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from papertwin.claims import Measured, median_ratio, over_seeds
from papertwin.papers.srigl import GAMMA, Params, paired, usual

IMAGENET = Measured(None, note="it needs ImageNet, which is not here")
CIFAR = Measured(None, note="needs ResNet-18 on CIFAR-10 at full size: profile paper, with your copy of the data")
NO_GPU = Measured(None, note="times here are those of a processor; what one GPU did, the notebook says")
PLAIN = "SRigL without ablation"
CSR = ("CSR, torch", "CSR, SciPy")
ERRORS = 4  # standard errors by which a simulation may miss its formula
AT = 0.9  # sparsity of C1


def faster(times: pd.DataFrame, than: Sequence[str]) -> Measured:
    """C1a, C1b: time of the fastest of some forms over that of the condensed layer, one input.

    Args:
        times: rounds × (sparsity, batch, form), microseconds.
        than: forms; the one with the smallest median is taken.
    """
    rows = times[AT, 1]
    peer = rows[list(than)].median().idxmin()
    note = "{:.0f} µs {}, {:.0f} µs condensed".format(rows[peer].median(), peer, rows["condensed"].median())
    return median_ratio(rows[peer] / rows["condensed"], note)


def better_by(rows: pd.DataFrame, first: str, second: str, sparsity: float, column: str = "test accuracy") -> Measured:
    """C2b, C2c, C2d, C4b, C4c, C5a: a column of one method minus that of another, percentage points, over seeds."""
    values = paired(rows, first, second, sparsity, column)
    at = rows[rows["sparsity"] == sparsity].groupby("method")[column].mean()
    note = f"{column}, points: {first} {at[first]:.1f}, {second} {at[second]:.1f} %"
    weights = rows[rows["sparsity"] == sparsity].groupby("method")["weights"].mean()
    if abs(weights[first] - weights[second]) > 0.01 * weights[second]:
        note += f"; of {weights[first]:.0f} and {weights[second]:.0f} weights"
    return over_seeds(values, note)


def matches(rows: pd.DataFrame, sparsities: Sequence[float]) -> Measured:
    """C2a: accuracy of RigL minus that of SRigL, for each seed the largest over some sparsities."""
    gaps = np.max([paired(rows, "RigL", "SRigL", sparsity) for sparsity in sparsities], axis=0)
    return over_seeds(gaps, "accuracy, points")


def longer(table: pd.DataFrame, sparsity: float, length: int) -> Measured:
    """C4d: accuracy of SRigL trained `length` times as long minus that of SRigL, over the seeds that have both."""
    rows = table[(table["network"] == "mlp") & (table["method"] == "SRigL") & (table["gamma"] == GAMMA)]
    rows = rows[(rows["sparsity"] == sparsity) & (rows["width"] == 1)]
    values = rows.pivot(index="seed", columns="length", values="test accuracy")[[length, 1]]
    values = values[values[length].notna()]  # longer trainings have fewer seeds
    note = f"accuracy, points: {values[length].mean():.1f} against {values[1].mean():.1f} %"
    return over_seeds(values[length] - values[1], note)


def stays_active(rows: pd.DataFrame, method: str, sparsity: float) -> Measured:
    """C5b: share of the neurons with active weights, per cent."""
    at = rows[(rows["method"] == method) & (rows["sparsity"] == sparsity)]
    return over_seeds(at["active"], "per cent of the neurons of hidden layers")


def smallest_variance(table: pd.DataFrame) -> Measured:
    """C6a: one fan-in below as many weights a layer below independent ones, for every width and sparsity."""
    theory = table.pivot(index=["width", "sparsity"], columns="kind", values="theory")
    good = (theory["neuron"] < theory["layer"]) & (theory["layer"] < theory["bernoulli"])
    gain = 1 - theory["neuron"] / theory["bernoulli"]
    note = f"{good.sum()} of {len(good)} cases; {gain.min():.1%} to {gain.max():.1%} below independent weights"
    return Measured(bool(good.all()), note=note)


def theory_holds(table: pd.DataFrame) -> Measured:
    """C6b: simulated variances and norms within some standard errors of the formulas."""
    off = (table["simulated"] - table["theory"]).abs() / table["error"]
    norms = (table["norm"] - 1).abs() / table["norm error"]
    note = f"{len(table)} cases; the farthest variance is {off.max():.1f} standard errors off, the farthest norm"
    return Measured(bool((off <= ERRORS).all() and (norms <= ERRORS).all()), note=f"{note} {norms.max():.1f}")


def every_claim(
    params: Params, table: pd.DataFrame, times: pd.DataFrame, variances: pd.DataFrame, gaps: Sequence[float]
) -> dict[str, Measured]:
    """What was measured for each claim of the ledger.

    Args:
        params: of the run.
        table: of trials.
        times: of the layer, rounds × (sparsity, batch, form).
        variances: of output norms.
        gaps: between condensed and masked networks, of their largest logit.
    """
    mlp, resnet = usual(table, "mlp"), usual(table, "resnet")
    return {
        "C1a": faster(times, ["dense"]),
        "C1b": faster(times, CSR),
        "C1c": NO_GPU,
        "C2a": matches(resnet, (0.9, 0.95)) if params.at_full_size else CIFAR,
        "C2b": better_by(mlp, "RigL", "SRigL", 0.9),
        "C2c": better_by(mlp, "RigL", "SRigL", 0.95),
        "C2d": better_by(mlp, "SRigL", PLAIN, 0.99),
        "C3": IMAGENET,
        "C4a": IMAGENET,
        "C4b": better_by(mlp, "SRigL", "SET", 0.9),
        "C4c": better_by(mlp, "RigL", "static", 0.95),
        "C4d": longer(table, 0.99, 5),
        "C5a": better_by(mlp, "RigL", "static", 0.99, "active"),
        "C5b": stays_active(mlp, "RigL", 0.8),
        "C6a": smallest_variance(variances),
        "C6b": theory_holds(variances),
        "C7": Measured(max(gaps), note=f"{len(gaps)} networks"),
    }
