"""What the report shows and writes of a table that several papers share, see `papertwin.joined`.

Comparisons follow one rule, the same at each sparsity: which 95 % t-intervals over seeds overlap that of the highest
mean. It is a rule for reading, weaker than the claims, which compare seed by seed.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from papertwin import claims, files
from papertwin.joined import Joined
from papertwin.words import listed

COLUMNS = ("trainer", "sparsity", "seeds", "mean", "low", "high", "papers", "before", "protocol")  # of what is written
DISAGREE, NONE = "disagree", "–"
LEAST = 3  # seeds of an interval


@dataclass(frozen=True)
class Cell:
    """Trainings of one trainer at one sparsity; accuracies in per cent.

    Attributes:
        seeds: how many there are.
        mean: over seeds; None where nothing was trained, or papers disagree.
        interval: 95 % t-interval of the mean; None with fewer than three seeds.
        disagree: whether papers have different results of one of these trainings.
    """

    seeds: int
    mean: float | None = None
    interval: tuple[float, float] | None = None
    disagree: bool = False

    def __str__(self) -> str:
        """Mean and interval in words.

        >>> print(Cell(5, 86.04, (85.71, 86.28)), Cell(2, 86.04), Cell(0))
        86.0 [85.7, 86.3] 86.0 –
        """
        if self.mean is None:
            return DISAGREE if self.disagree else NONE
        limits = f" [{self.interval[0]:.1f}, {self.interval[1]:.1f}]" if self.interval else ""
        return f"{self.mean:.1f}{limits}"

    def overlaps(self, other: "Cell") -> bool:
        """Whether both have an interval, and these a number in common."""
        if self.interval is None or other.interval is None:
            return False
        (low, high), (least, most) = self.interval, other.interval
        return low <= most and least <= high


@dataclass(frozen=True)
class Row:
    """A trainer on the page; `seeds` is of each cell, or the range where cells differ and name their own."""

    trainer: str
    before: str
    cells: list[str]
    seeds: str
    papers: list[str]


def cell(table: Joined, trainer: str, sparsity: str) -> Cell:
    """Mean and 95 % t-interval over the seeds of a trainer at a sparsity."""
    values = list(table.by_seed(trainer, sparsity).values())
    if any(key[:2] == (trainer, sparsity) for key in table.contested):
        return Cell(len(values), disagree=True)
    if not values:
        return Cell(0)
    interval = claims.over_seeds(values, "accuracy", LEAST).interval
    return Cell(len(values), sum(values) / len(values), interval and (float(interval[0]), float(interval[1])))


def header(table: Joined) -> list[str]:
    """Of `rows`."""
    return ["trainer", *(f"{percent(s)} sparse" if float(s) else "dense" for s in table.sparsities), "seeds", "from"]


def percent(sparsity: str) -> str:
    """Say a sparsity.

    >>> percent("0.994")
    '99.4 %'
    """
    return f"{100 * float(sparsity):g} %"


def rows(table: Joined) -> list[Row]:
    """What the page shows: a row a trainer."""
    found = []
    for name in table.trainers:
        cells = [cell(table, name, sparsity) for sparsity in table.sparsities]
        counts = sorted({each.seeds for each in cells if each.seeds})
        shown = [f"{each} ({each.seeds})" if len(counts) > 1 and each.seeds else str(each) for each in cells]
        seeds = f"{counts[0]}–{counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        found.append(Row(name, table.before(name), shown, seeds, table.papers(name)))
    return found


# ---- in words --------------------------------------------------------------------------------------------------------


def takeaways(table: Joined) -> list[str]:
    """Say at each sparsity which trainer has the highest mean, and whose intervals overlap that one's.

    Where the highest needs something to be done before, the same is said of those that need nothing. Trainers without
    an interval are left out, and sparsities with fewer than two that have one.
    """
    found = []
    for sparsity in table.sparsities:
        cells = {name: each for name in table.trainers if (each := cell(table, name, sparsity)).interval}
        if len(cells) < 2:
            continue
        line = f"{percent(sparsity)} sparse: {_standing(cells, 'highest')}."
        alone = {name: each for name, each in cells.items() if not table.before(name)}
        if alone and table.before(_best(cells)):
            line += f" Without training anything else first: {_standing(alone, 'highest')}."
        found.append(line)
    return found


def _best(cells: dict[str, Cell]) -> str:
    return max(cells, key=lambda name: cells[name].mean or 0)


def _standing(cells: dict[str, Cell], what: str) -> str:
    """Name the highest mean, and the trainers whose intervals overlap its, or those whose do not if they are fewer."""
    best = _best(cells)
    near = [name for name in cells if name != best and cells[name].overlaps(cells[best])]
    below = [name for name in cells if name != best and name not in near]
    text = f"{what} {best}, {cells[best]}"
    if not near:
        return f"{text}; all other intervals lie below its" if below else text
    if not below:
        return f"{text}; all other intervals overlap its"
    if len(below) < len(near):
        return f"{text}; all other intervals overlap its but for {listed(below)}, below it"
    one, lone = ("s" * (len(names) == 1) for names in (near, below))
    return f"{text}; only {listed(near)} overlap{one} it, {len(below)} lie{lone} below"


def alike(table: Joined) -> list[str]:
    """Name trainers with the same accuracy from every seed, three at least, and where."""
    where: dict[tuple[str, str], list[str]] = {}
    for sparsity in table.sparsities:
        found = {name: table.by_seed(name, sparsity) for name in table.trainers}
        names = [name for name, each in found.items() if len(each) >= LEAST]
        for number, name in enumerate(names):
            for other in names[number + 1 :]:
                if found[name] == found[other]:
                    where.setdefault((name, other), []).append(percent(sparsity))
    return [
        f"{name} and {other} have the same accuracy from every seed at {listed(each)}."
        for (name, other), each in where.items()
    ]


def twice(table: Joined) -> str:
    """Say what became of trainings that more than one paper did; nothing where there are none."""
    if not table.shared:
        return ""
    one = table.shared == 1
    text = f"{table.shared} training{'' if one else 's'}, of one trainer, sparsity and seed, "
    text += f"{'was' if one else 'were'} done in more than one notebook"
    if table.contested:
        return f"{text}; {len(table.contested)} of them with results that differ, which are not shown."
    return f"{text}, each time with the same accuracy; {'it counts' if one else 'each counts'} once."


def unexplained(table: Joined) -> list[str]:
    """Say of each trainer that no ledger explains in full where that is to be done."""
    found = []
    for name in table.unexplained:
        parts = listed(f'"{part}"' for part in table.parts(name) if part not in table.lines)
        where = listed((f"papers/{slug}.toml" for slug in table.papers(name)), "or")
        found.append(f"No ledger says what {name} is: add {parts} to [table.rows] in {where}.")
    return found


# ---- files -----------------------------------------------------------------------------------------------------------


def write(root: Path, tables: Iterable[Joined]) -> list[str]:
    """Write each table as CSV beside the runs; return their names relative to the folder, "" where there are no rows.

    A row a trainer and sparsity, see `COLUMNS`. The first protocol of a name gives `name.csv`, further ones
    `name_2.csv` and so on; what is left of more is removed.

    Raises:
        RunError: the folder cannot be written.
    """
    links: list[str] = []
    counts: Counter[str] = Counter()
    for table in tables:
        stem = table.name.replace(" ", "_")
        counts[stem] += bool(table.found)
        suffix = f"_{counts[stem]}" if counts[stem] > 1 else ""
        links.append(f"{stem}{suffix}.csv" if table.found else "")
        if table.found:
            files.write_text(root / links[-1], _csv([COLUMNS, *records(table)]))
    for stem in counts:
        for path in root.glob(f"{stem}_[0-9]*.csv"):
            if path.name not in links:
                path.unlink()
    return links


def records(table: Joined) -> list[list[str]]:
    """Rows of the file, without trainings that papers do not agree on: numbers with three digits, empty where none."""
    found = []
    for name in table.trainers:
        for sparsity in table.sparsities:
            each = cell(table, name, sparsity)
            if each.mean is None:
                continue
            low, high = (f"{limit:.3f}" for limit in each.interval) if each.interval else ("", "")
            papers = ";".join(table.papers(name, sparsity))
            numbers = [str(each.seeds), f"{each.mean:.3f}", low, high]
            found.append([name, sparsity, *numbers, papers, table.before(name), table.protocol])
    return found


def _csv(lines: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
