"""Imports point one way: cli → runner/report → run/ledger, papers → topics → training/data, drawing in one place."""

import subprocess
import sys

import pytest

from papertwin import imports, ledger

OUTER = {"cli", "runner", "jobs", "publish", "progress", "planning", "scaffold", "verify", "report", "execute", "bench"}
OUTER |= {"canonical", "fingerprint", "joined", "notebook_html", "side_by_side"}
INNER = {"errors", "paths", "files", "ledger", "claims", "run", "provenance"}
INNER |= {"cells", "checks", "imports", "lazy", "limits", "machine", "parameters", "results", "words"}
SUPPORT = {"training", "data", "compiled"}
HEAVY = {"torch", "open3d", "pandas", "matplotlib", "papermill", "numba", "scipy", "numpy", "nbformat", "nbconvert"}


def group(module):
    """First part below the package: cli, points, papers, …"""
    return module.split(".")[1] if "." in module else ""


def graph():
    """Module → the modules that it names in imports.

    A package above it counts only if it takes a name from it: `from papertwin.points import tree` names the module
    `tree`, and that Python loads the package first is no arrow.
    """
    edges = {}
    for module, path in imports.modules().items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        named = imports.imported_names(path.read_text(encoding="utf-8"), package)
        known = {name for name in named if name in imports.modules() and name != imports.ROOT} - {module}
        taken = {name.rpartition(".")[0] for name in named if name not in imports.modules()}
        edges[module] = {name for name in known if not module.startswith(f"{name}.") or name in taken}
    return edges


def topics():
    packages = {group(m) for m, path in imports.modules().items() if path.name == "__init__.py"} - {""}
    return packages - SUPPORT - OUTER - {"papers", "figures"}


def against_the_arrows(edges):
    """List the imports that point the wrong way."""
    forbidden = dict.fromkeys(INNER, OUTER)
    forbidden |= {topic: OUTER | {"papers", "figures", "run", "ledger", "claims"} for topic in topics()}
    forbidden |= {name: OUTER | topics() | {"papers", "figures", "run", "claims"} for name in SUPPORT}
    forbidden["papers"] = OUTER | {"run", "figures"}
    forbidden["figures"] = OUTER | {"papers", "run"}
    forbidden["report"] = (
        (OUTER - {"report", "publish", "joined", "notebook_html", "side_by_side"}) | {"papers"} | topics()
    )
    forbidden |= {name: {"cli"} for name in OUTER - {"cli", "report"}}
    return [
        f"{module} → {target}"
        for module, targets in edges.items()
        for target in sorted(targets)
        if group(target) in forbidden.get(group(module), ()) and group(target) != group(module)
    ]


def cycles(edges):
    """List modules that can be reached from themselves."""

    def reached(start):
        waiting, seen = set(edges[start]), set()
        while waiting:
            module = waiting.pop()
            seen.add(module)
            waiting |= edges[module] - seen
        return seen

    return sorted(module for module in edges if module in reached(module))


def ungrouped(modules):
    """List the modules that no rule above speaks of."""
    known = OUTER | INNER | SUPPORT | topics() | {"papers", "figures", ""}
    return sorted(module for module in modules if group(module) not in known)


def test_every_module_is_in_a_group():
    assert ungrouped(graph()) == []
    assert ungrouped({"papertwin.helpers", "papertwin.run"}) == ["papertwin.helpers"]


def test_imports_point_one_way():
    assert against_the_arrows(graph()) == []


def test_no_paper_imports_another():
    """A paper may have several modules, `slug.py` and `slug_part.py`; the first imports none of its parts."""
    edges = graph()
    papers = {m for m in edges if m.startswith("papertwin.papers.")}
    owners = {m: next(s for s in ledger.slugs() if f"{m.rpartition('.')[2]}_".startswith(f"{s}_")) for m in papers}
    found = [(m, other) for m in papers for other in edges[m] & papers]
    assert [pair for pair in found if owners[pair[0]] != owners[pair[1]]] == []
    assert [pair for pair in found if pair[0].endswith(f".{owners[pair[0]]}")] == []


def test_no_module_imports_itself_in_a_circle():
    assert cycles(graph()) == []


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("papertwin.run", "papertwin.runner"),
        ("papertwin.points", "papertwin.papers.don"),
        ("papertwin.training", "papertwin.points"),
        ("papertwin.papers.don", "papertwin.figures.save"),
        ("papertwin.report", "papertwin.runner"),
        ("papertwin.runner", "papertwin.cli"),
    ],
)
def test_a_wrong_arrow_would_be_seen(module, target):
    assert against_the_arrows({module: {target}}) == [f"{module} → {target}"]


def test_a_circle_would_be_seen():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_only_figures_import_matplotlib():
    found = []
    for module, path in imports.modules().items():
        names = imports.imported_names(path.read_text(encoding="utf-8"), "")
        if any(name.split(".")[0] == "matplotlib" for name in names) and group(module) != "figures":
            found.append(module)
    assert found == []


def loaded_by(statement):
    code = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_command_line_loads_nothing_heavy():
    loaded = loaded_by("import papertwin.cli")
    assert "typer" in loaded
    assert not loaded & (HEAVY | {"pydantic", "PIL"})


@pytest.mark.parametrize("module", ["execute", "runner", "jobs", "progress", "fingerprint", "report", "scaffold"])
def test_nothing_heavy_is_loaded_before_a_notebook_runs(module):
    assert not loaded_by(f"import papertwin.{module}") & HEAVY
