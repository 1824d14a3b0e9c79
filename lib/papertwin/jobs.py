"""From a paper, a profile and options to a job: everything that can be wrong is found before anything runs."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from papertwin import fingerprint, ledger, parameters, paths
from papertwin.errors import LedgerError, PaperTwinError, ParameterError, RunError
from papertwin.results import address
from papertwin.runner import Failure, Job, Outcome

PATIENCE = 10  # a run may take this many times the minutes that its ledger announces …
LEAST_MINUTES = 10.0  # … and never less than this


@dataclass(frozen=True)
class Options:
    """What a user may choose for a run.

    Attributes:
        profile: quick, full or paper.
        device: auto, cpu, cuda or mps.
        timeout: seconds for the whole notebook; None for ten times the ledger's minutes, at least ten minutes.
    """

    profile: str = "quick"
    device: str = "auto"
    timeout: float | None = None


def declared(slug: str) -> list[parameters.Parameter]:
    """Read what a paper's notebook declares."""
    return parameters.read_parameters(paths.notebook(slug))


def module(slug: str) -> ModuleType | None:
    """Import the module of a paper; None if it has none.

    Raises:
        RunError: it cannot be imported.
    """
    name = f"papertwin.papers.{slug}"
    if importlib.util.find_spec(name) is None:
        return None
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise RunError(f"{slug}: {name} cannot be imported, {type(error).__name__}: {error}. Correct it.") from error


def typed(slug: str, values: Mapping[str, Any]) -> Any:
    """Build the `Params` of a paper, which refuse values that no experiment can use; None if it has no module.

    Raises:
        ParameterError: a value is refused.
        RunError: the paper's module cannot be imported, or has no `Params`.
    """
    found = module(slug)
    if found is None:
        return None
    if not hasattr(found, "Params"):
        raise RunError(
            f"{slug}: {found.__name__} has no class Params, which checks values. Add the frozen dataclass, with a "
            "field for each parameter of the notebook."
        )
    return parameters.typed(slug, found.Params, values)


def from_texts(slug: str, assignments: Sequence[str], options: Options) -> Job:
    """Build the job of a paper from `-p` texts; see `build`."""
    book = ledger.load(slug)
    return build(book, parameters.parse_overrides(assignments, declared(book.slug)), options)


def build(book: ledger.Ledger, overrides: Mapping[str, Any], options: Options) -> Job:
    """Build the job of a paper.

    Args:
        book: the paper's ledger.
        overrides: typed values by parameter name.
        options: profile, device and time limit.

    Raises:
        LedgerError: no such profile, or ledger and notebook disagree.
        ParameterError: an unknown parameter, a wrong type or value, or a notebook without the common parameters.
        RunError: the notebook cannot be read, or the paper's module cannot be imported.
    """
    notebook: Path = paths.notebook(book.slug)
    known = parameters.read_parameters(notebook)
    values, kept = parameters.resolve(book, options.profile, overrides, known)
    defaults = {parameter.name: parameter.default for parameter in known}
    if missing := sorted({"profile", "device", "seed"} - set(defaults)):
        raise ParameterError(
            f"{notebook.name}: its parameters cell lacks {', '.join(missing)}; every notebook declares "
            "profile, device and seed."
        )
    values["device"] = options.device
    if kept:  # what notebook and profiles say themselves is known to be right, and torch takes a second to import
        typed(book.slug, values)
    chosen = {"profile": options.profile, "device": options.device, **kept}
    profile = book.profiles[options.profile]  # type: ignore[index]
    return Job(
        slug=book.slug,
        address=address(book.slug, options.profile, kept),
        notebook=notebook,
        parameters={name: value for name, value in chosen.items() if value != defaults[name]},
        fingerprint=fingerprint.fingerprint(book.slug, notebook, values, profile.data),
        exclusive=book.paper.exclusive,
        timeout=options.timeout or 60 * max(LEAST_MINUTES, PATIENCE * profile.minutes),
    )


def collect(slugs: Sequence[str], assignments: Sequence[str], options: Options) -> tuple[list[Job], list[Outcome]]:
    """Build the jobs of several papers; one that cannot be built does not stop the others.

    Args:
        slugs: papers, hyphens allowed; all that have a ledger if empty.
        assignments: `-p` texts, which every one of the papers must know.
        options: profile, device and time limit.

    Returns:
        The jobs, and a failed outcome for each paper whose own files are at fault.

    Raises:
        LedgerError: a slug that is no paper.
        ParameterError: an assignment that one of the papers does not accept.
        PaperTwinError: the only paper asked for cannot be built.
    """
    names = list(dict.fromkeys(slug.replace("-", "_") for slug in slugs)) or ledger.slugs()
    if unknown := sorted(set(names) - set(ledger.slugs())):
        raise LedgerError(
            f"No paper is called {', '.join(unknown)}. Known papers: {', '.join(ledger.slugs()) or 'none yet'}."
        )
    todo, broken = [], []
    for name in names:
        try:
            todo.append(from_texts(name, assignments, options))
        except PaperTwinError as error:
            if assignments or len(names) == 1:
                raise
            broken.append(Outcome(name, "failed", failure=Failure("setup", str(error))))
    return todo, broken


def require_plain(todo: Sequence[Job]) -> None:
    """Refuse to store a notebook that was not run with its own parameters.

    Raises:
        ParameterError: a job has other parameters than the notebook.
    """
    for job in todo:
        if job.parameters:
            changed = ", ".join(f"{name}={value!r}" for name, value in job.parameters.items())
            raise ParameterError(
                f"--update stores plain quick runs only; {job.slug} would run with {changed}. "
                "Leave these options away, or change the defaults in the notebook."
            )
