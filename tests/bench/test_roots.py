"""The benchmark of filter groups and low-rank filters: what it times is what it says, with the smallest networks."""

import json
from dataclasses import asdict, replace
from functools import partial

import pandas as pd
import pytest
import torch
from rich.console import Console
from torch import nn

from papertwin.bench import _roots as inner
from papertwin.bench import _shared, available, roots
from papertwin.errors import RunError
from papertwin.nets import build, count, input_shape, published, timing
from papertwin.nets.execution import Fastest

NAMES = ("NiN Orig.", "NiN root-8")
NIN = inner.Family("deep-roots", NAMES, batches=(1, 2), searched=NAMES[:1], layered="NiN root-8")
TINY = inner.Plan(families=(NIN,), layer_batches=(2,), rounds=2, fewer=1, search=1)
NAMED = {"card": "deep-roots", "standard": "NiN Orig.", "batch": 1}
COLUMNS = ["what", "batch", "way", "ms", "MACs ×", "time ×", "CPU ×", "GPU ×", "details"]


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_comes_back_from_json():
    assert inner.Plan.read(json.loads(json.dumps(asdict(inner.Plan())))) == inner.Plan()
    assert inner.Plan.read(json.loads(json.dumps(asdict(TINY)))) == TINY


def test_the_plan_names_published_networks_and_gives_no_batch_to_vgg():
    plan = inner.Plan()
    for family in plan.families:
        assert set(family.names) <= set(published(family.card)["network"])
        assert {*family.searched, *family.compiled, family.layered or family.names[0]} <= set(family.names)
        assert len({input_shape(family.card, name) for name in family.names}) == 1
    subjects = [(kind, family.names[0], batch) for kind, family, batch in plan.subjects()]
    assert ("networks", "gmp", 16) not in subjects
    assert {("networks", "gmp", 1), ("networks", "NiN Orig.", 16), ("layers", "gmp", 16)} < set(subjects)
    assert len(set(subjects)) == len(subjects) == 7 + 6
    assert (plan.turns(1), plan.turns(16)) == (plan.rounds, plan.fewer)


# ---- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", NIN.batches)
def test_what_is_timed_is_what_its_name_says(monkeypatch, batch):
    timed = {}

    def clock(calls, *, rounds):
        timed.update(calls)
        return pd.DataFrame({name: [0.1 * (number + 1)] * rounds for number, name in enumerate(calls)})

    monkeypatch.setattr(inner, "interleaved", clock)
    with torch.inference_mode():
        found = inner.network_subject(TINY, NIN, batch)
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        wanted = {name: build("deep-roots", name, device="cpu").eval()(images) for name in NAMES}
        for (name, _), call in timed.items():
            torch.testing.assert_close(call(), wanted[name], rtol=1e-4, atol=1e-5)
    every = [(name, way) for name in NAMES for way in ("eager", "channels_last", "fastest")]
    assert list(timed) == (every if batch == 1 else every[:-1])  # the fastest way of two images is searched for one
    assert found["seconds"]["NiN root-8"]["eager"] == pytest.approx([0.4] * TINY.turns(batch))
    assert found["macs"] == {"NiN Orig.": 222487946, "NiN root-8": 103343498}
    last = timed["NiN root-8", "channels_last"]
    eager = timed["NiN root-8", "eager"]
    assert [call.func.conv2a.weight.stride()[1] for call in (eager, last)] == [25, 1], (
        "weights in the order of the maps"
    )
    assert last.args[0].is_contiguous(memory_format=torch.channels_last)
    assert not eager.args[0].is_contiguous(memory_format=torch.channels_last)


def test_a_way_with_another_result_is_an_error(monkeypatch):
    def wrong(model, images, way, **_):
        other = model if way == "eager" else build("deep-roots", "NiN Orig.", device="cpu", seed=1).eval()
        return partial(Fastest(other, "channels first", pd.DataFrame(columns=["layer", "together"])), images), ""

    monkeypatch.setattr(inner, "prepared", wrong)
    with torch.inference_mode(), pytest.raises(RunError, match=r"NiN Orig\., batch 1: channels_last and eager differ"):
        inner.prepare(TINY, NIN, "NiN Orig.", inner.drawn(NIN, 1))


