"""What `papertwin.bench.roots` measures, in a process of its own: networks in several ways, and their layers.

A subject is a family of networks at one batch size: the standard network and those that save operations, which answer
the same images and take turns on the clock. The ways in which a network runs are those of `papertwin.nets.timing`.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn

from papertwin.bench import _onednn, _shared
from papertwin.nets import build, count, sample_images
from papertwin.nets.execution import MERGED, ONEDNN, TORCH
from papertwin.nets.timing import WAYS, layer_times, prepared
from papertwin.training.clock import interleaved
from papertwin.training.loop import single_thread

Calls = dict[str, Callable[[], torch.Tensor]]


@dataclass(frozen=True)
class Family:
    """Networks that are compared.

    Attributes:
        card: of `papertwin.nets.published`.
        names: networks of that card, the standard one first.
        batches: images at once.
        searched: networks whose fastest way is searched for more than one image; empty: all.
        compiled: networks that are compiled, for one image.
        layered: the network whose layers are compared with those of the standard one, for 1 and 16 images.
    """

    card: str
    names: tuple[str, ...]
    batches: tuple[int, ...] = (1, 16)
    searched: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()
    layered: str | None = None


def _roots(family: str, last: int) -> tuple[str, ...]:
    """The standard network of a family and its root forms."""
    return (f"{family} Orig.", *(f"{family} root-{2**power}" for power in range(1, last.bit_length())))


NIN = Family(
    "deep-roots",
    (*_roots("NiN", 16), "NiN tree-8", "NiN col-8"),
    compiled=("NiN Orig.", "NiN root-8"),
    layered="NiN root-8",
)
RESNET = Family(
    "deep-roots",
    _roots("ResNet-50", 64),
    searched=("ResNet-50 Orig.", "ResNet-50 root-64"),
    compiled=("ResNet-50 Orig.", "ResNet-50 root-64"),
    layered="ResNet-50 root-64",
)
GOOGLENET = Family("deep-roots", _roots("GoogLeNet", 16), searched=("GoogLeNet Orig.", "GoogLeNet root-8"))
GMP = Family("low-rank-filters", ("gmp", "gmp-lr", "gmp-lr-join"), batches=(1,), layered="gmp-lr")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        families: of networks.
        layer_batches: images at once where layers are timed.
        rounds: of the clock for one image.
        fewer: rounds for more images.
        search: rounds of each measurement by which the fastest way is chosen.
    """

    families: tuple[Family, ...] = (NIN, RESNET, GOOGLENET, GMP)
    layer_batches: tuple[int, ...] = (1, 16)
    rounds: int = 9
    fewer: int = 5
    search: int = 5

    def subjects(self) -> list[tuple[str, Family, int]]:
        """Kind, family and batch of each subject, in the order in which they are measured."""
        networks = [("networks", family, batch) for family in self.families for batch in family.batches]
        layered = [family for family in self.families if family.layered]
        return [*networks, *(("layers", family, batch) for family in layered for batch in self.layer_batches)]

    def turns(self, batch: int) -> int:
        """Rounds of the clock."""
        return self.rounds if batch == 1 else self.fewer

    @classmethod
    def read(cls, found: dict[str, Any]) -> "Plan":
        """The plan that `dataclasses.asdict` and JSON were made of."""
        families = tuple(Family(**{key: _tuple(value) for key, value in each.items()}) for each in found["families"])
        return cls(**found | {"families": families, "layer_batches": tuple(found["layer_batches"])})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# ---- networks --------------------------------------------------------------------------------------------------------


def drawn(family: Family, batch: int) -> torch.Tensor:
    """Images for the networks of a family: (B, 3, H, W)."""
    return sample_images(family.card, family.names[0], batch)


def built(family: Family, name: str) -> nn.Module:
    """A network on the CPU, for inference."""
    return build(family.card, name, device="cpu").eval()


def ways_of(family: Family, name: str, batch: int) -> list[str]:
    """Ways in which a network runs; the search and the compiler take long, so not all are tried everywhere."""
    left = set()
    if batch > 1 and name not in (family.searched or family.names):
        left.add("fastest")
    if batch > 1 or name not in family.compiled:
        left.add("compile")
    return [way for way in WAYS if way not in left]


