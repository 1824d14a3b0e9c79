"""Whole notebooks, each run once: nbval agrees with the stored outputs, and the run repeats what is committed.

The run happens on one thread, from a copy of the notebook outside the repository; `papertwin run` has made the
committed outputs with as many threads as it found. So agreement shows three things: figures/SLUG is what the notebook
computes, and neither the number of threads nor the working directory matters.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import nbformat
import pytest

from papertwin import ledger, paths, results
from papertwin.canonical import canonicalise
from papertwin.execute import THREAD_VARIABLES
from papertwin.verify import compare

SLUGS = ledger.slugs()
NBVAL = ["--nbval-lax", "--nbval-current-env", "-p", "no:dash", "-p", "no:cacheprovider", "--nbval-cell-timeout=600"]
ONE_THREAD = dict.fromkeys(THREAD_VARIABLES, "1")
NUMERICAL = ("torch", "numpy")  # packages whose version may change the last digits
NOT_RECORDED = "not recorded"
SMALL = {"scenes": ["junction"], "tiles": 1}  # of the paper `don`, whose notebook is the fastest
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
    """The one run of a notebook; nbval starts the kernel in the notebook's folder, therefore the copy."""
    folder = tmp_path_factory.mktemp("nbval")
    return nbval(Path(shutil.copy(paths.notebook(request.param), folder)), folder, **ONE_THREAD)


@pytest.mark.notebook
def test_nbval_agrees_with_the_stored_outputs(executed):
    assert executed.code == 0, executed.text[-5000:]
    assert "no tests ran" not in executed.text


@pytest.mark.notebook
def test_stable_verdicts_are_the_committed_ones(executed):
    book = ledger.load(executed.folder.name)
    verdicts_must_agree(book, committed(book.slug), executed.folder)


@pytest.mark.notebook
def test_arrays_tables_and_values_are_the_committed_ones(executed):
    book = ledger.load(executed.folder.name)
    numbers_must_agree(book, committed(book.slug), executed.folder)


