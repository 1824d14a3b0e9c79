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


def numbered(notebook) -> list:
    """Code cells with their number, counted over all cells from 1, as the runner counts them."""
    return [(number, cell) for number, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def calls(cell, name: str) -> int:
    """How often a code cell calls a method of `run`; comments and texts do not count."""
    if cell.cell_type != "code":
        return 0
    try:
        nodes = list(ast.walk(ast.parse(cell.source)))
    except SyntaxError:
        return 0
    return sum(isinstance(node, ast.Call) and ast.unparse(node.func) == f"run.{name}" for node in nodes)


def anatomy_problems(notebook, book: ledger.Ledger) -> list[str]:
    """Say everything that is wrong with a notebook's build."""
    checks = (form_problems, order_problems, prose_problems, cell_problems, execution_problems)
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
    last = [index for index, cell in enumerate(cells) if calls(cell, "claims")]
    if len(last) != 1 or "nbval-ignore-output" not in tags(cells[last[0]]):
        found.append("want exactly one cell with run.claims(, tagged nbval-ignore-output")
    else:
        after = cells[last[0] + 1 :]
        shape = [cell.cell_type for cell in after]
        if shape != ["code", "markdown", "code"] or "nbval-check-output" not in tags(after[0]):
            found.append("after run.claims want: verdict lines (nbval-check-output), differences, provenance")
    if not calls(cells[-1], "provenance"):
        found.append(f"cell {len(cells)}, the last, does not call run.provenance()")
    return found


def prose_problems(notebook, book) -> list[str]:
    """Each exhibit is introduced in words, and the method's equation stands before its toy."""
    found = []
    for number, cell in numbered(notebook):
        if calls(cell, "save") > 1:
            found.append(f"cell {number} saves {calls(cell, 'save')} figures, at most one")
        if (calls(cell, "save") or calls(cell, "table")) and not is_prose(notebook.cells[number - 2]):
            found.append(f"cell {number} saves a figure or table, but no markdown cell stands directly before it")
    checked = [number for number, cell in numbered(notebook) if "nbval-check-output" in tags(cell)]
    toy = checked[min(1, len(checked) - 1)] if checked else len(notebook.cells)  # the data may be checked before it
    found += link_problems(notebook, book)
    if not any(is_prose(cell) and cell.source.count("$$") >= 2 for cell in notebook.cells[: toy - 1]):
        found.append(f"no equation ($$ … $$) in the markdown before cell {toy}, the method's checked example")
    return found


def link_problems(notebook, book) -> list[str]:
    """The paper and the ledger are a click away, and no link leads to a file that is not there."""
    found = []
    links = [re.findall(r"\]\(([^()\s]+)\)", cell.source) for cell in notebook.cells if is_prose(cell)]
    if book.paper.arxiv and f"https://arxiv.org/abs/{book.paper.arxiv}" not in links[0]:
        found.append(f"the first cell does not link to arXiv {book.paper.arxiv}")
    if f"../lib/papertwin/papers/{book.slug}.toml" not in links[0] + links[1]:
        found.append("the first two cells do not link to the ledger, ../lib/papertwin/papers/")
    for target in (link for each in links for link in each if "://" not in link and not link.startswith("#")):
        if not (paths.root() / "notebooks" / target.partition("#")[0]).is_file():
            found.append(f"a link leads to {target}, which is no file")
    return found


def is_prose(cell) -> bool:
    return cell.cell_type == "markdown" and bool(cell.source.strip())


def cell_problems(notebook, book) -> list[str]:
    found = []
    for number, cell in numbered(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if len(lines) > 15 and "parameters" not in tags(cell):
            found.append(f"cell {number} has {len(lines)} lines, at most 15")
        if any(line.lstrip().startswith(("!", "%")) for line in lines) or "sys.path" in cell.source:
            found.append(f"cell {number} uses a magic, a shell line or sys.path")
            continue
        if lines and lines[-1].rstrip().endswith(";"):
            found.append(f"cell {number} ends in ';'")
        if re.search(r"""["'](/[a-z]+/|[A-Z]:\\)""", cell.source):
            found.append(f"cell {number} holds an absolute path")
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 5:
                found.append(f"cell {number} defines {node.name} in more than 5 lines")
    return found


def execution_problems(notebook, book) -> list[str]:
    found = []
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        found.append(f"execution counts are {counts}: run it from the top before committing")
    for number, cell in numbered(notebook):
        if any(output.output_type == "error" for output in cell.outputs):
            found.append(f"cell {number} holds an error")
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


def _no_words(notebook):
    """Only title, claims and the last words stay: what a notebook without any explanation looks like."""
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    notebook.cells = [cell for cell in notebook.cells if cell not in prose[2:-1]]


def _first_exhibit(notebook) -> int:
    return next(index for index, cell in enumerate(notebook.cells) if calls(cell, "save"))


def _no_caption(notebook):
    del notebook.cells[_first_exhibit(notebook) - 1]


def _empty_caption(notebook):
    notebook.cells[_first_exhibit(notebook) - 1].source = " "


def _table_without_words(notebook):
    index = _first_exhibit(notebook)
    notebook.cells.insert(index + 1, nbformat.v4.new_code_cell("run.table(frame, 'table9')", id="more"))


def _two_figures(notebook):
    cell = notebook.cells[_first_exhibit(notebook)]
    cell.source = "\n".join(["run.save(figure, 'fig1')", *cell.source.splitlines()[-1:]])


def _no_equation(notebook):
    for cell in notebook.cells:
        cell.source = cell.source.replace("$$", "") if cell.cell_type == "markdown" else cell.source


def _late_equation(notebook):
    """The equation comes after the toy that it should explain."""
    _no_equation(notebook)
    notebook.cells[_first_exhibit(notebook) - 1].source += "\n\n$$a = b$$"


def _no_provenance(notebook):
    notebook.cells[-1].source = "# run.provenance()"


def _words_after_the_end(notebook):
    notebook.cells.append(nbformat.v4.new_markdown_cell("One more thing.", id="end"))


def _no_ledger(notebook):
    for cell in notebook.cells[:2]:
        cell.source = cell.source.replace(".toml)", ")")


def _no_arxiv(notebook):
    notebook.cells[0].source = notebook.cells[0].source.replace("arxiv.org", "example.org")


def _lost(notebook):
    notebook.cells[-2].source += "\n\nSee [another](nothing.ipynb)."


MUTATIONS = {
    _no_ledger: "do not link to the ledger",
    _no_arxiv: "does not link to arXiv",
    _lost: "leads to nothing.ipynb, which is no file",
    _strip: "execution counts are",
    _timing: "not canonical",
    _long_cell: "cell 4 has .* lines",
    _long_function: "cell 4 defines long",
    _magic: "cell 4 uses a magic",
    _path: "cell 4 holds an absolute path",
    _untag: "want at least two cells tagged nbval-check-output",
    _swap: "want title, claims, parameters, start",
    _no_figure: "is regenerated, no cell saves it",
    _error: "cell 4 holds an error",
    _no_words: "no markdown cell stands directly before",
    _no_caption: "no markdown cell stands directly before",
    _empty_caption: "no markdown cell stands directly before",
    _table_without_words: "no markdown cell stands directly before",
    _two_figures: "saves 2 figures",
    _no_equation: "no equation",
    _late_equation: "no equation",
    _no_provenance: "does not call run.provenance",
    _words_after_the_end: "does not call run.provenance",
}


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__.strip("_"))
def test_the_anatomy_test_has_teeth(mutate: Callable):
    path = NOTEBOOKS[0]
    whole, notebook, book = read(path), read(path), ledger.load(path.stem)
    mutate(notebook)
    new = set(anatomy_problems(notebook, book)) - set(anatomy_problems(whole, book))
    assert any(re.search(MUTATIONS[mutate], problem) for problem in new), new


def test_every_ledger_has_a_notebook_and_every_notebook_a_ledger():
    assert [path.stem for path in NOTEBOOKS] == ledger.slugs()
