"""What SparseOpt's notebook shows beside its trainings: the skew of gradients, measured; how soon a network learns.

Part of `papertwin.papers.sparseopt`, whose trials come in here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from papertwin.nets.initial import seeded
from papertwin.nets.layers import Named, chain, dense
from papertwin.papers.sparseopt import GROWTH, OURS, PLAIN, Job, Params, builders
from papertwin.sparse.initialising import First, sparse_init_
from papertwin.sparse.masks import constant_fan_in_mask, fan_ins
from papertwin.sparse.skew import corrections, gradient_skew
from papertwin.sparse.trials import SparseTrial
from papertwin.training.device import pick_device
from papertwin.training.loop import single_thread
from papertwin.training.trials import SetSizes, draw_sets

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of the inputs of each neuron that are masked
HIDDEN = 256  # neurons of the layer whose gradients are measured
CLOSE = 0.98  # share of the plain network's last accuracy that counts as having learnt
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "none": lambda _: nn.Identity(),
}
TORCH = "torch"  # dense weights as `torch.nn.Linear` draws them, else those of `papertwin.nets`


@dataclass(frozen=True)
class Kind:
    """How a two-layer perceptron begins.

    Attributes:
        norm: of `NORMS`.
        first: masked weights of the dense network, or drawn for the fan-in, see `papertwin.sparse.initialising`.
        dense: where the dense weights come from: "" or `TORCH`.
    """

    norm: str
    first: First = "masked"
    dense: str = ""

    def theory(self, share: float) -> float:
        """Gradient of active weights over dense ones, where `share` of the inputs is masked."""
        return 1 / math.sqrt(1 - share) if self.norm != "none" and self.first == "masked" else 1.0


KINDS = {
    "batch norm": Kind("batch"),
    "layer norm": Kind("layer"),
    "batch norm, fan-in": Kind("batch", "fan_in"),
    "no norm": Kind("none"),
    "no norm, torch's weights": Kind("none", dense=TORCH),
}
Trials = Mapping[Job, SparseTrial]
Part = tuple[torch.Tensor, torch.Tensor]

# ---- the skew --------------------------------------------------------------------------------------------------------


def skew_table(params: Params) -> pd.DataFrame:
    """Figure 3: how much larger gradients of active weights are than those of the dense layer, at first weights.

    MNIST at its own size, the network of the claim: a hidden layer, its normalisation, ReLU and the classes; each
    neuron of the hidden layer has the same share of its inputs masked.

    Returns:
        Columns kind (of `KINDS`), seed, share, `ratio`, `theory`.
    """
    place, rows = pick_device(params.device), []
    sizes = SetSizes("mnist", 28, params.skew_images, 50, 50)
    for seed in params.every_seed:
        data = tuple(torch.from_numpy(each).to(place) for each in draw_sets(sizes, seed).train)
        for name, kind in KINDS.items():
            ratios = skew_ratios(data, kind, seed)
            keys = {"kind": name, "seed": seed}
            rows += [keys | {"share": s, "ratio": r, "theory": kind.theory(s)} for s, r in zip(SHARES, ratios)]
    return pd.DataFrame(rows)


def skew_ratios(data: Part, kind: Kind, seed: int, shares: Sequence[float] = SHARES) -> list[float]:
    """Mean |gradient| over active weights of the hidden layer over that of the dense layer, for each share masked.

    Args:
        data: images and labels, one batch.
        kind: how the network begins; with `fan_in` the dense layer is drawn likewise.
        seed: of weights and masks.
        shares: of the inputs of each neuron.
    """
    images, labels = data
    found: dict[float, float] = {}
    with single_thread():
        for share in dict.fromkeys((0.0, *shares)):
            model = two_layers(images[0].numel(), kind, seed).to(images.device)
            weight, generator = model.get_submodule("fc1").weight, torch.Generator().manual_seed(seed)
            fan_in = round((1 - share) * weight.shape[1])
            mask = constant_fan_in_mask(tuple(weight.shape), fan_in, generator).to(weight.device)
            sparse_init_(weight, mask, kind.first, generator)
            functional.cross_entropy(model(images), labels).backward()
            found[share] = float(weight.grad[mask].abs().mean())
    return [found[share] / found[0.0] for share in shares]


def two_layers(inputs: int, kind: Kind, seed: int) -> nn.Module:
    """A perceptron of two layers, a normalisation between them."""
    with seeded(seed):
        own = kind.dense == TORCH
        first, last = (nn.Linear, nn.Linear) if own else (dense, partial(dense, last=True))
        layers: list[Named] = [("flat", nn.Flatten()), ("fc1", first(inputs, HIDDEN))]
        layers += [("norm", NORMS[kind.norm](HIDDEN)), ("relu", nn.ReLU())]
        return chain([*layers, ("fc2", last(HIDDEN, 10))])


def spread_mask(shape: tuple[int, int], seed: int) -> torch.Tensor:
    """Mask whose neurons differ much: fan-ins evenly spaced by their logarithm, from 1 to all inputs; places at random.

    Args:
        shape: (out, in).
        seed: of the places.
    """
    counts = torch.logspace(0, math.log10(shape[1]), shape[0], dtype=torch.float64).round().long()
    order = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).argsort(1).argsort(1)
    return order < counts[:, None]


def skewed_neurons(params: Params, images: int = 2000) -> pd.DataFrame:
    """Figure 2: the second layer of the perceptron of the first seed, as `skewed_layer` says, by fan-in.

    Args:
        params: of the run.
        images: of the training set, in one batch.
    """
    sets = draw_sets(params.sizes, params.first_seed)
    model = builders(params)["mlp"](len(sets.classes), in_channels=sets.shape[0], seed=params.first_seed)
    batch = tuple(torch.from_numpy(each[:images]) for each in sets.train)
    return skewed_layer(model, batch, "fc2", params.first_seed).set_index("fan-in")


def skewed_layer(model: nn.Module, data: Part, layer: str, seed: int) -> pd.DataFrame:
    """Figure 2: what each neuron of a layer gets if only that layer is sparse, over what it gets in the dense network.

    Args:
        model: the network at its first weights; that layer is masked afterwards.
        data: images and labels, one batch.
        layer: its name.
        seed: of the mask, see `spread_mask`.

    Returns:
        A row a neuron: `fan-in`, `theory`: √(inputs / fan-in), `raw`: mean |gradient| of its active weights over the
        dense one's, `norm`: the norm of its gradient over that of the dense one, `factor`: c.
    """
    weight = model.get_submodule(layer).weight
    mask = spread_mask(tuple(weight.shape), seed).to(weight.device)
    each = []
    with single_thread():
        for kept in (torch.ones_like(mask), mask):
            model.zero_grad()
            weight.data.mul_(kept)
            functional.cross_entropy(model(data[0]), data[1]).backward()
            each.append(weight.grad * kept)
    sizes = [gradient.abs().sum(1) / kept.sum(1) for gradient, kept in zip(each, (torch.ones_like(mask), mask))]
    table = {
        "fan-in": fan_ins(mask),
        "theory": gradient_skew(mask),
        "raw": sizes[1] / sizes[0],
        "norm": each[1].norm(dim=1) / each[0].norm(dim=1),
        "factor": corrections(mask),
    }
    return pd.DataFrame({name: column.cpu().numpy() for name, column in table.items()})


# ---- trainings -------------------------------------------------------------------------------------------------------


def of_arm(table: pd.DataFrame, network: str, method: str, arm: str, sparsity: float, passes: int) -> pd.DataFrame:
    """Rows of one arm, by seed."""
    keys = {"network": network, "method": method, "arm": arm, "sparsity": sparsity, "passes": passes}
    rows = table[(table[list(keys)] == pd.Series(keys)).all(axis=1)]
    return rows[rows["gamma"].isna() | (rows["gamma"] > 0)].set_index("seed").sort_index()


def gains(
    table: pd.DataFrame,
    network: str,
    method: str,
    sparsity: float,
    passes: int,
    arms: tuple[str, str] = (OURS, PLAIN),
    column: str = "test accuracy",
) -> pd.Series:
    """A column of the first arm minus that of the second: seed → difference, over the seeds that have both."""
    first, second = (of_arm(table, network, method, arm, sparsity, passes)[column] for arm in arms)
    return (first - second).dropna()


def gain_table(table: pd.DataFrame, network: str) -> pd.DataFrame:
    """What the correction gains: index (method, sparsity, passes), `mean`, `min` and `max` over seeds, in points."""
    keys = table[(table["network"] == network) & table["arm"].isin((OURS, PLAIN))]
    found = {}
    for key, rows in keys.groupby(["method", "sparsity", "passes"]):
        if {OURS, PLAIN} <= set(rows["arm"]) and len(values := gains(table, network, *key)):
            found[key] = values.agg(["mean", "min", "max"])
    return pd.DataFrame(found).T.rename_axis(["method", "sparsity", "passes"])


def curves(trials: Trials, method: str, arm: str, sparsity: float, passes: int) -> dict[int, np.ndarray]:
    """Accuracy of the perceptron after each pass: seed → (passes, 2), on training and validation images, per cent."""
    same = ("mlp", method, arm, sparsity, passes)
    found = {
        job.seed: 100 * trial.curve
        for job, trial in trials.items()
        if (job.network, job.method, job.arm, job.sparsity, job.passes) == same and job.gamma != 0
    }
    return dict(sorted(found.items()))


def over_passes(found: Mapping[int, np.ndarray], which: int) -> pd.DataFrame:
    """Curves of several seeds as `seed_curves` draws them: index pass, columns mean, min and max."""
    values = np.stack([each[:, which] for each in found.values()])
    index = pd.RangeIndex(1, values.shape[1] + 1, name="pass")
    return pd.DataFrame({"mean": values.mean(0), "min": values.min(0), "max": values.max(0)}, index=index)


def passes_to(curve: np.ndarray, level: float) -> float:
    """Passes after which a curve first reaches a level, straight between two passes; their number if it never does.

    >>> passes_to(np.array([50.0, 70.0, 80.0, 79.0]), 75.0), passes_to(np.array([50.0, 70.0]), 75.0)
    (2.5, 2.0)

    Args:
        curve: (passes,) after each.
        level: to be reached.
    """
    above = np.flatnonzero(curve >= level)
    if not len(above) or not above[0]:
        return float(len(curve) if not len(above) else 1)
    last = above[0]
    return float(last + (level - curve[last - 1]) / (curve[last] - curve[last - 1]))


def speeds(trials: Trials, method: str, sparsity: float, passes: int) -> pd.DataFrame:
    """Passes until 98 % of the validation accuracy that the plain network of the same seed ends with.

    Returns:
        Index seed, columns `plain` and `SparseOpt`.
    """
    each = {arm: curves(trials, method, arm, sparsity, passes) for arm in (PLAIN, OURS)}
    rows = {}
    for seed, curve in each[PLAIN].items():
        level = CLOSE * curve[-1, 1]
        rows[seed] = {arm: passes_to(each[arm][seed][:, 1], level) for arm in (PLAIN, OURS)}
    return pd.DataFrame(rows).T.rename_axis("seed")


def itop_rates(table: pd.DataFrame, passes: int, seeds: Sequence[int]) -> dict[str, pd.Series]:
    """Figure 7: weights of the perceptron that RigL ever had active, per cent.

    Args:
        table: of trials.
        passes: of the trainings.
        seeds: those that every arm has.

    Returns:
        Arm → rate, index (sparsity, seed).
    """
    rows = table[(table["network"] == "mlp") & (table["method"] == "RigL") & (table["passes"] == passes)]
    rows = rows[rows["seed"].isin(list(seeds))].set_index(["sparsity", "seed"]).sort_index()
    return {arm: rows[rows["arm"] == arm]["ITOP"] for arm in (PLAIN, OURS, GROWTH)}


def arm_table(table: pd.DataFrame, arms: Sequence[str], sparsity: float, passes: int) -> pd.DataFrame:
    """Test accuracy of arms of RigL on the perceptron, per cent: index arm, columns mean, min, max, count."""
    found = {arm: of_arm(table, "mlp", "RigL", arm, sparsity, passes)["test accuracy"] for arm in arms}
    rows = {arm: each.agg(["mean", "min", "max", "count"]) for arm, each in found.items()}
    return pd.DataFrame(rows).T.astype({"count": int})


def beside_published(table: pd.DataFrame, printed: Mapping[str, Mapping[str, Mapping[str, float]]]) -> pd.DataFrame:
    """Table 1: gains here beside the published ones of ResNet-50 on ImageNet, points of accuracy.

    Args:
        table: of trials.
        printed: arm → method and sparsity, as "RigL 0.9" → passes, as text → accuracy.

    Returns:
        Index (where, method, sparsity, passes): `plain`, `SparseOpt` in per cent, `gain`, over seeds `lowest` and
        `highest` gain, and how many `seeds`.
    """
    rows = {}
    for key, seeds in gain_table(table, "mlp").iterrows():
        paired = gains(table, "mlp", *key).index
        plain, ours = (of_arm(table, "mlp", key[0], arm, *key[1:])["test accuracy"][paired] for arm in (PLAIN, OURS))
        both = {"plain": plain.mean(), "SparseOpt": ours.mean(), "gain": seeds["mean"]}
        rows["here", *key] = both | {"lowest": seeds["min"], "highest": seeds["max"], "seeds": len(paired)}
    for name, each in printed[PLAIN].items():
        method, sparsity = name.split()
        for passes, value in each.items():
            ours = printed[OURS][name][passes]
            rows["published", method, float(sparsity), int(passes)] = {
                "plain": value,
                "SparseOpt": ours,
                "gain": round(ours - value, 2),
            }
    return pd.DataFrame(rows).T.rename_axis(["where", "method", "sparsity", "passes"])
