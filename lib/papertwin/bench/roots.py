"""Measured time against multiply-accumulates (MACs): networks with filter groups (Deep Roots) and low-rank filters.

Everything that is compared takes turns on one core, with one thread, in one process; `ms` is that of one image, the
median of its turns. `MACs ×` and `time ×` are those of the standard network in the same way, or of its layer, over
those of the row: where `time ×` is below 1, fewer operations take longer. `CPU ×` and `GPU ×` were published.

Ways: `eager` is plain torch, `channels_last` keeps maps in the order (B, H, W, C), `fastest` computes each layer
in the way that measured best, `compile` is `torch.compile`. After `layers:` and a network come the layers that
differ from the standard one's, `×3` for the mean of 3 that are alike, then all others together, and what lies between.
Freed memory is kept by the process. Otherwise its pages are cleared again and again, which all networks pay alike: for
16 images and ResNet-50 that took about as long as all else, and hid part of what groups save.
The JSON says more under `details`: every layer, kernels of oneDNN (the library of torch's convolutions on a CPU), and
`why`, which puts into words what they mean. A network that could not be compiled is `not compiled`, with the reason.
"""

import platform
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from statistics import mean, median
from typing import Any

from papertwin import machine
from papertwin.bench import BenchResult, Progress, _onednn
from papertwin.bench._roots import Family, Plan
from papertwin.bench._shared import KEPT, quartiles_ms, results
from papertwin.errors import RunError
from papertwin.nets import published
from papertwin.nets.literature import GMP_LR_MS

PLAN = Plan()
SHOWN = ("ResNet-50 Orig.", "ResNet-50 root-64", 1)  # networks and batch of the headline
PUBLISHED_LAYERS = {layer: cpu for layer, (cpu, _) in GMP_LR_MS.items()}  # CPU ms of the 3×1 and the 1×3 filters

Subject = dict[str, Any]
Row = dict[str, Any]
Layers = dict[str, tuple[int, float]]  # name → MACs, ms


def run(progress: Progress) -> BenchResult:
    """Measure everything; about five minutes on two cores.

    Raises:
        RunError: two ways disagree, or the process that measures ended early.
    """
    subjects = PLAN.subjects()
    steps = [(_name(*subject), number / len(subjects)) for number, subject in enumerate(subjects)]
    kept = KEPT if platform.libc_ver()[0] == "glibc" else {}
    found = list(results("papertwin.bench._roots", asdict(PLAN), kept, steps, progress))
    progress("done", 1.0)
    kinds = {"networks": _network_rows, "layers": _layer_rows}
    rows = [row for subject in found for row in kinds[subject["kind"]](subject)]
    return BenchResult("roots", machine.describe(), 1, rows, _headline(found))


def _name(kind: str, family: Family, batch: int) -> str:
    what = family.names[0] if kind == "networks" else f"layers of {family.layered}"
    return f"{what}, batch {batch}"


# ---- networks --------------------------------------------------------------------------------------------------------


def _network_rows(found: Subject) -> Iterator[Row]:
    """A row for each network and way; one for a way that was left out, with the reason."""
    batch, macs = found["batch"], found["macs"]
    for name, told in found["told"].items():
        for way, details in told.items():
            reason = details.get("left out")
            row = {"what": name, "batch": batch, "way": "not compiled" if reason else way, "ms": None}
            row |= {"MACs ×": round(macs[found["standard"]] / macs[name], 2), "time ×": _ratio(found, name, way)}
            row |= _published_ratios(found["card"], found["standard"], name)
            if reason:
                yield {**row, "details": {"why": reason}}
                continue
            taken = found["seconds"][name][way]
            quartiles = [round(ms / batch, 4) for ms in quartiles_ms(taken)]
            row["ms"] = quartiles[1]
            speed = round(macs[name] / quartiles[1] / 1e6, 1)
            known = {"quartiles ms": quartiles, "turns": len(taken), "GMAC/s": speed, **details}
            yield {**row, "details": known | {"why": _why(found, name, way)}}


def _why(found: Subject, name: str, way: str) -> str:
    """What the time is spent on, and what of it is shorter than in the standard network."""
    spent, looked = 1e3 * median(found["seconds"][name][way]), found["told"][name][way]["looked"]
    told = _onednn.reasons(looked, {}, 0, spent)
    standard = found["standard"]
    if told and name != standard and way in found["seconds"][standard]:
        whole, before = found["told"][standard][way]["looked"], 1e3 * median(found["seconds"][standard][way])
        if _native(whole) == _native(looked):
            kernels = whole["kernel ms"] / looked["kernel ms"]
            told.append(f"these kernels are {kernels:.2f} times as fast as in the standard network")
            rest = before - whole["kernel ms"], spent - looked["kernel ms"]
            if min(rest) > 0:  # kernels were listened to in a call of its own, which may have taken longer
                told[-1] += f", all else {rest[0] / rest[1]:.2f}"
    return "; ".join(told)


def _native(looked: dict[str, Any]) -> int:
    """How many convolutions torch computes without oneDNN."""
    return sum(number for call, number in looked.get("calls", {}).items() if call in _onednn.NATIVE)


def _ratio(found: Subject, name: str, way: str) -> float | None:
    """Time of the standard network over that of another in the same way; None where one was not measured."""
    seconds = found["seconds"]
    if way not in seconds[name] or way not in seconds[found["standard"]]:
        return None
    return round(median(seconds[found["standard"]][way]) / median(seconds[name][way]), 2)


@cache
def _published_ms(card: str) -> dict[str, dict[str, float]]:
    """Milliseconds an image, name → CPU and GPU; only where they were published."""
    table = published(card).set_index("network")
    columns = {"CPU": "cpu_ms_per_image", "GPU": "gpu_ms_per_image"}
    return {place: table[column].dropna().to_dict() for place, column in columns.items()}


