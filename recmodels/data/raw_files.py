"""
Raw files of a data set: found in a folder, generated or fetched, verified and hashed.

What is known of them afterwards is a manifest (`recmodels.raw.manifest`); how one file is fetched belongs to
`recmodels.raw.download`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recmodels.catalogue.entries import DatasetEntry, Source
from recmodels.errors import InputError, PermanentFailure
from recmodels.raw.formats.base import OPTIONAL_ROLES, Role
from recmodels.raw.manifest import RawFile, RawManifest, fingerprint_of

# The generator and the downloader are imported where files are made or fetched: httpx alone takes a tenth of the time
# in which the code server starts.
if TYPE_CHECKING:
    from recmodels.raw.download import Patience, ProgressCallback


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
        As `recmodels.raw.download.fetch_file`.

    Raises
    ------
    InputError
        If files are missing, empty or damaged, or their digest is not the one the catalogue names.
    PermanentFailure, TransientFailure
        If files cannot be fetched, for good or for now.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from recmodels.catalogue.entries import load_catalogue
    >>> manifest = prepare_raw_files(load_catalogue()["demo"], Path(mkdtemp()))
    >>> manifest.format, [file.path.name for file in manifest.files.values()]
    ('amazon2014', ['reviews_Demo_5.json.gz', 'meta_Demo.json.gz', 'image_features_Demo.b'])
    """
    raw_dir = raw_dir.resolve()
    fetcher = _Fetcher(raw_dir=raw_dir, mirrors=mirrors, refresh=refresh, patience=patience, progress=progress)
    chosen = _first_complete(entry, raw_dir)
    if chosen is None:
        chosen = _obtain(entry, fetcher, fetch=fetch)
    elif fetch and (refresh or _interrupted(chosen[1], raw_dir)):
        fetcher.fetch(chosen[1])
    source_format, source = chosen
    known = {file.path: file for file in previous.files.values()} if previous else {}
    files = {role: RawFile.of(path, known.get(path)) for role, path in _present(source, raw_dir).items()}
    for role, expected in source.sha256.items():
        if role in files and files[role].sha256 != expected:
            file = files[role]
            raise InputError(str(file.path), expected=f"sha256 {expected}", found=file.sha256, action="Fetch it again.")
    absent = [role for role in source.files if role not in files]
    return RawManifest(dataset=entry.key, format=source_format, files=files, absent=absent, columns=source.columns)


def named_folder(path: str | Path) -> Path:
    """
    Return a folder of raw files that somebody named, absolute; raises InputError if it is not there.

    A slip of the pen is no place to generate or fetch files into.
    """
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise InputError(
            "folder of the raw files",
            expected="one that exists",
            found=f"{folder}, a file" if folder.exists() else f"{folder}, which does not",
            action="Correct the path, or create the folder first if the files are to be fetched into it.",
        )
    return folder


def stat_fingerprint(entry: DatasetEntry, raw_dir: Path) -> str | None:
    """
    Return a fingerprint of names, sizes and dates of the raw files, None while no source is complete.

    Nothing is read: this is for a sensor, to ask whether `prepare_raw_files` should look.
    """
    chosen = _first_complete(entry, raw_dir)
    if chosen is None:
        return None
    source_format, source = chosen
    seen = {role: (path, path.stat()) for role, path in _present(source, raw_dir).items()}
    files = {role: (path, status.st_size, status.st_mtime_ns) for role, (path, status) in seen.items()}
    return fingerprint_of(source_format, files)


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of a name in a folder, whether it is there with ``.gz`` or without; None if it is not."""
    other = name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
    return next((path for path in (folder / name, folder / other) if path.is_file()), None)


def _present(source: Source, raw_dir: Path) -> dict[Role, Path]:
    found = {role: find_file(raw_dir, name) for role, name in source.files.items()}
    return {role: path for role, path in found.items() if path is not None}


def _required(source: Source) -> list[Role]:
    return [role for role in source.files if role not in OPTIONAL_ROLES]


def _first_complete(entry: DatasetEntry, raw_dir: Path) -> tuple[str, Source] | None:
    complete = (pair for pair in entry.sources.items() if _present(pair[1], raw_dir).keys() >= {*_required(pair[1])})
    return next(complete, None)


@dataclass(frozen=True, kw_only=True)
class _Fetcher:
    raw_dir: Path
    mirrors: Sequence[str]
    refresh: bool
    patience: "Patience | None"
    progress: "ProgressCallback | None"

    def addresses(self, source: Source, role: Role) -> list[str]:
        """Return where a file may be, the mirrors first."""
        name = source.files[role]
        return [*(f"{mirror.rstrip('/')}/{name}" for mirror in self.mirrors), *source.urls.get(role, [])]

    def fetch(self, source: Source) -> None:
        """
        Fetch what is missing, and with `refresh` what was fetched: required files first.

        Raises NotThere if a required file is nowhere: then this is not the source to take.
        """
        from recmodels.raw.download import NotThere, fetch_file, was_fetched

        for role in sorted(source.files, key=lambda role: role in OPTIONAL_ROLES):
            name = source.files[role]
            urls = self.addresses(source, role)
            present = find_file(self.raw_dir, name)
            if not urls or (present is not None and not (self.refresh and was_fetched(present))):
                continue
            try:
                fetch_file(
                    urls,
                    present or self.raw_dir / name,
                    sha256=source.sha256.get(role),
                    refresh=self.refresh,
                    patience=self.patience,
                    progress=self.progress,
                )
            except NotThere as error:
                if role not in OPTIONAL_ROLES:
                    raise
                # A mirror need not have the optional files; an address of the catalogue has to hold what it promises.
                if source.urls.get(role):
                    raise PermanentFailure(str(error)) from error


def _obtain(entry: DatasetEntry, fetcher: _Fetcher, *, fetch: bool) -> tuple[str, Source]:
    """Generate or fetch the first source that can be had."""
    from recmodels.raw.demo import write_demo_dump
    from recmodels.raw.download import NotThere

    failures: list[str] = []
    for source_format, source in entry.sources.items():
        if source.generated:
            write_demo_dump(fetcher.raw_dir)
            return source_format, source
        if fetch and all(fetcher.addresses(source, role) for role in _required(source)):
            try:
                fetcher.fetch(source)
                return source_format, source
            except NotThere as error:
                failures.append(str(error))
    if failures:
        raise NotThere("; ".join(failures))
    raise _missing(entry, fetcher.raw_dir)


def _interrupted(source: Source, raw_dir: Path) -> bool:
    """Tell whether files were fetched into the folder, but not all that have an address."""
    from recmodels.raw.download import was_fetched

    present = _present(source, raw_dir)
    return any(map(was_fetched, present.values())) and any(
        source.urls.get(role) for role in source.files if role not in present
    )


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
