"""Studies and tables of SRigL: masks, variances, times by a clock of our own, condensed networks, published numbers."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin import ledger
from papertwin.checks import SEEDS
from papertwin.papers import srigl as paper
from papertwin.papers import srigl_studies as studies
from papertwin.papers import srigl_tables as tables
from papertwin.papers.srigl import Job
from papertwin.sparse.variances import norm_variance
from papertwin.training import clock
from papertwin.training.trials import draw_sets

PARAMS = paper.Params(
    train_images=200, check_images=50, test_images=60, epochs=2, width=16, every=1, conv_images=100, device="cpu"
)
FORMS = ("condensed", "condensed, ablated", "structured only", "CSR, torch", "CSR, SciPy", "dense")


# ---- masks to look at ------------------------------------------------------------------------------------------------


NEURONS, INPUTS, FAN_IN = studies.EXAMPLE


@pytest.mark.parametrize("seed", range(4))
def test_masks_have_as_many_weights_anywhere_by_neuron_and_without_a_quarter_of_them(seed):
    masks = studies.masks(seed)
    assert list(masks) == ["weights anywhere", "one fan-in", "one fan-in, neurons ablated"]
    assert all(mask.shape == (NEURONS, INPUTS) and mask.dtype == torch.bool for mask in masks.values())
    anywhere, one, ablated = (mask.sum(1).tolist() for mask in masks.values())
    assert sum(anywhere) == NEURONS * FAN_IN
    assert len(set(anywhere)) > 1
    assert one == [FAN_IN] * NEURONS
    left = 3 * NEURONS // 4
    assert sorted(ablated) == [0] * (NEURONS - left) + [NEURONS * FAN_IN // left] * left
    again, other = studies.masks(seed), studies.masks(seed + 1)
    assert all(torch.equal(mask, again[name]) and not torch.equal(mask, other[name]) for name, mask in masks.items())


@pytest.mark.parametrize("seed", range(6))
def test_the_neuron_that_does_not_matter_is_ablated(seed):
    example = studies.example_update(seed)
    weight, gradient = example.weight, example.gradient
    assert torch.equal(weight != 0, example.before)
    assert example.before.sum(1).tolist() == [FAN_IN] * NEURONS
    sizes = weight.abs().mean(1), gradient.abs().mean(1)
    assert all(15 * each.min() < each.sort().values[1] for each in sizes)
    weak = int(sizes[0].argmin())
    assert weak == sizes[1].argmin()
    active = NEURONS * FAN_IN
    count = int(0.3 * active + 1e-6)
    salient = torch.zeros(NEURONS * INPUTS, dtype=torch.bool)
    salient[weight.abs().flatten().topk(active - count).indices] = True
    salient[gradient.abs().flatten().topk(count).indices] = True
    assert torch.equal(example.salient, salient.view(NEURONS, INPUTS))
    assert example.grown.least == max(1, int(0.3 * FAN_IN + 1e-6))
    assert torch.equal(example.grown.active, example.salient.sum(1) >= example.grown.least)
    assert not example.grown.active[weak]
    fan_in = active // int(example.grown.active.sum())
    assert torch.equal(example.grown.mask.sum(1), fan_in * example.grown.active)
    assert not torch.equal(studies.example_update(seed + 1).weight, weight)


# ---- variance of the output norm -------------------------------------------------------------------------------------


def test_every_width_density_and_kind_of_mask_is_simulated(monkeypatch):
    asked = []

    def norms(width, fan_in, kind, *, draws, seed):
        asked.append((width, fan_in, kind, draws, seed))
        return torch.tensor([0.5, 1.0, 1.5, 3.0], dtype=torch.float64) + len(asked)

    monkeypatch.setattr(studies, "simulated_norms", norms)
    table = studies.variances(replace(PARAMS, draws=300, seed=7))
    kinds = ("bernoulli", "layer", "neuron")
    cases = [(width, sparsity, kind) for sparsity in (0.8, 0.9, 0.95) for width in (40, 60, 80, 100) for kind in kinds]
    assert [(each[0], round(each[1], 9), each[2]) for each in table[["width", "sparsity", "kind"]].to_numpy()] == cases
    fan_ins = {0.8: (8, 12, 16, 20), 0.9: (4, 6, 8, 10), 0.95: (2, 3, 4, 5)}
    due = [fan_ins[sparsity][(width - 40) // 20] for width, sparsity, _ in cases]
    assert [case[:3] for case in asked] == [(width, k, kind) for (width, _, kind), k in zip(cases, due)]
    assert {case[0]: case[3] for case in asked} == {40: 1875, 60: 833, 80: 468, 100: 300}
    assert len({case[4] for case in asked}) == 36
    base = [norm_variance(width, k, "bernoulli") for (width, _, _), k in zip(cases, due)]
    assert table["base"].tolist() == base
    assert table["theory"].tolist() == [norm_variance(width, k, kind) for (width, _, kind), k in zip(cases, due)]
    drawn = np.array([0.5, 1.0, 1.5, 3.0])
    squares = (drawn - 1.5) ** 2
    assert table["simulated"].tolist() == pytest.approx([squares.sum() / 3] * 36)
    assert table["error"].tolist() == pytest.approx([squares.std() / 2] * 36)
    assert table["norm"].tolist() == pytest.approx([1.5 + number for number in range(1, 37)])
    assert table["norm error"].tolist() == pytest.approx([drawn.std() / 2] * 36)
    first = [case[4] for case in asked]
    asked.clear()
    studies.variances(replace(PARAMS, draws=300, seed=8))
    assert not set(first) & {case[4] for case in asked}


def test_the_largest_seed_leaves_room_for_those_of_the_simulations(monkeypatch):
    asked = []
    monkeypatch.setattr(studies, "simulated_norms", lambda *_, draws, seed: asked.append(seed) or torch.ones(2))
    studies.variances(replace(PARAMS, seed=SEEDS // 2 - 1))
    assert SEEDS // 2 < min(asked) < max(asked) < SEEDS


def test_simulated_layers_have_the_variances_of_the_formulas(monkeypatch):
    monkeypatch.setattr(studies, "WIDTHS_OF_VARIANCE", (40,))
    table = studies.variances(replace(PARAMS, draws=500))
    assert len(table) == 9
    assert ((table["simulated"] - table["theory"]).abs() < 5 * table["error"]).all()
    assert ((table["norm"] - 1).abs() < 5 * table["norm error"]).all()


# ---- time of a layer -------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch):
    """Stand-ins for the layers, their forms and the clock: what was asked of them, each as long as `takes` says."""
    asked = SimpleNamespace(now=0.0, drawn=[], given=[], calls=[], modes=set())

    def ways(sparsity, inputs):
        asked.given.append((sparsity, inputs))

        def call(name):
            number = asked.calls.count((sparsity, len(inputs), name))
            asked.calls.append((sparsity, len(inputs), name))
            asked.modes.add(torch.is_inference_mode_enabled())
            asked.now += takes(sparsity, len(inputs), name) * (1, 2, 1, 40)[number % 4]

        return {name: (lambda name=name: call(name)) for name in FORMS}

    monkeypatch.setattr(studies, "layers", lambda *given: asked.drawn.append(given) or given[1])
    monkeypatch.setattr(studies, "ways", ways)
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: asked.now))
    return asked


def takes(sparsity, batch, name):
    """Seconds: each form, sparsity and batch has its own."""
    return (3.0 + FORMS.index(name)) * (1 + 10 * (1 - sparsity)) * (1 + batch / 8)


@pytest.mark.parametrize(("rounds", "many"), [(3, 3), (50, 5)])
def test_all_forms_take_turns_and_times_are_microseconds(fake, rounds, many):
    times = studies.layer_times(replace(PARAMS, rounds=rounds, seed=4))
    cases = [(sparsity, batch) for sparsity in (0.8, 0.9, 0.95, 0.99) for batch in (1, 256)]
    assert times.columns.names == ["sparsity", "batch", "form"]
    assert times.columns.tolist() == [(*case, name) for case in cases for name in FORMS]
    assert fake.drawn == [((768, 3072), sparsity, 0.3, 4) for sparsity in (0.8, 0.9, 0.95, 0.99)]
    assert [(sparsity, *inputs.shape) for sparsity, inputs in fake.given] == [(*case, 3072) for case in cases]
    first, second = (inputs for _, inputs in fake.given[:2])
    assert torch.equal(first[0], torch.randn(1, 3072, generator=torch.Generator().manual_seed(4))[0])
    assert not torch.equal(second[0], second[1])
    assert times.count().tolist() == ([rounds] * 6 + [many] * 6) * 4  # a round more comes before, and is not counted
    turns = [(*case, name) for case in cases for _ in range(1 + (rounds if case[1] == 1 else many)) for name in FORMS]
    assert fake.calls == turns
    assert fake.modes == {True}
    for case in times.columns:
        first = [1e6 * factor * takes(*case) for factor in (2, 1, 40)]
        assert times[case][:3].tolist() == pytest.approx(first)


def test_times_are_medians_beside_the_dense_layer_of_the_same_sparsity_and_batch(fake):
    table = studies.time_table(studies.layer_times(replace(PARAMS, rounds=3)))
    assert list(table.columns) == ["microseconds", "times as fast as dense"]
    assert len(table) == 4 * 2 * 6
    for case, row in table.iterrows():
        dense = takes(*case[:2], "dense")
        assert row.tolist() == pytest.approx([2e6 * takes(*case), dense / takes(*case)]), case


# ---- condensed networks ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trials():
    """Perceptrons trained by all methods from one seed, SRigL from two."""
    jobs = [Job("mlp", name, 0.9, 1, options.get("gamma")) for name, (_, options) in paper.METHODS.items()]
    jobs = [replace(job, sparsity=0.0) if job.method == "dense" else job for job in jobs]
    jobs += [Job("mlp", "SRigL", 0.9, 2, 0.3), Job("mlp", "SRigL", 0.8, 1, 0.3)]
    params = replace(PARAMS, epochs=3)
    return {job: paper.train_job(job, params) for job in jobs}


def test_a_condensed_network_computes_the_same(trials):
    images = draw_sets(PARAMS.sizes, 1).test[0]
    trial = trials[Job("mlp", "SRigL", 0.9, 1, 0.3)]
    assert trial.log
    small = studies.condensed(trial)
    assert [type(small.get_submodule(name)).__name__ for name in ("fc1", "fc2", "fc3")] == ["CondensedLinear"] * 3
    assert all(torch.equal(small.get_submodule(name).mask(), mask) for name, mask in trial.masks.items())
    assert isinstance(trial.model.fc1, nn.Linear)
    assert not small.training
    assert studies.condensed_gap(trial, images) < 1e-5
    wrong = dict(trial.masks) | {"fc2": trial.masks["fc2"].roll(1, dims=1)}
    assert studies.condensed_gap(replace(trial, masks=wrong), images) > 1e-2


def test_the_gap_is_a_share_of_the_largest_logit(trials, monkeypatch):
    trial = replace(trials[Job("mlp", "SRigL", 0.9, 1, 0.3)], model=lambda x: torch.stack([x[:, 0], -4 * x[:, 0]], 1))
    monkeypatch.setattr(studies, "condensed", lambda each: lambda x: trial.model(x) + torch.tensor([0.0, -0.5]))
    assert studies.condensed_gap(trial, np.ones((3, 2), np.float32)) == pytest.approx(0.5 / 4)


# ---- tables ----------------------------------------------------------------------------------------------------------


def mask(*counts, inputs=4):
    """A mask with so many weights in each neuron."""
    return torch.arange(inputs) < torch.tensor(counts)[:, None]


def test_usual_trials_are_in_the_order_of_their_seeds():
    names = ("SRigL", "SRigL without ablation", "RigL")
    jobs = [Job("mlp", "SRigL", 0.9, seed, 0.3) for seed in (3, 1, 2)]
    jobs += [Job("mlp", "SRigL", 0.9, 1, 0.3, length=2), Job("mlp", "SRigL", 0.9, 1, 0.3, width=0.5)]
    jobs += [Job("mlp", "SRigL", 0.9, 1, 0.5), Job("mlp", "SRigL without ablation", 0.9, 1, 0.0)]
    jobs += [Job("mlp", "SRigL", 0.8, 1, 0.3), Job("resnet", "SRigL", 0.9, 1, 0.3), Job("mlp", "RigL", 0.9, 1)]
    trials = {job: number for number, job in enumerate(jobs)}
    assert [tables.usual_trials(trials, "mlp", name, 0.9) for name in names] == [[1, 2, 0], [6], [9]]
    assert tables.usual_trials(trials, "mlp", "SRigL", 0.8) == [7]


def test_boxes_are_the_fan_ins_of_all_seeds():
    first, second = ({"fc1": mask(*counts), "fc2": mask(2)} for counts in ((1, 4), (0, 3)))
    other = {"fc1": mask(2, 2), "fc2": mask(1)}
    jobs = {("RigL", 0.9, 2): second, ("RigL", 0.9, 1): first, ("RigL", 0.8, 1): other, ("SET", 0.9, 1): other}
    trials = {Job("mlp", *job): SimpleNamespace(masks=masks) for job, masks in jobs.items()}
    found = tables.fan_in_boxes(trials, "mlp")
    assert {name: each.tolist() for name, each in found.items()} == {"fc1": [1, 4, 0, 3], "fc2": [2, 2]}
    assert tables.fan_in_boxes(trials, "mlp", "SET")["fc1"].tolist() == [2, 2]


def test_least_weights_that_matter_are_those_of_the_last_update_of_the_first_seed():
    def trial(*log):
        entries = [SimpleNamespace(step=step, layer=name, least=n) for step, name, n in log]
        return SimpleNamespace(log=entries, masks=dict.fromkeys(("conv", "fc1", "never", "fc2")))

    trials = {Job("mlp", "SRigL", 0.9, 2, 0.3): trial((9, "fc1", 77))}
    trials[Job("mlp", "SRigL", 0.9, 1, 0.3)] = trial(
        *((5, "conv", 3), (5, "fc1", 6), (5, "fc2", 7), (4, "fc1", 8), (4, "fc2", 9), (4, "conv", 1))
    )
    trials[Job("mlp", "SRigL", 0.8, 1, 0.3)] = trial((4, "fc1", 1), (5, "fc1", 2), (5, "fc2", 0))
    trials[Job("mlp", "RigL", 0.8, 1)] = trials[Job("resnet", "SRigL", 0.7, 1, 0.3)] = trial((9, "fc1", 55))
    trials[Job("mlp", "dense", 0.0, 1)] = trial()
    found = tables.least_salient(trials, "mlp")
    assert found.columns.tolist() == [0.8, 0.9]
    assert found.index.tolist() == ["conv", "fc1", "fc2"], "in the order of the network"
    np.testing.assert_array_equal(found, [[np.nan, 3], [2, 6], [0, 7]])


def test_our_accuracies_stand_beside_the_published_ones():
    rows = [("SRigL", 0.95, 70.0), ("SRigL", 0.9, 80.0), ("SRigL", 0.9, 86.0), ("RigL", 0.9, 50.0), ("dense", 0.0, 9.0)]
    rows = pd.DataFrame(rows, columns=["method", "sparsity", "test accuracy"])
    printed = {"SRigL": {"0.9": 95.11, "0.99": 92.79}, "RigL": {"0.95": 94.62}, "dense": {"0.0": 95.4}}
    found = tables.beside_published(rows, printed)
    names = [("dense", 0.0), ("RigL", 0.9), ("RigL", 0.95), ("SRigL", 0.9), ("SRigL", 0.95), ("SRigL", 0.99)]
    assert found.index.tolist() == names
    no = np.nan
    due = [[9, 9, 9, 95.4], [50, 50, 50, no], [no, no, no, 94.62]]
    due += [[83, 80, 86, 95.11], [70, 70, 70, no], [no, no, no, 92.79]]
    np.testing.assert_array_equal(found[["here", "lowest", "highest", "published"]], due)


def test_published_numbers_are_those_of_the_card():
    known = ledger.load("srigl").published
    assert known["resnet18"] == {
        "dense": {"0.0": 95.4},
        "RigL": {"0.9": 95.06, "0.95": 94.62, "0.99": 92.88},
        "SRigL without ablation": {"0.9": 95.00, "0.95": 94.48, "0.99": 91.47},
        "SRigL": {"0.9": 95.11, "0.95": 94.70, "0.99": 92.79},
    }
    assert known["resnet50"] == {
        "SET": {"0.8": 72.9, "0.9": 69.6},
        "RigL": {"0.8": 74.98, "0.9": 72.81},
        "SRigL": {"0.8": 75.01, "0.9": 72.71, "0.95": 69.18, "0.99": 51.55},
    }
    assert known["vit"] == {
        "dense": {"0.0": 78.35},
        "RigL": {"0.8": 77.9, "0.9": 76.4},
        "SRigL without ablation": {"0.8": 73.5, "0.9": 71.3},
        "SRigL": {"0.8": 77.5, "0.9": 76.0},
    }
    assert known["active"] == {"RigL": 61, "SRigL": 82, "SRigL, 5 times as long": 55}
    one = {"dense": 165.6, "structured only": 96.9, "CSR": 106.6, "condensed": 45.6}
    assert {name: each["1"] for name, each in known["microseconds"].items()} == one
    many = {name: each["256"] for name, each in known["microseconds"].items() if "256" in each}
    assert many == {"condensed": 3935, "dense": 2025}


def test_the_transformer_is_counted_at_every_published_sparsity():
    printed = {"dense": {"0.0": 78.35}, "SRigL": {"0.8": 77.5, "0.9": 76.0}}
    table = tables.vit_table(printed)
    assert table.index.tolist() == [("dense", 0.0), ("SRigL", 0.8), ("SRigL", 0.9)]
    assert table["published accuracy, %"].tolist() == [78.35, 77.5, 76.0]
    square, wide = 768 * 768, 4 * 768 * 768
    layers = {square: 1 + 12, 3 * square: 12, wide: 2 * 12, 768_000: 1}  # patches and projections, q k v, mlp, classes
    per = {share: sum(number * (size * share // 10) for size, number in layers.items()) for share in (10, 2, 1)}
    assert table["weights"].tolist() == [86_292_480, per[2], per[1]]
    assert per[10] == 86_292_480


def test_methods_are_told_apart_by_their_masks(trials):
    found = tables.method_table({replace(job, sparsity=0.99): each for job, each in trials.items() if job.seed == 1})
    assert found.index.tolist() == ["static", "SET", "RigL", "SRigL without ablation", "SRigL"]
    assert found["connections move"].tolist() == [False, True, True, True, True]
    assert found["needs gradients of masked weights"].tolist() == [False, False, True, True, True]
    assert found["one fan-in"].tolist() == [False, False, False, True, True]


def test_methods_are_described_by_all_seeds_at_99_per_cent():
    log = [SimpleNamespace(revived=2), SimpleNamespace(revived=3)]
    right = SimpleNamespace(masks={"a": mask(2, 2, 0, 2), "b": mask(1, 3)}, itop=0.25, log=log, active_share=0.75)
    even = SimpleNamespace(masks={"a": mask(2, 2, 2, 2), "b": mask(1, 1)}, itop=0.75, log=[], active_share=1.0)
    wrong = SimpleNamespace(masks={"a": mask(1, 2), "b": mask(2, 2)}, itop=0.5, log=[])
    trials = {}
    for name, (_, options) in paper.METHODS.items():
        kinds = ((0.99, 2, even), (0.99, 1, right), (0.9, 1, wrong))
        trials |= {Job("mlp", name, s, seed, options.get("gamma")): each for s, seed, each in kinds}
        trials[Job("resnet", name, 0.99, 1, options.get("gamma"))] = wrong
    found = tables.method_table(trials)
    assert found.loc["SRigL"].tolist() == [True, True, False, 10, 87.5, 50.0, 2.5]
    assert found.loc["SET"].tolist() == [True, False, False, 10, 87.5, 50.0, 2.5]


def test_costs_are_shares_of_the_dense_network():
    columns = ["method", "sparsity", "MACs", "dense MACs", "training MACs", "test accuracy"]
    rows = [
        ("SRigL", 0.9, 20, 100, 150.0, 80.0),
        ("SRigL", 0.9, 30, 100, 250.0, 82.0),
        ("dense", 0.0, 100, 100, 900.0, 90),
    ]
    rows += [("dense", 0.0, 100, 100, 1100.0, 92.0), ("RigL", 0.8, 50, 100, 500.0, 70.0)]
    found = tables.cost_table(pd.DataFrame(rows, columns=columns))
    assert found.index.tolist() == [("dense", 0.0), ("RigL", 0.8), ("SRigL", 0.9)]
    assert found.loc[("SRigL", 0.9)].tolist() == pytest.approx([0.25, 0.2, 81])
    assert found.loc[("RigL", 0.8)].tolist() == pytest.approx([0.5, 0.5, 70])
    assert found.loc[("dense", 0.0)].tolist() == pytest.approx([1, 1, 91])


def test_trainings_by_the_shared_protocol():
    rows = pd.DataFrame(
        {
            "method": ["RigL", "dense"],
            "sparsity": [0.9, 0.0],
            "seed": [2, 1],
            "test accuracy": [81.5, 90.25],
            "validation accuracy": [1.0, 2.0],
        }
    )
    words = "perceptron 256-256, 12000 images of Fashion-MNIST 14×14, 5 passes, ΔT 25, tested on 2000"
    found = tables.trainers(rows, paper.Params())
    assert found.columns.tolist() == ["trainer", "sparsity", "seed", "test accuracy", "protocol"]
    assert found.to_numpy().tolist() == [["RigL", 0.9, 2, 81.5, words], ["dense", 0.0, 1, 90.25, words]]
    assert "7 passes, ΔT 3" in tables.trainers(rows, replace(paper.Params(), epochs=7, every=3))["protocol"][0]