def test_what_was_chosen_is_told(monkeypatch):
    rows = [("conv1b", "oneDNN", 1), ("conv2a", "merged", 4), ("conv2b", "torch", 1)]
    choices = pd.DataFrame(rows, columns=["layer", "way", "together"])

    def known(model, images, way, **_):
        return partial(Fastest(model, "channels first", choices), images), ""

    monkeypatch.setattr(inner, "prepared", known)
    with torch.inference_mode():
        _, told = inner.prepare(TINY, NIN, "NiN root-8", inner.drawn(NIN, 1))
    chosen = {"order": "channels first", "groups computed as one": {"conv2a": 4}, "left to oneDNN": ["conv1b"]}
    assert told == {"eager": {}, "channels_last": {}, "fastest": chosen}


def test_not_every_way_is_tried_everywhere():
    family = replace(NIN, compiled=NAMES[1:])
    some, every = ["eager", "channels_last"], ["eager", "channels_last", "fastest", "compile"]
    assert [inner.ways_of(family, name, 1) for name in NAMES] == [every[:3], every]
    assert [inner.ways_of(family, name, 2) for name in NAMES] == [every[:3], some]
    assert inner.ways_of(replace(family, searched=()), NAMES[1], 2) == every[:3]


def test_why_nothing_was_compiled_is_said(monkeypatch):
    monkeypatch.setattr(timing, "compiler", lambda: None)
    family = replace(NIN, names=NAMES[:1], compiled=NAMES[:1])
    with torch.inference_mode():
        found = inner.network_subject(TINY, family, 1)
    assert "compile" not in found["seconds"]["NiN Orig."]
    rows = {row["way"]: row for row in roots._network_rows({**found, **NAMED})}
    assert list(rows) == ["eager", "channels_last", "fastest", "not compiled"]
    row = rows["not compiled"]
    assert (row["ms"], row["time ×"], row["details"]) == (None, None, {"why": "no C++ compiler found"})


def heard(kernel: float, reorder: float) -> dict:
    return {"looked": {"kernels": {"jit": 3}, "kernel ms": kernel, "reorder ms": reorder, "reorders": 2, "block": 8}}


def resnets() -> dict:
    """A subject with times that are easy to divide."""
    return {
        "card": "deep-roots",
        "standard": "ResNet-50 Orig.",
        "batch": 2,
        "macs": {"ResNet-50 Orig.": 3857974312, "ResNet-50 root-64": 2114860072},
        "seconds": {
            "ResNet-50 Orig.": {"eager": [0.3, 0.6, 0.9], "channels_last": [0.5] * 3},
            "ResNet-50 root-64": {"eager": [0.4, 0.2, 0.3], "channels_last": [0.2] * 3, "fastest": [0.1] * 3},
        },
        "told": {
            "ResNet-50 Orig.": {"eager": heard(450.0, 100.0), "channels_last": heard(100.0, 0.0)},
            "ResNet-50 root-64": {
                "eager": heard(225.0, 30.0),
                "channels_last": {"looked": {}},
                "fastest": heard(50.0, 0.0) | {"order": "channels last", "groups computed as one": {"a": 2, "b": 4}},
            },
        },
    }


