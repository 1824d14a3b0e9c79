"""What the lottery tickets' notebook shows of its trainings: lines, rounds, planes, ensembles; and a toy.

Part of `papertwin.papers.lth_rebasin`, whose trainings come in here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from papertwin.papers.lth_rebasin import (
    LOW,
    METHODS,
    NAIVE,
    NARROW,
    PERMUTED,
    TICKET,
    WIDE,
    Job,
    Pair,
    Params,
    build,
    network_a,
)
from papertwin.papers.lth_rebasin_trainings import BATCH, BY_WEIGHTS, END, Found, match_batches
from papertwin.sparse.tickets import Pruned, State
from papertwin.symmetry import diversity
from papertwin.symmetry.axes import permutables
from papertwin.symmetry.barriers import barrier, interpolated
from papertwin.symmetry.permuting import permuted, with_state
from papertwin.symmetry.planes import losses_on, plane_through
from papertwin.symmetry.repairing import repaired
from papertwin.training.device import pick_device
from papertwin.training.loop import scores
from papertwin.training.pool import Pool
from papertwin.training.trials import Sets, draw_sets, error

PLAIN, WEIGHTS, ACTIVATIONS = "A to B", "by weights", "by activations"
ONLY_REPAIRED, REPAIRED = "A to B, repaired", "by activations, repaired"
LINES = {PLAIN: None, ONLY_REPAIRED: None, WEIGHTS: BY_WEIGHTS, ACTIVATIONS: END, REPAIRED: END}  # → permutation of A
DRAWN = {"grid": (PLAIN, ACTIVATIONS), "resnet": (PLAIN, ONLY_REPAIRED, ACTIVATIONS, REPAIRED)}  # figures 3a and 3b
CONVOLVED = 500  # test images on lines between convolutional networks
ROUND_ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of figure 4a
KINDS = ("plain", "repaired")
PLANES = ("A, IMP, B", "A and IMP renumbered, B")
CORNERS = (("A", "B", "IMP"), ("π(A)", "B", "π(IMP)"))  # names of the networks of each plane
IMP = "IMP"


# ---- lines -----------------------------------------------------------------------------------------------------------


def measure(model: nn.Module, sets: Sets, params: Params) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on the test images, nats and per cent."""
    images, labels = sets.test
    logits = scores(model.to(pick_device(params.device)), images)
    loss = functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels))
    return float(loss), 100 * (1 - error(logits, labels))


def along(
    model: nn.Module,
    ends: tuple[State, State],
    alphas: Sequence[float],
    sets: Sets,
    params: Params,
    batches: Sequence[torch.Tensor] | None = None,
) -> list[tuple[float, float]]:
    """Loss and accuracy at each α on the line between two networks, each mix repaired where batches are given."""
    mix = interpolated if batches is None else partial(repaired, model)
    rest = () if batches is None else (batches,)
    return [measure(with_state(model, mix(*ends, float(alpha), *rest)), sets, params) for alpha in alphas]


def every_line(found: Found, params: Params, pool: Pool) -> pd.DataFrame:
    """Figures 3a and 3b: test loss and accuracy between A and B.

    Returns:
        A row a network, width, seed, line and `alpha`: `loss` in nats, `accuracy` in per cent.
    """
    pairs = [pair for pair in found.matched if not pair.member]
    tasks = []
    for pair in pairs:
        sigmas = {name: found.matched[pair].permutations[key] for name, key in LINES.items() if key}
        tasks.append((pair, found.a(params, pair).last, found.b(pair).last, sigmas))
    return pd.concat(pool.map(partial(_lines, params=params), tasks), ignore_index=True)