def prepare(plan: Plan, family: Family, name: str, images: torch.Tensor) -> tuple[Calls, dict[str, Any]]:
    """What is called in each way, all of which must agree, and what is to be told of some ways."""
    model, calls, told = built(family, name), {}, {}
    for way in ways_of(family, name, len(images)):
        call, reason = prepared(model, images, way, search=plan.search)
        told[way] = {}
        if call is None:
            told[way]["left out"] = reason
            continue
        calls[way] = call
        if way == "fastest":
            best = call.func
            chosen = [row for row in best.choices.itertuples() if row.way != TORCH]
            told[way]["order"] = best.order
            told[way]["groups computed as one"] = {row.layer: int(row.together) for row in chosen if row.way == MERGED}
            told[way]["left to oneDNN"] = [row.layer for row in chosen if row.way == ONEDNN]
    _shared.check_same(f"{name}, batch {len(images)}", {way: call() for way, call in calls.items()})
    return calls, told


def network_subject(plan: Plan, family: Family, batch: int) -> dict[str, Any]:
    """Time every network of a family in every way; all take turns."""
    images = drawn(family, batch)
    calls, macs, told = {}, {}, {}
    for name in family.names:
        each, told[name] = prepare(plan, family, name, images)
        calls |= {(name, way): call for way, call in each.items()}
        macs[name] = count(build(family.card, name), tuple(images.shape[1:])).macs
    seconds = interleaved(calls, rounds=plan.turns(batch))
    found: dict[str, dict[str, list[float]]] = {name: {} for name in family.names}
    for name, way in calls:
        found[name][way] = seconds[name, way].tolist()
        told[name][way]["looked"] = _onednn.looked_into(calls[name, way], looks=1)
    return {"macs": macs, "seconds": found, "told": told}


# ---- layers ----------------------------------------------------------------------------------------------------------


def layer_subject(plan: Plan, family: Family, batch: int) -> dict[str, Any]:
    """Time the layers of the standard network and of another one, which take turns."""
    images = drawn(family, batch)
    models = {name: built(family, name) for name in (family.names[0], family.layered)}
    passes: dict[str, list[pd.DataFrame]] = {name: [] for name in models}
    for _ in range(plan.turns(batch)):
        for name, model in models.items():
            passes[name].append(layer_times(model, images, rounds=1))
    tables = {}
    for name, each in passes.items():
        ms = pd.concat([table["ms"] for table in each], axis=1).median(axis=1)
        tables[name] = [[row.layer, int(row.MACs), float(ms[row.Index])] for row in each[0].itertuples()]
    standard, split = models.values()
    return {"split": family.layered, "layers": tables, "looked": grouped_layers(standard, split, images)}


def grouped_layers(standard: nn.Module, split: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """What computes each layer in groups and the dense layer in its place; layers that are alike are asked once.

    Returns:
        Name of the layer → `channels` of a group, `alike` (what layers that are alike have in common), `looked` into it
        and into its dense counterpart, `whole`.
    """
    names = [name for name, layer in split.named_modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    seen = _given(split, names, images)
    found, known = {}, {}
    for name in names:
        layer, dense = split.get_submodule(name), standard.get_submodule(name)
        alike = f"{tuple(seen[name].shape)} {layer.extra_repr()}"
        if alike not in known:
            known[alike] = {
                "channels": layer.in_channels // layer.groups,
                "alike": alike,
                "looked": _onednn.looked_into(partial(layer, seen[name])),
                "whole": _onednn.looked_into(partial(dense, seen[name])),
            }
        found[name] = known[alike]
    return found


def _given(model: nn.Module, names: list[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each of these layers is given in a forward pass; no hook is left behind, even if the pass fails."""
    seen: dict[str, torch.Tensor] = {}
    with ExitStack() as hooks:
        for name in names:
            layer = model.get_submodule(name)
            hooks.enter_context(
                layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
            )
        model(images)
    return seen


# ---- the process -----------------------------------------------------------------------------------------------------

KINDS = {"networks": network_subject, "layers": layer_subject}


def measured(plan: Plan) -> Iterator[dict[str, Any]]:
    """Yield the results of each subject, in the plan's order."""
    for kind, family, batch in plan.subjects():
        with torch.inference_mode(), single_thread():
            found = KINDS[kind](plan, family, batch)
        yield {"kind": kind, "card": family.card, "standard": family.names[0], "batch": batch, **found}


def main(text: str) -> None:
    """Body of the process: a plan as JSON → a line of JSON a subject."""
    for subject in measured(Plan.read(json.loads(text))):
        print(json.dumps(subject), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
