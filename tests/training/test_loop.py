"""The training loop is textbook gradient descent, repeats bit for bit, and leaves no trace but the weights."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError, ParameterError
from papertwin.training.loop import accuracy, fit, predict, scores, single_thread, torch_threads

RNG = np.random.default_rng(0)
IMAGES = RNG.random((50, 1, 4, 4), dtype=np.float32)
LABELS = RNG.integers(0, 3, 50)


def net(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.ReLU(), nn.Dropout(dropout), nn.Linear(20, 3))


def weights(model):
    return torch.cat([p.detach().cpu().ravel() for p in model.parameters()]).clone()


def fitted(model, **changes):
    settings = {"epochs": 2, "batch": 16, "rate": 0.1, "seed": 7} | changes
    losses = fit(model, settings.pop("images", IMAGES), settings.pop("labels", LABELS), **settings)
    return losses, weights(model)


@pytest.fixture(autouse=True)
def _restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@given(
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    decay=st.sampled_from([0.0, 0.1]),
    rate=st.floats(0.01, 0.5),
    steps=st.integers(1, 6),
)
@settings(max_examples=15, deadline=None)
def test_it_is_textbook_gradient_descent(schedule, momentum, decay, rate, steps):
    """Softmax regression on all images at once, by hand in NumPy."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)).double()
    w = model[1].weight.detach().numpy().T.copy()
    x, one_hot = IMAGES.reshape(50, 16).astype(np.float64), np.eye(3)[LABELS]
    velocity, expected = np.zeros_like(w), []
    for step in range(steps):
        p = np.exp(x @ w)
        p /= p.sum(axis=1, keepdims=True)
        expected.append(-np.log((p * one_hot).sum(axis=1)).mean())
        velocity = momentum * velocity + x.T @ (p - one_hot) / 50 + decay * w
        w -= velocity * rate * ((1 + math.cos(math.pi * step / steps)) / 2 if schedule == "cosine" else 1)
    options = {"momentum": momentum, "weight_decay": decay, "schedule": schedule}
    losses = fit(model, IMAGES, LABELS, epochs=steps, batch=50, rate=rate, seed=0, **options)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    np.testing.assert_allclose(model[1].weight.detach().numpy().T, w, atol=1e-12)


