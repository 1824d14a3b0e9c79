"""What `papertwin.bench.condensed` measures, in a process of its own: one layer at several sparsities, in every way.

Ways, of which each gives the outputs of a dense layer with masked weights:

- dense: that layer, by torch;
- condensed: `papertwin.sparse.CondensedLinear`, a constant fan-in;
- torch CSR, scipy CSR: the same weights as a matrix in compressed rows;
- ablated: condensed, as many weights in fewer neurons, and so a larger fan-in;
- structured: a dense layer of the neurons that are not ablated, by torch.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from scipy import sparse
from torch import nn

from papertwin.bench import _shared
from papertwin.sparse import CondensedLinear, constant_fan_in_mask
from papertwin.sparse.condensed_layouts import has_lookups, pick_kernel
from papertwin.training.clock import turns
from papertwin.training.loop import torch_threads

Call = Callable[[], torch.Tensor]


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

    def fan_ins(self, sparsity: float) -> dict[str, tuple[int, int]]:
        """Active neurons and fan-in of the two condensed layers: as many weights, up to rounding down."""
        weights = int(self.outputs * self.inputs * (1 - sparsity) + 1e-6)
        active = {"condensed": self.outputs, "ablated": round(self.outputs * (1 - self.ablated))}
        return {way: (count, max(1, weights // count)) for way, count in active.items()}


def layers(plan: Plan, sparsity: float) -> dict[str, CondensedLinear]:
    """The two condensed layers, drawn."""
    generator, found = torch.Generator().manual_seed(0), {}
    for way, (active, fan_in) in plan.fan_ins(sparsity).items():
        mask = constant_fan_in_mask((plan.outputs, plan.inputs), fan_in, generator)
        mask[torch.randperm(plan.outputs, generator=generator)[active:]] = False
        dense = nn.Linear(plan.inputs, plan.outputs)
        with torch.no_grad():
            for values in dense.parameters():
                values.copy_(torch.randn(values.shape, generator=generator))
        found[way] = CondensedLinear.from_linear(dense, mask).requires_grad_(False).eval()
    return found


def ways(condensed: dict[str, CondensedLinear], x: torch.Tensor) -> dict[str, Call]:
    """What is called in each way, all of which are checked."""
    layer, ablated = condensed["condensed"], condensed["ablated"]
    dense, masked, structured = layer.to_dense(), ablated.to_dense(), ablated.to_dense()
    structured.weight, structured.bias = (
        nn.Parameter(values[ablated.rows].clone(), requires_grad=False) for values in (masked.weight, masked.bias)
    )
    calls = {"dense": lambda: dense(x), "condensed": lambda: layer(x)}
    calls |= {f"{name} CSR": call for name, call in _compressed(dense, x).items()}
    others = {"ablated": lambda: ablated(x), "structured": lambda: structured(x)}
    found = {way: call() for way, call in (calls | others).items()}
    wanted = masked(x)
    _shared.check_same(f"batch {len(x)}", {way: found[way] for way in calls})
    _shared.check_same(f"batch {len(x)}", {"masked": wanted, "ablated": found["ablated"]})
    rows = {"masked": wanted[:, ablated.rows], "structured": found["structured"]}
    _shared.check_same(f"batch {len(x)}", rows)
    return calls | others


def _compressed(dense: nn.Linear, x: torch.Tensor) -> dict[str, Call]:
    """Products with a matrix in compressed rows, by torch and by scipy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        rows = dense.weight.detach().to_sparse_csr()
    matrix, bias = sparse.csr_matrix(dense.weight.numpy()), dense.bias.detach()
    if len(x) == 1:
        return {
            "torch": lambda: torch.addmv(bias, rows, x[0])[None],
            "scipy": lambda: torch.from_numpy(matrix @ x[0].numpy())[None] + bias,
        }
    return {
        "torch": lambda: torch.addmm(bias[:, None], rows, x.t()).t(),
        "scipy": lambda: torch.from_numpy(matrix @ x.numpy().T).t() + bias,
    }


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
    known: dict[float, dict[str, CondensedLinear]] = {}
    for sparsity, batch, threads in plan.subjects(cores):
        if sparsity not in known:
            known = {sparsity: layers(plan, sparsity)}
        x = torch.randn(batch, plan.inputs, generator=torch.Generator().manual_seed(batch))
        with torch.inference_mode(), torch_threads(threads):
            calls = ways(known[sparsity], x)
            times = timed(calls, plan)
        shapes = {way: list(layer.weight.shape) for way, layer in known[sparsity].items()}
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
