"""Tables that several papers share: rows of their own notebooks under each other, by one protocol.

A table of a ledger with `joined = "sparse trainers"` is part of the table of that name. Its file has the columns
trainer, sparsity, seed, `test accuracy` (per cent) and protocol (in words). Rows of different protocols are never put
together. Where two papers did the same training, their numbers must be the same. What is shown and written of such a
table is made in `papertwin.side_by_side`.
"""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from papertwin.ledger import Ledger, Row

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
        lines: trainer, or `+ X` for all that add X to another → what the ledgers say of it, in their order.
        notes: paper → what its ledger says of its rows.
    """

    name: str
    protocol: str = ""
    found: dict[str, dict[Training, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    lines: dict[str, Row] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def sparsities(self) -> list[str]:
        """Every sparsity, ascending."""
        return sorted({key[1] for each in self.found.values() for key in each}, key=float)

    @property
    def trainers(self) -> list[str]:
        """Every trainer: dense ones, then as the ledgers list them; behind each, those whose names continue its own."""
        met = list(dict.fromkeys(key[0] for each in self.found.values() for key in each))
        sparse = {key[0] for each in self.found.values() for key in each if float(key[1])}
        place = {name: number for number, name in enumerate(dict.fromkeys([*self.lines, *met]))}

        def rank(name: str) -> tuple[bool, int, bool, int]:
            first = min((other for other in place if f"{name} ".startswith(f"{other} ")), key=len)
            listed = [place[part] for part in self.parts(name) if part in self.lines]
            return name in sparse, place[first], name != first, max(listed, default=place[name])

        return sorted(met, key=rank)

    def parts(self, trainer: str) -> list[str]:
        """The lines that explain a trainer: its own, or for `X + Y` those of `X` and `+ Y`, there or not."""
        base, *added = trainer.split(" + ")
        return [trainer] if trainer in self.lines or not added else [base, *(f"+ {each}" for each in added)]

    @property
    def explained(self) -> dict[str, Row]:
        """The lines that explain a trainer of this table."""
        used = {part for name in self.trainers for part in self.parts(name)}
        return {name: line for name, line in self.lines.items() if name in used}

    @property
    def unexplained(self) -> list[str]:
        """Trainers of which no ledger says in full what they are."""
        return [name for name in self.trainers if any(part not in self.lines for part in self.parts(name))]

    def before(self, trainer: str) -> str:
        """Say what a trainer needs to be done first, beyond the protocol; empty where that is nothing."""
        return "; ".join(line.before for part in self.parts(trainer) if (line := self.lines.get(part)) and line.before)

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

    def by_seed(self, trainer: str, sparsity: str) -> dict[str, float]:
        """Test accuracy of each seed of a trainer at a sparsity, in the order of the seeds."""
        each: dict[str, float] = {}
        for rows in self.found.values():
            each |= {seed: value for (name, at, seed), value in rows.items() if (name, at) == (trainer, sparsity)}
        return {seed: each[seed] for seed in sorted(each, key=int)}

    def papers(self, trainer: str, sparsity: str = "") -> list[str]:
        """Papers that trained it, at any sparsity or at one."""
        return [
            slug
            for slug, rows in self.found.items()
            if any(key[0] == trainer and sparsity in ("", key[1]) for key in rows)
        ]


def join(root: Path, books: Iterable[Ledger]) -> list[Joined]:
    """Put together what the plain runs of papers have saved.

    Args:
        root: the folder with a folder a run.
        books: ledgers; their trainers stand in the order of the papers' years.

    Returns:
        A table for each name and protocol; one that has only problems where no file can be read.
    """
    tables: dict[tuple[str, str], Joined] = {}
    broken: dict[str, list[str]] = defaultdict(list)
    lines: dict[str, dict[str, Row]] = defaultdict(dict)
    for book in sorted(books, key=lambda book: (book.paper.year, book.slug)):
        for exhibit in book.tables:
            if not exhibit.joined:
                continue
            lines[exhibit.joined] |= {
                name: row for name, row in exhibit.rows.items() if name not in lines[exhibit.joined]
            }
            found, problem = _saved(root / book.slug / f"{exhibit.id}.csv", book.slug)
            broken[exhibit.joined] += [problem] * bool(problem)
            for protocol, rows in found.items():
                table = tables.setdefault((exhibit.joined, protocol), Joined(exhibit.joined, protocol))
                table.found[book.slug] = rows
                table.notes |= {book.slug: exhibit.note} if exhibit.note else {}
    for table in tables.values():
        table.problems += disagreements(table)
    for name, problems in broken.items():
        first = next((each for each in tables.values() if each.name == name), None)
        table = first or tables.setdefault((name, ""), Joined(name))
        table.problems += problems
    for table in tables.values():
        table.lines = lines[table.name]
    return list(tables.values())


def _saved(path: Path, slug: str) -> tuple[dict[str, dict[Training, float]], str]:
    """Read a paper's table, or say why that cannot be done."""
    try:
        return read(path), ""
    except FileNotFoundError:
        return {}, f"{slug} has not been run: `papertwin run {slug}` adds its rows."
    except (OSError, ValueError, csv.Error) as error:
        return {}, f"{slug}: {path.name} cannot be joined, {error}; `papertwin run {slug} --force` mends it."


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
