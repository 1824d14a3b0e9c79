"""Tables that several papers share: rows of their own notebooks under each other, by one protocol.

A table of a ledger with `joined = "sparse trainers"` is part of the table of that name. Its file has the columns
trainer, sparsity, seed, `test accuracy` (per cent) and protocol (in words). Rows of different protocols are never put
together. Where two papers did the same training, their numbers must be the same.
"""

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from papertwin import claims, files
from papertwin.ledger import Ledger

COLUMNS = ("trainer", "sparsity", "seed", "test accuracy", "protocol")
ALIKE = 1e-6  # points by which two papers' numbers of one training may differ, as files round them
DISAGREE = "disagree"
Training = tuple[str, str, str]  # trainer, sparsity, seed


@dataclass
class Joined:
    """Tables of one name and protocol, put together.

    Attributes:
        name: as in the ledgers.
        protocol: in words.
        found: paper → training → test accuracy.
        problems: in words, what could not be joined or does not agree.
    """

    name: str
    protocol: str = ""
    found: dict[str, dict[Training, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def sparsities(self) -> list[str]:
        """Every sparsity, ascending."""
        return sorted({key[1] for each in self.found.values() for key in each}, key=float)

    @property
    def trainers(self) -> list[str]:
        """Every trainer: in the order of the papers, those that add to another (`RigL + …`) behind that one."""
        names = list(dict.fromkeys(key[0] for each in self.found.values() for key in each))
        first = {name: place for place, name in reversed(list(enumerate(name.partition(" + ")[0] for name in names)))}
        return sorted(names, key=lambda name: (first[name.partition(" + ")[0]], " + " in name, names.index(name)))

    @property
    def shared(self) -> int:
        """Trainings that more than one paper did."""
        counts = Counter(key for each in self.found.values() for key in each)
        return sum(count > 1 for count in counts.values())

    @property
    def contested(self) -> dict[Training, dict[str, float]]:
        """Trainings of which papers give different results, in order: what each paper gives."""
        found: dict[Training, dict[str, float]] = defaultdict(dict)
        for slug, rows in self.found.items():
            for key, value in rows.items():
                found[key][slug] = value
        apart = {key: each for key, each in found.items() if not max(each.values()) - min(each.values()) <= ALIKE}
        return dict(sorted(apart.items()))

    def values(self, trainer: str, sparsity: str) -> list[float]:
        """Test accuracies of a trainer at a sparsity, one a seed, in the order of the seeds."""
        each: dict[str, float] = {}
        for rows in self.found.values():
            each |= {seed: value for (name, at, seed), value in rows.items() if (name, at) == (trainer, sparsity)}
        return [each[seed] for seed in sorted(each, key=int)]

    def papers(self, trainer: str) -> list[str]:
        """Papers that trained it."""
        return [slug for slug, rows in self.found.items() if any(key[0] == trainer for key in rows)]

    @property
    def header(self) -> list[str]:
        """Of `rows`."""
        return [
            "trainer",
            *(f"{100 * float(each):g}% sparse" if float(each) else "dense" for each in self.sparsities),
            "from",
        ]

    @property
    def rows(self) -> list[list[str]]:
        """A row a trainer: mean accuracy with its 95 % t-interval over seeds at each sparsity, and whose it is."""
        apart = {key[:2] for key in self.contested}
        table = []
        for name in self.trainers:
            cells = [DISAGREE if (name, s) in apart else shown(self.values(name, s)) for s in self.sparsities]
            table.append([name, *cells, ", ".join(self.papers(name))])
        return table


def shown(values: list[float]) -> str:
    """Mean and 95 % t-interval over seeds in words, per cent; only the mean of fewer than three; a dash for none."""
    if not values:
        return "–"
    interval = claims.over_seeds(values, "accuracy").interval
    mean = f"{sum(values) / len(values):.1f}"
    return mean if interval is None else f"{mean} [{interval[0]:.1f}, {interval[1]:.1f}]"


def join(root: Path, books: Iterable[Ledger]) -> list[Joined]:
    """Put together what the plain runs of papers have saved.

    Args:
        root: the folder with a folder a run.
        books: ledgers, in the order in which their trainers are to stand.

    Returns:
        A table for each name and protocol; one that has only problems where no file can be read.
    """
    tables: dict[tuple[str, str], Joined] = {}
    broken: dict[str, list[str]] = defaultdict(list)
    for book in books:
        for exhibit in book.tables:
            if not exhibit.joined:
                continue
            path = root / book.slug / f"{exhibit.id}.csv"
            try:
                found = read(path)
            except FileNotFoundError:
                broken[exhibit.joined].append(
                    f"{book.slug} has not been run: `papertwin run {book.slug}` adds its rows."
                )
                continue
            except (OSError, ValueError, csv.Error) as error:
                again = f"`papertwin run {book.slug} --force`"
                broken[exhibit.joined].append(f"{book.slug}: {path.name} cannot be joined, {error}; {again} mends it.")
                continue
            for protocol, rows in found.items():
                tables.setdefault((exhibit.joined, protocol), Joined(exhibit.joined, protocol)).found[book.slug] = rows
    for table in tables.values():
        table.problems += disagreements(table)
    for name, problems in broken.items():
        first = next((each for each in tables.values() if each.name == name), None)
        table = first or tables.setdefault((name, ""), Joined(name))
        table.problems += problems
    return list(tables.values())


def read(path: Path) -> dict[str, dict[Training, float]]:
    """Read a table of trainings: protocol → training → test accuracy.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: a column is missing, a number is none or out of range, or a training comes twice.
        csv.Error: it is no CSV file.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[Training, float]] = defaultdict(dict)
    for number, row in enumerate(rows, start=2):
        if missing := [name for name in COLUMNS if not row.get(name)]:
            raise ValueError(f"line {number} lacks {', '.join(missing)}")
        sparsity = _number(row, number, "sparsity", 0, 1)
        seed = _number(row, number, "seed", 0, math.inf)
        key = (row["trainer"], f"{sparsity:g}", f"{seed:g}")
        if key in found[row["protocol"]]:
            raise ValueError(f"line {number} has {key[0]} at sparsity {key[1]}, seed {key[2]}, a second time")
        found[row["protocol"]][key] = _number(row, number, "test accuracy", 0, 100)
    if not found:
        raise ValueError("it has no rows")
    return dict(found)


def _number(row: Mapping[str, str], line: int, name: str, least: float, most: float) -> float:
    """Read a finite number within limits."""
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not least <= value <= most or math.isinf(value):
        raise ValueError(f"{name} in line {line} is {row[name]!r}, expected a number from {least:g} to {most:g}")
    return value


def disagreements(table: Joined) -> list[str]:
    """Say which trainings papers do not agree on."""
    lines = []
    for (trainer, sparsity, seed), each in table.contested.items():
        found = ", ".join(f"{value:.2f} in {slug}" for slug, value in each.items())
        lines.append(
            f"{trainer} at sparsity {sparsity}, seed {seed}: {found}, where one protocol must give one number. Run "
            "these papers again on this machine."
        )
    return lines


def write(root: Path, tables: Iterable[Joined]) -> list[str]:
    """Write each table as CSV beside the runs; return their names relative to the folder, "" where there are no rows.

    The first protocol of a name gives `name.csv`, further ones `name_2.csv` and so on; what is left of more is removed.

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
            lines = [[*table.header, "protocol"], *([*row, table.protocol] for row in table.rows)]
            files.write_text(root / links[-1], _csv(lines))
    for stem in counts:
        for path in root.glob(f"{stem}_[0-9]*.csv"):
            if path.name not in links:
                path.unlink()
    return links


def _csv(rows: Iterable[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
