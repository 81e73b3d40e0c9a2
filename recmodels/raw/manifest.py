"""Raw files of a data set: found, generated or fetched, verified and hashed; a manifest says what they are."""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from recmodels.catalogue.entries import OPTIONAL_ROLES, DatasetEntry, Role, Source, SourceFormat
from recmodels.errors import InputError, MissingObject, PermanentFailure
from recmodels.io.digest import digest_of
from recmodels.io.files import atomic_file, file_digest
from recmodels.raw.lines import verify_gzip
from recmodels.validation import problems

# The generator and the downloader are imported where files are made or fetched: httpx alone takes a tenth of the time
# in which the code server starts, and every asset that reads raw files knows their manifest.
if TYPE_CHECKING:
    from recmodels.raw.download import Patience, ProgressCallback


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


class RawManifest(BaseModel):
    """The raw files of a data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    """Key in the catalogue."""
    format: SourceFormat
    """Which of the entry's sources the files are."""
    files: dict[Role, RawFile]
    """The files by role."""
    absent: list[Role]
    """Optional files of the source that are not there."""

    @property
    def digest(self) -> str:
        """Digest of the contents alone: names, places and dates of the files do not count."""
        return digest_of(
            self.dataset, self.format, *(f"{role}:{self.files[role].sha256}" for role in sorted(self.files))
        )

    @property
    def fingerprint(self) -> str:
        """What `stat_fingerprint` returns as long as the files are as described here."""
        parts = (_stat_part(role, file.path, file.size, file.mtime_ns) for role, file in sorted(self.files.items()))
        return digest_of(self.format, *parts)

    def save(self, path: Path) -> None:
        """Write the manifest as JSON."""
        with atomic_file(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "RawManifest":
        """
        Read a manifest.

        Raises
        ------
        MissingObject
            If it is gone or damaged.
        """
        try:
            return cls.parse(path.read_bytes(), str(path))
        except OSError as error:
            raise _no_manifest(str(path), error.strerror or str(error)) from error

    @classmethod
    def parse(cls, text: str | bytes, where: str = "manifest of raw_dumps") -> "RawManifest":
        """
        Read the text of a manifest.

        Raises
        ------
        MissingObject
            If it is no whole manifest; `where` says which it is.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise _no_manifest(where, problems(error)) from error


def _no_manifest(where: str, found: str) -> MissingObject:
    return MissingObject(f"{where}: expected a manifest of raw files, found {found}. Materialise raw_dumps again.")


@contextlib.contextmanager
def as_hashed(file: RawFile) -> Generator[Path]:
    """
    Yield the path of a raw file for reading, and make sure that it is the file that was hashed, before and after.

    A file of another date is hashed again, so that neither a copy nor a `touch` matters.

    Raises
    ------
    InputError
        If it is gone, holds anything else, or is replaced while the block reads it.
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


def prepare_raw_files(
    entry: DatasetEntry,
    raw_dir: Path,
    *,
    previous: RawManifest | None = None,
    fetch: bool = True,
    refresh: bool = False,
    mirrors: Sequence[str] = (),
    patience: "Patience | None" = None,
    progress: "ProgressCallback | None" = None,
) -> RawManifest:
    """
    Make sure that the raw files of a data set are there and whole, and describe them.

    The first source of the entry whose required files all exist in the folder is taken. If there is none, the first
    that can be generated or fetched is.

    Parameters
    ----------
    entry
        The data set.
    raw_dir
        Folder of the files. Nothing is written to it unless files are generated or fetched.
    previous
        An earlier manifest: the digest of a file whose path, size and time of change are the same is taken from it.
    fetch
        Whether missing files may be fetched.
    refresh
        Whether to ask the servers for newer versions of files that were fetched.
    mirrors
        Folders or addresses, ``http(s)://`` or ``file://``, that hold the files under their names; asked before the
        addresses of the catalogue.
    patience, progress
        As `fetch_file`.

    Raises
    ------
    InputError
        If files are missing, empty or damaged, or their digest is not the one the catalogue names.
    PermanentFailure, TransientFailure
        If files cannot be fetched, for good or for now.
    """
    raw_dir = raw_dir.resolve()
    addresses = _Addresses(mirrors, refresh=refresh, patience=patience, progress=progress)
    chosen = _first_complete(entry, raw_dir)
    if chosen is None:
        chosen = _obtain(entry, raw_dir, addresses, fetch=fetch)
    elif fetch and (refresh or _interrupted(chosen[1], raw_dir)):
        _fetch(chosen[1], raw_dir, addresses)
    source_format, source = chosen
    known = {file.path: file for file in previous.files.values()} if previous else {}
    files: dict[Role, RawFile] = {}
    for role in source.files:
        path = find_file(raw_dir, source.files[role])
        if path is None:
            continue
        files[role] = _described(path, known.get(path))
        expected = source.sha256.get(role)
        if expected and files[role].sha256 != expected:
            raise InputError(
                str(path), expected=f"sha256 {expected}", found=files[role].sha256, action="Fetch it again."
            )
    return RawManifest(
        dataset=entry.key,
        format=source_format,
        files=files,
        absent=[role for role in source.files if role not in files],
    )


def stat_fingerprint(entry: DatasetEntry, raw_dir: Path) -> str | None:
    """
    Return a fingerprint of names, sizes and dates of the raw files, None while no source is complete.

    Nothing is read: this is for a sensor, to ask whether `prepare_raw_files` should look.
    """
    chosen = _first_complete(entry, raw_dir)
    if chosen is None:
        return None
    source_format, source = chosen
    parts: list[str] = [source_format]
    for role in sorted(source.files):
        path = find_file(raw_dir, source.files[role])
        if path is not None:
            status = path.stat()
            parts.append(_stat_part(role, path, status.st_size, status.st_mtime_ns))
    return digest_of(*parts)


def _stat_part(role: Role, path: Path, size: int, mtime_ns: int) -> str:
    return f"{role}:{path}:{size}:{mtime_ns}"


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of a name in a folder, whether it is there with ``.gz`` or without; None if it is not."""
    other = name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
    return next((path for path in (folder / name, folder / other) if path.is_file()), None)


def _first_complete(entry: DatasetEntry, raw_dir: Path) -> tuple[SourceFormat, Source] | None:
    for source_format, source in entry.sources.items():
        if all(find_file(raw_dir, source.files[role]) for role in _required(source)):
            return source_format, source
    return None


@dataclass(frozen=True)
class _Addresses:
    mirrors: Sequence[str]
    _: KW_ONLY
    refresh: bool
    patience: "Patience | None"
    progress: "ProgressCallback | None"

    def of(self, source: Source, role: Role) -> list[str]:
        """Return where a file may be, the mirrors first."""
        name = source.files[role]
        return [*(f"{mirror.rstrip('/')}/{name}" for mirror in self.mirrors), *source.urls.get(role, [])]


def _obtain(entry: DatasetEntry, raw_dir: Path, addresses: _Addresses, *, fetch: bool) -> tuple[SourceFormat, Source]:
    """Generate or fetch the first source that can be had."""
    from recmodels.raw.demo import write_demo_dump
    from recmodels.raw.download import NotThere

    failures: list[str] = []
    for source_format, source in entry.sources.items():
        if source.generated:
            write_demo_dump(raw_dir)
            return source_format, source
        if fetch and all(addresses.of(source, role) for role in _required(source)):
            try:
                _fetch(source, raw_dir, addresses)
                return source_format, source
            except NotThere as error:
                failures.append(str(error))
    if failures:
        raise NotThere("; ".join(failures))
    raise _missing(entry, raw_dir)


def _required(source: Source) -> list[Role]:
    return [role for role in source.files if role not in OPTIONAL_ROLES]


def _interrupted(source: Source, raw_dir: Path) -> bool:
    """Tell whether files were fetched into the folder, but not all that have an address."""
    from recmodels.raw.download import was_fetched

    present = {role: find_file(raw_dir, name) for role, name in source.files.items()}
    fetched = any(was_fetched(path) for path in present.values() if path is not None)
    return fetched and any(path is None and source.urls.get(role) for role, path in present.items())


def _fetch(source: Source, raw_dir: Path, addresses: _Addresses) -> None:
    """
    Fetch what is missing, and with `refresh` what was fetched: required files first.

    Raises NotThere if a required file is nowhere: then this is not the source to take.
    """
    from recmodels.raw.download import NotThere, fetch_file, was_fetched

    for role in sorted(source.files, key=lambda role: role in OPTIONAL_ROLES):
        name = source.files[role]
        urls = addresses.of(source, role)
        present = find_file(raw_dir, name)
        if not urls or (present is not None and not (addresses.refresh and was_fetched(present))):
            continue
        try:
            fetch_file(
                urls,
                present or raw_dir / name,
                sha256=source.sha256.get(role),
                refresh=addresses.refresh,
                patience=addresses.patience,
                progress=addresses.progress,
            )
        except NotThere as error:
            if role not in OPTIONAL_ROLES:
                raise
            # A mirror need not have the optional files; an address of the catalogue has to hold what it promises.
            if source.urls.get(role):
                raise PermanentFailure(str(error)) from error


def _missing(entry: DatasetEntry, raw_dir: Path) -> InputError:
    wanted = " or ".join(
        f"{', '.join(source.files[role] for role in _required(source))} ({source_format})"
        for source_format, source in entry.sources.items()
    )
    if raw_dir.is_dir():
        names = sorted(path.name for path in raw_dir.iterdir() if path.is_file() and not path.name.startswith("."))
        found = f"{len(names)} files: {', '.join(names[:5])}" if names else "an empty folder"
    else:
        found = "no such folder"
    return InputError(
        f"raw files of {entry.key} in {raw_dir}",
        expected=wanted,
        found=found,
        action="Put the files there, or name the folder that has them with RAW_DIR=...",
    )


def _described(path: Path, known: RawFile | None) -> RawFile:
    status = path.stat()
    if status.st_size == 0:
        raise InputError(str(path), expected="a file with content", found="an empty one", action="Fetch it again.")
    if known and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
        return known
    verify_gzip(path)
    described = RawFile(path=path, size=status.st_size, mtime_ns=status.st_mtime_ns, sha256=file_digest(path))
    _require_same(described, (described.size, described.mtime_ns), "while it was hashed")
    return described
