"""What a profile would compute and cost, before anything is run."""

from collections.abc import Mapping, Sequence
from typing import Any

from papertwin import jobs, ledger, parameters, words

Rows = list[tuple[str, ...]]


def plan(slug: str, profile: str, assignments: Sequence[str] = ()) -> dict[str, Rows]:
    """Describe a profile of a paper: its parameters, its cost and, where the paper computes one, its own plan.

    Args:
        slug: the paper.
        profile: quick, full or paper.
        assignments: `-p` texts, as for a run.

    Returns:
        Title of a table → its rows.

    Raises:
        LedgerError: no such paper or profile, or ledger and notebook disagree.
        ParameterError: an assignment that the paper does not accept.
        RunError: the paper's module cannot be imported.
    """
    book = ledger.load(slug)
    known = jobs.declared(book.slug)
    values, changed = parameters.resolve(book, profile, parameters.parse_overrides(assignments, known), known)
    entry = book.profiles[profile]  # type: ignore[index]
    own = _own_plan(book.slug, values)
    cost: Rows = [
        ("time", f"about {words.duration(60 * entry.minutes)}{_reservation(changed, own)}"),
        ("memory", f"{entry.memory_gb:g} GB"),
        ("device", entry.device),
        ("data", ", ".join(entry.data) or "none"),
    ]
    cost += [("note", entry.note)] if entry.note else []
    cost += [("changed", f"{name}={parameters.written(value)}") for name, value in changed.items()]
    tables: dict[str, Rows] = {
        f"{book.paper.title} · profile {profile}": cost,
        "\nparameters": [(p.name, parameters.written(values[p.name]), p.annotation, p.help) for p in known],
    }
    if own:
        tables["\nplan"] = [(name, _show(value)) for name, value in own.items()]
    return tables


def _reservation(changed: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Say of which parameters the ledger's time is, where the user asks about others."""
    if not changed:
        return ""
    return " without -p; " + ("for yours see the plan below" if own else "this paper plans no cost of yours")


def _own_plan(slug: str, values: dict[str, Any]) -> dict[str, Any]:
    params = jobs.typed(slug, values)
    planned = getattr(jobs.module(slug), "plan", None)
    return planned(params) if planned else {}


def _show(value: Any) -> str:
    return words.number(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)
