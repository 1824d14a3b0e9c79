"""Pointwise robustness by linear programs: rows added lazily against all rows at once, PuLP against HiGHS directly.

Each seed image of MNIST's test set is searched in every way, one right after the other, so that a machine that is busy
for a while slows all of them. Times are medians over the seeds; those whose linear region holds the runner-up label
(feasible) and those where it does not (infeasible) are apart. Every way must find the same optimum.

A full program of LeNet has 11,540 rows and takes from seconds to minutes: full ones are solved on the first seeds only,
until their time is used up. `n` says how many that were; those begun that did not end are in a row of their own
and in no median or ratio. "no proof" is lazy addition alone, without our proof that a region does not hold the label,
which is what decides most infeasible seeds. `rows s` is the time in which rows of the region are computed, `model s`
that in which they are handed to the solver, `solve s` the solver's own and `proof s` that of proofs without it. What is
left of `s` goes into the network: its copy, its linear region, and the check of what was found.
"""

import math
import time
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

import numpy as np
from torch import nn

from papertwin import machine
from papertwin.bench import BenchResult, Progress
from papertwin.data.images import load_images
from papertwin.errors import RunError
from papertwin.nets import stored
from papertwin.robustness.many import SeedPool
from papertwin.robustness.outcome import Robustness
from papertwin.robustness.pointwise import STAGES, pointwise_robustness

MARGIN = 1e-6  # logits by which a witness must be on the other side
SAME = 1e-5  # largest difference of two optima that count as the same
FULL_SECONDS = 240.0  # for all full programs of one network
LAZY_SECONDS = 60.0  # for one lazy search
GOAL = 10.0
PULP_GOAL = 2.0  # PuLP may take at most this many times as long as HiGHS alone
LENET_FEASIBLE = (18, 115, 247, 259, 321)  # of the first 400 test images all whose region holds the runner-up label
MLP_INFEASIBLE = (37, 71, 75, 76, 101)  # the first test images whose region does not hold it
# network → rows of MNIST's test set, in order
SEEDS = {
    "mlp-0": (*range(21), *MLP_INFEASIBLE),
    "lenet": (18, *range(18), 19, 20, *LENET_FEASIBLE[1:]),
}
SPREAD = 21  # the first of these are spread over processes
NAMES = {"mlp-0": "MLP", "lenet": "LeNet"}


@dataclass(frozen=True)
class Way:
    """A way to search, as the table calls it: which rows the program gets, who solves it, and the settings."""

    program: str
    solver: str
    settings: dict[str, Any] = field(hash=False)

    @property
    def full(self) -> bool:
        """Whether all rows are given at once."""
        return not self.settings.get("lazy", True)


LAZY = Way("lazy", "PuLP", {"solver": "highs"})
LAZY_DIRECT = Way("lazy", "direct", {"solver": "highspy"})
UNPROVEN = Way("lazy, no proof", "PuLP", LAZY.settings | {"proof": False})
UNPROVEN_DIRECT = Way("lazy, no proof", "direct", LAZY_DIRECT.settings | {"proof": False})
FULL = Way("full", "PuLP", {"solver": "highs", "lazy": False})
FULL_DIRECT = Way("full", "direct", {"solver": "highspy", "lazy": False})

RATIOS = (  # as the table calls them: program, solver, then the slower and the faster way
    ("full / lazy", "PuLP", FULL, LAZY),
    ("full / lazy", "direct", FULL_DIRECT, LAZY_DIRECT),
    ("full / lazy, no proof", "PuLP", FULL, UNPROVEN),
    ("full / lazy, no proof", "direct", FULL_DIRECT, UNPROVEN_DIRECT),
    ("lazy", "PuLP / direct", LAZY, LAZY_DIRECT),
)

Found = dict[Way, dict[int, Robustness]]


def ways() -> list[Way]:
    """All ways to search on this machine."""
    threads = machine.cores()
    parallel = Way(f"lazy, {threads} threads", "direct", LAZY_DIRECT.settings | {"threads": threads})
    return [LAZY, LAZY_DIRECT, UNPROVEN, UNPROVEN_DIRECT, *([parallel] if threads > 1 else []), FULL, FULL_DIRECT]


def run(progress: Progress) -> BenchResult:
    """Measure everything; at most nine minutes on two cores.

    Raises:
        DataError: the networks or the images are missing or corrupted.
        RunError: two ways disagree, or a feasible seed of LeNet no longer is.
    """
    rows: list[dict[str, Any]] = []
    models = {name: stored(name) for name in SEEDS}
    images = {name: load_images("mnist", "test").scaled(list(seeds)) for name, seeds in SEEDS.items()}
    steps = sum(len(seeds) for seeds in SEEDS.values()) + 2 * len(SEEDS)
    done = 0
    lenet: Found = {}
    for name, seeds in SEEDS.items():
        found: Found = {way: {} for way in ways()}
        for seed, image in zip(seeds, images[name]):
            progress(f"{NAMES[name]}, test image {seed}, {len(found)} ways", done / steps)
            _search(found, models[name], seed, image)
            done += 1
        _check(name, found)
        rows += _rows(NAMES[name], found)
        lenet = found
    for name in SEEDS:
        progress(f"{NAMES[name]}: one process and {machine.cores()}", done / steps)
        rows += _throughput(NAMES[name], models[name], images[name][:SPREAD])
        done += 2
    progress("done", 1.0)
    return BenchResult("lp", machine.describe(), 1, rows, _headline(lenet))


