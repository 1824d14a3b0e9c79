"""What is measured for the claims on conditional networks, on tables and trials whose answers are known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from papertwin.papers import conditional_networks_claims as claims
from papertwin.papers.conditional_networks import Ensemble, counts_table

COUNTS = counts_table()


def changed(name, column, value):
    table = COUNTS.copy()
    table.loc[name, column] = value
    return table


def test_counts_of_the_paper_hold_and_one_wrong_number_flips_each():
    assert claims.pooling_saves(COUNTS, claims.WIDE).value is True
    assert claims.pooling_saves(COUNTS, claims.WIDE + 1).value is False
    assert claims.pooling_saves(changed("VGG11 stride1", "exact", False), claims.WIDE).value is False
    assert claims.conditional_saves(COUNTS).value is True
    assert "0.4553 of the multiply-accumulates, 0.2126" in claims.conditional_saves(COUNTS).note
    assert claims.conditional_saves(changed("Cond. Network stride1", "params", 30_000_000)).value is False
    assert claims.cifar_counts(COUNTS).value is True
    assert claims.cifar_counts(changed("CIFAR NiN-64", "params", 1_264_650 - 2000)).value is False
    assert claims.cifar_counts(changed("CIFAR NiN", "params", 966_986 + 1000)).value is False  # larger than its file


def test_paired_differences_have_the_sign_that_the_claims_say():
    rows = [("plain", s, e) for s, e in ((1, 20.0), (2, 22.0), (3, 24.0))]
    rows += [("GMP", s, e) for s, e in ((3, 23.0), (1, 19.5), (2, 20.5))]
    rows += [("conditional", s, e) for s, e in ((2, 22.5), (1, 21.0), (3, 25.5))]
    table = pd.DataFrame(rows, columns=["network", "seed", "test error"])
    assert claims.pooling_helps(table).value == pytest.approx(1.0)  # accuracy rises by 0.5, 1.5 and 1 point
    assert "per seed +0.50, +1.50, +1.00" in claims.pooling_helps(table).note
    assert claims.conditional_loses_little(table).value == pytest.approx(1.0)
    assert "per seed +1.00, +0.50, +1.50" in claims.conditional_loses_little(table).note


def perceptron(cheap_error):
    """A dense layer of cost 100 and error 10 %, a tree of a quarter of the cost, one of a half, one too dear."""
    rows = [(4, 1, 25, 90, 15.0, cheap_error), (4, 2, 50, 20, 11.0, 10.5), (4, 3, 80, 10, 5.0, 9.0)]
    columns = ["routes", "evaluated", "validation MACs", "test MACs", "validation error", "test error"]
    return SimpleNamespace(dense=(100, 9.0, 10.0), trees=pd.DataFrame(rows, columns=columns))


def test_the_cheap_tree_is_chosen_on_validation_images_alone():
    found = [perceptron(error) for error in (14.0, 15.0, 16.0)]
    quarter, half = claims.cheap_last_layer(found, 4), claims.cheap_last_layer(found, 2)
    assert quarter.value == pytest.approx(5.0)
    assert half.value == pytest.approx(0.5)  # the tree of 50 wins on validation, though dearer trees do better on test
    assert "4/2, 4/2, 4/2" in half.note
    none = claims.cheap_last_layer(found, 10)
    assert none.value is None
    assert none.note == "no tree is 10 times as cheap; the cheapest has 25% of the cost"


def ensemble(first, second, chosen):
    return Ensemble(SimpleNamespace(ends=((1.0, first), (10.0, second))), (4.2, chosen))


def test_the_share_of_the_fall_and_a_seed_without_one():
    good = [ensemble(0.30, 0.20, 0.22), ensemble(0.30, 0.20, 0.24), ensemble(0.30, 0.20, 0.20)]
    assert claims.below_the_chord(good).value == pytest.approx((0.8 + 0.6 + 1.0) / 3)
    flat = claims.below_the_chord([*good, ensemble(0.20, 0.20, 0.19)])
    assert flat.value is None
    assert "30.0 → 20.0 %" in flat.note


def test_time_is_compared_repeat_by_repeat():
    slow = np.array([10.0, 20.0, 30.0])
    times = pd.DataFrame({"routed, 1 of 4": 0.5 * slow, "routed, 4 of 4": slow})
    found = claims.routing_saves_time(times)
    assert found.value == pytest.approx(0.5)
    assert found.interval == pytest.approx((0.5, 0.5))


def test_cifar_errors_are_compared_with_the_published_ones():
    assert claims.cifar_errors([], COUNTS) is claims.CIFAR
    published = COUNTS["error"]
    trials = [
        SimpleNamespace(name=name, seed=seed, test_error=(published[name] + shift + 0.1 * seed) / 100)
        for name, shift in (("CIFAR NiN", 0.0), ("CIFAR NiN-64", -0.9))
        for seed in (-1, 0, 1)
    ]
    assert claims.cifar_errors(trials, COUNTS).value == pytest.approx(0.9)
    assert claims.cifar_errors(trials[:2], COUNTS).value is None
