"""Check a published figure: run its notebook again from the parameters inside the PNG and compare the arrays."""

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from papertwin import jobs, ledger
from papertwin.errors import ParameterError, RunError
from papertwin.runner import Event, run_jobs

RTOL, ATOL = 1e-6, 1e-9


class Origin(BaseModel):
    """What a figure says of itself, as far as it is needed to make it again."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    paper: str
    figure: str
    profile: str
    parameters: dict[str, Any]

    @property
    def device(self) -> str:
        """The device that the run was asked for, not the one that it found."""
        return str(self.parameters.get("device", "auto"))


@dataclass(frozen=True)
class Comparison:
    """How the arrays of a fresh run compare with the published ones.

    Attributes:
        figure: what was compared.
        numbers: how many numbers were compared.
        deviation: largest absolute deviation.
        relative: largest deviation as a fraction of the published number's size.
        differences: what differs beyond the tolerance, at most ten places.
    """

    figure: str
    numbers: int
    deviation: float
    relative: float
    differences: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether structure and values agree."""
        return not self.differences

    def __str__(self) -> str:
        """Say it in a few lines."""
        size = f"{self.numbers} numbers, largest deviation {self.deviation:.3g} (relative {self.relative:.3g})"
        if self.agrees:
            return f"{self.figure}: the arrays agree; {size}"
        return "\n".join([f"{self.figure}: the arrays DIFFER; {size}", *(f"  {line}" for line in self.differences)])


def read_provenance(png: Path) -> Origin:
    """Read what a run has stored inside a PNG.

    Raises:
        RunError: no such file, not a PNG, not one of PaperTwin's, or with a provenance that is not understood.
    """
    from papertwin.figures import save

    try:
        found = save.read_provenance(png)
    except OSError as error:
        raise RunError(f"Cannot read {png} as a PNG: {error}. Name a figure such as figures/don/fig4.png.") from error
    except (KeyError, ValueError) as error:
        raise RunError(
            f"{png} carries no provenance of PaperTwin (text chunk {save.CHUNK!r}). Only PNG files that a run has "
            "written can be verified."
        ) from error
    try:
        return Origin.model_validate(found)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'all of it'}: {e['msg']}" for e in error.errors())
        raise RunError(f"The provenance inside {png} is not understood ({wrong}); regenerate the figure.") from error


def verify(png: Path, device: str | None = None, on_event: Callable[[Event], None] | None = None) -> Comparison:
    """Re-run a figure's notebook into a temporary folder and compare the plotted arrays.

    Args:
        png: a published figure; its arrays lie beside it as JSON.
        device: where to compute; by default what the figure's own run was asked for.
        on_event: told about the progress of the run.

    Raises:
        RunError: the PNG or its arrays cannot be read, it is a table, the figure shows measured time,
            or the run failed.
        ParameterError: the notebook no longer has the stored parameters.
        LedgerError: the paper or figure does not exist any more.
    """
    origin = read_provenance(png)
    book = ledger.load(origin.paper)
    name = origin.figure
    _refuse_incomparable(book, name)
    published = _arrays(png.with_suffix(".json"))
    job = jobs.build(book, _overrides(book, origin), jobs.Options(origin.profile, device or origin.device))
    with tempfile.TemporaryDirectory(prefix="papertwin-verify-") as folder:
        (outcome,) = run_jobs([job], force=True, figures=Path(folder), on_event=on_event)
        if outcome.status != "done":
            reason = outcome.failure.exception if outcome.failure else outcome.status
            cell = f"cell {outcome.failure.cell}: " if outcome.failure and outcome.failure.cell else ""
            raise RunError(f"Cannot verify {png}: the fresh run of {book.slug} failed, {cell}{reason}.")
        fresh = _arrays(Path(folder) / job.address / f"{name}.json")
    return compare(f"{job.address}/{name}", published, fresh)


def _refuse_incomparable(book: ledger.Ledger, name: str) -> None:
    if name in {entry.id for entry in book.tables}:
        raise RunError(f"{book.slug}/{name} is a table; only figures hold arrays to compare. Name a figure.")
    exhibit = next((entry for entry in book.figures if entry.id == name), None)
    if exhibit is None:
        raise RunError(f"{book.slug} has no figure {name!r} any more; its ledger lists {[e.id for e in book.figures]}.")
    if exhibit.timing:
        raise RunError(
            f"{book.slug}/{name} shows measured time, which no second run repeats; it is not comparable. "
            "Verify another figure of the paper."
        )


def _overrides(book: ledger.Ledger, origin: Origin) -> dict[str, Any]:
    """Return the stored parameters that the notebook must be given; those of the profile fall away in `jobs.build`."""
    known = {parameter.name: parameter for parameter in jobs.declared(book.slug)}
    stored = {name: value for name, value in origin.parameters.items() if name not in ("profile", "device")}
    if unknown := sorted(set(stored) - set(known)):
        raise ParameterError(
            f"{book.slug}: the figure was made with parameters {unknown}, which the notebook no longer has. "
            "Check out the commit named in its provenance, or regenerate the figure."
        )
    return stored


def _arrays(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["axes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"Cannot read the plotted arrays {path} ({type(error).__name__}: {error}). They are written beside the "
            "PNG; regenerate the figure with `papertwin run`."
        ) from error


def compare(figure: str, published: Any, fresh: Any) -> Comparison:
    """Compare two JSON structures: same shape, same texts, numbers within RTOL and ATOL (NaN equals NaN).

    Args:
        figure: how to call them.
        published: the arrays as published; deviations are relative to these.
        fresh: the arrays of the new run.
    """
    walk = _Walk()
    walk.visit("axes", published, fresh)
    return Comparison(figure, walk.numbers, walk.deviation, walk.relative, tuple(walk.differences[:10]))


class _Walk:
    def __init__(self) -> None:
        self.numbers, self.deviation, self.relative = 0, 0.0, 0.0
        self.differences: list[str] = []

    def visit(self, place: str, old: Any, new: Any) -> None:
        if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
            for key in old:
                self.visit(f"{place}.{key}", old[key], new[key])
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for index, pair in enumerate(zip(old, new)):
                self.visit(f"{place}[{index}]", *pair)
        elif _is_number(old) and _is_number(new):
            self._number(place, float(old), float(new))
        elif type(old) is not type(new) or old != new:
            self.differences.append(f"{place}: published {_brief(old)}, now {_brief(new)}")

    def _number(self, place: str, old: float, new: float) -> None:
        self.numbers += 1
        if old == new or (math.isnan(old) and math.isnan(new)):
            return
        gap = abs(old - new)
        if not (math.isfinite(gap) and gap <= ATOL + RTOL * abs(old)):
            self.differences.append(f"{place}: published {old!r}, now {new!r}")
        if math.isfinite(gap):
            self.deviation = max(self.deviation, gap)
            self.relative = max(self.relative, gap / abs(old) if old else math.inf)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _brief(value: Any) -> str:
    kind = f"{type(value).__name__} of {len(value)}" if isinstance(value, list | dict) else repr(value)
    return kind if len(kind) <= 60 else kind[:59] + "…"
