"""What is kept of trained networks: used again only where nothing has changed, and never when damaged."""

import warnings

import numpy as np
import pytest
import torch

from papertwin import imports
from papertwin.papers.lth_rebasin_store import fingerprint, kept

MODULES = ("papertwin.sparse.tickets",)
INPUTS = {"seed": 1, "rates": [0.1, 0.01]}
IMAGES = np.arange(12, dtype=np.float32).reshape(3, 4)


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"states": {0: {"w": torch.arange(3.0) + self.calls}}, "rounds": [(0.5, {"m": torch.tensor([True])})]}


def mark(inputs=INPUTS, arrays=(IMAGES,), modules=MODULES):
    return fingerprint(inputs, arrays, modules)


def test_the_second_time_it_is_read(tmp_path):
    make, path = Maker(), tmp_path / "a" / "net.pt"
    first, second = kept(path, mark(), make), kept(path, mark(), make)
    assert make.calls == 1
    assert torch.equal(first["states"][0]["w"], second["states"][0]["w"])
    assert second["rounds"][0][0] == 0.5
    assert second["rounds"][0][1]["m"].tolist() == [True]
    assert [each.name for each in path.parent.iterdir()] == ["net.pt"]


def test_without_a_path_nothing_is_kept():
    make = Maker()
    kept(None, "", make)
    assert kept(None, "", make)["states"][0]["w"].tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    "other",
    [
        {"inputs": INPUTS | {"seed": 2}},
        {"inputs": INPUTS | {"more": None}},
        {"arrays": (IMAGES + 1,)},
        {"arrays": (IMAGES.reshape(4, 3),)},
        {"arrays": (IMAGES.astype(np.float64),)},
        {"modules": ("papertwin.sparse.trials",)},
    ],
)
def test_what_another_making_has_kept_is_not_used(tmp_path, other):
    make, path = Maker(), tmp_path / "net.pt"
    kept(path, mark(), make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept(path, mark(**other), make)
    assert make.calls == 2
    kept(path, mark(**other), make)
    assert make.calls == 2


@pytest.mark.parametrize("changed", ["papertwin.sparse.tickets", "papertwin.training.loop"])
def test_changed_code_is_another_making_also_where_it_is_only_imported(tmp_path, monkeypatch, changed):
    before, files = mark(), dict(imports.modules())
    edited = tmp_path / "edited.py"
    edited.write_bytes(files[changed].read_bytes() + b"# changed\n")
    monkeypatch.setattr(imports, "modules", lambda: files | {changed: edited})
    imports.digest.cache_clear()
    try:
        assert mark() != before
    finally:
        monkeypatch.undo()
        imports.digest.cache_clear()
    assert mark() == before


@pytest.mark.parametrize("damage", ["empty", "nonsense", "cut", "form", "code"])
def test_a_damaged_file_is_made_anew_with_a_warning(tmp_path, damage):
    make, path = Maker(), tmp_path / "net.pt"
    kept(path, mark(), make)
    whole = path.read_bytes()
    if damage == "form":
        torch.save({"content": 1}, path)
    elif damage == "code":
        torch.save({"fingerprint": mark(), "content": print}, path)
    else:
        path.write_bytes({"empty": b"", "nonsense": b"nonsense", "cut": whole[:-200]}[damage])
    with pytest.warns(UserWarning, match=r"net.pt cannot be used and is made anew"):
        kept(path, mark(), make)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept(path, mark(), make)
    assert make.calls == 2


def test_an_interrupted_making_leaves_nothing(tmp_path):
    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "net.pt", mark(), fails)
    assert list(tmp_path.iterdir()) == []
