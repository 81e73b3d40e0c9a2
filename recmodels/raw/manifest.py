"""
Which raw files a data set was read from: a manifest names them with the digest of each, and reading holds them to it.

How files are found, generated or fetched belongs to `recmodels.data.raw_files`.
"""

import contextlib
from collections.abc import Generator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recmodels.errors import InputError, MissingObject
from recmodels.io.digest import digest_of
from recmodels.io.files import file_digest
from recmodels.raw.formats.base import Role
from recmodels.raw.lines import verify_gzip
from recmodels.validation import problems


class RawFile(BaseModel):
    """A raw file as it was when it was hashed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    """Absolute path."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change, in nanoseconds: with the size it says whether the digest still holds."""
    sha256: str
    """Digest of the file as stored."""

    @classmethod
    def of(cls, path: Path, known: "RawFile | None" = None) -> "RawFile":
        """
        Return a file verified and hashed; as it is known, if it has the same size and time of change.

        Raises InputError if it is empty, a damaged gzip file, or replaced meanwhile.
        """
        size, mtime_ns = _changes(path)
        if size == 0:
            raise InputError(str(path), expected="a file with content", found="an empty one", action="Fetch it again.")
        if known and (known.size, known.mtime_ns) == (size, mtime_ns):
            return known
        verify_gzip(path)
        file = cls(path=path, size=size, mtime_ns=mtime_ns, sha256=file_digest(path))
        _require_same(file, (size, mtime_ns), "while it was hashed")
        return file


class RawManifest(BaseModel):
    """The raw files of a data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    """Key in the catalogue."""
    format: str
    """Which of the entry's sources the files are: a name of `recmodels.raw.formats.registry`."""
    files: dict[Role, RawFile]
    """The files by role."""
    absent: list[Role]
    """Optional files of the source that are not there."""
    columns: dict[str, str] = Field(default_factory=dict, exclude_if=lambda columns: not columns)
    """Names of columns by what they hold, as the source gives them."""

    @property
    def digest(self) -> str:
        """Digest of the contents and how they are read alone: names, places and dates of the files do not count."""
        columns = (f"column {kind}:{self.columns[kind]}" for kind in sorted(self.columns))
        files = (f"{role}:{self.files[role].sha256}" for role in sorted(self.files))
        return digest_of(self.dataset, self.format, *files, *columns)

    @property
    def fingerprint(self) -> str:
        """What `stat_fingerprint` returns as long as the files are as described here."""
        return fingerprint_of(
            self.format, {role: (file.path, file.size, file.mtime_ns) for role, file in self.files.items()}
        )

    @classmethod
    def load(cls, path: Path) -> "RawManifest":
        """Read a manifest; raises MissingObject if it is gone or damaged."""
        try:
            return cls.parse(path.read_bytes(), str(path))
        except OSError as error:
            raise _no_manifest(str(path), error.strerror or str(error)) from error

    @classmethod
    def parse(cls, text: str | bytes, where: str = "manifest of raw_dumps") -> "RawManifest":
        """Read the text of a manifest; raises MissingObject if it is no whole one, and `where` says which it is."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise _no_manifest(where, problems(error)) from error


def _no_manifest(where: str, found: str) -> MissingObject:
    return MissingObject(f"{where}: expected a manifest of raw files, found {found}. Materialise raw_dumps again.")


def fingerprint_of(source_format: str, files: Mapping[Role, tuple[Path, int, int]]) -> str:
    """Return the digest of the path, the size in bytes and the time of change, in nanoseconds, of files by role."""
    return digest_of(source_format, *(":".join(map(str, (role, *files[role]))) for role in sorted(files)))


@contextlib.contextmanager
def as_hashed(file: RawFile) -> Generator[Path]:
    """
    Yield the path of a raw file for reading; raises InputError if it is not what was hashed, before or after.

    A file of another date is hashed again, so that neither a copy nor a `touch` matters.
    """
    seen = _require_same(file, (file.size, file.mtime_ns), "after it was hashed")
    yield file.path
    _require_same(file, seen, "while it was read")


def _require_same(file: RawFile, seen: tuple[int, int], when: str) -> tuple[int, int]:
    """
    Make sure that a raw file holds what it is described to hold; return the size and time with which it does.

    With the size and time of `seen` that is known already.
    """
    now = _changes(file.path)
    if now != seen and (now[0] != file.size or file_digest(file.path) != file.sha256):
        raise InputError(
            str(file.path),
            expected=f"the raw file of {file.size:,} bytes with sha256 {file.sha256}",
            found=f"one that was replaced or removed {when}",
            action="Materialise raw_dumps again when the file is complete.",
        )
    return now


def _changes(path: Path) -> tuple[int, int]:
    """Return the size and the time of change of a file; sizes and times that no file has if it is gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
