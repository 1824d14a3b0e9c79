"""What a notebook holds: parameters resolved, outputs written, verdicts judged."""

import dataclasses
import json
from dataclasses import asdict

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from papertwin import files, ledger, results, run
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
        ({"r_small": "0.4"}, "r_small got '0.4'"),
        ({"orientation": "sideways"}, "orientation"),
        ({"scenes": "junction"}, "scenes"),
        ({"tiles": 2.5}, "tiles"),
        ({"r_small": float("nan")}, "r_small got nan"),
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


@pytest.fixture
def toy(toy_run, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERTWIN_FIGURES", str(tmp_path))
    return toy_run()


def draw(toy):
    figure, axes = plt.subplots()
    axes.plot([0, 1], [2, 3])
    toy.save(figure, "fig1")
    toy.table(pd.DataFrame({"a": [1 / 3]}, index=["row"]), "table1")


def test_results_hold_figures_tables_claims_and_origin(toy):
    draw(toy)
    claims = toy.claims({"C1": Measured(2.0, (1.5, 2.5), "note"), "C2": Measured(False)})
    assert claims.verdicts.splitlines()[0] == "C1   REPRODUCED"
    found = json.loads((toy.folder / results.FILE).read_text())
    assert found["schema"] == results.SCHEMA
    assert found["claims"][0]["interval"] == [1.5, 2.5]
    assert found["claims"][0]["shown"] == "2 [1.5, 2.5]"
    assert (found["title"], found["profile"], found["parameters"]["rate"]) == ("Toys & <Games>", "quick", 0.1)
    (figure,) = found["figures"]
    assert set(figure["files"]) == {"png", "pdf", "data"}
    for entry in figure["files"].values():
        assert files.sha256(toy.folder / entry["path"]) == entry["sha256"]
    assert found["provenance"]["data"]["street"]
    assert found["provenance"]["packages"]["numpy"]
    assert list(found["provenance"]["processor"]) == ["model", "architecture", "instructions"]
    assert all(found["provenance"]["processor"].values())
    assert (toy.folder / "table1.csv").read_text() == ",a\nrow,0.333333333\n"


def test_a_stamped_exhibit_says_so_on_the_figure(toy):
    stamped = toy.ledger.figures[0].model_copy(update={"stamp": "simulated data"})
    book = toy.ledger.model_copy(update={"figures": [stamped]})
    figure, _ = plt.subplots()
    run.Run(book, toy.params, {}, "cpu").save(figure, "fig1")
    assert figure.get_supxlabel() == "simulated data"


@dataclasses.dataclass
class Params:
    images: str
    whole: bool = False


@pytest.mark.parametrize(
    ("params", "stamp", "instead", "full", "text"),
    [
        (Params("pears"), "net on {params.images}", "apples", "whole", "net on pears in place of apples"),
        (Params("pears", True), "{params.images}", "apples", "whole", "pears in place of apples"),
        (Params("pear", True), "{params.images}", "pears", "whole", "pear in place of pears"),
        (Params("apples"), "{params.images}", "apples", "whole", "apples, smaller or trained for less than there"),
        (Params("apples", True), "{params.images}", "apples", "whole", ""),
        (Params("apples", True), "{params.images}", "apples", "", "apples, smaller or trained for less than there"),
        (Params("apples", True), "apples", "{params.images}", "whole", ""),
        (Params("apples"), "{params.images}", "", "", "apples"),
        (Params("apples"), "", "", "", ""),
        (None, "simulated", "", "", "simulated"),
    ],
)
def test_a_stamp_is_filled_in_from_the_parameters(toy, params, stamp, instead, full, text):
    exhibit = toy.ledger.figures[0].model_copy(update={"stamp": stamp, "instead": instead, "full": full})
    assert exhibit.stamped(params) == text


@pytest.mark.parametrize("stamp", ["on {params.pears}", "on {images}", "on {0}", "on {params.images"])
def test_a_stamp_that_names_no_parameter_is_an_error(toy, stamp):
    exhibit = toy.ledger.figures[0].model_copy(update={"stamp": stamp})
    with pytest.raises(LedgerError, match=r"stamp of fig1.*cannot be filled in.*Write \{params\.name\}"):
        exhibit.stamped(Params("apples"))


def test_what_is_not_the_papers_own_says_so_in_the_results_too(toy):
    figure, table = (
        exhibit.model_copy(update={"stamp": "pears", "instead": "apples"})
        for exhibit in (toy.ledger.figures[0], toy.ledger.tables[0])
    )
    book = toy.ledger.model_copy(update={"figures": [figure], "tables": [table]})
    each = run.Run(book, toy.params, {}, "cpu")
    each.save(plt.figure(), "fig1")
    each.table(pd.DataFrame({"a": [1]}), "table1")
    assert {saved.stamp for saved in each._saved.values()} == {"pears in place of apples"}
    each.save(plt.figure(), "fig1", stamp="")
    assert each._saved["fig1"].stamp == ""


def test_a_promised_figure_that_was_not_saved_is_an_error(toy):
    with pytest.raises(LedgerError, match="fig1, table1"):
        toy.claims({"C1": Measured(2.0), "C2": Measured(True)})
    assert not (toy.folder / results.FILE).exists()


def test_a_figure_that_the_ledger_does_not_list_is_an_error(toy):
    with pytest.raises(LedgerError, match=r"'fig7'.*lists fig1, fig2, table1"):
        toy.save(plt.figure(), "fig7")


def test_an_optional_data_set_may_be_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    data = begin(profile="full").provenance()["provenance"]["data"]
    assert data["kitti"] == "absent"
    assert data["street"]
    (tmp_path / "kitti" / "velodyne").mkdir(parents=True)
    assert begin(profile="full").provenance()["provenance"]["data"]["kitti"] != "absent"


def test_a_whole_number_for_a_length_is_the_same_run():
    one, other = begin(r_small=1), begin(r_small=1.0)
    assert one.folder == other.folder
    assert type(one.params.r_small) is float
