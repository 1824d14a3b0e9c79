"""The ledger of a paper: what it is, what it shows, what it claims and how we judge it.

Each `papers/<slug>.toml` is data without code. It is written before results are seen and holds the rule by
which every claim is judged; `claims.py` applies the rules, the contract tests hold ledger and notebook together.
"""

import tomllib
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from papertwin import paths
from papertwin.errors import LedgerError

PROFILES = ("quick", "full", "paper")
ProfileName = Literal["quick", "full", "paper"]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paper(_Entry):
    """Citation and idea; `exclusive` marks a paper that measures time and therefore runs alone."""

    slug: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    authors: list[str] = Field(min_length=1)
    venue: str
    year: int
    arxiv: str = ""
    code: list[str] = []
    idea: str
    topic: str
    exclusive: bool = False


class Row(_Entry):
    """What a row of a joined table is, in a line.

    `before` says what has to be done first and is not counted in the table's protocol; empty where that is nothing.
    """

    what: str
    before: str = ""


class Exhibit(_Entry):
    """One figure or table of the paper and what became of it here.

    `timing` marks measured seconds. `stamp` is written on the figure itself: what its data are if they are not the
    paper's own (simulated, synthetic, a substitute); empty only where they are. `instead` is what of the paper that
    stands for, `{params.…}` in both are parameters of the run, and `full` names the one that tells whether it has the
    paper's size. Tables of several papers with the same words in `joined` are put under each other by the report, see
    `papertwin.joined`. `rows` explains the rows that this paper brings, in the order in which they are to stand; `+ X`
    explains every row `… + X`. `note` is shown with the joined table: what a reader of this paper's rows must know.
    """

    id: str = Field(pattern=r"^(fig|table)[a-z0-9_]+$")
    caption: str
    source: str
    status: Literal["regenerated", "at-scale-only", "not-available"]
    reason: str = ""
    timing: bool = False
    stamp: str = ""
    instead: str = ""
    full: str = ""
    joined: str = Field(default="", pattern=r"^([a-z][a-z ]*[a-z])?$")
    rows: dict[str, Row] = {}
    note: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.status != "regenerated" and not self.reason:
            raise ValueError(f"{self.id} is {self.status}: say why in `reason`")
        if (self.rows or self.note) and not self.joined:
            raise ValueError(f"{self.id} is joined with no table: `rows` and `note` would be shown nowhere")
        return self

    def stamped(self, params: Any) -> str:
        """Fill in the stamp: what is written on the figure of a run.

        Where these are the paper's own, there is nothing to say if the run has the paper's size, else that it is less.

        Args:
            params: the paper's `Params`.

        Raises:
            LedgerError: the stamp names a parameter that there is not.
        """
        try:
            ours, theirs = self.stamp.format(params=params), self.instead.format(params=params)
            whole = bool(self.full) and getattr(params, self.full)
        except (AttributeError, KeyError, IndexError, ValueError) as error:
            raise LedgerError(
                f"The stamp of {self.id}, {self.stamp!r} in place of {self.instead!r}, cannot be filled in: {error}. "
                "Write {params.name}, where name is a parameter or property of Params; `full` is such a name."
            ) from error
        if not theirs:
            return ours
        if ours != theirs:
            return f"{ours} in place of {theirs}"
        return "" if whole else f"{ours}, smaller or trained for less than there"


class Rule(_Entry):
    """How a measured value becomes a verdict; `text` says it in words, fixed before the result is seen.

    kind `holds`: the measured value is a bool. `at_least` / `at_most`: value against `value`; with an interval
    the whole interval must lie on one side, else INCONCLUSIVE. `above`: the same, strictly. `within`: at most
    `tolerance` away. `unit` is that of value and measured value, as it stands behind a number; empty for a share.
    """

    kind: Literal["holds", "at_least", "above", "at_most", "within"]
    value: float | None = None
    tolerance: float | None = Field(default=None, ge=0)
    unit: str = ""
    text: str

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted = {"holds": (), "within": ("value", "tolerance")}.get(self.kind, ("value",))
        missing = [name for name in wanted if getattr(self, name) is None]
        if missing:
            raise ValueError(f"rule `{self.kind}` needs {', '.join(missing)}")
        return self


