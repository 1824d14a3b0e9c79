"""What is measured for the claims of SparseOpt, on tables in which every training has values of its own."""

import copy
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin import ledger
from papertwin.claims import judge
from papertwin.papers import sparseopt as paper
from papertwin.papers import sparseopt_claims as claims
from papertwin.papers.sparseopt import ARMS, BOTH, GROWTH, HAM, OURS, OURS_UNIT, PLAIN, UNIT, Job

QUICK = paper.Params()
OTHER = paper.Params(passes=[3, 6, 7], epochs=4, conv_passes=2)
ACCURACY, RATE = "test accuracy", "ITOP"
SEEDS = range(1, 6)
# network, method, arm, sparsity, passes, seed: more than any training of the notebook
CASES = list(
    product(
        ("mlp", "resnet", "protocol"),
        ("RigL", "SET", "SRigL"),
        ARMS,
        (0.9, 0.95, 0.99),
        range(2, 9),
        SEEDS,
    )
)


def drawn(seed):
    """Numbers from 0 to 100, one a case, no two alike."""
    return np.random.default_rng(seed).permutation(len(CASES)) * 100 / len(CASES)


VALUES = {ACCURACY: dict(zip(CASES, drawn(0))), RATE: dict(zip(CASES, drawn(1)))}


@pytest.fixture(scope="module")
def table():
    """Rows of all cases, in no order; SRigL without ablation is there too, with values that would be noticed."""
    rows = pd.DataFrame(CASES, columns=["network", "method", "arm", "sparsity", "passes", "seed"])
    rows = rows.assign(gamma=np.where(rows["method"] == "SRigL", 0.3, np.nan))
    rows = rows.assign(**{name: list(each.values()) for name, each in VALUES.items()})
    none = rows[rows["method"] == "SRigL"].assign(gamma=0.0, **{ACCURACY: 1e3, RATE: 1e3})
    return pd.concat([rows, none]).sample(frac=1, random_state=0).reset_index(drop=True)


def each_seed(method, arm, sparsity, passes, network="mlp", column=ACCURACY, seeds=SEEDS):
    """Values of an arm by hand, seed by seed."""
    return np.array([VALUES[column][network, method, arm, sparsity, passes, seed] for seed in seeds])


def gap(method, sparsity, passes, network="mlp", column=ACCURACY, arms=(OURS, PLAIN)):
    """Values of the first arm minus those of the second, by hand."""
    one, other = (each_seed(method, arm, sparsity, passes, network, column) for arm in arms)
    return one - other


def both(sparsity, passes, network="mlp"):
    """Gains of RigL and SET together, by hand."""
    return (gap("RigL", sparsity, passes, network) + gap("SET", sparsity, passes, network)) / 2


SKEWED = ("batch norm", "layer norm")
SKEW_KINDS = (*SKEWED, "no norm", "batch norm, fan-in", "no norm, torch's weights")
SHARES = (0.0, 0.1, 0.5, 0.9, 0.95)


def offsets():
    """Relative distances from theory, either way, no two alike; the largest ones where nothing is masked."""
    cases = list(product(SKEW_KINDS, SEEDS, SHARES))
    sizes = np.random.default_rng(2).uniform(0, 0.5, len(cases))
    signs = np.random.default_rng(3).choice([-1, 1], len(cases))
    return {case: sign * (size if case[2] else 0.9) for case, size, sign in zip(cases, sizes, signs)}


OFFSETS = offsets()


@pytest.fixture(scope="module")
def skews():
    rows = []
    for (kind, seed, share), off in OFFSETS.items():
        theory = (1 - share) ** -0.5 if kind in SKEWED else 1.0
        rows.append({"kind": kind, "seed": seed, "share": share, "ratio": theory * (1 + off), "theory": theory})
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def farthest(kind):
    """Largest distance of each seed, by hand."""
    return np.array([max(abs(OFFSETS[kind, seed, share]) for share in SHARES[1:]) for seed in SEEDS])


def network(number):
    """A small network of its own, with buffers."""
    torch.manual_seed(number)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


# validation accuracy after each pass, method, arm, seed; each rises in steps of one size, so passes are known
RISES = {
    (method, arm, seed): (10 + number, (1 if arm == PLAIN else 2) + number / 7)
    for number, (method, arm, seed) in enumerate(product(("RigL", "SET"), (PLAIN, OURS), SEEDS))
}


def curved(first, step, passes):
    """A trial whose accuracies are first, first + step, … per cent; on training images it is another."""
    curve = (first + step * np.arange(passes)) / 100
    return SimpleNamespace(curve=np.stack([0.7 + curve[::-1] / 9, curve], axis=1))