def test_ratios_of_networks_by_hand():
    rows = {(row["what"], row["way"]): row for row in roots._network_rows(resnets())}
    assert all(list(row) == COLUMNS for row in rows.values())
    eager = rows["ResNet-50 root-64", "eager"]
    assert (eager["ms"], eager["time ×"], eager["MACs ×"]) == (150.0, 2.0, 1.82)
    assert (eager["CPU ×"], eager["GPU ×"]) == (1.46, 1.15)  # 620.958 / 425.736, 11.6452 / 10.1702
    shown = {key: value for key, value in eager["details"].items() if key not in ("looked", "why")}
    assert shown == {"quartiles ms": [125.0, 150.0, 175.0], "turns": 3, "GMAC/s": 14.1}
    assert eager["details"]["why"] == (
        "oneDNN's kernels take 75% of the time, reorders of maps and weights 10%; "
        "these kernels are 2.00 times as fast as in the standard network, all else 2.00"
    )
    assert rows["ResNet-50 root-64", "channels_last"]["time ×"] == 2.5
    best = rows["ResNet-50 root-64", "fastest"]
    assert best["time ×"] is None
    assert best["details"]["why"] == "oneDNN's kernels take 50% of the time, reorders of maps and weights 0%"
    assert rows["ResNet-50 root-64", "channels_last"]["details"]["why"] == ""
    assert (best["details"]["order"], best["details"]["groups computed as one"]) == ("channels last", {"a": 2, "b": 4})
    assert rows["ResNet-50 Orig.", "eager"]["CPU ×"] == 1.0


def test_what_computes_without_onednn_is_said_in_words():
    more = resnets()
    more["told"]["ResNet-50 root-64"]["eager"]["looked"]["calls"] = {"_slow_conv2d_forward": 3}
    assert roots._why(more, "ResNet-50 root-64", "eager") == (
        "oneDNN's kernels take 75% of the time, reorders of maps and weights 10%; "
        "torch convolves without oneDNN, 3 calls of _slow_conv2d_forward"
    )
    more["told"]["ResNet-50 Orig."]["eager"]["looked"] |= {
        "kernel ms": 601.0,
        "calls": {"_slow_conv2d_forward": 3, "mkldnn_convolution": 2},
    }
    assert roots._why(more, "ResNet-50 root-64", "eager").endswith(
        "these kernels are 2.67 times as fast as in the standard network"
    )


def test_the_headline_is_of_one_image_each_network_in_its_fastest_way():
    subject = resnets() | {"kind": "networks", "batch": 1}
    subject["seconds"]["ResNet-50 Orig."]["fastest"] = [0.4] * 3
    other = subject | {"standard": "NiN Orig."}
    headline = roots._headline([other, subject | {"batch": 16}, subject])
    assert (headline["ratio"], headline["goal"]) == (4.0, 1.46)
    assert "each in the fastest way, batch 1, one thread (MACs: 1.82x, eager: 2.00x)" in headline["figure"]
    with pytest.raises(RunError, match=r"no ResNet-50 root-64 beside ResNet-50 Orig\. with batch 1"):
        roots._headline([other])


def test_nothing_was_published_for_low_rank_networks():
    assert roots._published_ratios("low-rank-filters", "gmp", "gmp-lr") == {"CPU ×": None, "GPU ×": None}


# ---- layers ----------------------------------------------------------------------------------------------------------


def test_layers_of_two_networks_take_turns(monkeypatch):
    seen = []

    def clock(model, images, *, rounds):
        seen.append((model.conv2a.groups, len(images), rounds))
        return pd.DataFrame({"layer": ["conv2a", "total"], "MACs": [1, 2], "ms": [len(seen), 10.0 * len(seen)]})

    monkeypatch.setattr(inner, "layer_times", clock)
    with torch.inference_mode():
        found = inner.layer_subject(replace(TINY, rounds=3), NIN, 1)
    assert seen == [(1, 1, 1), (8, 1, 1)] * 3
    tables = {"NiN Orig.": [["conv2a", 1, 3.0], ["total", 2, 30.0]], "NiN root-8": [["conv2a", 1, 4.0]]}
    tables["NiN root-8"].append(["total", 2, 40.0])
    assert found["layers"] == tables


