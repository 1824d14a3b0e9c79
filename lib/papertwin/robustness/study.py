"""One network, a set of points, several algorithms: who finds which adversarial example, and what that says.

Only points that the network classifies correctly enter the metrics, and only those that the algorithm measured to the
end; the others are counted. Two algorithms are compared on the points that both measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from papertwin.robustness.inputs import as_batch, frozen, logits_of, predict_labels
from papertwin.robustness.metrics import (
    adversarial_frequency,
    adversarial_severity,
    frequency_interval,
    severity_interval,
    wins,
)
from papertwin.robustness.outcome import Adversarial
from papertwin.robustness.region import LinearRegion
from papertwin.training.loop import predict

NAMES = {"lp": "LP", "lbfgs": "L-BFGS-B", "pgd": "PGD"}
GREY = 255  # levels of a pixel in the image files


@dataclass(frozen=True)
class Study:
    """What the algorithms found on the points of one network.

    Attributes:
        name: of the network, for tables.
        model: the network.
        accuracy: its share of right labels on the whole test set.
        images: (n, …) float64 seeds in [0, 1].
        labels: (n,) true labels.
        outcomes: algorithm (lp, lbfgs, pgd) → n results.
    """

    name: str
    model: nn.Module
    accuracy: float
    images: np.ndarray
    labels: np.ndarray
    outcomes: dict[str, list[Adversarial]]

    def distances(self, method: str) -> np.ndarray:
        """(n,) ρ̂ of every point, NaN where it was not measured or the seed is misclassified."""
        found = self.outcomes[method]
        right = np.array([outcome.label for outcome in found]) == self.labels
        return np.where(right, [outcome.epsilon for outcome in found], np.nan)

    def measured(self, *methods: str) -> list[np.ndarray]:
        """ρ̂ by each method, (m,), at the points that all of them measured."""
        distances = np.array([self.distances(method) for method in methods])
        return list(distances[:, ~np.isnan(distances).any(0)])

    def first(self, count: int) -> "Study":
        """The same on the first points only."""
        cut = {method: found[:count] for method, found in self.outcomes.items()}
        return Study(self.name, self.model, self.accuracy, self.images[:count], self.labels[:count], cut)


def metrics(distances: np.ndarray, method: str, threshold: float, seed: int) -> dict[str, float]:
    """Frequency φ and severity μ of (m,) distances by one method, each with a 95 % interval, as columns of a table."""
    name = NAMES[method]
    row = {f"φ {name}": np.nan, f"μ {name}": np.nan}
    if not len(distances):
        return row
    row[f"φ {name}"] = adversarial_frequency(distances, threshold)
    row[f"φ {name} low"], row[f"φ {name} high"] = frequency_interval(distances, threshold)
    row[f"μ {name}"] = adversarial_severity(distances, threshold)
    row[f"μ {name} low"], row[f"μ {name} high"] = severity_interval(distances, threshold, seed) or (np.nan, np.nan)
    return row


def fates(study: Study, method: str, threshold: float) -> dict[str, float]:
    """What became of the searches: one number per fate, and how many witnesses survive whole grey levels."""
    found = study.outcomes[method]
    right = np.array([outcome.label for outcome in found]) == study.labels
    kept = [(outcome, image) for outcome, image, good in zip(found, study.images, right) if good]
    states = [outcome.status for outcome, _ in kept]
    witnesses = [(outcome, image) for outcome, image in kept if outcome.witness is not None]
    near = [pair for pair in witnesses if pair[0].epsilon <= threshold]
    fate = {
        "points": len(found),
        "misclassified": int((~right).sum()),
        "found": len(witnesses),
        "infeasible": states.count("infeasible"),
        "timed out": states.count("timeout"),
    }
    fate["other"] = len(kept) - fate["found"] - fate["infeasible"] - fate["timed out"]
    fate["within threshold"] = len(near)
    fate["of these, in float32"] = sum(survives_single(study.model, outcome) for outcome, _ in near)
    model64 = frozen(study.model)
    fate["of these, after rounding"] = sum(survives_rounding(model64, *pair, threshold) for pair in near)
    return fate


def survives_single(model: nn.Module, outcome: Adversarial) -> bool:
    """Tell whether a witness is still adversarial for the network in its own precision, the image rounded to it."""
    return bool(predict(model, outcome.witness[None].astype(np.float32))[0] != outcome.label)


def survives_rounding(model64: nn.Module, outcome: Adversarial, image: np.ndarray, threshold: float) -> bool:
    """Tell whether a witness rounded to whole grey levels is still adversarial and still within the threshold.

    Distances are compared in levels: a seed from an image file holds them up to single precision only.
    """
    levels = np.round(outcome.witness * GREY)
    label = predict_labels(model64, levels[None] / GREY)[0]
    return bool(label != outcome.label and np.abs(levels - np.round(image * GREY)).max() <= round(threshold * GREY, 6))


def comparison(study: Study, first: str, second: str, tolerance: float = 1e-4) -> dict[str, int]:
    """At how many points which of two algorithms is nearer."""
    result = wins(*study.measured(first, second), tolerance)
    names = {"first": NAMES[first], "second": NAMES[second]}
    row = {"pair": f"{names['first']} against {names['second']}", "first nearer": result.first}
    return row | {"second nearer": result.second, "equal": result.equal, "neither found": result.neither}


def witness_problems(study: Study, method: str, box: tuple[float, float] = (0.0, 1.0)) -> list[str]:
    """Run every witness through the network again; list those that break a promise (none: all is well)."""
    model64 = frozen(study.model)
    problems = []
    for place, (outcome, image) in enumerate(zip(study.outcomes[method], study.images)):
        if outcome.witness is None:
            continue
        before, after = predict_labels(model64, np.stack([image, outcome.witness]))
        inside = box[0] <= outcome.witness.min() and outcome.witness.max() <= box[1]
        distance = np.abs(outcome.witness - image).max()
        if before == after or not inside or abs(distance - outcome.epsilon) > 1e-9:
            problems.append(
                f"point {place}: label {before} → {after}, inside {inside}, {distance} or {outcome.epsilon}"
            )
    return problems


def rows_broken(model64: nn.Module, image: np.ndarray, witness: np.ndarray) -> float:
    """Share of the rows of the image's linear region that a witness breaks: 0 inside the region."""
    region = LinearRegion(model64, as_batch(model64, image))
    slack = region.slack(as_batch(model64, witness[None]))[0]
    return float((slack < -1e-9).double().mean())


