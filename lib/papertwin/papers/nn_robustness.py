"""Experiments on measuring robustness with constraints (NIPS 2016, arXiv 1605.07262).

The linear program, the attacks and the metrics live in `papertwin.robustness`; here is what is done with them: which
networks, which points, which comparisons. Deviations from the paper: its settings could only be reconstructed (target:
runner-up label; threshold: 20 of 255 grey levels; LeNet as in Caffe); a multilayer perceptron (MLP) is measured beside
LeNet, because on LeNet almost every program is infeasible; PGD is a later attack, for comparison; fine-tuning uses a
part of the training images, and a control is trained on the same images without adversarial examples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from papertwin import imports, paths
from papertwin.data import registry
from papertwin.data.images import Images, load_images
from papertwin.limits import check_least, check_parts, check_positive, check_seed, require
from papertwin.nets import Recipe, stored, train, untrained
from papertwin.nets.recipes import RECIPES
from papertwin.robustness import pgd_adversarial, toy
from papertwin.robustness.finetuning import finetune, rounds
from papertwin.robustness.many import SeedPool
from papertwin.robustness.outcome import Adversarial
from papertwin.robustness.pointwise import pointwise_robustness
from papertwin.robustness.study import Study, comparison, conduct, fates, metrics
from papertwin.training.checkpoints import load_weights, save_weights
from papertwin.training.loop import accuracy

MARGIN = 1e-6  # logits by which a witness must be on the other side
NEARER = 1e-4  # distances closer than this count as equal
SLOWER = 0.1  # rate of fine-tuning, as a share of that of the training
ROUNDS = 2
TOY_STEPS = 401  # grid points a side of the brute-force search on the plane
TOY_SEEDS = ((0.42, 0.40), (0.75, 0.65))
RECIPES_AT = "papertwin.nets.recipes"
FULL_LIMIT = 600.0  # seconds for a full program


@dataclass(frozen=True)
class Params:
    """Parameters of the notebook; names, types and defaults as in its parameters cell."""

    mlp_points: int = 100
    lenet_points: int = 60
    tuned_points: int = 30
    tune_points: int = 40
    tune_images: int = 2000
    replicates: int = 1
    full_points: int = 2
    full_mlp_points: int = 10
    nin_points: int = 0
    levels: int = 20
    limit: float = 120.0
    retrain: bool = False
    processes: int = 0
    profile: str = "quick"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that no experiment can use."""
        least = {"mlp_points": 2, "lenet_points": 1, "tuned_points": 1, "tune_points": 1, "tune_images": 1}
        least |= {"replicates": 1, "full_points": 1, "full_mlp_points": 1, "nin_points": 0, "levels": 1, "processes": 0}
        check_least(self, least)
        check_parts(self, {"tuned_points": "mlp_points", "full_mlp_points": "mlp_points"})
        check_parts(self, {"tuned_points": "lenet_points", "full_points": "lenet_points"})
        check_parts(self, {"tune_points": "tune_images"})
        for name in ("mlp_points", "lenet_points", "nin_points"):
            require(self, name, getattr(self, name) <= 10_000, "there are 10,000 test images")
        require(self, "tune_images", self.tune_images <= 60_000, "there are 60,000 training images")
        check_seed(self)
        check_positive(self, "limit")

    @property
    def threshold(self) -> float:
        """ε of the metrics, in units of a pixel in [0, 1]."""
        return self.levels / 255


def open_pool(params: Params) -> SeedPool:
    """Processes for the searches: as many as asked for, 0 for one a core."""
    return SeedPool(params.processes or None)


