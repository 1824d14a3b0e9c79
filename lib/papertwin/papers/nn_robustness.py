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

from papertwin import paths
from papertwin.claims import Measured
from papertwin.data import registry
from papertwin.data.images import Images, load_images
from papertwin.errors import ParameterError
from papertwin.nets import stored, train
from papertwin.robustness import pgd_adversarial, toy
from papertwin.robustness.finetuning import finetune, rounds
from papertwin.robustness.many import SeedPool
from papertwin.robustness.outcome import Adversarial
from papertwin.robustness.pointwise import pointwise_robustness
from papertwin.robustness.study import Study, comparison, conduct, fates, metrics, witness_problems
from papertwin.training.intervals import grouped_mean_interval, paired_difference, wilson
from papertwin.training.loop import accuracy

MARGIN = 1e-6  # logits by which a witness must be on the other side
NEARER = 1e-4  # distances closer than this count as equal
RATE = 0.01  # of fine-tuning: a tenth of that of the training
ROUNDS = 2
SAME = 1e-5  # largest difference of two optima that count as the same
TOY_STEPS = 401  # grid points a side of the brute-force search on the plane
TOY_SEED = (0.42, 0.40)
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
        least |= {"replicates": 1, "full_points": 1, "nin_points": 0, "levels": 1, "processes": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ParameterError(f"{name} is {getattr(self, name)}; it must be at least {smallest}.")
        if self.tuned_points > self.mlp_points or self.full_points > self.lenet_points:
            raise ParameterError(
                f"tuned_points ({self.tuned_points}) can be at most mlp_points ({self.mlp_points}), and full_points "
                f"({self.full_points}) at most lenet_points ({self.lenet_points}): they are the first of these."
            )
        if self.tune_points > self.tune_images or max(self.mlp_points, self.lenet_points) > 10_000:
            raise ParameterError(
                f"tune_points ({self.tune_points}) can be at most tune_images ({self.tune_images}), and points at most "
                "the 10,000 test images."
            )
        if not self.limit > 0:
            raise ParameterError(f"limit is {self.limit}; it must be above 0 seconds.")

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
    return train(name, device=params.device) if params.retrain else stored(name)


def store_of(params: Params) -> Path | None:
    """Where finished searches of a long run are kept, so that it can be interrupted; none at quick."""
    return None if params.profile == "quick" else paths.figures_root() / ".state" / "nn_robustness"


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
    """The fine-tuning experiment on one network: its studies, original first."""

    original: Study
    studies: list[Study]

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
    studies = []
    for branch, model, count in _tuned(original.model, images, labels, params, pool):
        label = f"{name}, {branch}"
        progress(f"{label}: {count} adversarial examples")
        studies.append(study(label, model, params.tuned_points, params, pool, "lp", "lbfgs"))
    return Tuning(original.first(params.tuned_points), studies)


def _tuned(
    model: nn.Sequential, images: np.ndarray, labels: np.ndarray, params: Params, pool: SeedPool
) -> Iterator[tuple[str, nn.Sequential, int]]:
    """Yield every fine-tuned network: branch, network, adversarial examples in its training set."""
    control = model
    for number in range(1, ROUNDS + 1):
        nothing = images[:0], labels[:0]
        control = finetune(control, images, labels, *nothing, rate=RATE, seed=params.seed + number)
    yield f"control T={ROUNDS}", control, 0
    for method, branch in (("lbfgs", "L-BFGS-B"), ("lp", "LP")):
        search = searches(params, pool, (method,))[method]
        options = {"rate": RATE, "count": ROUNDS, "points": params.tune_points, "seed": params.seed}
        for step in rounds(model, images, labels, search, **options):
            yield f"{branch} T={step.number}", step.model, step.appended


def replicate(number: int, params: Params, pool: SeedPool) -> Tuning:
    """The fine-tuning experiment on one more perceptron, from another seed."""
    name = f"mlp-{number}"
    original = study(f"MLP {number}", network(name, params), params.tuned_points, params, pool, "lp", "lbfgs")
    return tuning(f"MLP {number}", original, params, pool)


def fine_tuning(mlp: Study, lenet: Study, params: Params, pool: SeedPool) -> tuple[list[Tuning], list[Study]]:
    """The whole experiment: every perceptron, and beyond quick LeNet.

    Returns:
        The experiments on perceptrons, and every study for table 1, originals included.
    """
    perceptrons = [tuning("MLP", mlp, params, pool)]
    perceptrons += [replicate(number, params, pool) for number in range(1, params.replicates)]
    others = [] if params.profile == "quick" else [tuning("LeNet", lenet, params, pool)]
    studies = [study for each in (*others, *perceptrons) for study in (each.original, *each.studies)]
    return perceptrons, studies if others else [lenet, *studies]


def curves(tuned: Tuning, lenet: Study) -> list[tuple[Study, str, str, str]]:
    """What figure 3 draws: study, colour, line and name; the originals first, then each branch after its last round."""
    lines = [(lenet, "C1", "-", "LeNet"), (tuned.original, "C0", "-", "MLP")]
    branches = (("control", "0.4", ":"), ("L-BFGS-B", "C3", "--"), ("LP", "C2", "-."))
    return lines + [
        (tuned.of(f"{branch} T={ROUNDS}"), colour, line, f"MLP, {branch}") for branch, colour, line in branches
    ]


def metrics_table(studies: list[Study], params: Params) -> pd.DataFrame:
    """Table 1: a row per network; accuracy, then frequency φ and severity μ by both algorithms with 95 % intervals."""
    rows = {}
    for each in studies:
        sizes = {"accuracy": each.accuracy, "points": len(each.measured("lbfgs", "lp")[0])}
        columns = [metrics(each, method, params.threshold, params.seed) for method in ("lbfgs", "lp")]
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
        rows += [{"network": each.name, **comparison(each, *pair, NEARER)} for pair in pairs]
    return pd.DataFrame(rows).set_index(["network", "pair"])


def lazy_against_full(studies: list[Study], params: Params, pool: SeedPool) -> pd.DataFrame:
    """Table 4: the first points of each network solved lazily and in full: seconds, rounds, rows, both optima.

    The seconds are those of one process per seed, all of them at work, lazy and full alike.
    """
    rows = []
    for each in studies:
        settings = {"margin": MARGIN, "limit": FULL_LIMIT}
        images = each.images[: params.full_points]
        lazy = pool.search(each.model, images, "lp", settings=settings)
        full = pool.search(each.model, images, "lp", settings={**settings, "lazy": False})
        for point, (a, b) in enumerate(zip(lazy, full)):
            times = {"lazy s": a.seconds, "full s": b.seconds, "ratio": b.seconds / a.seconds}
            sizes = {"rounds": a.rounds, "rows lazy": a.rows, "rows full": b.rows, "proof steps": a.steps}
            optima = {"lazy": a.epsilon, "full": b.epsilon, "status": a.status, "status full": b.status}
            rows.append({"network": each.name, "point": point, **times, **sizes, **optima})
    return pd.DataFrame(rows)


def cifar(params: Params, pool: SeedPool) -> tuple[Study | None, str]:
    """The Network in Network on CIFAR-10 by the linear program, or why not."""
    if not params.nin_points:
        return None, "nin_points is 0: this profile leaves CIFAR-10 out."
    if not registry.present("cifar10"):
        return None, "CIFAR-10 is not here; see `papertwin data list`."
    model, split = train("nin", device=params.device), load_images("cifar10", "test")
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


def plane(params: Params) -> Plane:
    """Train the small network, solve one seed and search the same on a grid."""
    points, labels = toy.plane_data(400, params.seed)
    model, seed = toy.plane_network(points, labels, seed=params.seed), np.array(TOY_SEED)
    near = [toy.nearest_on_grid(model, seed, TOY_STEPS, within=within) for within in (True, False)]
    return Plane(points, labels, model, seed, pointwise_robustness(model, seed), *near)


def _verified(studies: list[Study]) -> tuple[bool, str]:
    """Whether there are witnesses and none breaks a promise, and their number in words."""
    problems = [problem for each in studies for problem in witness_problems(each, "lp")]
    count = sum(outcome.witness is not None for each in studies for outcome in each.outcomes["lp"])
    return bool(count and not problems), f"{count} witnesses, {len(problems)} of them broken"


def encoding_holds(studies: list[Study], flat: Plane) -> Measured:
    """C1a: no witness breaks a promise, and the plane's optimum is that of the grid."""
    good, note = _verified(studies)
    optimum, grid = flat.optimum.epsilon, flat.grid_region
    note += f"; on the plane {optimum:.4f}, by grid search {grid:.4f}"
    return Measured(good and abs(optimum - grid) <= flat.spacing, note=note)


def encoding_cifar(found: Study | None, reason: str) -> Measured:
    """C1b: the same on CIFAR-10."""
    if found is None:
        return Measured(None, note=reason)
    good, note = _verified([found])
    return Measured(good, note=note)


def frequency_gain(each: Study, params: Params) -> Measured:
    """C2a, C2c: frequency by the linear program minus that by L-BFGS-B, over the same points."""
    ours, theirs = each.measured("lp", "lbfgs")
    if len(ours) < 2:
        return Measured(None, note="fewer than two points were measured by both")
    if not ((ours <= params.threshold) | (theirs <= params.threshold)).any():
        feasible = f"{np.isfinite(ours).sum()} programs feasible"
        return Measured(None, note=f"neither found an example within the threshold at {len(ours)} points; {feasible}")
    near = ours <= params.threshold, theirs <= params.threshold
    note = f"{near[0].sum()} and {near[1].sum()} of {len(ours)} points; {np.isfinite(ours).sum()} programs feasible"
    return Measured(near[0].mean() - near[1].mean(), paired_difference(*near), note)


def nearer_share(each: Study) -> Measured:
    """C2b, C2d: share of the points with different distances at which the linear program is nearer."""
    counts = comparison(each, "lp", "lbfgs", NEARER)
    wins, losses = counts["first nearer"], counts["second nearer"]
    if not wins + losses:
        return Measured(None, note="no point has different distances")
    return Measured(wins / (wins + losses), wilson(wins, wins + losses), f"{wins} nearer, {losses} farther")


def falls(tunings: list[Tuning], branch: str, method: str, params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Per network and point 1 where fine-tuning removed the example within the threshold, −1 where it made one.

    Returns:
        (m,) values and (m,) number of the network, over the points measured by both algorithms before and after.
    """
    values, groups = [], []
    for number, each in enumerate(tunings):
        after = each.of(branch)
        distances = {m: (each.original.distances(m), after.distances(m)) for m in ("lp", "lbfgs")}
        kept = ~np.isnan(np.array(list(distances.values()))).any((0, 1))
        before, later = (part[kept] <= params.threshold for part in distances[method])
        values.append(before.astype(float) - later)
        groups.append(np.full(kept.sum(), number))
    return np.concatenate(values), np.concatenate(groups)


def overfitting(tunings: list[Tuning], params: Params) -> Measured:
    """C3: fall by L-BFGS-B minus fall by the linear program, after fine-tuning on L-BFGS-B's examples."""
    own, groups = falls(tunings, f"L-BFGS-B T={ROUNDS}", "lbfgs", params)
    other, _ = falls(tunings, f"L-BFGS-B T={ROUNDS}", "lp", params)
    note = (
        f"falls {own.mean():+.3f} by L-BFGS-B, {other.mean():+.3f} by LP; {len(tunings)} network(s), {len(own)} points"
    )
    return Measured((own - other).mean(), grouped_mean_interval(own - other, groups, params.seed), note)


def both_improve(tunings: list[Tuning], params: Params) -> Measured:
    """C4: the smaller of the two falls after fine-tuning on the linear program's examples."""
    found = {method: falls(tunings, f"LP T={ROUNDS}", method, params) for method in ("lbfgs", "lp")}
    method = min(found, key=lambda name: found[name][0].mean())
    values, groups = found[method]
    note = "; ".join(f"{name} {each.mean():+.3f}" for name, (each, _) in found.items())
    return Measured(values.mean(), grouped_mean_interval(values, groups, params.seed), f"falls: {note}")


def lazy_is_exact(table: pd.DataFrame) -> Measured:
    """C5a: same status and same optimum on every seed that both came to an end on."""
    ended = table[table["status"].isin(["found", "infeasible"]) & table["status full"].isin(["found", "infeasible"])]
    if ended.empty:
        return Measured(None, note=f"none of {len(table)} seeds was solved both ways within {FULL_LIMIT:g} s")
    gaps = (ended["lazy"] - ended["full"]).abs()[ended["status"] == "found"]
    same = (ended["status"] == ended["status full"]).all()
    note = f"{len(ended)} seeds, {len(gaps)} with an optimum; largest difference {gaps.max():.1e}"
    return Measured(bool(same and not (gaps > SAME).any()), note=note)


def lazy_is_faster(table: pd.DataFrame) -> Measured:
    """C5b: median ratio of seconds on LeNet."""
    ratios, others = (table[table.network == name].ratio for name in ("LeNet", "MLP"))
    note = f"{len(ratios)} LeNet seeds, {ratios.min():.0f} to {ratios.max():.0f}; MLP {others.median():.1f}"
    return Measured(ratios.median(), note=note)
