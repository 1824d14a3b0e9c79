"""Experiments on conditional networks (arXiv 1603.01250): what lies between decision trees and convolutional networks.

Methods live in `papertwin.nets` and `papertwin.nets.conditional`; here is what is done with them: which data, which
networks, which comparisons. Full-size networks are rebuilt and counted; those that are trained are small, on small
images. Deviations from the paper: data (Fashion-MNIST for ImageNet and CIFAR-10 at quick; for the perceptron the union
of MNIST and Fashion-MNIST in four rotations, 80 classes), batch normalisation in the small VGG and in the searched
networks, a few epochs of gradient descent with a cosine schedule, random vectors instead of the Bayesian search at
quick, a fifth pool less in the small VGG so that a map is left for global pooling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import torch

from papertwin.limits import check_choice, check_least, require
from papertwin.nets import cifar_nin, comparing, count, nin64, rebuilt_table, vgg
from papertwin.nets.conditional import (
    EnsembleCurve,
    FilterSpace,
    GroupSpace,
    at_threshold,
    bayesian_search,
    correct_answers,
    fit_correctness,
    nearest_to_origin,
    oversampled_probabilities,
    oversampled_views,
    sweep,
)
from papertwin.nets.layers import convolution, dense
from papertwin.nets.literature import published
from papertwin.training.loop import fit, scores
from papertwin.training.pool import Pool
from papertwin.training.trials import Trial, draw_sets, train_trial

CARD = "conditional-networks"
VGG_GROUPS = (1, 1, 2, 4, 8)  # filter groups of the stages of the conditional VGG
VGG_POOLS = (1, 3)  # stages of the small VGG after which a pool stands, besides the last
GROUP_LIMITS = (16, 8, 8, 8, 16, 16, 16, 16)  # most groups of conv2 … conv9 in the search below full width
PAPER_LIMIT = 32  # at full width
OPTIMUM = (32, 8, 32, 32, 8, 1, 32, 1)  # published groups of conv2 … conv9
SHIFT = 1  # pixels by which views are shifted
COPIES = 4  # random views of each training image of the ensemble
PENALTY = 100.0  # of the router that predicts correctness
WAY = 0.36  # share of the way in cost at which C5b is judged


@dataclass(frozen=True)
class Params(comparing.Repeated):
    """Parameters of the notebook; names, types and defaults as in its parameters cell."""

    dataset: str = "fashion_mnist"
    side: int = 14
    train_images: int = 2000
    check_images: int = 1000
    test_images: int = 2000
    union_images: int = 12000
    epochs: int = 3
    seeds: int = 3
    candidates: int = 8
    halvings: int = 2
    search: str = "random"
    width: float = 0.25
    vgg_width: float = 0.125
    views: int = 10
    repeats: int = 41
    processes: int = 0
    profile: str = "quick"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no experiment can use."""
        self.check_trainings("width", "vgg_width")
        check_least(self, {"union_images": 800}, "ten for each of 80 classes")
        most = "it can be at most 20,000: half as many are for test, of the 10,000 images that are kept for that"
        require(self, "union_images", self.union_images <= 20_000, most)
        check_least(self, {"candidates": 2, "halvings": 1}, "a search chooses among several networks")
        check_least(self, {"views": 2}, "the costly route sees an image more often than the cheap one")
        check_least(self, {"repeats": 3}, "times are medians")
        check_choice(self, "search", ("random", "bayesian"))


def train_all(builders: dict[str, partial], params: Params, pool: Pool, known: Sequence[Trial] = ()) -> list[Trial]:
    """Train every network from every seed, but for the trials that are known already."""
    return comparing.train_all(builders, params.every_seed, params.sizes, pool, known, **params.settings)


def costs(trial: Trial, params: Params) -> tuple[int, int]:
    """Multiply-accumulates of an image, and bytes of the model at four a parameter."""
    macs, parameters = comparing.costs(trial.model, params.sizes.shape)
    return macs, 4 * parameters


# ---- full-size networks ----------------------------------------------------------------------------------------------


def counts_table() -> pd.DataFrame:
    """Table 1: every network of the report, published and rebuilt counts, published errors in per cent."""
    printed = published(CARD).set_index("network")
    table = rebuilt_table(CARD).set_index("network")
    table = table[["published_macs", "macs", "published_params", "params", "exact", "explanation"]]
    table["top-5 error"] = 100 * (1 - printed["top5_acc"])
    table["error"] = 100 * (1 - printed["accuracy"])
    return table


