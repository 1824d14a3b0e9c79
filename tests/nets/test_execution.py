"""Every way to compute a convolution in groups gives what torch gives, and what is chosen is what measured best."""

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papertwin.errors import InputError, RunError
from papertwin.nets import build, count, input_shape
from papertwin.nets import execution as ways

sizes = st.integers(1, 3)


@st.composite
def layers(draw):
    groups = draw(st.integers(1, 12))
    options = {"stride": draw(sizes), "padding": draw(st.integers(0, 2)), "dilation": draw(st.integers(1, 2))}
    kernel = (draw(sizes), draw(sizes))
    shape = groups * draw(sizes), groups * draw(sizes)
    torch.manual_seed(draw(st.integers(0, 100)))
    return nn.Conv2d(*shape, kernel, groups=groups, bias=draw(st.booleans()), **options)


@given(layers(), st.integers(1, 3), st.sampled_from(list(ways.ORDERS.values())), st.data())
@settings(max_examples=60, deadline=None)
def test_merged_groups_give_the_same_maps(layer, batch, order, data):
    together = data.draw(st.sampled_from([m for m in range(1, layer.groups + 1) if layer.groups % m == 0]))
    images = torch.randn(batch, layer.in_channels, 7, 8).contiguous(memory_format=order)
    other = ways.MergedConv2d(layer, together).to(memory_format=order)
    assert torch.allclose(other(images), layer(images), atol=1e-4)
    assert other.merged.shape[1] == together * layer.in_channels // layer.groups


def test_merged_weights_are_block_diagonal():
    layer = nn.Conv2d(4, 8, 1, groups=4, bias=False)
    layer.weight.data = torch.arange(1.0, 9).view(8, 1, 1, 1)
    merged = ways.MergedConv2d(layer, 2).merged.flatten(1)
    assert merged.tolist() == [[1, 0], [2, 0], [0, 3], [0, 4], [5, 0], [6, 0], [0, 7], [0, 8]]


def test_parameters_state_and_counts_stay_those_of_the_layer():
    first, second = (nn.Conv2d(8, 8, 3, padding=1, groups=4) for _ in range(2))
    merged = ways.MergedConv2d(first, 2)
    assert merged.weight is first.weight
    assert list(merged.state_dict()) == list(first.state_dict())
    assert count(merged, (8, 5, 5)).macs == count(first, (8, 5, 5)).macs
    merged.load_state_dict(second.state_dict())
    images = torch.randn(2, 8, 5, 5)
    assert torch.allclose(merged(images), second(images), atol=1e-5)


def test_what_cannot_be_merged_is_refused():
    with pytest.raises(InputError, match="together must divide 4 groups, got 3"):
        ways.MergedConv2d(nn.Conv2d(4, 4, 3, groups=4), 3)
    with pytest.raises(InputError, match="together must be a whole number above 0"):
        ways.MergedConv2d(nn.Conv2d(4, 4, 3, groups=4), 0)
    circular = nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="circular")
    with pytest.raises(InputError, match="pad with zeros, got padding_mode 'circular'"):
        ways.MergedConv2d(circular, 2)
    assert ways.merges(circular) == [1]


def test_merged_groups_stay_narrow():
    assert ways.merges(nn.Conv2d(192, 192, 3, groups=32)) == [1, 2, 4, 8]
    assert ways.merges(nn.Conv2d(192, 384, 3, groups=32)) == [1, 2, 4]
    assert ways.merges(nn.Conv2d(512, 512, 3, groups=8)) == [1]


@pytest.fixture
def root():
    return build("deep-roots", "NiN root-16", device="cpu").eval(), torch.randn(
        2, *input_shape("deep-roots", "NiN root-16")
    )


def test_a_network_runs_as_it_did_and_is_left_as_it_was(root):
    model, images = root
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = ways.fastest(model, images, rounds=1)
    with torch.inference_mode():
        assert torch.allclose(found(images), model(images), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.is_contiguous() for value in model.state_dict().values())
    assert {type(layer) for layer in model.modules()} == {
        type(layer) for layer in build("deep-roots", "NiN root-16").modules()
    }


def clocked(monkeypatch, choose):
    """Replace the clock: seconds of each call by a rule of its name and work."""
    monkeypatch.setattr(
        ways,
        "interleaved",
        lambda calls, rounds: pd.DataFrame({name: [choose(name, call)] for name, call in calls.items()}),
    )


def test_the_way_that_measured_best_is_taken(monkeypatch, root):
    model, images = root
    costs = {1: 1.0, 2: 0.5, 4: 0.7, "plain": 3.0, "channels first": 2.0, "channels last": 1.0}
    clocked(monkeypatch, lambda name, call: costs.get(name, 9.0))
    found = ways.fastest(model, images)
    assert found.order == "channels last"
    assert found.choices[["layer", "groups", "together"]].to_numpy().tolist() == [["conv2a", 16, 2], ["conv3a", 8, 2]]
    assert found.choices[["ms", "plain ms"]].to_numpy().tolist() == [[500, 1000]] * 2
    assert isinstance(found.model.conv2a, ways.MergedConv2d)
    assert isinstance(model.conv2a, nn.Conv2d)
    assert not isinstance(model.conv2a, ways.MergedConv2d)
    costs["plain"] = 0.1
    kept = ways.fastest(model, images)
    assert kept.choices.empty
    assert not any(isinstance(layer, ways.MergedConv2d) for layer in kept.modules())


def test_a_gain_within_the_noise_changes_nothing(monkeypatch, root):
    clocked(monkeypatch, lambda name, call: {1: 1.0, 2: 0.96}.get(name, 9.0) if isinstance(name, int) else 1.0)
    for order in ways.ORDERS:
        layer = root[0].conv2a
        assert ways._best(layer, (1, 96, 16, 16), order, 3)[0] == 1


def test_a_layer_is_measured_once_a_shape(monkeypatch, root):
    measured = []
    clocked(monkeypatch, lambda name, call: 1.0)
    monkeypatch.setattr(ways, "_best", lambda *args: measured.append(args[2]) or (1, 1.0, 1.0))
    twice = nn.Sequential(root[0].conv2b, *(nn.Conv2d(192, 192, 3, padding=1, groups=8) for _ in range(3))).eval()
    ways.fastest(twice, torch.randn(1, 192, 4, 4))
    assert measured == list(ways.ORDERS)


def test_another_result_is_an_error(monkeypatch, root):
    model, images = root
    monkeypatch.setattr(ways.MergedConv2d, "forward", lambda self, given: torch.ones(1, self.out_channels, 16, 16))
    clocked(monkeypatch, lambda name, call: 0.1 if name == 2 else 1.0)
    with pytest.raises(RunError, match="the results differ by"):
        ways.fastest(model, images)


def test_elsewhere_than_on_a_cpu_the_network_runs_as_it_is(root, monkeypatch):
    monkeypatch.setattr(ways, "_inputs", None)
    found = ways.fastest(root[0], torch.empty(1, 3, 32, 32, device="meta"))
    assert found.choices.empty
    assert found.order == "channels first"
