"""The trainings of the lottery tickets' notebook: dense, pruned in rounds, matched, sparse.

Part of `papertwin.papers.lth_rebasin`, which says what is trained.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from papertwin import paths
from papertwin.papers import lth_rebasin as paper
from papertwin.papers.lth_rebasin import (
    LOW,
    NAIVE,
    OF_MEMBER,
    RANDOM,
    TICKET,
    WIDE,
    Dense,
    Job,
    Pair,
    Params,
    build,
    network_a,
    network_b,
)
from papertwin.papers.lth_rebasin_store import fingerprint, kept
from papertwin.sparse.pruning import Masks
from papertwin.sparse.tickets import Pruned, State, iterative_pruning, train_from, train_with_snapshots
from papertwin.symmetry.axes import Description, permutables
from papertwin.symmetry.matching import activation_matching, weight_matching
from papertwin.symmetry.permuting import Permutations, check_same_function, permuted, random_permutations, with_state
from papertwin.training.device import pick_device
from papertwin.training.loop import scores
from papertwin.training.pool import Pool
from papertwin.training.trials import Sets, draw_sets, error

END, BY_WEIGHTS = "end", "weights"  # names of permutations; "random" is another, and the passes of an earlier B
BATCH = 500  # images at once in matching
NEUTRAL = ("processes", "profile")  # parameters on which no training depends
SHOWN = 200  # test images on which a renumbered network is asked


@dataclass(frozen=True)
class Trained:
    """A dense network, and those pruned from it.

    Attributes:
        states: passes → state_dict, of the passes that something is rewound to or matched at, and of the end.
        rounds: after the rounds of pruning that are targets; after all where they are drawn.
        logits: sparsity, 0 for dense → (m, C) logits of the test images.
        check: sparsity → share of right answers on the validation images.
    """

    states: dict[int, State]
    rounds: list[Pruned]
    logits: dict[float, np.ndarray]
    check: dict[float, float]

    @property
    def last(self) -> State:
        """State at the end of the dense training."""
        return self.states[max(self.states)]

    def pruned(self, sparsity: float) -> Pruned:
        """Return the network that was pruned to a target."""
        return min(self.rounds, key=lambda each: abs(each.sparsity - sparsity))


@dataclass(frozen=True)
class Matched:
    """How A's channels are renumbered for B.

    Attributes:
        permutations: "end" by activations of both at their ends, "weights" by weights, "random"; passes of an earlier B
            as a number.
        gap: largest difference of a logit of A that renumbering by "end" makes, in double precision.
        commutes: whether that renumbering commutes with masking and keeps every layer's weights.
        description: of the network, see `permutables`.
    """

    permutations: dict[Any, Permutations]
    gap: float
    commutes: bool
    description: Description


@dataclass(frozen=True)
class Ticket:
    """A sparse network after its training.

    Attributes:
        logits: (m, C) of the test images.
        check: share of right answers on the validation images.
        test: share of right answers on the test images.
        weights: that are active.
    """

    logits: np.ndarray
    check: float
    test: float
    weights: int


@dataclass(frozen=True)
class Found:
    """All trainings of the notebook."""

    dense: dict[Dense, Trained]
    matched: dict[Pair, Matched]
    tickets: dict[Job, Ticket]

    def a(self, params: Params, pair: Pair) -> Trained:
        """A of a pair."""
        return self.dense[network_a(params, pair.network, pair.width, pair.seed)]

    def b(self, pair: Pair) -> Trained:
        """B of a pair."""
        return self.dense[network_b(*pair)]


def store(params: Params) -> Path | None:
    """Folder of trained dense networks, by which a long run goes on; quick keeps nothing, it takes two minutes."""
    return None if params.profile == "quick" else paths.cache("lth_rebasin")


def train_all(params: Params, pool: Pool, folder: Path | None = None, progress: Any = None) -> Found:
    """Train, prune, match and train sparse; the same whatever the number of processes.

    Args:
        params: of the run.
        pool: processes that share the work.
        folder: of networks that are kept, see `store`; None keeps nothing.
        progress: called after each piece of work with its number and that of all of its kind.
    """
    dense, jobs = paper.every_dense(params), paper.every_job(params)
    trained = pool.map(partial(train_dense, params=params, folder=folder), [(job,) for job in dense], progress)
    found = Found(dict(zip(dense, trained)), {}, {})
    pairs = list(dict.fromkeys(Pair(job.network, job.width, job.seed, job.member) for job in jobs))
    early = {Pair(job.network, job.width, job.seed, job.member) for job in jobs if job.matched}
    ends = [(pair, found.a(params, pair), found.b(pair), params.early if pair in early else ()) for pair in pairs]
    tasks = [(pair, a.last, a.pruned(LOW).masks, _passes(b, each)) for pair, a, b, each in ends]
    found.matched.update(zip(pairs, pool.map(partial(match, params=params), tasks, progress)))
    starts = [beginning(job, found, params) for job in jobs]
    tickets = pool.map(partial(train_ticket, params=params), list(zip(jobs, *zip(*starts))), progress)
    found.tickets.update(zip(jobs, tickets))
    return found


def _passes(b: Trained, early: Sequence[int]) -> dict[int, State]:
    """States of B with which A is matched; 0 is the end."""
    return {0: b.last} | {each: b.states[each] for each in early}


# ---- dense and pruned ------------------------------------------------------------------------------------------------


def train_dense(job: Dense, params: Params, folder: Path | None = None) -> Trained:
    """Train one dense network and prune it, or read it from the folder."""
    sets = draw_sets(params.images_of(job.network), job.seed)
    path = folder and folder / f"{job.network}-{job.width:g}-{job.seed}-{job.weights}.pt"
    inputs = {name: value for name, value in asdict(params).items() if name not in NEUTRAL}
    mark = fingerprint({"job": asdict(job), **inputs}, sets.train, (__name__,)) if path else ""
    content = kept(path, mark, partial(_train_dense, job, params, sets))
    rounds = [Pruned(*each) for each in content["rounds"]]
    model = build(params, job, len(sets.classes))
    found = Trained(content["states"], rounds, {}, {})
    for sparsity, state in [(0.0, found.last), *((s, found.pruned(s).state) for s in job.sparsities)]:
        found.logits[sparsity], found.check[sparsity] = answers(with_state(model, state), sets, params)
    return found


def _train_dense(job: Dense, params: Params, sets: Sets) -> dict[str, Any]:
    """Train one dense network and prune it in rounds."""
    passes, (rate, _, prune_rate) = params.passes_of(job.network), params.rates_of(job.network)
    model = build(params, job, len(sets.classes), job.weights)
    early = params.early if job.network == "grid" else []
    keep = sorted({*params.rewinds_of(job.network), *early, passes})
    options = {**params.settings, "seed": job.order, "rate": rate, "epochs": passes}
    states = train_with_snapshots(model, *sets.train, keep=keep, **options)
    if not job.sparsities:
        return {"states": states, "rounds": []}
    options |= {"rate": prune_rate, "weight_decay": 0.0, "epochs": params.prune_epochs}
    rounds = iterative_pruning(
        model, *sets.train, paper.path_to(job.sparsities, params.share_of(job.network)), **options
    )
    targets = [min(rounds, key=lambda each, s=s: abs(each.sparsity - s)) for s in job.sparsities]
    shown = [each for each in rounds if shows_rounds(params, job) or each in targets]
    return {"states": states, "rounds": [(each.sparsity, each.masks, each.state) for each in shown]}


def shows_rounds(params: Params, job: Dense) -> bool:
    """Whether the networks after all rounds of pruning are needed."""
    return job.network == "grid" and job.width == WIDE and job.seed in params.few and bool(job.sparsities)


def answers(model: nn.Module, sets: Sets, params: Params) -> tuple[np.ndarray, float]:
    """Logits of the test images, and the share of right answers on the validation images."""
    placed = model.to(pick_device(params.device))
    layout = params.settings["memory_format"]
    check, test = (scores(placed, images, memory_format=layout) for images, _ in (sets.check, sets.test))
    return test, 1 - error(check, sets.check[1])


# ---- matched ---------------------------------------------------------------------------------------------------------


def match(pair: Pair, state_a: State, masks: Masks, states_b: dict[int, State], params: Params) -> Matched:
    """Renumber A for B.

    Args:
        pair: of networks.
        state_a: A at its end.
        masks: found by pruning A.
        states_b: passes of B → its state; 0 is the end.
        params: of the run.
    """
    sets = draw_sets(params.images_of(pair.network), pair.seed)
    model = build(params, pair, len(sets.classes))
    description, place = permutables(model), pick_device(params.device)
    images = match_batches(sets, params)
    models = {key: with_state(model, state).to(place) for key, state in {"a": state_a, **states_b}.items()}
    found: dict[Any, Permutations] = {}
    for passes in states_b:
        pictures = (each.to(place) for each in images)
        found[passes or END] = activation_matching(models["a"], models[passes], description, pictures)
    generator = torch.Generator().manual_seed(pair.seed + pair.member)
    found[RANDOM] = random_permutations(description, generator)
    found[BY_WEIGHTS] = weight_matching(state_a, states_b[0], description, generator).permutations
    test = torch.from_numpy(sets.test[0][:SHOWN])
    gap = check_same_function(with_state(model, state_a), description, found[END], test, tolerance=float("inf"))
    return Matched(found, gap, commutes(state_a, masks, description, found[END]), description)


def match_batches(sets: Sets, params: Params) -> list[torch.Tensor]:
    """Training images by which channels are matched, in batches."""
    return list(torch.from_numpy(sets.train[0][: params.match_images]).split(BATCH))


def masked(state: State, masks: Masks) -> State:
    """Set weights that a mask leaves out to 0."""
    new = {name: value.clone() for name, value in state.items()}
    for name, mask in masks.items():
        new[f"{name}.weight"] *= mask
    return new


def commutes(state: State, masks: Masks, description: Description, sigma: Permutations) -> bool:
    """Whether to mask and to renumber is to renumber and to mask, and every layer keeps its weights."""
    moved = permuted(masks, description, sigma)
    first, then = permuted(masked(state, masks), description, sigma), masked(permuted(state, description, sigma), moved)
    same = all(torch.equal(first[name], then[name]) for name in state)
    for name, mask in masks.items():
        old, new = (each[f"{name}.weight"].flatten().sort().values for each in (masked(state, masks), then))
        same = same and torch.equal(old, new) and int(mask.sum()) == int(moved[name].sum())
    return same


# ---- sparse ----------------------------------------------------------------------------------------------------------


def beginning(job: Job, found: Found, params: Params) -> tuple[State, Masks]:
    """First weights and mask of a sparse training: rewound, not yet masked."""
    pair = Pair(job.network, job.width, job.seed, job.member)
    a, b = found.a(params, pair), found.b(pair)
    masks = a.pruned(job.sparsity).masks
    if job.method == TICKET:
        return a.states[job.rewind], masks
    if job.method == NAIVE:
        return b.states[job.rewind], masks
    matched = found.matched[pair]
    sigma = matched.permutations[RANDOM if job.method == RANDOM else job.matched or END]
    return b.states[job.rewind], permuted(masks, matched.description, sigma)


def train_ticket(job: Job, state: State, masks: Masks, params: Params) -> Ticket:
    """Train one sparse network for the passes that are left after the rewind point."""
    sets = draw_sets(params.images_of(job.network), job.seed)
    model = build(params, job, len(sets.classes))
    passes, rate = params.passes_of(job.network) - job.rewind, params.rates_of(job.network)[1]
    order = job.seed + OF_MEMBER * job.member
    settings = {**params.settings, "epochs": passes, "rate": rate, "seed": order}
    ticket = train_from(model, state, masks, *sets.train, **settings)
    logits, check = answers(ticket, sets, params)
    weights = sum(int(mask.sum()) for mask in masks.values())
    return Ticket(logits, check, 1 - error(logits, sets.test[1]), weights)


# ---- their table -----------------------------------------------------------------------------------------------------


def training_table(found: Found, params: Params) -> pd.DataFrame:
    """A row a training.

    Returns:
        The fields of `Job`, accuracies in per cent, active `weights` (none for a dense network). Methods are those of
        the sparse trainings, and dense A, dense B and IMP (A, pruned and fine-tuned).
    """
    rows = []
    for job, ticket in found.tickets.items():
        accuracies = {"validation accuracy": 100 * ticket.check, "test accuracy": 100 * ticket.test}
        rows.append(asdict(job) | accuracies | {"weights": ticket.weights})
    for job, each in found.dense.items():
        labels = draw_sets(params.images_of(job.network), job.seed).test[1]
        member = (job.order - job.seed) // OF_MEMBER
        for sparsity, logits in each.logits.items():
            method = "IMP" if sparsity else "dense A" if job.sparsities else "dense B"
            row = {"network": job.network, "width": job.width, "method": method, "sparsity": sparsity, "rewind": 0}
            row |= {"seed": job.seed, "member": member, "matched": 0, "validation accuracy": 100 * each.check[sparsity]}
            masks = each.pruned(sparsity).masks.values() if sparsity else ()
            row |= {"test accuracy": 100 * (1 - error(logits, labels)), "weights": sum(int(m.sum()) for m in masks)}
            rows.append(row)
    order = ["network", "width", "method", "sparsity", "rewind", "matched", "member", "seed"]
    table = pd.DataFrame(rows)[[*order, "validation accuracy", "test accuracy", "weights"]]
    return table.sort_values(order, ignore_index=True)
