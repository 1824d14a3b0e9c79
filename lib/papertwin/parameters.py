"""Notebook parameters, read strictly: what a notebook declares, what a user asked for, what a run gets.

papermill alone is lenient: it takes `1e-3` for a string and `true` for "true", warns about an unknown name and
overlooks a parameter whose line has a second `=`. Here each of these is an error before anything runs.
"""

import ast
import dataclasses
import difflib
import io
import json
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from papertwin import cells
from papertwin.errors import LedgerError, ParameterError
from papertwin.ledger import Ledger

TAG = "parameters"
OPTIONS = {"profile": "--profile", "device": "--device"}
SCALARS = {"int": int, "float": float, "bool": bool, "str": str}
FORM = "`name: type = value  # help and unit`"
TYPES = "int, float, bool, str, list[...] of these, Literal[...]"


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell, or one field of a paper's `Params`.

    Attributes:
        name: variable name.
        annotation: its type as written, for example "list[float]".
        default: the value in the notebook, that is, of the quick profile.
        help: the comment behind it: meaning and unit; empty for a field.
    """

    name: str
    annotation: str
    default: Any
    help: str = ""

    @cached_property
    def type(self) -> Any:
        """The annotation as a type."""
        return annotation_type(ast.parse(self.annotation, mode="eval").body)

    def check(self, value: Any) -> Any:
        """Return the value if it strictly has the parameter's type (an int is a float, a bool is not an int).

        Raises:
            ParameterError: it has not.
        """
        from pydantic import ConfigDict, TypeAdapter, ValidationError

        # pydantic takes a configuration for plain types only through the adapter
        adapter = TypeAdapter(self.type, config=ConfigDict(strict=True, allow_inf_nan=False))
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise ParameterError(
                f"Parameter {self.name} got {value!r} ({type(value).__name__}); expected {self.annotation}, "
                f"for example {self.name}={written(self.default)}."
            ) from error

    def parse(self, text: str) -> Any:
        """Read a value from the command line according to the parameter's type.

        Raises:
            ParameterError: the text is no such value.
        """
        if self.type is str:
            return self.check(text)
        if get_origin(self.type) is Literal and text in get_args(self.type):
            return text
        if self.type is bool:
            return self.check({"true": True, "false": False}.get(text.lower(), text))
        for reader in (json.loads, ast.literal_eval):
            try:
                value = reader(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            return self.check(value)
        return self.check(text)


class Resolved(NamedTuple):
    """The values of a run: all of them, and those that differ from the chosen profile's."""

    values: dict[str, Any]
    overrides: dict[str, Any]


def annotation_type(node: ast.expr) -> Any:
    """Turn an annotation into a type, from a small vocabulary and without evaluating code.

    Raises:
        ValueError: the annotation is outside the vocabulary.
    """
    match node:
        case ast.Name(id=name) if name in SCALARS:
            return SCALARS[name]
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[annotation_type(item)]  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=item):
            choices = item.elts if isinstance(item, ast.Tuple) else [item]
            if choices and all(isinstance(c, ast.Constant) and type(c.value) in (int, str) for c in choices):
                return Literal[tuple(c.value for c in choices)]  # type: ignore[attr-defined]
    raise ValueError(f"type {ast.unparse(node)!r} is not one of {TYPES}")


def of_dataclass(params_type: type) -> list[Parameter]:
    """Read the fields of a paper's `Params` as the parameters that its notebook declares.

    Raises:
        ParameterError: a field without a default, or of a type that no parameters cell can have.
    """
    hints = get_type_hints(params_type)
    found = []
    for field in dataclasses.fields(params_type):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if default is dataclasses.MISSING:
            raise ParameterError(f"{params_type.__name__}.{field.name} has no default; give it the notebook's value.")
        found.append(Parameter(field.name, _spelled(hints[field.name]), default))
    return found


def _spelled(kind: Any) -> str:
    """Write a type as it stands in a parameters cell."""
    if get_origin(kind) is Literal:
        return f"Literal[{', '.join(map(json.dumps, get_args(kind)))}]"
    if get_origin(kind) is list:
        return f"list[{_spelled(*get_args(kind))}]"
    if kind in SCALARS.values():
        return kind.__name__
    raise ParameterError(f"Type {kind} cannot be written in a parameters cell; expected one of {TYPES}.")


