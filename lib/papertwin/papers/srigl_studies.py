"""What SRigL's notebook shows beside its trainings: masks to look at, variances, times of a layer, tables.

Part of `papertwin.papers.srigl`, whose trials come in here.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from papertwin.papers.srigl import GAMMA, Params
from papertwin.sparse.condensed import CondensedLinear
from papertwin.sparse.densities import whole_part
from papertwin.sparse.forms import layers, ways
from papertwin.sparse.growing import Grown, srigl_mask
from papertwin.sparse.masks import constant_fan_in_mask, random_mask
from papertwin.sparse.trials import SparseTrial
from papertwin.sparse.variances import KINDS, norm_variance, simulated_norms
from papertwin.training.clock import interleaved
from papertwin.training.loop import single_thread

WIDTHS_OF_VARIANCE = (40, 60, 80, 100)  # of figure 5
DENSITIES = (0.2, 0.1, 0.05)  # k/n of figure 5
OUTPUTS, INPUTS = 768, 3072  # of the layer that is timed
TIMED = (0.8, 0.9, 0.95, 0.99)  # its sparsities
BATCHES = (1, 256)
ABLATED = 0.3  # share of its neurons that is ablated where some are
EXAMPLE = (8, 16, 7)  # neurons, inputs and fan-in of figures 1 and 2


# ---- masks to look at ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One SRigL update of a small layer.

    Attributes:
        weight, gradient: (neurons, inputs), what the update saw.
        before: (neurons, inputs) mask before it.
        grown: what it made.
    """

    weight: torch.Tensor
    gradient: torch.Tensor
    before: torch.Tensor
    grown: Grown

    @property
    def salient(self) -> torch.Tensor:
        """Weights that matter, (neurons, inputs)."""
        return self.grown.salient


def masks(seed: int) -> dict[str, torch.Tensor]:
    """Figure 1: masks of a small layer with as many weights: anywhere, one fan-in, a quarter of the neurons ablated."""
    neurons, inputs, fan_in = EXAMPLE
    generator = torch.Generator().manual_seed(seed)
    left = 3 * neurons // 4
    ablated = torch.zeros(neurons, inputs, dtype=torch.bool)
    rows = torch.randperm(neurons, generator=generator)[:left].sort().values
    ablated[rows] = constant_fan_in_mask((left, inputs), neurons * fan_in // left, generator)
    return {
        "weights anywhere": random_mask((neurons, inputs), neurons * fan_in, generator),
        "one fan-in": constant_fan_in_mask((neurons, inputs), fan_in, generator),
        "one fan-in, neurons ablated": ablated,
    }


def example_update(seed: int) -> Example:
    """Figure 2: an update in which a neuron whose weights are small, and get small gradients, is ablated."""
    neurons, inputs, fan_in = EXAMPLE
    generator = torch.Generator().manual_seed(seed)
    before = constant_fan_in_mask((neurons, inputs), fan_in, generator)
    scale = torch.ones(neurons, 1)
    scale[neurons // 3] = 0.02
    weight = torch.randn(neurons, inputs, generator=generator) * scale * before
    gradient = torch.randn(neurons, inputs, generator=generator) * scale
    count = whole_part(GAMMA * neurons * fan_in)
    grown = srigl_mask(weight, gradient, before, budget=neurons * fan_in, count=count, gamma=GAMMA)
    return Example(weight, gradient, before, grown)


# ---- variance of the output norm -------------------------------------------------------------------------------------


def variances(params: Params) -> pd.DataFrame:
    """Figure 5: variance of ‖z‖² for each width, density and kind of mask.

    Returns:
        `width`, `sparsity`, `kind`; `theory`, and `base`, that of independent weights; `simulated` and its standard
        error `error`; `norm` and `norm error`, the mean of ‖z‖² and its standard error.
    """
    cases = [
        (each, width, number) for each in DENSITIES for width in WIDTHS_OF_VARIANCE for number in range(len(KINDS))
    ]
    with single_thread():
        table = pd.DataFrame([_variance(params, *case) for case in cases])
    base = table[table["kind"] == "bernoulli"].set_index(["width", "sparsity"])["theory"].rename("base")
    return table.join(base, on=["width", "sparsity"])


def _variance(params: Params, density: float, width: int, number: int) -> dict[str, Any]:
    """A row of `variances`, for the kind of mask with that number."""
    fan_in, kind = whole_part(density * width), list(KINDS)[number]
    seed = params.first_seed + 100_000 * fan_in + 1000 * number + width
    draws = params.draws * max(WIDTHS_OF_VARIANCE) ** 2 // width**2  # as much work for every width
    norms = simulated_norms(width, fan_in, kind, draws=draws, seed=seed).numpy()
    squares = (norms - norms.mean()) ** 2
    return {
        "width": width,
        "sparsity": 1 - density,
        "kind": kind,
        "theory": norm_variance(width, fan_in, kind),
        "simulated": norms.var(ddof=1),
        "error": squares.std() / np.sqrt(len(norms)),
        "norm": norms.mean(),
        "norm error": norms.std() / np.sqrt(len(norms)),
    }


# ---- time of a layer -------------------------------------------------------------------------------------------------


def layer_times(params: Params) -> pd.DataFrame:
    """Figure 4: time the paper's layer, with random weights, in every form; all take turns, one thread.

    Returns:
        A row a round, columns (sparsity, batch, form): microseconds; forms as in `papertwin.sparse.forms`.

    Raises:
        RunError: two forms disagree.
    """
    found = []
    for sparsity in TIMED:
        drawn = layers((OUTPUTS, INPUTS), sparsity, ABLATED, params.seed)
        for batch in BATCHES:
            calls = ways(drawn, torch.randn(batch, INPUTS, generator=torch.Generator().manual_seed(params.seed)))
            with torch.inference_mode():
                seconds = interleaved(calls, rounds=params.rounds if batch == 1 else max(3, params.rounds // 10))
            found.append(1e6 * seconds)
            found[-1].columns = pd.MultiIndex.from_tuples([(sparsity, batch, name) for name in calls])
    table = pd.concat(found, axis=1)
    table.columns.names = ["sparsity", "batch", "form"]
    return table


def time_table(times: pd.DataFrame) -> pd.DataFrame:
    """Median microseconds of each form, and how many times as fast as dense: index (sparsity, batch, form)."""
    table = times.median().rename("microseconds").to_frame()
    dense = table.xs("dense", level="form")["microseconds"]
    keys = list(zip(table.index.get_level_values("sparsity"), table.index.get_level_values("batch")))
    return table.assign(**{"times as fast as dense": [dense[key] for key in keys] / table["microseconds"]})


def published_times(printed: Mapping[str, Mapping[str, float]], batch: int) -> dict[str, float]:
    """Published microseconds of each form at a batch, where there are any; `printed` has batches as text."""
    return {name: each[str(batch)] for name, each in printed.items() if str(batch) in each}


# ---- condensed networks ----------------------------------------------------------------------------------------------


def condensed(trial: SparseTrial) -> nn.Module:
    """Return a trained perceptron whose linear layers are condensed."""
    model = deepcopy(trial.model)
    for name, mask in trial.masks.items():
        model.set_submodule(name, CondensedLinear.from_linear(model.get_submodule(name), mask))
    return model.eval()


@torch.inference_mode()
def condensed_gap(trial: SparseTrial, images: np.ndarray) -> float:
    """Largest difference of logits of the condensed and the masked network, over the largest logit."""
    given = torch.from_numpy(images)
    wanted = trial.model(given)
    return float((condensed(trial)(given) - wanted).abs().max() / wanted.abs().max())
