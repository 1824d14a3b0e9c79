"""Whole notebooks: nbval agrees with the stored outputs, two runs agree with each other, and nbval has teeth."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from papertwin import ledger, paths
from papertwin.canonical import canonicalise
from papertwin.verify import compare

SLUGS = ledger.slugs()
NBVAL = ["--nbval-lax", "--nbval-current-env", "-p", "no:dash", "-p", "no:cacheprovider", "--nbval-cell-timeout=600"]
pytestmark = pytest.mark.timeout(1800)


@dataclass(frozen=True)
class Executed:
    """One nbval run of a notebook: exit code, what it printed, and the outputs it wrote."""

    code: int
    text: str
    folder: Path


def nbval(notebook: Path, figures: Path, **environment: str) -> Executed:
    command = [sys.executable, "-m", "pytest", *NBVAL, "--rootdir", str(notebook.parent), str(notebook)]
    surroundings = os.environ | {"PAPERTWIN_FIGURES": str(figures)} | environment
    done = subprocess.run(command, env=surroundings, cwd=figures, capture_output=True, text=True, check=False)
    return Executed(done.returncode, done.stdout + done.stderr, figures / notebook.stem)


@pytest.fixture(scope="session", params=SLUGS)
def executed(request, tmp_path_factory) -> Executed:
    return nbval(paths.notebook(request.param), tmp_path_factory.mktemp("nbval"))


@pytest.mark.notebook
def test_nbval_agrees_with_the_stored_outputs(executed):
    assert executed.code == 0, executed.text[-5000:]
    assert "no tests ran" not in executed.text


@pytest.mark.notebook
def test_one_thread_and_plain_papermill_give_the_same_arrays_and_verdicts(executed, tmp_path):
    slug = executed.folder.name
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "papermill", str(paths.notebook(slug)), str(tmp_path / "out.ipynb")]
    surroundings = os.environ | {"PAPERTWIN_FIGURES": str(tmp_path)} | threads
    done = subprocess.run(command, env=surroundings, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    book = ledger.load(slug)
    for figure in book.figures:
        if figure.status == "regenerated" and not figure.timing:
            one, two = (json.loads((f / f"{figure.id}.json").read_text()) for f in (executed.folder, tmp_path / slug))
            result = compare(figure.id, one["axes"], two["axes"])
            assert result.agrees, str(result)
            assert result.numbers > 10
    for table in book.tables:
        if table.status == "regenerated" and not table.timing:
            one, two = (f / f"{table.id}.csv" for f in (executed.folder, tmp_path / slug))
            assert one.read_text() == two.read_text()
    stable = {claim.id for claim in book.claims if claim.stable}
    one, two = (json.loads((f / "results.json").read_text())["claims"] for f in (executed.folder, tmp_path / slug))
    assert [c for c in map(judged, one) if c[0] in stable] == [c for c in map(judged, two) if c[0] in stable]


def judged(claim: dict) -> tuple:
    return claim["id"], claim["verdict"], claim["shown"]


TOY = """
from papertwin import ledger
from papertwin.claims import Measured, judge
from papertwin.run import Claims

book = ledger.load("{slug}")
found = {{claim.id: Measured(None, note="a toy") for claim in book.claims}}
print(Claims(judge(book, "quick", found)).verdicts)
"""


def toy_notebook(folder: Path) -> Path:
    """A notebook whose one cell prints real verdict lines, executed and stored like ours."""
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell(TOY.format(slug=SLUGS[0]).strip())
    cell.metadata["tags"] = ["nbval-check-output"]
    notebook.cells = [cell]
    NotebookClient(notebook, kernel_name="python3").execute()
    path = folder / "toy.ipynb"
    nbformat.write(canonicalise(notebook), path)
    return path


def test_nbval_has_teeth(tmp_path):
    path = toy_notebook(tmp_path)
    assert nbval(path, tmp_path).code == 0
    text = path.read_text()
    assert "NOT JUDGED" in text
    path.write_text(text.replace("NOT JUDGED", "REPRODUCED", 1))
    edited = nbval(path, tmp_path)
    assert edited.code != 0
    assert "mismatch" in edited.text.lower()
