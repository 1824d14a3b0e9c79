"""Experiments of low-rank filters (arXiv 1511.06744): a basis of small filters of several shapes, learned from scratch.

Methods live in `papertwin.nets`; here is what is done with them: which data, which networks, which comparisons.
Full-size networks are rebuilt, counted and timed; those that are trained are small, on small images. Deviations from
the paper: data (Fashion-MNIST for ImageNet and CIFAR-10 at quick; no crops, mirrors or whitening), an eighth and a
quarter of the width, batch normalisation in the networks that are compared (without it some do not learn in three
passes; the ten-layer networks of the section on first weights have none), a few epochs of gradient descent with a
cosine schedule, pools left out of the small VGG so that a map is left for global pooling.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from papertwin.errors import DivergenceError
from papertwin.limits import check_least
from papertwin.nets import (
    build,
    cifar_nin,
    comparing,
    count,
    input_shape,
    nin_c3,
    published,
    rebuilt_table,
    sample_images,
    vgg,
)
from papertwin.nets.deep import deep_net
from papertwin.nets.layers import Composite
from papertwin.nets.literature import gmp_lr_times
from papertwin.nets.timing import forward_times, layer_times
from papertwin.nets.variances import layer_variances
from papertwin.training.loop import fit, scores
from papertwin.training.pool import Pool
from papertwin.training.trials import Trial, draw_sets, error

CARD = "low-rank-filters"
VGG_POOLS = (1, 3)  # stages of the small VGG after which a pool stands, besides the last
# filters of a last stage of 1024 at full width, as counted for LR-2X and WFULL
SCHEMES: dict[str, dict[str, Any]] = {
    "gmp": {},
    "gmp-sf": {"scheme": "separable"},
    "gmp-lr": {"scheme": "lr"},
    "gmp-lr-2x": {"scheme": "lr", "last_stage": 1024},
    "gmp-lr-join": {"scheme": "lr-join"},
    "gmp-lr-join-wfull": {"scheme": "lr-join-wfull", "last_stage": 1024},
    "gmp stride2": {"stride": 2},
    "gmp-lr-lde": {"scheme": "lr-lde", "stride": 2},
}
NIN = ("NiN", "nin-c3", "nin-c3-lr")
RULES: dict[str, Any] = {"shared": "shared", "own": "own", "torch": "stock", "0.01": 0.01}  # of first weights
SWEEP_RATE = 0.02  # of the trainings without normalisation
SWEEP_IMAGES, SWEEP_SIDE = 32, 28  # images on which variances are measured, and their pixels
SWEEP_FIRST = 2001  # seeds of the variances, plus `seed`: none that was looked at before the setting was fixed
DEPTH, FILTERS = 10, 24  # layers of the networks without normalisation, and filters in each
# columns of a table of trials, their scale and unit, and where the same is published; for figures 4b and 11b
COSTS = (
    ("MACs", 1e6, "million multiply-accumulates", "true_macs"),
    ("parameters", 1e3, "thousand parameters", "true_params"),
    ("microseconds", 1, "microseconds an image", None),
)
PLAIN_IN_C = 1_760_715_304  # published operations of the plain GoogLeNet on the maps of the low-rank one
CLASSIFIER = 1_025_000  # parameters of a 1024-1000 classifier, biases in


@dataclass(frozen=True)
class Params(comparing.Repeated):
    """Parameters of the notebook; names, types and defaults as in its parameters cell."""

    dataset: str = "fashion_mnist"
    side: int = 14
    train_images: int = 4000
    check_images: int = 1000
    test_images: int = 2000
    epochs: int = 3
    seeds: int = 3
    width: float = 0.25
    vgg_width: float = 0.125
    sweep_seeds: int = 20
    rounds: int = 7
    processes: int = 0
    profile: str = "quick"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no experiment can use."""
        self.check_trainings("width", "vgg_width")
        check_least(self, {"sweep_seeds": 5}, "the claim on variances needs an interval over as many")
        check_least(self, {"rounds": 3}, "times are medians over rounds")

    @property
    def at_full_size(self) -> bool:
        """Whether networks of CIFAR-10, images and passes are as many and as large as the paper's."""
        return (self.dataset, self.side, self.width) == ("cifar10", 32, 1.0) and self.trains_whole