@given(count=st.integers(1, 20), batch=st.integers(1, 25), epochs=st.integers(1, 3))
@settings(max_examples=30)
def test_an_epoch_shows_every_image_once_in_another_order(count, batch, epochs):
    model, shown = net(), []
    images = np.arange(count, dtype=np.float32)[:, None].repeat(16, 1) / 20

    def watch(module, inputs, _):
        if module.training:
            shown.append(inputs[0][:, 0])

    model[0].register_forward_hook(watch)
    fit(model, images, np.zeros(count, np.int64), epochs=epochs, batch=batch, rate=0.01, seed=1)
    sizes = [len(part) for part in shown]
    assert sizes == ([batch] * (count // batch) + [count % batch] * (count % batch > 0)) * epochs
    orders = torch.cat(shown).reshape(epochs, count)
    for order in orders:
        assert torch.equal(order.sort().values, torch.from_numpy(images[:, 0]))
    if count > 8 and epochs > 1:
        assert not torch.equal(orders[0], orders[1])


def test_the_loss_of_an_epoch_is_the_mean_over_images():
    model = net()
    with torch.inference_mode():
        each = nn.functional.cross_entropy(model(torch.from_numpy(IMAGES)), torch.from_numpy(LABELS), reduction="none")
    (loss,) = fit(model, IMAGES, LABELS, epochs=1, batch=17, rate=1e-12, seed=0)
    assert loss == pytest.approx(float(each.double().mean()), rel=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_only_the_seed_decides(dropout):
    first = fitted(net(dropout=dropout))
    torch.manual_seed(123)
    before = torch.get_rng_state()
    model = net(dropout=dropout)
    torch.set_rng_state(before)
    again = fitted(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert again[0] == first[0]
    assert torch.equal(again[1], first[1])
    assert not torch.equal(fitted(net(dropout=dropout), seed=8)[1], first[1])


def test_the_number_of_threads_does_not_matter():
    images = RNG.random((300, 800), dtype=np.float32)
    labels = RNG.integers(0, 10, 300)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))
        fit(model, images, labels, epochs=1, batch=128, rate=0.1, seed=0)
        assert torch.get_num_threads() == threads
        results.append((weights(model), predict(model, images)))
    for found in results[1:]:
        assert torch.equal(found[0], results[0][0])
        np.testing.assert_array_equal(found[1], results[0][1])


def test_threads_within_a_block_and_after_it():
    torch.set_num_threads(2)
    seen = []

    def look(*_):
        seen.append(torch.get_num_threads())

    for threads in (1, 3, None):
        fit(net(), IMAGES, LABELS, epochs=1, rate=0.1, seed=0, threads=threads, progress=look)
    fit(net(), IMAGES, LABELS, epochs=1, rate=0.1, seed=0, progress=look)
    with single_thread():
        look()
        with torch_threads(4):
            look()
        look()
    assert (seen, torch.get_num_threads()) == ([1, 3, 2, 1, 1, 4, 1], 2)
    with pytest.raises(InputError, match="diverged"):
        fitted(net(), rate=1e30, epochs=20)
    assert torch.get_num_threads() == 2
    for count in (0, -1, 1.5, "2", True):
        with pytest.raises(InputError, match="number of threads"), torch_threads(count):
            pass


def test_modes_come_back_as_they_were(device):
    model = net(dropout=0.5).to(device).train()
    model[3].eval()
    modes = [module.training for module in model.modules()]

    def fail(*_):
        raise KeyError

    fitted(model)
    with pytest.raises(KeyError):
        fitted(model, progress=fail)
    first = predict(model, IMAGES)
    assert [module.training for module in model.modules()] == modes
    np.testing.assert_array_equal(predict(model.train(), IMAGES), first)  # no dropout


def test_a_model_trains_elsewhere_and_comes_home(device):
    model = net()
    places = set()
    model[1].register_forward_hook(lambda _, inputs, __: places.add(inputs[0].device.type))
    losses, _ = fitted(model, device=device, epochs=3)
    assert places == {device}
    assert next(model.parameters()).device.type == "cpu"
    assert losses == pytest.approx(fitted(net(), epochs=3)[0], rel=1e-4)
    with pytest.raises(ParameterError, match="Unknown device"):
        fitted(net(), device="abacus")


def test_it_learns_what_can_be_learnt(device):
    labels = np.arange(200) % 3
    images = RNG.normal(0, 0.1, (200, 16)).astype(np.float32)
    images[np.arange(200), labels] += 1
    model = net().to(device)
    losses = fit(model, torch.from_numpy(images), torch.from_numpy(labels), epochs=20, rate=0.1, seed=0, batch=32)
    assert len(losses) == 20
    assert losses[-1] < 0.05 < losses[0]
    assert accuracy(model, images, labels) == 1.0
    np.testing.assert_array_equal(predict(model, images), labels)


@given(batch=st.integers(1, 60))
@settings(max_examples=10)
def test_labels_are_those_of_the_largest_logit_in_any_batch(batch):
    model = net(seed=3)
    with torch.inference_mode():
        expected = model(torch.from_numpy(IMAGES)).numpy().argmax(axis=1)
    found = predict(model, IMAGES, batch=batch)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
    assert accuracy(model, IMAGES, LABELS, batch=batch) == (expected == LABELS).mean()


def test_of_equal_logits_the_first_counts():
    model = nn.Linear(2, 3)
    nn.init.zeros_(model.weight)
    model.bias.data = torch.tensor([0.0, 1.0, 1.0])
    assert predict(model, np.ones((4, 2), np.float32)).tolist() == [1] * 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs must be a whole number above 0, got 0"),
        ({"epochs": True}, "epochs must be"),
        ({"batch": 2.0}, "batch must be"),
        ({"rate": 0.0}, "rate must be"),
        ({"rate": math.inf}, "rate must be"),
        ({"momentum": 1.0}, "momentum must be"),
        ({"weight_decay": -1e-4}, "weight_decay must be"),
        ({"schedule": "linear"}, "schedule must be cosine or constant, got 'linear'"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 0.5}, "seed must be"),
        ({"images": (IMAGES * 255).astype(np.uint8)}, r"images must be floats.*torch\.uint8.*scaled"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "n of at least 1"),
        ({"images": IMAGES[:, 0, 0, 0]}, r"shape \(n, …\)"),
        ({"labels": LABELS[:-1]}, r"one for each of 50 images, got shape \(49,\)"),
        ({"labels": LABELS.astype(float)}, r"whole numbers, got torch\.float64"),
        ({"labels": LABELS + 1}, "from 0 to 2, as the model has 3 classes; got 1 to 3"),
        ({"labels": LABELS - 1}, "got -1 to 1"),
        ({"rate": 1e30, "epochs": 20}, r"training diverged. Lower rate=1e\+30"),
    ],
)
def test_arguments_that_cannot_be_used(changes, words):
    model = net()
    modes = [module.training for module in model.modules()]
    with pytest.raises(InputError, match=words):
        fitted(model, **changes)
    assert [module.training for module in model.modules()] == modes


