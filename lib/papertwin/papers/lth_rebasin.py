"""Experiments of aligned lottery tickets (arXiv 2505.05143): the mask of one network, permuted to fit another.

Methods live in `papertwin.sparse.tickets` and `papertwin.symmetry`; here is what is done with them. Deviations from the
paper: data and networks (perceptrons and a residual network of 8 layers on Fashion-MNIST for ResNet-20 on CIFAR-10 at
quick), ten passes instead of 200, one pass of fine-tuning a round instead of 50.

A and B are trained dense from different weights and in different order. The mask m comes from A, pruned in rounds. LTH
trains A's early weights with m, naive those of B with m, permuted those of B with π(m), where π renumbers the channels
of A after those of B; the control takes a random permutation. All tickets of a seed see the same images in one order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn

from papertwin import paths
from papertwin.errors import ParameterError
from papertwin.nets import cifar_resnet, comparing, count, resnet50
from papertwin.parameters import check_least
from papertwin.sparse import protocol
from papertwin.sparse.protocol import RECIPE, perceptron
from papertwin.sparse.pruning import Masks, rounds_to
from papertwin.sparse.tickets import State, iterative_pruning, train_from, train_with_snapshots
from papertwin.symmetry import activation_matching, permutables, permuted, random_permutations, weight_matching
from papertwin.symmetry.permuting import Permutations, with_state
from papertwin.training.kept import kept
from papertwin.training.loop import accuracy
from papertwin.training.pool import Pool
from papertwin.training.trials import Sets, SetSizes, draw_sets

LTH, NAIVE, PERMUTED, RANDOM, WEIGHTS = "LTH", "naive", "permuted", "random", "permuted, by weights"
METHODS = (LTH, PERMUTED, NAIVE)
OTHER = 1000  # what is added to a seed for the weights and shuffles of A
NEEDED = (0.9, 0.97)  # sparsities at which claims are judged
PROTOCOL_AT = (0.9, 0.95)  # sparsities of the shared protocol
PROTOCOL_REWIND = 1
MATCHED_ON = 1000  # training images whose responses are matched
IMAGENET_IMAGES, IMAGENET_PASSES = 1_281_167, 80


@dataclass(frozen=True)
class Params(comparing.Repeated):
    """Parameters of the notebook; names, types and defaults as in its parameters cell."""

    dataset: str = "fashion_mnist"
    side: int = 14
    train_images: int = 4000
    check_images: int = 1000
    test_images: int = 10000
    epochs: int = 10
    seeds: int = 5
    few_seeds: int = 3
    widths: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    neurons: int = 128
    sparsities: list[float] = field(default_factory=lambda: [0.9, 0.97])
    rewinds: list[int] = field(default_factory=lambda: [0, 1, 2])
    early: list[int] = field(default_factory=lambda: [1, 3])
    share: float = 0.2
    round_passes: int = 1
    rate: float = 0.08
    sparse_rate: float = 0.08
    round_rate: float = 0.01
    members: int = 5
    conv_images: int = 2000
    conv_depth: int = 8
    conv_width: float = 0.5
    conv_passes: int = 8
    protocol_images: int = 12000
    protocol_passes: int = 5
    processes: int = 0
    profile: str = "quick"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no experiment can use."""
        self.check_trainings("conv_width")
        least = {"neurons": 16, "few_seeds": 2, "round_passes": 1, "members": 2, "conv_images": 100, "conv_depth": 8}
        check_least(self, least | {"conv_passes": 3, "protocol_images": 100, "protocol_passes": 2})
        if not set(NEEDED) <= set(self.sparsities) or sorted(set(self.sparsities)) != self.sparsities:
            raise ParameterError(f"sparsities is {self.sparsities!r}; expected ascending shares, with {NEEDED}.")
        if len(self.widths) < 2 or sorted(set(self.widths)) != self.widths or self.widths[0] <= 0:
            raise ParameterError(f"widths is {self.widths!r}; expected two or more ascending factors above 0.")
        if len(self.rewinds) < 2 or sorted(set(self.rewinds)) != self.rewinds or self.rewinds[0] != 0:
            raise ParameterError(f"rewinds is {self.rewinds!r}; expected ascending passes from 0, two at least.")
        if self.rewinds[-1] >= self.epochs or not all(0 < each < self.epochs for each in self.early):
            raise ParameterError(f"rewinds and early must be passes before the last of {self.epochs}.")
        if not 0 < self.share < 1 or min(self.rate, self.sparse_rate, self.round_rate) <= 0:
            raise ParameterError(f"share must lie between 0 and 1 and rates above 0, got {self.share} and rates.")
        if self.few_seeds > self.seeds:
            raise ParameterError(f"few_seeds is {self.few_seeds}, more than the {self.seeds} seeds.")

    @property
    def few(self) -> range:
        """Seeds of what needs fewer."""
        return self.every_seed[: self.few_seeds]

    @property
    def last_rewind(self) -> int:
        """The latest, at which claims are judged."""
        return self.rewinds[-1]

    @property
    def at_full_size(self) -> bool:
        """Whether the residual network and its training are those of the paper's ResNet-20 on CIFAR-10."""
        return (self.dataset, self.side, self.conv_depth, self.conv_width, self.conv_passes) == (
            "cifar10",
            32,
            20,
            1.0,
            200,
        )