def wide_variant() -> int:
    """Parameters of the text's variant of VGG-11 with global max pooling, whose last convolution has 1024 filters."""
    with torch.device("meta"):
        model = vgg(global_pool=True, seed=0)
        model.set_submodule("conv5-2", convolution(512, 1024, 3))
        model.set_submodule("fc6", dense(1024, 4096))
    return count(model, (3, 224, 224)).params


def imagenet(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of ImageNet networks, with the stride of their first layer: what figure 4a draws."""
    rows = table[~table.index.str.startswith("CIFAR")].copy()
    stride = rows.index.str.extract(r"stride(\d)", expand=False)
    return rows.assign(stride=stride.astype(int), name=rows.index.str.replace(r" stride\d|\*", "", regex=True))


# ---- small VGG and the ensemble --------------------------------------------------------------------------------------


def small_vggs(params: Params) -> dict[str, partial]:
    """The three networks of figure 4b, after those of the paper."""
    plain = partial(vgg, width=params.vgg_width, side=params.side, pools=VGG_POOLS, norm=True)
    pooled = partial(plain, global_pool=True)
    return {"plain": plain, "GMP": pooled, "conditional": partial(pooled, groups=VGG_GROUPS, last_stage=1024)}


def small_table(trials: list[Trial], params: Params) -> pd.DataFrame:
    """One row a network and seed: cost, at four bytes a parameter, and errors in per cent."""
    table = comparing.trial_table(trials, params.sizes.shape)
    table.insert(3, "bytes", 4 * table.pop("parameters"))
    return table


@dataclass(frozen=True)
class Ensemble:
    """The two-route ensemble of one seed.

    Attributes:
        curve: on test images.
        chosen: cost and error on test images at the threshold that costs 0.36 of the way on validation images.
    """

    curve: EnsembleCurve
    chosen: tuple[float, float]

    @property
    def share_of_fall(self) -> float:
        """Share of the fall in error, from route 1 to route 2, that is reached there; NaN where there is no fall."""
        (_, first), (_, second) = self.curve.ends
        return (first - self.chosen[1]) / (first - second) if second < first else np.nan


def ensemble(seed: int, params: Params) -> Ensemble:
    """Route 1: one view, route 2: all; the router sees the inputs of the last layer.

    It learns on one half of the validation images; the other half sets the threshold.

    The network is the plain small VGG, trained on random views of each image: the paper trained with crops and mirror
    images, without which a network is no better at many views than at one (as a pilot showed).
    """
    sets = draw_sets(params.sizes, seed)
    model = small_vggs(params)["plain"](len(sets.classes), in_channels=sets.shape[0], seed=seed)
    images, labels = sets.train
    views = np.concatenate([random_views(images, params.views, [seed, k]) for k in range(COPIES)])
    fit(model, views, np.tile(labels, COPIES), seed=seed, **params.settings)
    model.eval().cpu()
    features, right = [], []
    for images, labels in (sets.check, sets.test):
        once = scores(model, images)
        often = oversampled_probabilities(model, images, params.views, shift=SHIFT)
        right.append(np.stack([correct_answers(given, labels) for given in (once, often)], axis=1))
        features.append(scores(model[:-1], images))
    half = len(features[0]) // 2
    router = fit_correctness(features[0][:half], right[0][:half], penalty=PENALTY)
    check, test = router.predict(features[0][half:]), router.predict(features[1])
    cost = {"views": params.views, "router": router.macs / count(model, sets.shape).macs}
    threshold = sweep(check, right[0][half:], **cost).threshold_within(1 + WAY * (params.views - 1))
    return Ensemble(sweep(test, right[1], **cost), at_threshold(test, right[1], threshold, **cost))


def random_views(images: np.ndarray, views: int, seed: Sequence[int]) -> np.ndarray:
    """One of the views of each image, drawn by a seed of several numbers: (n, c, h, w) → (n, c, h, w)."""
    chosen = np.random.default_rng(seed).integers(views, size=len(images))
    drawn = images.copy()
    for number, view in enumerate(oversampled_views(torch.from_numpy(images), views, shift=SHIFT)):
        drawn[chosen == number] = view.numpy()[chosen == number]
    return drawn


# ---- the search ------------------------------------------------------------------------------------------------------


def search_spaces(params: Params) -> tuple[GroupSpace, FilterSpace]:
    """Group exponents of conv2 … conv9 of NiN-64, and halvings of the filters of conv1 … conv9."""
    filters = [layer.output[0] for layer in count(nin64(width=params.width, seed=0), (3, 32, 32)).layers][:-1]
    limit = PAPER_LIMIT if params.width == 1 else GROUP_LIMITS
    return GroupSpace(list(pairwise(filters)), largest=limit), FilterSpace(filters, params.halvings)


def searched(params: Params, pool: Pool) -> list[Trial]:
    """Train NiN-64, its variants with filter groups and those with fewer filters, each from every seed.

    With `search` bayesian the group vectors are those that the Bayesian search tries on the first seed (it maximises
    validation accuracy per byte, as the paper did); with random they are drawn, as those of fewer filters are.
    """
    space, fewer = search_spaces(params)
    base, whole = partial(nin64, width=params.width, norm=True), (0,) * len(space.allowed)
    divided = [
        tuple(2**e for e in each) for each in fewer.sample(params.candidates, params.first_seed, without=[(0,) * 9])
    ]
    done: dict[tuple[int, ...], Trial] = {}
    if params.search == "bayesian":
        value = partial(_value, space, base, params, done)
        bayesian_search(space, value, params.candidates + 1, params.first_seed)
    else:
        done = dict.fromkeys(space.sample(params.candidates, params.first_seed, without=[whole]))
    builders = {"NiN-64": base}
    vectors = [vector for vector in done if vector != whole]
    builders |= {f"groups {_text(space.groups(each))}": partial(base, groups=space.groups(each)) for each in vectors}
    builders |= {f"filters {_text(each)}": partial(base, divisors=each) for each in divided}
    known = [trial for vector, trial in done.items() if trial is not None and vector != whole]
    return train_all(builders, params, pool, known)


def cifar_networks(params: Params, pool: Pool) -> list[Trial]:
    """The three networks of claim C4b at full size; nothing unless CIFAR-10 is trained on at its own size."""
    if (params.dataset, params.side) != ("cifar10", 32):
        return []
    options = {"norm": True, "dropout": 0.5}
    builders = {"CIFAR NiN": partial(cifar_nin, **options), "CIFAR NiN-64": partial(nin64, **options)}
    builders["CIFAR optimal conditional"] = partial(nin64, groups=OPTIMUM, **options)
    return train_all(builders, params, pool)


def _value(space: GroupSpace, base: partial, params: Params, done: dict, vector: tuple[int, ...]) -> float:
    """Train one candidate, keep its trial, and return what the search maximises: validation accuracy per byte."""
    groups = space.groups(vector)
    build = partial(base, groups=groups)
    done[vector] = train_trial(f"groups {_text(groups)}", build, params.first_seed, params.sizes, **params.settings)
    return (1 - done[vector].check_error) / costs(done[vector], params)[1]


def _text(numbers: Sequence[int]) -> str:
    return "/".join(str(number) for number in numbers)


def search_table(trials: list[Trial], params: Params) -> pd.DataFrame:
    """Table 3: a row a network and seed; `search` is groups, filters, or NiN-64, where both begin."""
    table = small_table(trials, params)
    table.insert(1, "search", table["network"].str.split().str[0])
    return table.sort_values(["search", "MACs", "network", "seed"], ignore_index=True)


def price_of_shrinking(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """By how many points networks with fewer filters are worse than grouped ones at equal cost, per seed.

    Both kinds are reduced to their fronts of (MACs, validation error), NiN-64 counting as grouped. Those of fewer
    filters whose MACs lie within the range of the grouped networks are compared with the line through the grouped
    front, linear in log MACs and level beyond its ends, and averaged.

    Returns:
        (seeds,) points of test error, NaN for a seed without such a network; (seeds,) how many were compared.
    """
    found = [_price(of) for _, of in table.groupby("seed")]
    return np.array([price for price, _ in found]), np.array([number for _, number in found])


def _price(table: pd.DataFrame) -> tuple[float, int]:
    fewer = table["search"] == "filters"
    return comparing.above_front(comparing.front(table[fewer]), table[~fewer])


def chosen(table: pd.DataFrame) -> str:
    """The grouped network nearest to the origin of (validation error, MACs, bytes), the paper's choice; by means."""
    means = table[table["search"] == "groups"].groupby("network")[["validation error", "MACs", "bytes"]].mean()
    return means.index[nearest_to_origin(*means.to_numpy().T)]
