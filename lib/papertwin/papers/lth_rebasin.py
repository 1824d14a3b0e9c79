"""Experiments on lottery tickets and weight symmetry (arXiv 2505.05143): a ticket's mask for other first weights.

Methods live in `papertwin.symmetry` and `papertwin.sparse.tickets`; here is which networks, methods, sparsities, rewind
points and seeds they are used on, and the trainings. Deviations from the paper: data and size (perceptrons of three
widths and a residual network of 8 layers on Fashion-MNIST for ResNet20 on CIFAR at quick), trainings of five passes,
one pass a round of pruning, one rate for dense and sparse trainings. All trainings of a seed see the same images in the
same order; networks A and B differ in their first weights only.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from papertwin.data.images import ABOUT
from papertwin.limits import check_choice, check_least, check_list, check_parts, check_positive, check_shares, require
from papertwin.nets import comparing, count, resnet50, vgg
from papertwin.sparse.protocol import RECIPE, perceptron
from papertwin.sparse.pruning import rounds_to
from papertwin.training.trials import SetSizes
from papertwin.words import number

TICKET, NAIVE, PERMUTED, RANDOM = "LTH", "naive", "permuted", "random"
METHODS = (TICKET, NAIVE, PERMUTED)  # of the paper
KINDS = ("mlp", "resnet")  # of the network of the grid
NARROW, WIDE = 1.0, 4.0  # widths at which claims are judged
LOW, HIGH = 0.9, 0.97  # sparsities at which claims are judged
PROTOCOL_AT = (0.9, 0.95)  # sparsities of the table that papers share
PROTOCOL_NEURONS, EVERY = 256, 25  # of its perceptron; ΔT of trainers whose connections move, for its words
CONV_SHARE = 0.5  # of the weights that remain, pruned in a round beside the grid, where time is short
VGG_AT, VGG_RATE = (0.8, 0.9), 0.02  # sparsities, and a rate at which a network without norms trains
OF_A, OF_MEMBER = 1000, 2000  # what is added to a seed for A, and once for each further network of an ensemble
CIFARS = ("cifar10", "cifar100")  # images of the paper's ResNet20
WIDEST = (16.0, 0.97, 100)  # width, sparsity and rewind point of the claim about CIFAR-100
PASSES = 80  # of the paper's ResNet50 on ImageNet


@dataclass(frozen=True)
class Params(comparing.Repeated):
    """Parameters of the notebook; names, types and defaults as in its parameters cell."""

    dataset: str = "fashion_mnist"
    side: int = 14
    train_images: int = 12000
    check_images: int = 1000
    test_images: int = 2000
    network: str = "mlp"
    neurons: int = 64
    depth: int = 20
    base: float = 1.0
    widths: list[float] = field(default_factory=lambda: [1.0, 2.0, 4.0])
    epochs: int = 5
    rate: float = 0.1
    sparse_rate: float = 0.1
    prune_rate: float = 0.01
    prune_epochs: int = 1
    share: float = 0.2
    sparsities: list[float] = field(default_factory=lambda: [0.9, 0.95, 0.97])
    all_points: bool = False
    rewinds: list[int] = field(default_factory=lambda: [0, 1, 2])
    near: int = 1
    far: int = 2
    early: list[int] = field(default_factory=lambda: [1, 2])
    seeds: int = 5
    few_seeds: int = 3
    members: int = 5
    conv_images: int = 1500
    conv_epochs: int = 8
    conv_rewind: int = 2
    conv_depth: int = 8
    conv_width: float = 0.25
    vgg_width: float = 0.0
    match_images: int = 2000
    points: int = 11
    grid: int = 11
    processes: int = 0
    profile: str = "quick"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no experiment can use."""
        self.check_trainings("base", "conv_width")
        self.check_depths("depth", "conv_depth")
        check_choice(self, "network", KINDS)
        check_least(self, {"few_seeds": 2}, comparing.FEW_SEEDS)
        check_least(self, {"neurons": 8}, "a narrower perceptron has next to no weights left at 97 %")
        check_least(self, {"members": 2}, "fewer are no ensemble")
        check_least(self, {"conv_images": 100, "match_images": 50}, "results on fewer images say nothing")
        check_least(self, {"points": 3, "grid": 2}, "lines and planes have ends and something between them")
        check_least(self, {"prune_epochs": 1, "conv_epochs": 2, "conv_rewind": 1, "vgg_width": 0})
        check_positive(self, "rate", "sparse_rate", "prune_rate")
        require(self, "share", 0 < self.share < 1, "it must be between 0 and 1: a round prunes some and leaves some")
        self._check_passes()
        self._check_lists()

    def _check_lists(self) -> None:
        """Refuse lists with numbers that are not possible, or without those that decide."""
        check = partial(check_list, self, ascending=True)
        check("widths", "factors above 0 and below 64", lambda each: 0 < each < 64, (NARROW, WIDE))
        check_shares(self, "sparsities", (LOW, PROTOCOL_AT[1], HIGH), ascending=True)
        last = self.epochs - 1
        points = 0, self.near, self.far
        why = "for the first weights, near and far"
        check("rewinds", f"passes from 0 to {last}", lambda each: 0 <= each <= last, points, why)
        check("early", f"passes from 1 to {last}", lambda each: 1 <= each <= last)

    def _check_passes(self) -> None:
        """Refuse passes that are none of a training, and more of something than there is."""
        expected = f"it must be above 0 and below far, {self.far}: claims compare the two rewind points"
        require(self, "near", 0 < self.near < self.far, expected)
        expected = f"it must be below conv_epochs, {self.conv_epochs}: training goes on from there"
        require(self, "conv_rewind", self.conv_rewind < self.conv_epochs, expected)
        wholes = {"few_seeds": "seeds", "conv_images": "train_images", "match_images": "train_images"}
        check_parts(self, wholes)

    @property
    def settings(self) -> dict[str, Any]:
        """Of every training, but for its passes and its rate."""
        return {**comparing.SETTINGS, **RECIPE, "device": self.device}

    @property
    def at_full_size(self) -> bool:
        """Whether the network of the grid and its training are as large as the paper's, on CIFAR-10 or CIFAR-100."""
        same = (self.side, self.network, self.depth, self.base) == (32, "resnet", 20, 1.0) and self.dataset in CIFARS
        pruned = self.prune_epochs >= 50 and self.share == 0.2 and self.train_images >= comparing.FULL_IMAGES
        rates = (self.rate, self.sparse_rate, self.prune_rate) == (0.08, 0.02, 0.01)
        return same and pruned and rates and self.epochs >= 200 and (self.near, self.far) == (20, 75)

    @property
    def printed(self) -> str:
        """Images of the paper whose published numbers stand beside ours."""
        return "cifar100" if self.dataset == "cifar100" else "cifar10"

    @property
    def theirs(self) -> str:
        """What these are called, for stamps."""
        return ABOUT[self.printed].title

    @property
    def has_widest(self) -> bool:
        """Whether the trainings of the claim about CIFAR-100 are there, at full size."""
        width, sparsity, rewind = WIDEST
        there = width in self.widths and sparsity in self.sparsities and rewind in self.rewinds
        return self.at_full_size and self.dataset == "cifar100" and there

    @property
    def vgg_at_full_size(self) -> bool:
        """Whether VGG-11, its images and its training are as large as the paper's."""
        same = (self.dataset, self.side, self.vgg_width, self.conv_rewind) == ("cifar10", 32, 1.0, 50)
        pruned = self.prune_epochs >= 50 and self.share == 0.2 and self.conv_images >= comparing.FULL_IMAGES
        return same and pruned and self.conv_epochs >= 200

    @property
    def grid_name(self) -> str:
        """What the network of the grid is called, for stamps."""
        return "perceptron" if self.network == "mlp" else f"ResNet{self.depth}"

    def images_of(self, network: str) -> SetSizes:
        """Sizes of the image sets of a network."""
        return self.sizes if network == "grid" else replace(self.sizes, train=self.conv_images)

    def passes_of(self, network: str) -> int:
        """Passes of a dense training, T."""
        return self.epochs if network == "grid" else self.conv_epochs

    def rewinds_of(self, network: str) -> list[int]:
        """Passes k to which a network is rewound."""
        return {"grid": self.rewinds, "resnet": [self.conv_rewind], "vgg": [0, self.conv_rewind]}[network]

    def share_of(self, network: str) -> float:
        """Share of the remaining weights that a round prunes; at quick half of them beside the grid, for time."""
        return self.share if network == "grid" or self.all_points else CONV_SHARE

    def rates_of(self, network: str) -> tuple[float, float, float]:
        """Rates of dense training, sparse training and pruning."""
        if network == "vgg":
            return VGG_RATE, VGG_RATE, VGG_RATE * self.prune_rate / self.rate
        return self.rate, self.sparse_rate, self.prune_rate


