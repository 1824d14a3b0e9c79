"""Trainings and studies of the lottery tickets' notebook at tiny sizes: what is trained from what, what is read off."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from papertwin.papers import lth_rebasin as paper
from papertwin.papers import lth_rebasin_studies as studies
from papertwin.papers import lth_rebasin_trainings as trainings
from papertwin.papers.lth_rebasin import Dense, Job
from papertwin.papers.lth_rebasin_trainings import END, Pair
from papertwin.sparse.tickets import sparsity_of, train_from
from papertwin.symmetry import permutables, permuted
from papertwin.symmetry.permuting import with_state
from papertwin.training.loop import fit, scores
from papertwin.training.pool import Pool
from papertwin.training.trials import draw_sets

PARAMS = paper.Params(
    train_images=300,
    check_images=60,
    test_images=80,
    epochs=3,
    neurons=8,
    share=0.5,
    seeds=2,
    few_seeds=2,
    members=2,
    conv_images=100,
    conv_epochs=2,
    conv_rewind=1,
    match_images=60,
    points=3,
    grid=2,
    processes=1,
    device="cpu",
)
NARROW = Pair("grid", 1.0, 1)


@pytest.fixture(scope="module")
def found():
    return trainings.train_all(PARAMS, Pool(1))


@pytest.fixture(scope="module")
def table(found):
    return trainings.training_table(found, PARAMS)


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


# ---- dense, pruned, matched ------------------------------------------------------------------------------------------


def test_a_dense_training_is_that_of_its_seeds(found):
    job = paper.network_a(PARAMS, *NARROW)
    assert job == Dense("grid", 1.0, 1001, 1, 1, (0.9, 0.95, 0.97))
    sets = draw_sets(PARAMS.sizes, 1)
    model = paper.build(PARAMS, job, 10, 1001)
    assert same(found.dense[job].states[0], model.state_dict())
    settings = {**PARAMS.settings, "epochs": 3, "rate": 0.1, "seed": 1}
    fit(model, *sets.train, **settings)
    assert same(found.dense[job].last, model.state_dict())
    assert np.array_equal(found.dense[job].logits[0.0], scores(model, sets.test[0]))


def test_networks_differ_in_their_first_weights_and_see_the_same_images_in_the_same_order(found):
    a, b = found.a(PARAMS, NARROW), found.b(NARROW)
    assert not torch.equal(a.states[0]["fc1.weight"], b.states[0]["fc1.weight"])
    jobs = [paper.network_a(PARAMS, *NARROW), paper.network_b(*NARROW)]
    assert len({(job.seed, job.order) for job in jobs}) == 1
    assert sorted(b.states) == [0, 1, 2, 3]


def test_masks_are_those_of_their_sparsity_and_shrink(found):
    a = found.a(PARAMS, NARROW)
    masks = [a.pruned(s).masks for s in (0.9, 0.95, 0.97)]
    assert [sparsity_of(each) for each in masks] == pytest.approx([0.9, 0.95, 0.97], abs=1e-3)
    for larger, smaller in pairwise(masks):
        assert all((smaller[name] <= larger[name]).all() for name in larger)
    assert all(not a.pruned(0.9).state[f"{name}.weight"][~mask].any() for name, mask in masks[0].items())


def test_all_rounds_are_kept_only_where_they_are_drawn(found):
    path = paper.path_to(PARAMS.sparsities, 0.5)
    assert len(found.a(PARAMS, Pair("grid", 4.0, 1)).rounds) == len(path)
    assert len(found.a(PARAMS, NARROW).rounds) == 3
    assert found.b(NARROW).rounds == []
    assert len(found.a(PARAMS, Pair("resnet", 1.0, 1)).rounds) == 1


def test_matching_is_that_of_the_ends_and_of_earlier_passes(found):
    matched = found.matched[NARROW]
    assert set(matched.permutations) == {END, 1, 2, "random", "weights"}
    assert set(found.matched[Pair("grid", 1.0, 1, 1)].permutations) == {END, "random", "weights"}
    assert all(each.gap < 1e-9 and each.commutes for each in found.matched.values())
    itself = trainings.match(NARROW, found.b(NARROW).last, {}, {0: found.b(NARROW).last}, PARAMS)
    model = paper.build(PARAMS, paper.network_b(*NARROW), 10)
    moved = permuted(found.b(NARROW).last, permutables(model), itself.permutations[END])
    images = draw_sets(PARAMS.sizes, 1).test[0]
    old, new = (scores(with_state(model, state), images) for state in (found.b(NARROW).last, moved))
    assert np.allclose(old, new, atol=1e-5)


def test_commuting_is_refused_where_a_layer_loses_weights(found, monkeypatch):
    a, sigma = found.a(PARAMS, NARROW), found.matched[NARROW].permutations[END]
    description = permutables(paper.build(PARAMS, paper.network_b(*NARROW), 10))
    args = a.last, a.pruned(0.9).masks, description
    assert trainings.commutes(*args, sigma)
    broken = {name: order.flip(0) for name, order in sigma.items()}
    right = trainings.permuted
    calls = []

    def wrong(state, description, permutations):
        calls.append(1)
        return right(state, description, broken if len(calls) == 1 else permutations)

    monkeypatch.setattr(trainings, "permuted", wrong)
    assert not trainings.commutes(*args, sigma)


# ---- sparse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "state", "sigma"),
    [("LTH", "a", None), ("naive", "b", None), ("permuted", "b", END), ("random", "b", "random")],
)
def test_a_sparse_training_begins_with_rewound_weights_and_its_mask(found, method, state, sigma):
    job = Job("grid", 1.0, method, 0.97, 1, 1)
    first, masks = trainings.beginning(job, found, PARAMS)
    nets = {"a": found.a(PARAMS, NARROW), "b": found.b(NARROW)}
    assert same(first, nets[state].states[1])
    own = nets["a"].pruned(0.97).masks
    description = permutables(paper.build(PARAMS, job, 10))
    wanted = permuted(own, description, found.matched[NARROW].permutations[sigma]) if sigma else own
    assert same(masks, wanted)
    sets = draw_sets(PARAMS.sizes, 1)
    settings = {**PARAMS.settings, "epochs": 2, "rate": 0.1, "seed": 1}
    again = train_from(paper.build(PARAMS, job, 10), first, masks, *sets.train, **settings)
    assert np.array_equal(found.tickets[job].logits, scores(again, sets.test[0]))
    assert found.tickets[job].weights == sum(int(mask.sum()) for mask in masks.values())
    assert found.tickets[job].test == pytest.approx((found.tickets[job].logits.argmax(1) == sets.test[1]).mean())


def test_early_matching_uses_the_earlier_b(found):
    job = Job("grid", 1.0, "permuted", 0.9, 1, 1, matched=2)
    description = permutables(paper.build(PARAMS, job, 10))
    wanted = permuted(found.a(PARAMS, NARROW).pruned(0.9).masks, description, found.matched[NARROW].permutations[2])
    assert same(trainings.beginning(job, found, PARAMS)[1], wanted)


def test_members_of_an_ensemble_differ_as_they_should(found):
    lth = [Job("grid", 1.0, "LTH", 0.9, 1, 1, member) for member in (0, 1)]
    naive = [Job("grid", 1.0, "naive", 0.9, 1, 1, member) for member in (0, 1)]
    starts = [trainings.beginning(job, found, PARAMS) for job in (*lth, *naive)]
    assert same(starts[0][0], starts[1][0])
    assert not torch.equal(starts[2][0]["fc1.weight"], starts[3][0]["fc1.weight"])
    assert all(same(start[1], starts[0][1]) for start in starts)
    assert not np.array_equal(*(found.tickets[job].logits for job in lth))


def test_the_table_has_a_row_for_every_training(found, table):
    assert len(table) == len(found.tickets) + sum(len(each.logits) for each in found.dense.values())
    assert not table.duplicated(["network", "width", "method", "sparsity", "rewind", "matched", "member", "seed"]).any()
    job = Job("grid", 4.0, "permuted", 0.97, 2, 2)
    row = table.query("width == 4 and method == 'permuted' and sparsity == 0.97 and rewind == 2 and seed == 2").iloc[0]
    assert row["test accuracy"] == 100 * found.tickets[job].test
    assert row["weights"] == found.tickets[job].weights
    dense = table[table["method"] == "dense B"]
    assert set(dense["member"]) == {0, 1}
    assert (dense["weights"] == 0).all()


def test_kept_networks_change_nothing_but_the_time(found, tmp_path, monkeypatch):
    job = paper.network_a(PARAMS, *NARROW)
    first = trainings.train_dense(job, PARAMS, tmp_path)
    assert same(first.last, found.dense[job].last)

    def again(*_):
        raise TypeError

    monkeypatch.setattr(trainings, "_train_dense", again)
    second = trainings.train_dense(job, replace(PARAMS, processes=2), tmp_path)
    assert same(first.last, second.last)
    assert same(first.pruned(0.9).masks, second.pruned(0.9).masks)
    assert np.array_equal(first.logits[0.9], second.logits[0.9])
    for change in ({"rate": 0.05}, {"prune_rate": 0.02}, {"few_seeds": 2, "match_images": 61}):
        with pytest.raises(TypeError):
            trainings.train_dense(job, replace(PARAMS, **change), tmp_path)


def test_quick_keeps_nothing_and_larger_profiles_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERTWIN_CACHE", str(tmp_path))
    assert trainings.store(PARAMS) is None
    assert trainings.store(replace(PARAMS, profile="full")) == tmp_path / "lth_rebasin"


def test_processes_change_nothing(found):
    jobs = [paper.network_b(*NARROW), paper.network_b("grid", 2.0, 1)]
    with Pool(2) as pool:
        again = pool.map(partial(trainings.train_dense, params=PARAMS), [(job,) for job in jobs])
    assert all(same(each.last, found.dense[job].last) for job, each in zip(jobs, again))


# ---- studies ---------------------------------------------------------------------------------------------------------


def test_lines_begin_at_a_and_end_at_b(found):
    lines = studies.every_line(found, PARAMS, Pool(1))
    assert set(lines["line"]) == set(studies.LINES)
    assert sorted(lines["alpha"].unique()) == [0, 0.5, 1]
    sets = draw_sets(PARAMS.sizes, 1)
    each = lines[(lines["network"] == "grid") & (lines["width"] == 1) & (lines["seed"] == 1)]
    for end, net in ((0, found.a(PARAMS, NARROW)), (1, found.b(NARROW))):
        right = 100 * (net.logits[0.0].argmax(1) == sets.test[1]).mean()
        at = each[(each["alpha"] == end) & ~each["line"].str.contains("repaired")]  # REPAIR estimates the ends anew
        assert at["accuracy"].tolist() == pytest.approx([right] * 3)
        assert at["loss"].max() == pytest.approx(at["loss"].min(), abs=1e-6)
    barriers = studies.barrier_table(lines)
    assert len(barriers) == len(lines) / 3
    row = each[each["line"] == studies.PLAIN].sort_values("alpha")["loss"].tolist()
    wanted = max(0.0, row[1] - (row[0] + row[2]) / 2)
    one = barriers[(barriers["network"] == "grid") & (barriers["width"] == 1) & (barriers["seed"] == 1)]
    assert one.set_index("line").loc[studies.PLAIN, "barrier"] == pytest.approx(wanted)
    middle = studies.over_alpha(lines, "grid", 1.0, studies.PLAIN, "loss")
    assert list(middle.columns) == ["mean", "min", "max"]


def test_repair_needs_no_renumbering(found):
    """Repaired as it is, at A's end A with new statistics, as renumbered and repaired there: the same function."""
    lines = studies.every_line(found, PARAMS, Pool(1)).query("network == 'grid' and seed == 1")
    losses = lines.pivot(index=["width", "alpha"], columns="line", values="loss")
    ends = losses[losses.index.get_level_values("alpha").isin((0, 1))]
    assert np.allclose(ends[studies.ONLY_REPAIRED], ends[studies.REPAIRED], atol=1e-5)
    inside = losses.drop(ends.index)
    assert (inside[studies.ONLY_REPAIRED] - inside[studies.PLAIN]).abs().min() > 1e-6
    assert (inside[studies.ONLY_REPAIRED] - inside[studies.REPAIRED]).abs().min() > 1e-6


