"""What a notebook holds while it runs: parameters, device, outputs, verdicts.

    run = papertwin.start("don", globals())
    ...
    run.save(figure, "fig3")
    claims = run.claims({"C1": Measured(0.93, (0.90, 0.95))})

The same notebook works in JupyterLab, under plain papermill and under `papertwin run`.
"""

import dataclasses
import hashlib
import importlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import psutil
from pydantic import TypeAdapter, ValidationError

from papertwin import files, ledger, paths, provenance
from papertwin.claims import Judgement, Measured, Verdict, judge
from papertwin.errors import LedgerError, ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SCHEMA = 1
UNSTABLE = "see the table (rests on measured time, or is a close call)"


def address(slug: str, profile: str, overrides: Mapping[str, Any]) -> str:
    """Name the output folder of a run: the slug alone only for the plain quick profile.

    Another profile or any override gets its own folder, so that a trial never replaces the committed figures.

    >>> address("don", "quick", {}), address("don", "full", {}), address("don", "quick", {"seed": 3})
    ('don', 'don@full', 'don@quick-80cc03b7')
    """
    if not overrides:
        return slug if profile == "quick" else f"{slug}@{profile}"
    text = json.dumps(dict(overrides), sort_keys=True)
    return f"{slug}@{profile}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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
    params, overrides = _resolve(book, module.Params, namespace)
    device = pick_device(params.device)
    seed_everything(params.seed)
    style.use()
    run = Run(book, params, overrides, str(device))
    changed = "".join(f" · {name} = {value!r}" for name, value in overrides.items())
    print(f"{book.paper.title} · profile {params.profile} · device {device} · seed {params.seed}{changed}")
    return run


