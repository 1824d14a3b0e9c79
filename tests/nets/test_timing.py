"""Networks are timed in the way that is asked for, layers by name, in the order in which they run."""

import time

import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import build, count, timing
from papertwin.nets.layers import chain
from papertwin.nets.timing import WAYS, forward_times, layer_times, prepared


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


class Slow(nn.Conv2d):
    """Takes so many seconds on a clock, pass after pass; the first is that in which operations are counted."""

    def __init__(self, now, seconds):
        super().__init__(1, 1, 1)
        self.now, self.seconds = now, iter([0.0, *seconds])

    def forward(self, images):
        self.now[0] += next(self.seconds)
        return super().forward(images)


@pytest.fixture
def now(monkeypatch):
    """Seconds on the clock."""
    value = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: value[0])
    return value


def test_times_are_those_between_the_hooks(now):
    layers = [("a", Slow(now, [0.25] * 3)), ("between", nn.ReLU()), ("b", Slow(now, [2.0] * 3))]
    layers[1][1].register_forward_hook(lambda *_: now.__setitem__(0, now[0] + 8.0))
    table = layer_times(chain(layers).eval(), torch.zeros(1, 1, 2, 2), rounds=2)
    assert table["ms"].tolist() == [250, 2000, 10250]


def test_the_first_pass_is_not_counted_and_the_median_of_the_others_is(now):
    model = chain([("a", Slow(now, [100.0, 1.0, 2.0, 9.0])), ("b", Slow(now, [50.0, 0.5, 16.0, 0.25]))]).eval()
    table = layer_times(model, torch.zeros(1, 1, 2, 2), rounds=3)
    assert table["ms"].tolist() == [2000, 500, 9250]  # of 1.5, 18 and 9.25 s


def test_what_cannot_be_timed_is_refused():
    shared, image = nn.Conv2d(1, 1, 1).eval(), torch.zeros(1, 1, 2, 2)
    with pytest.raises(InputError, match="runs twice"):
        layer_times(nn.Sequential(shared, nn.ReLU(), shared).eval(), image, rounds=1)
    for refuse in (lambda model: layer_times(model, image, rounds=1), lambda model: prepared(model, image, "eager")):
        with pytest.raises(InputError, match="on the CPU, got a model or images on cpu, meta"):
            refuse(nn.Conv2d(1, 1, 1, device="meta").eval())
        with pytest.raises(InputError, match=r"in training mode\. Call model\.eval"):
            refuse(nn.Conv2d(1, 1, 1))
    with pytest.raises(InputError, match=r"way must be one of eager, .*compile, got 'slow'"):
        forward_times({"a": shared}, (1, 2, 2), rounds=1, way="slow")
    with pytest.raises(InputError, match="There must be something to time"):
        forward_times({}, (1, 2, 2), rounds=1)
    with pytest.raises(InputError, match="batch must be a whole number above 0"):
        forward_times({"a": shared}, (1, 2, 2), rounds=1, batch=0)
    with pytest.raises(InputError, match="rounds must be a whole number above 0"):
        layer_times(shared, image, rounds=0)


@pytest.fixture
def small():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=8)]
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("way", WAYS[:-1])
def test_every_way_gives_the_same_maps(small, way):
    images = torch.randn(2, 3, 6, 5)
    call, reason = prepared(small, images, way, search=1)
    with torch.inference_mode():
        torch.testing.assert_close(call(), small(images), rtol=1e-4, atol=1e-5)
    assert reason == ""
    assert all(each.is_contiguous() and each.requires_grad for each in small.parameters())
    if way == "channels_last":
        assert call.func[0].weight.stride()[1] == call.args[0].stride()[1] == 1, "weights in the order of the maps"
    if way == "eager":
        assert call.func is small
    times = forward_times({"a": small, "b": small}, (3, 6, 5), batch=2, rounds=3, way=way)
    assert times.shape == (3, 2)
    assert (times.to_numpy() > 0).all()
    assert times.attrs == {"left out": {}}


def test_networks_take_turns_on_as_many_threads_as_are_asked_for():
    seen = []

    class Net(nn.Module):
        def forward(self, images):
            seen.append((self.name, tuple(images.shape), torch.get_num_threads(), torch.is_inference_mode_enabled()))
            return images

    models = {name: Net().eval() for name in "ab"}
    for name, model in models.items():
        model.name = name
    forward_times(models, (1, 2, 3), batch=4, rounds=2)
    assert seen == [("a", (4, 1, 2, 3), 1, True), ("b", (4, 1, 2, 3), 1, True)] * 3
    seen.clear()
    forward_times(models, (1, 2, 3), rounds=1, threads=2)
    assert {threads for _, _, threads, _ in seen} == {2}


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [(None, "no C++ compiler found"), ("g++", "compiling failed, RuntimeError: g++ is unwell")],
)
def test_why_nothing_was_compiled_is_said(monkeypatch, small, compiler, reason):
    def fail(*_, **__):
        raise RuntimeError("g++ is unwell\nand more")

    monkeypatch.setattr(timing, "compiler", lambda: compiler)
    monkeypatch.setattr(torch, "compile", fail)
    assert prepared(small, torch.zeros(1, 3, 4, 4), "compile") == (None, reason)
    times = forward_times({"a": small}, (3, 4, 4), rounds=2, way="compile")
    assert times.empty
    assert times.attrs == {"left out": {"a": reason}}


def test_a_compiled_network_is_timed_once_it_has_answered(monkeypatch):
    seen = []

    def compile_(model, **_):
        return lambda images: seen.append(len(images)) or model(images)

    monkeypatch.setattr(timing, "compiler", lambda: "g++")
    monkeypatch.setattr(torch, "compile", compile_)
    call, reason = prepared(nn.Identity().eval(), torch.ones(3), "compile")
    assert (seen, reason) == ([3], "")
    assert call().tolist() == [1.0, 1.0, 1.0]


def test_a_compiler_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert timing.compiler() is None
    for name in ("mine", "g++"):
        (tmp_path / name).touch(mode=0o755)
    assert timing.compiler() == "g++"
    monkeypatch.setenv("CXX", "mine")
    assert timing.compiler() == "mine"