def test_drawn_lines_can_be_told_apart(found):
    lines = studies.every_line(found, PARAMS, Pool(1))
    for network, count in (("grid", 6), ("resnet", 4)):
        drawn = studies.curves(lines, network)
        assert len({(each.colour, each.renumbered) for each in drawn.values()}) == len(drawn) == count
    assert len({each.colour for each in drawn.values()}) == 4  # of one width: a colour each
    assert "renumbered by activations" in drawn
    one = studies.curves(lines, "grid")["A to B, width 2"].loss
    assert one.equals(studies.over_alpha(lines, "grid", 2.0, studies.PLAIN, "loss"))


def test_rounds_end_at_ninety_per_cent_of_the_widest(found):
    rounds = studies.every_round(found, PARAMS, Pool(1))
    assert rounds.groupby(["seed", "kind"])["sparsity"].max().tolist() == pytest.approx([0.9] * 4, abs=1e-3)
    assert rounds.groupby(["seed", "kind"])["round"].max().tolist() == [4] * 4
    assert np.allclose(rounds["barrier"], rounds["excess"].clip(lower=0), atol=1e-12)


def test_planes_have_the_networks_at_their_corners(found):
    planes = studies.planes(found, PARAMS, Pool(1))
    assert list(planes) == list(studies.PLANES)
    before, after = planes.values()
    assert before.errors.shape == (2, 2)
    kept = [np.hypot(*np.subtract(each.corners[2], each.corners[0])) for each in (before, after)]
    assert kept[0] == pytest.approx(kept[1], rel=1e-6)  # renumbering moves A and what is pruned from it together


