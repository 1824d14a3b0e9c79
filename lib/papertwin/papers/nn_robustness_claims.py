"""What was measured for each claim on measuring robustness with constraints; the rules stand in `nn_robustness.toml`.

Part of `papertwin.papers.nn_robustness`, whose studies and tables come in here.
"""

import numpy as np
import pandas as pd

from papertwin.claims import Measured, median_ratio
from papertwin.papers.nn_robustness import NEARER, ROUNDS, Params, Plane, Tuning
from papertwin.robustness.study import Study, comparison, witness_problems
from papertwin.training.intervals import grouped_mean_interval, paired_difference, wilson

SAME = 1e-5  # largest difference of two optima that count as the same
NETWORKS = 3  # perceptrons that the claims on fine-tuning need
ENOUGH = 10  # LeNet seeds that the claim on speed needs
ENDED = ["found", "infeasible"]

Estimate = tuple[float, tuple[float, float]]  # value and interval


def _verified(studies: list[Study]) -> tuple[bool, str]:
    """Whether there are witnesses and none breaks a promise, and their number in words."""
    problems = [problem for each in studies for problem in witness_problems(each, "lp")]
    count = sum(outcome.witness is not None for each in studies for outcome in each.outcomes["lp"])
    return bool(count and not problems), f"{count} witnesses, misclassified seeds in; {len(problems)} of them broken"


def encoding_holds(studies: list[Study], planes: list[Plane]) -> Measured:
    """C1a: no witness breaks a promise, and the optima on the plane are those of the grid."""
    good, note = _verified(studies)
    gaps = [_gap(each.optimum.epsilon, each.grid_region) for each in planes]
    note += f"; {len(planes)} optima on the plane, at most {max(gaps):.4f} from those of the grid"
    return Measured(good and all(gap <= each.spacing for gap, each in zip(gaps, planes)), note=note)


def _gap(first: float, second: float) -> float:
    """Distance of two optima, 0 where neither search found anything."""
    return 0.0 if first == second else abs(first - second)


def encoding_cifar(found: Study | None, reason: str) -> Measured:
    """C1b: the same on CIFAR-10."""
    if found is None:
        return Measured(None, note=reason)
    good, note = _verified([found])
    return Measured(good, note=note)


def frequency_gain(each: Study, params: Params) -> Measured:
    """C2a, C2c: frequency by the linear program minus that by L-BFGS-B, over the same points."""
    ours, theirs = each.measured("lp", "lbfgs")
    if len(ours) < 2:
        return Measured(None, note="fewer than two points were measured by both")
    near = ours <= params.threshold, theirs <= params.threshold
    feasible = f"{np.isfinite(ours).sum()} programs feasible"
    if not (near[0] | near[1]).any():
        return Measured(None, note=f"neither found an example within the threshold at {len(ours)} points; {feasible}")
    note = f"{near[0].sum()} and {near[1].sum()} of {len(ours)} points; {feasible}"
    return Measured(near[0].mean() - near[1].mean(), paired_difference(*near), note)


def nearer_share(each: Study) -> Measured:
    """C2b, C2d: share of the points with different distances at which the linear program is nearer."""
    if not len(each.measured("lp", "lbfgs")[0]):
        return Measured(None, note="no point was measured by both")
    counts = comparison(each, "lp", "lbfgs", NEARER)
    wins, losses = counts["first nearer"], counts["second nearer"]
    if not wins + losses:
        return Measured(None, note="no point has different distances")
    ours, theirs = each.measured("lp", "lbfgs")
    absent = int((np.isinf(ours) & np.isfinite(theirs)).sum())
    note = f"{wins} nearer, {losses} farther, {absent} of these because the program is infeasible"
    return Measured(wins / (wins + losses), wilson(wins, wins + losses), note)


