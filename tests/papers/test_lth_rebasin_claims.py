"""Claims and tables on lottery tickets, on rows in which every training has a value of its own."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from papertwin import ledger
from papertwin.claims import judge
from papertwin.figures import readable
from papertwin.papers import lth_rebasin as paper
from papertwin.papers import lth_rebasin_claims as claims
from papertwin.papers import lth_rebasin_studies as studies
from papertwin.papers import lth_rebasin_tables as tables

QUICK = paper.Params()
BOOK = ledger.load("lth_rebasin")
LARGE = {"dataset": "cifar10", "side": 32, "network": "resnet", "epochs": 200, "rewinds": [0, 20, 75], "near": 20}
OWN_SETTINGS = {"train_images": 45000, "conv_images": 45000, "prune_epochs": 50, "rate": 0.08, "sparse_rate": 0.02}
FULL = paper.Params(**LARGE, **OWN_SETTINGS, far=75, early=[5], conv_epochs=200, conv_rewind=50, vgg_width=1.0)
OWN = {"LTH": 3.0, "permuted": 2.0, "naive": 0.5, "random": 0.25}  # points, times the sparsity's and the width's factor


def accuracy(job, noise):
    """Of a training, per cent: every field has an effect of its own."""
    scale = (2 if job.sparsity == 0.97 else 1) * (1 if job.width == 1 else 0.5)
    value = 80 + job.width + scale * OWN[job.method] - 5 * (job.sparsity == 0.97) + 0.01 * job.seed
    value += {"LTH": 0.3, "permuted": 0.2, "naive": -0.4, "random": 0.0}[job.method] * job.rewind
    return value - 0.15 * (job.matched == 1) - 7 * (job.member > 0) - 20 * (job.network != "grid") + noise


def table_of(params, noise=0.05):
    own = np.random.default_rng(0)
    rows = []
    for job in paper.every_job(params):
        row = {name: getattr(job, name) for name in ("network", "width", "method", "sparsity", "rewind", "seed")}
        row |= {"member": job.member, "matched": job.matched, "validation accuracy": own.uniform(0, 100)}
        rows.append(row | {"test accuracy": accuracy(job, own.uniform(-noise, noise))})
    for job in paper.every_dense(params):
        row = {"network": job.network, "width": job.width, "sparsity": 0.0, "rewind": 0, "seed": job.seed}
        row |= {
            "method": "dense A" if job.sparsities else "dense B",
            "matched": 0,
            "member": int(job.order != job.seed),
        }
        rows.append(row | {"test accuracy": 90 + job.width, "validation accuracy": 0.0})
    return pd.DataFrame(rows).sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def table():
    return table_of(QUICK)


@pytest.fixture(scope="module")
def barriers():
    heights = dict(zip(studies.LINES, (2.0, 0.9, 0.7, 0.4, 0.1)))
    rows = []
    for network, width, seeds in (("grid", 1.0, 5), ("grid", 2.0, 3), ("grid", 4.0, 5), ("resnet", 1.0, 3)):
        for seed in range(1, seeds + 1):
            for line, height in heights.items():
                value = height / width + 0.01 * seed + (50 if network == "resnet" else 0)
                rows.append((network, width, seed, line, value, 80 - 10 * value))
    return pd.DataFrame(rows, columns=["network", "width", "seed", "line", "barrier", "lowest"])


@pytest.fixture(scope="module")
def rounds():
    rows = [
        {
            "seed": seed,
            "round": number,
            "kind": kind,
            "barrier": number * (0.01 if kind == "plain" else 0.001) + seed / 1e4,
        }
        for seed in (1, 2, 3)
        for number in (1, 2, 11)
        for kind in studies.KINDS
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def groups():
    own = {"LTH": (84.4, 84.5, 2.5), "naive": (83, 84.6, 10.5), "permuted": (83.5, 85.0, 9.5), "IMP": (81, 83.9, 14.0)}
    rows = []
    for seed in (1, 2, 3):
        for name, (single, ensemble, apart) in own.items():
            row = {"seed": seed, "method": name, "single": single, "ensemble": ensemble + 0.01 * seed * len(name)}
            rows.append(row | {"disagreement": apart + 0.1 * seed, "KL": apart / 100, "JS": apart / 500})
    return pd.DataFrame(rows).sample(frac=1, random_state=1)


MATCHED = [SimpleNamespace(gap=gap, commutes=True) for gap in (1e-15, 3e-14, 2e-15)]


@pytest.fixture(scope="module")
def measured(table, barriers, rounds, groups):
    return claims.every_claim(QUICK, table, barriers, rounds, groups, dict(enumerate(MATCHED)))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("C1b", 1.5 + 0.6),  # width 1, 90 %, k = 1
        ("C1c", 1.0 + 0.1),
        ("C1d", 1.5 + 1.2),  # width 4, 97 %, k = 2: twice by sparsity, half by width
        ("C1e", 1.0 + 0.2),
        ("C2a", 1.5),
        ("C2b", 1.0),
        ("C3a", 3.0),
        ("C3b", 0.4),
        ("C3c", 0.6),
        ("C3d", -0.8),
        ("C6a", 7.0),
        ("C6b", 1.5 - 0.1 + 0.02 * 5),
        ("C7a", 0.3),
        ("C7b", 0.011 + 0.0002),
        ("C7c", 0.4),
        ("C8", 0.15),
        ("C9a", 3e-14),
        ("C9c", -0.5 + 0.4),
    ],
)
def test_the_measured_value_is_that_of_its_trainings(measured, claim, value):
    assert measured[claim].value == pytest.approx(value, abs=0.06 if claim[1] in "1238" or claim == "C9c" else 1e-9)


def test_seeds_are_paired(measured):
    counts = {
        claim: each.note.split("per seed ")[1].count(",") + 1 for claim, each in measured.items() if each.interval
    }
    assert {name for name, count in counts.items() if count == 3} == {"C6a", "C6b", "C7b"}
    assert all(count in (3, 5) for count in counts.values())
    low, high = measured["C1b"].interval
    assert high - low < 0.2  # what seeds share drops out


def test_every_claim_is_judged_or_says_why_not(measured):
    verdicts = {each.claim.id: str(each.verdict) for each in judge(BOOK, "quick", measured)}
    assert {name for name, each in verdicts.items() if each == "NOT JUDGED"} == {"C1a", "C2c", "C4", "C5"}
    assert verdicts["C3a"] == "NOT REPRODUCED"
    assert {verdicts[name] for name in ("C1b", "C2a", "C6a", "C7a", "C7b", "C8", "C9a", "C9b", "C9c")} == {"REPRODUCED"}
    for name in ("C1a", "C2c", "C4", "C5"):
        assert measured[name].note


def test_one_pair_that_does_not_commute_refutes():
    assert claims.commuting(MATCHED).value is True
    broken = claims.commuting([*MATCHED, SimpleNamespace(gap=0.0, commutes=False)])
    assert (broken.value, broken.note) == (False, "3 of 4 pairs of networks")


def test_full_size_judges_the_papers_own_claims(barriers, rounds, groups):
    table = table_of(FULL, noise=0.0)
    measured = claims.every_claim(FULL, table, barriers, rounds, groups, dict(enumerate(MATCHED)))
    assert measured["C1a"].value == pytest.approx(min(1.0 + 0.1 * 20, 1.5 + 0.6 * 20))
    assert measured["C4"].value == pytest.approx(1.5 + 0.6 * 50)
    assert measured["C2c"].value is None
    verdicts = {each.claim.id: str(each.verdict) for each in judge(BOOK, "paper", measured)}
    assert verdicts["C1a"] == verdicts["C4"] == "REPRODUCED"


def test_the_claim_about_cifar_100_is_judged_on_cifar_100(barriers, rounds, groups):
    other = replace(FULL, dataset="cifar100", widths=[1.0, 4.0, 16.0], rewinds=[0, 20, 75, 100])
    table, matched = table_of(other, noise=0.0), dict(enumerate(MATCHED))
    measured = claims.every_claim(other, table, barriers, rounds, groups, matched)
    rows = table[(table["network"] == "grid") & (table["member"] == 0) & (table["matched"] == 0)]
    rows = rows[(rows["width"] == 16.0) & (rows["sparsity"] == 0.97) & (rows["rewind"] == 100)].set_index("method")
    means = rows.groupby("method")["test accuracy"].mean()
    assert measured["C2c"].value == pytest.approx(means["permuted"] - means["naive"])
    assert measured["C1a"].value is None
    for change in ({"widths": [1.0, 4.0, 8.0]}, {"rewinds": [0, 20, 75]}, {"base": 0.5}, {"dataset": "cifar10"}):
        less = replace(other, **change)
        assert claims.every_claim(less, table, barriers, rounds, groups, matched)["C2c"].value is None, change


def test_the_smaller_gap_counts_for_each_seed():
    rows = [("LTH", 3.0, 1.0, 4.0), ("permuted", 2.0, 0.5, 3.0), ("naive", 0.0, 0.25, 4.0)]
    frame = pd.DataFrame(
        [
            {
                "method": name,
                "width": 1.0,
                "sparsity": 0.9,
                "rewind": 1,
                "matched": 0,
                "seed": seed,
                "test accuracy": each,
            }
            for name, *values in rows
            for seed, each in enumerate(values)
        ]
    )
    assert claims.ordered(frame, 1).note.endswith("+1.00, +0.25, -1.00")


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_ours_and_published_stand_in_one_table(table):
    rows = tables.at(tables.usual(table, "grid"), width=1.0)
    found = tables.beside_published(rows, BOOK.published["cifar10"]["w1"])
    assert found.loc[("published", 0.9, "20", "LTH"), "mean"] == 91.18
    assert np.isnan(found.loc[("published", 0.9, "20", "LTH"), "lowest"])
    mine = table.query("network == 'grid' and width == 1 and method == 'naive' and sparsity == 0.97 and rewind == 2")
    assert found.loc[("here", 0.97, "2", "naive"), "mean"] == pytest.approx(mine["test accuracy"].mean())
    assert found.loc[("here", 0.9, "1", "permuted"), "lowest"] > 80  # no early matching, no members
    assert set(found.loc["here"].index.get_level_values("method")) == {"LTH", "naive", "permuted"}


def test_a_network_that_was_not_trained_has_published_rows_only(table):
    found = tables.beside_published(tables.usual(table, "vgg"), BOOK.published["vgg11"])
    assert found.index.get_level_values("whose").tolist() == ["published"] * 3
    large = tables.resnet50_table(BOOK.published["resnet50"])
    assert large["weights"].nunique() == 1
    assert 1.0e6 < large["weights"].iloc[0] < 1.3e6


def test_curves_are_means_over_seeds_with_dense_as_one_level(table):
    rows = tables.at(tables.usual(table, "grid"), width=4.0, sparsity=0.97)
    found = tables.curves(rows, "rewind")
    assert list(found) == ["LTH", "naive", "permuted", "dense B"]
    assert found["LTH"].index.tolist() == [0, 1, 2]
    assert found["dense B"]["mean"].tolist() == [94.0]


def test_published_points_are_those_whose_rewind_point_is_known():
    assert tables.published_at(BOOK.published["cifar10"]["w4"], 0.97) == {
        75: {"LTH": 94.94, "naive": 92.02, "permuted": 94.32}
    }
    assert tables.published_at(BOOK.published["cifar100"]["w1"], 0.97) == {}
    assert tables.published_at({}, 0.9) == {}


def test_the_axis_has_room_for_the_papers_methods(table):
    rows = tables.usual(table, "grid")
    low, high = tables.span(tables.at(rows, sparsity=0.97))
    kept = rows[(rows["matched"] == 0) & rows["method"].isin(["LTH", "naive", "permuted", "dense B"])]
    kept = kept[(kept["sparsity"] == 0.97) | (kept["method"] == "dense B")]["test accuracy"]
    assert (low, high) == (kept.min() - 0.5, kept.max() + 3)


def test_the_shared_table_has_the_protocol_of_the_other_papers(table):
    found = tables.trainers(table, QUICK)
    words = "perceptron 256-256, 12000 images of Fashion-MNIST 14×14, 5 passes, ΔT 25, tested on 2000"
    assert found["protocol"].unique().tolist() == [words]
    assert sorted(found["trainer"].unique()) == ["LTH", "LTH naive", "LTH permuted"]
    assert sorted(found["sparsity"].unique()) == [0.9, 0.95]
    assert len(found) == 3 * 2 * 5
    mine = table.query("network == 'grid' and width == 4 and method == 'permuted' and sparsity == 0.95 and seed == 3")
    row = found.query("trainer == 'LTH permuted' and sparsity == 0.95 and seed == 3")
    assert row["test accuracy"].tolist() == mine["test accuracy"].tolist()
    other = tables.trainers(table_of(FULL), FULL)
    assert "but for the network" in other["protocol"].iloc[0]


def test_ensembles_stand_beside_the_published_ones(groups):
    found = tables.ensemble_table(groups, BOOK.published["ensembles"]["cifar10"])
    assert found.index.tolist() == ["LTH", "naive", "permuted", "IMP"]
    assert found.loc["IMP", "published disagreement"] == pytest.approx(9.3)
    assert found.loc["naive", "disagreement"] == pytest.approx(10.7)
    without = tables.ensemble_table(groups, {})
    assert without.filter(like="published").isna().all(axis=None)
    assert without["single"].equals(found["single"])


def test_what_stands_beside_ours_is_of_the_same_images():
    assert (QUICK.printed, QUICK.theirs) == ("cifar10", "CIFAR-10")
    other = replace(QUICK, dataset="cifar100", side=32)
    assert (other.printed, other.theirs) == ("cifar100", "CIFAR-100")
    assert set(BOOK.published) >= {"cifar10", "cifar100"}
    stamps = {each.id: each.stamped(other) for each in BOOK.figures}
    assert stamps["fig5"] == stamps["fig9"] == "perceptron on CIFAR-100 in place of ResNet20 on CIFAR-100"


def test_early_matching_stands_at_its_share_of_the_passes(table):
    found = tables.early_table(table, QUICK, BOOK.published["early"])
    assert found.index.tolist() == pytest.approx([2.5, 20, 40, 100])
    assert found["published"].dropna().tolist() == [89.16, 89.5]
    assert readable(found)["passes"].tolist() == ["–", "1", "2", "5"]
    assert found.loc[100.0, "mean"] - found.loc[20.0, "mean"] == pytest.approx(0.15, abs=0.06)


def test_settings_say_what_is_not_known_and_what_was_not_trained():
    known = BOOK.published["settings"]
    ours = tables.settings_table(QUICK, "grid", known["ResNet20"])
    assert ours.loc["passes"].tolist() == ["200", "5"]
    assert ours.loc["pruned a round"].nunique() == 1  # in the same words
    assert ours.loc["weight decay"].tolist() == ["5e-4", "5e-4 (none in pruning)"]
    vgg = tables.settings_table(QUICK, "vgg", known["VGG11"])
    assert set(vgg["here"]) == {"–"}
    assert tables.settings_table(FULL, "vgg", known["VGG11"]).loc["rate, dense"].tolist() == [
        "not known",
        "0.02, cosine",
    ]
    assert set(tables.settings_table(QUICK, "", known["ResNet50"])["here"]) == {"–"}


def test_matching_and_gaps_are_means_over_seeds(table, barriers):
    found = tables.matching_table(barriers)
    assert found.index.get_level_values("line")[:5].tolist() == list(studies.LINES)
    assert found.loc[("grid", 4.0, "by weights"), "barrier"] == pytest.approx(0.7 / 4 + 0.03)
    gaps = tables.gaps_at(tables.usual(table, "grid"), QUICK)
    assert gaps.loc[(1.0, 0.97, 1), "permuted − naive"] == pytest.approx(3.6, abs=0.06)