def test_ensembles_are_of_the_members(found):
    groups = studies.ensembles(found, PARAMS).set_index(["seed", "method"])
    assert groups.index.get_level_values("method").unique().tolist() == ["LTH", "naive", "permuted", "IMP"]
    labels = draw_sets(PARAMS.sizes, 2).test[1]
    logits = [found.tickets[Job("grid", 1.0, "naive", 0.9, 1, 2, member)].logits for member in (0, 1)]
    row = groups.loc[2, "naive"]
    assert row["single"] == pytest.approx(100 * np.mean([(each.argmax(1) == labels).mean() for each in logits]))
    assert row["disagreement"] == pytest.approx(100 * (logits[0].argmax(1) != logits[1].argmax(1)).mean())
    pruned = [found.dense[paper.network_a(PARAMS, "grid", 1.0, 2, member)].logits[0.9] for member in (0, 1)]
    differ = 100 * (pruned[0].argmax(1) != pruned[1].argmax(1)).mean()
    assert groups.loc[(2, "IMP"), "disagreement"] == pytest.approx(differ)


def test_mask_pictures_and_overlaps_are_of_the_layers(found):
    pictures = studies.mask_pictures(found, PARAMS)
    assert {name: each.shape for name, each in pictures.items()} == dict.fromkeys(pictures, (10, 8))
    assert pictures["A's mask"].sum() == pictures["renumbered"].sum()
    shares = studies.overlaps(found, PARAMS)
    assert shares.index.tolist() == ["fc1", "fc2", "fc3"]
    wanted = []
    for seed in (1, 2):
        name, weights, own, moved = studies._masks(found, PARAMS, Pair("grid", 1.0, seed))[0]
        top = weights.abs().flatten().topk(int(own.sum())).indices
        wanted.append(sum(bool(moved.flatten()[place]) for place in top) / len(top))
    assert name == "fc1"
    assert shares.loc["fc1", "renumbered"] == pytest.approx(np.mean(wanted))