@pytest.fixture
def trials():
    """Trials with curves at every length and sparsity, and pairs of SRigL without ablation that are equal."""
    found = {}
    for (method, arm, seed), (first, step) in RISES.items():
        for sparsity, passes in product((0.95, 0.99), range(2, 9)):
            there = (first, step) if sparsity == 0.99 else (first + 30, step / 3)
            found[Job("mlp", method, arm, sparsity, passes, seed)] = curved(*there, passes)
    for passes, arm, seed in product((2, 3), (PLAIN, OURS), SEEDS[:3]):
        found[Job("mlp", "SRigL", arm, 0.95, passes, seed, 0.0)] = SimpleNamespace(model=network(10 * passes + seed))
    return found


def saved(passes):
    """Passes that SparseOpt saves by hand, RigL and SET together."""
    found = []
    for seed in SEEDS:
        each = []
        for method in ("RigL", "SET"):
            first, step = RISES[method, PLAIN, seed]
            level = 0.98 * (first + step * (passes - 1))
            until = []
            for arm in (PLAIN, OURS):
                start, rise = RISES[method, arm, seed]
                reached = 1 + (level - start) / rise
                until.append(passes if reached > passes else max(1, reached))
            each.append(until[0] - until[1])
        found.append(sum(each) / 2)
    return np.array(found)


def due(params):
    """Seed by seed, what is to be measured for each claim over seeds, by hand."""
    short, long = params.passes[0], params.passes[-1]
    accuracy = {arm: each_seed("RigL", arm, 0.99, short) for arm in ARMS}
    return {
        "C1a": farthest("batch norm"),
        "C1b": farthest("no norm"),
        "C1c": farthest("batch norm, fan-in"),
        "C2b": gap("RigL", 0.99, short),
        "C2c": gap("SET", 0.99, short),
        "C2d": both(0.99, short) - both(0.99, long),
        "C2e": both(0.99, short) - both(0.95, short),
        "C2f": saved(long),
        "C3b": gap("RigL", 0.95, params.conv_passes, "resnet"),
        "C4": accuracy[OURS_UNIT] - accuracy[UNIT],
        "C5a": gap("RigL", 0.95, long, column=RATE),
        "C5b": gap("RigL", 0.95, long, column=RATE, arms=(GROWTH, PLAIN)),
        "C6a": accuracy[BOTH] - np.maximum(accuracy[OURS], accuracy[HAM]),
        "C6b": farthest("layer norm"),
        "C8": both(0.99, params.epochs, "protocol"),
    }


NONE = {"C2a": "it needs ImageNet", "C3a": "profile paper, with your copy"}


@pytest.mark.parametrize("params", [QUICK, OTHER], ids=["quick", "other lengths"])
def test_every_claim_of_the_ledger_is_measured(table, trials, skews, params):
    found = claims.every_claim(params, table, trials, skews)
    assert list(found) == [claim.id for claim in ledger.load("sparseopt").claims]
    wanted = due(params)
    assert set(found) == {*wanted, *NONE, "C7"}
    for name, each in wanted.items():
        assert found[name].value == pytest.approx(each.mean(), abs=1e-9), name
        assert found[name].note.split("per seed ")[1].split(", ") == [f"{value:+.2f}" for value in each], name
        half = 2.7764451051977987 * each.std(ddof=1) / 5**0.5
        assert found[name].interval == pytest.approx((each.mean() - half, each.mean() + half), abs=1e-9), name
    for name, note in NONE.items():
        assert found[name].value is None, name
        assert note in found[name].note, name
    assert found["C7"].value is True


def test_the_claim_about_cifar_100_is_measured_at_full_size_only(table, trials, skews):
    chosen = table.query("network == 'resnet' and method == 'RigL' and sparsity == 0.95 and passes == 4")
    rows = chosen.assign(sparsity=0.97, passes=100)
    rows[ACCURACY] *= np.where(rows["arm"] == OURS, 0.9, 0.7)
    rows = pd.concat([table, rows])
    whole = {"dataset": "cifar100", "side": 32, "train_images": 45000, "check_images": 5000, "conv_images": 45000}
    whole |= {"conv_depth": 20, "conv_width": 1.0, "conv_passes": 100, "conv_sparsities": [0.95, 0.97]}
    full = replace(QUICK, **whole)
    found = claims.every_claim(full, rows, trials, skews)["C3a"]
    ours, plain = (
        rows[(rows["arm"] == arm) & (rows["sparsity"] == 0.97)].set_index("seed")[ACCURACY] for arm in (OURS, PLAIN)
    )
    assert found.value == pytest.approx((ours - plain).mean())
    assert found.interval is not None
    less = [{"dataset": "cifar10"}, {"side": 16}, {"conv_depth": 8}, {"conv_width": 0.5}, {"conv_passes": 50}]
    for change in [*less, {"conv_images": 30000}, {"conv_sparsities": [0.95]}]:
        assert not replace(full, **change).at_full_size, change
        assert claims.every_claim(replace(full, **change), rows, trials, skews)["C3a"].value is None, change
    assert {job.sparsity for job in paper.every_job(full) if job.network == "resnet"} == {0.95, 0.97}


