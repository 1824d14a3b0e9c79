"""The command line: `papertwin list | run | plan | report | verify | data | bench | new`.

Everything heavy is imported inside the commands, so that `papertwin --help` answers at once.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from papertwin.errors import LedgerError, PaperTwinError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from papertwin.runner import Job, Outcome

INTERRUPTED = 130


class ProfileChoice(StrEnum):
    """Sizes at which a paper can run."""

    quick = "quick"
    full = "full"
    paper = "paper"


class DeviceChoice(StrEnum):
    """Where tensors live."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class DataAction(StrEnum):
    """What to do with the data sets."""

    list = "list"
    check = "check"
    fetch = "fetch"


class ErrorsAsMessages(TyperGroup):
    """Show the errors of this package as messages, without a traceback."""

    def invoke(self, ctx: typer.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except PaperTwinError as error:
            typer.secho(f"Error: {error}", fg="red", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            typer.secho("Interrupted. Earlier results are untouched.", fg="red", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="papertwin",
    cls=ErrorsAsMessages,
    help="Executable twins of research papers: every figure regenerated, every claim judged.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Slug = Annotated[str, typer.Argument(help="Paper, for example don (see `papertwin list`).")]
Profile = Annotated[ProfileChoice, typer.Option("--profile", help="Size of the run.")]
Changes = Annotated[
    list[str] | None, typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="Change a parameter.")
]


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


@app.command("list")
def list_papers() -> None:
    """List the papers, how many of their claims have which verdict, and the day (UTC) they last ran on this machine."""
    from rich.table import Table
    from rich.text import Text

    from papertwin import ledger, paths, progress, publish

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("paper", "year", "title"):
        table.add_column(name, no_wrap=name != "title")
    progress.verdict_columns(table)
    table.add_column("last run", no_wrap=True)
    figures = paths.figures_root()
    for slug in ledger.slugs():
        day = str(publish.last_run(figures, slug).get("finished", "–"))[: len("2026-01-31")]
        try:
            paper = ledger.load(slug).paper
            year, title = str(paper.year), Text(paper.title, no_wrap=True, overflow="ellipsis")
        except LedgerError as error:
            year, title = "–", Text(str(error), style="red")
        table.add_row(slug, year, title, *progress.verdicts(figures / slug), day)
    _console().print(table)
    _console().print("\n", progress.LEGEND, sep="")


@app.command()
def run(
    slugs: Annotated[list[str] | None, typer.Argument(help="Papers; all of them if none is given.")] = None,
    profile: Profile = ProfileChoice.quick,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", help="Notebooks at a time.", min=1)] = None,
    parameter: Changes = None,
    device: Annotated[DeviceChoice, typer.Option(help="Where to compute.")] = DeviceChoice.auto,
    force: Annotated[bool, typer.Option("--force", help="Run also what is up to date.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Store the executed notebooks in notebooks/ (plain quick runs).")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds for one notebook; by default ten times what it announces.", min=1)
    ] = None,
) -> None:
    """Run notebooks, regenerate their figures and judge their claims."""
    from papertwin import jobs as job_builder
    from papertwin import paths, progress, runner

    options = job_builder.Options(profile.value, device.value, timeout)
    todo, broken = job_builder.collect(slugs or [], parameter or [], options)
    if update:
        job_builder.require_plain(todo)
    console = _console()
    with progress.Display(console) as display:
        outcomes = broken + runner.run_jobs(todo, n_jobs=jobs, force=force, on_event=display)
    console.print(progress.summary(outcomes, paths.figures_root()))
    if update:
        _update_sources(console, todo, outcomes)
    _write_report(console)
    if any(outcome.status in ("failed", "stopped") for outcome in outcomes):
        raise typer.Exit(1)


def _update_sources(console: "Console", todo: "list[Job]", outcomes: "list[Outcome]") -> None:
    from papertwin import canonical, paths

    good = {outcome.address for outcome in outcomes if outcome.status in ("done", "skipped")}
    for job in todo:
        if job.address in good:
            executed = paths.figures_root() / job.address / f"{job.slug}.ipynb"
            canonical.update_source(executed, job.notebook)
            console.print(f"stored {job.notebook}", markup=False, soft_wrap=True)


def _write_report(console: "Console") -> None:
    from papertwin import paths, report

    console.print(f"report: {report.write(paths.figures_root())}", markup=False, soft_wrap=True)


@app.command()
def plan(slug: Slug, profile: Profile = ProfileChoice.quick, parameter: Changes = None) -> None:
    """Show what a profile would compute and what it costs, without running it."""
    from rich.markup import escape
    from rich.table import Table

    from papertwin import planning

    for title, rows in planning.plan(slug, profile.value, parameter or []).items():
        table = Table(title=escape(title), title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*map(escape, row))
        _console().print(table)


@app.command("report")
def write_report() -> None:
    """Write figures/index.html from the results that are there."""
    _write_report(_console())


@app.command()
def verify(
    png: Annotated[Path, typer.Argument(help="A figure, for example figures/don/fig4.png.")],
    device: Annotated[
        DeviceChoice | None, typer.Option(help="Where to compute; by default as the figure's own run was asked to.")
    ] = None,
) -> None:
    """Re-run a figure from the parameters stored inside it and compare the plotted arrays."""
    from papertwin import progress
    from papertwin.verify import verify as verify_figure

    console = _console()
    with progress.Display(console) as display:
        comparison = verify_figure(png, device and device.value, on_event=display)
    console.print(str(comparison), markup=False, soft_wrap=True)
    if not comparison.agrees:
        raise typer.Exit(1)


@app.command()
def data(
    action: Annotated[DataAction, typer.Argument(help="What to do.")] = DataAction.list,
    name: Annotated[str | None, typer.Argument(help="Data set; all of them if none is given.")] = None,
) -> None:
    """List the data sets (with NAME: where its files belong), check their checksums, or fetch an optional one."""
    from papertwin.data import registry

    if action is DataAction.check:
        problems = registry.check(name)
        for problem in problems:
            typer.secho(str(problem), fg="red", err=True)
        if problems:
            raise typer.Exit(1)
        typer.echo("Every file has the checksum that the registry expects.")
    elif action is DataAction.fetch:
        if name is None:
            raise typer.BadParameter("Name the data set to fetch, for example: papertwin data fetch NAME.")
        typer.echo(str(registry.fetch(name)))
    elif name is not None:
        typer.echo(_data_details(name))
    else:
        _console().print(_data_table(registry.names()))
        typer.echo("\nWhat one is and where its files belong: papertwin data list NAME")


def _data_details(name: str) -> str:
    from papertwin.data import registry

    entry = registry.describe(name)
    is_optional = entry.kind == "optional"
    place = registry.default().local(name) if is_optional else registry.default().folder / name
    expected = f"${registry.ENVIRONMENT}/{entry.folder or name}" if is_optional else f"data/{name}"
    facts = {
        "data set": f"{name}: {entry.title}",
        "kind": entry.kind,
        "here": _presence(name),
        "expected in": f"{expected}, now {place}",
        "url": entry.url,
        "licence": entry.licence,
        "origin": entry.origin,
        "note": entry.note,
        "files": f"\n{'':13}".join(file.path for file in entry.files),
    }
    return "\n".join(f"{title:12} {text}" for title, text in facts.items() if text)


def _presence(name: str) -> str:
    from papertwin.data import registry

    return "present" if registry.present(name) else "absent"


def _data_table(names: list[str]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    from papertwin.data import registry

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("data set", "kind", "here", "files", "MB", "licence", "title"):
        table.add_column(title, justify="right" if title in ("files", "MB") else "left", no_wrap=title == "data set")
    for name in names:
        entry = registry.describe(name)
        size = f"{sum(file.bytes for file in entry.files) / 1e6:.1f}" if entry.files else "–"
        texts = (name, entry.kind, _presence(name), str(len(entry.files) or "–"), size, entry.licence, entry.title)
        table.add_row(*map(escape, texts))
    return table


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Benchmark, for example don.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there as well.")
    ] = None,
) -> None:
    """Measure speed on this machine and print a table."""
    from papertwin import bench as benchmarks
    from papertwin import files

    found = benchmarks.run_benchmark(name)
    _console().print(found.table())
    if json_file is not None:
        files.write_text(json_file, found.to_json())


@app.command()
def new(slug: Annotated[str, typer.Argument(help="Short name of the paper: letters, digits, _ or -.")]) -> None:
    """Lay out ledger, module, notebook and test for one more paper."""
    from papertwin import scaffold

    for path in scaffold.create(slug):
        typer.echo(f"wrote {path}")


if __name__ == "__main__":
    app()
