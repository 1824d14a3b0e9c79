"""What `papertwin.bench.condensed` measures, in a process of its own: one layer at several sparsities, in every form.

The forms are those of `papertwin.sparse.forms`, of which each gives the outputs of a dense layer with masked weights.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from papertwin.sparse.condensed_layouts import has_lookups, pick_kernel
from papertwin.sparse.forms import ABLATED, CONDENSED, Call, Layers, layers, ways
from papertwin.training.clock import turns
from papertwin.training.loop import torch_threads

SEED = 0  # of the layers


@dataclass(frozen=True)
class Plan:
    """What is measured; the layer is the second of the MLP in the last block of ViT-B/16.

    Attributes:
        outputs, inputs: of the layer.
        sparsities: shares of the weights that are left out.
        ablated: share of the neurons that are left out as well.
        batches: rows of the input.
        threads: of torch; where the machine has fewer, that of its cores.
        rounds: of the clock, at least.
        seconds: for which the clock goes on if these took less.
    """

    outputs: int = 768
    inputs: int = 3072
    sparsities: tuple[float, ...] = (0.8, 0.9, 0.95, 0.99)
    ablated: float = 0.3
    batches: tuple[int, ...] = (1, 8, 64, 256)
    threads: tuple[int, ...] = (1, 1024)
    rounds: int = 15
    seconds: float = 2.0

    def subjects(self, cores: int) -> list[tuple[float, int, int]]:
        """Sparsity, batch and threads of each subject, in the order in which they are measured."""
        counts = sorted({min(count, cores) for count in self.threads})
        return [(s, batch, count) for s in self.sparsities for batch in self.batches for count in counts]

    @classmethod
    def read(cls, found: dict[str, Any]) -> "Plan":
        """The plan that `dataclasses.asdict` and JSON were made of."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in found.items()})


def timed(calls: dict[str, Call], plan: Plan) -> dict[str, list[float]]:
    """Seconds of each way; all take turns, and in its turn each is called twice, of which the second call counts."""
    taken: dict[str, list[float]] = {way: [] for way in calls}
    for way, counts in turns(calls, rounds=plan.rounds, seconds=plan.seconds):
        calls[way]()
        start = time.perf_counter()
        calls[way]()
        spent = time.perf_counter() - start
        if counts:
            taken[way].append(spent)
    return taken


def measured(plan: Plan, cores: int) -> Iterator[dict[str, Any]]:
    """Yield the seconds of each subject, in the plan's order; all ways take turns."""
    known: dict[float, Layers] = {}
    for sparsity, batch, threads in plan.subjects(cores):
        if sparsity not in known:
            known = {sparsity: layers((plan.outputs, plan.inputs), sparsity, plan.ablated, SEED)}
        x = torch.randn(batch, plan.inputs, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode(), torch_threads(threads):
            calls = ways(known[sparsity], x)
            times = timed(calls, plan)
        drawn = {CONDENSED: known[sparsity].condensed, ABLATED: known[sparsity].ablated}
        shapes = {way: list(layer.weight.shape) for way, layer in drawn.items()}
        kernels = {way: pick_kernel(batch, plan.inputs, k, has_lookups()) for way, (_, k) in shapes.items()}
        found = {"sparsity": sparsity, "batch": batch, "threads": threads, "shapes": shapes, "kernels": kernels}
        yield found | {"seconds": times}


def main(text: str) -> None:
    """Body of the process: plan and cores as JSON → a line of JSON a subject."""
    task = json.loads(text)
    for subject in measured(Plan.read(task["plan"]), task["cores"]):
        print(json.dumps(subject), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
