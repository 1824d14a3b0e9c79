"""Tables of trials, fronts, and prices at equal cost, on tables whose answers are known."""

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from papertwin.errors import ParameterError
from papertwin.nets import comparing
from papertwin.training.pool import Pool
from papertwin.training.trials import SetSizes, draw_sets

COLUMNS = ["network", "MACs", "parameters", "validation error", "test error"]


def table(*rows, seed=1):
    return pd.DataFrame(rows, columns=COLUMNS).assign(seed=seed)


def test_a_front_has_one_network_for_each_cost():
    rows = [("a", 100, 9, 20.0, 1.0), ("b", 100, 8, 20.0, 2.0), ("c", 50, 7, 30.0, 3.0)]
    rows += [("d", 60, 6, 31.0, 4.0), ("e", 100, 5, 19.0, 5.0)]
    assert comparing.front(table(*rows))["network"].tolist() == ["c", "e"]
    assert comparing.front(table(*rows[:4]))["network"].tolist() == ["c", "a"]
    assert comparing.front(table(*rows), "parameters")["network"].tolist() == ["e"]


def test_the_price_is_read_off_a_line_through_the_front_at_equal_cost():
    reference = table(("a", 100, 1, 20.0, 22.0), ("b", 400, 1000, 10.0, 12.0), ("bad", 200, 10, 60.0, 70.0))
    asked = table(("x", 200, 10, 50.0, 20.0), ("y", 400, 1000, 50.0, 11.0), ("dear", 401, 1001, 0.0, 0.0))
    price, number = comparing.above_front(asked, reference)
    assert (price, number) == (pytest.approx(((20 - 17) + (11 - 12)) / 2), 2)
    by_parameters, _ = comparing.above_front(asked.iloc[:1], reference, "parameters")
    assert by_parameters == pytest.approx(20 - (22 - 10 / 3))  # a third of the way from 1 to 1000 in decades
    none, zero = comparing.above_front(asked.iloc[2:], reference)
    assert math.isnan(none)
    assert zero == 0


def test_pairs_are_of_one_seed():
    rows = pd.concat([table(("p", 1, 1, 0, 20.0 + s), ("q", 1, 1, 0, 18.0 - s), seed=s) for s in (2, 1)])
    assert comparing.paired(rows, "p", "q").tolist() == [4.0, 6.0]
    assert comparing.paired(rows, "p", "q", "seed").tolist() == [0, 0]


def linear(classes, *, in_channels, seed):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 49, classes))


def test_known_trials_are_not_trained_again_and_every_other_pair_is():
    sizes = SetSizes("mnist", 7, 60, 50, 50)
    known = [SimpleNamespace(name="b", seed=2)]
    with Pool(1) as pool:
        options = {"epochs": 1, "rate": 0.1}
        found = comparing.train_all({"a": partial(linear), "b": partial(linear)}, (1, 2), sizes, pool, known, **options)
    assert [(trial.name, trial.seed) for trial in found] == [("b", 2), ("a", 1), ("b", 1), ("a", 2)]
    rows = comparing.trial_table(found[1:], sizes.shape)
    assert rows["MACs"].tolist() == [500] * 3
    assert rows["parameters"].tolist() == [500] * 3
    assert np.allclose(rows["test error"], [100 * trial.test_error for trial in found[1:]])


# ---- what a paper's parameters say -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [8, 14, 18, 20, 110])
def test_residual_networks_have_18_layers_or_two_more_than_a_multiple_of_six(layers):
    comparing.Repeated.check_depths(SimpleNamespace(a=8, b=layers), "a", "b")


@pytest.mark.parametrize("layers", [-4, 2, 7, 9, 12, 16, 19])
def test_other_numbers_of_layers_are_refused(layers):
    with pytest.raises(ParameterError, match=f"b is {layers}; residual networks have 18 layers, or 6n"):
        comparing.Repeated.check_depths(SimpleNamespace(a=8, b=layers), "a", "b")


@dataclass(frozen=True)
class Params(comparing.Repeated):
    dataset: str = "mnist"
    side: int = 7
    train_images: int = 130
    check_images: int = 40
    test_images: int = 50
    epochs: int = 3
    seeds: int = 2
    processes: int = 4
    device: str = "cpu"
    seed: int = 5


def test_sizes_seeds_and_settings_follow_from_the_parameters():
    params = Params()
    assert params.sizes == SetSizes("mnist", 7, train=130, check=40, test=50)
    assert (params.first_seed, list(params.every_seed)) == (6, [6, 7])
    assert params.settings == {
        **{"rate": 0.05, "batch": 64, "weight_decay": 5e-4, "memory_format": torch.channels_last},
        **{"epochs": 3, "device": "cpu"},
    }
    assert "epochs" not in comparing.SETTINGS


