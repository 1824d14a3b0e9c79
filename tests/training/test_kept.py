"""What is kept is used by the same code and settings, and by no others."""

import warnings

import pytest
import torch

from papertwin import imports
from papertwin.training.kept import fingerprint, kept

MODULE = "papertwin.sparse.tickets"
SETTINGS = {"seed": 1, "rates": [0.1, 0.02]}


class Maker:
    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return {"w": torch.arange(3.0) + self.times, "rounds": [(0.5, {"m": torch.tensor([True])})], "n": self.times}


def ask(folder, make, settings=SETTINGS, module=MODULE, name="net"):
    return kept(folder, name, settings, module, make)


def test_the_second_time_it_is_loaded(tmp_path):
    make = Maker()
    first, second = ask(tmp_path / "a", make), ask(tmp_path / "a", make)
    assert make.times == 1
    assert torch.equal(first["w"], second["w"])
    assert second["rounds"][0][1]["m"].tolist() == [True]
    assert [path.suffix for path in (tmp_path / "a").iterdir()] == [".pt"]


def test_without_a_folder_nothing_is_kept():
    make = Maker()
    assert (ask(None, make)["n"], ask(None, make)["n"]) == (1, 2)


@pytest.mark.parametrize(
    "other",
    [
        {"settings": SETTINGS | {"seed": 2}},
        {"settings": SETTINGS | {"rates": [0.02, 0.1]}},
        {"settings": SETTINGS | {"more": None}},
        {"module": "papertwin.sparse.trials"},
        {"name": "other"},
    ],
)
def test_other_settings_code_or_names_are_made_anew(tmp_path, other):
    make = Maker()
    ask(tmp_path, make)
    assert ask(tmp_path, make, **other)["n"] == 2
    assert ask(tmp_path, make)["n"] == 1


@pytest.mark.parametrize("changed", ["sparse/tickets.py", "training/loop.py"])
def test_changed_code_is_another_code_also_where_it_is_only_imported(tmp_path, monkeypatch, changed):
    make = Maker()
    ask(tmp_path, make)
    files = dict(imports.modules())
    module = next(name for name, path in files.items() if path.as_posix().endswith(changed))
    edited = tmp_path / "edited.py"
    edited.write_bytes(files[module].read_bytes() + b"# changed\n")
    monkeypatch.setattr(imports, "modules", lambda: files | {module: edited})
    imports.digest.cache_clear()
    try:
        assert ask(tmp_path, make)["n"] == 2
    finally:
        monkeypatch.undo()
        imports.digest.cache_clear()
    assert ask(tmp_path, make)["n"] == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_file_is_made_again_with_a_warning(tmp_path, content):
    make = Maker()
    ask(tmp_path, make)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.warns(UserWarning, match="is damaged and is made again"):
        assert ask(tmp_path, make)["n"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ask(tmp_path, make)["n"] == 2


def test_what_could_run_code_is_not_loaded(tmp_path):
    make = Maker()
    ask(tmp_path, make)
    (path,) = tmp_path.iterdir()
    torch.save({"w": print}, path)
    with pytest.warns(UserWarning, match="damaged"):
        assert ask(tmp_path, make)["n"] == 2


def test_an_interrupted_making_leaves_nothing(tmp_path):
    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, fails)
    assert list(tmp_path.iterdir()) == []


def test_fingerprints_do_not_depend_on_the_order_of_settings():
    assert fingerprint({"a": 1, "b": 2}, MODULE) == fingerprint({"b": 2, "a": 1}, MODULE)
