"""Fine-tuning as a whole on small images: what is trained on what, what is measured, and in which order."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from papertwin import paths
from papertwin.data.images import Images
from papertwin.nets import mlp
from papertwin.papers import nn_robustness as paper
from papertwin.papers import nn_robustness_claims as claims
from papertwin.robustness import finetuning, lbfgs, pgd_adversarial
from papertwin.robustness.finetuning import finetune
from papertwin.robustness.many import SeedPool
from papertwin.robustness.outcome import Adversarial
from papertwin.robustness.study import Study, witness_problems
from papertwin.training.loop import accuracy, fit, predict

COUNTS = {"mlp_points": 8, "full_mlp_points": 8, "lenet_points": 6, "tuned_points": 4, "tune_points": 6}
SMALL = paper.Params(**COUNTS, tune_images=60, device="cpu")
BRANCHES = ["control T=2", "L-BFGS-B T=1", "L-BFGS-B T=2", "LP T=1", "LP T=2"]


def pictures(count: int, seed: int) -> Images:
    """Images of 4 × 4 pixels in three classes: noise, one row of which is brighter."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    images = rng.integers(0, 120, (count, 1, 4, 4)).astype(np.uint8)
    images[np.arange(count), 0, labels] += 80
    return Images(images, labels, ("top", "middle", "bottom"))


SETS = {"train": pictures(200, 1), "test": pictures(90, 2)}


def trained(seed: int) -> nn.Sequential:
    """A small perceptron that knows most of the small images."""
    model = mlp((16, 12, 3), seed=seed)
    fit(model, SETS["train"].scaled(), SETS["train"].labels, epochs=8, rate=0.2, batch=16, seed=seed)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    """The perceptron of most tests."""
    return trained(0)


def quick_attack(network: nn.Module, seed: np.ndarray) -> Adversarial:
    """In place of L-BFGS-B, whose many small steps take seconds where all cores are busy."""
    return pgd_adversarial(network, seed[None], steps=4, bisections=6)[0]


def shrunk(monkeypatch) -> SeedPool:
    """Small images in place of MNIST, small perceptrons in place of the stored ones, a quick attack."""
    monkeypatch.setattr(paper, "load_images", lambda name, split: {"mnist": SETS}[name][split])
    monkeypatch.setattr(paper, "test_images", lambda: SETS["test"])
    monkeypatch.setattr(paper, "stored", lambda name: trained(int(name.removeprefix("mlp-"))))
    monkeypatch.setattr(lbfgs, "lbfgs_adversarial", quick_attack)
    return SeedPool(1)


@pytest.fixture
def small(monkeypatch):
    """The same for one test."""
    return shrunk(monkeypatch)


class Recorder:
    """In place of the pool: finds nothing, and remembers what it was asked."""

    def __init__(self):
        self.calls = []

    def search(self, model, images, method, *, settings=None, store=None):
        """Return one failure an image."""
        self.calls.append({"method": method, "images": np.asarray(images), "settings": settings, "store": store})
        labels = predict(model, np.asarray(images, dtype=np.float32)) if len(images) else []
        return [Adversarial(math.inf, None, int(label), None, None, 0.0, "infeasible") for label in labels]


def keys(images: np.ndarray) -> set[bytes]:
    """Images as a set."""
    return {image.astype(np.float32).tobytes() for image in images}


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same weights, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_each_algorithm_gets_its_settings_and_long_runs_a_store(monkeypatch, model):
    asked, pool, images = {}, Recorder(), np.zeros((2, 1, 4, 4))
    monkeypatch.setattr(paper, "pgd_adversarial", lambda network, seeds, **settings: asked.update(settings) or [])
    for profile in ("quick", "full"):
        found = paper.searches(replace(SMALL, profile=profile, limit=7.0, seed=5), pool)
        assert list(found) == ["lp", "lbfgs", "pgd"]
        for search in found.values():
            search(model, images)
    store = paths.cache("nn_robustness")
    methods = [(call["method"], call["settings"], call["store"]) for call in pool.calls]
    settings = {"lp": {"margin": 1e-6, "limit": 7.0}, "lbfgs": {}}
    assert methods == [(method, settings[method], place) for place in (None, store) for method in ("lp", "lbfgs")]
    assert asked == {"seed": 5, "device": "cpu"}


