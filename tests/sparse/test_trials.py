"""Sparse trials on tiny images: what they report is recomputed from masks, and a second training is the same."""

from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.initial import seeded
from papertwin.sparse import trials
from papertwin.sparse.schedule import DropSchedule
from papertwin.sparse.sparseopt import HAM, SparseOpt, UnitNorm
from papertwin.sparse.trials import Plan, train_sparse
from papertwin.sparse.updaters import SET, RigL, SRigL, Updater
from papertwin.training.loop import fit, scores
from papertwin.training.trials import Sets, SetSizes

SIZES = SetSizes("made up", 6, 40, 30, 50)
SETTINGS = {"epochs": 4, "rate": 0.1, "batch": 16, "weight_decay": 1e-3}
STEPS = 4 * 3  # 40 images are three batches of at most 16
KINDS = {"static": Updater, "set": SET, "rigl": RigL, "srigl": SRigL}
SPARSE = tuple(KINDS)


@pytest.fixture(autouse=True)
def _images(monkeypatch):
    """Images that no data set has to be there for."""
    monkeypatch.setattr(trials, "draw_sets", made_up)


def made_up(sizes, seed):
    """Random images of three classes, told apart by their mean; every other label of the test images is wrong."""
    draw = np.random.default_rng(100 + seed)
    parts = []
    for number in (sizes.train, sizes.check, sizes.test):
        labels = draw.integers(3, size=number)
        images = draw.normal(size=(number, 2, sizes.side, sizes.side)) + labels[:, None, None, None]
        parts.append((images.astype(np.float32), labels))
    parts[2][1][::2] += 1
    parts[2][1][::2] %= 3
    return Sets(*parts, ("a", "b", "c"))


def build(classes, *, in_channels, seed):
    with seeded(seed):
        return nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 3 * 3, 12),
            nn.ReLU(),
            nn.Linear(12, classes),
        )


def trained(method, seed=1, every=2, sparsity=0.6, options=None, **settings):
    plan = Plan(method, 0.0 if method == "dense" else sparsity, every, options or {}, 0.4, 0.8)
    return train_sparse("toy", build, plan, seed, SIZES, **{**SETTINGS, **settings})


# ---- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (("lottery", 0.5), "method must be one of dense, static, set, rigl, srigl, got 'lottery'"),
        (("dense", 0.5), "A dense network has sparsity 0 and every other more, got dense with 0.5"),
        *(((method, 0.0), f"got {method} with 0.0") for method in SPARSE),
        (("srigl",), "got srigl with 0.0"),
        *((("rigl", share), f"sparsity must be .* below 1, got {share}") for share in (1.0, 1.5, -0.1, True)),
        (("rigl", float("nan")), "sparsity must be .*got nan"),
        *((("rigl", 0.5, every), f"every must be a whole number above 0, got {every}") for every in (0, -3, 2.5)),
        (("rigl", 0.5, 10, {}, 1.5), "drop must be .*got 1.5"),
        (("rigl", 0.5, 10, {}, 0.3, -1), "stop must be .*got -1"),
        (("srigl", 0.5, 10, {"gama": 0.3}), "srigl takes the options .*gamma, got 'gama'"),
        *(((method, 0.5, 10, {"gamma": 0.3}), f"{method} takes .*passes, got 'gamma'") for method in SPARSE[:3]),
        (("rigl", 0.5, 10, {"seed": 1, "sparsity": 0.3}), "got 'seed', 'sparsity'"),
        (("dense", 0.0, 10, {"passes": 2}), "dense takes the options none, got 'passes'"),
    ],
)
def test_plans_that_cannot_be(plan, message):
    with pytest.raises(InputError, match=message):
        Plan(*plan)


def test_the_options_of_plans_are_keywords_of_their_updaters():
    own = {name for name, each in signature(Updater).parameters.items() if each.kind is each.KEYWORD_ONLY}
    assert own - {"sparsity", "seed", "group"} == set(trials.OPTIONS)
    assert trials.UPDATERS == KINDS
    with_all = {"distribution": "uniform", "dense": [], "first": "masked", "passes": 2, "gamma": 0.1}
    assert Plan("srigl", 0.5, 10, with_all).options == with_all