def test_models_that_cannot_be_used():
    with pytest.raises(InputError, match="no parameters"):
        fitted(nn.Flatten())
    with pytest.raises(InputError, match=r"shape \(B, classes\), got \(1, 2, 2, 2\)"):
        fitted(nn.Conv2d(1, 2, 3))
    with pytest.raises(InputError, match="images must be floats"):
        predict(net(), LABELS.reshape(-1, 1))
    with pytest.raises(InputError, match="one for each of 50 images"):
        accuracy(net(), IMAGES, LABELS[:3])


def grouped(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 2, padding=1, groups=2), nn.Flatten(), nn.Linear(72, 3)]
    return nn.Sequential(*layers).double()


def watched(model):
    """Whether weight and output of the grouped layer are in channels_last, and the images of each call."""
    seen, steps = set(), []

    def look(layer, _, output):
        if layer.training:
            seen.update(each.is_contiguous(memory_format=torch.channels_last) for each in (output, layer.weight))
            steps.append(len(output))

    model[2].register_forward_hook(look)
    return seen, steps


def test_another_memory_format_changes_rounding_alone(device):
    plain, other = (grouped().to(device).float() for _ in range(2))
    (before, steps), (seen, other_steps) = watched(plain), watched(other)
    parameters, formats = list(other.parameters()), {"memory_format": torch.channels_last}
    losses, found = fitted(plain)
    other_losses, other_found = fitted(other, **formats)
    assert (before, seen) == ({False}, {True})
    assert steps == other_steps
    assert other_losses == pytest.approx(losses, rel=1e-4)
    torch.testing.assert_close(other_found, found, rtol=1e-3, atol=1e-5)
    assert all(one is two for one, two in zip(parameters, other.parameters()))
    np.testing.assert_allclose(scores(other, IMAGES, **formats), scores(plain, IMAGES), rtol=1e-3, atol=1e-4)
    assert all(p.is_contiguous() and not p.is_inference() for p in other.parameters())
    fitted(other)  # weights are still ordinary ones
    again = grouped().to(device).float()
    assert fitted(again, **formats)[0] == (other_losses if device == "cpu" else pytest.approx(other_losses, rel=1e-4))


def test_a_memory_format_is_undone_after_an_error_and_flat_images_have_none():
    model = grouped()
    with pytest.raises(InputError, match="diverged"):
        fitted(model, rate=1e30, epochs=20, memory_format=torch.channels_last)
    assert model[2].weight.is_contiguous()
    flat = IMAGES.reshape(50, 16)
    same = [fitted(net(), images=flat, memory_format=each)[1] for each in (None, torch.channels_last)]
    assert torch.equal(*same)
    for wrong in (torch.preserve_format, "channels_last"):
        with pytest.raises(InputError, match=r"memory_format must be one of None, .*channels_last, got"):
            fitted(net(), memory_format=wrong)


class Counted:
    """Follows an optimiser and writes down what it sees."""

    def __init__(self, model, optimizer, steps):
        self.model, self.optimizer, self.steps, self.rates, self.seen = model, optimizer, steps, [], []

    def step(self):
        self.rates.append([group["lr"] for group in self.optimizer.param_groups])
        self.seen.append(weights(self.model))


def into(made):
    """What makes a follower and keeps it in a list."""
    return lambda *given: made.append(Counted(*given)) or made[0]


def test_what_follows_the_optimiser_steps_after_each_of_its_steps():
    made = []
    _, alone = fitted(net())
    _, followed = fitted(net(), follow=into(made))
    (counted,) = made
    assert torch.equal(alone, followed)
    assert counted.steps == len(counted.seen) == 2 * 4
    assert torch.equal(counted.seen[-1], followed)
    assert not torch.equal(counted.seen[0], counted.seen[1])


def test_another_optimiser_takes_the_rates_of_the_schedule_in_all_its_groups():
    made = []

    def adam(parameters):
        first, *others = parameters
        return torch.optim.Adam([{"params": [first]}, {"params": others}], lr=99.0)

    _, moved = fitted(net(), make_optimizer=adam, follow=into(made), rate=0.01)
    expected = [0.01 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert np.allclose(made[0].rates, np.stack([expected, expected], axis=1))
    assert isinstance(made[0].optimizer, torch.optim.Adam)
    assert not torch.equal(moved, fitted(net(), rate=0.01)[1])


@pytest.mark.parametrize("change", [{"momentum": 0.5}, {"weight_decay": 0.1}])
def test_what_another_optimiser_would_not_heed_is_refused(change):
    with pytest.raises(InputError, match="give them to the optimiser that make_optimizer makes"):
        fitted(net(), make_optimizer=torch.optim.Adam, **change)
