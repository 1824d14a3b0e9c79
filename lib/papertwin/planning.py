"""What a profile would compute and cost, before anything is run."""

import dataclasses
import importlib
import importlib.util
from typing import Any

from papertwin import ledger, parameters, paths

Rows = list[tuple[str, ...]]


def plan(slug: str, profile: str) -> dict[str, Rows]:
    """Describe a profile of a paper: its parameters, its cost and, where the paper computes one, its own plan.

    Args:
        slug: the paper.
        profile: quick, full or paper.

    Returns:
        Title of a table → its rows.

    Raises:
        LedgerError: no such paper or profile, or ledger and notebook disagree.
    """
    book = ledger.load(slug)
    known = parameters.read_parameters(paths.notebook(book.slug))
    values, _ = parameters.resolve(book, profile, {}, known)
    entry = book.profiles[profile]  # type: ignore[index]
    cost = [
        ("time", f"about {entry.minutes:g} minutes"),
        ("memory", f"{entry.memory_gb:g} GB"),
        ("device", entry.device),
        ("data", ", ".join(entry.data) or "none"),
    ]
    tables: dict[str, Rows] = {
        f"{book.paper.title} · profile {profile}": [*cost, *([("note", entry.note)] if entry.note else [])],
        "\nparameters": [(p.name, repr(values[p.name]), p.annotation, p.help) for p in known],
    }
    if own := _own_plan(book.slug, values):
        tables["\nplan"] = [(name, _show(value)) for name, value in own.items()]
    return tables


def _own_plan(slug: str, values: dict[str, Any]) -> dict[str, Any]:
    name = f"papertwin.papers.{slug}"
    if importlib.util.find_spec(name) is None:
        return {}
    module = importlib.import_module(name)
    if not hasattr(module, "plan"):
        return {}
    fields = {field.name for field in dataclasses.fields(module.Params)}
    return module.plan(module.Params(**{key: value for key, value in values.items() if key in fields}))


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