@pytest.mark.parametrize("method", SPARSE)
def test_a_plan_builds_its_updater(method):
    model = build(3, in_channels=2, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"dense": ["0"]} | ({"gamma": 0.7} if method == "srigl" else {})
    found = Plan(method, 0.5, 7, options, 0.2, 0.6).updater(model, optimizer, 90, 4)
    assert type(found) is KINDS[method]
    assert found.schedule == DropSchedule(90, 7, 0.2, 0.6)
    assert list(found.masks) == ["4", "6"]
    assert found.sparsity() == pytest.approx(0.5, abs=0.02)
    assert getattr(found, "gamma", 0.7) == 0.7
    other = Plan(method, 0.5, 7, options).updater(build(3, in_channels=2, seed=0), optimizer, 90, 5)
    assert not torch.equal(found.masks["4"], other.masks["4"])
    assert other.schedule == DropSchedule(90, 7, 0.3, 0.75)


def test_an_option_that_the_updater_refuses_is_refused():
    with pytest.raises(InputError, match="gamma must be a number from 0 to 1"):
        trained("srigl", options={"gamma": 2.0})


# ---- trainings -------------------------------------------------------------------------------------------------------


def watched(method, seed, options):
    """Train by hand: the model, its updater, and which weights were ever active."""
    model = build(3, in_channels=2, seed=seed)
    seen = SimpleNamespace(updater=None, ever={})

    def follow(model, optimizer, steps):
        assert steps == STEPS
        schedule = DropSchedule(steps, 2, 0.4, 0.8)
        seen.updater = KINDS[method](model, optimizer, schedule, sparsity=0.6, seed=seed, **options)
        seen.ever = {name: mask.clone() for name, mask in seen.updater.masks.items()}
        return SimpleNamespace(step=step)

    def step():
        seen.updater.step()
        for name, mask in seen.updater.masks.items():
            seen.ever[name] |= mask

    losses = fit(model, *made_up(SIZES, seed).train, seed=seed, follow=follow, **SETTINGS)
    return model.eval(), seen, losses


