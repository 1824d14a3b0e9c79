"""`papertwin new`: what it lays out runs at once, and it never overwrites anything."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from papertwin import ledger, parameters, paths, scaffold
from papertwin.errors import RunError


def test_four_files_that_fit_each_other(tmp_path):
    toml, module, notebook, test = scaffold.create("nn-robustness", tmp_path)
    book = ledger.parse(toml.read_text(), toml.name)
    assert book.slug == "nn_robustness"
    assert set(book.profiles) == set(ledger.PROFILES)
    known = parameters.read_parameters(notebook)
    for profile in book.profiles:
        assert parameters.resolve(book, profile, {}, known).values["profile"] == profile
    for source in (module, test):
        ast.parse(source.read_text())
    nbformat.validate(nbformat.read(notebook, as_version=4))
    assert all(path.stem.removeprefix("test_") == "nn_robustness" for path in (toml, module, notebook, test))
    assert not any("@slug@" in path.read_text() for path in (toml, module, notebook, test))


def test_the_cells_are_the_template_s(tmp_path):
    cells = scaffold.notebook_from_text("%% markdown\n# A\n\nb\n%% code one two\nx = 1\n").cells
    assert [(cell.cell_type, cell.source) for cell in cells] == [("markdown", "# A\n\nb"), ("code", "x = 1")]
    assert cells[1].metadata.tags == ["one", "two"]


@pytest.mark.parametrize("slug", ["", "2fast", "Don", "a b", "../a", "class", "été", "a.b", "_a", "a\n"])
def test_a_slug_that_cannot_name_a_module_is_refused(tmp_path, slug):
    with pytest.raises(RunError, match="cannot name a paper"):
        scaffold.create(slug, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("which", ["ledger.toml", "module.py", "notebook.txt", "test.py"])
def test_nothing_is_overwritten_and_nothing_half_done(tmp_path, which):
    places = scaffold.targets("toy", tmp_path)
    places[which].parent.mkdir(parents=True)
    places[which].write_text("mine")
    with pytest.raises(RunError, match="Nothing was written"):
        scaffold.create("toy", tmp_path)
    assert [path for path in places.values() if path.exists()] == [places[which]]
    assert places[which].read_text() == "mine"


@pytest.fixture
def checkout(tmp_path):
    """A copy of the package in a checkout of its own, and a way to call its command line."""
    shutil.copytree(paths.PACKAGE, tmp_path / "lib" / "papertwin", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("data", "notebooks"):
        (tmp_path / folder).mkdir()
    shutil.copy(paths.root() / "pyproject.toml", tmp_path)
    shutil.copy(paths.root() / paths.MARKER, tmp_path / "data")

    def call(*arguments, code=0):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib"), "COLUMNS": "200"}
        environment.pop("PAPERTWIN_FIGURES", None)
        command = [sys.executable, "-m", "papertwin.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return tmp_path, call


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.notebook
def test_a_new_paper_runs_stores_itself_is_skipped_and_verifies(checkout):
    root, papertwin = checkout
    papertwin("new", "toy-paper")
    assert "stored" in papertwin("run", "toy-paper", "--update")
    stored = nbformat.read(root / "notebooks" / "toy_paper.ipynb", as_version=4)
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert results(root / "figures" / "toy_paper")["parameters"]["draws"] == 1000
    assert "up to date" in papertwin("run", "toy_paper")
    module = root / "lib" / "papertwin" / "papers" / "toy_paper.py"
    module.write_text(module.read_text() + "\nUNUSED = 1\n")
    assert "done in" in papertwin("run", "toy_paper")
    assert "agree" in papertwin("verify", "figures/toy_paper/fig1.png")
    assert "done in" in papertwin("run", "toy_paper", "-p", "draws=50")
    (trial,) = (root / "figures").glob("toy_paper@quick-*")
    assert results(trial)["overrides"] == {"draws": 50}
    assert results(root / "figures" / "toy_paper")["overrides"] == {}