def _lines(pair: Pair, state_a: State, state_b: State, sigmas: Mapping, params: Params) -> pd.DataFrame:
    """Lines of one pair; convolutions take their time and see fewer test images."""
    sets = draw_sets(params.images_of(pair.network), pair.seed)
    if pair.network != "grid":
        sets = replace(sets, test=tuple(each[:CONVOLVED] for each in sets.test))
    model = build(params, pair, len(sets.classes))
    description, alphas = permutables(model), np.linspace(0, 1, params.points)
    rows = []
    for name in LINES:
        start = permuted(state_a, description, sigmas[name]) if name in sigmas else state_a
        batches = match_batches(sets, params)[:1] if name in (ONLY_REPAIRED, REPAIRED) else None
        for alpha, (loss, right) in zip(alphas, along(model, (start, state_b), alphas, sets, params, batches)):
            rows.append((pair.network, pair.width, pair.seed, name, alpha, loss, right))
    return pd.DataFrame(rows, columns=["network", "width", "seed", "line", "alpha", "loss", "accuracy"])


def over_alpha(lines: pd.DataFrame, network: str, width: float, line: str, column: str) -> pd.DataFrame:
    """Mean, lowest and highest of a column over seeds, by α."""
    rows = lines[(lines["network"] == network) & (lines["width"] == width) & (lines["line"] == line)]
    return rows.groupby("alpha")[column].agg(["mean", "min", "max"])


@dataclass(frozen=True)
class Curve:
    """What is drawn of a line between A and B.

    Attributes:
        colour: number of its colour: the width's, or the line's where there is one width only.
        renumbered: whether A is.
        loss, accuracy: index α, columns mean, min and max.
    """

    colour: int
    renumbered: bool
    loss: pd.DataFrame
    accuracy: pd.DataFrame


def curves(lines: pd.DataFrame, network: str) -> dict[str, Curve]:
    """Figures 3a and 3b: name → line of each width, those of one width one after the other."""
    widths = sorted(lines[lines["network"] == network]["width"].unique())
    found = {}
    for number, width in enumerate(widths):
        for place, line in enumerate(DRAWN[network]):
            tables = (over_alpha(lines, network, width, line, column) for column in ("loss", "accuracy"))
            name = line if LINES[line] is None else f"renumbered {line}"
            name += f", width {width:g}" if len(widths) > 1 else ""
            found[name] = Curve(number if len(widths) > 1 else place, LINES[line] is not None, *tables)
    return found


def barrier_table(lines: pd.DataFrame) -> pd.DataFrame:
    """A row a network, width, seed and line: `barrier` of the loss, nats, and `lowest` accuracy on the line."""
    rows = []
    for key, each in lines.groupby(["network", "width", "seed", "line"], sort=False):
        each = each.sort_values("alpha")
        rows.append((*key, barrier(each["alpha"].tolist(), each["loss"].tolist()), each["accuracy"].min()))
    return pd.DataFrame(rows, columns=["network", "width", "seed", "line", "barrier", "lowest"])


def every_round(found: Found, params: Params, pool: Pool) -> pd.DataFrame:
    """Figure 4a: what lies between the dense network and the one after each round of pruning, up to 90 %.

    Returns:
        A row a seed, round and kind, plain or repaired: `sparsity`; `barrier` in nats, and `excess`, by how much the
        loss is above the straight line at most, ends left out, so that it may be negative.
    """
    tasks = []
    for seed in params.few:
        a = found.dense[network_a(params, "grid", WIDE, seed)]
        rounds = [each for each in a.rounds if each.sparsity < LOW + 1e-3]
        tasks += [(seed, number, a.last, each) for number, each in enumerate(rounds, start=1)]
    found_rows = pool.map(partial(_round, params=params), tasks)
    return pd.DataFrame([row for rows in found_rows for row in rows])


