"""From a paper, a profile and options to a job: everything that can be wrong is found before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papertwin import fingerprint, ledger, parameters, paths
from papertwin.errors import ParameterError
from papertwin.run import address
from papertwin.runner import Job

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
    return parameters.read(paths.notebook(slug))


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
        ParameterError: an unknown parameter, a wrong type, or a notebook without the common parameters.
        RunError: the notebook cannot be read.
    """
    notebook: Path = paths.notebook(book.slug)
    known = parameters.read(notebook)
    values, kept = parameters.resolve(book, options.profile, overrides, known)
    defaults = {parameter.name: parameter.default for parameter in known}
    if missing := sorted({"profile", "device", "seed"} - set(defaults)):
        raise ParameterError(
            f"{notebook.name}: its parameters cell lacks {', '.join(missing)}; every notebook declares "
            "profile, device and seed."
        )
    values["device"] = options.device
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
