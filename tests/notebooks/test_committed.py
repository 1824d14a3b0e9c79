"""What is committed under figures/ is one plain quick run of the committed notebook, ledger and data.

After a change of any of them: `papertwin run SLUG --update`, then commit the notebook and figures/SLUG together.
"""

import importlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image, PngImagePlugin

from papertwin import files, joined, ledger, paths, side_by_side
from papertwin.claims import OPEN, Measured, Verdict, apply_rule, describe
from papertwin.data import registry
from papertwin.figures import read_provenance
from papertwin.parameters import typed

SLUGS = ledger.slugs()
IDENTITY = ("paper", "profile", "parameters", "overrides", "device", "provenance")  # of a run, in each of its figures


def committed_problems(root: Path, book: ledger.Ledger) -> list[str]:
    """Say everything in which the committed outputs of a paper disagree with the rest of the repository."""
    folder = root / "figures" / book.slug
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [f"figures/{book.slug}/results.json cannot be read: {error}"]
    found = run_problems(results, book) + ledger_problems(results, book) + verdict_problems(results, book)
    found += file_problems(folder, results) + notebook_problems(root / "notebooks" / f"{book.slug}.ipynb", results)
    if f"notebooks/{book.slug}.ipynb" not in (root / "README.md").read_text(encoding="utf-8"):
        found.append(f"README.md does not name notebooks/{book.slug}.ipynb")
    return found


def run_problems(results: dict, book: ledger.Ledger) -> list[str]:
    """Not the plain quick run, or of other parameters or data than those of today."""
    found = []
    if (results["paper"], results["profile"], results["overrides"]) != (book.slug, "quick", {}):
        found.append(f"made by {results['paper']}, profile {results['profile']}, overrides {results['overrides']}")
    for name, value in book.parameters("quick").items():
        if results["parameters"].get(name) != value:
            found.append(f"made with {name} = {results['parameters'].get(name)!r}, the ledger says {value!r}")
    if results["provenance"]["data"] != {name: registry.sha256s(name) for name in book.profiles["quick"].data}:
        found.append("made from other data than the vendored ones")
    return found


def ledger_problems(results: dict, book: ledger.Ledger) -> list[str]:
    """An exhibit or a claim that is missing, too many, or worded otherwise than in the ledger."""
    params = typed(book.slug, importlib.import_module(f"papertwin.papers.{book.slug}").Params, {})
    exhibits = {e.id: (e.caption, e.source, e.stamped(params)) for e in book.exhibits if e.status == "regenerated"}
    saved = {e["id"]: (e["caption"], e["source"], e["stamp"]) for e in (*results["figures"], *results["tables"])}
    claims = {c.id: (c.statement, c.source, c.published, c.rule.text, c.stable) for c in book.claims}
    fields = ("statement", "source", "published", "rule", "stable")
    judged = {c["id"]: tuple(c[field] for field in fields) for c in results["claims"]}
    return differences("figures and tables", exhibits, saved) + differences("claims", claims, judged)


def differences(what: str, wanted: dict[str, Any], got: dict[str, Any], place: str = "the ledger") -> list[str]:
    found = [f"{what}: {name} is missing" for name in sorted(wanted.keys() - got.keys())]
    found += [f"{what}: {name} is unknown to {place}" for name in sorted(got.keys() - wanted.keys())]
    both = sorted(wanted.keys() & got.keys())
    return found + [f"{what}: {n} is {got[n]}, {place} says {wanted[n]}" for n in both if wanted[n] != got[n]]


def verdict_problems(results: dict, book: ledger.Ledger) -> list[str]:
    """A verdict or a value in words that is not what the ledger's rule gives for the measured value beside it."""
    stated = {claim["id"]: claim for claim in results["claims"]}
    found = []
    for claim in book.claims:
        entry = stated.get(claim.id)
        if entry is None:
            continue
        measured = Measured(entry["measured"], entry["interval"], entry["note"])
        if entry["shown"] != (shown := describe(measured, claim.rule.unit)):
            found.append(f"{claim.id}: shown is {entry['shown']}, expected {shown}")
        verdict = str(apply_rule(claim.rule, measured) if claim.needs == "quick" else Verdict.NOT_JUDGED)
        if entry["verdict"] != verdict:
            found.append(f"{claim.id}: the verdict is {entry['verdict']}, its rule gives {verdict}")
    return found