def _resolve(book: ledger.Ledger, params_type: type, namespace: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Check the notebook's parameters and merge them with the profile's; return (Params, overrides)."""
    names = [field.name for field in dataclasses.fields(params_type)]
    if missing := [name for name in names if name not in namespace]:
        raise ParameterError(
            f"{book.slug}: the notebook does not define {', '.join(missing)}. Its parameters cell must set "
            f"{', '.join(names)}; run that cell before papertwin.start."
        )
    given = {name: namespace[name] for name in names}
    quick = book.parameters("quick")
    chosen = book.parameters(given["profile"])
    overrides = {name: given[name] for name in quick if given[name] != quick[name]}
    if given["seed"] != params_type.seed:
        overrides["seed"] = given["seed"]
    values = {**given, **chosen, **overrides}
    return typed(book.slug, params_type, values), overrides


def typed(slug: str, params_type: type, values: Mapping[str, Any]) -> Any:
    """Build a paper's Params from plain values, each checked strictly against its annotation.

    Raises:
        ParameterError: one or more values have the wrong type; the message names every one.
    """
    wrong = []
    for name, annotation in get_type_hints(params_type).items():
        try:
            TypeAdapter(annotation).validate_python(values[name], strict=True)
        except ValidationError as error:
            wrong.append(f"  {name}: got {values[name]!r}; {error.errors()[0]['msg'].lower()}")
    if wrong:
        lines = "\n".join(wrong)
        raise ParameterError(
            f"{slug}: parameters of the wrong type or value:\n{lines}\nCorrect the parameters cell or the -p option."
        )
    return params_type(**values)


class Claims:
    """The judged claims of a run: a full table for the reader, verdict lines that CI compares."""

    def __init__(self, judgements: list[Judgement]):
        """Hold the judgements in the ledger's order."""
        self.judgements = judgements

    @property
    def table(self) -> "pd.DataFrame":
        """Every claim with the published and the measured value, the rule and the verdict."""
        import pandas as pd

        pd.set_option("display.max_colwidth", None)
        rows = [
            {
                "claim": j.claim.id,
                "statement": j.claim.statement,
                "source": j.claim.source,
                "published": j.claim.published,
                "measured": describe(j.measured),
                "rule": j.claim.rule.text,
                "verdict": str(j.verdict),
                "note": j.reason,
            }
            for j in self.judgements
        ]
        return pd.DataFrame(rows).set_index("claim")

    @property
    def verdicts(self) -> str:
        """One line per claim whose verdict is clear on any machine; the others are named, not decided."""
        return "\n".join(f"{j.claim.id:4} {j.verdict if j.claim.stable else UNSTABLE}" for j in self.judgements)

    def count(self) -> dict[str, int]:
        """Verdict → number of claims."""
        return {str(v): sum(j.verdict is v for j in self.judgements) for v in Verdict}


def describe(measured: Measured) -> str:
    """Write a measured value for people: `0.93 [0.90, 0.95]`, `yes`, `–`."""
    if measured.value is None:
        return "–"
    if isinstance(measured.value, bool):
        return "yes" if measured.value else "no"
    text = f"{measured.value:.3g}"
    if measured.interval:
        text += f" [{measured.interval[0]:.3g}, {measured.interval[1]:.3g}]"
    return text


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
        self.folder = paths.figures_root() / address(book.slug, params.profile, overrides)
        self._began = time.perf_counter()
        self._origin = provenance.collect(book.profiles[params.profile].data)
        self._saved: dict[str, dict[str, Any]] = {}

    def save(self, figure: "Figure", name: str) -> None:
        """Save a figure of the ledger as PNG, PDF and JSON arrays, with the run's provenance inside.

        Args:
            figure: the figure as it is shown.
            name: its id in the ledger, for example "fig3".

        Raises:
            LedgerError: the ledger has no such figure.
            RunError: the output folder cannot be written.
        """
        from papertwin.figures.save import save_figure

        exhibit = self._exhibit(name)
        written = save_figure(figure, self.folder, name, {"figure": name, **self._identity()})
        self._saved[name] = self._entry(exhibit, written)

    def table(self, frame: "pd.DataFrame", name: str) -> "pd.DataFrame":
        """Save a table of the ledger as CSV and return it, so that the cell shows it."""
        exhibit = self._exhibit(name)
        path = self.folder / f"{name}.csv"
        files.write_text(path, frame.to_csv(float_format="%.9g", lineterminator="\n"))
        self._saved[name] = self._entry(exhibit, {"data": path})
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
        files.write_json(self.folder / "results.json", self._results(claims))
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

    def _entry(self, exhibit: ledger.Exhibit, written: Mapping[str, Path]) -> dict[str, Any]:
        listed = {kind: {"path": p.name, "sha256": files.sha256(p)} for kind, p in written.items()}
        return {"id": exhibit.id, "caption": exhibit.caption, "source": exhibit.source, "files": listed}

    def _results(self, claims: Claims) -> dict[str, Any]:
        tables = {e.id for e in self.ledger.tables}
        saved = list(self._saved.values())
        return {
            "schema": SCHEMA,
            "title": self.ledger.paper.title,
            **self._identity(),
            "seconds": round(time.perf_counter() - self._began, 1),
            "peak_memory_mb": round(peak_memory() / 2**20),
            "figures": [entry for entry in saved if entry["id"] not in tables],
            "tables": [entry for entry in saved if entry["id"] in tables],
            "verdicts": claims.count(),
            "claims": [_claim_entry(judgement) for judgement in claims.judgements],
        }


def _claim_entry(judgement: Judgement) -> dict[str, Any]:
    claim, found = judgement.claim, judgement.measured
    return {
        "id": claim.id,
        "statement": claim.statement,
        "source": claim.source,
        "published": claim.published,
        "measured": found.value,
        "shown": describe(found),
        "interval": list(found.interval) if found.interval else None,
        "rule": claim.rule.text,
        "verdict": str(judgement.verdict),
        "note": judgement.reason,
        "stable": claim.stable,
    }


def peak_memory() -> int:
    """Peak resident memory of this process in bytes (the present one where the platform keeps no peak)."""
    try:
        import resource
    except ImportError:
        return psutil.Process().memory_info().rss
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
