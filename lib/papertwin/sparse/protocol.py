"""The one protocol by which sparse trainers of several papers are compared: one network, its images, one recipe.

Each paper's notebook saves the trainings that it did by this protocol as a table of the same columns, with the protocol
in words in every row; the report puts the tables together, see `papertwin.joined`.
"""

from collections.abc import Iterable

import pandas as pd
from torch import nn

from papertwin.data.images import ABOUT
from papertwin.nets.initial import seeded
from papertwin.nets.layers import Named, chain, dense
from papertwin.training.trials import SetSizes

RECIPE = {"rate": 0.1, "batch": 128, "weight_decay": 5e-4}  # with momentum 0.9 and a cosine schedule
COLUMNS = ["trainer", "sparsity", "seed", "test accuracy", "protocol"]


def perceptron(classes: int, *, in_channels: int, seed: int, neurons: int, side: int, width: float = 1.0) -> nn.Module:
    """Two hidden layers with batch normalisation.

    Args:
        classes: outputs.
        in_channels: of an image.
        seed: of the weights.
        neurons: of a hidden layer.
        side: pixels of an image.
        width: factor of `neurons`.
    """
    hidden = max(1, round(neurons * width))
    inputs = in_channels * side * side
    with seeded(seed):
        layers: list[Named] = [("flat", nn.Flatten())]
        for number in (1, 2):
            layers += [(f"fc{number}", dense(inputs, hidden)), (f"norm{number}", nn.BatchNorm1d(hidden))]
            layers.append((f"relu{number}", nn.ReLU()))
            inputs = hidden
        return chain([*layers, ("fc3", dense(hidden, classes, last=True))])


def in_words(neurons: int, sizes: SetSizes, epochs: int, every: int) -> str:
    """Say by which protocol the perceptron was trained.

    >>> in_words(256, SetSizes("fashion_mnist", 14, 12000, 1000, 2000), 5, 25)
    'perceptron 256-256, 12000 images of Fashion-MNIST 14×14, 5 passes, ΔT 25, tested on 2000'
    """
    images = f"{sizes.train} images of {ABOUT[sizes.dataset].title} {sizes.side}×{sizes.side}"
    return f"perceptron {neurons}-{neurons}, {images}, {epochs} passes, ΔT {every}, tested on {sizes.test}"


def trainer_table(rows: Iterable[tuple[str, float, int, float]], protocol: str) -> pd.DataFrame:
    """What a notebook saves of its trainings by the protocol.

    Args:
        rows: trainer, sparsity, seed, test accuracy in per cent.
        protocol: in words, as of `in_words`.

    Returns:
        Columns `COLUMNS`, sorted by them.
    """
    table = pd.DataFrame([(*row, protocol) for row in rows], columns=COLUMNS)
    return table.sort_values(COLUMNS[:3], ignore_index=True)