@dataclass(frozen=True)
class Dense:
    """One dense training, and the pruning in rounds that follows it.

    Attributes:
        network: grid, resnet or vgg.
        width: factor of the network's own width.
        weights: seed of its first weights.
        seed: of the images.
        order: seed of the shuffles.
        sparsities: to which it is pruned afterwards, all on one path; none for B.
    """

    network: str
    width: float
    weights: int
    seed: int
    order: int
    sparsities: tuple[float, ...] = ()


@dataclass(frozen=True)
class Job:
    """One sparse training.

    Attributes:
        network: grid, resnet or vgg.
        width: factor of the network's own width.
        method: LTH, naive, permuted or random.
        sparsity: of the mask that was found by pruning A.
        rewind: k, passes of the dense training whose weights it begins with.
        seed: of the images, of B's weights and, with a shift, of A's.
        member: of an ensemble: 0 is the one that all else uses; others have another order of images and another B.
        matched: passes of B with which A is matched; 0 is B at its end.
    """

    network: str
    width: float
    method: str
    sparsity: float
    rewind: int
    seed: int
    member: int = 0
    matched: int = 0


class Pair(NamedTuple):
    """Networks A and B of a seed: A is the same for all members, B has a number."""

    network: str
    width: float
    seed: int
    member: int = 0


