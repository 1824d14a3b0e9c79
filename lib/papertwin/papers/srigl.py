"""Experiments of SRigL (arXiv 2305.02299): dynamic sparse training in which all neurons of a layer have one fan-in.

Methods live in `papertwin.sparse`; here is what is done with them: which networks, methods, sparsities and seeds.
Deviations from the paper: data (Fashion-MNIST for CIFAR-10 and ImageNet at quick), small networks (a perceptron, a
residual network of 8 layers, a separable one) and short trainings, so ΔT is 25 steps instead of 100 to 800; first
weights have variance 2/k, where the authors' code has deviation 2/k.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from papertwin.limits import check_least, check_list, check_parts, check_shares
from papertwin.nets import comparing, count, resnet50, vit
from papertwin.nets.initial import seeded
from papertwin.nets.layers import activated, chain, convolution, dense
from papertwin.nets.sizes import scaled
from papertwin.sparse.protocol import RECIPE, perceptron
from papertwin.sparse.trials import Plan, SparseTrial, train_sparse
from papertwin.training.pool import Pool

GAMMA = 0.3  # share of the fan-in that must matter, the paper's for convolutional networks
# name of a method → what trains it, and options of its updater
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {}),
    "static": ("static", {}),
    "SET": ("set", {}),
    "RigL": ("rigl", {}),
    "SRigL without ablation": ("srigl", {"gamma": 0.0}),
    "SRigL": ("srigl", {"gamma": GAMMA}),
}
SHORT = ("dense", "RigL", "SRigL without ablation", "SRigL")  # methods of the convolutional networks
LENGTHS = (1, 2, 5)  # times as many passes, figure 3
LONG = (0.99,)  # sparsities of the longer trainings
NEEDED = (0.8, 0.9, 0.95, 0.99)  # sparsities at which claims are judged
GAMMA_AT = (0.9, 0.99)  # sparsities at which γ is varied
WIDTHS = (0.5, 1.0)  # of the residual network, times `conv_width`, figure 12
CONV = (0.8, 0.9, 0.95)  # sparsities of the residual network; at 99 % some layers would have neurons without inputs
PAIRS = ((128, 1), (128, 2), (128, 1), (256, 2))  # filters and stride of each pair of the separable network
BOXED = 0.9  # sparsity of figures 8 and 11
PASSES = 103  # of ResNet-50 on ImageNet; those of ViT are not known
NAMES = {"mlp": "perceptron", "resnet": "residual network", "mobile": "separable network"}


@dataclass(frozen=True)
class Params(comparing.Repeated):
    """Parameters of the notebook; names, types and defaults as in its parameters cell."""

    dataset: str = "fashion_mnist"
    side: int = 14
    train_images: int = 12000
    check_images: int = 1000
    test_images: int = 2000
    epochs: int = 5
    seeds: int = 5
    width: int = 256
    sparsities: list[float] = field(default_factory=lambda: [0.8, 0.9, 0.95, 0.99])
    gammas: list[float] = field(default_factory=lambda: [0.0, 0.1, 0.3, 0.5, 0.95])
    every: int = 25
    conv_images: int = 3000
    conv_seeds: int = 3
    conv_depth: int = 8
    conv_width: float = 0.5
    draws: int = 2000
    rounds: int = 50
    processes: int = 0
    profile: str = "quick"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no experiment can use."""
        self.check_trainings("conv_width")
        self.check_depths("conv_depth")
        check_least(self, {"conv_seeds": 2}, comparing.FEW_SEEDS)
        check_least(self, {"conv_images": 100}, "errors of a network that is trained on fewer say nothing")
        check_least(self, {"width": 16}, "a narrower network has next to no weights left at 99 %")
        check_least(self, {"draws": 100}, "variances of fewer are mostly noise")
        check_least(self, {"rounds": 3}, "times are medians over rounds")
        check_least(self, {"every": 1})
        check_shares(self, "sparsities", NEEDED)
        check_list(self, "gammas", "shares from 0 to 1", lambda each: 0 <= each <= 1, (0.0, GAMMA))
        check_parts(self, {"conv_seeds": "seeds", "conv_images": "train_images"})

    @property
    def settings(self) -> dict[str, Any]:
        """Of every training."""
        return {**super().settings, **RECIPE}

    @property
    def at_full_size(self) -> bool:
        """Whether the residual network, its images and its training are as large as those of the paper's ResNet-18."""
        same = (self.dataset, self.side, self.conv_depth, self.conv_width) == ("cifar10", 32, 18, 1.0)
        return same and self.epochs >= 250 and self.conv_images >= comparing.FULL_IMAGES


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        network: mlp, resnet or mobile.
        method: one of `METHODS`.
        sparsity: in [0, 1), 0 for dense.
        seed: of weights, masks, images and shuffles.
        gamma: γ of SRigL; None for the others.
        length: times as many passes as usual.
        width: factor of the network's own width.
    """

    network: str
    method: str
    sparsity: float
    seed: int
    gamma: float | None = None
    length: int = 1
    width: float = 1.0


def plan(params: Params) -> dict[str, Any]:
    """What a profile's trainings cost, taken as dense, and those on ImageNet that the paper did and this does not."""
    jobs, build, macs = every_job(params), builders(params), {}
    with torch.device("meta"):
        for network, width in {(job.network, job.width) for job in jobs}:
            model = build[network](params.sizes.classes, in_channels=params.sizes.shape[0], seed=0, width=width)
            macs[network, width] = count(model, params.sizes.shape).macs
        named = {"ResNet-50": resnet50(seed=0), "ViT-B/16": vit(seed=0)}
        large = {name: comparing.on_imagenet(model, [PASSES]) for name, model in named.items()}
    sizes = {"mlp": params.train_images}
    images = [sizes.get(job.network, params.conv_images) for job in jobs]
    passes = [params.epochs * job.length for job in jobs]
    spent = 3 * sum(macs[job.network, job.width] * each * times for job, each, times in zip(jobs, images, passes))
    return {
        "trainings": len(jobs),
        "optimiser steps": sum(-(-each // RECIPE["batch"]) * times for each, times in zip(images, passes)),
        **comparing.work(spent),
        **{f"one {name} on ImageNet (not run)": words for name, words in large.items()},
    }


# ---- which trainings -------------------------------------------------------------------------------------------------


def grid(
    network: str, methods: Iterable[str], sparsities: Iterable[float], seeds: Iterable[int], **options: Any
) -> list[Job]:
    """Every method at every sparsity from every seed; dense once a seed."""
    jobs = []
    for seed in seeds:
        for method in methods:
            gamma = METHODS[method][1].get("gamma")
            at = sparsities if method != "dense" else (0.0,)
            jobs += [Job(network, method, sparsity, seed, gamma, **options) for sparsity in at]
    return jobs


def every_job(params: Params) -> list[Job]:
    """Every training of the notebook, each once, the longest first."""
    few = range(params.first_seed, params.first_seed + params.conv_seeds)
    jobs = grid("mlp", METHODS, params.sparsities, params.every_seed)
    for length in LENGTHS[1:]:
        jobs += grid("mlp", ("SRigL",), LONG, few, length=length)
    known = {METHODS[name][1].get("gamma") for name in METHODS}
    for gamma in (each for each in params.gammas if each not in known):
        jobs += [Job("mlp", "SRigL", sparsity, seed, gamma) for sparsity in GAMMA_AT for seed in few]
    jobs += grid("resnet", SHORT, CONV, few)
    for width in (each for each in WIDTHS if each != 1):
        jobs += grid("resnet", ("dense", "RigL", "SRigL"), (0.9,), few, width=width)
    jobs += grid("mobile", SHORT, (BOXED,), few)
    return sorted(dict.fromkeys(jobs), key=_cost, reverse=True)


def _cost(job: Job) -> int:
    """About how long a training takes, to let the longest start first."""
    return job.length * (1 if job.network == "mlp" else 2)


def builders(params: Params) -> dict[str, partial]:
    """Builders of the networks: `build(classes, in_channels=…, seed=…, width=…)`, width a factor."""
    return {
        "mlp": partial(perceptron, neurons=params.width, side=params.side),
        "resnet": partial(comparing.residual, depth=params.conv_depth, own=params.conv_width),
        "mobile": partial(separable, own=params.conv_width),
    }


def separable(classes: int, *, in_channels: int, seed: int, own: float, width: float = 1.0) -> nn.Module:
    """Build a network of a convolution and four pairs of depthwise and pointwise convolutions, as MobileNet's; ours."""
    channels = scaled(64, own * width)
    with seeded(seed):
        layers = list(activated("conv1", convolution(in_channels, channels, 3, stride=2, bias=False), norm=channels))
        for place, (filters, stride) in enumerate(PAIRS, start=1):
            depthwise = convolution(channels, channels, 3, stride=stride, groups=channels, bias=False)
            layers += activated(f"depthwise{place}", depthwise, norm=channels)
            filters = scaled(filters, own * width)
            layers += activated(f"pointwise{place}", convolution(channels, filters, 1, bias=False), norm=filters)
            channels = filters
        return chain(
            [
                *layers,
                ("mean", nn.AdaptiveAvgPool2d(1)),
                ("flat", nn.Flatten()),
                ("fc", dense(channels, classes, last=True)),
            ]
        )


# ---- trainings -------------------------------------------------------------------------------------------------------


def train_job(job: Job, params: Params) -> SparseTrial:
    """Train one network."""
    method, options = METHODS[job.method]
    if method == "srigl":
        options = {"gamma": job.gamma}
    plan = Plan(method, job.sparsity, params.every, options)
    build = partial(builders(params)[job.network], width=job.width)
    sizes = params.sizes if job.network == "mlp" else replace(params.sizes, train=params.conv_images)
    settings = {**params.settings, "epochs": params.epochs * job.length}
    return train_sparse(job.network, build, plan, job.seed, sizes, **settings)


def train_all(params: Params, pool: Pool, progress: Any = None) -> dict[Job, SparseTrial]:
    """Train everything; the same whatever the number of processes."""
    jobs = every_job(params)
    return dict(zip(jobs, pool.map(partial(train_job, params=params), [(job,) for job in jobs], progress)))


def trial_table(trials: Mapping[Job, SparseTrial]) -> pd.DataFrame:
    """A row a training.

    Returns:
        The fields of `Job`; accuracies and active neurons in per cent, active `weights` of the sparse layers (none for
        a dense network), `ITOP` (share of weights ever active), `MACs`
        of an image and of the dense network, `training MACs` of all steps, `revived` neurons over the training.
    """
    rows = []
    for job, trial in trials.items():
        found = {
            "validation accuracy": 100 * (1 - trial.check_error),
            "test accuracy": 100 * (1 - trial.test_error),
            "weights": sum(int(mask.sum()) for mask in trial.masks.values()) or None,
            "active": 100 * trial.active_share,
            "ITOP": trial.itop,
            "MACs": trial.macs,
            "dense MACs": trial.dense_macs,
            "training MACs": trial.step_macs * trial.images,
            "revived": sum(each.revived for each in trial.log),
        }
        rows.append(asdict(job) | found)
    return pd.DataFrame(rows).sort_values(
        ["network", "method", "sparsity", "length", "width", "seed"], ignore_index=True
    )


def usual(table: pd.DataFrame, network: str, *, length: int = 1, width: float = 1.0) -> pd.DataFrame:
    """Rows of a network, SRigL at its usual γ, of that length and width."""
    rows = table[(table["network"] == network) & (table["length"] == length) & (table["width"] == width)]
    return rows[rows["gamma"].isna() | (rows["gamma"] == 0) | (rows["gamma"] == GAMMA)]


def curves(rows: pd.DataFrame, column: str, by: str = "sparsity") -> dict[str, pd.DataFrame]:
    """Mean, lowest and highest of a column over seeds: method → table with index `by`."""
    found = {}
    for method, each in rows.groupby("method", sort=False):
        found[str(method)] = each.groupby(by)[column].agg(["mean", "min", "max"])
    return {method: found[method] for method in METHODS if method in found}


def paired(rows: pd.DataFrame, first: str, second: str, sparsity: float, column: str = "test accuracy") -> np.ndarray:
    """A column of one method minus that of another at a sparsity, seed by seed; dense has but one sparsity."""
    at = rows[(rows["sparsity"] == sparsity) | (rows["method"] == "dense")]
    values = at.pivot(index="seed", columns="method", values=column)
    return (values[first] - values[second]).to_numpy()
