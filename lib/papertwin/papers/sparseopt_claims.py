"""What was measured for each claim of SparseOpt; the rules stand in `sparseopt.toml`.

Part of `papertwin.papers.sparseopt`, whose trials and tables come in here.
"""

import numpy as np
import pandas as pd
import torch

from papertwin.claims import Measured, over_seeds
from papertwin.papers.sparseopt import (
    BOTH,
    CONV,
    CONV_FULL,
    GROWTH,
    HAM,
    MOVING,
    NO_ABLATION,
    OURS,
    OURS_UNIT,
    PLAIN,
    UNIT,
    Params,
    equal_fan_in_jobs,
)
from papertwin.papers.sparseopt_studies import Trials, gains, of_arm, speeds

IMAGENET = Measured(None, note="it needs ImageNet, which is not here")
CIFAR100 = Measured(
    None, note="needs ResNet-20 on CIFAR-100 at full size, 100 passes: profile paper, with your copy of the data"
)
SPARSE, SPARSER = 0.95, 0.99  # sparsities of the claims
ITOP_CLAIM = 0.95  # sparsity of C5
LEAST = 3  # pairs of networks for C7; `over_seeds` asks for as many


def skew(table: pd.DataFrame, kind: str) -> Measured:
    """C1a, C1b, C1c, C6b: largest relative distance from theory over all shares that are masked, over seeds."""
    rows = table[(table["kind"] == kind) & (table["share"] > 0)]
    off = (rows["ratio"] / rows["theory"] - 1).abs().groupby(rows["seed"]).max()
    at = rows[rows["share"] == 0.9]
    note = f"largest distance from theory, as a share of it; at 0.9 masked the ratio is {at['ratio'].mean():.2f}"
    return over_seeds(off, f"{note}, in theory {at['theory'].mean():.2f}")


def gain(table: pd.DataFrame, method: str, sparsity: float, passes: int, network: str = "mlp") -> Measured:
    """C2b, C2c, C3b: accuracy with SparseOpt minus that without, points, over paired seeds."""
    plain, ours = (of_arm(table, network, method, arm, sparsity, passes)["test accuracy"] for arm in (PLAIN, OURS))
    note = f"accuracy, points: {ours.mean():.1f} with and {plain.mean():.1f} % without SparseOpt"
    return over_seeds(gains(table, network, method, sparsity, passes), note)


def mean_gain(table: pd.DataFrame, sparsity: float, passes: int, network: str = "mlp") -> pd.Series:
    """Gain of a seed, the mean of that of RigL and SET."""
    return (
        pd.concat([gains(table, network, method, sparsity, passes) for method in MOVING]).groupby(level="seed").mean()
    )


def fades(table: pd.DataFrame, shortest: int, longest: int) -> Measured:
    """C2d: gain of the shortest training minus that of the longest, 99 %, RigL and SET together."""
    short, long = (mean_gain(table, SPARSER, each) for each in (shortest, longest))
    note = f"points: {short.mean():+.2f} with {shortest} passes, {long.mean():+.2f} with {longest}"
    return over_seeds(short - long, note)


def grows(table: pd.DataFrame, passes: int) -> Measured:
    """C2e: gain at 99 % minus that at 95 %, RigL and SET together."""
    high, low = (mean_gain(table, each, passes) for each in (SPARSER, SPARSE))
    return over_seeds(high - low, f"points: {high.mean():+.2f} at 99 %, {low.mean():+.2f} at 95 %")


def sooner(trials: Trials, passes: int) -> Measured:
    """C2f: passes that are saved on the way to 98 % of the plain network's last accuracy, 99 %, RigL and SET."""
    each = [speeds(trials, method, SPARSER, passes) for method in MOVING]
    plain, ours = (sum(table[arm] for table in each) / len(each) for arm in (PLAIN, OURS))
    return over_seeds(plain - ours, f"passes: {plain.mean():.2f} without, {ours.mean():.2f} with SparseOpt")