# ---- which trainings -------------------------------------------------------------------------------------------------


def path_to(sparsities: Iterable[float], share: float) -> list[float]:
    """Sparsities after each round that prunes a share of what remains, with every target on the way.

    >>> path_to((0.5, 0.7), 0.5)
    [0.5, 0.7]
    """
    targets = sorted(sparsities)
    steps = [each for each in rounds_to(targets[-1], share) if all(abs(each - goal) > 1e-9 for goal in targets)]
    return sorted({*steps, *targets})


def network_a(params: Params, network: str, width: float, seed: int, member: int = 0) -> Dense:
    """A: the network that is pruned."""
    shift = OF_MEMBER * member
    targets = {"grid": tuple(params.sparsities), "resnet": (LOW,), "vgg": VGG_AT}[network]
    return Dense(network, width, seed + OF_A + shift, seed, seed + shift, (LOW,) if member else targets)


def network_b(network: str, width: float, seed: int, member: int = 0) -> Dense:
    """B: the network whose weights are to be trained sparse with A's mask."""
    shift = OF_MEMBER * member
    return Dense(network, width, seed + shift, seed, seed + shift)


def seeds_at(params: Params, width: float, rewind: int) -> range:
    """Seeds of a width and rewind point: all where claims are judged."""
    judged = width == NARROW or (width == WIDE and rewind in (params.near, params.far))
    return params.every_seed if judged else params.few


def sparsities_at(params: Params, width: float, rewind: int) -> list[float]:
    """Sparsities of a width and rewind point: all, or where that takes too long those that decide the claims."""
    if params.all_points or (rewind == params.near and width in (NARROW, WIDE)):
        return params.sparsities
    return [LOW, HIGH]


def every_job(params: Params) -> list[Job]:
    """Every sparse training of the notebook, each once, the longest first."""
    jobs = []
    for width in params.widths:
        for rewind in params.rewinds:
            at = sparsities_at(params, width, rewind)
            jobs += _grid("grid", width, at, rewind, seeds_at(params, width, rewind))
    narrow = partial(Job, "grid", NARROW)
    for seed in params.every_seed:
        jobs += [narrow(RANDOM, sparsity, params.near, seed) for sparsity in (LOW, HIGH)]
        jobs += [narrow(PERMUTED, LOW, params.near, seed, matched=each) for each in params.early]
    members = range(1, params.members)
    jobs += [narrow(each, LOW, params.near, seed, m) for seed in params.few for m in members for each in METHODS]
    for rewind in params.rewinds_of("resnet"):
        jobs += _grid("resnet", 1.0, (LOW,), rewind, params.few)
    for rewind in params.rewinds_of("vgg") if params.vgg_width else ():
        jobs += _grid("vgg", 1.0, VGG_AT, rewind, params.few)
    return sorted(jobs, key=_length, reverse=True)


