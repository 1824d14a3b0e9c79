"""Every notebook has the same bones; a stripped, padded or careless one is caught here."""

import ast
import copy
import dataclasses
import importlib
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from papertwin import ledger, paths
from papertwin.canonical import canonicalise
from papertwin.parameters import read_parameters

NOTEBOOKS = sorted((paths.root() / "notebooks").glob("*.ipynb"))


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def anatomy_problems(notebook, book: ledger.Ledger) -> list[str]:
    """Say everything that is wrong with a notebook's build."""
    checks = (form_problems, order_problems, cell_problems, execution_problems)
    return [problem for check in checks for problem in check(notebook, book)]


def form_problems(notebook, book) -> list[str]:
    found = []
    if len(notebook.cells) > 35:
        found.append(f"{len(notebook.cells)} cells, at most 35")
    if len(nbformat.writes(notebook)) > 1_500_000:
        found.append("larger than 1.5 MB")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3" or "language_info" not in notebook.metadata:
        found.append("metadata lack kernelspec python3 or language_info")
    if canonicalise(copy.deepcopy(notebook)) != notebook:
        found.append("not canonical: commit what `papertwin run SLUG --update` writes")
    joined = "\n".join(cell.source for cell in code_cells(notebook))
    for exhibit in book.exhibits:
        if exhibit.status == "regenerated" and f'"{exhibit.id}"' not in joined:
            found.append(f"ledger says {exhibit.id} is regenerated, no cell saves it")
    return found


def order_problems(notebook, book) -> list[str]:
    cells = notebook.cells
    kinds = [cell.cell_type for cell in cells[:4]]
    if kinds != ["markdown", "markdown", "code", "code"]:
        return [f"starts with {kinds}, want title, claims, parameters, start"]
    found = []
    if not cells[0].source.startswith("# ") or book.paper.title not in cells[0].source:
        found.append("the first cell is not the paper's title and citation")
    if any(claim.id not in cells[1].source for claim in book.claims):
        found.append("the second cell does not name every claim")
    if "parameters" not in tags(cells[2]):
        found.append("the third cell is not tagged parameters")
    if f'papertwin.start("{book.slug}", globals())' not in cells[3].source:
        found.append("the fourth cell does not start the run")
    last = [cell for cell in cells if "run.claims(" in cell.source]
    if len(last) != 1 or "nbval-ignore-output" not in tags(last[0]):
        found.append("want exactly one cell with run.claims(, tagged nbval-ignore-output")
    else:
        after = cells[cells.index(last[0]) + 1 :]
        shape = [cell.cell_type for cell in after]
        if shape != ["code", "markdown", "code"] or "nbval-check-output" not in tags(after[0]):
            found.append("after run.claims want: verdict lines (nbval-check-output), differences, provenance")
    return found


def cell_problems(notebook, book) -> list[str]:
    found = []
    for number, cell in enumerate(code_cells(notebook)):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if len(lines) > 15 and "parameters" not in tags(cell):
            found.append(f"code cell {number} has {len(lines)} lines, at most 15")
        if any(line.lstrip().startswith(("!", "%")) for line in lines) or "sys.path" in cell.source:
            found.append(f"code cell {number} uses a magic, a shell line or sys.path")
            continue
        if lines and lines[-1].rstrip().endswith(";"):
            found.append(f"code cell {number} ends in ';'")
        if re.search(r"""["'](/[a-z]+/|[A-Z]:\\)""", cell.source):
            found.append(f"code cell {number} holds an absolute path")
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 5:
                found.append(f"code cell {number} defines {node.name} in more than 5 lines")
    return found


def execution_problems(notebook, book) -> list[str]:
    found = []
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        found.append(f"execution counts are {counts}: run it from the top before committing")
    for number, cell in enumerate(code_cells(notebook)):
        if any(output.output_type == "error" for output in cell.outputs):
            found.append(f"code cell {number} holds an error")
    checked = [cell for cell in code_cells(notebook) if "nbval-check-output" in tags(cell)]
    if len(checked) < 2 or not all(cell.outputs for cell in checked):
        found.append("want at least two cells tagged nbval-check-output, each with an output to compare")
    return found


def read(path: Path):
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_anatomy(path):
    assert anatomy_problems(read(path), ledger.load(path.stem)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_parameters_cell_is_the_params_dataclass_and_the_quick_profile(path):
    book = ledger.load(path.stem)
    params_type = importlib.import_module(f"papertwin.papers.{path.stem}").Params
    cell = {p.name: p for p in read_parameters(path)}
    fields = {field.name: field for field in dataclasses.fields(params_type)}
    assert list(cell) == list(fields)
    defaults = dataclasses.asdict(params_type())
    assert {name: p.default for name, p in cell.items()} == defaults
    assert {name: p.annotation for name, p in cell.items()} == {
        name: _annotation(field.type) for name, field in fields.items()
    }
    common = {"profile": "quick", "device": "auto", "seed": 0}
    assert book.parameters("quick") | common == defaults
    assert all(p.help for p in cell.values()), "each parameter line ends with a comment that explains it"


def _annotation(kind) -> str:
    text = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    if not isinstance(kind, str | type) or "[" in str(kind):
        text = str(kind)
    return text.replace("typing.", "").replace("'", '"')


def _strip(notebook):
    for cell in code_cells(notebook):
        cell.execution_count, cell.outputs = None, []


def _timing(notebook):
    notebook.cells[3].metadata["execution"] = {"iopub.execute_input": "2026-01-01"}


def _long_cell(notebook):
    notebook.cells[3].source += "\n" + "\n".join(f"a{i} = {i}" for i in range(15))


def _long_function(notebook):
    body = "\n".join(f"    a{i} = {i}" for i in range(6))
    notebook.cells[3].source += f"\ndef long():\n{body}"


def _magic(notebook):
    notebook.cells[3].source += "\n%matplotlib inline"


def _path(notebook):
    notebook.cells[3].source += '\np = "/home/me"'


def _untag(notebook):
    for cell in code_cells(notebook):
        cell.metadata["tags"] = [tag for tag in tags(cell) if tag != "nbval-check-output"]


def _swap(notebook):
    notebook.cells[1], notebook.cells[2] = notebook.cells[2], notebook.cells[1]


def _no_figure(notebook):
    for cell in code_cells(notebook):
        cell.source = re.sub(r'"fig\d+[a-z]?"', '"nothing"', cell.source)


def _error(notebook):
    notebook.cells[3].outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]


MUTATIONS = (_strip, _timing, _long_cell, _long_function, _magic, _path, _untag, _swap, _no_figure, _error)


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__.strip("_"))
def test_the_anatomy_test_has_teeth(mutate: Callable):
    path = NOTEBOOKS[0]
    notebook = read(path)
    mutate(notebook)
    assert anatomy_problems(notebook, ledger.load(path.stem)) != []


def test_every_ledger_has_a_notebook_and_every_notebook_a_ledger():
    assert [path.stem for path in NOTEBOOKS] == ledger.slugs()