# ---- the toy ---------------------------------------------------------------------------------------------------------


def test_the_toys_loss_is_its_own_and_that_of_its_mirror_image():
    x = np.linspace(-2, 2, 41)
    wanted = np.maximum(2 * x, 0) + np.maximum(-0.5 * x, 0)
    given = np.maximum(1.5 * x, 0) + np.maximum(0.25 * x, 0)
    assert studies.toy_loss([1.5, 0.25]) == pytest.approx(np.square(given - wanted).mean())
    assert studies.toy_loss([0.25, 1.5]) == studies.toy_loss([1.5, 0.25])
    assert studies.toy_loss(studies.GOAL) == 0


def test_the_toy_shows_what_the_text_says():
    toy = studies.toy(9)
    ends = {name: path[-1] for name, path in toy.paths.items()}
    assert np.allclose(ends["dense A"], ends["dense B"][::-1], atol=1e-3)
    assert toy.last["LTH"] == pytest.approx(toy.last["permuted"], abs=1e-6)
    assert toy.last["naive"] > 10 * toy.last["LTH"]
    assert toy.losses[3, 5] == pytest.approx(studies.toy_loss([toy.grid[5], toy.grid[3]]))
    for name, place in (("LTH", 1), ("naive", 1), ("permuted", 0)):
        assert not toy.paths[name][:, place].any()
    falls = pd.Series([float(studies.toy_loss(each)) for each in toy.paths["dense B"]])
    assert falls.is_monotonic_decreasing


@pytest.mark.parametrize(("network", "k"), [("grid", 2), ("vgg", 1)])
def test_networks_of_larger_profiles_are_trained_and_renumbered_as_well(network, k):
    params = replace(PARAMS, train_images=100, network="resnet", depth=8, base=0.25, vgg_width=0.0625)
    pair = Pair(network, 1.0, 1)
    jobs = paper.network_a(params, *pair), paper.network_b(*pair)
    a, b = (trainings.train_dense(job, params) for job in jobs)
    found = trainings.Found(dict(zip(jobs, (a, b))), {}, {})
    found.matched[pair] = trainings.match(pair, a.last, a.pruned(0.9).masks, {0: b.last}, params)
    assert found.matched[pair].gap < 1e-9
    assert found.matched[pair].commutes
    job = Job(network, 1.0, "permuted", 0.9, k, 1)
    ticket = trainings.train_ticket(job, *trainings.beginning(job, found, params), params)
    assert ticket.logits.shape == (80, 10)
    assert ticket.weights == sum(int(mask.sum()) for mask in a.pruned(0.9).masks.values())