def test_the_pool_is_for_the_device_with_as_many_processes_as_asked_for(monkeypatch):
    monkeypatch.setattr(Pool, "on", staticmethod(lambda *asked: asked))
    assert Params(device="auto").open_pool() == ("auto", 4)


# ---- the plan --------------------------------------------------------------------------------------------------------


def one_layer(classes, *, in_channels, seed):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 64, classes, bias=False))


def two_layers(classes, *, in_channels, seed):
    layers = nn.Conv2d(in_channels, 2, 1, bias=False), nn.Flatten(), nn.Linear(2 * 64, classes, bias=False)
    return nn.Sequential(*layers)


COLOURED = Params(dataset="cifar10", side=8)


def test_a_plan_by_hand():
    """One layer: 3·64·10 weights, each used once; two: 3·2 weights used 64 times and 128·10 used once."""
    plan = comparing.planned({"one": partial(one_layer), "two": partial(two_layers)}, COLOURED)
    operations = 3 * (1920 + 1664) * 2 * 3 * 130
    assert operations == 8_386_560
    assert plan == {
        "networks": 2,
        "trainings": 4,
        "parameters": "1,286 to 1,920",
        "multiply-accumulates an image": "1,664 to 1,920",
        "optimiser steps": 2 * 2 * 3 * 3,
        "multiply-accumulates of all trainings": "8.39 million",
        "on one core, 20 billion a second": "less than a second",
        "on one GPU, 2 trillion a second": "less than a second",
    }


def test_work_is_said_in_words():
    """4.8 trillion at 20 billion a second are 240 seconds, at 2 trillion 2.4."""
    assert comparing.work(4.8e12) == {
        "multiply-accumulates of all trainings": "4.8 trillion",
        "on one core, 20 billion a second": "4 minutes",
        "on one GPU, 2 trillion a second": "2.4 seconds",
    }


def test_trainings_on_imagenet_are_said_in_words():
    """A layer from 3·224·224 numbers to 10, three times for an image, 1,281,167 images, 90 passes: 521 trillion."""
    with torch.device("meta"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 10, bias=False))
    macs = 1_505_280
    assert 3 * macs * 1_281_167 * 90 / 2e12 == pytest.approx(260.4, abs=0.1)
    cost = comparing.on_imagenet(model, [90, 180])
    begin = "1.51 million parameters, 1.51 million multiply-accumulates an image; on one GPU "
    assert cost == f"{begin}90 passes 4.3 minutes, 180 passes 8.7 minutes"


@pytest.mark.parametrize(("images", "steps"), [(1, 1), (64, 1), (65, 2), (128, 2), (129, 3)])
def test_a_batch_that_is_not_full_is_a_step_too(images, steps):
    params = replace(COLOURED, train_images=images, seeds=1, epochs=1)
    assert comparing.planned({"one": partial(one_layer)}, params)["optimiser steps"] == steps


def test_planned_networks_have_no_weights_in_memory():
    built = []

    def build(*args, **kwargs):
        built.append(one_layer(*args, **kwargs))
        return built[-1]

    comparing.planned({"one": partial(build)}, COLOURED)
    assert [each.is_meta for model in built for each in model.parameters()] == [True]


# ---- times -----------------------------------------------------------------------------------------------------------


class Slow(nn.Module):
    """Takes so many seconds on the clock of the test, call after call, and keeps what it is given."""

    def __init__(self, now, seconds):
        super().__init__()
        self.now, self.seconds, self.asked = now, iter(seconds), []

    def forward(self, images):
        self.now[0] += next(self.seconds)
        self.asked.append((images, torch.is_inference_mode_enabled()))
        return images


@pytest.mark.parametrize(("test_images", "together"), [(50, 16), (8, 8)])
def test_times_are_median_microseconds_an_image_of_the_networks_of_the_first_seed(monkeypatch, test_images, together):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    params = Params(test_images=test_images)
    first, second = Slow(now, [512.0, 2.0, 64.0, 1.0]), Slow(now, [0.0, 4.0, 4.0, 4.0])
    named = [("a", 6, first), ("a", 7, Slow(now, [])), ("b", 6, second), ("c", 7, Slow(now, []))]
    trials = [SimpleNamespace(name=name, seed=seed, model=model) for name, seed, model in named]
    times = comparing.trial_times(trials, params, 3)
    assert times.to_dict() == {"a": 2e6 / together, "b": 4e6 / together}
    wanted = torch.from_numpy(draw_sets(params.sizes, 6).test[0][:together])
    for model in (first, second):
        assert len(model.asked) == 1 + 3
        assert all(torch.equal(images, wanted) and inference for images, inference in model.asked)