def _grid(network: str, width: float, at: Iterable[float], rewind: int, seeds: Iterable[int]) -> list[Job]:
    """The paper's methods at some sparsities."""
    return [Job(network, width, each, s, rewind, seed) for seed in seeds for s in at for each in METHODS]


def every_dense(params: Params) -> list[Dense]:
    """Every dense training that the sparse ones need, each once, the longest first."""
    pairs = [(job.network, job.width, job.seed, job.member) for job in every_job(params)]
    found = dict.fromkeys(network_a(params, *each) for each in pairs) | dict.fromkeys(network_b(*e) for e in pairs)
    return sorted(found, key=_length, reverse=True)


def _length(job: Dense | Job) -> float:
    """About how long a training takes, to let the longest start first."""
    work = job.width if job.network == "grid" else 8.0
    return work * (3 if isinstance(job, Dense) and job.sparsities else 1)


def builders(params: Params) -> dict[str, partial]:
    """Builders of the networks: `build(classes, in_channels=…, seed=…, width=…)`, width a factor."""
    plain = partial(perceptron, neurons=params.neurons, side=params.side)
    deep = partial(comparing.residual, depth=params.depth, own=params.base)
    return {
        "grid": plain if params.network == "mlp" else deep,
        "resnet": partial(comparing.residual, depth=params.conv_depth, own=params.conv_width),
        "vgg": partial(without_norms, own=params.vgg_width, side=params.side),
    }


def without_norms(classes: int, *, in_channels: int, seed: int, own: float, side: int, width: float = 1.0) -> nn.Module:
    """VGG-11 without batch normalisation, for small images: 512 units a hidden layer behind the convolutions."""
    pools = (1, 2, 3, 4) if side >= 32 else (2, 3)
    options = {"width": own * width, "in_channels": in_channels, "side": side, "pools": pools, "hidden": 512}
    return vgg(classes, configuration="A", seed=seed, **options)


def build(params: Params, job: Dense | Job | Pair, classes: int, weights: int = 0) -> nn.Module:
    """Build the network of a training, or of a pair of them, from a seed."""
    channels = params.sizes.shape[0]
    return builders(params)[job.network](classes, in_channels=channels, seed=weights, width=job.width)


# ---- what it costs ---------------------------------------------------------------------------------------------------


def plan(params: Params) -> dict[str, Any]:
    """What a profile's trainings cost, taken as dense, and those on ImageNet that the paper did and this does not."""
    dense, jobs, macs, parameters = every_dense(params), every_job(params), {}, []
    with torch.device("meta"):
        for each in {(job.network, job.width): job for job in dense}.values():
            counts = count(build(params, each, params.sizes.classes), params.sizes.shape)
            macs[each.network, each.width] = counts.macs
            parameters.append(counts.params)
        large = comparing.on_imagenet(resnet50(seed=0), [PASSES])
    passes = [(job, params.passes_of(job.network) + _pruning(params, job)) for job in dense]
    passes += [(job, params.passes_of(job.network) - job.rewind) for job in jobs]
    seen = [(job, times * params.images_of(job.network).train) for job, times in passes]
    steps = sum(times * -(-params.images_of(job.network).train // RECIPE["batch"]) for job, times in passes)
    return {
        "dense trainings": len(dense),
        "rounds of pruning": sum(_pruning(params, job) // params.prune_epochs for job in dense),
        "sparse trainings": len(jobs),
        "parameters": f"{number(min(parameters))} to {number(max(parameters))}",
        "optimiser steps": steps,
        **comparing.work(3 * sum(macs[job.network, job.width] * images for job, images in seen)),
        "one ResNet50 on ImageNet (not run)": large,
    }


def _pruning(params: Params, job: Dense) -> int:
    """Passes of the rounds of pruning that follow a dense training."""
    return params.prune_epochs * len(path_to(job.sparsities, params.share_of(job.network))) if job.sparsities else 0
