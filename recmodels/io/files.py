"""Files under one data root: paths that cannot leave it, writes that are whole or absent, reads of what was written."""

import contextlib
import errno
import glob
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from recmodels.errors import InputError, MissingObject
from recmodels.io.processes import has_ended, host

DATA_ROOT_VARIABLE = "RECMODELS_DATA"
CACHE_VARIABLE = "RECMODELS_CACHE"
INSTANCE_FOLDER = "dagster"
"""Where below a data root Dagster's records are unless ``DAGSTER_HOME`` says otherwise."""
MANIFEST = "manifest.json"
"""Name of the file of a stored directory that has the digests of the others."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_DISK_IS_FULL = ("No space left on device", "Disk quota exceeded", "database or disk is full")
_TEMPORARY = ".tmp"
_ABANDONED_SECONDS = 24 * 3600
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def data_root() -> Path:
    """Return the absolute directory of everything that the product writes: ``RECMODELS_DATA``, or else ``./data``."""
    return Path(os.environ.get(DATA_ROOT_VARIABLE) or "data").resolve()


def instance_home(root: Path) -> Path:
    """Return the directory of Dagster's records: what ``DAGSTER_HOME`` names, or else that of a data root."""
    return Path(os.environ.get("DAGSTER_HOME") or root / INSTANCE_FOLDER)


def cache_folder(root: Path) -> Path:
    """
    Return the directory of the caches, which several processes of one machine share: ``cache`` below a data root.

    The environment variable ``RECMODELS_CACHE`` names another, on a local disk, where the data root is on a network
    file system.
    """
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).resolve() if named else safe_join(root, "cache")


def is_plain(name: str) -> bool:
    """Tell whether a name can be part of a path below a root (see `safe_join`)."""
    return bool(_SAFE_NAME.fullmatch(name))


def safe_join(root: Path, *parts: str) -> Path:
    """
    Join names below a root; raises InputError if one is not plain (letters, digits, ``.``, ``_``, ``-``, no dot first).

    So no partition key or asset name can reach outside the root.
    """
    for part in parts:
        if not is_plain(part):
            raise InputError(
                f"path part {part!r}",
                expected="a plain name of letters, digits, '.', '_' and '-' that does not start with a dot",
                found=repr(part),
            )
    return root.joinpath(*parts)


@contextlib.contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """
    Yield a temporary path in the folder of `path`; move it over `path` if the block succeeds, delete it if not.

    The content is flushed to disk before the move, so that a crash leaves the old file or the new one, never a part.
    What a killed writer left is deleted by the next one of the same file. Raises InputError if the disk is full.
    """
    with _written_beside(path) as temporary:
        yield temporary
        _flush(temporary)
        temporary.replace(path)


def store_by_content(folder: Path, suffix: str, write: Callable[[Path], object]) -> tuple[Path, "Content"]:
    """
    Have a file written, give it the name of its content, so that it is never replaced by another one, and return both.

    `write` is called with the path to write to. The file goes into the folder, which is made if missing, as
    ``<first 32 digits of its sha256><suffix>``. Nothing is left there if `write` fails; InputError tells if it is full.
    """
    with _written_beside(folder / f"new{suffix}", told=folder) as temporary:
        write(temporary)
        _flush(temporary)
        content = Content.of(temporary)
        path = folder / f"{content.sha256[:32]}{suffix}"
        temporary.replace(path)
    return path, content


def store_folder_by_content(
    folder: Path, suffix: str, write: Callable[[Path], object], *, is_whole: Callable[[Path], bool]
) -> tuple[Path, "Content"]:
    """
    Have a directory written, as `store_by_content` a file; its name and content are those of its file `MANIFEST`.

    `is_whole` tells whether a directory with that manifest which is there already still holds what it says. If so, it
    stays; if not, it is replaced.
    """
    with _written_beside(folder / f"new{suffix}", told=folder) as temporary:
        temporary.mkdir()
        write(temporary)
        for file in temporary.iterdir():
            _flush(file)
        content = Content.of(temporary / MANIFEST)
        path = folder / f"{content.sha256[:32]}{suffix}"
        manifest = path / MANIFEST
        if manifest.is_file() and Content.of(manifest) == content and is_whole(path):
            os.utime(path)
        else:
            if path.exists():
                _remove(path.rename(_temporary(path)))
            temporary.rename(path)
    return path, content


