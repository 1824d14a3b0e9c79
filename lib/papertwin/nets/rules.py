"""How publications counted: the rules by which true counts of a network become those in print.

Most rows of the three papers count as `papertwin.nets.count` does. Where a publication counted otherwise, the rule was
found by fitting its rows; each reproduces all of them exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass

from papertwin.nets.counting import Counts


@dataclass(frozen=True)
class Rule:
    """A way to count.

    Attributes:
        name: a few words.
        explanation: what it does and how it differs from the truth; whole sentences.
        params: what it makes of the counts of a network.
        macs: the same for operations.
    """

    name: str
    explanation: str
    params: Callable[[Counts], int]
    macs: Callable[[Counts], int]


def true_params(counts: Counts) -> int:
    """Weights and biases, without those of batch normalisation."""
    return counts.params


def true_macs(counts: Counts) -> int:
    """Multiply-accumulate operations for one image."""
    return counts.macs


def trunk_params(counts: Counts) -> int:
    """Parameters of a GoogLeNet without its auxiliary heads and its classifier."""
    return sum(row.params for row in counts.layers if not row.name.startswith(("heads.", "trunk.classifier")))


def convolution_params(counts: Counts) -> int:
    """Parameters of the convolutions, and of a fully connected layer only as many as it has inputs and outputs."""
    conv = sum(row.params for row in counts.layers if row.kind == "conv")
    return conv + _ends(counts)


def doubled_output_macs(counts: Counts) -> int:
    """Σ H·W·d·(d·(c/g)·k²) over the convolutions: the filters d counted twice; a fully connected layer as above."""
    conv = sum(row.macs * row.output[0] for row in counts.layers if row.kind == "conv")
    return conv + _ends(counts)


def quarter_macs(counts: Counts) -> int:
    """A quarter of all operations."""
    return counts.macs // 4


def _ends(counts: Counts) -> int:
    """Inputs plus outputs of the fully connected layers, each with a bias: 2048 + 1000 of ResNet-200."""
    rows = [row for row in counts.layers if row.kind == "fc"]
    return sum((row.params - row.output[0]) // row.output[0] + row.output[0] for row in rows)


PER_IMAGE = Rule("per image", "Counted for one image, as here.", true_params, true_macs)
WITH_HEADS = Rule(
    "training net",
    "Counted for one image of the training net, as here: both auxiliary heads are in.",
    true_params,
    true_macs,
)
TRUNK = Rule(
    "params of the trunk",
    "Operations are those of the training net, both auxiliary heads and the classifier in; parameters leave out the "
    "heads and the classifier.",
    trunk_params,
    true_macs,
)
DOUBLED = Rule(
    "filters counted twice",
    "Parameters: those of the convolutions, and 2048 + 1000 for the last layer instead of 2048·1000 + 1000. "
    "Operations: the sum over the convolutions of H·W·d times all d·(c/g)·k² weights, + 3048, so the number of filters "
    "d comes in twice: no count for one image, and wide 1×1 layers dominate it.",
    convolution_params,
    doubled_output_macs,
)
QUARTER = Rule(
    "a quarter",
    "Operations are those of the net with stride 1 and 1000 classes on 224×224 pixels, divided by 4, the fully "
    "connected layers as well; parameters are those of 1000 classes. The trained nets had stride 2 and 205 classes.",
    true_params,
    quarter_macs,
)
SINGLE_VIEW = Rule(
    "single view",
    "Published operations are those of several views of an image, 2.002 times those of one (where the remainder comes "
    "from is not known); compared are those of one.",
    true_params,
    true_macs,
)
