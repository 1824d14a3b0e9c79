"""Tables that several papers share: rows of their own notebooks under each other, by one protocol.

A table of a ledger with `joined = "sparse trainers"` is part of the table of that name. Its file has the columns
trainer, sparsity, seed, `test accuracy` (per cent) and protocol (in words). Rows of different protocols are never put
together. Where two papers did the same training, their numbers must be the same.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from papertwin import claims, files
from papertwin.ledger import Ledger

COLUMNS = ("trainer", "sparsity", "seed", "test accuracy", "protocol")
ALIKE = 1e-6  # points by which two papers' numbers of one training may differ, as files round them
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
        every = [key for each in self.found.values() for key in each]
        return len(every) - len(set(every))

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
            *(f"{float(each):.0%} sparse" if float(each) else "dense" for each in self.sparsities),
            "from",
        ]

    @property
    def rows(self) -> list[list[str]]:
        """A row a trainer: mean accuracy with its 95 % t-interval over seeds at each sparsity, and whose it is."""
        return [
            [name, *(shown(self.values(name, each)) for each in self.sparsities), ", ".join(self.papers(name))]
            for name in self.trainers
        ]


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
            except (OSError, ValueError) as error:
                broken[exhibit.joined].append(f"{book.slug}: {path.name} cannot be joined ({error}). Run it again.")
                continue
            for protocol, rows in found.items():
                table = tables.setdefault((exhibit.joined, protocol), Joined(exhibit.joined, protocol))
                table.problems += disagreements(table, book.slug, rows)
                table.found[book.slug] = rows
    for name, problems in broken.items():
        first = next((each for each in tables.values() if each.name == name), None)
        table = first or tables.setdefault((name, ""), Joined(name))
        table.problems += problems
    return list(tables.values())


def read(path: Path) -> dict[str, dict[Training, float]]:
    """Read a table of trainings: protocol → training → test accuracy.

    Raises:
        OSError: there is no such file.
        ValueError: a column is missing, or what should be a number is none.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[Training, float]] = defaultdict(dict)
    for row in rows:
        if missing := [name for name in COLUMNS if not row.get(name)]:
            raise ValueError(f"a row lacks {', '.join(missing)}")
        key = (row["trainer"], f"{float(row['sparsity']):g}", str(int(row["seed"])))
        found[row["protocol"]][key] = float(row["test accuracy"])
    if not found:
        raise ValueError("it has no rows")
    return dict(found)


def disagreements(table: Joined, slug: str, rows: Mapping[Training, float]) -> list[str]:
    """Say which trainings of a paper are not what another paper found."""
    lines = []
    for other, known in table.found.items():
        for key in sorted(set(rows) & set(known)):
            if abs(rows[key] - known[key]) > ALIKE:
                lines.append(
                    f"{key[0]} at sparsity {key[1]}, seed {key[2]}: {known[key]:.2f} in {other}, {rows[key]:.2f} in "
                    f"{slug}, where one protocol must give one number. Run both papers again on this machine."
                )
    return lines


def write(root: Path, tables: Iterable[Joined]) -> list[str]:
    """Write each table as CSV beside the runs; return their names relative to the folder, "" where there are no rows.

    Raises:
        RunError: the folder cannot be written.
    """
    links: list[str] = []
    for table in tables:
        if not table.found:
            links.append("")
            continue
        stem = table.name.replace(" ", "_")
        earlier = sum(each.startswith(stem) for each in links)
        links.append(f"{stem}{f'_{earlier + 1}' if earlier else ''}.csv")
        lines = [[*table.header, "protocol"], *([*row, table.protocol] for row in table.rows)]
        files.write_text(root / links[-1], _csv(lines))
    return links


def _csv(rows: Iterable[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