@dataclass(frozen=True)
class Setting:
    """One network and how it is trained, dense and sparse.

    Attributes:
        network: mlp, resnet or protocol.
        width: factor of its own.
        sparsities: to which A is pruned.
        rewinds: passes k whose weights are kept.
        early: passes t after which B is matched, beside the last.
        passes: T of dense networks; tickets have T − k.
        sizes: of the image sets.
        rate, sparse_rate: of dense networks and of tickets.
    """

    network: str
    width: float
    sparsities: tuple[float, ...]
    rewinds: tuple[int, ...]
    early: tuple[int, ...]
    passes: int
    sizes: SetSizes
    rate: float
    sparse_rate: float

    def rounds(self, share: float) -> list[float]:
        """Sparsities of all rounds, on one path through all targets."""
        return sorted({each for sparsity in self.sparsities for each in rounds_to(sparsity, share)})


def settings(params: Params) -> list[Setting]:
    """Every network of the notebook: perceptrons by width, the residual network, the one of the shared protocol."""
    sizes, rates = params.sizes, (params.rate, params.sparse_rate)
    grid = tuple(params.sparsities), tuple(params.rewinds)
    found = [Setting("mlp", w, *grid, tuple(params.early), params.epochs, sizes, *rates) for w in params.widths]
    small = replace(sizes, train=params.conv_images)
    found.append(Setting("resnet", 1.0, (0.9,), tuple(params.rewinds), (), params.conv_passes, small, *rates))
    shared = replace(sizes, train=params.protocol_images, check=1000, test=2000)
    own = RECIPE["rate"], RECIPE["rate"]
    found.append(Setting("protocol", 2.0, PROTOCOL_AT, (PROTOCOL_REWIND,), (), params.protocol_passes, shared, *own))
    return found


def build(setting: Setting, seed: int, params: Params) -> nn.Sequential:
    """A network at its first weights."""
    channels = setting.sizes.shape[0]
    if setting.network == "resnet":
        width = params.conv_width * setting.width
        return cifar_resnet(params.conv_depth, 10, width=width, in_channels=channels, seed=seed)
    options = {"neurons": params.neurons, "side": params.side, "width": setting.width}
    return perceptron(10, in_channels=channels, seed=seed, **options)


# ---- the networks that masks and permutations come from --------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """A and B of a seed, A's rounds, and the permutations that bring A near to B.

    Attributes:
        setting: of both.
        seed: of the images and of B.
        a, b: pass → state_dict; pass 0 and T among them.
        rounds: (sparsity, masks, state) of A after each round.
        matched: pass t of B → π by activations of A at T and B at t.
        by_weights: π by weights, of both at T.
    """

    setting: Setting
    seed: int
    a: dict[int, State]
    b: dict[int, State]
    rounds: list[tuple[float, Masks, State]]
    matched: dict[int, Permutations]
    by_weights: Permutations

    def masks(self, sparsity: float) -> Masks:
        """A's mask at a target."""
        return next(masks for _, masks, _ in self.rounds_at(sparsity))

    def rounds_at(self, sparsity: float) -> list[tuple[float, Masks, State]]:
        """The round that ends at a target: the one nearest to it, since weights are whole."""
        return [min(self.rounds, key=lambda each: abs(each[0] - sparsity))]


def make_origin(setting: Setting, seed: int, params: Params) -> dict[str, Any]:
    """Train A and B, prune A, match; as plain tensors, see `Origin`."""
    sets, dense = draw_sets(setting.sizes, seed), {**base_settings(params), "rate": setting.rate}
    keep = {0, setting.passes, *setting.rewinds, *setting.early}
    models = {"a": build(setting, seed + OTHER, params), "b": build(setting, seed, params)}
    found: dict[str, Any] = {}
    for name, own in (("a", seed + OTHER), ("b", seed)):
        found[name] = train_with_snapshots(
            models[name], *sets.train, keep=keep, epochs=setting.passes, seed=own, **dense
        )
    tuning = {"epochs": params.round_passes, "rate": params.round_rate, "momentum": 0.0, "weight_decay": 0.0}
    pruned = iterative_pruning(
        models["a"], *sets.train, setting.rounds(params.share), seed=seed + OTHER, **base_settings(params) | tuning
    )
    found["rounds"] = [(each.sparsity, each.masks, each.state) for each in pruned]
    description = permutables(models["a"])
    times = (*setting.early, setting.passes)
    batches = [torch.from_numpy(sets.train[0][:MATCHED_ON])]
    at = {t: with_state(models["b"], found["b"][t]) for t in times}
    found["matched"] = {t: activation_matching(models["a"].cpu(), at[t].cpu(), description, batches) for t in times}
    last = found["a"][setting.passes], found["b"][setting.passes]
    found["by_weights"] = weight_matching(*last, description, torch.Generator().manual_seed(seed)).permutations
    return found