def better_by(table: pd.DataFrame, first: str, second: str, passes: int) -> Measured:
    """C4: accuracy of one arm of RigL minus that of another, 99 %, points."""
    one, other = (of_arm(table, "mlp", "RigL", arm, SPARSER, passes)["test accuracy"] for arm in (first, second))
    return over_seeds(one - other, f"accuracy, points: {first} {one.mean():.1f}, {second} {other.mean():.1f} %")


def better_than_either(table: pd.DataFrame, passes: int) -> Measured:
    """C6a: accuracy of SparseOpt with HAM minus that of the better of the two alone, of each seed."""
    both, ours, ham = (of_arm(table, "mlp", "RigL", arm, SPARSER, passes)["test accuracy"] for arm in (BOTH, OURS, HAM))
    note = f"accuracy, points: both {both.mean():.1f}, SparseOpt {ours.mean():.1f}, HAM {ham.mean():.1f} %"
    return over_seeds(both - np.maximum(ours, ham), note)


def explores(table: pd.DataFrame, first: str, second: str, passes: int) -> Measured:
    """C5a, C5b: ITOP rate of one arm of RigL minus that of another, 95 %, percentage points."""
    one, other = (of_arm(table, "mlp", "RigL", arm, ITOP_CLAIM, passes)["ITOP"] for arm in (first, second))
    values = gains(table, "mlp", "RigL", ITOP_CLAIM, passes, (first, second), "ITOP")
    both = f"{first} {one[values.index].mean():.1f}, {second} {other[values.index].mean():.1f} %"
    return over_seeds(values, f"weights ever active, points: {both}")


def same_to_the_bit(trials: Trials, params: Params) -> Measured:
    """C7: SRigL without ablation trains with SparseOpt as without it."""
    jobs = equal_fan_in_jobs(params)
    pairs = [(trials[job].model, trials[other].model) for job, other in zip(jobs, jobs[len(jobs) // 2 :])]
    same = [all(map(torch.equal, one.state_dict().values(), other.state_dict().values())) for one, other in pairs]
    note = f"{sum(same)} of {len(same)} pairs of networks, γ = {NO_ABLATION:g}, are equal"
    return Measured(all(same) if len(same) >= LEAST else None, note=note)


def scaled_start(table: pd.DataFrame, passes: int) -> Measured:
    """C8: gain at 99 % where first weights are scaled to the fan-in, RigL and SET together."""
    values = mean_gain(table, SPARSER, passes, "protocol")
    return over_seeds(values, "accuracy with minus without SparseOpt, points")


def every_claim(params: Params, table: pd.DataFrame, trials: Trials, skews: pd.DataFrame) -> dict[str, Measured]:
    """What was measured for each claim of the ledger.

    Args:
        params: of the run.
        table: of trials.
        trials: themselves.
        skews: of figure 3.
    """
    shortest, longest = params.passes[0], params.passes[-1]
    return {
        "C1a": skew(skews, "batch norm"),
        "C1b": skew(skews, "no norm"),
        "C1c": skew(skews, "batch norm, fan-in"),
        "C2a": IMAGENET,
        "C2b": gain(table, "RigL", SPARSER, shortest),
        "C2c": gain(table, "SET", SPARSER, shortest),
        "C2d": fades(table, shortest, longest),
        "C2e": grows(table, shortest),
        "C2f": sooner(trials, longest),
        "C3a": gain(table, "RigL", CONV_FULL, params.conv_passes, "resnet") if params.at_full_size else CIFAR100,
        "C3b": gain(table, "RigL", CONV, params.conv_passes, "resnet"),
        "C4": better_by(table, OURS_UNIT, UNIT, shortest),
        "C5a": explores(table, OURS, PLAIN, longest),
        "C5b": explores(table, GROWTH, PLAIN, longest),
        "C6a": better_than_either(table, shortest),
        "C6b": skew(skews, "layer norm"),
        "C7": same_to_the_bit(trials, params),
        "C8": scaled_start(table, params.epochs),
    }