class Claim(_Entry):
    """One claim of the paper.

    `needs` is the lowest profile that can judge it, "more" where none can. `stable` is false where the verdict rests on
    measured time or a close call. `caveat` is what a reader must know of a verdict, whatever it is; it stands behind
    the note.
    """

    id: str = Field(pattern=r"^C[0-9]+[a-z]?$")
    statement: str
    source: str
    published: str
    rule: Rule
    needs: ProfileName | Literal["more"] = "quick"
    stable: bool = True
    caveat: str = ""


class Profile(_Entry):
    """A size at which the notebook can run: its parameters and what that costs."""

    minutes: float = Field(gt=0)
    memory_gb: float = Field(gt=0)
    device: Literal["cpu", "gpu"]
    data: list[str]
    note: str = ""
    parameters: dict[str, Any] = {}


class Ledger(_Entry):
    """Everything that is known about a paper before anything is run."""

    paper: Paper
    figures: list[Exhibit] = Field(alias="figure", min_length=1)
    tables: list[Exhibit] = Field(alias="table", default=[])
    claims: list[Claim] = Field(alias="claim", min_length=1)
    profiles: dict[ProfileName, Profile]
    published: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "quick" not in self.profiles:
            raise ValueError("[profiles.quick] is missing")
        ids = [entry.id for entry in (*self.exhibits, *self.claims)]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"ids used more than once: {', '.join(twice)}")
        names = [entry.joined for entry in self.exhibits if entry.joined]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"more than one table is joined as {', '.join(twice)}")
        known = set(self.profiles["quick"].parameters)
        for name, profile in self.profiles.items():
            unknown = sorted(set(profile.parameters) - known)
            if unknown:
                raise ValueError(f"[profiles.{name}] sets parameters that quick does not have: {unknown}")
        return self

    @property
    def exhibits(self) -> list[Exhibit]:
        """Figures, then tables."""
        return [*self.figures, *self.tables]

    @property
    def slug(self) -> str:
        """Short name of the paper, with underscores."""
        return self.paper.slug

    def parameters(self, profile: str) -> dict[str, Any]:
        """Return every parameter value of a profile: quick's values, overridden by the profile's own.

        Raises:
            LedgerError: the paper has no such profile.
        """
        if profile not in self.profiles:
            raise LedgerError(f"{self.slug} has no profile {profile!r}; expected one of {', '.join(self.profiles)}.")
        return {**self.profiles["quick"].parameters, **self.profiles[profile].parameters}  # type: ignore[index]


def parse(text: str, name: str) -> Ledger:
    """Read a ledger from TOML text.

    Args:
        text: the TOML document.
        name: how to call it in an error message.

    Raises:
        LedgerError: not TOML, an unknown or missing field, or a contradiction; the message names the field.
    """
    try:
        return Ledger.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise LedgerError(f"{name} is not valid TOML: {error}. Fix the line named.") from error
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, e['loc'])) or 'ledger'}: {e['msg']} (got {e['input']!r:.80})" for e in error.errors()
        ]
        raise LedgerError(f"{name} does not have the form of a ledger:\n" + "\n".join(lines)) from error


def slugs() -> list[str]:
    """Name every paper that has a ledger, in alphabetical order."""
    return sorted(path.stem for path in (paths.PACKAGE / "papers").glob("*.toml"))


def load(slug: str) -> Ledger:
    """Load the ledger of a paper; `nn-robustness` and `nn_robustness` are the same paper.

    Raises:
        LedgerError: no such paper (the message lists those that exist), or its ledger is malformed.
    """
    name = slug.replace("-", "_")
    path = paths.PACKAGE / "papers" / f"{name}.toml"
    if not path.is_file():
        raise LedgerError(f"No paper is called {slug!r}. Known papers: {', '.join(slugs()) or 'none yet'}.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path.name} cannot be read: {error}. Restore it; a ledger is UTF-8 text.") from error
    ledger = parse(text, path.name)
    if ledger.slug != name:
        raise LedgerError(f"{path.name} says slug = {ledger.slug!r}; file name and slug must agree.")
    return ledger
