"""The seed, the targets and the float64 copy: ties, copies that leave the network alone, and what is refused."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from papertwin.errors import InputError
from papertwin.robustness.inputs import (
    check_count,
    check_seed,
    frozen,
    is_adversarial,
    logits_of,
    overtaken_by,
    predict_labels,
    ranked,
    runner_up,
    targets_of,
)

with_ties = arrays.arrays(np.float64, st.integers(2, 40), elements=st.integers(-2, 2))


@given(with_ties)
def test_the_runner_up_is_the_best_of_the_rest_and_the_lowest_of_equals(logits):
    label = int(logits.argmax())
    rest = [(-value, k) for k, value in enumerate(logits) if k != label]
    assert ranked(logits) == [label] + [k for _, k in sorted(rest)]
    assert runner_up(logits) == min(rest)[1]


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(2, 70)), elements=st.integers(-1, 1)))
def test_equal_logits_give_the_lowest_label(logits):
    by_hand = [min(k for k in range(len(row)) if row[k] == max(row)) for row in logits]
    assert predict_labels(nn.Identity(), logits).tolist() == by_hand
    assert predict_labels(nn.Identity(), np.asfortranarray(logits)).tolist() == by_hand
    assert [ranked(row)[0] for row in logits] == by_hand


def test_ties_are_the_same_on_every_device(device):
    model = frozen(nn.Linear(3, 40, bias=False), device)
    nn.init.zeros_(model.weight)
    assert predict_labels(model, np.ones((5, 3))).tolist() == [0] * 5


def test_targets():
    logits = np.array([0.5, 3.0, 0.5, 2.0])
    assert targets_of(logits, "runner-up") == [3]
    assert targets_of(logits, "all") == [3, 0, 2]
    assert targets_of(logits, np.int64(2)) == [2]


@pytest.mark.parametrize("target", [4, -1, 1, "untargeted", True, 1.0, None, [0]])
def test_targets_that_mean_nothing_are_refused(target):
    with pytest.raises(InputError, match="target"):
        targets_of(np.array([0.5, 3.0, 0.5, 2.0]), target)


def test_a_seed_is_copied_exactly():
    image = np.random.default_rng(0).random((1, 4, 4), dtype=np.float32)
    seed = check_seed(image, (0, 1))
    assert seed.dtype == np.float64
    assert np.array_equal(seed, image)
    seed[0, 0, 0] = 7
    assert image[0, 0, 0] != 7
    assert not np.shares_memory(check_seed(seed, (0, 7)), seed)
    assert check_seed([[-5e9]], (-np.inf, np.inf)).shape == (1, 1)


@pytest.mark.parametrize(
    ("image", "message"),
    [([0.5, np.nan], "1 values"), ([0.5, 1.0000001], "outside"), ([-1e-9], "outside"), ([], "image"), (["a"], "image")],
)
def test_a_seed_that_cannot_be_used_is_refused(image, message):
    with pytest.raises(InputError, match=message):
        check_seed(np.array(image), (0.0, 1.0))


@pytest.mark.parametrize("box", [(1, 0), (0, 0), (0, np.nan), 3, (0, 1, 2), "ab"])
def test_a_box_that_is_no_interval_is_refused(box):
    with pytest.raises(InputError, match="box"):
        check_seed(np.array([0.0]), box)


def test_the_copy_is_float64_in_eval_mode_and_the_network_is_left_alone(device):
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    model[3].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = frozen(model, device)
    batch = np.random.default_rng(0).random((4, 3))
    assert np.array_equal(predict_labels(twin, batch), predict_labels(twin, batch))
    assert all(p.dtype == torch.float64 and not p.requires_grad for p in twin.parameters())
    assert not any(module.training for module in twin.modules())
    nn.init.zeros_(twin[0].weight)
    assert [module.training for module in model] == [True, True, True, False]
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_only_networks_are_frozen():
    with pytest.raises(InputError, match=r"nn\.Module"):
        frozen(lambda x: x)
    with pytest.raises(InputError, match="abacus"):
        frozen(nn.Linear(1, 1), "abacus")


def test_logits_are_float64_and_checked():
    model = frozen(nn.Linear(3, 2))
    x = np.array([0.1, 0.2, 0.3])
    by_hand = model.weight.numpy() @ x + model.bias.numpy()
    assert logits_of(model, x) == pytest.approx(by_hand, abs=1e-15)
    with pytest.raises(InputError, match="shape"):
        logits_of(frozen(nn.Linear(3, 1)), x)
    with pytest.raises(InputError, match="tensor of logits, got tuple"):
        logits_of(frozen(nn.MaxPool2d(1, return_indices=True)), np.zeros((1, 2, 2)))
    nn.init.constant_(model.bias, torch.nan)
    with pytest.raises(InputError, match="NaN"):
        logits_of(model, x)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Linear(3, 2), (4,)),
        (nn.Conv2d(1, 2, 3), (28,)),
        (nn.BatchNorm1d(3), (3, 2, 2)),
        (nn.Sequential(nn.Flatten(2), nn.Linear(3, 2)), (3,)),
        (nn.MaxPool2d(9), (1, 3, 3)),
    ],
)
def test_an_image_that_the_network_does_not_take_is_told_with_its_shape(model, shape):
    with pytest.raises(InputError, match=re.escape(f"does not take an image of shape {shape}")) as caught:
        logits_of(frozen(model), np.zeros(shape))
    assert caught.value.__cause__ is not None


@given(with_ties, st.data())
def test_the_lead_of_the_others(logits, data):
    label = data.draw(st.integers(0, len(logits) - 1))
    lead = max(value for k, value in enumerate(logits) if k != label) - logits[label]
    assert float(overtaken_by(torch.tensor(logits[None]), torch.tensor([label]))[0]) == lead
    assert is_adversarial(nn.Identity(), logits, label) == (lead >= 0)
    assert is_adversarial(nn.Identity(), logits, label, margin=0.5) == (lead >= 0.5)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_counts_that_mean_nothing_are_refused(value):
    with pytest.raises(InputError, match="steps"):
        check_count("steps", value)
    assert check_count("steps", np.int32(1)) == 1
