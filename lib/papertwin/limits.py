"""What a paper's `Params` refuses: values that its experiments cannot use, each with what is expected and why."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from papertwin.checks import SEEDS
from papertwin.errors import ParameterError
from papertwin.words import listed


def require(params: Any, name: str, holds: bool, expected: str) -> None:
    """Refuse a parameter of which something does not hold.

    Args:
        params: a paper's `Params`.
        name: of the parameter.
        holds: what must.
        expected: which values are possible, and why where that is not plain; it follows "NAME is VALUE; ".

    Raises:
        ParameterError: it does not hold.
    """
    if not holds:
        raise ParameterError(f"{name} is {getattr(params, name)!r}; {expected}.")


def check_least(params: Any, least: Mapping[str, float], why: str = "") -> None:
    """Refuse parameters below their smallest useful value.

    Args:
        params: a paper's `Params`.
        least: name of a parameter → its smallest value.
        why: why smaller ones are of no use.

    Raises:
        ParameterError: one is smaller, or no number; the message names the first.
    """
    for name, smallest in least.items():
        expected = f"it must be at least {smallest:,}{why and ': '}{why}"
        require(params, name, getattr(params, name) >= smallest, expected)


def check_positive(params: Any, *names: str) -> None:
    """Refuse parameters that are not above 0.

    Raises:
        ParameterError: one is not; the message names the first.
    """
    for name in names:
        require(params, name, getattr(params, name) > 0, "it must be above 0")


def check_parts(params: Any, wholes: Mapping[str, str], why: str = "of which they are the first") -> None:
    """Refuse more of something than there is of what it is taken from.

    Args:
        params: a paper's `Params`.
        wholes: name of a parameter → name of the parameter that it cannot exceed.
        why: in which way it is a part.

    Raises:
        ParameterError: a part is larger; the message names the first and what to change.
    """
    for name, whole in wholes.items():
        most = getattr(params, whole)
        expected = f"it can be at most the {most:,} of {whole}, {why}: lower it, or raise {whole}"
        require(params, name, getattr(params, name) <= most, expected)


def check_seed(params: Any) -> None:
    """Refuse a `seed` that generators do not take, or that leaves no room for those that experiments derive from it.

    Raises:
        ParameterError: it is below 0, or not in the lower half of the seeds.
    """
    most = SEEDS // 2 - 1
    expected = f"it must be from 0 to {most:,}: those that are derived from it must be below {SEEDS:,}"
    require(params, "seed", 0 <= params.seed <= most, expected)


def check_choice(params: Any, name: str, choices: Iterable[str]) -> None:
    """Refuse a word that is none of the choices.

    Raises:
        ParameterError: it is none; the message lists them.
    """
    known = list(choices)
    require(params, name, getattr(params, name) in known, f"it must be {listed(known, 'or')}")


def check_shares(params: Any, name: str, needed: Sequence[float], ascending: bool = False) -> None:
    """Refuse a list of anything but shares between 0 and 1, as `check_list` does.

    Raises:
        ParameterError: see there.
    """
    check_list(params, name, "shares between 0 and 1", lambda each: 0 < each < 1, needed, ascending=ascending)


def check_list(
    params: Any,
    name: str,
    kind: str,
    possible: Callable[[float], bool],
    needed: Sequence[float] = (),
    why: str = "at which the claims are judged",
    ascending: bool = False,
) -> None:
    """Refuse a list that is empty, holds a number that is not possible, or one twice, or lacks one that is needed.

    Args:
        params: a paper's `Params`.
        name: of the parameter.
        kind: what the numbers are, for example "shares between 0 and 1".
        possible: whether a number is of that kind.
        needed: numbers that must be among them.
        why: why these are needed.
        ascending: whether each number must be above the one before.

    Raises:
        ParameterError: one of these; the message says all that is expected.
    """
    numbers = getattr(params, name)
    once = sorted(set(numbers)) == (numbers if ascending else sorted(numbers))
    fits = bool(numbers) and all(map(possible, numbers)) and once
    among = f", with {listed(needed)} among them, {why}" if needed else ""
    expected = f"it must hold {'ascending' if ascending else 'different'} {kind}{among}"
    require(params, name, fits and set(needed) <= set(numbers), expected)
