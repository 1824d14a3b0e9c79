"""Compare small networks that are trained from several seeds: what they cost, how they err, and both at once.

A table of trials has a row for each network and seed: `network`, `seed`, `MACs` (of an image), `parameters`,
`validation error` and `test error` in per cent. Choices are made on validation images, test images are reported.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from papertwin.errors import ParameterError
from papertwin.nets.conditional.search import pareto_front
from papertwin.nets.counting import count
from papertwin.parameters import check_least
from papertwin.training.clock import interleaved
from papertwin.training.pool import Pool
from papertwin.training.trials import SIDES, SetSizes, Trial, draw_sets, substitute, train_trial

# of every training, with momentum and a cosine schedule; the memory order is faster for groups, only rounding differs
SETTINGS = {"rate": 0.05, "batch": 64, "weight_decay": 5e-4, "memory_format": torch.channels_last}
GPU_HOURS = "GPU hours at 2 trillion a second"
IMAGENET_IMAGES = 1_281_167  # for training
TIMED_BATCH = 16  # images at once where small networks are timed


class Repeated:
    """What follows from the parameters of a paper that trains small networks from several seeds.

    Base of its frozen dataclass, whose fields have the names, types and comments of the notebook's parameters cell.
    """

    dataset: str
    side: int
    train_images: int
    check_images: int
    test_images: int
    epochs: int
    seeds: int
    processes: int
    device: str
    seed: int

    def check_trainings(self, *widths: str) -> None:
        """Refuse what cannot be trained on.

        Args:
            widths: names of the fields that are shares of a full width.

        Raises:
            ParameterError: unknown images, a side that does not divide theirs, too few of something, no width.
        """
        least = {"side": 8, "train_images": 100, "check_images": 50, "test_images": 50}
        check_least(self, least | {"epochs": 1, "seeds": 2, "processes": 0})
        if self.dataset not in SIDES:
            raise ParameterError(f"dataset is {self.dataset!r}; expected one of {', '.join(SIDES)}.")
        if SIDES[self.dataset] % self.side:
            own = SIDES[self.dataset]
            raise ParameterError(f"side is {self.side}; it must divide the {own} of {self.dataset}: take {own // 2}.")
        for name in widths:
            if not 0 < getattr(self, name) <= 4:
                raise ParameterError(f"{name} is {getattr(self, name)}; expected a share above 0, at most 4.")

    def stamp(self, instead: str = "") -> str:
        """What is written on figures of networks that are trained here; nothing where the data are the paper's own."""
        return substitute(self.dataset, instead)

    @property
    def sizes(self) -> SetSizes:
        """Of the image sets that the small networks are trained on."""
        return SetSizes(self.dataset, self.side, self.train_images, self.check_images, self.test_images)

    @property
    def first_seed(self) -> int:
        """Of the repetitions: the one after `seed`, since 0 was used for pilots."""
        return self.seed + 1

    @property
    def every_seed(self) -> range:
        """Seeds of the repetitions."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def settings(self) -> dict[str, Any]:
        """Of every training."""
        return {**SETTINGS, "epochs": self.epochs, "device": self.device}

    def open_pool(self) -> Pool:
        """Processes for the trainings: as many as asked for, 0 for one a core; one where an accelerator trains."""
        return Pool.on(self.device, self.processes)


def train_all(
    builders: Mapping[str, partial],
    seeds: Iterable[int],
    sizes: SetSizes,
    pool: Pool,
    known: Sequence[Trial] = (),
    **settings: Any,
) -> list[Trial]:
    """Train every network from every seed, but for the trials that are known already.

    Args:
        builders: name → `build(classes, in_channels=…, seed=…)`.
        seeds: of weights, training images and shuffles.
        sizes: of the image sets.
        pool: processes that share the work.
        known: trials that need not be trained again; they come first in the result.
        settings: of `papertwin.training.loop.fit`.
    """
    have = {(trial.name, trial.seed) for trial in known}
    tasks = [(name, build, seed) for seed in seeds for name, build in builders.items()]
    left = [task for task in tasks if (task[0], task[2]) not in have]
    return [*known, *pool.map(partial(train_trial, sizes=sizes, **settings), left)]


def costs(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Multiply-accumulates of an image of shape (c, h, w), and parameters."""
    counts = count(model, shape)
    return counts.macs, counts.params


