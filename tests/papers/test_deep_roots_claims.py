"""What is measured for the claims of Deep Roots, on tables whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from papertwin import ledger
from papertwin.claims import judge
from papertwin.papers import deep_roots as paper
from papertwin.papers import deep_roots_claims as claims
from papertwin.papers import deep_roots_times as times_of

COLUMNS = ["network", "blocks", "seed", "contrast", "permuted", "before training"]
TABLES = {family: paper.results(family) for family in paper.FAMILIES}
SHARES = {"root-64": {"params": 0.60, "macs": 0.55}, "root-16": {"params": 0.73, "macs": 0.63}}


def test_counts_hold_and_one_wrong_number_flips_them():
    table = TABLES["ResNet-50"]
    found = claims.saved(table, "Orig.", SHARES)
    assert found.value is True
    assert "root-64: 0.6004 of params" in found.note
    assert claims.saved(table, "Orig.", {"root-64": {"params": 0.61}}).value is False
    for name in ("Orig.", "root-16"):
        wrong = table.copy()
        wrong.loc[name, "exact"] = False
        assert claims.saved(wrong, "Orig.", SHARES).value is False


def test_resnet_200_saves_far_more_than_it_says():
    found = claims.operations_saved(TABLES["ResNet-200"])
    assert found.value == pytest.approx(45.6, abs=0.1)
    assert "falls by 25.1%" in found.note


def test_resnet_200_parameters_are_judged_by_the_rule_of_the_publication():
    found = claims.parameters_saved(TABLES["ResNet-200"])
    assert found.value is True
    assert "of all its parameters it saves 42.3%" in found.note


def test_alexnet_saves_hardly_any_weights():
    found = claims.alexnet_weights(TABLES["AlexNet"])
    assert found.value == pytest.approx(100 * (1 - 60_965_224 / 62_378_344))
    assert "56.7% more multiply-accumulates" in found.note
    assert claims.alexnet_counts(TABLES["AlexNet"]).value is True
    assert claims.alexnet_counts(TABLES["AlexNet"].assign(exact=[True, False, True])).value is False
    assert claims.alexnet_counts(TABLES["AlexNet"].iloc[:2]).value is False


def trials(*rows):
    columns = ["network", "kind", "MACs", "validation error", "test error"]
    table = pd.DataFrame(rows, columns=columns)
    return pd.concat([table.assign(seed=seed) for seed in (1, 2, 3)], ignore_index=True)


def test_roots_are_the_reference_and_others_what_is_compared():
    rows = [("standard", "standard", 400, 10.0, 12.0), ("root-8", "root", 100, 20.0, 22.0)]
    rows += [("tree-2", "tree", 200, 50.0, 20.0), ("column-2", "column", 400, 50.0, 13.0)]
    table = trials(*rows)
    assert claims.root_beats_others(table).value == pytest.approx((20 - 17 + 13 - 12) / 2)
    assert claims.root_loses_little(table).value == pytest.approx(10.0)
    assert claims.root_beats_others(table[table["seed"] < 3]).value is None


def test_only_the_full_size_decides_about_cifar():
    found = claims.root_loses_little(trials(("standard", "standard", 2, 1.0, 2.0), ("root-8", "root", 1, 1.0, 2.5)))
    assert claims.at_full_size(paper.Params(), found).value is None
    full = paper.Params(dataset="cifar10", side=32, width=1.0)
    assert claims.at_full_size(full, found).value == pytest.approx(0.5)


def test_time_is_the_median_of_the_ratios_round_by_round_at_the_smallest_batch():
    keys = [(name, batch, way) for name in "ab" for batch in (16, 1) for way in ("eager", "fastest")]
    values = np.ones((5, len(keys)))
    times = pd.DataFrame(values, columns=pd.MultiIndex.from_tuples(keys, names=["network", "batch", "way"]))
    times["a", 1, "eager"] = [1.0, 2.0, 3.0, 4.0, 50.0]
    times["b", 1, "eager"] = [2.0, 2.0, 2.0, 2.0, 100.0]
    times["b", 1, "fastest"] = 4.0
    found = claims.faster(times, "a", "b")
    assert found.value == 1.0
    assert found.interval[0] <= 0.5 <= 1.5 <= found.interval[1] + 1
    assert found.note.startswith("3.0 and 2.0 ms, batch 1; 0.25 in the way fastest")


def test_blocks():
    names = [("standard", 2, 0.0), ("standard", 4, 0.1), ("root-4", 2, 0.4), ("root-8", 4, 0.3)]
    rows = [(name, blocks, seed, value, 0.05, 0.15) for seed in (1, 2, 3) for name, blocks, value in names]
    table = pd.DataFrame(rows, columns=COLUMNS)
    assert claims.blocks_are_seen(table).value == pytest.approx(0.2)
    assert "root-8 with 4 blocks 0.30" in claims.blocks_are_seen(table).note
    assert claims.blocks_beat_chance(table).value == pytest.approx(0.25)


def test_every_claim_of_the_ledger_is_measured():
    rows = [("standard", "standard", 400, 10.0, 12.0), ("root-8", "root", 100, 20.0, 22.0)]
    table = trials(*rows, ("tree-2", "tree", 200, 50.0, 20.0))
    names = [("standard", 2, 0.0), ("standard", 4, 0.1), ("root-4", 2, 0.4), ("root-8", 4, 0.5)]
    blocks = [(name, number, seed, value, 0.05, 0.15) for seed in (1, 2, 3) for name, number, value in names]
    contrasts = pd.DataFrame(blocks, columns=COLUMNS)
    timed = [*times_of.EVERY_WAY]
    keys = pd.MultiIndex.from_product([timed, [1], times_of.WAYS], names=["network", "batch", "way"])
    times = pd.DataFrame(np.ones((4, len(keys))), columns=keys)
    found = claims.every_claim(paper.Params(), table, contrasts, times)
    book = ledger.load("deep_roots")
    assert set(found) == {claim.id for claim in book.claims}
    verdicts = {each.claim.id: str(each.verdict) for each in judge(book, "quick", found)}
    for claim in ("C1a", "C3a", "C4a", "C5a", "C6a", "C7a", "C7b"):
        assert verdicts[claim] == "REPRODUCED"
    for claim in ("C4b", "C6c", "C1d", "C3c", "C5c"):
        assert verdicts[claim] == "NOT REPRODUCED"
    for claim in ("C1b", "C1e", "C2a", "C3b", "C3d", "C5b", "C5d", "C6b"):
        assert verdicts[claim] == "NOT JUDGED"