def origin(setting: Setting, seed: int, params: Params) -> Origin:
    """A and B of a seed, kept for the next run where a run is long; see `papertwin.training.kept`."""
    folder = None if params.profile == "quick" else paths.cache("lth_rebasin")
    depends = asdict(setting) | {"seed": seed, "params": {k: v for k, v in asdict(params).items() if k != "processes"}}
    name = f"{setting.network}-{setting.width:g}-{seed}"
    return Origin(setting, seed, **kept(folder, name, depends, __name__, partial(make_origin, setting, seed, params)))


def base_settings(params: Params) -> dict[str, Any]:
    """Of every training, but for passes and rate."""
    return {"batch": RECIPE["batch"], "weight_decay": RECIPE["weight_decay"], "device": params.device}


# ---- tickets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One ticket.

    Attributes:
        network, width, seed: of its origin.
        method: LTH, permuted, naive, random or permuted by weights.
        sparsity: of the mask.
        rewind: k, pass of the weights that it begins with.
        matched: t, pass of B whose channels A's are matched with; T where nothing else is said.
    """

    network: str
    width: float
    seed: int
    method: str
    sparsity: float
    rewind: int
    matched: int


def jobs_of(setting: Setting, seed: int, params: Params) -> list[Job]:
    """Every ticket of an origin."""
    own = setting.network, setting.width, seed
    grid = [(s, k) for s in setting.sparsities for k in setting.rewinds]
    found = [Job(*own, method, s, k, setting.passes) for s, k in grid for method in METHODS]
    if setting.network == "mlp":
        last = (max(NEEDED), params.last_rewind, setting.passes)
        found += [Job(*own, method, *last) for method in (RANDOM, WEIGHTS)]
        found += [Job(*own, PERMUTED, min(NEEDED), params.last_rewind, t) for t in setting.early]
    return found


def start(job: Job, source: Origin, params: Params) -> tuple[State, Masks]:
    """Weights and mask that a ticket begins with."""
    masks = source.masks(job.sparsity)
    if job.method == LTH:
        return source.a[job.rewind], masks
    description = permutables(build(source.setting, 0, params))
    chosen = {
        NAIVE: {},
        PERMUTED: source.matched[job.matched],
        WEIGHTS: source.by_weights,
        RANDOM: random_permutations(description, torch.Generator().manual_seed(job.seed)),
    }
    return source.b[job.rewind], permuted(masks, description, chosen[job.method])


def train_ticket(setting: Setting, seed: int, state: State, masks: Masks, rewind: int, params: Params) -> nn.Module:
    """Train weights of pass k with a mask, for the passes that are left, the images in the order of the seed."""
    options = {**base_settings(params), "rate": setting.sparse_rate, "epochs": setting.passes - rewind}
    model, train = build(setting, 0, params), draw_sets(setting.sizes, origin_seed(seed)).train
    return train_from(model, state, masks, *train, seed=seed, **options).cpu()


def origin_seed(seed: int) -> int:
    """Seed of the images: members of an ensemble have seeds of their own for weights and order, and share images."""
    return seed % OTHER


def score(model: nn.Module, sets: Sets) -> float:
    """Accuracy on test images, per cent."""
    return 100 * accuracy(model, *sets.test)


def train_job(job: Job, setting: Setting, state: State, masks: Masks, params: Params) -> float:
    """Train a ticket; return its test accuracy, per cent."""
    model = train_ticket(setting, job.seed, state, masks, job.rewind, params)
    return score(model, draw_sets(setting.sizes, job.seed))


def origins(params: Params, pool: Pool, progress: Any = None) -> dict[tuple[str, float, int], Origin]:
    """Every A and B: (network, width, seed) → origin; those of the residual network from fewer seeds."""
    tasks = [
        (setting, seed)
        for setting in sorted(settings(params), key=_cost, reverse=True)
        for seed in (params.few if setting.network == "resnet" else params.every_seed)
    ]
    found = pool.map(partial(origin, params=params), tasks, progress)
    return {(s.network, s.width, seed): each for (s, seed), each in zip(tasks, found)}


def _cost(setting: Setting) -> float:
    """About how long an origin takes, to let the longest start first."""
    return setting.sizes.train * setting.passes * (8 if setting.network == "resnet" else setting.width)


def train_all(
    sources: Mapping[tuple[str, float, int], Origin], params: Params, pool: Pool, progress: Any = None
) -> pd.DataFrame:
    """Train every ticket.

    Returns:
        A row a ticket: the fields of `Job`, `test accuracy` in per cent; and for each origin rows of the `method`
        dense (B) and IMP (A after each round, its sparsity).
    """
    tasks = []
    for source in sources.values():
        for job in jobs_of(source.setting, source.seed, params):
            tasks.append((job, source.setting, *start(job, source, params)))
    values = pool.map(partial(train_job, params=params), tasks, progress)
    rows = [asdict(task[0]) | {"test accuracy": value} for task, value in zip(tasks, values)]
    for source in sources.values():
        rows += ends(source, params)
    keys = ["network", "width", "method", "sparsity", "rewind", "matched", "seed"]
    return pd.DataFrame(rows).sort_values(keys, ignore_index=True)


def ends(source: Origin, params: Params) -> list[dict[str, Any]]:
    """Rows of B, dense, and of A after each round."""
    setting, sets = source.setting, draw_sets(source.setting.sizes, source.seed)
    model = build(setting, 0, params)
    own = {"network": setting.network, "width": setting.width, "seed": source.seed, "rewind": 0, "matched": 0}
    each = [("dense", 0.0, source.b[setting.passes]), *(("IMP", s, state) for s, _, state in source.rounds)]
    return [
        own | {"method": name, "sparsity": sparsity, "test accuracy": score(with_state(model, state), sets)}
        for name, sparsity, state in each
    ]


def trainers(table: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The tickets by the shared protocol, as the report joins them: see `papertwin.sparse.protocol.trainer_table`."""
    rows = table[(table["network"] == "protocol") & table["method"].isin(METHODS)]
    names = rows["method"].map({LTH: "LTH", NAIVE: "LTH mask, naive", PERMUTED: "LTH mask, permuted"})
    (setting,) = [each for each in settings(params) if each.network == "protocol"]
    words = protocol.in_words(round(params.neurons * setting.width), setting.sizes, setting.passes, 25)
    return protocol.trainer_table(zip(names, rows["sparsity"], rows["seed"], rows["test accuracy"]), words)