def test_a_study_measures_the_first_of_the_drawn_points(small, model):
    each = paper.study("MLP", model, 8, SMALL, small)
    images, labels = paper.choose(SETS["test"], 8, SMALL.seed)
    assert np.array_equal(each.images, images)
    assert np.array_equal(each.labels, labels)
    assert each.accuracy == accuracy(model, SETS["test"].scaled(), SETS["test"].labels) > 0.9
    assert {method: len(found) for method, found in each.outcomes.items()} == {"lp": 8, "lbfgs": 8, "pgd": 8}
    assert witness_problems(each, "lp") == []
    assert list(paper.study("MLP", model, 2, SMALL, small, "lp").outcomes) == ["lp"]


def test_every_branch_sees_the_same_images_and_without_examples_they_end_alike(small, model):
    pool, said, params = Recorder(), [], replace(SMALL, seed=3)
    nothing = [Adversarial(math.inf, None, 0, None, None, 0.0, "infeasible")] * 8
    original = Study("MLP", model, 1.0, *paper.choose(SETS["test"], 8, 3), {"lp": nothing, "lbfgs": nothing})
    found = paper.tuning("MLP", original, params, pool, said.append)
    assert said == [f"MLP, {branch}: 0 adversarial examples" for branch in BRANCHES]
    assert len(found.original.labels) == len(found.of("LP T=2").labels) == 4
    assert found.appended == {f"MLP, {branch}": 0 for branch in BRANCHES}
    by_hand, drawn = model, paper.choose(SETS["train"], 60, 4)
    for seed in (4, 5):
        by_hand = finetune(by_hand, drawn[0].astype(np.float32), drawn[1], [], [], rate=0.01, batch=128, seed=seed)
    assert same(by_hand, found.of("control T=2").model)
    assert same(by_hand, found.of("LP T=2").model)
    assert same(by_hand, found.of("L-BFGS-B T=2").model)
    assert not same(by_hand, found.of("LP T=1").model)
    attacks = [call for call in pool.calls if not keys(call["images"]) & keys(original.images)]
    assert [call["method"] for call in attacks] == ["lbfgs", "lbfgs", "lp", "lp"]
    attacked = set().union(*(keys(call["images"]) for call in attacks))
    assert attacked <= keys(drawn[0])
    assert 3 < len(attacked) <= SMALL.tune_points


@pytest.mark.parametrize("name", ["LeNet", "MLP 2"])
def test_every_branch_has_the_rate_and_decay_of_its_recipe(small, model, monkeypatch, name):
    seen = []
    monkeypatch.setattr(finetuning, "fit", lambda *data, **settings: seen.append(settings))
    nothing = [Adversarial(math.inf, None, 0, None, None, 0.0, "infeasible")] * 4
    original = Study(name, model, 1.0, *paper.choose(SETS["test"], 4, 0), {"lp": nothing, "lbfgs": nothing})
    paper.tuning(name, original, SMALL, Recorder(), lambda text: None)
    rate, decay = {"LeNet": (0.005, 5e-4), "MLP 2": (0.01, 0.0)}[name]
    assert len(seen) == 6
    for settings in seen:
        assert (settings["rate"], settings["weight_decay"], settings["epochs"]) == (pytest.approx(rate), decay, 1)
        assert (settings["batch"], settings["schedule"]) == (128, "constant")


@pytest.fixture(scope="module")
def whole(model):
    """The whole experiment of two perceptrons at quick, and the studies that it began with."""
    with pytest.MonkeyPatch.context() as patch:
        pool, params = shrunk(patch), replace(SMALL, replicates=2)
        perceptron = paper.study("MLP", model, 8, params, pool, "lp", "lbfgs")
        lenet = paper.study("LeNet", model, 6, params, pool, "lp", "lbfgs")
        return paper.fine_tuning(perceptron, lenet, params, pool), perceptron, lenet