def test_layers_in_groups_are_looked_into_and_alike_ones_once(monkeypatch):
    asked = []
    monkeypatch.setattr(inner._onednn, "looked_into", lambda call: asked.append(call) or {"at": len(asked)})

    def network(groups):
        layers = [nn.Conv2d(8, 8, 3, padding=1, groups=g) for g in (1, groups, groups)]
        return nn.Sequential(*layers, nn.Conv2d(8, 8, 3, groups=groups)).eval()

    standard, split, images = network(1), network(4), torch.randn(2, 8, 5, 5)
    found = inner.grouped_layers(standard, split, images)
    assert list(found) == ["1", "2", "3"]
    assert found["1"] == found["2"] != found["3"]
    assert [each["channels"] for each in found.values()] == [2, 2, 2]
    assert [call.func for call in asked] == [split[1], standard[1], split[3], standard[3]]
    assert torch.equal(asked[0].args[0], split[0](images))
    assert torch.equal(asked[3].args[0], split[:3](images))
    assert (found["3"]["looked"], found["3"]["whole"]) == ({"at": 3}, {"at": 4})
    assert not any(layer._forward_pre_hooks for layer in split)


def test_no_hook_is_left_in_a_network_that_fails():
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("out of memory")

    split = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), Broken(), nn.Conv2d(4, 4, 1, groups=2))
    with pytest.raises(RuntimeError, match="out of memory"):
        inner.grouped_layers(split, split, torch.zeros(1, 4, 2, 2))
    assert not any(layer._forward_pre_hooks for layer in split)


LOOKED = {"kernels": {"jit": 1}, "kernel ms": 3.0, "reorders": 2, "reorder ms": 1.0, "block": 8, "calls": {}}


def test_rows_of_layers_in_groups_by_hand():
    tables = {
        "whole": [["b", 10, 4.0], ["b1", 80, 16.0], ["b2", 80, 20.0], ["c", 90, 18.0], ["total", 260, 70.0]],
        "split": [["b", 10, 5.0], ["b1", 20, 8.0], ["b2", 20, 4.0], ["c", 30, 9.0], ["total", 80, 32.0]],
    }
    asked = {"channels": 4, "looked": LOOKED, "whole": LOOKED | {"block": 16}}
    looked = {"b1": asked | {"alike": "b"}, "b2": asked | {"alike": "b"}, "c": asked | {"alike": "c"}}
    subject = {"standard": "whole", "split": "split", "batch": 2, "layers": tables, "looked": looked}
    rows = {row["what"]: row for row in roots._layer_rows(subject)}
    assert list(rows) == ["layers: split", "b1 ×2", "c", "all other layers", "between layers"]
    assert all(list(row) == COLUMNS for row in rows.values())
    found = [(row["ms"], row["MACs ×"], row["time ×"]) for row in rows.values()]
    assert found == [(16.0, 3.25, 2.19), (3.0, 4.0, 3.0), (4.5, 3.0, 2.0), (2.5, 1.0, 0.8), (3.0, None, 2.0)]
    why = rows["b1 ×2"]["details"]["why"]
    assert "kernels take 50% of the time, reorders of maps and weights 17%" in why  # of 6 ms a batch
    assert "with 4 channels a group the kernel takes 8 at a time, not 16" in why
    assert (rows["c"]["details"]["kernel"], rows["c"]["details"]["channels a group"]) == ("jit", 4)
    assert rows["c"]["details"]["standard ms"] == 9.0
    assert rows["layers: split"]["details"]["layers"]["split"]["b2"] == {"MACs": 20, "ms": 2.0}