def plan(params: Params) -> dict[str, Any]:
    """What a profile's trainings cost, without those of the ten-layer networks."""
    return comparing.planned(small_vggs(params) | small_nins(params), params)


# ---- full-size networks ----------------------------------------------------------------------------------------------


def results(prefix: str = "") -> pd.DataFrame:
    """Published and rebuilt counts, errors in per cent; a row a network.

    Args:
        prefix: "" for VGG, or "MIT Places ", "GoogLeNet ", "CIFAR ", "sota-aug ".

    Returns:
        `network` without its prefix; `params` and `macs` by the rule of the publication; `true_params` and `true_macs`
        of one image; `error`, `top-1 error`, `top-5 error`; exact; rule.
    """
    printed = published(CARD)
    known = rebuilt_table(CARD).drop(columns=["card", "published_params", "published_macs", "single_view_macs"])
    table = printed.drop(columns="card").merge(known, on="network", how="left")
    others = ("MIT Places ", "GoogLeNet ", "CIFAR ", "sota-aug ", "sota ")
    mine = table["network"].str.startswith(prefix) if prefix else ~table["network"].str.startswith(others)
    table = table[mine].reset_index(drop=True)
    for name, source in (("error", "accuracy"), ("top-1 error", "top1_acc"), ("top-5 error", "top5_acc")):
        table[name] = 100 * (1 - table[source])
    return table.assign(network=table["network"].str.removeprefix(prefix))


def state_of_the_art() -> pd.DataFrame:
    """What figures 7 and 8 draw: networks of 2015 and those of the paper, centre crop or several views.

    Returns:
        `network`, with the number of its views where that is not one, `published_macs`, `published_params`,
        `top-5 error`, `kind`: paper, others or augmented.
    """
    whole = published(CARD)
    whole["top-5 error"] = 100 * (1 - whole["top5_acc"])
    names = whole["network"]
    kinds = pd.Series("paper", index=whole.index)
    kinds[names.str.startswith("sota ")] = "others"
    kinds[names.str.startswith("sota-aug ")] = "augmented"
    left_out = names.str.startswith(("MIT Places ", "CIFAR ", "GoogLeNet GoogLeNet")) | names.eq("vgg-11")
    table = whole.assign(kind=kinds)[~left_out]
    short = table["network"].str.replace(r"^sota-aug |^sota ", "", regex=True)
    short = short.replace({"GoogLeNet lr-conv1": "GoogLeNet-lr-conv1", "GoogLeNet lr": "GoogLeNet-lr"})
    views = (table["published_macs"] / table["single_view_macs"]).round().fillna(1).astype(int)
    short = short.where(views == 1, short + " ×" + views.astype(str))
    return table.assign(network=short)[["network", "published_macs", "published_params", "top-5 error", "kind"]]


def places() -> pd.DataFrame:
    """Networks of MIT Places as printed; `trained_macs` and `trained_params` with stride 2 and 205 classes (Fig. 9).

    Ours: the fully connected layer after the 2×2 pool of the separable network has the size that its maps have then.
    """
    table = results("MIT Places ")
    options = {name: {**SCHEMES[name], "stride": 2, "global_pool": name != "gmp-sf"} for name in table["network"]}
    with torch.device("meta"):
        models = {name: vgg(205, **each, seed=0) for name, each in options.items()}
    counts = [comparing.costs(models[name], (3, 224, 224)) for name in table["network"]]
    return table.assign(trained_macs=[macs for macs, _ in counts], trained_params=[params for _, params in counts])


def googlenets() -> pd.DataFrame:
    """Figure 10: GoogLeNet and its low-rank forms, operations as printed and on the maps of the plain network."""
    table = results("GoogLeNet ")
    equal = {"GoogLeNet": "none", "lr": "inception", "lr-conv1": "conv1"}
    macs = {name: googlenet_macs("A", low_rank) for name, low_rank in equal.items()}
    return table.assign(equal_macs=table["network"].map(macs))