def test_values_of_two_claims_are_told_apart_and_no_sign_is_lost():
    for params in (QUICK, OTHER):
        values = [each.mean() for each in due(params).values()]
        assert len({round(abs(value), 6) for value in values}) == len(values)
        assert min(abs(value) for value in values) > 1e-3
        assert all(len({round(value, 6) for value in each}) == 5 for each in due(params).values())


def test_gains_of_the_papers_direction_reproduce_and_the_others_do_not(table, trials, skews):
    """Every number as the paper has it, then the other way round: rules and signs belong together."""
    lengths = {2: 5.0, 8: 1.0, 4: 3.0, 5: 0.0}  # gains, by passes
    wanted = ("C2b", "C2c", "C2d", "C2e", "C2f", "C3b", "C4", "C5a", "C5b", "C6a")
    for sign, verdict in ((1, "REPRODUCED"), (-1, "NOT REPRODUCED")):
        rows = table[table["gamma"] != 0].copy()
        own = {OURS: 1.0, PLAIN: 0.0, OURS_UNIT: 2.0, UNIT: 1.0, BOTH: 1.6, HAM: 0.5, GROWTH: -1.0}
        gain = rows["arm"].map(own) * rows["passes"].map(lengths).fillna(0) * (rows["sparsity"] - 0.9) * 10
        noise = np.random.default_rng(4).uniform(0, 1e-3, len(rows))
        rows = rows.assign(**{ACCURACY: 50 + sign * gain + noise, RATE: 40 + sign * gain + noise})
        learnt = trials
        if sign < 0:
            arms = {PLAIN: OURS, OURS: PLAIN}
            learnt = trials | {
                job: trials[replace(job, arm=arms[job.arm])] for job in trials if job.method in ("RigL", "SET")
            }
        found = claims.every_claim(QUICK, rows, learnt, skews)
        judged = {each.claim.id: str(each.verdict) for each in judge(ledger.load("sparseopt"), "quick", found)}
        assert {name: judged[name] for name in wanted} == dict.fromkeys(wanted, verdict)
        assert judged["C8"] == "REPRODUCED"
        assert judged["C7"] == "REPRODUCED"
        assert {judged[name] for name in NONE} == {"NOT JUDGED"}


@pytest.mark.parametrize("profile", ["quick", "full", "paper"])
def test_no_profile_judges_what_it_has_not_measured(table, trials, skews, profile):
    found = claims.every_claim(QUICK, table, trials, skews)
    judged = {each.claim.id: str(each.verdict) for each in judge(ledger.load("sparseopt"), profile, found)}
    assert {name for name, verdict in judged.items() if verdict == "NOT JUDGED"} == set(NONE)


def test_notes_say_what_was_compared(table, trials, skews):
    found = claims.every_claim(QUICK, table, trials, skews)
    for name, case in {
        "C2b": ("RigL", 0.99, 2, "mlp"),
        "C2c": ("SET", 0.99, 2, "mlp"),
        "C3b": ("RigL", 0.95, 4, "resnet"),
    }.items():
        method, sparsity, passes, where = case
        ours, plain = (each_seed(method, arm, sparsity, passes, where).mean() for arm in (OURS, PLAIN))
        note = f"accuracy, points: {ours:.1f} with and {plain:.1f} % without SparseOpt; per seed"
        assert found[name].note.startswith(note)
    means = {passes: f"{both(0.99, passes).mean():+.2f}" for passes in (2, 8)}
    assert found["C2d"].note.startswith(f"points: {means[2]} with 2 passes, {means[8]} with 8; per seed")
    low = f"{both(0.95, 2).mean():+.2f}"
    assert found["C2e"].note.startswith(f"points: {means[2]} at 99 %, {low} at 95 %; per seed")
    one = {arm: each_seed("RigL", arm, 0.99, 2).mean() for arm in ARMS}
    assert f"{OURS_UNIT} {one[OURS_UNIT]:.1f}, {UNIT} {one[UNIT]:.1f} %" in found["C4"].note
    assert f"both {one[BOTH]:.1f}, SparseOpt {one[OURS]:.1f}, HAM {one[HAM]:.1f} %" in found["C6a"].note
    rates = {arm: each_seed("RigL", arm, 0.95, 8, column=RATE).mean() for arm in ARMS}
    assert f"{OURS} {rates[OURS]:.1f}, {PLAIN} {rates[PLAIN]:.1f} %" in found["C5a"].note
    assert f"{GROWTH} {rates[GROWTH]:.1f}, {PLAIN} {rates[PLAIN]:.1f} %" in found["C5b"].note
    for name, kind in {"C1a": "batch norm", "C1b": "no norm", "C6b": "layer norm"}.items():
        theory = 10**0.5 if kind in SKEWED else 1.0
        ratio = theory * (1 + np.mean([OFFSETS[kind, seed, 0.9] for seed in SEEDS]))
        assert f"at 0.9 masked the ratio is {ratio:.2f}, in theory {theory:.2f}" in found[name].note