def _headline(lenet: Found) -> dict[str, Any]:
    """The whole search against the full program, with the seeds that it was measured on."""
    both = [lenet[LAZY][seed].found for seed in _ended(lenet[FULL]) if seed in _ended(lenet[LAZY])]
    figure = (
        f"median over {len(both)} seeds of LeNet, {sum(both)} feasible and {len(both) - sum(both)} infeasible: time of "
        "the full program / lazily with our proof of infeasibility, both stated with PuLP "
        f"({_ratio(lenet[FULL], lenet[UNPROVEN]):.1f}x without the proof)"
    )
    return {"figure": figure, "ratio": round(_ratio(lenet[FULL], lenet[LAZY]), 1), "goal": GOAL}


def _search(found: Found, model: nn.Module, seed: int, image: np.ndarray) -> None:
    """Search one seed in every way, full programs while there is time; the optima must be the same."""
    for way, results in found.items():
        spent = sum(result.seconds for each, kept in found.items() if each.full for result in kept.values())
        limit = FULL_SECONDS - spent if way.full else LAZY_SECONDS
        if limit <= 0:
            continue
        result = pointwise_robustness(model, image, margin=MARGIN, limit=limit, **way.settings)
        if result.status not in ("found", "infeasible", "timeout"):
            raise RunError(
                f"Test image {seed} {way.program} ({way.solver}): the search ended with status {result.status!r} "
                f"after {result.seconds:.0f} s. Is the machine busy with something else?"
            )
        results[seed] = result
    ended = {way: _ended(kept) for way, kept in found.items()}
    optima = {f"{way.program} ({way.solver})": kept[seed].epsilon for way, kept in ended.items() if seed in kept}
    if optima and not np.allclose(list(optima.values()), next(iter(optima.values())), rtol=0.0, atol=SAME):
        raise RunError(f"Test image {seed}: the optima differ by more than {SAME:g}: {optima}. Please report this.")


def _ended(kept: dict[int, Robustness]) -> dict[int, Robustness]:
    """Those that did not run out of time."""
    return {seed: result for seed, result in kept.items() if result.status != "timeout"}


def _check(name: str, found: Found) -> None:
    """Raise RunError where a seed of LeNet that was feasible is not."""
    if name == "lenet":
        lost = [seed for seed in LENET_FEASIBLE if found[LAZY][seed].status == "infeasible"]
        if lost:
            raise RunError(f"LeNet's programs at test images {lost} should be feasible; did the weights change?")


def _rows(network: str, found: Found) -> list[dict[str, Any]]:
    """A row for each way and kind of seed, then the ratios."""
    rows = []
    known = {seed: result.found for kept in found.values() for seed, result in _ended(kept).items()}
    for kind, feasible in (("feasible", True), ("infeasible", False), ("undecided", None)):
        part = {
            way: {seed: result for seed, result in kept.items() if known.get(seed) is feasible}
            for way, kept in found.items()
        }
        rows += [row for way, kept in part.items() for row in _way_rows(network, kind, way, kept)]
        for program, solver, first, second in RATIOS:
            both = len(_ended(part[first]).keys() & _ended(part[second]).keys())
            if both:
                ratio = round(_ratio(part[first], part[second]), 2)
                goal = {"goal": f"≤ {PULP_GOAL:g}"} if first is LAZY else {}
                head = {"network": network, "seeds": kind, "program": program, "solver": solver}
                rows.append(head | {"n": both, "ratio": ratio} | goal)
    return rows


def _way_rows(network: str, kind: str, way: Way, kept: dict[int, Robustness]) -> list[dict[str, Any]]:
    """A row for the searches that ended and one for those that ran out of time, each where there are any."""
    head = {"network": network, "seeds": kind, "program": way.program, "solver": way.solver}
    ended = _ended(kept)
    late = {seed: round(result.seconds, 1) for seed, result in kept.items() if seed not in ended}
    details = {"seeds": list(late), "seconds": list(late.values())}
    cut_off = head | {"program": f"{way.program}, timed out", "n": len(late), "details": details}
    return [*([head | _medians(ended)] if ended else []), *([cut_off] if late else [])]


def _medians(ended: dict[int, Robustness]) -> dict[str, Any]:
    results = list(ended.values())
    seconds = [result.seconds for result in results]
    quartiles = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    row: dict[str, Any] = {"n": len(results), "s": round(median(seconds), 4)}
    row |= {f"{stage} s": round(median(result.timings[stage] for result in results), 4) for stage in STAGES}
    row["rounds"] = round(median(result.rounds for result in results))
    row["details"] = {
        "seeds": list(ended),
        "quartiles": [round(value, 4) for value in quartiles],
        "rows given": median(result.rows for result in results),
        "steps of the proof": median(result.steps for result in results),
    }
    return row


def _ratio(slow: dict[int, Robustness], fast: dict[int, Robustness]) -> float:
    """Median over the seeds at which both ended; NaN if there is none."""
    peer = _ended(fast)
    ratios = [result.seconds / peer[seed].seconds for seed, result in _ended(slow).items() if seed in peer]
    return median(ratios) if ratios else math.nan


def _throughput(network: str, model: nn.Module, images: np.ndarray) -> list[dict[str, Any]]:
    """Seeds a second in one process and in as many as there are cores, the start of the processes left out."""
    rows: list[dict[str, Any]] = []
    for processes in sorted({1, machine.cores()}):
        with SeedPool(processes) as pool:
            pool.search(model, images[:processes], "lp", settings={"margin": MARGIN})
            start = time.perf_counter()
            pool.search(model, images, "lp", settings={"margin": MARGIN})
            rate = len(images) / (time.perf_counter() - start)
        name = f"lazy, {processes} process" + ("es" if processes > 1 else "")
        row = {"network": network, "seeds": "all", "program": name, "solver": "PuLP", "n": len(images)}
        row["seeds/s"] = round(rate, 2)
        rows.append(row | ({"ratio": round(rate / rows[0]["seeds/s"], 2)} if rows else {}))
    return rows