def plan(params: Params) -> dict[str, Any]:
    """What a profile's trainings cost, taken as dense, and one network on ImageNet, which this does not train."""
    operations, trainings = 0.0, 0
    with torch.device("meta"):
        for setting in settings(params):
            macs = count(build(setting, 0, params), setting.sizes.shape).macs
            seeds = params.few_seeds if setting.network == "resnet" else params.seeds
            tickets = jobs_of(setting, 0, params)
            passes = 2 * setting.passes + len(setting.rounds(params.share)) * params.round_passes
            passes += sum(setting.passes - job.rewind for job in tickets)
            operations += 3 * macs * seeds * passes * setting.sizes.train
            trainings += seeds * (2 + len(setting.rounds(params.share)) + len(tickets))
        large = count(resnet50(seed=0), (3, 224, 224))
    hours = comparing.work(3 * large.macs * IMAGENET_IMAGES * IMAGENET_PASSES)[comparing.GPU_HOURS]
    return {
        "trainings": trainings,
        **comparing.work(operations),
        "one ResNet-50 on ImageNet (not run)": f"{large.params:,} parameters, {large.macs:,} multiply-accumulates an "
        f"image; with {IMAGENET_PASSES} passes {hours:,.0f} GPU hours",
    }


def every_width(table: pd.DataFrame) -> list[float]:
    """Widths of the perceptron, ascending."""
    return sorted(table[table["network"] == "mlp"]["width"].unique())


def of(
    table: pd.DataFrame, method: str, sparsity: float, rewind: int, matched: int, network: str = "mlp"
) -> pd.DataFrame:
    """Test accuracies of a method: index seed, a column a width."""
    rows = table[(table["network"] == network) & (table["method"] == method) & (table["sparsity"] == sparsity)]
    rows = rows[(rows["rewind"] == rewind) & (rows["matched"] == matched)]
    return rows.pivot(index="seed", columns="width", values="test accuracy")


def over_seeds(rows: pd.DataFrame, by: Iterable[str]) -> pd.DataFrame:
    """Mean, lowest and highest test accuracy over seeds, by some columns."""
    return rows.groupby(list(by))["test accuracy"].agg(["mean", "min", "max"])
