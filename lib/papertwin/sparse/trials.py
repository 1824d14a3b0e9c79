"""Trials: networks trained dense or sparse from several seeds, with what their connections did.

As `papertwin.training.trials`, whose image sets they use: validation images decide, test images are reported, and the
same seed gives every method the same images, shuffles and, up to its masks, first weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.costs import METHODS, Method, forward_macs, training_macs
from papertwin.sparse.densities import check_sparsity
from papertwin.sparse.masks import active_share, last_layer
from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.sparseopt import HAM, SparseOpt, UnitNorm
from papertwin.sparse.updaters import SET, LayerUpdate, RigL, SRigL, Updater
from papertwin.training.loop import fit, scores
from papertwin.training.trials import Sets, SetSizes, draw_sets, error

Progress = Callable[[int, float], None]
UPDATERS: dict[str, type[Updater]] = {"static": Updater, "set": SET, "rigl": RigL, "srigl": SRigL}
HUNG: dict[str, type[SparseOpt | UnitNorm | HAM]] = {"sparseopt": SparseOpt, "unit_norm": UnitNorm, "ham": HAM}
OPTIONS = ("distribution", "dense", "first", "passes")  # of every updater, beside what a plan says itself


@dataclass(frozen=True)
class Plan:
    """How one network is trained.

    Attributes:
        method: dense, static, set, rigl or srigl.
        sparsity: of its weights, in [0, 1); 0 for dense.
        every: ΔT, steps between two updates of the connections.
        options: of the updater, those of `OPTIONS` and for srigl gamma; a dense network has none.
        drop, stop: of the schedule, see `DropSchedule`.
        hung: what hangs on the optimiser, of `HUNG`: its name → its options, which are checked when training begins.

    Raises:
        InputError: no such method or option, a sparsity that the method cannot have, or no such schedule.
    """

    method: Method
    sparsity: float = 0.0
    every: int = 100
    options: dict[str, Any] = field(default_factory=dict)
    drop: float = 0.3
    stop: float = 0.75
    hung: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what `updater` could not use."""
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}.")
        if (self.method == "dense") != (self.sparsity == 0):
            raise InputError(
                f"A dense network has sparsity 0 and every other more, got {self.method} with {self.sparsity!r}."
            )
        check_sparsity(self.sparsity)
        DropSchedule(1, self.every, self.drop, self.stop)  # refuses what is none
        known = () if self.method == "dense" else OPTIONS + (("gamma",) if self.method == "srigl" else ())
        if unknown := sorted(set(self.options) - set(known)):
            raise InputError(
                f"{self.method} takes the options {', '.join(known) or 'none'}, got {', '.join(map(repr, unknown))}."
            )
        self._check_hung()

    def _check_hung(self) -> None:
        """Refuse what cannot hang on the optimiser, and options that it does not have."""
        allowed = () if self.method == "dense" else tuple(HUNG)
        if not isinstance(self.hung, Mapping) or (unknown := sorted(set(self.hung) - set(allowed))):
            names = ", ".join(allowed) or "nothing: it has no masks"
            got = unknown if isinstance(self.hung, Mapping) else repr(self.hung)
            raise InputError(f"What hangs on the optimiser of {self.method} may be {names}; got {got}.")
        for name, options in self.hung.items():
            known = [each for each in signature(HUNG[name]).parameters if each not in ("optimizer", "sparse")]
            if wrong := sorted(set(options) - set(known)):
                raise InputError(f"{name} takes the options {', '.join(known) or 'none'}, got {', '.join(wrong)}.")

    def updater(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> Updater:
        """Build the updater of a sparse method, and hang on the optimiser what belongs there."""
        schedule = DropSchedule(steps, self.every, self.drop, self.stop)
        kind = UPDATERS[self.method]
        found = kind(model, optimizer, schedule, sparsity=self.sparsity, seed=seed, **self.options)
        for name, each in HUNG.items():
            if name in self.hung:
                each(optimizer, found, **self.hung[name])
        return found


@dataclass(frozen=True)
class SparseTrial:
    """A network after its training.

    Attributes:
        network: name.
        plan: how it was trained.
        seed: of weights, masks, images and shuffles.
        check_error: share of wrong answers on validation images.
        test_error: share of wrong answers on test images.
        losses: mean training loss of each epoch.
        masks: layer → bool tensor; empty for a dense network.
        log: what every update did.
        itop: share of the weights that were ever active.
        macs: multiply-accumulates of an image.
        dense_macs: those of the dense network.
        step_macs: multiply-accumulates of a training step, per image.
        images: that the training took, each as often as it came.
        model: in eval mode, on the CPU.
        curve: (epochs, 2) accuracy after each epoch, in [0, 1], on the first training images, as many as there are for
            validation, and on the validation images; None where it was not asked for.
    """

    network: str
    plan: Plan
    seed: int
    check_error: float
    test_error: float
    losses: tuple[float, ...]
    masks: dict[str, torch.Tensor]
    log: tuple[LayerUpdate, ...]
    itop: float
    macs: int
    dense_macs: int
    step_macs: float
    images: int
    model: nn.Module
    curve: np.ndarray | None = None

    @property
    def active_share(self) -> float:
        """Share of the neurons of hidden layers that have active weights, in [0, 1]; 1 for a dense network."""
        return active_share(self.masks, last_layer(self.model)) if self.masks else 1.0


def train_sparse(
    network: str,
    build: Callable[..., nn.Module],
    plan: Plan,
    seed: int,
    sizes: SetSizes,
    *,
    curve: bool = False,
    **settings: Any,
) -> SparseTrial:
    """Build a network from a seed, train it on the images of that seed, and ask it for the others.

    Args:
        network: name.
        build: `build(classes, in_channels=…, seed=…)`.
        plan: how it is trained.
        seed: of weights, masks, images and shuffles.
        sizes: of the image sets.
        curve: whether accuracy is measured after each epoch; the training is the same.
        settings: of `papertwin.training.loop.fit`: epochs, rate, batch, …

    Raises:
        InputError: settings that `fit` or the updater refuses.
        DivergenceError: the loss is no longer finite.
    """
    sets = draw_sets(sizes, seed)
    model = build(len(sets.classes), in_channels=sets.shape[0], seed=seed)
    made: list[Updater] = []

    def follow(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Updater:
        made.append(plan.updater(model, optimizer, steps, seed))
        return made[0]

    layout, points = settings.get("memory_format"), []
    if curve:
        settings = {**settings, "progress": _looking(model, sets, layout, points, settings.get("progress"))}
    losses = fit(model, *sets.train, seed=seed, follow=None if plan.method == "dense" else follow, **settings)
    errors = [error(scores(model, images, memory_format=layout), labels) for images, labels in (sets.check, sets.test)]
    for each in made:
        each.remove()
    return SparseTrial(
        network=network,
        plan=plan,
        seed=seed,
        check_error=errors[0],
        test_error=errors[1],
        losses=tuple(losses),
        images=len(losses) * len(sets.train[1]),
        model=model.eval().cpu(),
        curve=np.array(points) if curve else None,
        **_connections(made[0] if made else None),
        **_costs(model, sets.shape, plan, made[0].masks if made else {}),
    )


def _looking(
    model: nn.Module, sets: Sets, layout: torch.memory_format | None, points: list[list[float]], report: Progress | None
) -> Progress:
    """Make what measures accuracy after each epoch, and then reports it to whoever asked for progress."""
    shown = tuple(each[: len(sets.check[1])] for each in sets.train), sets.check

    def look(epoch: int, loss: float) -> None:
        points.append([1 - error(scores(model, images, memory_format=layout), labels) for images, labels in shown])
        if report is not None:
            report(epoch, loss)

    return look


def _connections(updater: Updater | None) -> dict[str, Any]:
    """What a trial says of masks; None for a dense network."""
    if updater is None:
        return {"masks": {}, "log": (), "itop": 1.0}
    masks = {name: mask.cpu().contiguous() for name, mask in updater.masks.items()}
    return {"masks": masks, "log": tuple(updater.log), "itop": updater.itop_rate()}


def _costs(model: nn.Module, shape: tuple[int, ...], plan: Plan, masks: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What a trial says of multiply-accumulates."""
    dense, sparse = (forward_macs(model, shape, which) for which in ({}, masks))
    return {"macs": sparse, "dense_macs": dense, "step_macs": training_macs(dense, sparse, plan.method, plan.every)}