def file_problems(folder: Path, results: dict) -> list[str]:
    """A file that is absent, changed, of another run, or left over from an earlier one."""
    found, listed = [], set()
    for entry in (*results["figures"], *results["tables"]):
        for kind, file in entry["files"].items():
            path = folder / file["path"]
            listed.add(path)
            if not path.is_file():
                found.append(f"{file['path']} is missing")
            elif files.sha256(path) != file["sha256"]:
                found.append(f"{file['path']} is not the file that the results list")
            if path.is_file() and kind == "png":
                found += origin_problems(path, {"figure": entry["id"], **{name: results[name] for name in IDENTITY}})
    kept = {path for path in folder.iterdir() if re.match(r"(fig|table).*\.(png|pdf|json|csv)$", path.name)}
    return found + [f"{path.name} is left over: the results do not list it" for path in sorted(kept - listed)]


def origin_problems(png: Path, origin: dict) -> list[str]:
    try:
        inside = read_provenance(png)
    except (KeyError, OSError, ValueError) as error:
        return [f"{png.name} carries no provenance ({error!r})"]
    return [] if timeless(inside) == timeless(origin) else [f"{png.name} is from another run than results.json"]


def timeless(origin: dict) -> dict:
    """The provenance without commit and processor: a run that repeats a published figure keeps the file as it is."""
    passing = ("commit", "dirty", "processor")
    return origin | {"provenance": {n: value for n, value in origin["provenance"].items() if n not in passing}}


def notebook_problems(path: Path, results: dict) -> list[str]:
    """Verdict lines of the stored notebook that are not those of the results."""
    cells = nbformat.read(path, as_version=4).cells
    printed = "".join(
        output.get("text", "")
        for cell in cells
        if "claims.verdicts" in cell.source
        for output in cell.get("outputs", [])
    )
    lines = dict(re.findall(r"^(C\w+) +(.+)$", printed, re.MULTILINE))
    named = re.findall(rf"^{re.escape(OPEN)} (.+)$", printed, re.MULTILINE)
    judged = {claim["id"]: claim["verdict"] for claim in results["claims"] if claim["stable"]}
    unclear = [claim["id"] for claim in results["claims"] if not claim["stable"]]
    found = differences("verdict lines", judged, lines, "the results")
    if named != [", ".join(unclear)] * bool(unclear):
        found.append(f"the notebook leaves {named} to the table, the results {unclear}")
    return found


@pytest.mark.parametrize("slug", SLUGS)
def test_committed_results_are_one_run_of_what_is_committed(slug):
    assert committed_problems(paths.root(), ledger.load(slug)) == []


@pytest.fixture
def copy(tmp_path) -> Path:
    """The committed outputs of the first paper, free to be spoilt."""
    slug, root = SLUGS[0], paths.root()
    (tmp_path / "notebooks").mkdir()
    not_committed = shutil.ignore_patterns(".*", "*.html", "*.ipynb")
    shutil.copytree(root / "figures" / slug, tmp_path / "figures" / slug, ignore=not_committed)
    shutil.copy(root / "notebooks" / f"{slug}.ipynb", tmp_path / "notebooks")
    shutil.copy(root / "README.md", tmp_path)
    return tmp_path


