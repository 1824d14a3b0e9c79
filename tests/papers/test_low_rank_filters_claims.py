"""What is measured for the claims of low-rank filters, on tables whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from papertwin import ledger
from papertwin.claims import judge
from papertwin.papers import low_rank_filters as paper
from papertwin.papers import low_rank_filters_claims as claims

VGG, GOOGLENET, CIFAR = (paper.results(prefix) for prefix in ("", "GoogLeNet ", "CIFAR "))


def wrong(table, network, column="exact", value=False):
    changed = table.copy()
    changed.loc[changed["network"] == network, column] = value
    return changed


def test_shares_hold_and_one_wrong_number_flips_them():
    wanted = {("gmp-lr", "gmp", "macs"): 0.34}
    found = claims.shares(VGG, wanted)
    assert found.value is True
    assert found.note == "gmp-lr: 0.3354 of gmp's macs"
    assert claims.shares(VGG, {("gmp-lr", "gmp", "macs"): 0.33}).value is False
    for name in ("gmp", "gmp-lr"):
        assert claims.shares(wrong(VGG, name), wanted).value is False
    assert claims.shares(wrong(VGG, "vgg-11"), wanted).value is True


def test_41_per_cent_is_what_remains():
    found = claims.less_compute(VGG)
    assert found.value == pytest.approx(58.78, abs=0.01)
    assert "it needs 41.2% of them" in found.note


def test_separable_filters_save_13_to_14_per_cent():
    assert claims.separable_saves(VGG).value is True
    assert claims.separable_saves(wrong(VGG, "gmp-sf")).value is False
    assert claims.separable_saves(wrong(VGG, "gmp-sf", "macs", 6_000_000_000)).value is False


def test_googlenet_like_for_like():
    assert claims.googlenet_saves(GOOGLENET, paper.PLAIN_IN_C).value is True
    assert claims.googlenet_saves(GOOGLENET, paper.PLAIN_IN_C + 1).value is False
    assert claims.googlenet_saves(wrong(GOOGLENET, "lr"), paper.PLAIN_IN_C).value is False
    assert claims.googlenet_saves(wrong(GOOGLENET, "lr", "params", 4_000_000), paper.PLAIN_IN_C).value is False


def test_nin_c3_has_four_fifths_of_the_parameters():
    assert claims.share_of_parameters(CIFAR).value == pytest.approx(80.0, abs=0.01)


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


def starts(errors):
    return [paper.Start(rule, seed, (1.0,), error + seed) for rule, error in errors.items() for seed in (1, 2, 3)]


def test_gain_is_in_accuracy():
    found = claims.start_gain(starts({"shared": 30.0, "0.01": 88.0}), "0.01")
    assert found.value == pytest.approx(58.0)
    assert "errors 32.0 and 90.0 %" in found.note


def test_time_is_the_median_of_the_ratios():
    found = claims.saves_time(pd.DataFrame({"gmp": [2.0, 2.0, 100.0], "gmp-lr": [1.0, 1.2, 1.4]}))
    assert found.value == pytest.approx(0.5)
    assert found.note == "1 and 2 ms"


def test_every_claim_of_the_ledger_is_measured():
    names = dict.fromkeys([*paper.SCHEMES, *paper.NIN], 20.0)
    table = trials(names)
    falls = pd.DataFrame(np.full((4, 5), 0.5), index=list(paper.RULES))
    found = starts({"shared": 30.0, "0.01": 80.0, "torch": 80.0, "own": 60.0})
    times = pd.DataFrame({"gmp": [2.0] * 3, "gmp-lr": [0.9] * 3})
    measured = claims.every_claim(paper.Params(), table, falls, found, times, paper.PLAIN_IN_C)
    book = ledger.load("low_rank_filters")
    assert set(measured) == {claim.id for claim in book.claims}
    verdicts = {each.claim.id: str(each.verdict) for each in judge(book, "quick", measured)}
    reproduced = (
        "C1a",
        "C2a",
        "C3a",
        "C3c",
        "C3d",
        "C3e",
        "C4a",
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
    full = paper.Params(dataset="cifar10", side=32, width=1.0)
    assert claims.at_full_size(full, found).value == pytest.approx(0.8)