@contextlib.contextmanager
def atomic_directory(path: Path) -> Generator[Path]:
    """Yield a temporary directory beside `path`, as `atomic_file` a file; `path` must not be there yet."""
    with _written_beside(path) as temporary:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        temporary.rename(path)


@contextlib.contextmanager
def scratch_directory(path: Path) -> Generator[Path]:
    """Yield an empty directory beside `path` that is gone in the end; what killed processes left of it goes, too."""
    with _written_beside(path) as temporary:
        temporary.mkdir()
        yield temporary


@contextlib.contextmanager
def _written_beside(path: Path, *, told: Path | None = None) -> Generator[Path]:
    """Yield a temporary path beside `path` that is gone in the end; errors tell of `told`, or else of `path`."""
    temporary = _temporary(path)
    try:
        with disk_errors_told(told or path):
            yield temporary
    finally:
        _remove(temporary)


def _flush(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors_told(path: Path) -> Generator[None]:
    """Raise InputError, one line, where a disk is full or may not be written; of `path`, if the error names none."""
    try:
        yield
    except Exception as error:
        raise_if_disk_refuses(path, error)
        raise


def raise_if_disk_refuses(path: Path, error: BaseException) -> None:
    """
    Raise InputError, one line, if an error means that there is no room for a file, or that it may not be written.

    Polars, safetensors and SQLite raise errors of their own that tell of a full disk by their text alone.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or any(text in str(error) for text in _DISK_IS_FULL):
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        raise InputError(
            str(path),
            expected="room on its disk to write it",
            found=f"{shutil.disk_usage(folder).free:,} bytes free",
            action="Make room (docs/operating.md, Disk) and run it again: what was stored before is intact.",
        ) from error
    if isinstance(error, OSError) and number in _REFUSED:
        raise InputError(
            str(error.filename or path),
            expected="a disk that can be written",
            found=str(error.strerror or error),
            action="Correct its permissions and run it again: what was stored before is intact.",
        ) from error


def _temporary(path: Path) -> Path:
    """Return a hidden path beside `path` that says who writes it; delete what dead writers of the same path left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_TEMPORARY}"):
        if _is_abandoned(left):
            _remove(left)
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{uuid.uuid4().hex}{_TEMPORARY}")


def _is_abandoned(temporary: Path) -> bool:
    """Tell whether the process that wrote a temporary path has ended; of another machine's, whether a day went by."""
    writer = temporary.name.removesuffix(_TEMPORARY).rpartition(".")[2].split("-")
    try:
        written = temporary.stat().st_mtime
    except FileNotFoundError:
        return False
    if len(writer) == 3 and writer[0] == _host():
        return has_ended(int(writer[1]), written)
    return time.time() - written > _ABANDONED_SECONDS


def _host() -> str:
    return hashlib.sha256(host().encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Content:
    """What a file holds: the number of its bytes, and their digest."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Content":
        """Return the content of a file."""
        return cls(path.stat().st_size, file_digest(path))

    def require(self, path: Path, action: str) -> None:
        """Raise MissingObject, with what to do, if a file is gone or does not hold this content."""
        try:
            size = path.stat().st_size
            found = f"{size:,} bytes"
            if size == self.size:
                digest = file_digest(path)
                if digest == self.sha256:
                    return
                found = f"other bytes, with sha256 {digest}"
        except OSError as error:
            found = error.strerror or str(error)
        raise MissingObject(
            f"{path}: expected the {self.size:,} bytes with sha256 {self.sha256} that were written, found {found}. "
            f"{action}"
        )


_DIGESTS: dict[tuple[int, ...], str] = {}
_SETTLED_NS = 10**9


def file_digest(path: Path) -> str:
    """
    Return the sha256 of a file's bytes.

    A process reads a file once (a gigabyte takes it 0.7 s) and again only when its size or time of change is another;
    what changed within the last second is always read, as a second change would not show in the time.
    """
    with path.open("rb") as handle:
        status = os.fstat(handle.fileno())
        # The time of the last change of any kind, which nobody can set: numbers of deleted files are used again.
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key in _DIGESTS:
            return _DIGESTS[key]
        settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if settled:
        _DIGESTS[key] = digest
    return digest
