"""Every data set that PaperTwin knows, from `data/registry.toml`, and the guard that no corrupted file is read.

A *vendored* set lies in the repository: `path` hands out a file only after its sha256 was compared. An *optional* set
is brought by the user, in a folder of `PAPERTWIN_DATA` or of the git-ignored `data/local/`, or fetched with a known
checksum. The functions of this module work on the repository's own registry; `Registry(folder)` on any other.
"""

import difflib
import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from papertwin import files, paths
from papertwin.errors import DataError

ENVIRONMENT = "PAPERTWIN_DATA"
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class DataFile(BaseModel):
    """One file: its place, and what is known of its content.

    Attributes:
        path: relative to `data/` (vendored) or to the set's folder (optional), with forward slashes.
        sha256: checksum of the bytes; empty only in optional sets.
        bytes: size in bytes; 0 where unknown.
        url: where this very file can be fetched, if anywhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    sha256: Sha256 | Literal[""] = ""
    bytes: int = Field(default=0, ge=0)
    url: str = ""

    @model_validator(mode="after")
    def _stays_inside(self) -> Self:
        parts = self.path.split("/")
        if ".." in parts or "" in parts or "\\" in self.path or ":" in self.path:
            raise ValueError(f"{self.path!r} must be relative, with forward slashes, and stay in its folder")
        return self


class DataSet(BaseModel):
    """One data set of the registry; see the comments at the top of `data/registry.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    kind: Literal["vendored", "optional"]
    licence: str
    note: str = ""
    notice: str = ""
    origin: str = ""
    prepare: str = ""
    url: str = ""
    folder: str = ""
    files: list[DataFile] = []

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted = ("origin", "notice", "files") if self.kind == "vendored" else ("url", "folder")
        if missing := [name for name in wanted if not getattr(self, name)]:
            raise ValueError(f"a set of kind {self.kind} needs {', '.join(missing)}")
        if self.kind == "vendored" and (bare := [f.path for f in self.files if not f.sha256 or not f.bytes]):
            raise ValueError(f"vendored files without sha256 or bytes: {', '.join(bare)}")
        return self

    def address(self, file: DataFile) -> str:
        """Where a file can be fetched: its own url, else the set's if that names the only file, else nowhere."""
        return file.url or (self.url if len(self.files) == 1 else "")


class Registry:
    """The data sets of one data folder.

    Attributes:
        folder: the folder that holds registry.toml and the vendored sets.
        sets: name → description, in alphabetical order.
    """

    def __init__(self, folder: Path):
        """Read `folder`/registry.toml.

        Raises:
            DataError: there is none, or it is malformed; the message names the field.
        """
        self.folder = Path(folder)
        self.sets = _read(self.folder / "registry.toml")
        self._seen: dict[Path, tuple[int, int, str]] = {}

    def names(self, kind: str | None = None) -> list[str]:
        """Name the data sets, in alphabetical order; only those of one kind if given."""
        return [name for name, data in self.sets.items() if kind in (None, data.kind)]

    def describe(self, name: str) -> DataSet:
        """Return what is known about a set.

        Raises:
            DataError: no such set; the message suggests the nearest name.
        """
        if name not in self.sets:
            raise DataError(
                f"No data set is called {name!r}.{_nearest(name, self.sets)} Known: {', '.join(self.sets)}."
            )
        return self.sets[name]

    def path(self, name: str, file: str) -> Path:
        """Return the path of a set's file after comparing its sha256 (once per process and version of the file).

        Args:
            name: the set.
            file: path as in the registry; the leading `<set>/` may be left out.

        Raises:
            DataError: unknown set or file, missing, truncated or corrupted; the message says what to do.
        """
        data = self.describe(name)
        entry = next((f for f in data.files if file in (f.path, f.path.removeprefix(f"{name}/"))), None)
        if entry is None:
            known = [f.path for f in data.files]
            raise DataError(
                f"Data set {name!r} lists no file {file!r}.{_nearest(file, known)} "
                f"Its files: {', '.join(known) or 'none'}."
            )
        place = self._base(name) / entry.path
        if problem := self._problem(name, entry, place):
            raise DataError(problem)
        return place

    def sha256s(self, name: str) -> dict[str, str]:
        """Return file → sha256 of a set, for provenance.

        Each file is compared first, so that the provenance tells what was read. Of an optional set only files that
        are there and whose checksum is known count: a set that is absent gives an empty dict.

        Raises:
            DataError: unknown set, a vendored file is missing, or a file is corrupted.
        """
        data = self.describe(name)
        base = self._base(name)
        due = [e for e in data.files if e.sha256 and (data.kind == "vendored" or (base / e.path).is_file())]
        for entry in due:
            self.path(name, entry.path)
        return {entry.path: entry.sha256 for entry in due}

    def present(self, name: str) -> bool:
        """Tell whether a set is here, by names alone: its folder holds something, and every file that is listed.

        Nothing is read or compared, so it is cheap; `path`, `sha256s` and `check` compare.

        Raises:
            DataError: unknown set.
        """
        data = self.describe(name)
        base = self._base(name)
        place = base / name if data.kind == "vendored" else base
        return place.is_dir() and any(place.iterdir()) and all((base / entry.path).is_file() for entry in data.files)

    def local(self, name: str) -> Path:
        """Where an optional set is or would be: under `PAPERTWIN_DATA` if set, else under `data/local/`."""
        chosen = os.environ.get(ENVIRONMENT)
        base = Path(chosen).expanduser().resolve() if chosen else self.folder / "local"
        return base / (self.describe(name).folder or name)

    def folder_of(self, name: str) -> Path:
        """Return the folder of an optional set that the user brought, or of a vendored one.

        Raises:
            DataError: unknown set, or nothing is there; the message lists what is expected where.
        """
        data = self.describe(name)
        if data.kind == "vendored":
            return self.folder / name
        place = self.local(name)
        if place.is_dir() and any(place.iterdir()):
            return place
        raise DataError(
            f"The optional data set {name!r} ({data.title}) is not here: {place} is empty or does not exist.\n"
            f"{_expected(data)}Get it from {data.url} (licence: {data.licence}) and put it there, or set {ENVIRONMENT} "
            f"to the folder that holds {data.folder}/."
        )

    def fetch(self, name: str) -> Path:
        """Download the files of an optional set whose address and checksum are known; return the folder.

        An intact file is not fetched again. A download replaces a file only once its checksum is right.

        Raises:
            DataError: vendored or unknown set, no known address or checksum, no network, or a corrupted download.
        """
        data = self.describe(name)
        if data.kind == "vendored":
            raise DataError(
                f"Data set {name!r} is part of the repository; restore it with `git checkout -- data/{name}`."
            )
        place = self.local(name)
        if not data.files or any(not entry.sha256 or not data.address(entry) for entry in data.files):
            raise DataError(
                f"Data set {name!r} cannot be fetched: no direct address with a known checksum is on record.\n"
                f"{_expected(data)}Get it from {data.url} (licence: {data.licence}) and put it in {place}."
            )
        for entry in data.files:
            _download(data.address(entry), entry, place)
        return place

    def check(self, name: str | None = None) -> list[str]:
        """List what is wrong with one set, or with all: an empty list means that all is well.

        An optional set that is not there is no problem; one that is there is held to its known checksums.

        Raises:
            DataError: no such set.
        """
        problems = []
        for each in [name] if name else self.names():
            data = self.describe(each)
            base = self._base(each)
            if data.kind == "optional" and not base.is_dir():
                continue
            found = [self._problem(each, entry, base / entry.path) for entry in data.files]
            problems += [problem for problem in found if problem]
            if data.notice and not (self.folder / data.notice).is_file():
                problems.append(
                    f"{self.folder / data.notice}: the licence notice of {each!r} is missing. "
                    f"Restore it: git checkout -- data/{data.notice}"
                )
        return problems

    def _base(self, name: str) -> Path:
        """The folder that the paths of a set's files are relative to."""
        return self.folder if self.describe(name).kind == "vendored" else self.local(name)

    def _problem(self, name: str, entry: DataFile, place: Path) -> str:
        data = self.describe(name)
        if data.kind == "vendored":
            again = f", or rebuild it: python data/{data.prepare}" if data.prepare else ""
            remedy = f"Restore it: git checkout -- data/{entry.path}{again}"
        elif entry.sha256 and data.address(entry):
            remedy = f"Fetch it again: papertwin data fetch {name}"
        else:
            remedy = f"Get it from {data.url}"
        expected = f"expected sha256 {entry.sha256 or 'unknown'} ({entry.bytes or '?'} bytes)"
        try:
            state = place.stat()
            seen = (state.st_mtime_ns, state.st_size)
            if self._seen.get(place, (0, 0, ""))[:2] != seen:
                self._seen[place] = (*seen, files.sha256(place))
        except OSError as error:
            return f"{place}: cannot be read ({error.strerror}); {expected}. {remedy}"
        found = self._seen[place][2]
        if not entry.sha256 or found == entry.sha256:
            return ""
        return f"{place}: the content is not the registered one; {expected}, found {found} ({seen[1]} bytes). {remedy}"


def _read(path: Path) -> dict[str, DataSet]:
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing. Restore it: git checkout -- data/registry.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid TOML: {error}. Fix the line named.") from error
    sets = {}
    for name in sorted(tables):
        try:
            sets[name] = DataSet.model_validate(tables[name])
        except ValidationError as error:
            lines = [
                f"  {'.'.join(map(str, e['loc'])) or name}: {e['msg']} (got {e['input']!r:.80})" for e in error.errors()
            ]
            raise DataError(f"{path}, [{name}] does not describe a data set:\n" + "\n".join(lines)) from error
    return sets


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _expected(data: DataSet) -> str:
    lines = [f"  {entry.path}" + (f"  sha256 {entry.sha256}" if entry.sha256 else "") for entry in data.files]
    told = [data.note] if data.note else []
    return "".join(f"{line}\n" for line in [*told, *(["Expected files:", *lines] if lines else [])])


def _download(url: str, entry: DataFile, folder: Path) -> None:
    import pooch

    target = folder / entry.path
    try:
        # pooch writes to a temporary name, compares the checksum and only then renames onto the target
        pooch.retrieve(url, f"sha256:{entry.sha256}", fname=target.name, path=target.parent)
    except ValueError as error:
        raise DataError(
            f"The download of {url} is not the registered file: {error}. {target} was left as it was. "
            "Try again; if it persists, the file at its origin has changed."
        ) from error
    except OSError as error:
        raise DataError(
            f"Cannot fetch {url} into {target.parent}: {error}. Check the network and that the folder can be "
            f"written, or put the file there by hand (sha256 {entry.sha256})."
        ) from error


@cache
def default() -> Registry:
    """The registry of this repository's `data/` folder, read once per process."""
    return Registry(paths.root() / "data")


def names(kind: str | None = None) -> list[str]:
    """See `Registry.names`."""
    return default().names(kind)


def describe(name: str) -> DataSet:
    """See `Registry.describe`."""
    return default().describe(name)


def path(name: str, file: str) -> Path:
    """See `Registry.path`."""
    return default().path(name, file)


def sha256s(name: str) -> dict[str, str]:
    """See `Registry.sha256s`."""
    return default().sha256s(name)


def present(name: str) -> bool:
    """See `Registry.present`."""
    return default().present(name)


def folder(name: str) -> Path:
    """See `Registry.folder_of`."""
    return default().folder_of(name)


def fetch(name: str) -> Path:
    """See `Registry.fetch`."""
    return default().fetch(name)


def check(name: str | None = None) -> list[str]:
    """See `Registry.check`."""
    return default().check(name)