def test_rows_of_low_rank_layers_stand_beside_what_was_published():
    layers = {name: count(build("low-rank-filters", name), (3, 224, 224)).layers for name in ("gmp", "gmp-lr")}
    tables = {name: [[row.name, row.macs, row.macs / 1e6] for row in each] for name, each in layers.items()}
    for table in tables.values():
        table.append(["total", sum(macs for _, macs, _ in table), 10 + sum(ms for *_, ms in table)])
    subject = {"standard": "gmp", "split": "gmp-lr", "batch": 1, "layers": tables, "looked": {}}
    rows = {row["what"]: row for row in roots._layer_rows(subject)}
    assert list(rows) == ["layers: gmp-lr", *roots.PUBLISHED_LAYERS, "all other layers", "between layers"]
    for name in roots.PUBLISHED_LAYERS:
        assert rows[name]["MACs ×"] == rows[name]["time ×"] == 3.0
    assert rows["conv1"]["ms"] == 28.9014
    assert rows["all other layers"]["ms"] == pytest.approx(22.9795, abs=1e-4)
    assert rows["between layers"]["time ×"] == 1.0
    shares = [float(rows[name]["details"]["why"].split("published ")[1].rstrip("%")) for name in roots.PUBLISHED_LAYERS]
    assert shares == [8.0, 13.5, 12.5, 23.6, 10.8, 20.9, 5.2, 5.4]
    assert rows["conv3-2"]["details"]["why"] == "24.7% of the time of all such layers, published 23.6%"
    assert rows["conv3-2"]["details"]["published ms"] == {"3x1": 703.9, "1x3": 695.4}
    assert rows["layers: gmp-lr"]["MACs ×"] == 2.98


# ---- the whole of it -------------------------------------------------------------------------------------------------


def test_a_whole_run(monkeypatch):
    assert "roots" in available()
    monkeypatch.setattr(roots, "PLAN", TINY)
    monkeypatch.setattr(roots, "SHOWN", ("NiN Orig.", "NiN root-8", 1))
    seen = []
    result = roots.run(lambda text, done: seen.append((text, done)))
    assert [done for _, done in seen] == [0.0, 1 / 3, 2 / 3, 1.0]
    assert [text for text, _ in seen] == [
        "NiN Orig., batch 1",
        "NiN Orig., batch 2",
        "layers of NiN root-8, batch 2",
        "done",
    ]
    assert all(list(row) == COLUMNS for row in result.rows)
    assert result.threads == 1
    assert result.rows[0]["details"]["looked"]["calls"]
    assert all("why" in row["details"] for row in result.rows[:11])
    networks = {(row["what"], row["batch"], row["way"]): row for row in result.rows if "turns" in row["details"]}
    assert len(networks) == 6 + 5
    for (name, batch, way), row in networks.items():
        ratios = (1.0, 1.0, 1.0) if name == "NiN Orig." else (2.15, 1.6, 1.29)
        assert (row["MACs ×"], row["CPU ×"], row["GPU ×"]) == ratios
        assert row["details"]["turns"] == TINY.turns(batch)
        standard = networks.get(("NiN Orig.", batch, way))
        assert row["time ×"] == pytest.approx(standard["ms"] / row["ms"], rel=0.02, abs=0.006)
    layers = {row["what"]: row for row in result.rows[len(networks) :]}
    assert list(layers) == ["layers: NiN root-8", "conv2a", "conv3a", "all other layers", "between layers"]
    assert [layers[name]["MACs ×"] for name in ("conv2a", "conv3a")] == [8.0, 4.0]
    assert [layers[name]["details"]["channels a group"] for name in ("conv2a", "conv3a")] == [12, 48]
    assert layers["conv3a"]["details"]["looked"]["calls"]
    whole = layers.pop("layers: NiN root-8")["ms"]
    assert sum(row["ms"] for row in layers.values()) == pytest.approx(whole, abs=1e-3)
    assert result.headline["ratio"] == networks["NiN root-8", 1, "fastest"]["time ×"]
    assert result.headline["goal"] == 1.6
    assert json.loads(result.to_json())["rows"] == result.rows
    console = Console(width=80)
    with console.capture() as shown:
        console.print(result.table())
    assert "…" not in shown.get()
    assert len(shown.get().splitlines()) > len(result.rows)


@pytest.mark.parametrize("lines", [0, 1])
def test_a_process_that_ends_early_is_an_error_whatever_its_code(tmp_path, monkeypatch, lines):
    (tmp_path / "quiet.py").write_text("print(1)\n" * lines)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RunError, match="ended with code 0"):
        list(_shared.results("quiet", {}, {}, [("a", 0.0), ("b", 0.5)], lambda *_: None))