def googlenet_macs(geometry: str, low_rank: str) -> int:
    """Operations of a GoogLeNet with both auxiliary heads in one of the three geometries."""
    from papertwin.nets import googlenet

    with torch.device("meta"):
        model = googlenet(geometry=geometry, low_rank=low_rank, seed=0)
    return count(model, (3, 224, 224)).macs


def architectures() -> pd.DataFrame:
    """Table 6: filter sets of each layer of the VGG variants, read off the rebuilt networks.

    Returns:
        A row a layer, a column a network; `3×1,32 ‖ 1×3,32 → 1×1,64` is two sets and a join.
    """
    names = [name for name in results()["network"] if name != "vgg-11"]
    found = {}
    for name in names:
        layers = build(CARD, name).named_children()
        found[name] = {each: text for each, layer in layers if (text := _described(layer))}
    return pd.DataFrame(found).fillna("").rename_axis("layer").reset_index()


def _described(layer: nn.Module) -> str:
    """What a layer consists of, in a few signs; nothing where it has no weights."""
    if isinstance(layer, nn.Sequential):
        return " → ".join(_described(each) for each in layer)
    if isinstance(layer, Composite):
        sets = " ‖ ".join(_described(each) for each in layer.sets.values())
        return sets if layer.join is None else f"{sets} → {_described(layer.join)}"
    if isinstance(layer, nn.Conv2d):
        stride = f" /{layer.stride[0]}" if max(layer.stride) > 1 else ""
        return f"{layer.kernel_size[0]}×{layer.kernel_size[1]},{layer.out_channels}{stride}"
    return f"fc {layer.out_features}" if isinstance(layer, nn.Linear) else ""


# ---- small networks --------------------------------------------------------------------------------------------------


def small_vggs(params: Params) -> dict[str, partial]:
    """The variants of VGG-11 with global max pooling."""
    base = partial(vgg, width=params.vgg_width, side=params.side, pools=VGG_POOLS, global_pool=True, norm=True)
    return {name: partial(base, **options) for name, options in SCHEMES.items()}


def small_nins(params: Params) -> dict[str, partial]:
    """Network in Network, nin-c3 and nin-c3-lr."""
    options = {"width": params.width, "norm": True}
    return dict(
        zip(NIN, (partial(cifar_nin, **options), partial(nin_c3, **options), partial(nin_c3, low_rank=True, **options)))
    )


def train_all(params: Params, pool: Pool) -> list[Trial]:
    """Train every network from every seed."""
    builders = small_vggs(params) | small_nins(params)
    return comparing.train_all(builders, params.every_seed, params.sizes, pool, **params.settings)


def trial_table(trials: list[Trial], params: Params) -> pd.DataFrame:
    """Table 7: a row a network and seed; `family` is VGG or NiN."""
    table = comparing.trial_table(trials, params.sizes.shape)
    table.insert(1, "family", np.where(table["network"].isin(NIN), "NiN", "VGG"))
    return table


# ---- first weights ---------------------------------------------------------------------------------------------------


def sweep(params: Params, pool: Pool) -> pd.DataFrame:
    """Figure 12: variances over the layers of ten-layer networks, for every rule of first weights and several seeds.

    Returns:
        A row for each rule, seed and layer: `rule`, `seed`, `place` (1 to 10), `activation`, `gradient`.
    """
    first = SWEEP_FIRST + params.seed
    tasks = [(rule, seed) for rule in RULES for seed in range(first, first + params.sweep_seeds)]
    return pd.concat(pool.map(_swept, tasks), ignore_index=True)


def _swept(rule: str, seed: int) -> pd.DataFrame:
    """Variances of one network on standard normal images."""
    images = torch.randn(SWEEP_IMAGES, 1, SWEEP_SIDE, SWEEP_SIDE, generator=torch.Generator().manual_seed(seed))
    net = deep_net(depth=DEPTH, filters=FILTERS, sigma=RULES[rule], pools=(), seed=seed)
    table = layer_variances(net, images, seed=seed).iloc[:DEPTH]
    return table[["activation", "gradient"]].assign(rule=rule, seed=seed, place=range(1, DEPTH + 1))


