"""The benchmark of conditional networks at tiny sizes: what it times is what it says; how fast, only it itself says."""

import json
import os
import platform
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.bench import _conditional as inner
from papertwin.bench import _onednn, _shared, available, conditional
from papertwin.errors import RunError
from papertwin.nets import count
from papertwin.training.loop import single_thread

TINY = inner.Plan(
    layers=((32, 3, 5), (32, 1, 4)),
    groups=(1, 2, 16),
    routes=(4, 2),
    filters=8,
    side=8,
    batches=(1, 64),
    rounds=2,
    seconds=0.0,
)
WAYS = ("plain", "last", "native") if torch.backends.mkldnn.is_available() else ("plain",)


@pytest.fixture(autouse=True)
def _one_thread():
    with single_thread(), torch.inference_mode():
        yield


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def outputs(works):
    found = {}
    for way, work in works.items():
        with work.around():
            found[way] = work.call()
    return found


def calls(work):
    with work.around():
        return _onednn.calls(work.call)


# ---- what is timed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "kernel", "side"), TINY.layers)
@pytest.mark.parametrize("groups", TINY.groups)
def test_every_way_of_a_layer_is_the_block_diagonal_convolution(channels, kernel, side, groups):
    torch.manual_seed(groups)
    layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups)
    whole = torch.zeros(channels, channels, kernel, kernel)
    part = channels // groups
    for g in range(groups):
        rows = slice(g * part, (g + 1) * part)
        whole[rows, rows] = layer.weight[rows]
    maps = images(3, channels, side, side)
    wanted = nn.functional.conv2d(maps, whole, layer.bias, padding=kernel // 2)
    works = inner.layer_works(layer, maps)
    assert tuple(works) == WAYS
    for found in outputs(works).values():
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(len(WAYS) == 1, reason="torch was built without oneDNN")
def test_the_ways_differ_where_they_should():
    layer = nn.Conv2d(32, 32, 3, padding=1, groups=4)
    works = inner.layer_works(layer, images(16, 32, 5, 5))
    assert [calls(work).get("mkldnn_convolution", 0) for work in works.values()] == [1, 1, 0]
    assert calls(works["native"])["cat"] == 1
    assert outputs(works)["last"].is_contiguous(memory_format=torch.channels_last)
    assert layer.weight.is_contiguous(), "the layer itself keeps its order"
    assert torch.backends.mkldnn.enabled


@pytest.mark.parametrize("routes", [2, 4, 8])
def test_the_dense_network_costs_what_all_routes_cost(routes):
    plan = inner.Plan()
    shape = (inner.STEM, plan.side // 2, plan.side // 2)
    width = inner.equal_width(plan.filters, routes, shape)
    with torch.device("meta"):
        one, all_routes = count(inner.route(width), shape).macs, routes * count(inner.route(plan.filters), shape).macs
    assert width % inner.LANES == 0
    assert abs(one / all_routes - 1) < 0.1


@pytest.mark.parametrize("top", [1, 2, 4])
def test_the_routed_network_computes_its_definition_and_uses_every_route(top):
    pictures = images(64, inner.CHANNELS, 8, 8)
    _, routed = inner.networks(TINY, 4, pictures)
    routed.middle.top = top
    maps = routed.stem(pictures)
    r = routed.middle.router(maps)
    kept = torch.zeros_like(r).scatter(1, r.topk(top).indices, r.topk(top).values)
    kept /= kept.sum(dim=1, keepdim=True)
    routes = torch.stack([route(maps) for route in routed.middle.routes], dim=1)
    wanted = routed.head((kept[:, :, None] * routes).sum(dim=1))
    torch.testing.assert_close(routed(pictures), wanted, rtol=1e-4, atol=1e-5)
    assert (routed.middle.frequencies > 0.05).all()
    assert routed.middle.frequencies.sum() == top


def test_costs_follow_the_routes_that_were_taken():
    pictures = images(64, inner.CHANNELS, 8, 8)
    plain, routed = inner.networks(TINY, 4, pictures)
    shape, maps = pictures.shape[1:], (inner.STEM, 4, 4)
    whole = count(plain, tuple(shape))
    assert inner.network_cost(plain, shape, torch.Size(maps)) == inner.cost(whole)
    assert inner.cost(whole)[1] == sum(np.prod(layer.output) for layer in whole.layers)
    for top in (1, 3, 4):
        routed.middle.top = top
        routed.middle.reset()
        routed(pictures)
        stem, head, route = count(routed.stem, tuple(shape)), count(routed.head, (8,)), count(inner.route(8), maps)
        macs, values = inner.network_cost(routed, shape, torch.Size(maps))
        assert macs == pytest.approx(stem.macs + head.macs + 4 * (inner.STEM + 1) + top * route.macs)
        assert values == pytest.approx(inner.STEM * 8 * 8 + 10 + 4 + top * (8 * 4 * 4 * 2 + 8 * 2 * 2))


@pytest.mark.parametrize("batch", TINY.batches)
def test_what_is_timed_for_a_routed_network_is_what_its_name_says(monkeypatch, batch):
    timed = {}
    monkeypatch.setattr(inner, "interleaved", lambda works, plan: timed.update(works) or {})
    found = inner.routing_subject(TINY, 4, batch, look=False)
    pictures = torch.randn(64, inner.CHANNELS, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, routed = inner.networks(TINY, 4, pictures)
    results = {name: work.call() for (name, _), work in timed.items()}
    assert torch.equal(results["dense"], plain(pictures[:batch]))
    assert torch.equal(results["stem only"], routed.stem(pictures[:batch]))
    step = count(inner.route(8), (inner.STEM, 4, 4)).macs
    for top in range(1, 5):
        routed.middle.top = top
        assert torch.equal(results[f"τ = {top}"], routed(pictures[:batch]))
        assert sum(found["details"][f"τ = {top}"]["routes taken"]) == pytest.approx(top, abs=0.002)
        assert found["macs"][f"τ = {top}"] == pytest.approx(found["macs"]["τ = 1"] + (top - 1) * step)


# ---- the clock, and why ----------------------------------------------------------------------------------------------


def test_everything_takes_turns_and_the_first_one_is_not_counted():
    seen = []
    works = {name: inner.Work(lambda name=name: seen.append(name)) for name in "abc"}
    turns = inner.interleaved(works, replace(TINY, rounds=4))
    assert seen == list("abc") * 5
    assert {name: len(each) for name, each in turns.items()} == dict.fromkeys("abc", 4)
    seconds = inner.by_way({("a", "plain"): [(0.1, 5), (0.2, 0), (0.3, 7)]})
    assert seconds == {"seconds": {"a": {"plain": [0.1, 0.2, 0.3]}}, "pages": {"a": {"plain": 5}}}


def test_the_clock_goes_on_while_there_is_time_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(inner, "MOST", 7)
    turns = inner.interleaved({"a": inner.Work(lambda: None)}, replace(TINY, rounds=2, seconds=3600.0))
    assert len(turns["a"]) == 7


def test_ways_that_disagree_are_an_error():
    works = {"plain": inner.Work(lambda: torch.ones(2)), "last": inner.Work(lambda: torch.tensor([1.0, 1.01]))}
    with pytest.raises(RunError, match=r"a layer: last and plain differ by 1\.0e-02"):
        inner.check_equal("a layer", works)
    inner.check_equal("a layer", {"plain": works["plain"], "last": works["plain"]})
    with pytest.raises(RunError, match="nan"):
        inner.check_equal("a layer", {**works, "last": inner.Work(lambda: torch.tensor([1.0, torch.nan]))})


VERBOSE = """onednn_verbose,v1,info,oneDNN v3.12.0 (commit 80afa71)
onednn_verbose,v1,primitive,exec,cpu,reorder,jit,undef,src:f32::blocked:abcd::f0 dst:f32::blocked:aBcd16b::f0,,,,0.25
onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx512_core,forward_training,src:f32:a:blocked:aBcd16b::f0 \
wei:f32:a:blocked:aBCde8c8b::f0 bia:f32:a:blocked:a::f0 dst:f32:a:blocked:aBcd16b::f0,,alg:direct,g2mb1,{}
onednn_verbose,v1,primitive,exec,cpu,reorder,jit,undef,src:f32::blocked:aBcd16b::f0 dst:f32::blocked:abcd::f0,,,,0.5
"""


def test_what_onednn_says_is_read():
    found = _onednn.primitives([VERBOSE.format(time) for time in (1.0, 7.0, 2.0)])
    expected = {"kernels": {"jit:avx512_core": 1}, "kernel ms": 2.0, "reorders": 2, "reorder ms": 0.75, "block": 8}
    assert found == expected
    gemm = VERBOSE.format(1.0).replace("wei:f32:a:blocked:aBCde8c8b", "wei:f32:a:blocked:abcde")
    assert _onednn.primitives([gemm])["block"] is None
    silent = {"kernels": {}, "kernel ms": 0, "reorders": 0, "reorder ms": 0, "block": None}
    assert _onednn.primitives(["", ""]) == silent


@pytest.mark.skipif(len(WAYS) == 1, reason="torch was built without oneDNN")
def test_onednn_is_listened_to_and_the_output_comes_back(capfd):
    layer = nn.Conv2d(32, 32, 3, padding=1, groups=2)
    text = _onednn.spoken(lambda: layer(images(16, 32, 5, 5)))
    assert _onednn.primitives([text])["kernels"]
    os.write(1, b"heard\n")
    layer(images(16, 32, 5, 5))
    assert capfd.readouterr().out == "heard\n"


# ---- the whole of it -------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(conditional, "PLAN", TINY)


def test_a_whole_run(tiny):
    assert "conditional" in available()
    assert "_conditional" not in available()
    seen = []
    result = conditional.run(lambda text, done: seen.append((text, done)))
    assert [done for _, done in seen] == sorted(done for _, done in seen)
    assert (seen[0], seen[-1]) == (("R = 4, batch 1", 0.0), ("done", 1.0))
    assert result.threads == 1
    names = ["dense", "stem only", *(f"τ = {top}" for top in range(1, 5))]
    of_four = [row for row in result.rows if (row["what"], row["batch"]) == ("R = 4", 64)]
    assert [row["split"] for row in of_four] == names
    assert len(result.rows) == 2 * (6 + 4) + 2 * 2 * 3
    for row in result.rows:
        dense = next(r for r in result.rows if (r["what"], r["batch"]) == (row["what"], row["batch"]))
        assert dense["split"] == "dense"
        assert row["time ×"] == pytest.approx(dense["ms"] / row["ms"], rel=0.02, abs=0.01)
        assert row["MACs ×"] == pytest.approx(dense["M MACs"] / row["M MACs"], rel=0.2)
        assert all(values == sorted(values) for values in row["details"]["quartiles ms"].values())
        assert row["ms"] == row["details"]["quartiles ms"]["plain"][1]
        assert (row["last ×"] is None) == ("=" in row["what"] or len(WAYS) == 1)
        assert row["kernel"]
    assert result.headline["goal"] == conditional.GOAL
    assert result.headline["ratio"] == of_four[2]["time ×"]
    assert "1 of 4 routes" in result.headline["figure"]
    json.loads(result.to_json())
    assert result.table().row_count == len(result.rows)


def test_a_process_that_dies_is_an_error(tiny, monkeypatch):
    monkeypatch.setattr(_shared.sys, "executable", "/bin/false")
    with pytest.raises(RunError, match="ended with code 1"):
        conditional.run(lambda *_: None)


def test_what_the_process_says_last_is_told(tiny, monkeypatch):
    monkeypatch.setattr(conditional, "PLAN", replace(TINY, layers=((30, 3, 5),), groups=(4,), routes=()))
    with pytest.raises(RunError, match="groups must divide 30 channels"):
        conditional.run(lambda *_: None)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the variables are those of glibc")
def test_memory_is_kept_or_fresh_as_asked(tiny, monkeypatch):
    monkeypatch.setattr(conditional, "PLAN", replace(TINY, layers=((64, 1, 64),), groups=(1,), routes=(), batches=(8,)))
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "4096")  # what the caller has set does not count
    pages = {}
    for name, environment in (("kept", conditional.KEPT), ("fresh", conditional.FRESH)):
        (found,) = conditional._measured(("plain",), environment, lambda *_: None, 0, 1)
        pages[name] = found["pages"]["dense"]["plain"]
    assert pages["fresh"] > 1000 > 10 > pages["kept"]  # an output has 2048 pages


@pytest.mark.parametrize("library", ["glibc", "musl"])
def test_memory_is_tried_both_ways_where_the_library_can(monkeypatch, library):
    tried = []

    def measured(ways, environment, progress, done, steps):
        tried.append((ways, environment, done, steps))
        yield from ({**subject(), "kind": "routes", "what": 4, "macs": MACS, "seconds": SECONDS} for _ in range(12))

    monkeypatch.setattr(conditional, "_measured", measured)
    monkeypatch.setattr(conditional, "_rows", lambda found, fresh: [{"fresh": bool(fresh)}])
    monkeypatch.setattr(conditional.platform, "libc_ver", lambda: (library, ""))
    count = len(conditional.PLAN.subjects())
    rows = conditional.run(lambda *_: None).rows
    assert rows == [{"fresh": library == "glibc"}] * 12
    if library == "glibc":
        assert tried == [
            (("plain", "last", "native"), conditional.KEPT, 0, 2 * count),
            (("plain",), conditional.FRESH, 12, 2 * count),
        ]
    else:
        assert tried == [(("plain", "last", "native"), {}, 0, count)]


def test_who_stops_listening_ends_the_process(tiny, monkeypatch):
    begun = []
    start = _shared.subprocess.Popen
    monkeypatch.setattr(_shared.subprocess, "Popen", lambda *args, **kw: begun.append(start(*args, **kw)) or begun[-1])
    subjects = conditional._measured(("plain",), {}, lambda *_: None, 0, 8)
    assert next(subjects)["kind"] == "routes"
    subjects.close()
    assert begun[0].returncode == -9


def subject(**details):
    seconds = {"dense": {"plain": [0.4] * 3}, "g = 4": {"plain": [0.3, 0.2, 0.1]}}
    whole = {"kernels": {"jit": 1}, "kernel ms": 300.0, "reorders": 3, "reorder ms": 50.0, "block": 16, "calls": {}}
    return {
        "kind": "groups",
        "what": [32, 3, 5],
        "batch": 64,
        "macs": {"dense": 4e6, "g = 4": 1e6},
        "seconds": seconds,
        "pages": {name: {"plain": 0} for name in seconds},
        "details": {
            "dense": {"channels a group": 32, "plain": whole},
            "g = 4": {"channels a group": 8, "plain": whole | {"kernel ms": 100.0} | details},
        },
    }


def test_rows_and_reasons_by_hand():
    fresh = {
        "seconds": {"dense": {"plain": [0.6] * 3}, "g = 4": {"plain": [0.6] * 3}},
        "pages": {"dense": {"plain": 7}, "g = 4": {"plain": 7}},
    }
    dense, split = conditional._rows(subject(block=8), fresh)
    assert (dense["time ×"], dense["fresh ×"]) == (1.0, 1.0)
    wanted = {"what": "32, 3×3", "batch": 64, "split": "g = 4", "M MACs": 1.0, "MACs ×": 4.0, "ms": 200.0}
    wanted |= {"time ×": 2.0, "last ×": None, "native ×": None, "fresh ×": 1.0, "kernel": "jit"}
    assert {key: split[key] for key in wanted} == wanted
    assert split["details"]["quartiles ms"]["plain"] == [150.0, 200.0, 250.0]
    assert split["details"]["GMAC/s"] == 0.3
    why = split["details"]["why"]
    assert "kernels take 50% of the time, reorders of maps and weights 25%" in why
    assert "with 8 channels a group the kernel takes 8 at a time, not 16" in why
    assert "7 fresh pages of memory a call would cost 400 ms" in why
    another = conditional._rows(subject(kernels={"gemm": 1}, block=None), {})[1]
    assert another["kernel"] == "gemm"
    assert another["fresh ×"] is None
    assert "kernel is another one" in another["details"]["why"]
    own = conditional._rows(subject(kernels={}, calls={"_slow_conv2d_forward": 4, "cat": 1}), {})[1]
    assert own["kernel"] == "4 _slow_conv2d_forward"
    assert own["details"]["why"] == "torch convolves without oneDNN, 4 calls of _slow_conv2d_forward"


MACS = {"dense": 6e6, "τ = 1": 2e6, "τ = 2": 3e6}
SECONDS = {"dense": {"plain": [0.5]}, "τ = 1": {"plain": [0.2]}, "τ = 2": {"plain": [0.4]}}


def test_the_headline_is_of_one_route_of_four_with_a_large_batch():
    others = [{"kind": "routes", "what": what, "batch": batch} for what, batch in ((4, 1), (8, 64))]
    wanted = {"kind": "routes", "what": 4, "batch": 64, "macs": MACS, "seconds": SECONDS}
    headline = conditional._headline([*others, wanted])
    assert (headline["ratio"], headline["goal"]) == (2.5, conditional.GOAL)
    assert "batch 64, one thread (MACs: 3.0x)" in headline["figure"]
    with pytest.raises(RunError, match="no network of 4 routes with batch 64"):
        conditional._headline([subject()])
