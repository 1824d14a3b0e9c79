"""What a run leaves behind: the name of its folder, and `results.json` in it, which run writes and report reads."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from papertwin import files
from papertwin.claims import Judgement, Verdict, describe
from papertwin.errors import RunError
from papertwin.ledger import Exhibit

FILE = "results.json"
SCHEMA = 1


def address(slug: str, profile: str, overrides: Mapping[str, Any]) -> str:
    """Name the output folder of a run: the slug alone only for the plain quick profile.

    Another profile or any override gets its own folder, so that a trial never replaces the committed figures.

    >>> address("don", "quick", {}), address("don", "full", {}), address("don", "quick", {"seed": 3})
    ('don', 'don@full', 'don@quick-1391dc1f')
    """
    if not overrides:
        return slug if profile == "quick" else f"{slug}@{profile}"
    text = json.dumps(dict(overrides), sort_keys=True)
    return f"{slug}@{profile}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class _Entry(BaseModel):
    """Reading is tolerant: what is not known is passed over, what is not needed may be absent."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class SavedFile(_Entry):
    """A file of the run's folder."""

    path: str
    sha256: str = ""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Describe a file that has just been written."""
        return cls(path=path.name, sha256=files.sha256(path))


class Saved(_Entry):
    """A figure or table that the run has saved; `files` are "png", "pdf" and "data", `stamp` is as on the figure."""

    id: str
    caption: str = ""
    source: str = ""
    stamp: str = ""
    files: dict[str, SavedFile] = {}

    @classmethod
    def of(cls, exhibit: Exhibit, written: Mapping[str, Path], stamp: str = "") -> Self:
        """Describe the files of an exhibit that have just been written."""
        listed = {kind: SavedFile.of(path) for kind, path in written.items()}
        return cls(id=exhibit.id, caption=exhibit.caption, source=exhibit.source, stamp=stamp, files=listed)


class JudgedClaim(_Entry):
    """A claim with what was measured and the verdict; `shown` is the measured value as people read it."""

    id: str
    statement: str
    source: str = ""
    published: str = ""
    measured: float | bool | None = None
    shown: str = ""
    interval: tuple[float, float] | None = None
    rule: str = ""
    verdict: Verdict
    note: str = ""
    stable: bool = True

    @classmethod
    def of(cls, judgement: Judgement) -> Self:
        """Write a judgement down."""
        claim, found = judgement.claim, judgement.measured
        return cls(
            id=claim.id,
            statement=claim.statement,
            source=claim.source,
            published=claim.published,
            measured=found.value,
            shown=describe(found, claim.rule.unit),
            interval=found.interval,
            rule=claim.rule.text,
            verdict=judgement.verdict,
            note=judgement.reason,
            stable=claim.stable,
        )


class Results(_Entry):
    """The content of results.json.

    Attributes:
        version: schema of the file, there under the name `schema`.
        overrides: parameters that were changed by hand.
        seconds: from the notebook's start to its verdicts.
        provenance: as `papertwin.provenance.collect` gives it.
    """

    version: int = Field(alias="schema")
    title: str = ""
    paper: str
    profile: str
    parameters: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    device: str = ""
    provenance: dict[str, Any] = {}
    seconds: float | None = None
    peak_memory_mb: float | None = None
    figures: list[Saved] = []
    tables: list[Saved] = []
    claims: list[JudgedClaim] = []

    @property
    def counts(self) -> dict[str, int]:
        """Verdict → number of claims, every verdict present, in the order of `Verdict`."""
        found = Counter(claim.verdict for claim in self.claims)
        return {str(verdict): found[verdict] for verdict in Verdict}

    def rehashed(self, folder: Path) -> Self:
        """Return the same results with the checksums that the saved files have now in a folder.

        Raises:
            OSError: one of the files cannot be read.
        """

        def fresh(saved: Saved) -> Saved:
            listed = {kind: SavedFile.of(folder / file.path) for kind, file in saved.files.items()}
            return saved.model_copy(update={"files": listed})

        return self.model_copy(update={"figures": [*map(fresh, self.figures)], "tables": [*map(fresh, self.tables)]})


def write(folder: Path, content: Results) -> None:
    """Write results.json into a folder, atomically.

    Raises:
        RunError: it cannot be written.
    """
    files.write_json(folder / FILE, content.model_dump(mode="json", by_alias=True))


def read(folder: Path) -> Results:
    """Read the results.json of a folder.

    Raises:
        RunError: absent, unreadable, of another schema, or incomplete; the message says so in words for the reader.
    """
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(f"There is no {FILE} in this folder: the run did not finish.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{FILE} cannot be read ({error}). Run the paper again.") from error
    try:
        found = Results.model_validate_json(text)
    except ValidationError as error:
        parts = sorted({".".join(map(str, e["loc"])) or "the file" for e in error.errors()})
        raise RunError(f"{FILE} is not understood: {', '.join(parts[:6])}. Run the paper again.") from error
    if found.version != SCHEMA:
        raise RunError(f"{FILE} has schema {found.version}, this PaperTwin reads schema {SCHEMA}. Run the paper again.")
    return found