def fall(table: pd.DataFrame) -> pd.DataFrame:
    """|log₂| of the gradient at the first layer over that at the last: index rule, columns seeds.

    Infinite where a gradient has vanished to nothing.
    """
    ends = table[table["place"].isin([1, DEPTH])].pivot(index=["rule", "seed"], columns="place", values="gradient")
    with np.errstate(divide="ignore"):
        ratios = np.abs(np.log2(ends[1] / ends[DEPTH]))
    return ratios.unstack("seed").loc[list(RULES)]


@dataclass(frozen=True)
class Start:
    """A training without normalisation from one kind of first weights.

    Attributes:
        rule: of the first weights.
        seed: of weights and images.
        losses: mean training loss of each epoch, up to that in which it was no longer finite.
        error: test error, per cent.
    """

    rule: str
    seed: int
    losses: tuple[float, ...]
    error: float


def start(rule: str, seed: int, params: Params) -> Start:
    """Train ten layers without normalisation; a training that diverges counts as guessing."""
    sets = draw_sets(params.sizes, seed)
    shape = {"classes": len(sets.classes), "in_channels": sets.shape[0], "depth": DEPTH, "filters": FILTERS}
    net = deep_net(**shape, sigma=RULES[rule], seed=seed)
    losses: list[float] = []
    settings = {**params.settings, "rate": SWEEP_RATE, "progress": lambda _, loss: losses.append(loss)}
    try:
        fit(net, *sets.train, seed=seed, **settings)
    except DivergenceError:
        return Start(rule, seed, tuple(losses), 100 * (1 - 1 / len(sets.classes)))
    return Start(rule, seed, tuple(losses), 100 * error(scores(net, sets.test[0]), sets.test[1]))


def starts(params: Params, pool: Pool) -> list[Start]:
    """Train from every kind of first weights and every seed."""
    return pool.map(start, [(rule, seed, params) for seed in params.every_seed for rule in RULES])


def start_table(found: list[Start], falls: pd.DataFrame) -> pd.DataFrame:
    """Table 8: a row a rule: gradient at the first layer over that at the last, in powers of two, and test errors."""
    errors = pd.DataFrame([(each.rule, each.error) for each in found], columns=["rule", "error"]).groupby("rule")
    table = errors["error"].agg(["mean", "min", "max"]).rename(columns=lambda name: f"test error {name}")
    table.insert(0, "|log₂ first/last|", falls.mean(axis=1))
    return table.loc[list(RULES)].reset_index()


# ---- time ------------------------------------------------------------------------------------------------------------


def full_times(params: Params) -> pd.DataFrame:
    """Milliseconds of GMP and GMP-LR at full size, one image, one core: a row a round, a column a network."""
    models = {name: build(CARD, name, device="cpu").eval() for name in ("gmp", "gmp-lr")}
    return 1e3 * forward_times(models, input_shape(CARD, "gmp"), rounds=params.rounds)


def layer_table(params: Params) -> pd.DataFrame:
    """Figure 6: a row a layer of GMP-LR: operations, published CPU and GPU times, and ours, of GMP's layer as well."""
    times = {}
    for name in ("gmp", "gmp-lr"):
        network = build(CARD, name, device="cpu").eval()
        table = layer_times(network, sample_images(CARD, name), rounds=params.rounds)
        layers = table["layer"].str.partition(".")[0]  # the sets of a layer together
        times[name] = table.groupby(layers, sort=False)[["MACs", "ms"]].sum()
    found = gmp_lr_times().join(times["gmp-lr"].rename(columns={"ms": "ms here"}))
    return (
        found.join(times["gmp"].rename(columns={"ms": "gmp ms here", "MACs": "gmp MACs"}))
        .rename_axis("layer")
        .reset_index()
    )