def _results(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / "figures" / SLUGS[0] / "results.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return spoil


def _file(name: str, change: Callable[[Path], Any]) -> Callable[[Path], None]:
    return lambda root: change(root / name.format(slug=SLUGS[0]))


def _picture(**origin: Any) -> Callable[[Path], None]:
    """Draw the first figure anew: with another provenance, or with none."""

    def spoil(path: Path) -> None:
        chunks = PngImagePlugin.PngInfo()
        if origin:
            chunks.add_text("papertwin", json.dumps({**read_provenance(path), **origin}))
        with Image.open(path) as image:
            image.load()
        image.save(path, pnginfo=chunks)

    return _file("figures/{slug}/fig1.png", spoil)


def _flip(results: dict) -> None:
    claim = next(claim for claim in results["claims"] if claim["stable"] and claim["verdict"] == "REPRODUCED")
    claim["verdict"] = "NOT REPRODUCED"


def _unstable(results: dict) -> None:
    for claim in results["claims"]:
        claim["stable"] = not claim["stable"]


SPOILT = {
    "no results": (_file("figures/{slug}/results.json", Path.unlink), "cannot be read"),
    "half the results": (_file("figures/{slug}/results.json", lambda p: p.write_text('{"schema"')), "cannot be read"),
    "another profile": (_results(lambda r: r.update(profile="full")), "profile full"),
    "an override": (_results(lambda r: r.update(overrides={"seed": 3})), "overrides {'seed': 3}"),
    "another parameter": (_results(lambda r: r["parameters"].clear()), "made with"),
    "other data": (_results(lambda r: r["provenance"]["data"].update(none={})), "other data"),
    "no figure": (_results(lambda r: r["figures"].pop()), "is missing"),
    "a figure too many": (_results(lambda r: r["figures"].append({**r["figures"][0], "id": "fig99"})), "fig99"),
    "another caption": (_results(lambda r: r["figures"][0].update(caption="old")), "('old'"),
    "a figure without its stamp": (_results(lambda r: r["figures"][0].update(stamp="apples")), "'apples'"),
    "no claim": (_results(lambda r: r["claims"].pop()), "claims: C"),
    "another statement": (_results(lambda r: r["claims"][0].update(statement="old")), "('old'"),
    "another rule": (_results(lambda r: r["claims"][0].update(rule="old")), "'old'"),
    "a value without its unit": (_results(lambda r: r["claims"][0].update(shown="1")), "shown is 1, expected"),
    "another verdict": (_results(_flip), "its rule gives REPRODUCED"),
    "a verdict that the notebook contradicts": (_results(_flip), "verdict lines: C"),
    "a close call that is compared": (_results(_unstable), "to the table, the results"),
    "a missing file": (_file("figures/{slug}/fig1.pdf", Path.unlink), "fig1.pdf is missing"),
    "a changed file": (_file("figures/{slug}/fig1.json", lambda p: p.write_text("{}")), "fig1.json is not the file"),
    "a file left over": (_file("figures/{slug}/fig99.png", Path.touch), "fig99.png is left over"),
    "a picture of nowhere": (_picture(), "fig1.png carries no provenance"),
    "a picture of another run": (_picture(figure="fig2"), "fig1.png is from another run"),
    "no readme": (_file("README.md", lambda p: p.write_text("# Papers\n")), "README.md does not name"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_the_test_has_teeth(copy, name):
    book = ledger.load(SLUGS[0])
    spoil, words = SPOILT[name]
    before = set(committed_problems(copy, book))
    spoil(copy)
    new = set(committed_problems(copy, book)) - before
    assert any(words in problem for problem in new), new


def test_a_notebook_that_was_not_run_has_no_verdicts(copy):
    path = copy / "notebooks" / f"{SLUGS[0]}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    results = json.loads((copy / "figures" / SLUGS[0] / "results.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps(notebook), encoding="utf-8")
    stable = [claim["stable"] for claim in results["claims"]]
    assert len(notebook_problems(path, results)) == sum(stable) + (not all(stable))


def test_tables_that_papers_share_are_what_the_committed_ones_join_to(tmp_path):
    """After a change of one: `papertwin report`, then commit the file under figures/ as well."""
    figures = paths.root() / "figures"
    tables = joined.join(figures, [ledger.load(slug) for slug in SLUGS])
    assert [problem for table in tables for problem in table.problems] == []
    for name in side_by_side.write(tmp_path, tables):
        assert (figures / name).read_text(encoding="utf-8") == (tmp_path / name).read_text(encoding="utf-8")
    assert {path.name for path in figures.glob("*.csv")} == {path.name for path in tmp_path.iterdir()}