def choose(split: Images, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` images drawn without replacement: (count, …) float64 in [0, 1] and (count,) labels."""
    rows = np.random.default_rng(seed).permutation(len(split))[:count]
    return split.scaled(rows).astype(np.float64), split.labels[rows]


@cache
def test_images() -> Images:
    """MNIST's test images, read once."""
    return load_images("mnist", "test")


def network(name: str, params: Params) -> nn.Sequential:
    """A network of ours: stored weights, or trained anew where `retrain` asks for it."""
    return trained(name, params) if params.retrain else stored(name)


def trained(name: str, params: Params) -> nn.Sequential:
    """Train a network by its recipe, or load what an interrupted run of the same code has trained."""
    if (store := store_of(params)) is None:
        return train(name, device=params.device)
    place = store / "networks" / f"{name}-{params.device}-{imports.digest((RECIPES_AT,), ('torch',))[:16]}.npz"
    if place.is_file():
        return load_weights(untrained(name), place).eval()
    model = train(name, device=params.device)
    save_weights(model, place)
    return model


def store_of(params: Params) -> Path | None:
    """Where a long run keeps what is finished, so that it can be interrupted; none at quick."""
    return None if params.profile == "quick" else paths.cache("nn_robustness")


def searches(params: Params, pool: SeedPool, methods: tuple[str, ...] = ("lp", "lbfgs", "pgd")) -> dict[str, Callable]:
    """Algorithm → function of network and images."""
    settings = {"lp": {"margin": MARGIN, "limit": params.limit}, "lbfgs": {}}

    def pooled(method: str) -> Callable[[nn.Module, np.ndarray], list[Adversarial]]:
        return lambda model, images: pool.search(
            model, images, method, settings=settings[method], store=store_of(params)
        )

    def projected(model: nn.Module, images: np.ndarray) -> list[Adversarial]:
        return pgd_adversarial(model, images, seed=params.seed, device=params.device)

    known = {"lp": pooled("lp"), "lbfgs": pooled("lbfgs"), "pgd": projected}
    return {method: known[method] for method in methods}


def study(name: str, model: nn.Sequential, count: int, params: Params, pool: SeedPool, *methods: str) -> Study:
    """Measure one MNIST network on the first `count` of the drawn test images."""
    split = test_images()
    wanted = searches(params, pool, methods or ("lp", "lbfgs", "pgd"))
    share = accuracy(model, split.scaled(), split.labels)
    return conduct(name, model, share, choose(split, count, params.seed), wanted)


@dataclass(frozen=True)
class Tuning:
    """The fine-tuning experiment on one network.

    Attributes:
        original: the network before.
        studies: of every fine-tuned one.
        appended: name of a study → adversarial examples in its training set.
    """

    original: Study
    studies: list[Study]
    appended: dict[str, int]

    def of(self, name: str) -> Study:
        """The study whose name ends so, for example `LP T=2`."""
        return next(each for each in self.studies if each.name.endswith(f", {name}"))


def tuning(
    name: str, original: Study, params: Params, pool: SeedPool, progress: Callable[[str], None] = print
) -> Tuning:
    """Fine-tune a network on nothing new, on L-BFGS-B's and on the linear program's examples, and measure each.

    Every branch sees the same training images, rate and number of rounds; the control has no adversarial examples.
    """
    images, labels = choose(load_images("mnist", "train"), params.tune_images, params.seed + 1)
    images = images.astype(np.float32)
    studies, appended = [], {}
    recipe = RECIPES[name.partition(" ")[0].lower()]
    for branch, model, count in _tuned(original.model, images, labels, recipe, params, pool):
        label = f"{name}, {branch}"
        appended[label] = count
        progress(f"{label}: {count} adversarial examples")
        studies.append(study(label, model, params.tuned_points, params, pool, "lp", "lbfgs"))
    return Tuning(original.first(params.tuned_points), studies, appended)


def _tuned(
    model: nn.Sequential, images: np.ndarray, labels: np.ndarray, recipe: Recipe, params: Params, pool: SeedPool
) -> Iterator[tuple[str, nn.Sequential, int]]:
    """Yield every fine-tuned network: branch, network, adversarial examples in its training set."""
    settings = {"rate": SLOWER * recipe.rate, "weight_decay": recipe.weight_decay, "batch": recipe.batch}
    control = model
    for number in range(1, ROUNDS + 1):
        nothing = images[:0], labels[:0]
        control = finetune(control, images, labels, *nothing, seed=params.seed + number, **settings)
    yield f"control T={ROUNDS}", control, 0
    for method, branch in (("lbfgs", "L-BFGS-B"), ("lp", "LP")):
        search = searches(params, pool, (method,))[method]
        options = {"count": ROUNDS, "points": params.tune_points, "seed": params.seed}
        for step in rounds(model, images, labels, search, **options, **settings):
            yield f"{branch} T={step.number}", step.model, step.appended


def replicate(number: int, params: Params, pool: SeedPool) -> Tuning:
    """The fine-tuning experiment on one more perceptron, from another seed."""
    name = f"mlp-{number}"
    original = study(f"MLP {number}", network(name, params), params.tuned_points, params, pool, "lp", "lbfgs")
    return tuning(f"MLP {number}", original, params, pool)


def fine_tuning(mlp: Study, lenet: Study, params: Params, pool: SeedPool) -> list[Tuning]:
    """The whole experiment: LeNet, at quick the original alone, and every perceptron."""
    found = [Tuning(lenet, [], {}) if params.profile == "quick" else tuning("LeNet", lenet, params, pool)]
    found.append(tuning("MLP", mlp, params, pool))
    return found + [replicate(number, params, pool) for number in range(1, params.replicates)]


def curves(tuned: Tuning) -> list[tuple[Study, str, str, float]]:
    """What a panel of figure 3 draws: study, colour, line and its width; first rounds are thin."""
    styles = {"control": ("0.4", ":"), "L-BFGS-B": ("C3", "--"), "LP": ("C2", "-.")}
    lines = [(tuned.original, "C0", "-", 1.6)]
    for each in tuned.studies:
        branch, _, number = each.name.rpartition(", ")[2].rpartition(" T=")
        lines.append((each, *styles[branch], 1.6 if int(number) == ROUNDS else 0.7))
    return lines


def metrics_table(tunings: list[Tuning], params: Params) -> pd.DataFrame:
    """Table 1: a row per network; accuracy, then frequency φ and severity μ by both algorithms with 95 % intervals.

    `points` are those that both algorithms measured; over them everything is computed. The rest is counted beside them.
    """
    rows = {}
    for tuned in tunings:
        for each in (tuned.original, *tuned.studies):
            both = dict(zip(("lbfgs", "lp"), each.measured("lbfgs", "lp")))
            fate = fates(each, "lp", params.threshold)
            sizes = {"examples": tuned.appended.get(each.name, 0), "accuracy": each.accuracy, "points": len(both["lp"])}
            sizes |= {"feasible": int(np.isfinite(both["lp"]).sum())}
            sizes |= {name: fate[name] for name in ("timed out", "misclassified")}
            columns = [metrics(both[method], method, params.threshold, params.seed) for method in both]
            rows[each.name] = sizes | columns[0] | columns[1]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network")


def fates_table(studies: list[Study], params: Params) -> pd.DataFrame:
    """Table 2: a row per network and algorithm; what became of every search."""
    rows = {(each.name, method): fates(each, method, params.threshold) for each in studies for method in each.outcomes}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["network", "algorithm"])


def wins_table(studies: list[Study]) -> pd.DataFrame:
    """Table 3: per network and pair of algorithms, at how many points which is nearer."""
    rows = []
    for each in studies:
        pairs = [pair for pair in (("lp", "lbfgs"), ("lp", "pgd"), ("lbfgs", "pgd")) if set(pair) <= set(each.outcomes)]
        pairs = [pair for pair in pairs if len(each.measured(*pair)[0])]
        rows += [{"network": each.name, **comparison(each, *pair, NEARER)} for pair in pairs]
    return pd.DataFrame(rows).set_index(["network", "pair"])


def lazy_against_full(mlp: Study, lenet: Study, params: Params, pool: SeedPool) -> pd.DataFrame:
    """Table 4: the first points of both networks solved lazily, with our proof first, and in full.

    The seconds are those of one process per seed, all of them at work, in all three ways alike. `ratio` is full over
    lazy, without the proof.
    """
    ways = {"lazy": {"proof": False}, "proof": {}, "full": {"lazy": False}}
    rows = []
    for each, count in ((mlp, params.full_mlp_points), (lenet, params.full_points)):
        common = {"margin": MARGIN, "limit": FULL_LIMIT}
        found = [pool.search(each.model, each.images[:count], "lp", settings=common | way) for way in ways.values()]
        for point, outcomes in enumerate(zip(*found)):
            row = {"network": each.name, "point": point, "rounds": outcomes[0].rounds, "steps": outcomes[1].steps}
            for name, outcome in zip(ways, outcomes):
                row |= {f"{name} s": outcome.seconds, f"{name} rows": outcome.rows}
                row |= {f"{name} optimum": outcome.epsilon, f"{name} status": outcome.status}
            rows.append(row | {"ratio": outcomes[2].seconds / outcomes[0].seconds})
    return pd.DataFrame(rows)


def cifar(params: Params, pool: SeedPool) -> tuple[Study | None, str]:
    """The Network in Network on CIFAR-10 by the linear program, or why not."""
    if not params.nin_points:
        return None, "nin_points is 0: this profile leaves CIFAR-10 out."
    if not registry.present("cifar10"):
        return None, "CIFAR-10 is not here; see `papertwin data list`."
    model, split = trained("nin", params), load_images("cifar10", "test")
    share = accuracy(model, split.scaled(), split.labels)
    points = choose(split, params.nin_points, params.seed)
    return conduct("NiN", model, share, points, searches(params, pool, ("lp",))), ""


@dataclass(frozen=True)
class Plane:
    """The two-dimensional example: data, network, seed, and what is known of the seed."""

    points: np.ndarray
    labels: np.ndarray
    model: nn.Sequential
    seed: np.ndarray
    optimum: Adversarial
    grid_region: float
    grid_plane: float

    @property
    def spacing(self) -> float:
        """Of the grid."""
        return 1 / (TOY_STEPS - 1)


def planes(params: Params) -> list[Plane]:
    """Train the small network, solve two seeds and search the same on a grid.

    With the first weights of seed 0 the nearest point with the other label lies in the linear region of the first of
    the two, and outside that of the second.
    """
    points, labels = toy.plane_data(400, params.seed)
    model = toy.plane_network(points, labels, seed=params.seed)
    found = []
    for seed in map(np.array, TOY_SEEDS):
        near = [toy.nearest_on_grid(model, seed, TOY_STEPS, within=within) for within in (True, False)]
        found.append(Plane(points, labels, model, seed, pointwise_robustness(model, seed), *near))
    return found
