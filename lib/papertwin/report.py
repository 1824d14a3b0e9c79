"""The report: one offline page with every paper's figures and claims, and the executed notebooks as HTML.

Reads what runs have written and never stops at a bad file: a result that cannot be understood is shown as such.
"""

import csv
import re
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from papertwin import files, joined, ledger, notebook_html, paths, results, side_by_side, words
from papertwin.claims import Verdict
from papertwin.errors import LedgerError, PaperTwinError, RunError
from papertwin.results import JudgedClaim, Results, Saved

MAX_ROWS = 60  # of a table shown on the page; the CSV file has them all


@dataclass(frozen=True)
class Picture:
    """A figure of a run as the page shows it; sizes in pixels, 0 where unknown; links are relative to the page."""

    id: str
    caption: str
    image: str
    links: dict[str, str]
    width: int = 0
    height: int = 0
    wide: bool = False
    source: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table of a run: header and rows as text."""

    id: str
    caption: str
    link: str
    header: list[str]
    rows: list[list[str]]
    omitted: int = 0
    source: str = ""
    stamp: str = ""

    @property
    def wide(self) -> bool:
        """Whether it needs the whole width of the page."""
        return len(self.header) > 6


@dataclass
class RunView:
    """One output folder, ready for the template; `problems` says in words what could not be shown."""

    address: str
    results: Results | None = None
    pictures: list[Picture] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    notebook: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Verdict → number of claims, every verdict present, in the order of `Verdict`."""
        return self.results.counts if self.results else {str(verdict): 0 for verdict in Verdict}


@dataclass(frozen=True)
class Comparison:
    """A table that papers share, ready for the template; `notebooks` has the page of each paper that has one."""

    table: joined.Joined
    problems: list[str]
    anchor: str
    link: str
    notebooks: dict[str, str]
    header: list[str]
    rows: list[side_by_side.Row]
    takeaways: list[str]
    alike: list[str]
    twice: str

    @property
    def counts_differ(self) -> bool:
        """Whether cells of one row are from different numbers of seeds."""
        return any(not row.seeds.isdecimal() for row in self.rows)


@dataclass
class PaperView:
    """One paper: its ledger (None if it is malformed), its plain run and the runs with other parameters."""

    slug: str
    book: ledger.Ledger | None
    problem: str = ""
    run: RunView | None = None
    others: list[RunView] = field(default_factory=list)


def write(figures_root: Path) -> Path:
    """Write `index.html` and one HTML page per executed notebook; return the path of `index.html`.

    Args:
        figures_root: the folder that holds one folder per run.

    Raises:
        RunError: the folder cannot be written.
    """
    index = figures_root / "index.html"
    slugs = ledger.slugs()
    papers = [_paper(slug, figures_root, index) for slug in slugs]
    strays = [_run(folder, index) for folder in _folders(figures_root) if folder.name.partition("@")[0] not in slugs]
    totals = Counter()
    for paper in papers:
        totals.update(paper.run.counts if paper.run else {})
    page = _environment().get_template("index.html.j2")
    text = page.render(
        papers=papers,
        strays=strays,
        joined=_joined(papers, figures_root),
        totals={str(verdict): totals[str(verdict)] for verdict in Verdict},
        css=notebook_html.stylesheet(),
    )
    files.write_text(index, text)
    return index


def _paper(slug: str, root: Path, index: Path) -> PaperView:
    try:
        view = PaperView(slug, ledger.load(slug))
    except LedgerError as error:
        view = PaperView(slug, None, problem=str(error))
    for folder in _folders(root):
        if folder.name == slug:
            view.run = _run(folder, index)
        elif folder.name.startswith(f"{slug}@"):
            view.others.append(_run(folder, index))
    if view.run and view.book:
        view.run.problems += _contradictions(view.book, view.run)
    failed = root / ".failed" / f"{slug}.ipynb"
    last = root / slug / results.FILE
    if failed.is_file() and (not last.is_file() or last.stat().st_mtime < failed.stat().st_mtime):
        view.run = view.run or RunView(slug)
        kept = failed.relative_to(root).as_posix()
        view.run.problems.insert(0, f"The latest run failed; what is shown is older. The partial notebook is {kept}.")
    return view


def _joined(papers: Iterable[PaperView], root: Path) -> list[Comparison]:
    """Put together the tables that papers share, write them beside the runs, and make them ready for the page."""
    papers = list(papers)
    tables = joined.join(root, [paper.book for paper in papers if paper.book])
    notebooks = {paper.slug: paper.run.notebook for paper in papers if paper.run and paper.run.notebook}
    return [
        Comparison(
            table,
            table.problems + side_by_side.unexplained(table),
            table.name.replace(" ", "-") + (f"-{number}" if number > 1 else ""),
            link,
            notebooks,
            side_by_side.header(table),
            side_by_side.rows(table),
            side_by_side.takeaways(table),
            side_by_side.alike(table),
            side_by_side.twice(table),
        )
        for number, (table, link) in enumerate(zip(tables, side_by_side.write(root, tables)), start=1)
    ]


