"""An ensemble of two routes: a cheap one that every image takes, and a dear one for the images that gain by it.

Paper: Y. Ioannou et al., arXiv 1603.01250 (2016). Both routes are the same network, without and with 10× oversampling.
A router sees the features of the cheap route, so they cost nothing more, and predicts for either route whether it will
be right. Sweeping a threshold trades predicted accuracy against cost, which is relative to one pass of the network:

    cost = 1 + 9 f + router,    f = share of the images sent to route 2.

The first of the ten views is the cheap route's pass, hence 9; with k views it is 1 + (k - 1) f + router.

Ours: the router is two logistic regressions on standardised features; an image is sent to route 2 where the predicted
gain p2 - p1 is at least the threshold. The chord joins the two routes on their own, which need no router: it is what a
random choice between them gives. A curve is compared with it at equal cost, beyond route 2 with route 2 itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.nets.conditional.inputs import as_array, as_features, as_labels

ROUTES = 2


@dataclass(frozen=True)
class EnsembleCurve:
    """Error against cost while more and more images take route 2.

    Attributes:
        threshold: (m,) of the predicted gain, falling; +∞ sends no image to route 2.
        fraction: (m,) share of the images sent to route 2, rising from 0 to 1.
        cost: (m,) mean cost of an image, in passes of the network.
        error: (m,) share of wrong answers.
        ends: ((1, error of route 1), (views, error of route 2)), the routes without a router.
    """

    threshold: np.ndarray
    fraction: np.ndarray
    cost: np.ndarray
    error: np.ndarray
    ends: tuple[tuple[float, float], tuple[float, float]]

    def chord(self, cost: Any) -> np.ndarray:
        """Error of a random choice between the routes at some cost; that of an end beyond it."""
        (low, first), (high, second) = self.ends
        return np.interp(cost, [low, high], [first, second])

    @property
    def area_below_chord(self) -> float:
        """∫ (chord - error) d cost over the curve, both straight between points: above 0 where routing beats chance."""
        bends = [cost for cost, _ in self.ends if self.cost[0] < cost < self.cost[-1]]
        cost = np.union1d(self.cost, bends)
        return float(np.trapezoid(self.chord(cost) - np.interp(cost, self.cost, self.error), cost))

    def threshold_within(self, cost: float) -> float:
        """Return the lowest threshold that costs no more than `cost`, to be used on other images.

        Raises:
            InputError: even sending no image costs more.
        """
        if not cost >= self.cost[0]:
            raise InputError(f"cost must be at least {self.cost[0]:g}, what sending no image costs, got {cost!r}.")
        return float(self.threshold[np.flatnonzero(self.cost <= cost)[-1]])


class CorrectnessRouter:
    """Predicts from the cheap route's features whether each route will be right.

    Attributes:
        features: how many it takes.
    """

    def __init__(self, models: Sequence[Pipeline | float], features: int) -> None:
        self._models = tuple(models)
        self.features = features

    def predict(self, features: Any) -> np.ndarray:
        """Return the probability that each route is right: (n, features) → (n, 2) float64.

        Raises:
            InputError: another number of features.
        """
        x = as_features(features)
        if x.shape[1] != self.features:
            raise InputError(f"The router was fitted to {self.features} features, got {x.shape[1]}.")
        columns = [
            np.full(len(x), model) if isinstance(model, float) else model.predict_proba(x)[:, 1]
            for model in self._models
        ]
        return np.stack(columns, axis=1)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image: 2 · features + 2, the standardisation folded into the weights."""
        return ROUTES * (self.features + 1)


def correct_answers(scores: Any, labels: Any, top: int = 1) -> np.ndarray:
    """Return for each image whether its class is among the `top` best.

    Args:
        scores: (n, C) logits or probabilities; of equal ones the lower class comes first, one of -∞ is no answer.
        labels: (n,) whole numbers.
        top: from 1 to C.

    Returns:
        (n,) booleans.

    Raises:
        InputError: shapes do not fit, a label is no class or `top` is out of range.
    """
    values = as_array(scores, "scores", finite=False)
    if values.ndim != 2:
        raise InputError(f"scores must have shape (n, C), got {values.shape}.")
    wanted = as_labels(labels, len(values), values.shape[1])
    if not is_whole(top, 1, values.shape[1]):
        raise InputError(f"top must be a whole number from 1 to {values.shape[1]}, the classes, got {top!r}.")
    order = np.argsort(-values.astype(np.float64), axis=1, kind="stable")[:, :top]
    return ((order == wanted[:, None]) & (np.take_along_axis(values, order, axis=1) > -np.inf)).any(axis=1)