def read_parameters(notebook: Path) -> list[Parameter]:
    """Read the cell tagged `parameters` of a notebook.

    Raises:
        RunError: there is no such notebook.
        ParameterError: it has not exactly one such cell, or a line is not of the expected form.
    """
    tagged = [cell for cell in cells.read(notebook) if cell.kind == "code" and TAG in cell.tags]
    if len(tagged) != 1:
        raise ParameterError(
            f"{notebook.name} has {len(tagged)} code cells tagged `{TAG}`; expected exactly one. "
            "Set the tag in JupyterLab's property inspector."
        )
    return parse_cell(tagged[0].source, notebook.name)


def parse_cell(source: str, name: str) -> list[Parameter]:
    """Read the source of a parameters cell: one parameter per line, blank lines allowed.

    Args:
        source: the cell's text.
        name: how to call the notebook in an error message.

    Raises:
        ParameterError: a line is not of the expected form; the message quotes it.
    """
    try:
        body = ast.parse(source).body
        comments = {
            token.start[0]: token.string.lstrip("# ").rstrip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
    except (SyntaxError, tokenize.TokenError) as error:
        raise ParameterError(f"{name}: the parameters cell is not Python: {error}.") from error
    statements = {node.lineno: node for node in body}
    found: dict[str, Parameter] = {}
    for number, line in enumerate(source.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            parameter = _parse_line(line, statements.get(number), comments.get(number, ""))
            if parameter.name in found:
                raise ValueError(f"{parameter.name} is set twice")
        except (ValueError, SyntaxError, ParameterError) as error:
            raise ParameterError(
                f"{name}, parameters cell, line {number}: {error}.\n  got      {line.strip()}\n"
                f"  expected {FORM}, one parameter per line and exactly one `=` on it."
            ) from error
        found[parameter.name] = parameter
    return list(found.values())


def _parse_line(line: str, node: ast.stmt | None, comment: str) -> Parameter:
    if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None):
        raise ValueError("not an annotated assignment")
    if line.count("=") != 1:
        raise ValueError(f"{line.count('=')} `=` signs, which hides the parameter from papermill")
    if node.end_lineno != node.lineno:
        raise ValueError("the value goes over several lines")
    if not comment:
        raise ValueError("the comment with help and unit is missing")
    try:
        default = ast.literal_eval(node.value)
    except ValueError:
        raise ValueError(f"the value {ast.unparse(node.value)!r} is not a literal") from None
    annotation = _annotation(node.annotation)
    parameter = Parameter(node.target.id, annotation, default, comment)
    return Parameter(node.target.id, annotation, parameter.check(default), comment)


def _annotation(node: ast.expr) -> str:
    """Return the annotation as text, with double quotes, after checking that it is one we know."""
    written = node
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        written = ast.parse(node.value, mode="eval").body
    elif any(isinstance(part, ast.Name) and part.id == "Literal" for part in ast.walk(node)):
        text = ast.unparse(node).replace("'", '"')
        raise ValueError(f"this cell comes before every import, so write the type in quotes: '{text}'")
    annotation_type(written)
    return ast.unparse(written).replace("'", '"')


def parse_overrides(assignments: Iterable[str], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Read `key=value` texts into typed values.

    Args:
        assignments: as given with `-p`, for example ["seed=3", "radii=[0.4, 4.0]"].
        parameters: what the notebook declares.

    Raises:
        ParameterError: no `=`, an unknown or doubled name, or a value of the wrong type.
    """
    known = {parameter.name: parameter for parameter in parameters}
    chosen: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals:
            raise ParameterError(f"-p {assignment} has no `=`; expected -p name=value.")
        if name in OPTIONS:
            raise ParameterError(f"-p {assignment}: use {OPTIONS[name]} {text.strip()} instead.")
        if name not in known:
            raise ParameterError(f"-p {assignment}: unknown parameter {name!r}.{_suggest(name, known)}")
        if name in chosen:
            raise ParameterError(f"-p {name} is given twice; expected one value for {name}.")
        chosen[name] = known[name].parse(text.strip())
    return chosen


def check_all(slug: str, given: Mapping[str, Any], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Check values against their types and return them as the types have it (1 for a float becomes 1.0).

    Raises:
        ParameterError: an unknown name, or values of a wrong type; the message names every one of these.
    """
    known = {parameter.name: parameter for parameter in parameters}
    checked, wrong = {}, []
    for name, value in given.items():
        if name not in known:
            raise ParameterError(f"{slug}: unknown parameter {name!r}.{_suggest(name, known)}")
        try:
            checked[name] = known[name].check(value)
        except ParameterError as error:
            wrong.append(str(error))
    if wrong:
        raise ParameterError(f"{slug}: " + "\n".join(wrong) + "\nCorrect the parameters cell or the -p option.")
    return checked


def resolve(ledger: Ledger, profile: str, overrides: Mapping[str, Any], parameters: Sequence[Parameter]) -> Resolved:
    """Merge the notebook's defaults, the profile's values and the overrides.

    An override that equals the profile's value is none. One that equals quick's value but not the chosen profile's
    cannot reach the notebook, where such a value means "take the profile's": it is refused.

    Args:
        ledger: the paper's ledger.
        profile: the chosen profile.
        overrides: typed values by name, of the paper's own parameters.
        parameters: what the notebook declares.

    Raises:
        LedgerError: the paper has no such profile, or ledger and notebook disagree.
        ParameterError: an unknown name, a wrong type, or the ambiguity above.
    """
    defaults = {parameter.name: parameter.default for parameter in parameters}
    for name, value in _profile_values(ledger, "quick", parameters).items():
        if value != defaults[name]:
            raise LedgerError(
                f"{ledger.slug}: parameter {name} is {value!r} in [profiles.quick.parameters] but "
                f"{defaults[name]!r} in the notebook; make them equal."
            )
    base = {**defaults, **_profile_values(ledger, profile, parameters)}
    kept: dict[str, Any] = {}
    for name, value in check_all(ledger.slug, overrides, [p for p in parameters if p.name not in OPTIONS]).items():
        if value == base[name]:
            continue
        if value == defaults[name]:
            raise ParameterError(
                f"{ledger.slug}: {name}={written(value)} is quick's own value, which profile {profile} replaces by "
                f"{written(base[name])}; the notebook cannot tell it from a value left alone. Choose another value or "
                "quick."
            )
        kept[name] = value
    return Resolved({**base, **kept, "profile": profile}, kept)


def resolve_namespace(ledger: Ledger, params_type: type, namespace: Mapping[str, Any]) -> Resolved:
    """Merge what a notebook's parameters cell has set, by the same rules as `resolve`.

    A parameter that still has quick's value takes the chosen profile's; one that differs is an override.

    Args:
        ledger: the paper's ledger.
        params_type: the paper's `Params`.
        namespace: the notebook's `globals()`.

    Raises:
        LedgerError: the paper has no such profile, or ledger and `Params` disagree.
        ParameterError: parameters are missing or of the wrong type; the message lists every one.
    """
    known = of_dataclass(params_type)
    if missing := [parameter.name for parameter in known if parameter.name not in namespace]:
        raise ParameterError(
            f"{ledger.slug}: the notebook does not define {', '.join(missing)}. Its parameters cell must set "
            f"{', '.join(parameter.name for parameter in known)}; run that cell before papertwin.start."
        )
    given = check_all(ledger.slug, {parameter.name: namespace[parameter.name] for parameter in known}, known)
    changed = {p.name: given[p.name] for p in known if p.name not in OPTIONS and given[p.name] != p.default}
    values, overrides = resolve(ledger, given["profile"], changed, known)
    return Resolved({**values, "device": given["device"]}, overrides)


def typed(slug: str, params_type: type, values: Mapping[str, Any]) -> Any:
    """Build a paper's Params from plain values, each checked strictly against its annotation.

    Raises:
        ParameterError: one or more values have the wrong type (the message names every one), or the paper refuses one.
    """
    checked = check_all(slug, values, of_dataclass(params_type))
    try:
        return params_type(**checked)
    except ParameterError as error:
        raise ParameterError(f"{slug}: {error}") from error


def _profile_values(ledger: Ledger, profile: str, parameters: Sequence[Parameter]) -> dict[str, Any]:
    values = ledger.parameters(profile)
    if unknown := sorted(set(values) - {parameter.name for parameter in parameters}):
        raise LedgerError(f"{ledger.slug}: [profiles] sets {unknown}, which the notebook does not declare.")
    try:
        return check_all(ledger.slug, values, parameters)
    except ParameterError as error:
        raise LedgerError(f"[profiles.{profile}.parameters] of {error}") from error


def _suggest(name: str, known: Iterable[str]) -> str:
    names = sorted(set(known) - set(OPTIONS))
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Expected one of: {', '.join(names) or 'none'}."


def written(value: Any) -> str:
    """Write a value as `-p name=value` takes it."""
    return value if isinstance(value, str) else json.dumps(value)