def test_the_note_of_passes_has_both_means(trials):
    first, step = 50.0, 2.0
    for (method, arm, seed), _ in RISES.items():
        trials[Job("mlp", method, arm, 0.99, 8, seed)] = curved(first, step * (1 if arm == PLAIN else 2), 8)
    found = claims.sooner(trials, 8)
    level = 0.98 * 64
    plain, ours = 1 + (level - 50) / 2, 1 + (level - 50) / 4
    assert found.value == pytest.approx(plain - ours)
    assert found.note.startswith(f"passes: {plain:.2f} without, {ours:.2f} with SparseOpt; per seed")


# ---- seeds -----------------------------------------------------------------------------------------------------------


def test_growth_is_compared_over_the_seeds_that_it_has(table):
    few = table[(table["arm"] != GROWTH) | (table["seed"] <= 3)]
    found = claims.explores(few, GROWTH, PLAIN, 8)
    each = gap("RigL", 0.95, 8, column=RATE, arms=(GROWTH, PLAIN))[:3]
    assert found.value == pytest.approx(each.mean())
    plain = each_seed("RigL", PLAIN, 0.95, 8, column=RATE, seeds=(1, 2, 3)).mean()
    assert f"{PLAIN} {plain:.1f} %" in found.note
    assert claims.explores(few, OURS, PLAIN, 8) == claims.explores(table, OURS, PLAIN, 8)


def test_too_few_seeds_are_not_judged(table, trials, skews):
    few = skews[skews["seed"] < 3]
    kept = {job: trial for job, trial in trials.items() if job.seed < 3 or job.method == "SRigL"}
    found = claims.every_claim(QUICK, table[table["seed"] < 3], kept, few)
    assert {name for name, each in found.items() if each.value is None} == {*due(QUICK), *NONE}


# ---- the same to the bit ---------------------------------------------------------------------------------------------


def test_networks_of_one_seed_are_compared_in_every_bit(trials):
    assert claims.same_to_the_bit(trials, QUICK).value is True
    assert claims.same_to_the_bit(trials, QUICK).note == "3 of 3 pairs of networks, γ = 0, are equal"
    for number, name in ((1, "0.weight"), (2, "0.bias"), (3, "1.running_var"), (3, "1.weight")):
        wrong = copy.deepcopy(trials)
        job = Job("mlp", "SRigL", OURS, 0.95, 2, number, 0.0)
        values = wrong[job].model.state_dict()[name].view(-1)
        values[-1] = torch.nextafter(values[-1], torch.tensor(9.0))
        found = claims.same_to_the_bit(wrong, QUICK)
        assert found.value is False
        assert found.note.startswith("2 of 3 pairs")
        assert claims.same_to_the_bit(wrong, OTHER).value is True, "of another length"


def test_networks_of_two_seeds_are_not_enough(trials):
    found = claims.same_to_the_bit(trials, replace(QUICK, few_seeds=2))
    assert found.value is None
    assert found.note.startswith("2 of 2 pairs")


def test_trainings_of_the_claims_are_among_those_of_the_notebook():
    jobs = {(job.network, job.method, job.arm, job.sparsity, job.passes, job.seed) for job in paper.every_job(QUICK)}
    needed = set(product(["mlp"], ("RigL", "SET"), (OURS, PLAIN), (0.95, 0.99), (2, 8), SEEDS))
    needed |= set(product(["mlp"], ["RigL"], (UNIT, OURS_UNIT, HAM, BOTH), [0.99], [2], SEEDS))
    needed |= set(product(["mlp"], ["RigL"], [GROWTH], [0.95], [8], SEEDS[:3]))
    needed |= set(product(["resnet"], ["RigL"], (OURS, PLAIN), [0.95], [4], SEEDS))
    needed |= set(product(["protocol"], ("RigL", "SET"), (OURS, PLAIN), [0.99], [5], SEEDS))
    assert needed <= jobs
