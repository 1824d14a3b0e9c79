"""Spaces of architectures: one exponent a layer, either of its groups or of how often its filters are halved.

Paper: Y. Ioannou et al., arXiv 1603.01250 (2016), CIFAR. Groups of each layer are 2^e, chosen by a search; the baseline
divides the filters of each layer by 2^e, e from 0 to 4.

Ours: where a width is no multiple of 2^e, the quotient is rounded as in `papertwin.nets.sizes.divided`, which also
builds the networks.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from papertwin.checks import is_whole
from papertwin.errors import InputError
from papertwin.nets.sizes import divided

Exponents = tuple[int, ...]
HALVINGS = 4


class ExponentSpace:
    """Vectors with one exponent a layer, each from a list of its own.

    Args:
        allowed: for each layer the exponents it may have, whole numbers of at least 0.

    Raises:
        InputError: no layer, or a layer with no exponent, one twice, or one that is negative.
    """

    def __init__(self, allowed: Sequence[Sequence[int]]) -> None:
        lists = tuple(tuple(layer) for layer in allowed)
        for place, layer in enumerate(lists):
            if not layer or not all(is_whole(e, 0) for e in layer) or len(set(layer)) < len(layer):
                raise InputError(f"Layer {place} needs different whole exponents of at least 0, got {layer!r}.")
        if not lists:
            raise InputError("allowed must hold the exponents of at least one layer, got none.")
        self.allowed: tuple[Exponents, ...] = tuple(tuple(sorted(int(e) for e in layer)) for layer in lists)

    @property
    def size(self) -> int:
        """How many vectors there are."""
        return math.prod(len(layer) for layer in self.allowed)

    def __contains__(self, exponents: Iterable[int]) -> bool:
        vector = tuple(exponents)
        return len(vector) == len(self.allowed) and all(e in layer for e, layer in zip(vector, self.allowed))

    def at(self, number: int) -> Exponents:
        """The vector of a number from 0 to size - 1; the last layer changes fastest."""
        vector = []
        for layer in reversed(self.allowed):
            number, place = divmod(number, len(layer))
            vector.append(layer[place])
        return tuple(reversed(vector))

    def sample(self, count: int, seed: int | np.random.Generator, without: Iterable[Exponents] = ()) -> list[Exponents]:
        """Draw different vectors, each set of them equally likely.

        Args:
            count: how many, at most as many as are left.
            seed: of the draws.
            without: vectors that are not drawn.

        Raises:
            InputError: there are not so many.
        """
        drawn = {vector for vector in map(tuple, without) if vector in self}
        remaining = self.size - len(drawn)
        if not is_whole(count, 0, remaining):
            raise InputError(f"count must be from 0 to {remaining}, the vectors that are left, got {count!r}.")
        rng = np.random.default_rng(seed)
        if self.size < 4 * (len(drawn) + count):  # nearly all of them: shuffle those that are left
            left = [vector for vector in map(self.at, range(self.size)) if vector not in drawn]
            return [left[k] for k in rng.permutation(len(left))[:count]]
        found = []
        while len(found) < count:
            for vector in zip(*(rng.choice(layer, size=count - len(found)).tolist() for layer in self.allowed)):
                if vector not in drawn:
                    drawn.add(vector)
                    found.append(vector)
        return found

    def neighbours(self, exponents: Exponents) -> list[Exponents]:
        """The vectors that differ from one in one layer, by one step of its list."""
        found = []
        for place, (e, layer) in enumerate(zip(exponents, self.allowed)):
            at = layer.index(e)
            for step in (at - 1, at + 1):
                if 0 <= step < len(layer):
                    found.append((*exponents[:place], layer[step], *exponents[place + 1 :]))
        return found

    def unit(self, vectors: Sequence[Exponents]) -> np.ndarray:
        """Vectors as points of the unit cube, (n, layers) float64."""
        low = np.array([layer[0] for layer in self.allowed], dtype=np.float64)
        span = np.array([layer[-1] for layer in self.allowed]) - low
        points = np.asarray(vectors, dtype=np.float64).reshape(-1, len(self.allowed))
        return (points - low) / np.where(span > 0, span, 1)


class GroupSpace(ExponentSpace):
    """Groups 2^e of each layer, where they divide the channels that come in and those that go out.

    Args:
        channels: (c_in, c_out) of each layer.
        exponents: for each layer the exponents it may have; None takes all that are legal.
        largest: the most groups a layer may have, for all layers or for each; with `exponents` None only.

    Raises:
        InputError: groups do not divide the channels of their layer, or an argument is out of range.

    >>> GroupSpace([(64, 96), (96, 10)], largest=32).allowed
    ((0, 1, 2, 3, 4, 5), (0, 1))
    """

    def __init__(
        self,
        channels: Sequence[tuple[int, int]],
        exponents: Sequence[Sequence[int]] | None = None,
        *,
        largest: int | Sequence[int] | None = None,
    ) -> None:
        self.channels = tuple((c_in, c_out) for c_in, c_out in channels)
        if not all(is_whole(c, 1) for pair in self.channels for c in pair):
            raise InputError(f"channels must be whole numbers above 0, got {self.channels}.")
        if exponents is None:
            limits = [largest] * len(self.channels) if largest is None or isinstance(largest, int) else list(largest)
            if len(limits) != len(self.channels) or any(limit is not None and limit < 1 for limit in limits):
                raise InputError(f"largest must be a number above 0, or one a layer, got {largest!r}.")
            exponents = [_legal(pair, limit) for pair, limit in zip(self.channels, limits)]
        elif largest is not None or len(exponents) != len(self.channels):
            raise InputError("Give the exponents of each layer or the largest number of groups, not both.")
        super().__init__(exponents)
        for place, ((c_in, c_out), layer) in enumerate(zip(self.channels, self.allowed)):
            if c_in % 2 ** layer[-1] or c_out % 2 ** layer[-1]:
                raise InputError(
                    f"Layer {place} has {c_in} → {c_out} channels, which 2^{layer[-1]} groups do not divide: "
                    f"its exponents may go up to {_legal((c_in, c_out), None)[-1]}."
                )

    def groups(self, exponents: Sequence[int]) -> tuple[int, ...]:
        """Groups of each layer.

        Raises:
            InputError: the vector is none of the space.
        """
        if exponents not in self:
            raise InputError(f"{tuple(exponents)} is none of this space: expected one each of {self.allowed}.")
        return tuple(2**e for e in exponents)


class FilterSpace(ExponentSpace):
    """The baseline: filters of each layer divided by 2^e.

    Args:
        widths: filters of each layer, as built: after the width factor of the network.
        halvings: the largest e.

    Raises:
        InputError: a width is no whole number above 0.
    """

    def __init__(self, widths: Sequence[int], halvings: int = HALVINGS) -> None:
        if not all(is_whole(width, 1) for width in widths) or not is_whole(halvings, 0):
            raise InputError(
                f"widths must be above 0 and halvings at least 0, whole numbers; got {widths!r}, {halvings!r}."
            )
        self.widths = tuple(widths)
        super().__init__([range(halvings + 1)] * len(self.widths))

    def filters(self, exponents: Sequence[int]) -> tuple[int, ...]:
        """Filters of each layer, those of `nin64(divisors=…)` with divisors 2^e.

        Raises:
            InputError: the vector is none of the space.
        """
        if exponents not in self:
            raise InputError(f"{tuple(exponents)} is none of this space: expected one each of {self.allowed}.")
        return tuple(divided(width, 2**e) for width, e in zip(self.widths, exponents))


def _legal(channels: tuple[int, int], largest: int | None) -> Exponents:
    """Exponents of the groups that divide both channel counts and are at most `largest`."""
    most = math.gcd(*channels)
    most = (most & -most).bit_length() - 1  # how often 2 divides both
    return tuple(e for e in range(most + 1) if largest is None or 2**e <= largest)
