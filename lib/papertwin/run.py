"""What a notebook holds while it runs: parameters, device, outputs, verdicts.

    run = papertwin.start("don", globals())
    ...
    run.save(figure, "fig3")
    claims = run.claims({"C1": Measured(0.93, (0.90, 0.95))})

The same notebook works in JupyterLab, under plain papermill and under `papertwin run`.
"""

import dataclasses
import importlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from papertwin import files, ledger, machine, paths, provenance, results
from papertwin.claims import Claims, Measured, judge
from papertwin.errors import LedgerError
from papertwin.parameters import resolve_namespace, typed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def start(slug: str, namespace: Mapping[str, Any]) -> "Run":
    """Begin the run of a paper's notebook: check the parameters, seed everything, pick the device.

    A parameter that still has quick's value takes the chosen profile's value; one that differs is an override and
    is kept. Prints one line that says what runs.

    Args:
        slug: the paper.
        namespace: the notebook's `globals()`, which holds the parameters.

    Raises:
        LedgerError: no such paper or profile.
        ParameterError: a parameter is missing or has the wrong type; the message lists every one.
    """
    from papertwin.figures import style
    from papertwin.training.device import pick_device, seed_everything

    book = ledger.load(slug)
    module = importlib.import_module(f"papertwin.papers.{book.slug}")
    values, overrides = resolve_namespace(book, module.Params, namespace)
    params = typed(book.slug, module.Params, values)
    device = pick_device(params.device)
    seed_everything(params.seed)
    style.use()
    run = Run(book, params, overrides, str(device))
    changed = "".join(f" · {name} = {value!r}" for name, value in overrides.items())
    print(f"{book.paper.title} · profile {params.profile} · device {device} · seed {params.seed}{changed}")
    return run


class Run:
    """One execution of one paper's notebook.

    Attributes:
        ledger: the paper's ledger.
        params: the paper's typed parameters, profile applied.
        overrides: parameters that were changed by hand, name → value.
        device: the torch device, as text.
        folder: where figures, tables and results.json go.
    """

    def __init__(self, book: ledger.Ledger, params: Any, overrides: dict[str, Any], device: str):
        """Prepare the output folder's name and start the clock; nothing is written yet."""
        self.ledger, self.params, self.overrides, self.device = book, params, overrides, device
        self.folder = paths.figures_root() / results.address(book.slug, params.profile, overrides)
        self._began = time.perf_counter()
        self._origin = provenance.collect(book.profiles[params.profile].data)
        self._saved: dict[str, results.Saved] = {}

    def save(self, figure: "Figure", name: str, stamp: str | None = None) -> None:
        """Save a figure of the ledger as PNG, PDF and JSON arrays, with its stamp on it and provenance inside.

        Args:
            figure: the figure as it is shown.
            name: its id in the ledger, for example "fig3".
            stamp: what to write on it in place of the ledger's stamp; None keeps that, filled in from the parameters.

        Raises:
            LedgerError: the ledger has no such figure.
            RunError: the output folder cannot be written.
        """
        from papertwin import figures

        exhibit = self._exhibit(name)
        text = exhibit.stamped(self.params) if stamp is None else stamp
        if text:
            figures.stamp(figure, text)
        written = figures.save_figure(figure, self.folder, name, {"figure": name, **self._identity()})
        self._saved[name] = results.Saved.of(exhibit, written, text)

    def table(self, frame: "pd.DataFrame", name: str) -> "pd.DataFrame":
        """Save a table of the ledger as CSV and return it, so that the cell shows it."""
        exhibit = self._exhibit(name)
        path = self.folder / f"{name}.csv"
        files.write_text(path, frame.to_csv(float_format="%.9g", lineterminator="\n"))
        self._saved[name] = results.Saved.of(exhibit, {"data": path}, exhibit.stamped(self.params))
        return frame

    def claims(self, measured: Mapping[str, Measured]) -> Claims:
        """Judge the claims, write results.json and return the verdicts.

        Raises:
            LedgerError: an unknown or missing claim, or a figure of status `regenerated` that was not saved.
        """
        due = {e.id for e in self.ledger.exhibits if e.status == "regenerated"}
        if absent := sorted(due - set(self._saved)):
            raise LedgerError(
                f"{self.ledger.slug}: the ledger says regenerated, but this run has not saved {', '.join(absent)}. "
                "Save them before run.claims, or change their status and say why."
            )
        claims = Claims(judge(self.ledger, self.params.profile, measured))
        results.write(self.folder, self._results(claims))
        return claims

    def provenance(self) -> dict[str, Any]:
        """Everything that the results depend on: code, packages, data, platform, parameters."""
        return {**self._identity(), "folder": self.folder.name}

    def _exhibit(self, name: str) -> ledger.Exhibit:
        for exhibit in self.ledger.exhibits:
            if exhibit.id == name:
                return exhibit
        known = ", ".join(e.id for e in self.ledger.exhibits)
        raise LedgerError(f"{self.ledger.slug} has no figure or table {name!r}; its ledger lists {known}.")

    def _identity(self) -> dict[str, Any]:
        return {
            "paper": self.ledger.slug,
            "profile": self.params.profile,
            "parameters": dataclasses.asdict(self.params),
            "overrides": self.overrides,
            "device": self.device,
            "provenance": self._origin,
        }

    def _results(self, claims: Claims) -> results.Results:
        tables = {exhibit.id for exhibit in self.ledger.tables}
        return results.Results(
            schema=results.SCHEMA,
            title=self.ledger.paper.title,
            **self._identity(),
            seconds=round(time.perf_counter() - self._began, 1),
            peak_memory_mb=round(machine.peak_memory() / 2**20),
            figures=[saved for name, saved in self._saved.items() if name not in tables],
            tables=[saved for name, saved in self._saved.items() if name in tables],
            claims=[results.JudgedClaim.of(judgement) for judgement in claims.judgements],
        )