def _round(seed: int, number: int, dense: State, pruned: Pruned, params: Params) -> list[dict]:
    """Barriers of one round."""
    sets = draw_sets(params.images_of("grid"), seed)
    model = build(params, Pair("grid", WIDE, seed), len(sets.classes))
    rows = []
    for kind, batches in zip(KINDS, (None, match_batches(sets, params)[: 1000 // BATCH])):
        losses = [loss for loss, _ in along(model, (dense, pruned.state), ROUND_ALPHAS, sets, params, batches)]
        row = {"seed": seed, "round": number, "sparsity": pruned.sparsity, "kind": kind}
        straight = np.interp(ROUND_ALPHAS, (0, 1), (losses[0], losses[-1]))
        row["excess"] = float((np.array(losses) - straight)[1:-1].max())
        rows.append(row | {"barrier": barrier(ROUND_ALPHAS, losses)})
    return rows


# ---- planes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Errors:
    """Errors on a plane through three networks.

    Attributes:
        xs, ys: coordinates.
        errors: (len(ys), len(xs)) per cent of the test images.
        corners: (x, y) of the three networks.
    """

    xs: np.ndarray
    ys: np.ndarray
    errors: np.ndarray
    corners: tuple


def planes(found: Found, params: Params, pool: Pool) -> dict[str, Errors]:
    """Figure 4b, first seed: the plane through A, what is pruned from it to 90 %, and B; and with both renumbered."""
    pair = Pair("grid", WIDE, params.first_seed)
    a, b = found.a(params, pair), found.b(pair)
    description = found.matched[pair].description
    states = [a.last, a.pruned(LOW).state]
    moved = [permuted(each, description, found.matched[pair].permutations[END]) for each in states]
    tasks = [(pair, (each[0], b.last, each[1])) for each in (states, moved)]
    return dict(zip(PLANES, pool.map(partial(_plane, params=params), tasks)))


def _plane(pair: Pair, states: tuple[State, State, State], params: Params) -> Errors:
    """Errors on the plane through three networks."""
    sets = draw_sets(params.images_of(pair.network), pair.seed)
    model = build(params, pair, len(sets.classes))
    plane = plane_through(*states)
    xs, ys = plane.grid(0.25, params.grid)
    errors = losses_on(model, plane, xs, ys, lambda each: 100 - measure(each, sets, params)[1])
    return Errors(xs, ys, errors, plane.corners)


# ---- ensembles -------------------------------------------------------------------------------------------------------


def ensembles(found: Found, params: Params) -> pd.DataFrame:
    """Table 1: networks of each method, 90 % sparse, width 1, rewound to the nearer point.

    Returns:
        A row a seed (of images and weights) and method: `single`, mean accuracy of one, and `ensemble`, per cent;
        `disagreement` in per cent of the images; `KL` and `JS` in nats.
    """
    rows = []
    for seed in params.few:
        labels = draw_sets(params.images_of("grid"), seed).test[1]
        for method in (*METHODS, IMP):
            logits = [_member(found, params, method, seed, member) for member in range(params.members)]
            row = {"seed": seed, "method": method}
            row["single"] = 100 * np.mean([1 - error(each, labels) for each in logits])
            row["ensemble"] = 100 * diversity.ensemble_accuracy(logits, labels)
            row["disagreement"] = 100 * diversity.disagreement(logits)
            row |= {"KL": diversity.kullback_leibler(logits), "JS": diversity.jensen_shannon(logits)}
            rows.append(row)
    return pd.DataFrame(rows)


def _member(found: Found, params: Params, method: str, seed: int, member: int) -> np.ndarray:
    """Logits of one network of an ensemble."""
    if method == IMP:
        return found.dense[network_a(params, "grid", NARROW, seed, member)].logits[LOW]
    return found.tickets[Job("grid", NARROW, method, LOW, params.near, seed, member)].logits


# ---- a toy, and masks to look at -------------------------------------------------------------------------------------

GOAL = (2.0, -0.5)  # weights that made the toy's data; (−0.5, 2) fit them as well
FIRST = {"A": (1.0, -0.3), "B": (-0.3, 0.8)}  # weights before training
STEPS, RATE = 60, 0.1  # of gradient descent
X = np.linspace(-2, 2, 41)  # the toy's inputs


@dataclass(frozen=True)
class Toy:
    """A network of two weights, y = ReLU(w₁x) + ReLU(w₂x): its loss and trainings by gradient descent.

    Attributes:
        grid: values of each weight.
        losses: (w₂, w₁) mean squared error.
        paths: name → (steps + 1, 2) weights.
        last: name → loss at the end.
    """

    grid: np.ndarray
    losses: np.ndarray
    paths: dict[str, np.ndarray]
    last: dict[str, float]


def toy(points: int = 81) -> Toy:
    """Train the toy: A and B dense; from A's weights with A's mask, from B's with that mask, and with it renumbered."""
    grid = np.linspace(-1.2, 2.8, points)
    losses = toy_loss(np.stack(np.meshgrid(grid, grid), axis=-1))
    paths = {f"dense {name}": _descend(first, np.ones(2)) for name, first in FIRST.items()}
    mask = np.arange(2) != np.argmin(np.abs(paths["dense A"][-1]))  # A's larger weight stays
    starts = {TICKET: ("A", mask), NAIVE: ("B", mask), PERMUTED: ("B", mask[::-1])}
    paths |= {name: _descend(FIRST[of], each) for name, (of, each) in starts.items()}
    return Toy(grid, losses, paths, {name: float(toy_loss(path[-1])) for name, path in paths.items()})


def toy_loss(weights: np.ndarray) -> np.ndarray:
    """Mean squared error of the toy, (…, 2) → (…)."""
    given = np.maximum(np.asarray(weights, dtype=float)[..., None] * X, 0).sum(-2)
    return np.square(given - np.maximum(np.outer(GOAL, X), 0).sum(0)).mean(-1)


def _descend(first: Sequence[float], mask: np.ndarray) -> np.ndarray:
    """Weights of the toy before and after each step of gradient descent; masked ones are 0."""
    wanted = np.maximum(np.outer(GOAL, X), 0).sum(0)
    path = [np.asarray(first, dtype=float) * mask]
    for _ in range(STEPS):
        each = path[-1][:, None] * X
        gradient = (2 * (np.maximum(each, 0).sum(0) - wanted) * (each > 0) * X).mean(-1)
        path.append(path[-1] - RATE * gradient * mask)
    return np.array(path)


def mask_pictures(found: Found, params: Params) -> dict[str, np.ndarray]:
    """Figure 2: the last layer of the narrow network, first seed: how large B's weights are, and two masks for them.

    Returns:
        "B's weights", "A's mask" by A's numbers and "renumbered": (classes, neurons) each, masks of 0 and 1.
    """
    *_, (_, weights, own, moved) = _masks(found, params, Pair("grid", NARROW, params.first_seed))
    return {"B's weights": weights.abs().numpy(), "A's mask": own.float().numpy(), "renumbered": moved.float().numpy()}


def overlaps(found: Found, params: Params) -> pd.DataFrame:
    """How many of B's largest weights, as many as a mask keeps in a layer, it keeps; width 1, 90 %, mean over seeds.

    Returns:
        Index layer: `by chance`, `A's mask`, `renumbered`, shares in [0, 1].
    """
    rows = []
    for seed in params.every_seed:
        for layer, weights, own, moved in _masks(found, params, Pair("grid", NARROW, seed)):
            largest = weights.abs().flatten().argsort(descending=True, stable=True)[: int(own.sum())]
            shares = [float(mask.flatten()[largest].double().mean()) for mask in (own, moved)]
            rows.append((layer, float(own.double().mean()), *shares))
    table = pd.DataFrame(rows, columns=["layer", "by chance", "A's mask", "renumbered"])
    return table.groupby("layer", sort=False).mean()


def _masks(found: Found, params: Params, pair: Pair) -> list[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Layer, B's weights at its end, A's mask, and that mask renumbered for B, of each layer that is pruned."""
    last, masks = found.b(pair).last, found.a(params, pair).pruned(LOW).masks
    description = found.matched[pair].description
    moved = permuted(masks, description, found.matched[pair].permutations[END])
    return [(name, last[f"{name}.weight"], mask, moved[name]) for name, mask in masks.items()]