@pytest.mark.notebook
def test_plain_papermill_runs_a_notebook_from_another_folder(tmp_path):
    book = ledger.load("don")
    given = ["-p", "tiles", str(SMALL["tiles"]), "-y", json.dumps({"scenes": SMALL["scenes"]})]
    command = [sys.executable, "-m", "papermill", str(paths.notebook(book.slug)), "out.ipynb", *given]
    surroundings = os.environ | {"PAPERTWIN_FIGURES": str(tmp_path / "figures")}
    done = subprocess.run(command, env=surroundings, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    assert (tmp_path / "out.ipynb").is_file()
    folder = tmp_path / "figures" / results.address(book.slug, "quick", SMALL)
    found = results.read(folder)
    assert found.overrides == SMALL
    due = {exhibit.id for exhibit in book.exhibits if exhibit.status == "regenerated"}
    assert {saved.id for saved in (*found.figures, *found.tables)} == due
    assert all((folder / file.path).is_file() for saved in found.figures for file in saved.files.values())


def committed(slug: str) -> Path:
    return paths.root() / "figures" / slug


def verdicts_must_agree(book: ledger.Ledger, stored: Path, fresh: Path) -> None:
    """Fail where a stable verdict is not the committed one; they must agree on every machine."""
    problems = claim_problems(book, stored, fresh, "verdict")
    if problems:
        raise AssertionError(explained(book.slug, problems))


def numbers_must_agree(book: ledger.Ledger, stored: Path, fresh: Path) -> None:
    """Fail where an array, a table or a measured value is not the committed one; skip where it need not be."""
    if reasons := incomparable(results.read(stored), results.read(fresh)):
        pytest.skip(
            f"arrays, tables and values of {book.slug} are not compared; what their last digits may depend on differs "
            f"or is not known: {'; '.join(reasons)}. To compare them on this machine, store its own: `papertwin run "
            f"{book.slug} --update --force`"
        )
    problems = array_problems(book, stored, fresh) + table_problems(book, stored, fresh)
    problems += claim_problems(book, stored, fresh, "shown")
    if problems:
        raise AssertionError(explained(book.slug, problems))


def explained(slug: str, problems: list[str]) -> str:
    lines = "\n".join(f"  {problem}" for problem in problems)
    return (
        f"notebooks/{slug}.ipynb, run on one thread, does not repeat what is committed in figures/{slug}:\n{lines}\n"
        f"If something was changed on purpose, run `papertwin run {slug} --update --force` and commit the notebook "
        f"with figures/{slug}. If that does not help, a result depends on the number of threads, on the working "
        "directory or on chance: seed it and fix its order. Only measured time (`timing`) and close calls "
        "(`stable = false`) are excepted, in the ledger."
    )


def incomparable(stored: results.Results, fresh: results.Results) -> list[str]:
    """Say in what two runs differ that may change the last digits; what is not recorded counts as different."""
    one, two = circumstances(stored), circumstances(fresh)
    unknown = [name for name, value in two.items() if value == NOT_RECORDED]
    assert not unknown, f"The fresh run does not record its {unknown}; `papertwin.provenance.collect` must."
    return [f"{name} {one[name]} (committed), {two[name]} (here)" for name in two if one[name] != two[name]]


def circumstances(run: results.Results) -> dict[str, str]:
    """What the last digits of a run may depend on besides its inputs."""
    origin = run.provenance
    named = {
        "processor": ", ".join(origin.get("processor", {}).values()),
        "platform": origin.get("platform"),
        "device": run.device,
        **{name: origin.get("packages", {}).get(name) for name in NUMERICAL},
    }
    return {name: value or NOT_RECORDED for name, value in named.items()}


def repeatable(exhibits: Sequence[ledger.Exhibit]) -> list[str]:
    """Name the figures or tables that a second run must repeat: those that show no measured time."""
    return [exhibit.id for exhibit in exhibits if exhibit.status == "regenerated" and not exhibit.timing]


def missing(name: str, stored: Path, fresh: Path) -> str:
    """Say that a file is absent, or nothing."""
    places = [what for what, folder in (("committed", stored), ("written", fresh)) if not (folder / name).is_file()]
    return f"{name} is not {' and not '.join(places)}, but the ledger says regenerated" if places else ""


def array_problems(book: ledger.Ledger, stored: Path, fresh: Path) -> list[str]:
    found = []
    for name in repeatable(book.figures):
        if absent := missing(f"{name}.json", stored, fresh):
            found.append(absent)
            continue
        one, two = (json.loads((f / f"{name}.json").read_text(encoding="utf-8"))["axes"] for f in (stored, fresh))
        result = compare(name, one, two)
        if not result.agrees:
            found.append(str(result))
        elif result.numbers <= 10:
            found.append(f"{name}: {result.numbers} numbers were compared, expected more than 10: is it drawn at all?")
    return found


def table_problems(book: ledger.Ledger, stored: Path, fresh: Path) -> list[str]:
    found = []
    for name in repeatable(book.tables):
        if absent := missing(f"{name}.csv", stored, fresh):
            found.append(absent)
            continue
        one, two = ((f / f"{name}.csv").read_text(encoding="utf-8").splitlines(True) for f in (stored, fresh))
        lines = enumerate(zip_longest(one, two), 1)
        found += [f"{name}, line {n}: committed {old!r}, now {new!r}" for n, (old, new) in lines if old != new][:5]
    return found


def claim_problems(book: ledger.Ledger, stored: Path, fresh: Path, attribute: str) -> list[str]:
    """Stable claims of which an attribute ("verdict", or "shown": the measured value) is not the committed one."""
    one, two = ({c.id: str(getattr(c, attribute)) for c in results.read(f).claims} for f in (stored, fresh))
    pairs = {claim.id: (one.get(claim.id), two.get(claim.id)) for claim in book.claims if claim.stable}
    wrong = {name: pair for name, pair in pairs.items() if None in pair or pair[0] != pair[1]}
    return [f"{name}, {attribute}: committed {old}, now {new}" for name, (old, new) in wrong.items()]


HERE = {"processor": {"model": "Abacus", "architecture": "beads"}, "platform": "Linux x86_64"}
HERE |= {"packages": {"torch": "2.13.0", "numpy": "2.4.6"}}


@pytest.fixture
def copies(tmp_path) -> tuple[Path, Path]:
    """The committed arrays, tables and results of the first paper, twice, as if made on one machine."""
    for name in ("stored", "fresh"):
        (tmp_path / name).mkdir()
        for path in [*committed(SLUGS[0]).glob("*.json"), *committed(SLUGS[0]).glob("*.csv")]:
            shutil.copy(path, tmp_path / name)
        _rewrite(tmp_path / name / results.FILE, lambda content: content.update(provenance=HERE, device="cpu"))
    return tmp_path / "stored", tmp_path / "fresh"


def _rewrite(path: Path, change: Callable[[dict], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def _nudge(node: Any) -> bool:
    """Change the first number in a nest of arrays; tell whether there was one."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, float):
            node[key] = value * 1.00001 + 1e-6
            return True
        if isinstance(value, dict | list) and _nudge(value):
            return True
    return False


def _number(stored: Path, timing: bool) -> str:
    name = next(e.id for e in ledger.load(SLUGS[0]).figures if e.status == "regenerated" and e.timing == timing)
    _rewrite(stored / f"{name}.json", lambda content: _nudge(content["axes"]))
    return f"{name}: the arrays DIFFER"


def _cell(stored: Path, timing: bool) -> str:
    name = next(e.id for e in ledger.load(SLUGS[0]).tables if e.status == "regenerated" and e.timing == timing)
    path = stored / f"{name}.csv"
    text = path.read_text(encoding="utf-8")
    last = list(re.finditer(r"\d", text))[-1]
    path.write_text(f"{text[: last.start()]}{9 - int(last[0])}{text[last.end() :]}", encoding="utf-8")
    return f"{name}, line {len(text.splitlines())}"


def _row(stored: Path) -> str:
    name = repeatable(ledger.load(SLUGS[0]).tables)[0]
    with (stored / f"{name}.csv").open("a", encoding="utf-8") as file:
        file.write("one,too,many\n")
    return "now None"


def _lost(stored: Path, kind: str, suffix: str) -> str:
    name = repeatable(getattr(ledger.load(SLUGS[0]), kind))[0]
    (stored / f"{name}{suffix}").unlink()
    return f"{name}{suffix} is not committed"


def _claim(stored: Path, attribute: str, stable: bool = True) -> str:
    """Change what is said of the first claim of a kind."""
    claim = next(claim for claim in ledger.load(SLUGS[0]).claims if claim.stable == stable)

    def change(content: dict) -> None:
        entry = next(entry for entry in content["claims"] if entry["id"] == claim.id)
        other = {"REPRODUCED": "NOT REPRODUCED"}.get(entry["verdict"], "REPRODUCED")
        entry[attribute] = other if attribute == "verdict" else f"{entry[attribute]}1"

    _rewrite(stored / results.FILE, change)
    return f"{claim.id}, {attribute}: committed "


def agree(pair: tuple[Path, Path]) -> None:
    verdicts_must_agree(ledger.load(SLUGS[0]), *pair)
    numbers_must_agree(ledger.load(SLUGS[0]), *pair)


SPOILT = {
    "one number of a figure": lambda stored: _number(stored, timing=False),
    "one cell of a table": lambda stored: _cell(stored, timing=False),
    "one row of a table": _row,
    "one figure that is not committed": lambda stored: _lost(stored, "figures", ".json"),
    "one table that is not committed": lambda stored: _lost(stored, "tables", ".csv"),
    "one stable verdict": lambda stored: _claim(stored, "verdict"),
    "one measured value": lambda stored: _claim(stored, "shown"),
}
PASSED_OVER = {
    "nothing": lambda stored: None,
    "one number of measured time": lambda stored: _number(stored, timing=True),
    "one cell of measured time": lambda stored: _cell(stored, timing=True),
    "a close call": lambda stored: _claim(stored, "verdict", stable=False),
}


@pytest.mark.parametrize("name", SPOILT)
def test_the_comparison_has_teeth(copies, name):
    words = SPOILT[name](copies[0])
    with pytest.raises(AssertionError, match=re.escape(words)) as found:
        agree(copies)
    assert str(found.value).count(words) == 1
    assert f"papertwin run {SLUGS[0]} --update --force" in str(found.value)


@pytest.mark.parametrize("name", PASSED_OVER)
def test_what_may_differ_is_passed_over(copies, name):
    PASSED_OVER[name](copies[0])
    agree(copies)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["provenance"]["processor"].update(architecture="rods"), "processor Abacus, rods (committed)"),
        (lambda r: r["provenance"].pop("processor"), "processor not recorded (committed), Abacus, beads (here)"),
        (lambda r: r["provenance"]["packages"].update(torch="2.12.0"), "torch 2.12.0 (committed), 2.13.0 (here)"),
        (lambda r: r["provenance"]["packages"].pop("numpy"), "numpy not recorded (committed)"),
        (lambda r: r.update(device="cuda"), "device cuda (committed), cpu (here)"),
    ],
)
def test_numbers_from_another_machine_are_skipped_aloud_and_verdicts_are_not(copies, change, words):
    _rewrite(copies[0] / results.FILE, change)
    _number(copies[0], timing=False)
    with pytest.raises(pytest.skip.Exception, match=re.escape(words)):
        agree(copies)
    _claim(copies[0], "verdict")
    with pytest.raises(AssertionError, match="verdict: committed"):
        agree(copies)


def test_a_fresh_run_that_does_not_say_where_it_was_made_is_no_reason_to_skip(copies):
    for folder in copies:
        _rewrite(folder / results.FILE, lambda r: r["provenance"].pop("processor"))
    with pytest.raises(AssertionError, match="does not record its"):
        agree(copies)


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
