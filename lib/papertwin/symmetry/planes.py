"""The plane through three networks, and how high the loss lies on it.

Source: T. Garipov et al.: Loss surfaces, mode connectivity, and fast ensembling of DNNs. NeurIPS 2018,
arXiv 1802.10026, appendix: with u = w₂ − w₁ and v = (w₃ − w₁) − ⟨w₃ − w₁, u⟩ / ‖u‖² · u, of unit length û and v̂, the
network at (x, y) is w₁ + x û + y v̂. Distances on the plane are those of the networks.

Ours: running means and variances of batch normalisation are mixed like weights and count as coordinates. So that no
variance is negative outside the triangle, none is below the least of the three networks'; inside this changes nothing.
Whole numbers (counts of batches) are those of the nearest of the three. All is computed in double precision on the CPU.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.symmetry.permuting import with_state

State = Mapping[str, torch.Tensor]
Point = tuple[float, float]
ROUNDING = 1e-6  # a distance below this share of the longest network may be but rounding of float32


@dataclass(frozen=True)
class Plane:
    """A plane through three networks A, B and C: A at (0, 0), B at (‖B − A‖, 0), C above the line through them.

    Attributes:
        corners: (x, y) of A, B and C.
        states: their state_dicts, on the CPU.
        first: û, towards B: name → float64, of the tensors of floats.
        second: v̂, towards C and orthogonal to û.
    """

    corners: tuple[Point, Point, Point]
    states: tuple[State, State, State]
    first: dict[str, torch.Tensor]
    second: dict[str, torch.Tensor]

    def state(self, x: float, y: float) -> dict[str, torch.Tensor]:
        """Network at a point: A + x û + y v̂.

        Args:
            x: along û, in units of weights.
            y: along v̂.

        Returns:
            New tensors of a state_dict, on the CPU, of the types of A's.

        Raises:
            InputError: a coordinate is not finite.
        """
        if not (math.isfinite(x) and math.isfinite(y)):
            raise InputError(f"x and y must be finite numbers, got {x!r} and {y!r}.")
        nearest = min(range(3), key=lambda place: math.dist((x, y), self.corners[place]))
        found = {}
        for name, of_a in self.states[0].items():
            if name not in self.first:
                found[name] = self.states[nearest][name].clone()
                continue
            value = of_a.double() + x * self.first[name] + y * self.second[name]
            found[name] = value.to(of_a.dtype)
            if name.endswith("running_var"):
                least = torch.stack([state[name] for state in self.states]).amin(0)
                found[name] = torch.maximum(found[name], least)
        return found

    def grid(self, margin: float = 0.2, points: int = 21) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of a grid around the three networks.

        Args:
            margin: on each side, as a share of the width and of the height of what they span; at least 0.
            points: on each axis, at least 2.

        Returns:
            xs and ys, ascending, (points,) float64 each.

        Raises:
            InputError: an argument is out of range.
        """
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < math.inf:
            raise InputError(f"margin must be a finite number of at least 0, got {margin!r}.")
        if not is_whole(points, 2):
            raise InputError(f"points must be a whole number of at least 2, got {points!r}.")
        axes = []
        for values in zip(*self.corners):
            border = margin * (max(values) - min(values))
            axes.append(np.linspace(min(values) - border, max(values) + border, points))
        return axes[0], axes[1]


def plane_through(state_a: State, state_b: State, state_c: State) -> Plane:
    """Lay a plane through three networks, by the method of Gram and Schmidt over all tensors of floats.

    Args:
        state_a: a state_dict.
        state_b: with the same names, shapes and types.
        state_c: likewise.

    Raises:
        InputError: names, shapes or types differ, a value is not finite, or the three lie on one line.
    """
    given = (state_a, state_b, state_c)
    states = tuple({name: value.detach().cpu().clone() for name, value in state.items()} for state in given)
    _check_alike(states)
    names = [name for name, value in states[0].items() if value.is_floating_point()]
    of_a, of_b, of_c = ({name: state[name].double() for name in names} for state in states)
    length = max(_norm(each) for each in (of_a, of_b, of_c))
    first = {name: of_b[name] - of_a[name] for name in names}
    width = _norm(first)
    _check_apart(width, length, "A and B are the same network")
    first = {name: value / width for name, value in first.items()}
    third = {name: of_c[name] - of_a[name] for name in names}
    along = _inner(third, first)
    second = {name: third[name] - along * first[name] for name in names}
    height = _norm(second)
    _check_apart(height, length, "C lies on the line through A and B")
    second = {name: value / height for name, value in second.items()}
    return Plane(((0.0, 0.0), (width, 0.0), (along, height)), states, first, second)


def losses_on(
    model: nn.Module, plane: Plane, xs: Sequence[float], ys: Sequence[float], measure: Callable[[nn.Module], float]
) -> np.ndarray:
    """Measure networks on a grid of points of a plane.

    Args:
        model: of the architecture; stays as it is.
        plane: through three networks of it.
        xs: coordinates along û, see `Plane.grid`.
        ys: coordinates along v̂.
        measure: of a network in evaluation mode, its own copy: a loss. It may estimate batch normalisation anew before.

    Returns:
        (len(ys), len(xs)) float64: a row for each y, as pictures of matplotlib want it (with the origin below).

    Raises:
        InputError: a coordinate is not finite, or the plane is of networks of another architecture.
    """
    rows = [[float(measure(with_state(model, plane.state(float(x), float(y))))) for x in xs] for y in ys]
    return np.array(rows, dtype=np.float64).reshape(len(ys), len(xs))


def _inner(one: State, other: State) -> float:
    return sum(float((one[name] * other[name]).sum()) for name in one)


def _norm(one: State) -> float:
    return math.sqrt(_inner(one, one))


def _check_apart(distance: float, length: float, what: str) -> None:
    if distance <= ROUNDING * length:
        raise InputError(
            f"Three networks that span a plane are needed; {what}, up to a distance of {distance:.3g} where the "
            f"longest has a norm of {length:.3g}. Take networks of other seeds, or `losses_along` for a line."
        )


def _check_alike(states: Sequence[State]) -> None:
    """Refuse networks that differ in names, shapes or types of tensors, or hold infinity or NaN."""
    for letter, state in zip("BC", states[1:]):
        if different := set(states[0]) ^ set(state):
            raise InputError(f"All must have the same tensors; only one of A and {letter} has {', '.join(different)}.")
        for name, of_a in states[0].items():
            value = state[name]
            if value.shape != of_a.shape or value.dtype != of_a.dtype:
                raise InputError(
                    f"{name} must be alike, got {of_a.dtype} of {tuple(of_a.shape)} in A and {value.dtype} of "
                    f"{tuple(value.shape)} in {letter}."
                )
    for letter, state in zip("ABC", states):
        if wild := [name for name, value in state.items() if not value.isfinite().all()]:
            raise InputError(f"{letter} must hold finite numbers; {', '.join(wild)} does not. Did a training diverge?")
