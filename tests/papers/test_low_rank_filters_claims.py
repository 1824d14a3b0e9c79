"""What is measured for the claims of low-rank filters, on tables whose answers are known."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from papertwin import ledger
from papertwin.claims import exact_shares, judge
from papertwin.papers import low_rank_filters as paper
from papertwin.papers import low_rank_filters_claims as claims
from papertwin.training.intervals import t_interval

FULL = paper.Params(dataset="cifar10", side=32, width=1.0, train_images=45000, check_images=5000, epochs=300)
VGG, GOOGLENET, CIFAR = (paper.results(prefix) for prefix in ("", "GoogLeNet ", "CIFAR "))


def wrong(table, network, column="exact", value=False):
    changed = table.copy()
    changed.loc[changed["network"] == network, column] = value
    return changed


def rows_of(table):
    return table.set_index("network")


def test_shares_hold_and_one_wrong_number_flips_them():
    wanted = {("gmp-lr", "gmp", "macs"): 0.34}
    found = exact_shares(rows_of(VGG), wanted)
    assert found.value is True
    assert found.note == "gmp-lr: 0.3354 of gmp's macs"
    assert exact_shares(rows_of(VGG), {("gmp-lr", "gmp", "macs"): 0.33}).value is False
    for name in ("gmp", "gmp-lr"):
        assert exact_shares(rows_of(wrong(VGG, name)), wanted).value is False
    assert exact_shares(rows_of(wrong(VGG, "vgg-11")), wanted).value is True


def test_shares_of_several_pairs_need_every_count_and_every_share():
    wanted = {("gmp-lr", "gmp", "macs"): 0.34, ("gmp-lr-lde", "gmp stride2", "params"): 0.82}
    found = exact_shares(rows_of(VGG), wanted)
    assert found.value is True
    assert found.note == "gmp-lr: 0.3354 of gmp's macs; gmp-lr-lde: 0.8213 of gmp stride2's params"
    for pair in wanted:
        assert exact_shares(rows_of(VGG), wanted | {pair: wanted[pair] + 0.01}).value is False
        for name in pair[:2]:
            assert exact_shares(rows_of(wrong(VGG, name)), wanted).value is False


def test_41_per_cent_is_what_remains():
    found = claims.less_compute(VGG)
    assert found.value == pytest.approx(58.78, abs=0.01)
    assert "it needs 41.2% of them" in found.note
    quarter = wrong(wrong(VGG, "gmp-lr-2x", "macs", 25.0), "vgg-11", "macs", 100.0)
    assert claims.less_compute(quarter).value == 75.0
    assert claims.less_compute(quarter).note.startswith("it needs 25.0% of them")


def test_separable_filters_save_13_to_14_per_cent():
    assert claims.separable_saves(VGG).value is True
    assert claims.separable_saves(VGG).note == "13.09% saved"
    for name in ("gmp", "gmp-sf"):
        assert claims.separable_saves(wrong(VGG, name)).value is False
    assert claims.separable_saves(wrong(VGG, "gmp-lr")).value is True
    assert claims.separable_saves(wrong(VGG, "gmp-sf", "macs", 6_000_000_000)).value is False


@pytest.mark.parametrize(("left", "holds"), [(87_001, False), (86_999, True), (86_001, True), (85_999, False)])
def test_separable_filters_save_neither_less_nor_more(left, holds):
    table = wrong(wrong(VGG, "gmp", "macs", 100_000), "gmp-sf", "macs", left)
    assert claims.separable_saves(table).value is holds


def test_googlenet_like_for_like():
    assert claims.googlenet_saves(GOOGLENET, paper.PLAIN_IN_C).value is True
    assert claims.googlenet_saves(GOOGLENET, paper.PLAIN_IN_C + 1).value is False
    assert claims.googlenet_saves(wrong(GOOGLENET, "lr"), paper.PLAIN_IN_C).value is False
    assert claims.googlenet_saves(wrong(GOOGLENET, "lr", "params", 4_000_000), paper.PLAIN_IN_C).value is False
    assert claims.googlenet_saves(wrong(GOOGLENET, "GoogLeNet"), paper.PLAIN_IN_C).value is False
    assert claims.googlenet_saves(wrong(GOOGLENET, "lr-conv1"), paper.PLAIN_IN_C).value is True


@pytest.mark.parametrize(
    ("column", "plain", "low", "saved"),
    [
        ("macs", 1_650_000_000, 1_178_239_528, (28.6, 41.3, 33.1, 35.3)),
        ("params", 10_000_000, 6_140_000, (25.9, 38.6, 33.1, 35.0)),
        ("macs", 1_750_000_000, 1_295_945_000, (25.9, 41.3, 26.4, 35.3)),
        ("params", 59_735_520, 35_036_640, (25.9, 41.3, 33.1, 40.6)),
    ],
    ids=["as printed", "parameters", "equal maps", "classifiers"],
)
def test_one_wrong_share_of_googlenet_is_enough(column, plain, low, saved):
    table = wrong(wrong(GOOGLENET, "GoogLeNet", column, plain), "lr", column, low)
    found = claims.googlenet_saves(table, paper.PLAIN_IN_C)
    texts = (
        "operations as printed",
        "parameters as printed",
        "operations on equal maps",
        "parameters with classifiers",
    )
    assert found.note == "; ".join(f"{text}: {share}% saved" for text, share in zip(texts, saved))
    assert found.value is False


def test_nin_c3_has_four_fifths_of_the_parameters():
    assert claims.share_of_parameters(CIFAR).value == pytest.approx(80.0, abs=0.01)
    table = pd.DataFrame({"network": ["nin-c3-lr", "NiN", "nin-c3"], "params": [30, 200, 50], "macs": [1, 2, 3]})
    assert claims.share_of_parameters(table).value == 25.0
    assert "54 % is the share of nin-c3-lr's multiply-accumulates" in claims.share_of_parameters(table).note


def trials(errors):
    rows = [(name, seed, value + 0.1 * seed * (name == "gmp")) for name, value in errors.items() for seed in (1, 2, 3)]
    return pd.DataFrame(rows, columns=["network", "seed", "test error"])


def test_signs_of_what_is_compared():
    table = trials({"gmp": 20.0, "gmp-lr": 21.0})
    assert claims.worse_by(table, "gmp-lr", "gmp").value == pytest.approx(0.8)
    assert claims.worse_by(table, "gmp-lr", "gmp", sign=-1).value == pytest.approx(-0.8)
    assert claims.worse_by(table, "gmp-lr", "gmp", sign=-1).note.startswith("accuracy")


def test_gradients_need_five_seeds():
    falls = pd.DataFrame([[0.5] * 5, [9.0] * 5, [20.0] * 5, [60.0] * 5], index=list(paper.RULES))
    found = claims.gradients_kept(falls)
    assert found.value == 0.5
    assert "own 9.0, torch 20.0, 0.01 60.0" in found.note
    assert claims.gradients_kept(falls.iloc[:, :4]).value is None


def test_gradients_are_kept_within_the_t_interval_of_the_shared_rule():
    falls = pd.DataFrame([[0.1, 0.2, 0.3, 0.4, 1.5], *([rule] * 5 for rule in (9.0, 20.0, 60.0))], list(paper.RULES))
    found = claims.gradients_kept(falls)
    assert found.value == pytest.approx(0.5)
    assert found.interval == pytest.approx(t_interval(falls.loc["shared"].to_numpy()))
    # 2.776 is Student's quantile of four degrees of freedom; the deviation of the five values is 0.5701
    assert found.interval == pytest.approx((0.5 - 2.776 * 0.5701 / 5**0.5, 0.5 + 2.776 * 0.5701 / 5**0.5), abs=1e-3)


def starts(errors):
    return [paper.Start(rule, seed, (1.0,), error + seed) for rule, error in errors.items() for seed in (1, 2, 3)]


def test_gain_is_in_accuracy():
    found = claims.start_gain(starts({"shared": 30.0, "0.01": 88.0}), "0.01")
    assert found.value == pytest.approx(58.0)
    assert "errors 32.0 and 90.0 %" in found.note


def test_a_rule_that_errs_less_than_the_shared_one_gains_less_than_nothing():
    found = claims.start_gain(starts({"own": 25.0, "torch": 70.0, "shared": 30.0}), "own")
    assert found.value == pytest.approx(-5.0)
    assert found.note == "accuracy, points; errors 32.0 and 27.0 %; per seed -5.00, -5.00, -5.00"


def test_gains_are_paired_by_seed():
    errors = {"shared": (30.0, 31.0, 33.0), "own": (40.0, 43.0, 47.0)}
    found = [paper.Start(rule, 3 - k, (1.0,), errors[rule][2 - k]) for k in range(3) for rule in errors]
    assert claims.start_gain(found, "own").note.endswith("per seed +10.00, +12.00, +14.00")
    assert claims.start_gain(found, "own").interval == pytest.approx(t_interval(np.array([10.0, 12, 14])))
    assert claims.start_gain(found[:4], "own").value is None


def test_time_is_the_median_of_the_ratios():
    found = claims.saves_time(pd.DataFrame({"gmp": [2.0, 2.0, 100.0], "gmp-lr": [1.0, 1.2, 1.4]}))
    assert found.value == pytest.approx(0.5)
    assert found.interval == pytest.approx((0.014, 0.6))
    assert found.note == "1 and 2 ms"


# Marks of a Golomb ruler, no two of which are equally far apart: each pair of networks has a difference of its own.
MARKS = {
    "gmp": 28,
    "gmp-sf": 64,
    "gmp-lr": 33,
    "gmp-lr-2x": 0,
    "gmp-lr-join": 47,
    "gmp-lr-join-wfull": 13,
    "gmp stride2": 1,
    "gmp-lr-lde": 72,
    "NiN": 4,
    "nin-c3": 54,
    "nin-c3-lr": 70,
}
START_MARKS = {"shared": 30.0, "own": 42.0, "torch": 57.0, "0.01": 81.0}  # a ruler as well


def every(params):
    """Every claim on networks, rules and rounds of which no two are alike."""
    table = pd.DataFrame(
        [
            (name, seed, 20 + 0.05 * mark + 0.01 * place * (seed - 2))
            for place, (name, mark) in enumerate(MARKS.items())
            for seed in (1, 2, 3)
        ],
        columns=["network", "seed", "test error"],
    )
    falls = pd.DataFrame(
        [[0.3, 0.4, 0.5, 0.6, 0.9], [7.0, 8, 9, 10, 12], [19.0, 20, 21, 22, 25], [60.0, 61, 62, 63, 69]],
        index=list(paper.RULES),
    )
    found = [
        paper.Start(rule, seed, (1.0,), mark + 0.5 * place * (seed - 2))
        for place, (rule, mark) in enumerate(START_MARKS.items())
        for seed in (1, 2, 3)
    ]
    times = pd.DataFrame({"gmp": [100.0, 110.0, 120.0], "gmp-lr": [40.0, 46.2, 54.0]})
    return claims.every_claim(params, table, falls, found, times)


@pytest.mark.parametrize("marks", [MARKS, START_MARKS], ids=["networks", "rules"])
def test_no_two_pairs_differ_by_the_same(marks):
    differences = [round(first - second, 6) for first, second in permutations(marks.values(), 2)]
    assert len(set(differences)) == len(differences)


def test_every_claim_is_measured_on_its_own_networks_rules_and_tables():
    measured = every(paper.Params())
    notes = {
        "C1a": "gmp-lr-2x: 0.2356 of vgg-11's params; gmp-lr-2x: 0.4122 of vgg-11's macs",
        "C2a": "gmp-lr-join-wfull: 0.8440 of gmp's macs",
        "C3a": "gmp-lr: 0.3354 of gmp's macs; gmp-lr-join: 0.5133 of gmp's macs",
        "C3e": "gmp-lr-lde: 0.1364 of gmp's macs; gmp-lr-lde: 0.5406 of gmp stride2's macs",
        "C4a": "13.09% saved",
        "C5a": "operations as printed: 25.9% saved; parameters as printed: 41.3% saved; "
        "operations on equal maps: 33.1% saved; parameters with classifiers: 35.3% saved",
        "C6a": "nin-c3-lr: 0.5406 of NiN's macs; nin-c3-lr: 0.4534 of NiN's params; nin-c3: 0.7420 of NiN's macs",
    }
    for claim, note in notes.items():
        assert (claim, measured[claim].value, measured[claim].note) == (claim, True, note)
    values = {
        "C1b": (58.776, "it needs 41.2% of them"),
        "C2c": (0.75, "accuracy, points; per seed +0.80, +0.75, +0.70"),
        "C3c": (0.25, "error, points; per seed +0.23, +0.25, +0.27"),
        "C3d": (-0.7, "error, points; per seed -0.68, -0.70, -0.72"),
        "C4c": (1.8, "error, points; per seed +1.79, +1.80, +1.81"),
        "C6b": (80.005, "nin-c3-lr's multiply-accumulates"),
        "C6d": (0.8, "error, points; per seed +0.79, +0.80, +0.81"),
        "C7a": (0.54, "powers of two; own 9.2, torch 21.4, 0.01 63.0"),
        "C7b": (51.0, "accuracy, points; errors 30.0 and 81.0 %; per seed +49.50, +51.00, +52.50"),
        "C7c": (27.0, "accuracy, points; errors 30.0 and 57.0 %; per seed +26.00, +27.00, +28.00"),
        "C7d": (12.0, "accuracy, points; errors 30.0 and 42.0 %; per seed +11.50, +12.00, +12.50"),
        "C8": (0.42, "46 and 110 ms"),
    }
    for claim, (value, note) in values.items():
        assert (claim, measured[claim].value) == (claim, pytest.approx(value, abs=1e-3))
        assert note in measured[claim].note
    missing = {**dict.fromkeys(("C1c", "C2b", "C3b", "C3f", "C4b", "C5b"), "needs ImageNet"), "C6c": "needs CIFAR-10"}
    for claim, note in missing.items():
        assert (claim, measured[claim].value) == (claim, None)
        assert measured[claim].note.startswith(note)
    assert set(measured) == {*notes, *values, *missing}


def test_at_full_size_one_claim_more_is_measured_and_no_other_changes():
    measured, full = (
        every(paper.Params()),
        every(FULL),
    )
    assert full["C6c"].value == pytest.approx(3.3)
    assert full["C6c"].note == "error, points; per seed +3.28, +3.30, +3.32"
    assert {claim for claim in measured if measured[claim] != full[claim]} == {"C6c"}
    book = ledger.load("low_rank_filters")
    verdicts = {each.claim.id: str(each.verdict) for each in judge(book, "paper", full)}
    assert verdicts["C6c"] == "NOT REPRODUCED"


def test_every_claim_of_the_ledger_is_measured():
    measured = every(paper.Params())
    book = ledger.load("low_rank_filters")
    assert set(measured) == {claim.id for claim in book.claims}
    verdicts = {each.claim.id: str(each.verdict) for each in judge(book, "quick", measured)}
    reproduced = (
        "C1a",
        "C2a",
        "C2c",
        "C3a",
        "C3c",
        "C3d",
        "C3e",
        "C4a",
        "C4c",
        "C5a",
        "C6a",
        "C6d",
        "C7a",
        "C7b",
        "C7c",
        "C7d",
        "C8",
    )
    assert {claim for claim, verdict in verdicts.items() if verdict == "REPRODUCED"} == set(reproduced)
    assert {claim for claim, verdict in verdicts.items() if verdict == "NOT REPRODUCED"} == {"C1b", "C6b"}
    assert {claim for claim, verdict in verdicts.items() if verdict == "NOT JUDGED"} == {
        *("C1c", "C2b", "C3b", "C3f", "C4b", "C5b", "C6c")
    }


def test_only_the_full_size_decides_about_cifar():
    found = claims.worse_by(trials({"gmp": 20.0, "gmp-lr": 21.0}), "gmp-lr", "gmp")
    assert claims.at_full_size(paper.Params(), found).value is None
    assert claims.at_full_size(FULL, found).value == pytest.approx(0.8)
