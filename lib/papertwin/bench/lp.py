"""Pointwise robustness by linear programs: rows added lazily against all rows at once, PuLP against HiGHS directly.

Each seed image of MNIST's test set is searched in every way, one right after the other, so that a machine that is busy
for a while slows all of them. Times are medians over the seeds; those whose linear region holds the runner-up label
(feasible) and those where it does not (infeasible) are apart. Every way must find the same optimum.

A full program of LeNet has 11,540 rows and takes from seconds to minutes: full ones are solved on the first seeds only,
until their time is used up; `n` says how many that were. `rows s` is the time in which rows of the region are computed,
`model s` that in which they are handed to the solver, `solve s` the solver's own and `proof s` that of proofs without
it. The rest of `s` goes into the network: its copy, its linear region, and the check of what was found.
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
from papertwin.training.device import thread_count

MARGIN = 1e-6  # logits by which a witness must be on the other side
SAME = 1e-5  # largest difference of two optima that count as the same
FULL_SECONDS = 270.0  # after so much time in full programs of one network no further one is begun
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
FULL = Way("full", "PuLP", {"solver": "highs", "lazy": False})
FULL_DIRECT = Way("full", "direct", {"solver": "highspy", "lazy": False})

Found = dict[Way, dict[int, Robustness]]


def ways() -> list[Way]:
    """All ways to search on this machine."""
    threads = machine.cores()
    unproven = Way("lazy, no proof", "direct", LAZY_DIRECT.settings | {"proof": False})
    parallel = Way(f"lazy, {threads} threads", "direct", LAZY_DIRECT.settings | {"threads": threads})
    return [LAZY, LAZY_DIRECT, unproven, *([parallel] if threads > 1 else []), FULL, FULL_DIRECT]


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
    figure = "median over LeNet's seeds, feasible or not: time of the full program / lazily, both stated with PuLP"
    headline = {"figure": figure, "ratio": round(_ratio(lenet[FULL], lenet[LAZY]), 1), "goal": GOAL}
    return BenchResult("lp", machine.describe(), thread_count(), rows, headline)


def _search(found: Found, model: nn.Module, seed: int, image: np.ndarray) -> None:
    """Search one seed in every way, full programs while there is time; the optima must be the same."""
    for way, results in found.items():
        spent = sum(result.seconds for each, kept in found.items() if each.full for result in kept.values())
        if way.full and spent > FULL_SECONDS:
            continue
        result = pointwise_robustness(model, image, margin=MARGIN, limit=FULL_SECONDS, **way.settings)
        if result.status not in ("found", "infeasible"):
            raise RunError(
                f"Test image {seed} {way.program} ({way.solver}): the search ended with status {result.status!r} "
                f"after {result.seconds:.0f} s. Is the machine busy with something else?"
            )
        results[seed] = result
    optima = {f"{way.program} ({way.solver})": kept[seed].epsilon for way, kept in found.items() if seed in kept}
    if not np.allclose(list(optima.values()), next(iter(optima.values())), rtol=0.0, atol=SAME):
        raise RunError(f"Test image {seed}: the optima differ by more than {SAME:g}: {optima}. Please report this.")


def _check(name: str, found: Found) -> None:
    """Raise RunError where a seed of LeNet that was feasible is not."""
    if name == "lenet":
        lost = [seed for seed in LENET_FEASIBLE if not found[LAZY][seed].found]
        if lost:
            raise RunError(f"LeNet's programs at test images {lost} should be feasible; did the weights change?")


def _rows(network: str, found: Found) -> list[dict[str, Any]]:
    """A row for each way and kind of seed, then the ratios."""
    rows = []
    for kind, feasible in (("feasible", True), ("infeasible", False)):
        chosen = [seed for seed, result in found[LAZY].items() if result.found is feasible]
        if not chosen:
            continue
        part = {way: {seed: kept[seed] for seed in chosen if seed in kept} for way, kept in found.items()}
        rows += [_row(network, kind, way, kept) for way, kept in part.items() if kept]
        for program, solver, first, second in (
            ("full / lazy", "PuLP", FULL, LAZY),
            ("full / lazy", "direct", FULL_DIRECT, LAZY_DIRECT),
            ("lazy", "PuLP / direct", LAZY, LAZY_DIRECT),
        ):
            both = sum(seed in part[second] for seed in part[first])
            if both:
                ratio = round(_ratio(part[first], part[second]), 2)
                goal = {"goal": f"≤ {PULP_GOAL:g}"} if first is LAZY else {}
                head = {"network": network, "seeds": kind, "program": program, "solver": solver}
                rows.append(head | {"n": both, "ratio": ratio} | goal)
    return rows


def _row(network: str, kind: str, way: Way, kept: dict[int, Robustness]) -> dict[str, Any]:
    results = list(kept.values())
    seconds = [result.seconds for result in results]
    quartiles = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    row: dict[str, Any] = {"network": network, "seeds": kind, "program": way.program, "solver": way.solver}
    row |= {"n": len(results), "s": round(median(seconds), 4)}
    row |= {f"{stage} s": round(median(result.timings[stage] for result in results), 4) for stage in STAGES}
    row["rounds"] = round(median(result.rounds for result in results))
    row["details"] = {
        "seeds": list(kept),
        "quartiles": [round(value, 4) for value in quartiles],
        "rows given": median(result.rows for result in results),
        "steps of the proof": median(result.steps for result in results),
    }
    return row


def _ratio(slow: dict[int, Robustness], fast: dict[int, Robustness]) -> float:
    """Median over the seeds that both have; NaN if there is none."""
    ratios = [result.seconds / fast[seed].seconds for seed, result in slow.items() if seed in fast]
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