def _folders(root: Path) -> list[Path]:
    """Every folder that a run may have written, plain quick runs before the others."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name != "assets" and path.name[0] != ".")


def _run(folder: Path, index: Path) -> RunView:
    view = RunView(folder.name)
    view.notebook = _notebook(view, folder, index)
    try:
        view.results = results.read(folder)
    except RunError as error:
        view.problems.append(str(error))
        return view
    for saved in sorted(view.results.figures, key=_natural):
        view.pictures += _picture(view, saved, folder, index.parent)
    view.pictures = arrange(view.pictures)
    for saved in sorted(view.results.tables, key=_natural):
        view.sheets += _sheet(view, saved, folder, index.parent)
    return view


def _notebook(view: RunView, folder: Path, index: Path) -> str:
    """Convert the run's notebook if its page is missing or older; return the page's address, or nothing.

    After a fresh clone only the committed notebook is there; it is the plain quick run.
    """
    slug = folder.name.partition("@")[0]
    source = folder / f"{slug}.ipynb"
    if not source.is_file() and folder.name == slug:
        source = paths.notebook(slug)
    if not source.is_file():
        return ""
    page = folder / f"{slug}.html"
    newest = max(source.stat().st_mtime, notebook_html.newest_source())
    try:
        if not page.is_file() or page.stat().st_mtime < newest:
            notebook_html.convert(source, page, index.parent / "assets" / "plotly.min.js", index)
    except PaperTwinError as error:
        view.problems.append(str(error))
        return ""
    return page.relative_to(index.parent).as_posix()


def _picture(view: RunView, saved: Saved, folder: Path, base: Path) -> list[Picture]:
    links = {
        kind: (folder / Path(file.path).name).relative_to(base).as_posix()
        for kind, file in saved.files.items()
        if (folder / Path(file.path).name).is_file()
    }
    if "png" not in links:
        view.problems.append(f"{saved.id}: its picture is missing. Run the paper again.")
        return []
    width, height = png_size(base / links["png"])
    others = {kind: link for kind, link in links.items() if kind != "png"}
    return [Picture(saved.id, saved.caption, links["png"], others, width, height, source=saved.source)]


def _natural(saved: Saved) -> list[tuple[int, str]]:
    """Sort key by which fig2 comes before fig10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", saved.id)]


def arrange(pictures: list[Picture]) -> list[Picture]:
    """Decide which figures take the whole width of a two-column grid, so that no cell stays empty beside a wide one.

    A figure more than twice as wide as high is wide; so is one that would stand alone, unless it is a tall one.
    """
    shapes = [picture.width / picture.height if picture.height else 1.0 for picture in pictures]
    wide = [shape > 2 for shape in shapes]
    is_second = False
    for i in range(len(pictures)):
        is_alone = not is_second and (i + 1 == len(pictures) or wide[i + 1])
        if not wide[i] and is_alone and shapes[i] > 0.9:
            wide[i] = True
        is_second = not wide[i] and not is_second
    return [replace(picture, wide=flag) for picture, flag in zip(pictures, wide, strict=True)]


def png_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG in pixels from its header; (0, 0) if it is none."""
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n":
        return 0, 0
    return struct.unpack(">II", head[16:24])


def _sheet(view: RunView, saved: Saved, folder: Path, base: Path) -> list[Sheet]:
    path = next((folder / Path(f.path).name for f in saved.files.values() if f.path.endswith(".csv")), None)
    try:
        with (path or folder / f"{saved.id}.csv").open(encoding="utf-8", newline="") as file:
            rows = [[_short(cell) for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error):
        view.problems.append(f"{saved.id}: its table cannot be read. Run the paper again.")
        return []
    header, body = (rows[0], rows[1:]) if rows else ([], [])
    link = Path(file.name).relative_to(base).as_posix()
    omitted = max(0, len(body) - MAX_ROWS)
    return [Sheet(saved.id, saved.caption, link, header, body[:MAX_ROWS], omitted, saved.source, saved.stamp)]


def _short(text: str) -> str:
    """Shorten a decimal number to four significant digits; leave whole numbers and words as they are."""
    try:
        number = float(text)
    except ValueError:
        return text
    return f"{number:.4g}" if "." in text or "e" in text.lower() else text


def _contradictions(book: ledger.Ledger, run: RunView) -> Iterable[str]:
    """Say where a result no longer fits the ledger, which may have changed since the run."""
    if run.results is None:
        return []
    judged = {claim.id for claim in run.results.claims}
    absent = [claim.id for claim in book.claims if claim.id not in judged]
    shown = {saved.id for saved in (*run.results.figures, *run.results.tables)}
    due = [e.id for e in book.exhibits if e.status == "regenerated" and e.id not in shown]
    lines = {"claims without a verdict": absent, "exhibits that were not saved": due}
    return [f"The ledger lists {what}: {', '.join(ids)}. Run the paper again." for what, ids in lines.items() if ids]


def value(entry: JudgedClaim) -> str:
    """Write a measured value without its interval: `0.93 points`, `yes`, `–`."""
    if entry.shown:
        return re.sub(r" \[.*?\]", "", entry.shown)
    if entry.measured is None:
        return "–"
    if isinstance(entry.measured, bool):
        return "yes" if entry.measured else "no"
    return f"{entry.measured:.3g}"


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(notebook_html.TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=words.duration, value=value, css_class=lambda verdict: str(verdict).lower().replace(" ", "-")
    )
    environment.globals["marks"] = dict(zip(map(str, Verdict), "✓✕≈–", strict=True))
    return environment