def label_margin(model64: nn.Module, image: np.ndarray, target: int) -> float:
    """By how much the target's logit exceeds the largest other one at an image; negative for a seed."""
    logits = logits_of(model64, image)
    return float(logits[target] - np.delete(logits, target).max())


def conduct(
    name: str,
    model: nn.Module,
    accuracy: float,
    points: tuple[np.ndarray, np.ndarray],
    searches: dict[str, Callable[[nn.Module, np.ndarray], Sequence[Adversarial]]],
) -> Study:
    """Run the searches on the points of one network.

    Args:
        name: of the network.
        model: the network.
        accuracy: on the whole test set.
        points: images (n, …) float64 and true labels (n,).
        searches: algorithm → function of network and images, in order of execution.
    """
    images, labels = points
    outcomes = {method: list(search(model, images)) for method, search in searches.items()}
    return Study(name, model, accuracy, images, labels, outcomes)


def examples(study: Study, count: int, method: str = "lp") -> list[int]:
    """The first points, at most `count`, that have a witness and are classified correctly."""
    return [int(point) for point in np.flatnonzero(np.isfinite(study.distances(method)))[:count]]


def versions(study: Study, point: int, methods: tuple[str, ...]) -> tuple[list[np.ndarray | None], list[str]]:
    """A seed, then each method's witness and its difference from the seed, with a caption each."""
    seed = study.images[point]
    images, captions = [seed], [f"label {study.labels[point]}"]
    for method in methods:
        outcome = study.outcomes[method][point]
        known = outcome.witness is not None
        images += [outcome.witness, outcome.witness - seed] if known else [None, None]
        captions += [f"label {outcome.reached}", f"max {outcome.epsilon:.3f}"] if known else ["none", ""]
    return images, captions


def shares_broken(study: Study, method: str) -> list[float]:
    """For every witness of a method, the share of the rows of its seed's linear region that it breaks.

    Seeds that the network misclassifies are left out.
    """
    model64, known = frozen(study.model), np.flatnonzero(np.isfinite(study.distances(method)))
    return [rows_broken(model64, study.images[k], study.outcomes[method][k].witness) for k in known]


def proven_margins(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """Of the infeasible points with a bound: the target's margin at the seed, and the largest it can be in the region.

    Returns:
        (m,) margins at the seed and (m,) bounds, by rising bound; all are logits.
    """
    model64, found = frozen(study.model), zip(study.images, study.outcomes["lp"], study.distances("lp"))
    kept = [(image, each) for image, each, distance in found if np.isinf(distance) and np.isfinite(each.bound)]
    pairs = [(each.bound, label_margin(model64, image, each.target)) for image, each in kept]
    bounds, margins = np.array(sorted(pairs)).reshape(-1, 2).T
    return margins, bounds
