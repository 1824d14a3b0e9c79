"""What `papertwin.bench.conditional` measures, in a process of its own: networks, layers, the clock, oneDNN's words.

A subject is a dense network or layer and its split forms, which compute on the same inputs and take turns on the clock.
A layer may run in several ways:

- plain: as torch runs it by default, maps in the order (B, C, H, W);
- last: maps and weights in the order (B, H, W, C), `channels_last`;
- native: without oneDNN, the library of convolutions that torch uses on a CPU.
"""

import copy
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from papertwin.bench import _onednn, _shared
from papertwin.nets import Counts, count
from papertwin.nets.conditional import Routed, Router, expected_cost
from papertwin.nets.initial import seeded
from papertwin.nets.layers import activated, chain, convolution, dense
from papertwin.training.clock import turns
from papertwin.training.loop import single_thread

STEM, CHANNELS, CLASSES = 32, 3, 10  # filters of the stem, channels of an image, classes
LANES = 16  # filters of the dense network are a multiple of this, so that no kernel computes on padding
MOST = 200  # rounds of the clock


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        layers: (channels in and out, side of the kernel, side of the maps) of the convolutions in groups.
        groups: g of each.
        routes: R of each routed network.
        filters: of a route.
        side: pixels of its images.
        batches: images at once.
        rounds: turns that everything takes on the clock, at least.
        seconds: for which the clock goes on if these took less.
    """

    layers: tuple[tuple[int, int, int], ...] = ((192, 5, 16), (256, 3, 14), (192, 1, 16))
    groups: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    routes: tuple[int, ...] = (4, 8)
    filters: int = 64
    side: int = 32
    batches: tuple[int, ...] = (1, 64)
    rounds: int = 9
    seconds: float = 1.5

    def subjects(self) -> list[tuple[str, Any, int]]:
        """Kind, R or layer, and batch of each subject, in the order in which they are measured."""
        kinds = [("routes", each) for each in self.routes] + [("groups", each) for each in self.layers]
        return [(kind, what, batch) for kind, what in kinds for batch in self.batches]


@dataclass(frozen=True)
class Work:
    """Something that is timed.

    Attributes:
        call: does it once.
        around: entered before the clock starts.
    """

    call: Callable[[], torch.Tensor]
    around: Callable[[], AbstractContextManager] = nullcontext


def without_onednn() -> AbstractContextManager:
    """Let torch do without oneDNN within the block."""
    return torch.backends.mkldnn.flags(enabled=False, allow_tf32=None, fp32_precision=None)


# ---- networks --------------------------------------------------------------------------------------------------------


def route(filters: int) -> nn.Sequential:
    """Three convolutions and the mean of each map: (B, STEM, h, h) → (B, filters)."""
    layers = [*activated("conv2", convolution(STEM, filters, 3)), *activated("conv3", convolution(filters, filters, 3))]
    layers += [("pool3", nn.MaxPool2d(2)), *activated("conv4", convolution(filters, filters, 3))]
    return chain([*layers, ("mean", nn.AdaptiveAvgPool2d(1)), ("flat", nn.Flatten())])


def equal_width(filters: int, routes: int, shape: tuple[int, int, int]) -> int:
    """Filters of one route that costs what R routes cost, to the nearest multiple of `LANES`."""
    with torch.device("meta"):
        wanted = routes * count(route(filters), shape).macs
        widths = range(LANES, routes * filters + LANES, LANES)
        return min(widths, key=lambda width: abs(count(route(width), shape).macs - wanted))


def network(middle: nn.Module, filters: int) -> nn.Sequential:
    """A stem for all images, what is routed or not, and a dense layer."""
    stem = chain([*activated("conv1", convolution(CHANNELS, STEM, 5)), ("pool1", nn.MaxPool2d(2))])
    return chain([("stem", stem), ("middle", middle), ("head", dense(filters, CLASSES, last=True))]).eval()


def networks(plan: Plan, routes: int, images: torch.Tensor) -> tuple[nn.Sequential, nn.Sequential]:
    """The dense network and the routed one, whose router spreads these images over its routes."""
    wide = equal_width(plan.filters, routes, (STEM, plan.side // 2, plan.side // 2))
    with seeded(0):
        plain = network(route(wide), wide)
        middle = Routed(Router(STEM, routes, seed=0), [route(plan.filters) for _ in range(routes)])
        routed = network(middle, plan.filters)
    spread(middle.router, routed.stem(images))
    return plain, routed


def spread(router: Router, maps: torch.Tensor) -> None:
    """Let a router see features of mean 0 and deviation 1, or it would send nearly every image the same way."""
    features = maps.flatten(2).mean(dim=2)
    linear = router.linear
    linear.weight.div_(features.std(dim=0, correction=0).clamp_min(1e-6))
    linear.bias.copy_(-linear.weight @ features.mean(dim=0))


def network_cost(net: nn.Sequential, image: torch.Size, maps: torch.Size) -> tuple[float, float]:
    """Mean MACs of an image and values in its maps, by how often each route was taken since the last reset."""
    middle = net.middle
    if isinstance(middle, Routed):
        routes = zip(*(cost(count(each, tuple(maps))) for each in middle.routes))
        router = (middle.router.macs, middle.count)
        inner = tuple(expected_cost(own, each, middle.frequencies) for own, each in zip(router, routes))
    else:
        inner = cost(count(middle, tuple(maps)))
    shared = (count(net.stem, tuple(image)), count(net.head, (net.head.in_features,)))
    macs, values = (float(sum(parts)) for parts in zip(inner, *map(cost, shared)))
    return macs, values


def cost(counts: Counts) -> tuple[int, int]:
    """MACs, and values that its layers give."""
    return counts.macs, sum(math.prod(layer.output) for layer in counts.layers)


def routing_subject(plan: Plan, routes: int, batch: int, look: bool) -> dict[str, Any]:
    """Time the dense network, the stem alone, and the routed network with τ = 1 … R."""
    images = torch.randn(max(plan.batches), CHANNELS, plan.side, plan.side, generator=torch.Generator().manual_seed(0))
    plain, routed = networks(plan, routes, images)
    images = images[:batch]
    shape, maps = images.shape[1:], routed.stem(images[:1]).shape[1:]
    works = {"dense": Work(partial(plain, images)), "stem only": Work(partial(routed.stem, images))}
    costs = {"dense": network_cost(plain, shape, maps), "stem only": cost(count(routed.stem, tuple(shape)))}
    taken: dict[str, list[float]] = {}

    def ask(top: int) -> torch.Tensor:
        routed.middle.top = top
        return routed(images)

    for top in range(1, routes + 1):
        name = f"τ = {top}"
        works[name] = Work(partial(ask, top))
        routed.middle.reset()
        ask(top)
        costs[name] = network_cost(routed, shape, maps)
        taken[name] = routed.middle.frequencies.round(3).tolist()
    details = {
        name: {"map values": round(costs[name][1]), "routes taken": taken.get(name, [])}
        | (looked_into({"plain": work}) if look else {})
        for name, work in works.items()
    }
    taken = interleaved({(name, "plain"): work for name, work in works.items()}, plan)
    return {"macs": {name: macs for name, (macs, _) in costs.items()}, "details": details, **by_way(taken)}


# ---- layers ----------------------------------------------------------------------------------------------------------


def layer_works(layer: nn.Conv2d, images: torch.Tensor) -> dict[str, Work]:
    """Every way to compute a layer on some maps, with the same weights."""
    works = {"plain": Work(partial(layer, images))}
    if torch.backends.mkldnn.is_available():
        order = torch.channels_last
        last = copy.deepcopy(layer).to(memory_format=order)
        works["last"] = Work(partial(last, images.contiguous(memory_format=order)))
        works["native"] = Work(partial(layer, images), without_onednn)
    return works


def grouping_subject(
    plan: Plan, layer: tuple[int, int, int], batch: int, ways: tuple[str, ...], look: bool
) -> dict[str, Any]:
    """Time a convolution with every number of groups, in some ways; all ways must agree."""
    channels, kernel, side = layer
    images = torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(1))
    works, macs, details = {}, {}, {}
    for groups in plan.groups:
        name = "dense" if groups == 1 else f"g = {groups}"
        with seeded(groups):
            split = convolution(channels, channels, kernel, groups=groups)
        known = layer_works(split, images)
        check_equal(f"{channels} channels, {kernel}×{kernel}, {name}", known)
        chosen = {way: work for way, work in known.items() if way in ways}
        works |= {(name, way): work for way, work in chosen.items()}
        macs[name] = count(split, tuple(images.shape[1:])).macs
        details[name] = {"channels a group": channels // groups} | (looked_into(chosen) if look else {})
    return {"macs": macs, "details": details, **by_way(interleaved(works, plan))}


def check_equal(name: str, works: dict[str, Work]) -> None:
    """Raise RunError where two ways give different results."""
    results = {}
    for way, work in works.items():
        with work.around():
            results[way] = work.call()
    _shared.check_same(name, results)


# ---- the clock, and why ----------------------------------------------------------------------------------------------


def interleaved(works: dict[Any, Work], plan: Plan) -> dict[Any, list[tuple[float, int]]]:
    """Let everything take turns: seconds and pages of memory of each turn; the first warms up and is not counted."""
    taken: dict[Any, list[tuple[float, int]]] = {name: [] for name in works}
    for name, counts in turns(works, rounds=plan.rounds, seconds=plan.seconds, most=MOST):
        work = works[name]
        with work.around():
            before, start = pages(), time.perf_counter()
            work.call()
            spent, got = time.perf_counter() - start, pages() - before
        if counts:
            taken[name].append((spent, got))
    return taken


def by_way(taken: dict[tuple[str, str], list[tuple[float, int]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Seconds of every turn, and the median of the pages, as name → way → value."""
    found: dict[str, dict[str, dict[str, Any]]] = {"seconds": {}, "pages": {}}
    for (name, way), each in taken.items():
        found["seconds"].setdefault(name, {})[way] = [spent for spent, _ in each]
        found["pages"].setdefault(name, {})[way] = int(median(got for _, got in each))
    return found


def pages() -> int:
    """Pages of memory that this process has got from the system so far, without reading a disk; 0 where unknown."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def looked_into(works: dict[str, Work]) -> dict[str, Any]:
    """What a call of each way consists of: torch's calls, oneDNN's kernels and reorders."""
    found: dict[str, Any] = {}
    for way, work in works.items():
        with work.around():
            found[way] = _onednn.looked_into(work.call)
    return found


# ---- the process -----------------------------------------------------------------------------------------------------


def measured(plan: Plan, ways: tuple[str, ...], look: bool) -> Iterator[dict[str, Any]]:
    """Yield the results of each subject, in the plan's order."""
    for kind, what, batch in plan.subjects():
        with torch.inference_mode(), single_thread():
            if kind == "routes":
                found = routing_subject(plan, what, batch, look)
            else:
                found = grouping_subject(plan, what, batch, ways, look)
        yield {"kind": kind, "what": what, "batch": batch, **found}


def main(text: str) -> None:
    """Body of the process: plan, ways and whether to look as JSON → a line of JSON a subject."""
    asked = json.loads(text)
    for subject in measured(Plan(**asked["plan"]), tuple(asked["ways"]), asked["look"]):
        print(json.dumps(subject), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
