"""Layers are timed by name, in the order in which they run, beside their operations."""

import time

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import build, count
from papertwin.nets.layers import chain
from papertwin.nets.timing import layer_times


def test_every_layer_is_there_with_its_operations_and_the_total():
    model = build("deep-roots", "NiN root-8", device="cpu").eval()
    images = torch.randn(1, 3, 32, 32)
    table = layer_times(model, images, rounds=3)
    counts = count(model, (3, 32, 32))
    assert table["layer"].tolist() == [*(row.name for row in counts.layers), "total"]
    assert table["MACs"].tolist() == [*(row.macs for row in counts.layers), counts.macs]
    assert (table["ms"] > 0).all()
    assert table["ms"].iloc[:-1].sum() < 1.5 * table["ms"].iloc[-1]
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


def test_times_are_those_between_the_hooks(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow(nn.Conv2d):
        def forward(self, images):
            now[0] += self.seconds
            return super().forward(images)

    layers = [("a", Slow(1, 1, 1)), ("between", nn.ReLU()), ("b", Slow(1, 1, 1))]
    layers[0][1].seconds, layers[2][1].seconds = 0.25, 2.0
    layers[1][1].register_forward_hook(lambda *_: now.__setitem__(0, now[0] + 8.0))
    table = layer_times(chain(layers).eval(), torch.zeros(1, 1, 2, 2), rounds=2)
    assert table["ms"].tolist() == [250, 2000, 10250]


def test_what_cannot_be_timed_is_refused():
    shared = nn.Conv2d(1, 1, 1)
    with pytest.raises(InputError, match="runs twice"):
        layer_times(nn.Sequential(shared, nn.ReLU(), shared), torch.zeros(1, 1, 2, 2), rounds=1)
    with pytest.raises(InputError, match="on the CPU, got a model or images on cpu, meta"):
        layer_times(nn.Conv2d(1, 1, 1, device="meta"), torch.zeros(1, 1, 2, 2), rounds=1)
    with pytest.raises(InputError, match="rounds must be a whole number above 0"):
        layer_times(shared, torch.zeros(1, 1, 2, 2), rounds=0)
