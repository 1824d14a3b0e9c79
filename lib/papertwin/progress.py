"""What a user sees of a run: a live line per notebook on a terminal, plain lines elsewhere, a table at the end."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from papertwin import results, words
from papertwin.errors import RunError
from papertwin.runner import Event, Failure, Outcome

QUIET = 5.0  # seconds between two plain lines of one notebook
WORDS = {"done": "[green]done[/]", "skipped": "up to date", "failed": "[red]failed[/]", "stopped": "stopped"}
# verdict → head of its column, style
VERDICTS = {
    "REPRODUCED": ("yes", "green"),
    "NOT REPRODUCED": ("no", "red"),
    "INCONCLUSIVE": ("open", "yellow"),
    "NOT JUDGED": ("n/a", "dim"),
}
LEGEND = Text.from_markup("Claims: " + " · ".join(f"[{s}]{head}[/] {name}" for name, (head, s) in VERDICTS.items()))


class Display:
    """Show the events of a run; use as a context manager and give it to `run_jobs` as `on_event`."""

    def __init__(self, console: Console):
        """Draw live lines if the console is a terminal, else print plain ones."""
        self.console = console
        self.tasks: dict[str, int] = {}
        self.said: dict[str, float] = {}
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[place]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        """Start the live lines."""
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the live lines."""
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "waiting":
            self._print(f"{event.address}: another papertwin runs this paper; waiting until it has finished")
        elif event.kind == "cell":
            self._cell(event)
        elif event.outcome is not None:
            self._ended(event.outcome)

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _cell(self, event: Event) -> None:
        place = f"cell {event.index} of {event.of}" if event.index else "starting"
        if self.console.is_terminal:
            if event.address not in self.tasks:
                self.tasks[event.address] = self.progress.add_task(event.address, total=event.of, place=place)
            task = self.tasks[event.address]
            self.progress.update(task, completed=max(0, event.index - 1), place=place)  # type: ignore[arg-type]
            return
        now = time.monotonic()
        if now - self.said.get(event.address, -QUIET) >= QUIET:
            self.said[event.address] = now
            self._print(f"{event.address}: {place}" + (f", {words.duration(event.seconds)}" if event.index else ""))

    def _ended(self, outcome: Outcome) -> None:
        if outcome.address in self.tasks:
            self.progress.remove_task(self.tasks.pop(outcome.address))  # type: ignore[arg-type]
        word = Text.from_markup(WORDS[outcome.status]).plain
        took = f" in {words.duration(outcome.seconds)}" if outcome.status in ("done", "failed") else ""
        self._print(f"{outcome.address}: {word}{took}")


def verdict_columns(table: Table) -> None:
    """Add the columns that `verdicts` fills."""
    for head, style in VERDICTS.values():
        table.add_column(head, justify="right", style=style, no_wrap=True)


def verdicts(folder: Path) -> list[str]:
    """Count the verdicts of an output folder, in the order of the columns; "–" for each if nothing was judged."""
    try:
        counts = results.read(folder).counts
    except RunError:
        counts = {}
    return [str(counts[name]) if any(counts.values()) else "–" for name in VERDICTS]


def summary(outcomes: Sequence[Outcome], figures: Path) -> Group:
    """Lay out the table at the end of a run and, below it, where and why notebooks failed."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("paper", "result", "time"):
        table.add_column(title)
    verdict_columns(table)
    for outcome in outcomes:
        fresh = outcome.status in ("done", "skipped")
        took = words.duration(outcome.seconds) if outcome.status in ("done", "failed") else ""
        found = verdicts(figures / outcome.address) if fresh else []
        table.add_row(escape(outcome.address), WORDS[outcome.status], took, *found)
    failures = [describe_failure(o.address, o.failure) for o in outcomes if o.failure is not None]
    return Group("", table, "", LEGEND, *failures)


def describe_failure(address: str, failure: Failure) -> Text:
    """Say where a notebook failed, with the head of the cell and the place of the partial notebook."""
    where = f"cell {failure.cell}" if failure.cell else {"setup": "before the run"}.get(failure.kind, "the run")
    text = Text(f"\n{address}: {where} failed", style="bold red")
    text.append(f" ({failure.kind}): {failure.exception}\n", style="not bold")
    for line in failure.source.splitlines():
        text.append(f"    {line}\n", style="not bold dim")
    if failure.kind == "other" and failure.traceback:
        text.append(Text.from_ansi(failure.traceback, style="not bold dim")).append("\n")
    if failure.notebook is not None:
        text.append(f"  partial notebook: {failure.notebook}\n", style="not bold")
    if failure.kind == "timeout":
        text.append("  a longer limit: papertwin run --timeout SECONDS\n", style="not bold")
    return text
