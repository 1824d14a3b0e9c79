"""Trials: networks trained dense or sparse from several seeds, with what their connections did.

As `papertwin.training.trials`, whose image sets they use: validation images decide, test images are reported, and the
same seed gives every method the same images, shuffles and, up to its masks, first weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.sparse.costs import METHODS, Method, forward_macs, training_macs
from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.updaters import SET, LayerUpdate, RigL, SRigL, Updater
from papertwin.training.loop import fit, scores
from papertwin.training.trials import SetSizes, draw_sets, error

UPDATERS: dict[str, type[Updater]] = {"static": Updater, "set": SET, "rigl": RigL, "srigl": SRigL}


@dataclass(frozen=True)
class Plan:
    """How one network is trained.

    Attributes:
        method: dense, static, set, rigl or srigl.
        sparsity: of its weights, in [0, 1); 0 for dense.
        every: ΔT, steps between two updates of the connections.
        options: of the updater: gamma, distribution, dense, first, passes.
        drop, stop: of the schedule, see `DropSchedule`.
    """

    method: Method
    sparsity: float = 0.0
    every: int = 100
    options: dict[str, Any] = field(default_factory=dict)
    drop: float = 0.3
    stop: float = 0.75

    def __post_init__(self) -> None:
        """Check method and sparsity."""
        if self.method not in METHODS:
            raise InputError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}.")
        if (self.method == "dense") != (self.sparsity == 0):
            raise InputError(
                f"A dense network has sparsity 0 and every other more, got {self.method} with {self.sparsity!r}."
            )

    def updater(self, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> Updater:
        """Build the updater of a sparse method."""
        schedule = DropSchedule(steps, self.every, self.drop, self.stop)
        kind = UPDATERS[self.method]
        return kind(model, optimizer, schedule, sparsity=self.sparsity, seed=seed, **self.options)


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


def train_sparse(
    network: str, build: Callable[..., nn.Module], plan: Plan, seed: int, sizes: SetSizes, **settings: Any
) -> SparseTrial:
    """Build a network from a seed, train it on the images of that seed, and ask it for the others.

    Args:
        network: name.
        build: `build(classes, in_channels=…, seed=…)`.
        plan: how it is trained.
        seed: of weights, masks, images and shuffles.
        sizes: of the image sets.
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

    losses = fit(model, *sets.train, seed=seed, follow=None if plan.method == "dense" else follow, **settings)
    layout = settings.get("memory_format")
    errors = [error(scores(model, images, memory_format=layout), labels) for images, labels in (sets.check, sets.test)]
    for each in made:
        each.remove()
    masks = {name: mask.cpu().contiguous() for each in made for name, mask in each.masks.items()}
    model = model.eval().cpu()
    dense, sparse = (forward_macs(model, sets.shape, which) for which in ({}, masks))
    return SparseTrial(
        network,
        plan,
        seed,
        *errors,
        tuple(losses),
        masks,
        tuple(entry for each in made for entry in each.log),
        made[0].itop_rate() if made else 1.0,
        sparse,
        dense,
        training_macs(dense, sparse, plan.method, plan.every),
        len(losses) * len(sets.train[1]),
        model,
    )
