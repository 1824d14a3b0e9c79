"""Times of full-size networks: what is timed, that every way gives the same, and the ratios."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from papertwin.papers import deep_roots_times as paper
from papertwin.papers.deep_roots import Params
from papertwin.training.loop import single_thread

PARAMS = Params(rounds=3, device="cpu")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with single_thread():
        yield


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