def trial_table(trials: Iterable[Trial], shape: tuple[int, ...]) -> pd.DataFrame:
    """One row a network and seed.

    Args:
        trials: trained networks.
        shape: of an image, (c, h, w).

    Returns:
        The columns named at the head of this module.
    """
    rows = [
        {
            "network": each.name,
            "seed": each.seed,
            **dict(zip(("MACs", "parameters"), costs(each.model, shape))),
            "validation error": 100 * each.check_error,
            "test error": 100 * each.test_error,
        }
        for each in trials
    ]
    return pd.DataFrame(rows)


@torch.inference_mode()
def answer(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a network says, without gradients; for the clock."""
    return model(images)


def trial_times(trials: Iterable[Trial], params: Repeated, rounds: int) -> pd.Series:
    """Microseconds an image of the networks of the first seed: median over rounds in which all take turns.

    Args:
        trials: trained networks.
        params: whose test images are asked about, 16 at once.
        rounds: of the clock.
    """
    models = {each.name: each.model for each in trials if each.seed == params.first_seed}
    images = torch.from_numpy(draw_sets(params.sizes, params.first_seed).test[0][:TIMED_BATCH])
    calls = {name: partial(answer, model, images) for name, model in models.items()}
    return 1e6 * interleaved(calls, rounds=rounds).median() / len(images)


def paired(table: pd.DataFrame, first: str, second: str, column: str = "test error") -> np.ndarray:
    """A column of one network minus that of another, seed by seed: (seeds,)."""
    values = table.pivot(index="seed", columns="network", values=column)
    return (values[first] - values[second]).to_numpy()


def front(table: pd.DataFrame, cost: str = "MACs") -> pd.DataFrame:
    """Rows that no other beats in both cost and validation error, one for each cost, cheapest first."""
    kept = table[pareto_front(table[[cost, "validation error"]])]
    return kept.sort_values([cost, "validation error"]).drop_duplicates(cost)


def above_front(rows: pd.DataFrame, reference: pd.DataFrame, cost: str = "MACs") -> tuple[float, int]:
    """By how many points networks are worse, on average, than the front of others at equal cost.

    Networks whose cost lies within the range of the others are compared with the line through the front of those,
    linear in the logarithm of the cost and level beyond the ends of the front.

    Args:
        rows: networks of one seed.
        reference: the others, of the same seed.
        cost: the column that is to be equal.

    Returns:
        Mean test error above the line in points, NaN where none can be compared; how many were.
    """
    rows = rows[rows[cost].between(reference[cost].min(), reference[cost].max())]
    best = front(reference, cost)
    line = np.interp(np.log(rows[cost]), np.log(best[cost]), best["test error"])
    return (float((rows["test error"] - line).mean()) if len(rows) else np.nan), len(rows)


def planned(builders: Mapping[str, partial], params: Repeated) -> dict[str, Any]:
    """Say what training every network from every seed would cost, before any is trained.

    An optimiser step is one batch; a forward and a backward pass are taken for three forward passes.

    Args:
        builders: name → `build(classes, in_channels=…, seed=…)`.
        params: of the trainings.
    """
    sizes, seeds, epochs, batch = params.sizes, params.seeds, params.epochs, SETTINGS["batch"]
    with torch.device("meta"):
        models = [build(10, in_channels=sizes.shape[0], seed=0) for build in builders.values()]
    macs, parameters = zip(*(costs(model, sizes.shape) for model in models))
    steps = len(models) * seeds * epochs * -(-sizes.train // batch)
    operations = 3 * sum(macs) * seeds * epochs * sizes.train
    return {
        "networks": len(models),
        "trainings": len(models) * seeds,
        "parameters": f"{min(parameters):,} to {max(parameters):,}",
        "multiply-accumulates an image": f"{min(macs):,} to {max(macs):,}",
        "optimiser steps": steps,
        **work(operations),
    }


def work(operations: float) -> dict[str, Any]:
    """Say in words and hours what so many multiply-accumulates are."""
    return {
        "multiply-accumulates of all trainings": f"{operations:.3g}",
        "core hours at 20 billion a second": operations / 20e9 / 3600,
        GPU_HOURS: operations / 2e12 / 3600,
    }


def imagenet_hours(macs: float, passes: int) -> float:
    """GPU hours of a training on ImageNet.

    Args:
        macs: multiply-accumulates of an image.
        passes: over the training images.
    """
    return work(3 * macs * IMAGENET_IMAGES * passes)[GPU_HOURS]
