"""Values that a paper refuses: the message names the parameter, its value, what is possible and why."""

from dataclasses import dataclass, field
from math import nan

import pytest

from papertwin import limits
from papertwin.errors import ParameterError


@dataclass(frozen=True)
class Params:
    n: int = 3
    images: int = 2000
    rate: float = 0.1
    kind: str = "b"
    shares: list[float] = field(default_factory=lambda: [0.5, 0.9])
    seed: int = 0


def refused(check, *arguments, **values):
    with pytest.raises(ParameterError) as caught:
        check(Params(**values), *arguments)
    return str(caught.value)


def test_what_is_possible_passes():
    params = Params()
    limits.require(params, "n", True, "never said")
    limits.check_least(params, {"n": 3, "rate": 0.1})
    limits.check_positive(params, "n", "rate")
    limits.check_parts(params, {"n": "images"}, "")
    limits.check_choice(params, "kind", ("a", "b"))
    limits.check_list(params, "shares", "shares", lambda each: 0 < each < 1, [0.9], ascending=True)


def test_each_message_in_full():
    assert refused(limits.require, "kind", False, "it must be short") == "kind is 'b'; it must be short."
    assert refused(limits.check_least, {"n": 1, "images": 3000}) == "images is 2000; it must be at least 3,000."
    assert refused(limits.check_least, {"n": 4}, "or else") == "n is 3; it must be at least 4: or else."
    assert refused(limits.check_positive, "n", "rate", rate=0.0) == "rate is 0.0; it must be above 0."
    words = "n is 2001; it can be at most the 2,000 of images, taken from these: lower it, or raise images."
    assert refused(limits.check_parts, {"n": "images"}, "taken from these", n=2001) == words
    assert refused(limits.check_choice, "kind", ("x", "y", "z")) == "kind is 'b'; it must be x, y or z."


@pytest.mark.parametrize("shares", [[], [0.5], [0.9, 1.0], [0.9, 0.5], [0.9, 0.9], [nan, 0.9]])
def test_a_list_is_refused_with_all_that_is_expected_of_it(shares):
    possible = "shares", "shares between 0 and 1", lambda each: 0 < each < 1, [0.9]
    words = f"shares is {shares}; it must hold ascending shares between 0 and 1, with 0.9 among them, they decide."
    assert refused(limits.check_list, *possible, "they decide", True, shares=shares) == words


def test_a_list_need_not_ascend_but_names_nothing_twice():
    possible = "shares", "shares between 0 and 1", lambda each: 0 < each < 1
    limits.check_list(Params(shares=[0.9, 0.5]), *possible)
    words = "shares is [0.9, 0.5, 0.9]; it must hold different shares between 0 and 1."
    assert refused(limits.check_list, *possible, shares=[0.9, 0.5, 0.9]) == words


def test_a_seed_leaves_room_for_those_that_are_derived_from_it():
    for seed in (0, 2**31 - 1):
        limits.check_seed(Params(seed=seed))
    words = "it must be from 0 to 2,147,483,647: those that are derived from it must be below 4,294,967,296."
    for seed in (-1, 2**31, 2**63):
        assert refused(limits.check_seed, seed=seed) == f"seed is {seed}; {words}"


@pytest.mark.parametrize("check", [limits.check_least, lambda params, _: limits.check_positive(params, "rate")])
def test_what_is_no_number_is_refused(check):
    assert refused(check, {"rate": 0}, rate=nan).startswith("rate is nan; it must be")
