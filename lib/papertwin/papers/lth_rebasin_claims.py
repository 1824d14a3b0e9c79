"""What was measured for each claim on lottery tickets and weight symmetry; the rules stand in `lth_rebasin.toml`.

Part of `papertwin.papers.lth_rebasin`, whose trainings and studies come in here.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from papertwin.claims import Measured, over_seeds
from papertwin.papers.lth_rebasin import HIGH, LOW, NAIVE, NARROW, PERMUTED, RANDOM, TICKET, WIDE, WIDEST, Params
from papertwin.papers.lth_rebasin_studies import ACTIVATIONS, IMP, PLAIN
from papertwin.papers.lth_rebasin_tables import usual
from papertwin.papers.lth_rebasin_trainings import Matched

IMAGENET = Measured(None, note="it needs ImageNet, which is not here")
CIFAR100 = Measured(
    None,
    note="needs ResNet20 of width 16 on CIFAR-100: profile paper with dataset=cifar100, and your copy of the data",
)
CIFAR = Measured(None, note="needs ResNet20 on CIFAR-10 at full size: profile paper, with your copy of the data")
VGG = Measured(None, note="needs VGG11 on CIFAR-10 at full size: profile paper, with your copy of the data")


def values(rows: pd.DataFrame, method: str, width: float, sparsity: float, rewind: int, matched: int = 0) -> pd.Series:
    """Test accuracy of one kind of training, per cent, by seed."""
    wanted = {"method": method, "width": width, "sparsity": sparsity, "rewind": rewind, "matched": matched}
    kept = np.logical_and.reduce([rows[name] == value for name, value in wanted.items()])
    return rows[kept].set_index("seed")["test accuracy"].sort_index()


def better_by(rows: pd.DataFrame, first: tuple, second: tuple) -> Measured:
    """C1, C3, C8, C9c: accuracy of one kind of training minus that of another, points, over the seeds of both.

    Args:
        rows: of the table of trainings, one network, first members.
        first: method, width, sparsity, rewind point, and the pass of B that A is matched with, 0 for the end.
        second: likewise.
    """
    one, other = values(rows, *first), values(rows, *second)
    gaps = (one - other).dropna()
    note = f"accuracy, points: {said(*first)} {one[gaps.index].mean():.1f}, "
    note += f"{said(*second)} {other[gaps.index].mean():.1f} %"
    return over_seeds(gaps, note)


def said(method: str, width: float, sparsity: float, rewind: int, matched: int = 0) -> str:
    """Name a kind of training.

    >>> said("permuted", 1.0, 0.9, 1, 2)
    'permuted (k = 1, matched at pass 2)'
    """
    return f"{method} (k = {rewind}{f', matched at pass {matched}' if matched else ''})"


def ordered(rows: pd.DataFrame, rewind: int) -> Measured:
    """C1a: the smaller of the gaps ticket − permuted and permuted − naive of each seed, width 1, 90 %."""
    ticket, permuted, naive = (values(rows, each, NARROW, LOW, rewind) for each in (TICKET, PERMUTED, NAIVE))
    return over_seeds(np.minimum(ticket - permuted, permuted - naive).dropna(), "the smaller gap of accuracy, points")


def gain(rows: pd.DataFrame, width: float, sparsity: float, rewind: int) -> pd.Series:
    """What permuting gains over the naive mask, points, by seed."""
    return values(rows, PERMUTED, width, sparsity, rewind) - values(rows, NAIVE, width, sparsity, rewind)


def behind(rows: pd.DataFrame, width: float, sparsity: float, rewind: int) -> pd.Series:
    """How far the permuted mask is behind the ticket, points, by seed."""
    return values(rows, TICKET, width, sparsity, rewind) - values(rows, PERMUTED, width, sparsity, rewind)


def grows(rows: pd.DataFrame, rewind: int) -> Measured:
    """C2a: what permuting gains at 97 % minus what it gains at 90 %, width 1."""
    high, low = (gain(rows, NARROW, each, rewind) for each in (HIGH, LOW))
    return over_seeds((high - low).dropna(), f"gains, points: {high.mean():+.2f} at 97 %, {low.mean():+.2f} at 90 %")


def nears(rows: pd.DataFrame, rewind: int) -> Measured:
    """C2b: how far the permuted mask is behind the ticket at width 1 minus the same at width 4, 97 %."""
    narrow, wide = (behind(rows, each, HIGH, rewind) for each in (NARROW, WIDE))
    note = f"behind the ticket, points: {narrow.mean():+.2f} at width 1, {wide.mean():+.2f} at width 4"
    return over_seeds((narrow - wide).dropna(), note)


def least_diverse(table: pd.DataFrame) -> Measured:
    """C6a: smallest disagreement of the other methods minus that of tickets, points of the images."""
    found = table.pivot(index="seed", columns="method", values="disagreement")
    means = ", ".join(f"{name} {found[name].mean():.1f}" for name in (TICKET, PERMUTED, NAIVE, IMP))
    return over_seeds(found.drop(columns=TICKET).min(axis=1) - found[TICKET], f"disagreement, per cent: {means}")


def ensemble_gains(table: pd.DataFrame) -> Measured:
    """C6b: what an ensemble gains over one network, by permuted masks minus by tickets, points."""
    gains = table.assign(gain=table["ensemble"] - table["single"]).pivot(index="seed", columns="method", values="gain")
    note = f"gains, points: {PERMUTED} {gains[PERMUTED].mean():+.2f}, {TICKET} {gains[TICKET].mean():+.2f}"
    return over_seeds(gains[PERMUTED] - gains[TICKET], note)


def falls(barriers: pd.DataFrame, first: tuple[float, str], second: tuple[float, str]) -> Measured:
    """C7a, C7c: a barrier of the grid's network minus another, nats, over the seeds of both.

    Args:
        barriers: of `barrier_table`.
        first: width and line.
        second: likewise.
    """
    rows = barriers[barriers["network"] == "grid"].set_index("seed")
    one, other = (rows[(rows["width"] == width) & (rows["line"] == line)]["barrier"] for width, line in (first, second))
    gaps = (one - other).dropna().sort_index()
    words = [
        f"{line}, width {width:g}: {each[gaps.index].mean():.3f}"
        for (width, line), each in zip((first, second), (one, other))
    ]
    return over_seeds(gaps, f"barriers, nats: {'; '.join(words)}")


def connected(rounds: pd.DataFrame) -> Measured:
    """C7b: barrier between the dense network and the one pruned to 90 %, repaired, nats."""
    last = rounds[rounds["round"] == rounds["round"].max()].pivot(index="seed", columns="kind", values="barrier")
    return over_seeds(last["repaired"], f"barrier at inner mixes, nats; {last['plain'].mean():.3f} without REPAIR")


def same_function(matched: Iterable[Matched]) -> Measured:
    """C9a: largest difference of a logit that renumbering makes."""
    gaps = [each.gap for each in matched]
    return Measured(max(gaps), note=f"{len(gaps)} pairs of networks")


def commuting(matched: Iterable[Matched]) -> Measured:
    """C9b: whether masking and renumbering commute, for every pair."""
    found = [each.commutes for each in matched]
    return Measured(all(found), note=f"{sum(found)} of {len(found)} pairs of networks")


def every_claim(
    params: Params,
    table: pd.DataFrame,
    barriers: pd.DataFrame,
    rounds: pd.DataFrame,
    groups: pd.DataFrame,
    matched: Mapping,
) -> dict[str, Measured]:
    """What was measured for each claim of the ledger.

    Args:
        params: of the run.
        table: of trainings.
        barriers: between A and B.
        rounds: barriers between dense and pruned networks.
        groups: ensembles.
        matched: pair → how A is renumbered for B.
    """
    rows, near, far = usual(table, "grid"), params.near, params.far
    vgg = usual(table, "vgg")
    narrow = [(PERMUTED, NARROW, LOW, near), (NAIVE, NARROW, LOW, near), (TICKET, NARROW, LOW, near)]
    wide = [(PERMUTED, WIDE, HIGH, far), (NAIVE, WIDE, HIGH, far), (TICKET, WIDE, HIGH, far)]
    later = {each: ((each, NARROW, HIGH, far), (each, NARROW, HIGH, 0)) for each in (PERMUTED, TICKET, NAIVE)}
    full = [(each, 1.0, LOW, params.conv_rewind) for each in (PERMUTED, NAIVE)]
    return {
        "C1a": ordered(rows, near) if params.at_full_size and params.dataset == "cifar10" else CIFAR,
        "C1b": better_by(rows, narrow[0], narrow[1]),
        "C1c": better_by(rows, narrow[2], narrow[0]),
        "C1d": better_by(rows, wide[0], wide[1]),
        "C1e": better_by(rows, wide[2], wide[0]),
        "C2a": grows(rows, near),
        "C2b": nears(rows, near),
        "C2c": better_by(rows, (PERMUTED, *WIDEST), (NAIVE, *WIDEST)) if params.has_widest else CIFAR100,
        "C3a": better_by(rows, (PERMUTED, NARROW, HIGH, 0), (NAIVE, NARROW, HIGH, 0)),
        "C3b": better_by(rows, *later[PERMUTED]),
        "C3c": better_by(rows, *later[TICKET]),
        "C3d": better_by(rows, *later[NAIVE]),
        "C4": better_by(vgg, *full) if params.vgg_at_full_size else VGG,
        "C5": IMAGENET,
        "C6a": least_diverse(groups),
        "C6b": ensemble_gains(groups),
        "C7a": falls(barriers, (NARROW, ACTIVATIONS), (WIDE, ACTIVATIONS)),
        "C7b": connected(rounds),
        "C7c": falls(barriers, (WIDE, PLAIN), (WIDE, ACTIVATIONS)),
        "C8": better_by(rows, narrow[0], (*narrow[0], params.early[0])),
        "C9a": same_function(matched.values()),
        "C9b": commuting(matched.values()),
        "C9c": better_by(rows, (RANDOM, NARROW, HIGH, near), (NAIVE, NARROW, HIGH, near)),
    }
