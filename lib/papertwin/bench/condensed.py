"""A condensed layer against the same layer dense and in compressed rows (CSR), on a CPU in float32.

The layer is the one that the paper times (Lasby et al. 2024, arXiv 2305.02299): 768 neurons of 3072 inputs. Everything
that is compared takes turns in one process; ratios are taken round by round, and their median is shown. In its turn
each way is called twice and the second call counts, as in a loop over one layer, which is what the paper timed:
whatever fits into the caches is there, for all ways alike.

`dense ms` and `ms` are medians of the dense layer and of the condensed one; `dense ×` and `CSR ×` are the times of the
dense layer and of the faster of torch's and scipy's CSR over that of the condensed layer. The last two columns are the
time of the dense layer over that of others: `ablated ×` is condensed with 30% of the neurons ablated and as many
weights in the rest, a larger fan-in; `structured ×` keeps the same neurons with all their weights, a smaller dense
layer. The JSON says more under `details`: quartiles of each way, shapes, and which kernel computed it.
On the processor of the paper (one run on a Xeon W-2145) the dense layer took 165.6 µs for one input, CSR 106.6,
structured 96.9 and condensed 45.6.
"""

import platform
from dataclasses import asdict
from statistics import median
from typing import Any

from papertwin import machine
from papertwin.bench import BenchResult, Progress
from papertwin.bench._condensed import Plan
from papertwin.bench._shared import KEPT, quartiles_ms, results
from papertwin.errors import RunError
from papertwin.training.device import thread_count

GOAL, GOAL_CSR = 3.4, 2.5  # published, of dense and of CSR
SHOWN = (0.9, 1, 1)  # sparsity, batch and threads of the headline
PLAN = Plan()
CSR = ("CSR, torch", "CSR, SciPy")
OTHERS = {"ablated": "condensed, ablated", "structured": "structured only"}  # title → form

Subject = dict[str, Any]


def run(progress: Progress) -> BenchResult:
    """Measure everything; about two minutes on two cores.

    Raises:
        RunError: two ways disagree, or the process that measures ended early.
    """
    cores = thread_count()
    subjects = PLAN.subjects(cores)
    steps = [(_name(*subject), number / len(subjects)) for number, subject in enumerate(subjects)]
    kept = KEPT if platform.libc_ver()[0] == "glibc" else {}
    task = {"plan": asdict(PLAN), "cores": cores}
    found = list(results("papertwin.bench._condensed", task, kept, steps, progress))
    progress("done", 1.0)
    threads = max(subject["threads"] for subject in found)
    return BenchResult("condensed", machine.describe(), threads, [_row(subject) for subject in found], _headline(found))


def _name(sparsity: float, batch: int, threads: int) -> str:
    return f"{sparsity:.0%} sparse, batch {batch}, {threads} thread{'s' if threads > 1 else ''}"


def _row(found: Subject) -> dict[str, Any]:
    """A row for one sparsity, batch and number of threads."""
    seconds = found["seconds"]
    row = {"sparse %": round(100 * found["sparsity"]), "batch": found["batch"], "threads": found["threads"]}
    row |= {
        f"{title}ms": round(1e3 * median(seconds[way]), 4) for title, way in (("dense ", "dense"), ("", "condensed"))
    }
    row |= {"dense ×": _ratio(found, "dense", "condensed"), "CSR ×": _ratio(found, _faster(found), "condensed")}
    row |= {f"{title} ×": _ratio(found, "dense", way) for title, way in OTHERS.items()}
    details = {"quartiles ms": {way: quartiles_ms(taken) for way, taken in seconds.items()}}
    details |= {"rounds": len(seconds["dense"]), "faster CSR": _faster(found)}
    details |= {"neurons and fan-in": found["shapes"], "kernels": found["kernels"]}
    return row | {"details": details}


def _faster(found: Subject) -> str:
    """The faster one of torch's and scipy's CSR."""
    return min(CSR, key=lambda way: median(found["seconds"][way]))


def _ratio(found: Subject, slower: str, faster: str) -> float:
    """Median of the ratios of two ways, round by round."""
    pairs = zip(found["seconds"][slower], found["seconds"][faster])
    return round(median(one / other for one, other in pairs), 2)


def _headline(found: list[Subject]) -> dict[str, Any]:
    """Dense over condensed as the paper's abstract has it; CSR over condensed in words."""
    for subject in found:
        if (subject["sparsity"], subject["batch"], subject["threads"]) == SHOWN:
            ratio = _ratio(subject, _faster(subject), "condensed")
            reached = "reached" if ratio >= GOAL_CSR else "NOT reached"
            figure = (
                f"time of the dense / condensed layer, {_name(*SHOWN)} "
                f"(CSR / condensed: {ratio:.1f}x, goal {GOAL_CSR}x {reached})"
            )
            return {"figure": figure, "ratio": _ratio(subject, "dense", "condensed"), "goal": GOAL}
    raise RunError(f"The plan of this benchmark has no layer {_name(*SHOWN)}.")
