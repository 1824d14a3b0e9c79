"""Every way to compute a convolution gives what torch gives, and what is chosen is what measured best."""

import copy
import io

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
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution")


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


@pytest.mark.skipif(not ONEDNN, reason="torch was built without oneDNN")
@given(layers(), st.integers(1, 3), st.sampled_from(list(ways.ORDERS.values())))
@settings(max_examples=40, deadline=None)
def test_onednn_gives_the_same_maps(layer, batch, order):
    images = torch.randn(batch, layer.in_channels, 7, 8).contiguous(memory_format=order)
    other = ways.OneDnnConv2d(layer).to(memory_format=order)
    with torch.inference_mode():
        assert torch.allclose(other(images), layer(images), atol=1e-4)
    assert other.weight is layer.weight
    assert list(other.state_dict()) == list(layer.state_dict())


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


@pytest.mark.parametrize("order", ways.ORDERS.values())
def test_merged_weights_follow_a_loaded_state_and_keep_their_order(order):
    first, second = (nn.Conv2d(8, 8, 3, padding=1, groups=8) for _ in range(2))
    merged = ways.MergedConv2d(first, 4).to(memory_format=order)
    merged.load_state_dict(second.state_dict())
    assert merged.merged.is_contiguous(memory_format=order)
    file = io.BytesIO()
    torch.save(merged, file)
    file.seek(0)
    images = torch.randn(2, 8, 5, 5)
    for each in (merged, copy.deepcopy(merged), torch.load(file, weights_only=False)):
        assert torch.allclose(each(images), second(images), atol=1e-5)


def test_merged_weights_by_brute_force():
    layer = nn.Conv2d(12, 24, (2, 3), groups=12)
    for together in (1, 2, 3, 4, 6, 12):
        merged = ways.MergedConv2d(layer, together).merged
        wanted = torch.zeros(24, together, 2, 3)
        for filter_ in range(24):
            for channel in range(together):
                if filter_ // 2 % together == channel:  # two filters a group, one channel
                    wanted[filter_, channel] = layer.weight[filter_, 0]
        assert torch.equal(merged, wanted)


def test_what_cannot_be_merged_is_refused():
    with pytest.raises(InputError, match="together must divide 4 groups, got 3"):
        ways.MergedConv2d(nn.Conv2d(4, 4, 3, groups=4), 3)
    with pytest.raises(InputError, match="together must be a whole number above 0"):
        ways.MergedConv2d(nn.Conv2d(4, 4, 3, groups=4), 0)
    circular = nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="circular")
    with pytest.raises(InputError, match="pad with zeros, got padding_mode 'circular'"):
        ways.MergedConv2d(circular, 2)
    assert ways.ways(circular, (1, 4, 5, 5)) == [ways.AS_IT_IS]


def test_merged_groups_stay_narrow():
    assert ways.merges(nn.Conv2d(192, 192, 3, groups=32)) == [1, 2, 4, 8]
    assert ways.merges(nn.Conv2d(192, 384, 3, groups=32)) == [1, 2, 4]
    assert ways.merges(nn.Conv2d(512, 512, 3, groups=8)) == [1]
    assert ways.merges(nn.Conv2d(64, 64, 3, groups=64)) == [1, 2, 4, 8, 16, 32, 64]


def test_ways_of_a_layer(monkeypatch):
    plain, grouped = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, groups=4)
    direct = [("torch", 1), ("oneDNN", 1)] if ONEDNN else [("torch", 1)]
    assert ways.ways(plain, (15, 8, 4, 4)) == direct
    assert ways.ways(plain, (16, 8, 4, 4)) == [("torch", 1)], "torch calls oneDNN itself"
    assert ways.ways(grouped, (1, 8, 4, 4)) == [("torch", 1), ("merged", 2), ("merged", 4)]
    for other in (nn.Conv2d(8, 8, 3, padding="same"), plain.double(), nn.Conv2d(8, 8, 3, padding_mode="circular")):
        assert ways.ways(other, (1, 8, 4, 4)) == [("torch", 1)]
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert ways.ways(nn.Conv2d(8, 8, 1), (1, 8, 4, 4)) == [("torch", 1)]


@pytest.mark.parametrize("order", ways.ORDERS)
def test_maps_come_in_the_order_that_was_chosen(order):
    model, seen = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)).eval(), []
    model[0].register_forward_pre_hook(
        lambda _, given: seen.append((given[0].stride()[1], model[0].weight.stride()[1]))
    )
    ways.Fastest(model, order, pd.DataFrame())(torch.randn(2, 4, 5, 5))
    assert seen == [{"channels first": (25, 9), "channels last": (1, 1)}[order]]


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
    assert all(each.requires_grad for each in model.parameters())
    assert {type(layer) for layer in model.modules()} == {
        type(layer) for layer in build("deep-roots", "NiN root-16").modules()
    }


def test_the_state_of_what_is_found_is_that_of_the_network(monkeypatch, root):
    model, images = root
    clocked(monkeypatch, {("channels last", "merged", 2): 0.5, "channels last, changed": 0.5})
    with torch.inference_mode():  # of the caller; what is found can be loaded outside of it
        found = ways.fastest(model, images)
    assert isinstance(found.model.conv2a, ways.MergedConv2d)
    other = build("deep-roots", "NiN root-16", device="cpu", seed=7).eval()
    assert list(found.model.state_dict()) == list(other.state_dict())
    found.model.load_state_dict(other.state_dict())
    assert torch.allclose(found(images), other(images), rtol=1e-3, atol=1e-4)
    other.load_state_dict(found.model.state_dict())
    assert not any(each.requires_grad for each in found.parameters())