def falls(tunings: list[Tuning], branch: str, method: str, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Per network and point 1 where fine-tuning removed the example within the threshold, −1 where it made one.

    Returns:
        (m,) values and (m,) number of the network, over the points measured by both algorithms before and after.
    """
    values, groups = [], []
    for number, each in enumerate(tunings):
        after = each.of(branch)
        distances = {m: (each.original.distances(m), after.distances(m)) for m in ("lp", "lbfgs")}
        kept = ~np.isnan(np.array(list(distances.values()))).any((0, 1))
        before, later = (part[kept] <= params.threshold for part in distances[method])
        values.append(before.astype(float) - later)
        groups.append(np.full(kept.sum(), number))
    return np.concatenate(values), np.concatenate(groups)


def overfitting(tunings: list[Tuning], params: Params) -> Measured:
    """C3: after L-BFGS-B's examples its own measure falls, and by more than that of the linear program."""
    own, groups = falls(tunings, f"L-BFGS-B T={ROUNDS}", "lbfgs", params)
    other, _ = falls(tunings, f"L-BFGS-B T={ROUNDS}", "lp", params)
    return _weakest({"fall by L-BFGS-B": own, "that minus fall by LP": own - other}, groups, params)


def both_improve(tunings: list[Tuning], params: Params) -> Measured:
    """C4: after the linear program's examples both measures fall."""
    found = {
        name: falls(tunings, f"LP T={ROUNDS}", method, params) for name, method in (("LP", "lp"), ("L-BFGS-B", "lbfgs"))
    }
    return _weakest({f"fall by {name}": values for name, (values, _) in found.items()}, found["LP"][1], params)


def _weakest(parts: dict[str, np.ndarray], groups: np.ndarray, params: Params) -> Measured:
    """Of several conditions that must all hold, per point, the smallest mean and the smallest ends of the intervals.

    Not judged with fewer than three networks, or where a condition changes at no point, which leaves no interval.
    """
    if not len(groups):
        return Measured(None, note="no point was measured before and after")
    means = {name: values.mean() for name, values in parts.items()}
    numbers = np.unique(groups)
    each = {name: ", ".join(f"{values[groups == g].mean():+.3f}" for g in numbers) for name, values in parts.items()}
    said = "; ".join(f"{name} {means[name]:+.3f} (per network {each[name]})" for name in parts)
    count = len(numbers)
    if count < NETWORKS:
        return Measured(None, note=f"{count} network(s), {NETWORKS} are needed; {said}; {len(groups)} points")
    if not all(values.any() for values in parts.values()):
        return Measured(None, note=f"no point changed, which leaves no interval; {said}; {len(groups)} points")
    ends = [grouped_mean_interval(values, groups, params.seed) for values in parts.values()]
    interval = min(low for low, _ in ends), min(high for _, high in ends)
    return Measured(min(means.values()), interval, f"{said}; {len(groups)} points")


def lazy_is_exact(table: pd.DataFrame) -> Measured:
    """C5a: same status and same optimum on every seed that all ways came to an end on, with optima among them."""
    ways = ("lazy", "proof", "full")
    ended = table[table[[f"{way} status" for way in ways]].isin(ENDED).all(axis=1)]
    found = ended[ended["full status"] == "found"]
    if found.empty:
        return Measured(
            None, note=f"no optimum among the {len(ended)} of {len(table)} seeds that were solved every way"
        )
    same = all((ended[f"{way} status"] == ended["full status"]).all() for way in ways)
    gap = max((found[f"{way} optimum"] - found["full optimum"]).abs().max() for way in ways)
    note = f"{len(ended)} seeds, {len(found)} with an optimum; largest difference {gap:.1e}"
    return Measured(bool(same and gap <= SAME), note=note)


def lazy_is_faster(table: pd.DataFrame, params: Params) -> Measured:
    """C5b: median ratio of seconds on LeNet, full over lazy, without our proof."""
    ended = table[table["lazy status"].isin(ENDED) & table["full status"].isin(ENDED)]
    ratios, others = (ended[ended.network == name].ratio.to_numpy() for name in ("LeNet", "MLP"))
    if len(ratios) < ENOUGH:
        shown = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        return Measured(None, note=f"{len(ratios)} LeNet seeds ({shown}), {ENOUGH} are needed")
    feasible = int((ended[ended.network == "LeNet"]["full status"] == "found").sum())
    note = f"{len(ratios)} LeNet seeds, {feasible} feasible, {ratios.min():.1f} to {ratios.max():.1f}"
    return median_ratio(ratios, note + (f"; MLP {np.median(others):.1f}" if len(others) else ""), params.seed)
