"""Experiments of SparseOpt (arXiv 2605.27541): gradients of sparse neurons behind a normalisation, corrected.

The correction lives in `papertwin.sparse.sparseopt`; here is what is done with it: which methods, sparsities, lengths
and seeds. Deviations from the paper: data and size (a perceptron and a residual network of 8 layers on Fashion-MNIST
for ResNet-50 on ImageNet and ResNet-20 on CIFAR-100 at quick), trainings of 2 to 8 passes, ΔT 25 steps, α of HAM 0.2
instead of its public default 200, with which nothing trains here. First weights are those of the dense network, masked,
as the paper's argument needs them; those of the shared protocol are scaled to the fan-in, as in SRigL's notebook.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd
import torch

from papertwin.limits import check_least, check_list, check_parts, check_shares, require
from papertwin.nets import comparing, count, resnet50
from papertwin.sparse import protocol
from papertwin.sparse.protocol import RECIPE, perceptron
from papertwin.sparse.trials import Plan, SparseTrial, train_sparse
from papertwin.training.pool import Pool

METHODS = {"static": "static", "SET": "set", "RigL": "rigl", "SRigL": "srigl"}  # name → kind of updater
PLAIN, OURS, GROWTH = "plain", "SparseOpt", "SparseOpt, growth too"
OURS_ACTIVE = "SparseOpt, mean of active"
UNIT, OURS_UNIT, HAM, BOTH = "norm 1", "SparseOpt, norm 1", "HAM", "SparseOpt and HAM"
# arm → what hangs on the optimiser; α of HAM is a parameter
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    PLAIN: {},
    OURS: {"sparseopt": {}},
    GROWTH: {"sparseopt": {"growth": "corrected"}},
    OURS_ACTIVE: {"sparseopt": {"mean": "active"}},
    UNIT: {"unit_norm": {}},
    OURS_UNIT: {"sparseopt": {}, "unit_norm": {}},
    HAM: {"ham": {}},
    BOTH: {"sparseopt": {}, "ham": {}},
}
MOVING = ("RigL", "SET")  # methods that the paper trains
NEEDED = (0.95, 0.99)  # sparsities at which claims are judged
ITOP_AT = (0.9, 0.95, 0.99)  # sparsities of the figure of weights ever active
PROTOCOL_AT = (0.9, 0.95, 0.99)  # sparsities of the shared protocol
CONV = 0.95  # sparsity of the residual network at our scale; at 99 % some of its layers would leave neurons no inputs
CONV_FULL = 0.97  # of the claim about ResNet-20 on CIFAR-100
GAMMA = 0.3  # of SRigL in the shared protocol, as in its own notebook
NO_ABLATION = 0.0  # γ with which all neurons of a layer have one fan-in
PASSES = (90, 180, 270)  # of the paper's ResNet-50 on ImageNet


@dataclass(frozen=True)
class Params(comparing.Repeated):
    """Parameters of the notebook; names, types and defaults as in its parameters cell."""

    dataset: str = "fashion_mnist"
    side: int = 14
    train_images: int = 12000
    check_images: int = 1000
    test_images: int = 10000
    passes: list[int] = field(default_factory=lambda: [2, 4, 8])
    sparsities: list[float] = field(default_factory=lambda: [0.95, 0.99])
    seeds: int = 5
    few_seeds: int = 3
    width: int = 256
    every: int = 25
    epochs: int = 5
    alpha: float = 0.2
    conv_images: int = 3000
    conv_passes: int = 4
    conv_depth: int = 8
    conv_width: float = 0.5
    conv_sparsities: list[float] = field(default_factory=lambda: [0.95])
    skew_images: int = 512
    processes: int = 0
    profile: str = "quick"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no experiment can use."""
        self.check_trainings("conv_width")
        self.check_depths("conv_depth")
        check_least(self, {"few_seeds": 2}, comparing.FEW_SEEDS)
        check_least(self, {"conv_images": 100, "skew_images": 100}, "results on fewer images say nothing")
        check_least(self, {"width": 16}, "a narrower network has next to no weights left at 99 %")
        check_least(self, {"every": 1, "conv_passes": 1})
        check_shares(self, "sparsities", NEEDED)
        check_shares(self, "conv_sparsities", (CONV,))
        check_list(self, "passes", "numbers from 1 on", lambda each: each >= 1, ascending=True)
        expected = "it must hold at least two numbers: the shortest and the longest are compared"
        require(self, "passes", len(self.passes) >= 2, expected)
        check_parts(self, {"few_seeds": "seeds", "conv_images": "train_images"})
        require(self, "alpha", 0 < self.alpha < 1e6, "it must be above 0 and below a million; by default HAM has 200")

    @property
    def settings(self) -> dict[str, Any]:
        """Of every training, but for its passes."""
        return {**super().settings, **RECIPE}

    @property
    def at_full_size(self) -> bool:
        """Whether the residual network, its images and its training are those of the paper's ResNet-20 on CIFAR-100."""
        same = (self.dataset, self.side, self.conv_depth, self.conv_width) == ("cifar100", 32, 20, 1.0)
        return (
            same
            and self.conv_passes == 100
            and self.conv_images >= comparing.FULL_IMAGES
            and CONV_FULL in self.conv_sparsities
        )

    @property
    def protocol_sizes(self) -> comparing.SetSizes:
        """Of the image sets of the shared protocol, those of SRigL's notebook."""
        return replace(self.sizes, check=1000, test=2000)


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        network: mlp, resnet, or protocol: the perceptron as in SRigL's notebook.
        method: one of `METHODS`.
        arm: one of `ARMS`.
        sparsity: in (0, 1).
        passes: over the training images.
        seed: of weights, masks, images and shuffles.
        gamma: γ of SRigL; None for the others.
    """

    network: str
    method: str
    arm: str
    sparsity: float
    passes: int
    seed: int
    gamma: float | None = None


# ---- which trainings -------------------------------------------------------------------------------------------------


def grid(
    network: str,
    methods: Iterable[str],
    arms: Iterable[str],
    sparsities: Iterable[float],
    passes: Iterable[int],
    seeds: Iterable[int],
) -> list[Job]:
    """Every method with every arm at every sparsity, for every length, from every seed; SRigL as in its notebook."""
    rest = [(s, p, seed) for s in sparsities for p in passes for seed in seeds]
    gammas = {"SRigL": GAMMA}
    return [Job(network, m, arm, *each, gammas.get(m)) for m in methods for arm in arms for each in rest]


def every_job(params: Params) -> list[Job]:
    """Every training of the notebook, each once, the longest first."""
    seeds, shortest, longest = params.every_seed, params.passes[0], params.passes[-1]
    jobs = grid("mlp", MOVING, (PLAIN, OURS), params.sparsities, params.passes, seeds)
    jobs += grid("mlp", ["RigL"], (OURS_ACTIVE, UNIT, OURS_UNIT, HAM, BOTH), [0.99], [shortest], seeds)
    jobs += grid("mlp", ["RigL"], (PLAIN, OURS, GROWTH), ITOP_AT, [longest], params.few)
    jobs += grid("resnet", ["RigL"], (PLAIN, OURS), params.conv_sparsities, [params.conv_passes], seeds)
    jobs += grid("protocol", METHODS, [OURS], PROTOCOL_AT, [params.epochs], seeds)
    jobs += grid("protocol", MOVING, [PLAIN], [0.99], [params.epochs], seeds)
    jobs += equal_fan_in_jobs(params)
    return sorted(dict.fromkeys(jobs), key=_cost, reverse=True)


def equal_fan_in_jobs(params: Params) -> list[Job]:
    """SRigL without ablation, plain and corrected: trainings that must be the same to the bit."""
    return [
        Job("mlp", "SRigL", arm, 0.95, params.passes[0], seed, NO_ABLATION)
        for arm in (PLAIN, OURS)
        for seed in params.few
    ]


def _cost(job: Job) -> int:
    """About how long a training takes, to let the longest start first."""
    return job.passes * (1 if job.network != "resnet" else 3)


def builders(params: Params) -> dict[str, partial]:
    """Builders of the networks: `build(classes, in_channels=…, seed=…)`."""
    mlp = partial(perceptron, neurons=params.width, side=params.side)
    resnet = partial(comparing.residual, depth=params.conv_depth, own=params.conv_width)
    return {"mlp": mlp, "protocol": mlp, "resnet": resnet}


def plan(params: Params) -> dict[str, Any]:
    """What a profile's trainings cost, taken as dense, and the paper's on ImageNet, which this does not do."""
    jobs, build = every_job(params), builders(params)
    with torch.device("meta"):
        macs = {
            name: count(each(params.sizes.classes, in_channels=params.sizes.shape[0], seed=0), params.sizes.shape).macs
            for name, each in build.items()
        }
        large = comparing.on_imagenet(resnet50(seed=0), PASSES)
    images = [params.conv_images if job.network == "resnet" else params.train_images for job in jobs]
    spent = 3 * sum(macs[job.network] * each * job.passes for job, each in zip(jobs, images))
    return {
        "trainings": len(jobs),
        "optimiser steps": sum(-(-each // RECIPE["batch"]) * job.passes for job, each in zip(jobs, images)),
        **comparing.work(spent),
        "one ResNet-50 on ImageNet (not run)": large,
    }


# ---- trainings -------------------------------------------------------------------------------------------------------


def train_job(job: Job, params: Params) -> SparseTrial:
    """Train one network."""
    hung = {name: dict(options) for name, options in ARMS[job.arm].items()}
    if "ham" in hung:
        hung["ham"] = {"alpha": params.alpha}
    options: dict[str, Any] = {"first": "fan_in" if job.network == "protocol" else "masked"}
    if job.method == "SRigL":
        options["gamma"] = job.gamma
    sizes = {"protocol": params.protocol_sizes, "resnet": replace(params.sizes, train=params.conv_images)}
    return train_sparse(
        job.network,
        builders(params)[job.network],
        Plan(METHODS[job.method], job.sparsity, params.every, options, hung=hung),
        job.seed,
        sizes.get(job.network, params.sizes),
        curve=job.network == "mlp" and job.passes == params.passes[-1],
        **params.settings | {"epochs": job.passes},
    )


def train_all(params: Params, pool: Pool, progress: Any = None) -> dict[Job, SparseTrial]:
    """Train everything; the same whatever the number of processes."""
    jobs = every_job(params)
    return dict(zip(jobs, pool.map(partial(train_job, params=params), [(job,) for job in jobs], progress)))


def trial_table(trials: Mapping[Job, SparseTrial]) -> pd.DataFrame:
    """A row a training.

    Returns:
        The fields of `Job`; `test accuracy`, `ITOP` (weights ever active) and `active` neurons of hidden layers in per
        cent, sorted.
    """
    rows = []
    for job, trial in trials.items():
        found = {
            "test accuracy": 100 * (1 - trial.test_error),
            "ITOP": 100 * trial.itop,
            "active": 100 * trial.active_share,
        }
        rows.append(asdict(job) | found)
    keys = ["network", "method", "arm", "sparsity", "passes", "seed"]
    return pd.DataFrame(rows).sort_values([*keys, "gamma"], ignore_index=True)


def trainers(table: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The trainings by the shared protocol, as the report joins them: see `papertwin.sparse.protocol.trainer_table`."""
    rows = table[table["network"] == "protocol"]
    names = rows["method"] + (rows["arm"] == OURS).map({True: " + SparseOpt", False: ""})
    words = protocol.in_words(params.width, params.protocol_sizes, params.epochs, params.every)
    return protocol.trainer_table(zip(names, rows["sparsity"], rows["seed"], rows["test accuracy"]), words)
