"""Times of full-size networks: what is timed, that every way gives the same, and the ratios."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from papertwin.errors import InputError
from papertwin.papers import deep_roots_times as paper
from papertwin.papers.deep_roots import Params
from papertwin.training import clock

PARAMS = Params(rounds=3, device="cpu")


def test_what_is_timed():
    names = paper.timed_names()
    assert names["NiN"] == [f"NiN {name}" for name in ("Orig.", "root-2", "root-4", "root-8", "root-16")]
    assert len(names["ResNet-50"]) == 7
    assert set(paper.EVERY_WAY) <= {name for each in names.values() for name in each}


def test_every_way_gives_the_same_logits(monkeypatch):
    model = paper.build(paper.CARD, "NiN root-8", device="cpu").eval()
    answers = {way: call() for way, call in paper._ways("NiN root-8", model, 2).items()}
    assert set(answers) == set(paper.WAYS)
    for answer in answers.values():
        assert torch.allclose(answer, answers["eager"], rtol=1e-3, atol=1e-4)


def test_times_are_compared_with_the_standard_network_in_the_same_way(monkeypatch):
    monkeypatch.setattr(paper, "timed_names", lambda: {"NiN": ["NiN Orig.", "NiN root-8"]})
    times = paper.measured_times(PARAMS)
    assert times.shape == (3, 6)
    known = pd.DataFrame([[8.0, 4.0, 2.0, 1.0]], columns=times.columns[[0, 1, 3, 4]])
    known.columns = pd.MultiIndex.from_tuples(
        [(name, 1, way) for name in ("NiN Orig.", "NiN root-8") for way in ("eager", "fastest")],
        names=["network", "batch", "way"],
    )
    table = paper.time_table(known).set_index(["network", "way"])
    assert table.loc[("NiN root-8", "eager"), "faster"] == 4
    assert table.loc[("NiN root-8", "fastest"), "faster"] == 4
    assert table.loc[("NiN root-8", "eager"), "MACs"] == pytest.approx(222_487_946 / 103_343_498)
    assert table.loc[("NiN root-8", "eager"), "published CPU"] == pytest.approx(39.002 / 24.383, abs=1e-3)


def test_layers_are_timed_one_by_one(monkeypatch):
    asked = []
    monkeypatch.setattr(paper, "layer_times", lambda model, images, rounds: asked.append((images.shape, rounds)))
    monkeypatch.setattr(paper, "build", lambda *args, **options: SimpleNamespace(eval=lambda: None))
    assert list(paper.layer_seconds(["NiN Orig."], PARAMS)) == ["NiN Orig."]
    assert asked == [((1, 3, 32, 32), 3)]


# ---- with a clock that stands still but for what is timed ------------------------------------------------------------

TAKES = {  # ways of each network, and the seconds that the first of them takes for one image
    "NiN Orig.": (("eager", "channels_last", "fastest"), 1.0),
    "NiN root-2": (("eager",), 2.0),
    "NiN root-8": (("eager", "channels_last", "fastest"), 3.0),
    "GoogLeNet Orig.": (("eager", "channels_last"), 5.0),
    "GoogLeNet root-2": (("eager",), 6.0),
    "GoogLeNet root-8": (("eager", "channels_last"), 7.0),
}
FAMILIES = {family: [name for name in TAKES if name.startswith(family)] for family in ("NiN", "GoogLeNet")}


def built(card, name, device):
    """A stand-in for a network, which says how it was built."""
    return SimpleNamespace(eval=lambda: f"{name} of {card}, in eval mode, on {device}")


def takes(name, batch, way, number):
    """Seconds of a call: each network, batch, way and round has its own; the first round is the slowest."""
    ways, seconds = TAKES[name]
    return (seconds + 0.25 * ways.index(way)) * (1 + batch / 2) * (10 if number == 0 else number)


@pytest.fixture
def fake(monkeypatch):
    """Stand-ins for networks, images and the clock; what was asked of them."""
    asked = SimpleNamespace(now=0.0, calls=[], searches=set(), modes=set(), models=set())

    def prepared(model, images, way, *, search):
        name, batch = images
        asked.searches.add(search)
        asked.models.add(model)
        assert model.startswith(name + " of ")

        def call():
            number = asked.calls.count((name, batch, way))
            asked.calls.append((name, batch, way))
            asked.modes.add(torch.is_inference_mode_enabled())
            asked.now += takes(name, batch, way, number)

        return call, ""

    monkeypatch.setattr(paper, "timed_names", lambda: FAMILIES)
    monkeypatch.setattr(paper, "build", built)
    monkeypatch.setattr(paper, "sample_images", lambda card, name, batch: (name, batch))
    monkeypatch.setattr(paper, "prepared", prepared)
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: asked.now))
    return asked


def test_times_are_milliseconds_an_image_round_by_round(fake):
    times = paper.measured_times(replace(PARAMS, batches=[1, 16]))
    assert times.columns.names == ["network", "batch", "way"]
    due = [
        (name, batch, way)
        for names in FAMILIES.values()
        for batch in (1, 16)
        for name in names
        for way in TAKES[name][0]
    ]
    assert times.columns.tolist() == due
    assert len(times) == 3
    assert times["NiN Orig.", 1, "eager"].tolist() == pytest.approx([1500.0, 3000.0, 4500.0])
    assert times["NiN Orig.", 16, "eager"].tolist() == pytest.approx([562.5, 1125.0, 1687.5])  # 9 s of 16 images
    for name, batch, way in due:
        expected = [1000 * takes(name, batch, way, number) / batch for number in (1, 2, 3)]
        assert times[name, batch, way].tolist() == pytest.approx(expected)


def test_networks_of_a_family_take_turns_batch_by_batch(fake):
    paper.measured_times(replace(PARAMS, batches=[16, 1], rounds=4))
    turns = []
    for names in FAMILIES.values():
        for batch in (16, 1):
            turns += [(name, batch, way) for name in names for way in TAKES[name][0]] * 5
    assert fake.calls == turns


def test_networks_are_timed_for_inference_on_the_processor(fake):
    paper.measured_times(PARAMS)
    assert fake.modes == {True}
    assert fake.models == {f"{name} of deep-roots, in eval mode, on cpu" for name in TAKES}


def test_the_fastest_way_is_looked_for_in_so_many_rounds(fake, monkeypatch):
    monkeypatch.setattr(paper, "SEARCH", 11)
    paper.measured_times(PARAMS)
    assert fake.searches == {11}


def test_two_lists_of_names_decide_in_which_ways_a_network_is_timed(fake, monkeypatch):
    assert paper.SEARCHED == ("NiN Orig.", "NiN root-8", "ResNet-50 Orig.", "ResNet-50 root-64")
    assert (*paper.SEARCHED, "GoogLeNet Orig.", "GoogLeNet root-8") == paper.EVERY_WAY
    monkeypatch.setattr(paper, "SEARCHED", ("a",))
    monkeypatch.setattr(paper, "EVERY_WAY", ("a", "b"))
    monkeypatch.setattr(paper, "prepared", lambda model, images, way, search: ((model, *images, way), ""))
    ways = {name: paper._ways(name, name.upper(), 5) for name in "abc"}
    assert ways == {
        "a": {way: ("A", "a", 5, way) for way in ("eager", "channels_last", "fastest")},
        "b": {way: ("B", "b", 5, way) for way in ("eager", "channels_last")},
        "c": {"eager": ("C", "c", 5, "eager")},
    }


def test_layers_of_each_network_are_timed_on_one_image_of_its_size(monkeypatch):
    monkeypatch.setattr(paper, "build", built)
    monkeypatch.setattr(paper, "layer_times", lambda model, images, rounds: (model, tuple(images.shape), rounds))
    assert paper.layer_seconds(["ResNet-50 Orig.", "NiN root-8"], replace(PARAMS, rounds=5)) == {
        "ResNet-50 Orig.": ("ResNet-50 Orig. of deep-roots, in eval mode, on cpu", (1, 3, 224, 224), 5),
        "NiN root-8": ("NiN root-8 of deep-roots, in eval mode, on cpu", (1, 3, 32, 32), 5),
    }


def timed(milliseconds):
    """Rounds with those medians, but not those means."""
    table = pd.DataFrame(np.outer([0.5, 1.0, 9.0], list(milliseconds.values())))
    table.columns = pd.MultiIndex.from_tuples(milliseconds, names=["network", "batch", "way"])
    return table


MEDIANS = {
    **{("NiN Orig.", 1, "eager"): 40.0, ("NiN Orig.", 1, "fastest"): 30.0, ("NiN Orig.", 16, "eager"): 20.0},
    **{("NiN root-8", 1, "eager"): 16.0, ("NiN root-8", 1, "fastest"): 5.0, ("NiN root-8", 16, "eager"): 25.0},
    **{("GoogLeNet Orig.", 1, "eager"): 600.0, ("GoogLeNet root-8", 1, "eager"): 480.0},
}


def test_the_standard_network_of_the_same_family_batch_and_way_is_the_base():
    table = paper.time_table(timed(MEDIANS))
    assert table.columns.tolist() == [
        "network",
        "batch",
        "way",
        "ms",
        "faster",
        "MACs",
        "published CPU",
        "published GPU",
    ]
    table = table.set_index(["network", "batch", "way"])
    assert table["ms"].to_dict() == MEDIANS
    assert table["faster"].to_dict() == pytest.approx(
        dict.fromkeys(MEDIANS, 1.0)
        | {("NiN root-8", 1, "eager"): 2.5, ("NiN root-8", 1, "fastest"): 6.0, ("NiN root-8", 16, "eager"): 0.8}
        | {("GoogLeNet root-8", 1, "eager"): 1.25}
    )


def test_times_stand_beside_operations_and_published_times():
    table = paper.time_table(timed(MEDIANS)).set_index(["network", "batch", "way"])
    columns = ["MACs", "published CPU", "published GPU"]
    heads = 11_933_904  # of both auxiliary heads of GoogLeNet, which do not run
    macs = (1_716_324_392 - heads) / (964_383_656 - heads)
    for key in MEDIANS:
        expected = {
            "NiN root-8": [222_487_946 / 103_343_498, 39.00234375 / 24.383125, 0.622549219 / 0.482417188],
            "GoogLeNet root-8": [macs, 314.584 / 246.141, 4.3937 / 3.7162],
        }.get(key[0], [1.0, 1.0, 1.0])
        assert table.loc[key, columns].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        (
            [("NiN Orig.", 1, "fastest")],
            "NiN root-8 was timed in the way fastest, batch 1; expected times of NiN Orig.",
        ),
        ([("NiN Orig.", 16, "eager")], "NiN root-8 was timed in the way eager, batch 16; expected times of NiN Orig."),
        (
            [key for key in MEDIANS if key[0] == "GoogLeNet Orig."],
            "GoogLeNet root-8 was timed in the way eager, batch 1",
        ),
    ],
)
def test_a_network_without_times_of_its_standard_network_is_refused(left_out, message):
    known = {key: ms for key, ms in MEDIANS.items() if key not in left_out}
    with pytest.raises(InputError, match=message):
        paper.time_table(timed(known))
