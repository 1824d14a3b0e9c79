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

from papertwin.data.images import ABOUT
from papertwin.limits import check_choice, check_least, check_seed, require
from papertwin.nets.cifar_residual import cifar_resnet
from papertwin.nets.conditional.search import pareto_front
from papertwin.nets.counting import count
from papertwin.training.clock import interleaved
from papertwin.training.pool import Pool
from papertwin.training.trials import SetSizes, Trial, draw_sets, train_trial
from papertwin.words import duration, number

# of every training, with momentum and a cosine schedule; the memory order is faster for groups, only rounding differs
SETTINGS = {"rate": 0.05, "batch": 64, "weight_decay": 5e-4, "memory_format": torch.channels_last}
CORE, GPU = 20e9, 2e12  # multiply-accumulates a second, for plans
IMAGENET_IMAGES = 1_281_167  # for training
FULL_IMAGES = 45_000  # of CIFAR for training at full size, the rest is for validation
FULL_PASSES = 300  # of trainings of CIFAR-10 at full size
TIMED_BATCH = 16  # images at once where small networks are timed
FEW_SEEDS = "claims over seeds need intervals, which are drawn from 3 on"


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
    few_seeds: int
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
        check_choice(self, "dataset", ABOUT)
        check_least(self, {"side": 8}, "the layers that halve an image leave nothing of a smaller one")
        own, train, test = (getattr(ABOUT[self.dataset], name) for name in ("side", "train", "test"))
        expected = f"it must divide the {own} pixels of {self.dataset}, which are averaged in blocks: take {own // 2}"
        require(self, "side", own % self.side == 0, expected)
        least = {"train_images": 100, "check_images": 50, "test_images": 50}
        check_least(self, least, "errors of a network that is trained or tested on fewer say nothing")
        most = train - self.check_images
        expected = (
            f"it can be at most {most:,}, what check_images leaves of the {train:,} that {self.dataset} trains on"
        )
        require(self, "train_images", self.train_images <= most, expected)
        require(self, "test_images", self.test_images <= test, f"{self.dataset} has {test:,}")
        check_least(self, {"seeds": 2}, FEW_SEEDS)
        check_least(self, {"epochs": 1})
        check_seed(self)
        check_least(self, {"processes": 0}, "0 is one a core")
        for name in widths:
            expected = "it is a share of the full width, above 0 and at most 4"
            require(self, name, 0 < getattr(self, name) <= 4, expected)

    def check_depths(self, *depths: str) -> None:
        """Refuse numbers of layers that no residual network for small images has.

        Args:
            depths: names of the fields.

        Raises:
            ParameterError: one is neither 18 nor 8, 14, 20, …
        """
        for name in depths:
            layers = getattr(self, name)
            known = layers == 18 or (layers >= 8 and layers % 6 == 2)
            require(self, name, known, "residual networks have 18 layers, or 6n + 2: 8, 14, 20, …")

    @property
    def images(self) -> str:
        """What the image set is called, for stamps."""
        return ABOUT[self.dataset].title

    @property
    def trains_whole(self) -> bool:
        """Whether trainings have the images of CIFAR-10 but those for validation, and the passes of full size."""
        return self.train_images >= FULL_IMAGES and self.epochs >= FULL_PASSES

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
    def few(self) -> range:
        """Seeds of what needs fewer, the first ones, where a paper has `few_seeds`."""
        return self.every_seed[: self.few_seeds]

    @property
    def settings(self) -> dict[str, Any]:
        """Of every training."""
        return {**SETTINGS, "epochs": self.epochs, "device": self.device}

    def open_pool(self) -> Pool:
        """Processes for the trainings: as many as asked for, 0 for one a core; one where an accelerator trains."""
        return Pool.on(self.device, self.processes)


def residual(classes: int, *, in_channels: int, seed: int, depth: int, own: float, width: float = 1.0) -> nn.Module:
    """Build a residual network for small images, as trials want it.

    Args:
        classes: outputs.
        in_channels: of an image.
        seed: of the weights.
        depth: layers, see `cifar_resnet`.
        own: width that a paper gives it, as a share of the full one.
        width: a factor of that.
    """
    return cifar_resnet(depth, classes, width=own * width, in_channels=in_channels, seed=seed)


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
        models = [build(sizes.classes, in_channels=sizes.shape[0], seed=0) for build in builders.values()]
    macs, parameters = zip(*(costs(model, sizes.shape) for model in models))
    steps = len(models) * seeds * epochs * -(-sizes.train // batch)
    operations = 3 * sum(macs) * seeds * epochs * sizes.train
    return {
        "networks": len(models),
        "trainings": len(models) * seeds,
        "parameters": f"{number(min(parameters))} to {number(max(parameters))}",
        "multiply-accumulates an image": f"{number(min(macs))} to {number(max(macs))}",
        "optimiser steps": steps,
        **work(operations),
    }


def work(operations: float) -> dict[str, str]:
    """Say how many multiply-accumulates there are and how long they take."""
    return {
        "multiply-accumulates of all trainings": number(operations),
        "on one core, 20 billion a second": duration(operations / CORE),
        "on one GPU, 2 trillion a second": duration(operations / GPU),
    }


def on_imagenet(model: nn.Module, passes: Iterable[int]) -> str:
    """Say what a dense training on ImageNet would cost.

    Args:
        model: for images of 224×224 pixels; it may be on the meta device.
        passes: over the training images; several for trainings of several lengths.
    """
    macs, parameters = costs(model, (3, 224, 224))
    times = (f"{each} passes {duration(3 * macs * IMAGENET_IMAGES * each / GPU)}" for each in passes)
    return (
        f"{number(parameters)} parameters, {number(macs)} multiply-accumulates an image; on one GPU {', '.join(times)}"
    )