def fit_correctness(features: Any, correct: Any, *, penalty: float = 1.0) -> CorrectnessRouter:
    """Fit the router on validation images.

    Args:
        features: (n, features) of the cheap route's network, or more axes, which are flattened; NumPy or torch.
        correct: (n, 2) booleans, whether each route was right.
        penalty: L2 penalty on the weights of standardised features, above 0.

    Raises:
        InputError: shapes do not fit or `penalty` is out of range.
    """
    x, right = as_features(features), _pairs(correct, "booleans", "correct")
    if len(x) != len(right):
        raise InputError(f"There must be two answers an image, got {len(x)} images and {len(right)} pairs.")
    if not 0 < penalty < np.inf:
        raise InputError(f"penalty must be a finite number above 0, got {penalty!r}.")
    models = []
    for answers in right.T:
        if answers.all() or not answers.any():  # nothing to learn from
            models.append(float(answers[0]))
        else:
            fitted = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=1000))
            with threadpool_limits(1):  # sums would depend on the number of threads
                models.append(fitted.fit(x, answers))
    return CorrectnessRouter(models, x.shape[1])


def relative_cost(fraction: Any, views: int = 10, router: float = 0.0) -> Any:
    """Return 1 + (views - 1) · fraction + router, in passes of the network.

    Args:
        fraction: f, share of the images sent to route 2.
        views: passes that route 2 takes in all, the first of which route 1 took; at least 1.
        router: cost of the router in passes of the network, at least 0.

    Raises:
        InputError: `views` or `router` is out of range.

    >>> relative_cost(0.5, views=10)
    5.5
    """
    if not is_whole(views, 1):
        raise InputError(f"views must be a whole number above 0, got {views!r}.")
    if not 0 <= router < np.inf:
        raise InputError(f"router must be a finite cost of at least 0, in passes of the network, got {router!r}.")
    return 1 + (views - 1) * fraction + router


def sweep(predicted: Any, correct: Any, *, views: int = 10, router: float = 0.0) -> EnsembleCurve:
    """Send the images of the largest predicted gain to route 2, from none of them to all.

    Images of equal gain are sent together, as one threshold cannot part them.

    Args:
        predicted: (n, 2) probabilities that each route is right; the truth itself gives the best curve there is.
        correct: (n, 2) booleans, whether it was.
        views: passes that route 2 takes in all.
        router: cost of the router in passes of the network.

    Returns:
        A point for each different gain, and one for sending none.

    Raises:
        InputError: shapes do not fit or a number is out of range.
    """
    guess, right = _predictions(predicted, correct)
    gain = guess[:, 1] - guess[:, 0]
    order = np.argsort(-gain, kind="stable")
    sent = np.append(np.flatnonzero(np.diff(gain[order])), len(gain) - 1)  # the last image of each gain
    change = np.cumsum(right[order, 0].astype(int) - right[order, 1])
    errors = np.append(0, change[sent]) + np.sum(~right[:, 0])
    fraction = np.append(0, sent + 1) / len(gain)
    single, dear = (~right).mean(axis=0)
    return EnsembleCurve(
        threshold=np.append(np.inf, gain[order][sent]),
        fraction=fraction,
        cost=relative_cost(fraction, views, router),
        error=errors / len(gain),
        ends=((1.0, float(single)), (float(views), float(dear))),
    )


def at_threshold(
    predicted: Any, correct: Any, threshold: float, *, views: int = 10, router: float = 0.0
) -> tuple[float, float]:
    """Send the images whose predicted gain is at least a threshold, chosen on other images, to route 2.

    Args:
        predicted: (n, 2) probabilities that each route is right.
        correct: (n, 2) booleans, whether it was.
        threshold: +∞ sends none.
        views: passes that route 2 takes in all.
        router: cost of the router in passes of the network.

    Returns:
        Mean cost of an image, and the share of wrong answers.

    Raises:
        InputError: shapes do not fit or a number is out of range.
    """
    guess, right = _predictions(predicted, correct)
    sent = guess[:, 1] - guess[:, 0] >= threshold
    wrong = ~np.where(sent, right[:, 1], right[:, 0])
    return float(relative_cost(sent.mean(), views, router)), float(wrong.mean())


def _predictions(predicted: Any, correct: Any) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and answers, a row of two for each image."""
    guess, right = _pairs(predicted, "numbers", "predicted"), _pairs(correct, "booleans", "correct")
    if len(guess) != len(right):
        raise InputError(f"There must be a prediction for each image, got {len(guess)} for {len(right)}.")
    return guess, right


def _pairs(values: Any, kind: str, name: str) -> np.ndarray:
    """Two values an image, (n, 2): booleans or floats."""
    array = as_array(values, name)
    if array.shape[1:] != (ROUTES,) or not len(array) or (kind == "booleans" and array.dtype != np.bool_):
        raise InputError(f"{name} must be {kind} of shape (n, 2), a column a route, got {array.dtype} {array.shape}.")
    return array.astype(bool if kind == "booleans" else np.float64)
