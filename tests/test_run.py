"""What a notebook holds: parameters resolved, outputs written, verdicts judged."""

import json
from dataclasses import asdict, dataclass

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from papertwin import ledger, run
from papertwin.claims import Measured
from papertwin.errors import LedgerError, ParameterError
from papertwin.papers import don


def parameters(**changes):
    return asdict(don.Params()) | changes


def begin(capsys=None, **changes):
    return run.start("don", parameters(**changes))


def test_start_prints_one_line_and_seeds(capsys):
    import torch

    begin(seed=3)
    first = torch.rand(1).item()
    begin(seed=3)
    assert torch.rand(1).item() == first
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "profile quick" in lines[0]
    assert "seed 3" in lines[0]


def test_a_profile_fills_in_what_was_not_changed_by_hand():
    started = begin(profile="full", threshold=0.3)
    full = ledger.load("don").parameters("full")
    assert started.params.kitti_frames == full["kitti_frames"]
    assert started.params.threshold == 0.3
    assert started.overrides == {"threshold": 0.3}
    assert started.folder.name.startswith("don@full-")


def test_addresses_never_clobber_the_committed_folder():
    assert begin().folder.name == "don"
    assert begin(profile="full").folder.name == "don@full"
    one, two = begin(r_small=0.3).folder.name, begin(r_small=0.2).folder.name
    assert one.startswith("don@quick-")
    assert one != two
    assert begin(r_small=0.3).folder.name == one


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"r_small": "0.4"}, "r_small: got '0.4'"),
        ({"orientation": "sideways"}, "orientation"),
        ({"scenes": "junction"}, "scenes"),
        ({"tiles": 2.5}, "tiles"),
    ],
)
def test_wrong_types_are_named(changes, named):
    with pytest.raises(ParameterError, match=named):
        begin(**changes)


def test_several_wrong_parameters_are_all_named_and_missing_ones_too():
    with pytest.raises(ParameterError, match=r"(?s)r_small.*tiles"):
        begin(r_small="x", tiles="y")
    with pytest.raises(ParameterError, match="does not define link"):
        run.start("don", {k: v for k, v in parameters().items() if k != "link"})


def test_unknown_profile_and_device():
    with pytest.raises(LedgerError, match="no profile 'tiny'"):
        begin(profile="tiny")
    with pytest.raises(ParameterError, match="device"):
        begin(device="abacus")


LEDGER = """
[paper]
slug = "toy"
title = "Toy"
authors = ["A"]
venue = "V"
year = 2020
idea = "i"
topic = "t"
[[figure]]
id = "fig1"
caption = "c"
source = "s"
status = "regenerated"
[[table]]
id = "table1"
caption = "c"
source = "s"
status = "regenerated"
[[claim]]
id = "C1"
statement = "s"
source = "abstract"
published = "1"
rule = {kind = "at_least", value = 1.0, text = "at least one"}
[[claim]]
id = "C2"
statement = "s"
source = "abstract"
published = "1"
stable = false
rule = {kind = "holds", text = "holds"}
[profiles.quick]
minutes = 1
memory_gb = 1
device = "cpu"
data = ["street"]
parameters = {x = 1}
"""


@dataclass(frozen=True)
class Toy:
    x: int = 1
    profile: str = "quick"
    device: str = "cpu"
    seed: int = 0


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERTWIN_FIGURES", str(tmp_path))
    return run.Run(ledger.parse(LEDGER, "toy"), Toy(), {}, "cpu")


def draw(toy):
    figure, axes = plt.subplots()
    axes.plot([0, 1], [2, 3])
    toy.save(figure, "fig1")
    toy.table(pd.DataFrame({"a": [1 / 3]}, index=["row"]), "table1")


def test_results_hold_figures_tables_claims_and_origin(toy):
    draw(toy)
    claims = toy.claims({"C1": Measured(2.0, (1.5, 2.5), "note"), "C2": Measured(False)})
    assert claims.verdicts.splitlines() == [
        "C1   REPRODUCED",
        "C2   see the table (rests on measured time, or is a close call)",
    ]
    results = json.loads((toy.folder / "results.json").read_text())
    assert results["schema"] == run.SCHEMA
    assert results["verdicts"] == {"REPRODUCED": 1, "NOT REPRODUCED": 1, "INCONCLUSIVE": 0, "NOT JUDGED": 0}
    assert results["claims"][0]["interval"] == [1.5, 2.5]
    assert results["claims"][0]["shown"] == "2 [1.5, 2.5]"
    (figure,) = results["figures"]
    assert set(figure["files"]) == {"png", "pdf", "data"}
    from papertwin import files

    for entry in figure["files"].values():
        assert files.sha256(toy.folder / entry["path"]) == entry["sha256"]
    assert results["provenance"]["data"]["street"]
    assert results["provenance"]["packages"]["numpy"]
    assert (toy.folder / "table1.csv").read_text() == ",a\nrow,0.333333333\n"


def test_a_promised_figure_that_was_not_saved_is_an_error(toy):
    with pytest.raises(LedgerError, match="fig1, table1"):
        toy.claims({"C1": Measured(2.0), "C2": Measured(True)})
    assert not (toy.folder / "results.json").exists()


def test_a_figure_that_the_ledger_does_not_list_is_an_error(toy):
    with pytest.raises(LedgerError, match=r"'fig7'.*lists fig1, table1"):
        toy.save(plt.figure(), "fig7")


def test_the_table_shows_published_and_measured_side_by_side(toy):
    draw(toy)
    table = toy.claims({"C1": Measured(0.5), "C2": Measured(True)}).table
    assert table.loc["C1", "verdict"] == "NOT REPRODUCED"
    assert table.loc["C1", "measured"] == "0.5"
    assert table.loc["C2", "measured"] == "yes"
    assert list(table.columns[:4]) == ["statement", "source", "published", "measured"]
