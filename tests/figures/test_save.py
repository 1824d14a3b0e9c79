"""A saved figure carries its arrays and its provenance, and is the same bytes every time."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from papertwin.errors import RunError
from papertwin.figures import read_provenance, save_figure


def drawing():
    figure, (left, right) = plt.subplots(1, 2)
    left.plot([0, 1, 2], [1.0, 4.0, np.nan], label="squares")
    left.scatter([1, 2], [3, 4], c=[0.1, 0.9])
    left.set_title("left", loc="left")
    right.imshow(np.arange(6).reshape(2, 3))
    right.quiver([0, 1], [0, 1], [1, 0], [0, 1])
    right.bar([0, 1], [5, 6])
    right.fill_between([0, 1], [0, 0], [1, 2])
    right.vlines([0.5], 0, 1)
    right.pcolormesh(np.ones((2, 2)))
    return figure


def test_saving_twice_gives_the_same_bytes(tmp_path):
    written = [save_figure(drawing(), tmp_path / str(k), "fig1", {"paper": "toy"}) for k in range(2)]
    for kind in ("png", "pdf", "data"):
        assert written[0][kind].read_bytes() == written[1][kind].read_bytes()


def test_provenance_comes_back_from_the_png(tmp_path):
    provenance = {"paper": "toy", "parameters": {"τ": 0.25, "scenes": ["a"]}}
    written = save_figure(drawing(), tmp_path, "fig1", provenance)
    assert read_provenance(written["png"]) == provenance
    assert json.loads(written["data"].read_text())["figure"] == "fig1"


def test_a_failed_save_keeps_the_last_good_file(tmp_path, monkeypatch):
    save_figure(drawing(), tmp_path, "fig1", {})
    before = (tmp_path / "fig1.png").read_bytes()
    figure = drawing()
    monkeypatch.setattr(figure, "savefig", lambda path, **_: (path.write_bytes(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        save_figure(figure, tmp_path, "fig1", {})
    assert (tmp_path / "fig1.png").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fig1.json", "fig1.pdf", "fig1.png"]


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(RunError, match="PAPERTWIN_FIGURES"):
        save_figure(drawing(), blocked / "out", "fig1", {})
