"""Baseline: projected gradient descent under the ∞-norm, with a bisection on its radius for each image.

Source: A. Madry et al., Towards deep learning models resistant to adversarial attacks, arXiv 1706.06083 (2017): steps
along the sign of the loss gradient, projected on the ball ‖x' − x‖∞ ≤ ε and the box. The attack is for a given ε; the
smallest ε at which it succeeds is our bisection.

Deviations: a run towards a label l climbs f_l − f_y, the loss of two logits that the source also attacks with, because
on a linear network its sign is the exact direction; only "untargeted" climbs the cross-entropy of y = f(x). The first
run starts at the image itself and only further ones at random points of the ball; the step is 2.5 ε / steps; a run ends
at the first input with another label, whichever it is. All in float64, and what a run finds is measured, so ε is the
witness's own distance and not the radius it was searched in. Random starts are the same numbers for each image, so that
a result does not depend on the images beside it (up to rounding).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from papertwin.errors import InputError
from papertwin.robustness.inputs import (
    Box,
    Target,
    as_batch,
    check_box,
    check_count,
    check_seed,
    frozen,
    logits_of,
    overtaken_by,
    predict_labels,
    targets_of,
)
from papertwin.robustness.outcome import Adversarial
from papertwin.training.loop import torch_threads

TOGETHER = 256  # images that are attacked at once
STRIDE = 2.5  # length of the whole way of a run, in radii
BEYOND = 1e-9  # logits by which another label must lead, so that it also does in a batch of another size


@dataclass(frozen=True)
class _Search:
    """What one call of the attack does for each image."""

    box: Box
    steps: int
    bisections: int
    largest: float
    noise: torch.Tensor  # (restarts, …) in [-1, 1], the first all zero


def pgd_adversarial(
    model: nn.Module,
    images: Any,
    *,
    target: Target | Literal["untargeted"] = "runner-up",
    box: Box = (0.0, 1.0),
    steps: int = 40,
    restarts: int = 1,
    bisections: int = 12,
    largest: float | None = None,
    seed: int = 0,
    device: Any = "cpu",
    threads: int | None = 1,
) -> list[Adversarial]:
    """Search the nearest adversarial example of each image by projected gradient descent and bisection.

    Args:
        model: images → (B, classes) logits; left as it is.
        images: (n, …), inside the box.
        target: "runner-up", "all" (each other label, the nearest witness wins), a label, or "untargeted" (climb the
            loss of f(x) itself).
        box: smallest and largest value of a pixel; either may be infinite.
        steps: of one run.
        restarts: runs at each radius; the first starts at the image, the others at random.
        bisections: of the radius after the first try; that many halvings of `largest` are the resolution.
        largest: radius of the first try; None is the width of the box.
        seed: of the random starts.
        device: where the network is evaluated, in float64.
        threads: of torch on the CPU; None leaves them as they are.

    Returns:
        One result for each image, in order; `seconds` is the image's share of the whole time, `target` is None for
        "untargeted" and `status` "not found" where no run succeeded.

    Raises:
        InputError: an argument cannot be used.
    """
    started = time.perf_counter()
    if not len(images):
        return []
    if np.ndim(images[0]) == 0:
        raise InputError("images must be a batch, (n, …), got one vector; for one image x pass x[None].")
    seeds = _stacked([check_seed(image, box) for image in images])
    noise = _noise(seeds.shape[1:], check_count("restarts", restarts), check_count("seed", seed, 0))
    settings = check_count("steps", steps), check_count("bisections", bisections, 0), _check_largest(largest, box)
    search = _Search(check_box(box), *settings, noise)
    model64 = frozen(model, device)
    with torch_threads(threads):
        parts = [seeds[first : first + TOGETHER] for first in range(0, len(seeds), TOGETHER)]
        found = [each for part in parts for each in _attack(model64, part, target, search)]
    share = (time.perf_counter() - started) / len(seeds)
    return [replace(each, seconds=share) for each in found]


def _attack(model64: nn.Module, seeds: np.ndarray, target: Any, search: _Search) -> list[Adversarial]:
    """Search each target of a batch of seeds; keep each seed's nearest witness that is adversarial on its own."""
    logits = [logits_of(model64, seed) for seed in seeds]
    labels = [int(each.argmax()) for each in logits]
    climb = target == "untargeted"
    goals = [[label] if climb else targets_of(each, target) for each, label in zip(logits, labels)]
    nearest = [Adversarial(math.inf, None, label, None, None, 0.0, "not found") for label in labels]
    images, own = as_batch(model64, seeds), as_batch(model64, labels).long()
    for goal in zip(*goals):
        aim = as_batch(model64, goal).long()
        found, points = _bisect(model64, images, own, aim, search)
        for k in np.flatnonzero(found.cpu().numpy()):
            witness = points[k].cpu().numpy()
            epsilon, reached = float(np.abs(witness - seeds[k]).max()), int(predict_labels(model64, witness[None])[0])
            if epsilon < nearest[k].epsilon and reached != labels[k]:
                aimed = None if climb else goal[k]
                nearest[k] = Adversarial(epsilon, witness, labels[k], aimed, reached, 0.0, "found")
    return nearest