def test_the_whole_experiment_measures_every_network_on_the_same_points(whole):
    (alone, *tunings), perceptron, lenet = whole
    assert (alone.original, alone.studies, alone.appended) == (lenet, [], {})
    assert [each.original.name for each in tunings] == ["MLP", "MLP 1"]
    for tuned in tunings:
        assert [each.name for each in tuned.studies] == [f"{tuned.original.name}, {branch}" for branch in BRANCHES]
        for each in (tuned.original, *tuned.studies):
            assert np.array_equal(each.images, perceptron.images[:4])
            assert {method: len(found) for method, found in each.outcomes.items()} == {"lp": 4, "lbfgs": 4}
            assert witness_problems(each, "lp") == []
    assert tunings[0].original.outcomes["lp"] == perceptron.outcomes["lp"][:4]
    assert same(tunings[1].original.model, trained(1))


def test_examples_of_both_rounds_are_counted_and_change_each_network_in_its_own_way(whole):
    for each in whole[0][1:]:
        control, *rounds = each.appended.values()
        assert control == 0
        assert 0 < rounds[0] <= rounds[1] <= 2 * SMALL.tune_points
        assert 0 < rounds[2] <= rounds[3] <= 2 * SMALL.tune_points
        networks = [each.original.model, *(study.model for study in each.studies)]
        assert not any(same(a, b) for place, a in enumerate(networks) for b in networks[:place])


def test_the_judgements_and_tables_take_the_whole_experiment(whole):
    tunings, *_ = whole
    studies = [study for each in tunings for study in (each.original, *each.studies)]
    table = paper.metrics_table(tunings, SMALL)
    assert table.index.tolist() == ["LeNet", *(each.name for each in studies[1:])]
    assert table.examples.tolist() == [0, *(count for each in tunings[1:] for count in (0, *each.appended.values()))]
    assert len(paper.fates_table(studies, SMALL)) == 2 * len(studies)
    assert len(paper.wins_table(studies)) == len(studies)
    for judge in (claims.overfitting, claims.both_improve):
        assert judge(tunings[1:], SMALL).value is None
        found = judge([*tunings[1:], tunings[2]], replace(SMALL, levels=60))
        assert found.value is None or -1 <= found.interval[0] <= found.value <= found.interval[1] <= 1


def test_curves_are_drawn_of_the_original_and_of_every_branch(whole):
    (alone, tuned, _), *_ = whole
    assert [study for study, *_ in paper.curves(alone)] == [alone.original]
    drawn = paper.curves(tuned)
    assert all(study is wanted for (study, *_), wanted in zip(drawn, (tuned.original, *tuned.studies), strict=True))
    looks = {
        name: [tuple(look) for study, *look in drawn if f", {name} T" in study.name] for name in ("L-BFGS-B", "LP")
    }
    for first, second in looks.values():
        assert first[:2] == second[:2], "one branch has one colour and line"
        assert first[2] < second[2], "first rounds are thin"
    assert len({tuple(look[:2]) for _, *look in drawn}) == 4
    assert drawn[0][3] == drawn[1][3] == looks["LP"][1][2]


def test_a_branch_is_found_by_its_whole_name(whole):
    tuned = whole[0][1]
    assert tuned.of("LP T=2").name == "MLP, LP T=2"
    with pytest.raises(StopIteration):
        tuned.of("T=2")


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_lenet_is_fine_tuned_beyond_quick_and_replicates_are_numbered_from_one(monkeypatch, profile):
    monkeypatch.setattr(paper, "tuning", lambda name, original, *_: paper.Tuning(original, [name], {}))
    monkeypatch.setattr(paper, "study", lambda name, model, count, *_: (name, model, count))
    monkeypatch.setattr(paper, "network", lambda name, params: name)
    found = paper.fine_tuning("the MLP", "the LeNet", replace(SMALL, replicates=3, profile=profile), None)
    lenet, *perceptrons = [(each.original, each.studies) for each in found]
    assert lenet == ("the LeNet", [] if profile == "quick" else ["LeNet"])
    replicates = [((f"MLP {number}", f"mlp-{number}", 4), [f"MLP {number}"]) for number in (1, 2)]
    assert perceptrons == [("the MLP", ["MLP"]), *replicates]


def test_finished_searches_of_a_long_run_are_kept(small, model, monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERTWIN_CACHE", str(tmp_path))
    first, second = (paper.study("MLP", model, 3, replace(SMALL, profile="full"), small, "lp") for _ in range(2))
    assert len(list(tmp_path.rglob("nn_robustness/lp/*.npz"))) == 3
    assert [each.seconds for each in first.outcomes["lp"]] == [each.seconds for each in second.outcomes["lp"]]