def clocked(monkeypatch, costs):
    """Replace the clock: seconds of each call by its name, 1 where the costs say nothing."""
    monkeypatch.setattr(
        ways, "interleaved", lambda calls, rounds: pd.DataFrame({name: [costs.get(name, 1.0)] for name in calls})
    )


MERGES = [("torch", 1), ("merged", 2), ("merged", 4)]  # of conv2a


def test_the_way_that_measured_best_is_taken(monkeypatch, root):
    model, images = root
    kind = "channels last"
    costs = {(kind, "torch", 1): 0.8, (kind, "merged", 2): 0.5, (kind, "merged", 4): 0.7, (kind, "oneDNN", 1): 0.4}
    clocked(monkeypatch, costs | {"channels first": 3.0, "channels last": 2.0, "channels last, changed": 1.0})
    found = ways.fastest(model, images)
    assert found.order == "channels last"
    table = found.choices.set_index("layer")
    columns = ["groups", "way", "together", "ms", "plain ms"]
    for name, groups in {"conv2a": 16, "conv3a": 8}.items():
        assert table.loc[name, columns].tolist() == [groups, "merged", 2, 500, 1000]
    assert table["tried"]["conv2a"] == {("channels first", way, m): 1000 for way, m in MERGES} | {
        (kind, way, m): 1e3 * costs[kind, way, m] for way, m in MERGES
    }
    if ONEDNN:
        assert table.loc["conv2b", columns].tolist() == [1, "oneDNN", 1, 400, 1000]
        assert isinstance(found.model.conv2b, ways.OneDnnConv2d)
        assert table.index.tolist() == [row.name for row in count(model, tuple(images.shape[1:])).layers]
    assert isinstance(found.model.conv2a, ways.MergedConv2d)
    assert isinstance(model.conv2a, nn.Conv2d)
    assert not isinstance(model.conv2a, ways.MergedConv2d)


@pytest.mark.parametrize("best", ways.ORDERS)
def test_what_does_not_pay_in_the_network_is_left(monkeypatch, root, best):
    clocked(monkeypatch, {("channels first", "merged", 2): 0.5, ("channels last", "merged", 2): 0.25, best: 0.1})
    kept = ways.fastest(*root)
    assert kept.order == best
    assert set(kept.choices["way"]) == {"torch"}
    assert set(kept.choices["ms"]) == {1000}
    assert {type(layer) for layer in kept.model.modules()} == {type(layer) for layer in root[0].modules()}


def test_a_gain_within_the_noise_changes_nothing():
    times = {("channels first", "torch", 1): 1.0, ("channels last", "torch", 1): 0.1}
    assert ways._best(times | {("channels first", "merged", 2): 0.96}, "channels first") == ("torch", 1)
    assert ways._best(times | {("channels first", "merged", 2): 0.94}, "channels first") == ("merged", 2)


def test_every_way_that_is_timed_gives_what_the_layer_gives(monkeypatch):
    layer, seen = nn.Conv2d(24, 48, 3, padding=1, stride=2, groups=24), {}

    def clock(calls, rounds):
        seen.update({name: call() for name, call in calls.items()})
        return pd.DataFrame({name: [float(call.args[0].stride()[1])] for name, call in calls.items()})

    monkeypatch.setattr(ways, "interleaved", clock)
    times = ways._timed(layer, (2, 24, 6, 6), 1)
    known = [("torch", 1), *(("merged", m) for m in (2, 3, 4, 6, 8, 12, 24))]
    assert list(times) == [(order, *way) for order in ways.ORDERS for way in known]
    assert {times["channels first", *way] for way in known} == {36e3}, "maps in the order of their name"
    assert {times["channels last", *way] for way in known} == {1e3}
    for result in seen.values():
        assert torch.allclose(result, seen["channels first", "torch", 1], atol=1e-5)
    assert layer.weight.is_contiguous()


def test_a_layer_is_measured_once_a_shape(monkeypatch):
    measured, told = [], []

    def timed(layer, shape, rounds):
        measured.append((layer.groups, shape))
        return {(order, *ways.AS_IT_IS): 1.0 for order in ways.ORDERS}

    monkeypatch.setattr(ways, "_timed", timed)
    layers = [nn.Conv2d(8, 8, 3, padding=1, groups=2) for _ in range(3)]
    model = nn.Sequential(nn.Conv2d(8, 8, 1), *layers, nn.Conv2d(8, 8, 3, groups=4)).eval()
    found = ways.fastest(model, torch.randn(16, 8, 6, 6), progress=told.append)
    assert measured == [(2, (16, 8, 6, 6)), (4, (16, 8, 6, 6))]
    assert told == found.choices["layer"].tolist() == ["1", "2", "3", "4"]


def test_another_result_is_an_error(monkeypatch, root):
    monkeypatch.setattr(ways.MergedConv2d, "forward", lambda self, given: torch.ones(2, self.out_channels, 16, 16))
    clocked(monkeypatch, {("channels first", "merged", 2): 0.1})
    with pytest.raises(RunError, match="channels first, changed: the results differ by"):
        ways.fastest(*root)


def test_a_network_in_training_mode_is_refused(root):
    with pytest.raises(InputError, match=r"in training mode\. Call model\.eval"):
        ways.fastest(root[0].train(), root[1])


def test_elsewhere_than_on_a_cpu_the_network_runs_as_it_is(root, monkeypatch):
    monkeypatch.setattr(ways, "_inputs", None)
    found = ways.fastest(root[0], torch.empty(1, 3, 32, 32, device="meta"))
    assert found.choices.empty
    assert found.order == "channels first"