def _bisect(
    model64: nn.Module, images: torch.Tensor, labels: torch.Tensor, goals: torch.Tensor, search: _Search
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bisect each image's radius: (n, …), (n,), (n,) → found, (n,) bool, and the nearest witnesses, (n, …).

    The upper end is the distance of the nearest witness. As long as an image has none, its radius is halved.
    """
    witnesses = images.clone()
    radius = images.new_full((len(images),), search.largest)
    low, best = torch.zeros_like(radius), torch.full_like(radius, math.inf)
    for _ in range(search.bisections + 1):
        found, points = _succeed(model64, images, labels, goals, radius, search)
        distance = (points - images).abs().flatten(1).amax(dim=1)
        nearer = found & (distance < best)
        witnesses[nearer], best[nearer] = points[nearer], distance[nearer]
        known = best.isfinite()
        low = torch.where(known & ~found, radius, low)
        radius = torch.where(known, (low + best) / 2, radius / 2)
    return best.isfinite(), witnesses


def _succeed(
    model64: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    goals: torch.Tensor,
    radius: torch.Tensor,
    search: _Search,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run gradient descent from each start until it succeeds; return found, (n,) bool, and witnesses, (n, …)."""
    found, witnesses = torch.zeros_like(labels, dtype=torch.bool), images.clone()
    for noise in search.noise.to(images.device):
        rest = (~found).nonzero()[:, 0]
        if not len(rest):
            break
        reach = radius[rest].view(-1, *[1] * noise.ndim)
        ball = (images[rest] - reach).clamp(min=search.box[0]), (images[rest] + reach).clamp(max=search.box[1])
        start = (images[rest] + reach * noise).clamp(*ball)
        found[rest], witnesses[rest] = _run(
            model64, start, ball, labels[rest], goals[rest], reach * STRIDE / search.steps, search.steps
        )
    return found, witnesses


def _run(
    model64: nn.Module,
    point: torch.Tensor,
    ball: tuple[torch.Tensor, torch.Tensor],
    labels: torch.Tensor,
    goals: torch.Tensor,
    stride: torch.Tensor,
    steps: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take signed gradient steps within the ball; return found, (B,) bool, and the first adversarial points.

    They climb f_goal − f_label, or the cross-entropy of the label where the goal is the label itself.
    """
    free = goals == labels
    found, witnesses = torch.zeros_like(labels, dtype=torch.bool), point.clone()
    for step in range(steps + 1):
        logits = model64(point.requires_grad_())
        fresh = (overtaken_by(logits.detach(), labels) > BEYOND) & ~found
        witnesses[fresh] = point.detach()[fresh]
        found |= fresh
        if step == steps or found.all():
            break
        loss = functional.cross_entropy(logits, labels, reduction="none")
        lead = logits.gather(1, goals[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]
        (slope,) = torch.autograd.grad(torch.where(free, loss, lead).sum(), point)
        point = (point.detach() + stride * slope.sign()).clamp(*ball)
    return found, witnesses


def _stacked(seeds: Sequence[np.ndarray]) -> np.ndarray:
    if len({seed.shape for seed in seeds}) > 1:
        raise InputError(f"Images must have one shape, got {sorted({seed.shape for seed in seeds})}.")
    return np.stack(seeds)


def _noise(shape: tuple[int, ...], restarts: int, seed: int) -> torch.Tensor:
    """Draw the starts of all runs as shares of the radius, (restarts, *shape) in [-1, 1]; the first is the image."""
    noise = torch.rand(restarts, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    noise[0] = 0
    return noise


def _check_largest(largest: float | None, box: Box) -> float:
    low, high = check_box(box)
    value = high - low if largest is None else largest
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(
            f"largest must be a finite radius above 0, got {value!r}; with an unbounded box it has to be given."
        )
    return float(value)