def _published_ratios(card: str, standard: str, name: str) -> dict[str, float | None]:
    """How many times as fast as the standard network it was published to be."""
    known = _published_ms(card)
    return {
        f"{place} ×": round(ms[standard] / ms[name], 2) if standard in ms and name in ms else None
        for place, ms in known.items()
    }


# ---- layers ----------------------------------------------------------------------------------------------------------


def _layer_rows(found: Subject) -> Iterator[Row]:
    """A row for the network; each layer that differs, those that are alike in one; all other layers; what lies between.

    The details of the first row hold every layer.
    """
    tables = {
        name: {layer: (macs, ms / found["batch"]) for layer, macs, ms in table}
        for name, table in found["layers"].items()
    }
    totals = {name: table.pop("total") for name, table in tables.items()}
    yield _whole_row(found, tables, totals)
    standard, split = tables[found["standard"]], tables[found["split"]]
    pairs = {name: (layer, _instead(split, name)) for name, layer in standard.items()}
    changed = {name: pair for name, pair in pairs.items() if pair[0][0] != pair[1][0]}
    whole = sum(after for _, (_, after) in changed.values())
    for names in _alike(list(changed), found["looked"]):
        yield _layer_row(found, names, changed, whole)
    others = [pair for name, pair in pairs.items() if name not in changed]
    if others:
        yield _row(found, "all other layers", 1.0, *(sum(layer[1] for layer in each) for each in zip(*others)))
    between = (totals[name][1] - sum(ms for _, ms in table.values()) for name, table in tables.items())
    yield _row(found, "between layers", None, *between)


def _whole_row(found: Subject, tables: dict[str, Layers], totals: Layers) -> Row:
    """The network, with every layer of it and of the standard one."""
    (whole, before), (macs, after) = (totals[found[key]] for key in ("standard", "split"))
    row = _row(found, f"layers: {found['split']}", whole / macs, before, after)
    row["details"]["layers"] = {
        name: {layer: {"MACs": macs, "ms": round(ms, 4)} for layer, (macs, ms) in table.items()}
        for name, table in tables.items()
    }
    return row


def _instead(split: Layers, name: str) -> tuple[int, float]:
    """MACs and ms of what stands in the place of a standard layer: the layer of its name, or those of a composite."""
    parts = [layer for layer in split if layer == name or layer.startswith(f"{name}.")]
    return sum(split[layer][0] for layer in parts), sum(split[layer][1] for layer in parts)


def _alike(names: list[str], looked: dict[str, Any]) -> list[list[str]]:
    """Layers in groups of the same shape go together; others stay alone."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(looked.get(name, {"alike": name})["alike"], []).append(name)
    return list(found.values())


def _row(found: Subject, what: str, macs: float | None, before: float, after: float) -> Row:
    """A row of one or more layers, by their MACs as a ratio and the ms of the standard network and of the other."""
    row = {"what": what, "batch": found["batch"], "way": "eager", "ms": round(after, 4)}
    row |= {"MACs ×": None if macs is None else round(macs, 2), "time ×": round(before / after, 2)}
    details = {"network": found["split"], "standard ms": round(before, 4)}
    return row | {"CPU ×": None, "GPU ×": None, "details": details}


def _layer_row(found: Subject, names: list[str], pairs: dict[str, Any], whole: float) -> Row:
    """One layer, or the mean of several that are alike.

    Args:
        found: subject.
        names: of the layers.
        pairs: name → MACs and ms of the standard layer, and of what stands in its place.
        whole: ms of all layers that differ.
    """
    before, after = (mean(pairs[name][which][1] for name in names) for which in (0, 1))
    what = names[0] if len(names) == 1 else f"{names[0]} ×{len(names)}"
    row = _row(found, what, pairs[names[0]][0][0] / pairs[names[0]][1][0], before, after)
    asked = found["looked"].get(names[0])
    if asked:
        looked, dense, channels = asked["looked"], asked["whole"], asked["channels"]
        why = "; ".join(_onednn.reasons(looked, dense, channels, after * found["batch"]))
        row["details"] |= {"kernel": _onednn.kernels(looked), "channels a group": channels, "why": why}
        row["details"] |= {"looked": looked, "standard looked": dense}
    elif found["split"] == "gmp-lr":
        tall, flat = PUBLISHED_LAYERS[names[0]]
        share = (tall + flat) / sum(map(sum, PUBLISHED_LAYERS.values()))
        row["details"] |= {"why": f"{after / whole:.1%} of the time of all such layers, published {share:.1%}"}
        row["details"] |= {"published ms": {"3x1": tall, "1x3": flat}}
    return row


# ---- headline --------------------------------------------------------------------------------------------------------


def _headline(found: list[Subject]) -> dict[str, Any]:
    """Standard ResNet-50 over the one with most groups, one image, each in its fastest way; the goal was published."""
    standard, name, batch = SHOWN
    for subject in found:
        wanted = (subject["kind"], subject["standard"], subject["batch"]) == ("networks", standard, batch)
        if wanted and name in subject["seconds"]:
            macs = subject["macs"]
            figure = (
                f"time of {standard} / {name}, each in the fastest way, batch {batch}, one thread "
                f"(MACs: {macs[standard] / macs[name]:.2f}x, eager: {_ratio(subject, name, 'eager'):.2f}x)"
            )
            goal = _published_ratios(subject["card"], standard, name)["CPU ×"]
            return {"figure": figure, "ratio": _ratio(subject, name, "fastest"), "goal": goal}
    raise RunError(f"The plan of this benchmark has no {name} beside {standard} with batch {batch}.")
