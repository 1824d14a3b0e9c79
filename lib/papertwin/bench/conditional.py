"""Measured time against multiply-accumulates (MACs): routed networks with τ = 1 … R, layers in 1 … 32 filter groups.

Everything that is compared takes turns on one core, with one thread, in one process; `ms` is the median of its turns.
`MACs ×` and `time ×` are those of the dense network or layer over those of the row: where `time ×` is below 1,
splitting is slower than not splitting. The dense network costs what all routes cost; `stem only` is what every image
pays. `kernel` is oneDNN's (the library of torch's convolutions on a CPU), or a function of torch itself, with the
number of its calls.

Each ratio of the other ways is to the dense layer in the same way: `last ×` with maps in the order (B, H, W, C),
`native ×` without oneDNN, `fresh ×` where each large block of memory comes new from the system, which clears its pages.
Otherwise freed memory is kept. By default glibc does one or the other, depending on what a process did before.
The JSON says more under `details`, and `why` there puts it into words.
"""

import platform
from collections.abc import Iterator
from dataclasses import asdict
from statistics import median
from typing import Any

from papertwin import machine
from papertwin.bench import BenchResult, Progress, _onednn
from papertwin.bench._conditional import Plan
from papertwin.bench._shared import KEPT, quartiles_ms, results
from papertwin.errors import RunError

GOAL = 1.5
SHOWN = (4, 64)  # R and batch of the headline
PLAN = Plan()
FRESH = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
WAYS = ("plain", "last", "native")

Subject = dict[str, Any]


def run(progress: Progress) -> BenchResult:
    """Measure everything; at most four minutes on two cores.

    Raises:
        RunError: two ways disagree, or the process that measures ended early.
    """
    glibc = platform.libc_ver()[0] == "glibc"
    steps = (1 + glibc) * len(PLAN.subjects())
    found = list(_measured(WAYS, KEPT if glibc else {}, progress, 0, steps))
    fresh = list(_measured(("plain",), FRESH, progress, len(found), steps)) if glibc else [{} for _ in found]
    progress("done", 1.0)
    rows = [row for subject, other in zip(found, fresh) for row in _rows(subject, other)]
    return BenchResult("conditional", machine.describe(), 1, rows, _headline(found))


def _measured(
    ways: tuple[str, ...], environment: dict[str, str], progress: Progress, done: int, steps: int
) -> Iterator[Subject]:
    """Measure in a process of its own, with variables of its own; yield each subject as it comes."""
    task = {"plan": asdict(PLAN), "ways": ways, "look": len(ways) > 1}
    suffix = ", fresh memory" if environment is FRESH else ""
    names = [_name(kind, what, batch) + suffix for kind, what, batch in PLAN.subjects()]
    shown = [(name, (done + number) / steps) for number, name in enumerate(names)]
    yield from results("papertwin.bench._conditional", task, environment, shown, progress)


def _name(kind: str, what: Any, batch: int) -> str:
    return f"{_what(kind, what)}, batch {batch}"


def _what(kind: str, what: Any) -> str:
    if kind == "routes":
        return f"R = {what}"
    channels, kernel, _ = what
    return f"{channels}, {kernel}×{kernel}"


def _rows(found: Subject, fresh: Subject) -> list[dict[str, Any]]:
    """A row for the dense network or layer, and for each split form of it."""
    rows = []
    for name, macs in found["macs"].items():
        seconds = median(found["seconds"][name]["plain"])
        row = {"what": _what(found["kind"], found["what"]), "batch": found["batch"], "split": name}
        row |= {"M MACs": round(macs / 1e6, 3), "MACs ×": round(found["macs"]["dense"] / macs, 2)}
        row |= {"ms": round(1e3 * seconds, 4), "time ×": _ratio(found, name, "plain")}
        ratios = {"last ×": (found, "last"), "native ×": (found, "native"), "fresh ×": (fresh, "plain")}
        row |= {title: _ratio(subject, name, way) for title, (subject, way) in ratios.items()}
        row["kernel"] = _onednn.kernels(found["details"][name].get("plain", {}))
        row["details"] = {"GMAC/s": round(found["batch"] * macs / seconds / 1e9, 1), **_details(found, fresh, name)}
        rows.append(row)
    return rows


def _ratio(subject: Subject, name: str, way: str) -> float | None:
    """Time of the dense form over that of another, in the same way; None where it was not measured."""
    seconds = subject.get("seconds", {})
    if way not in seconds.get(name, {}):
        return None
    return round(median(seconds["dense"][way]) / median(seconds[name][way]), 2)


def _details(found: Subject, fresh: Subject, name: str) -> dict[str, Any]:
    """Milliseconds and new pages of memory in every way, what each way consists of, and what follows."""
    times, pages = dict(found["seconds"][name]), dict(found["pages"][name])
    if fresh:
        times["fresh"], pages["fresh"] = fresh["seconds"][name]["plain"], fresh["pages"][name]["plain"]
    shown = {way: quartiles_ms(seconds) for way, seconds in times.items()}
    details = {"quartiles ms": shown, "turns": len(times["plain"]), "pages": pages, **found["details"][name]}
    return details | {"why": _why(found, name, shown, pages)}


def _why(found: Subject, name: str, shown: dict[str, list[float]], pages: dict[str, int]) -> str:
    """What stands between the ratio of MACs and that of the times, from what was measured."""
    details, dense = (found["details"][each] for each in (name, "dense"))
    looked, whole = details.get("plain", {}), dense.get("plain", {})
    spent = shown["plain"][1]
    told = _onednn.reasons(looked, whole, details.get("channels a group", 0), spent)
    if details.get("map values", 0) > dense.get("map values", 0):
        told.append(f"maps hold {details['map values'] / dense['map values']:.2g} times as many values as dense ones")
    if pages.get("fresh"):
        told.append(
            f"{pages['fresh']} fresh pages of memory a call would cost {max(shown['fresh'][1] - spent, 0):.3g} ms"
        )
    return "; ".join(told)


def _headline(found: list[Subject]) -> dict[str, Any]:
    """Dense network over the routed one with one route of R evaluated."""
    routes, batch = SHOWN
    for subject in found:
        if subject["kind"] == "routes" and (subject["what"], subject["batch"]) == SHOWN:
            bound = subject["macs"]["dense"] / subject["macs"]["τ = 1"]
            figure = (
                f"time of the dense network / of the routed one with 1 of {routes} routes evaluated, "
                f"batch {batch}, one thread (MACs: {bound:.1f}x)"
            )
            return {"figure": figure, "ratio": round(_ratio(subject, "τ = 1", "plain"), 2), "goal": GOAL}
    raise RunError(f"The plan of this benchmark has no network of {routes} routes with batch {batch}.")
