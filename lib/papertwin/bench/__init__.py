"""Benchmarks: what PaperTwin computes, how fast, and against which named peer.

A benchmark is a module `papertwin/bench/<name>.py` with `run(progress) -> BenchResult`. `progress(text, done)` takes
what is being measured and the share of the work that is done, in [0, 1].

    >>> from papertwin.bench import available, run_benchmark
    >>> result = run_benchmark("don")                       # doctest: +SKIP
    >>> print(result.to_json())                             # doctest: +SKIP
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from papertwin.errors import ParameterError

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class BenchResult:
    """What one benchmark measured.

    Attributes:
        name: the benchmark.
        machine: processor, cores and memory, in words.
        threads: threads that both sides used.
        rows: one dict a measurement; keys are column titles, the same unit throughout a column. A value that is a dict
            itself (`details`) goes into the JSON only, so that the table fits a terminal.
        headline: `figure` (what is compared, in words), `ratio` (peer's time over ours) and `goal` (of the ratio).
    """

    name: str
    machine: str
    threads: int
    rows: list[dict[str, Any]]
    headline: dict[str, Any]

    def to_json(self) -> str:
        """The result as JSON text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def table(self) -> Any:
        """The result as a `rich` table."""
        from rich import box
        from rich.table import Table

        reached = "reached" if self.headline["ratio"] >= self.headline["goal"] else "NOT reached"
        caption = f"{self.headline['figure']}: {self.headline['ratio']:.1f}x, goal {self.headline['goal']}x {reached}"
        title = f"{self.name} · {self.machine} · {self.threads} threads"
        table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=0, collapse_padding=True)
        columns = list(
            dict.fromkeys(key for row in self.rows for key, value in row.items() if not isinstance(value, dict))
        )
        for column in columns:
            numeric = any(isinstance(row.get(column), int | float) for row in self.rows)
            table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*(_text(row.get(column)) for column in columns))
        return table


def available() -> list[str]:
    """Names of the benchmarks, sorted."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def run_benchmark(name: str, progress: Progress | None = None) -> BenchResult:
    """Run one benchmark; without `progress`, a line on standard error shows how far it is.

    Raises:
        ParameterError: no such benchmark.
    """
    name = name.replace("-", "_")
    if name not in available():
        raise ParameterError(f"No benchmark {name!r}: expected one of {', '.join(available())}.")
    module = import_module(f"papertwin.bench.{name}")
    if progress is not None:
        return module.run(progress)
    with _Bar() as bar:
        return module.run(bar)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


class _Bar:
    """A progress line on standard error: callable like every `progress`."""

    def __enter__(self) -> "_Bar":
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._shown = Progress(*columns, console=Console(stderr=True))
        self._shown.start()
        self._task = self._shown.add_task("starting", total=1.0)
        return self

    def __call__(self, text: str, done: float) -> None:
        self._shown.update(self._task, description=text, completed=done)

    def __exit__(self, *_: object) -> None:
        self._shown.stop()