@pytest.mark.parametrize("method", SPARSE)
def test_what_a_sparse_trial_reports_is_recomputed(method):
    options = {"gamma": 0.6, "dense": ["6"]} if method == "srigl" else {"dense": ["6"]}
    trial = trained(method, options=options)
    model, seen, losses = watched(method, 1, options)
    assert (trial.network, trial.seed) == ("toy", 1)
    assert trial.plan == Plan(method, 0.6, 2, options, 0.4, 0.8)
    assert trial.losses == tuple(losses)
    assert list(trial.masks) == ["0", "4"]
    for name, mask in trial.masks.items():
        assert torch.equal(mask, seen.updater.masks[name])
        assert not trial.model.get_submodule(name).weight[~mask].any()
    assert trial.log == tuple(seen.updater.log)
    assert [each.step for each in trial.log] == ([] if method == "static" else [2, 2, 4, 4, 6, 6, 8, 8])
    ever, every = (sum(int(count(mask)) for mask in seen.ever.values()) for count in (torch.sum, torch.numel))
    assert trial.itop == ever / every
    assert (trial.itop > 1 - seen.updater.sparsity() + 0.01) == (method != "static")
    first, second = (int(mask.sum()) for mask in trial.masks.values())
    dense, sparse = 9 * 144 + 12 * 72 + 12 + 36 + 3, 9 * first + second + 12 + 36 + 3
    assert (trial.macs, trial.dense_macs) == (sparse, dense)
    gradients = method in ("rigl", "srigl")
    assert trial.step_macs == pytest.approx((8 * sparse + dense) / 3 if gradients else 3 * sparse)  # ΔT is 2
    assert trial.images == 4 * 40
    assert all(torch.equal(a, b) for a, b in zip(trial.model.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("dense", [[], ["6"]])
def test_the_share_of_active_neurons_is_of_hidden_layers(dense):
    """Also where the last layer has no mask; of ERK's 0.85 and γ = 1 some neurons are ablated."""
    trial = trained("srigl", every=1, sparsity=0.85, options={"gamma": 1.0, "dense": dense})
    active = [int((trial.masks[name].flatten(1).sum(1) > 0).sum()) for name in ("0", "4")]
    assert trial.active_share == pytest.approx(sum(active) / (8 + 12))
    assert trial.active_share < 1
    assert trained("dense").active_share == 1


def test_a_dense_trial_has_no_masks():
    trial, model = trained("dense"), build(3, in_channels=2, seed=1)
    losses = fit(model, *made_up(SIZES, 1).train, seed=1, **SETTINGS)
    assert (trial.masks, trial.log, trial.itop) == ({}, (), 1.0)
    assert trial.losses == tuple(losses)
    assert trial.macs == trial.dense_macs == 9 * 144 + 12 * 72 + 12 + 36 + 3
    assert (trial.step_macs, trial.images) == (3 * trial.macs, 160)
    assert torch.equal(trial.model[4].weight, model[4].weight)


@pytest.mark.parametrize("method", ["dense", "srigl"])
def test_errors_are_those_of_validation_and_of_test_images(method):
    trial = trained(method, seed=2)
    sets = made_up(SIZES, 2)
    wrong = [
        float((scores(trial.model, images).argmax(1) != labels).mean()) for images, labels in (sets.check, sets.test)
    ]
    assert [trial.check_error, trial.test_error] == wrong
    assert trial.check_error != trial.test_error


@pytest.mark.parametrize("method", ["dense", *SPARSE])
def test_the_same_seed_gives_the_same_bit_for_bit(method):
    first = trained(method)
    torch.rand(7)  # whatever others draw
    second, other = trained(method), trained(method, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values()))
    assert all(torch.equal(mask, second.masks[name]) for name, mask in first.masks.items())
    names = ("check_error", "test_error", "losses", "log", "itop", "macs", "step_macs")
    assert all(getattr(first, name) == getattr(second, name) for name in names)
    assert other.losses != first.losses
    assert method == "dense" or not torch.equal(first.masks["4"], other.masks["4"])


def test_all_methods_see_the_same_images_in_the_same_order(monkeypatch):
    asked, given = [], []

    def counted(model, images, labels, *, seed, follow, **settings):
        given.append((images.sum(), labels.tolist(), seed, settings))
        return fit(model, images, labels, seed=seed, follow=follow, **settings)

    monkeypatch.setattr(trials, "draw_sets", lambda sizes, seed: asked.append((sizes, seed)) or made_up(sizes, seed))
    monkeypatch.setattr(trials, "fit", counted)
    for method in ("dense", *SPARSE):
        trained(method, seed=3)
    assert asked == [(SIZES, 3)] * 5
    assert all(each == given[0] for each in given)
    assert given[0][2:] == (3, SETTINGS)


def test_the_network_is_for_inference_on_the_processor_without_hooks(device):
    trial = trained("srigl", device=str(device), options={"gamma": 0.9})
    assert not any(layer.training for layer in trial.model.modules())
    everything = [*trial.model.state_dict().values(), *trial.masks.values()]
    assert {each.device.type for each in everything} == {"cpu"}
    trial.model(torch.randn(5, 2, 6, 6)).square().sum().backward()
    weights = {name: trial.model.get_submodule(name).weight for name in trial.masks}
    assert not any(weight._backward_hooks for weight in weights.values())
    assert weights["4"].grad[~trial.masks["4"]].any()  # nothing masks gradients any more


def test_another_memory_format_serves_all_steps_and_leaves_no_trace(monkeypatch):
    layouts = []

    def seen(model, images, *, memory_format):
        layouts.append(memory_format)
        return scores(model, images, memory_format=memory_format)

    monkeypatch.setattr(trials, "scores", seen)
    trial, usual = trained("rigl", memory_format=torch.channels_last), trained("rigl")
    assert layouts == [torch.channels_last] * 2 + [None] * 2
    assert all(mask.is_contiguous() for mask in trial.masks.values())
    assert trial.losses == pytest.approx(usual.losses, rel=0.05)
    assert trial.macs == usual.macs


# ---- what hangs on the optimiser, and curves -------------------------------------------------------------------------


HUNG = {"sparseopt": {"mean": "active", "growth": "corrected"}, "unit_norm": {}, "ham": {"alpha": 2.0, "beta": 0.1}}


@pytest.mark.parametrize("names", [("sparseopt",), ("unit_norm",), ("ham",), ("unit_norm", "sparseopt", "ham")])
def test_what_hangs_on_the_optimiser_is_what_the_plan_says(names):
    """Built by hand, in the order in which it acts, whatever the order of the plan."""
    hung = {name: HUNG[name] for name in names}
    plan = Plan("rigl", 0.6, 2, {}, 0.4, 0.8, hung)
    trial = train_sparse("toy", build, plan, 1, SIZES, **SETTINGS)

    def follow(model, optimizer, steps):
        updater = RigL(model, optimizer, DropSchedule(steps, 2, 0.4, 0.8), sparsity=0.6, seed=1)
        if "sparseopt" in hung:
            SparseOpt(optimizer, updater, mean="active", growth="corrected")
        if "unit_norm" in hung:
            UnitNorm(optimizer, updater)
        if "ham" in hung:
            HAM(optimizer, updater, alpha=2.0, beta=0.1)
        return updater

    model = build(3, in_channels=2, seed=1)
    losses = fit(model, *made_up(SIZES, 1).train, seed=1, follow=follow, **SETTINGS)
    assert trial.losses == tuple(losses)
    assert trial.losses != trained("rigl").losses


def test_what_cannot_hang_is_refused():
    with pytest.raises(InputError, match=r"of rigl may be sparseopt, unit_norm, ham; got \['momentum'\]"):
        Plan("rigl", 0.5, hung={"momentum": {}})
    with pytest.raises(InputError, match="of dense may be nothing: it has no masks; got"):
        Plan("dense", hung={"sparseopt": {}})
    with pytest.raises(InputError, match=r"may be sparseopt, unit_norm, ham; got \['ham'\]"):
        Plan("rigl", 0.5, hung=["ham"])
    with pytest.raises(InputError, match="ham takes the options alpha, beta, got alhpa"):
        Plan("rigl", 0.5, hung={"ham": {"alhpa": 1}})
    with pytest.raises(InputError, match="unit_norm takes the options none, got size"):
        Plan("rigl", 0.5, hung={"unit_norm": {"size": 1}})
    with pytest.raises(InputError, match="mean must be all or active, got 'some'"):
        train_sparse("toy", build, Plan("rigl", 0.6, hung={"sparseopt": {"mean": "some"}}), 1, SIZES, **SETTINGS)


def test_a_curve_has_the_accuracies_after_each_epoch_and_changes_nothing():
    """Its points are those of trainings that end there: the rate is constant, and masks stay."""
    settings = SETTINGS | {"schedule": "constant"}
    plan = Plan("static", 0.6)
    trial = train_sparse("toy", build, plan, 1, SIZES, curve=True, **settings)
    assert trial.losses == train_sparse("toy", build, plan, 1, SIZES, **settings).losses
    sets, found = made_up(SIZES, 1), []
    for epochs in range(1, 5):
        model = train_sparse("toy", build, plan, 1, SIZES, **settings | {"epochs": epochs}).model
        shown = [(images[:30], labels[:30]) for images, labels in (sets.train, sets.check)]
        found.append([float((scores(model, images).argmax(1) == labels).mean()) for images, labels in shown])
    assert trial.curve == pytest.approx(np.array(found))
    assert trial.curve[-1, 1] == pytest.approx(1 - trial.check_error)
    assert len({tuple(each) for each in found}) > 1
    assert trained("dense").curve is None


def test_a_curve_leaves_the_progress_to_those_who_asked_for_it():
    seen = []
    trial = trained("set", curve=True, progress=lambda *each: seen.append(each))
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4]
    assert [loss for _, loss in seen] == list(trial.losses)
    assert trial.curve.shape == (4, 2)
