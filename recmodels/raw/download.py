"""Fetching of raw files: resumed, retried, verified, and whole or absent at the end."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential_jitter

from recmodels.errors import InputError, PermanentFailure, TransientFailure
from recmodels.io.files import atomic_file
from recmodels.io.retry_after import retry_after_seconds
from recmodels.raw.lines import is_gzip, verify_gzip

_ORIGIN = "origin.json"
_PASSING_STATUS = frozenset({408, 425, 429})
_PARTIAL_CONTENT, _NOT_MODIFIED, _RANGE_NOT_SATISFIABLE = 206, 304, 416
_GONE = frozenset({404, 410})
_LONGEST_WAIT = 60.0


ProgressCallback = Callable[[str, int, int | None], None]
"""Told, now and then: name of a file, bytes that are there, bytes there will be if that is known."""


@dataclass(frozen=True)
class Patience:
    """
    How stubbornly a file is fetched.

    Attributes
    ----------
    attempts
        Tries of one address that bring nothing new before it is given up.
    first_wait
        Seconds before the second try; doubled, with jitter, up to a minute.
    timeout
        Seconds without a byte after which a connection counts as broken.
    """

    attempts: int = 5
    first_wait: float = 1.0
    timeout: float = 60.0


class NotThere(PermanentFailure):
    """None of the addresses has the file."""


class Origin(BaseModel):
    """Where a fetched file came from, and what the server said of it. Kept beside the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    """Address."""
    etag: str | None = None
    """The server's ETag."""
    last_modified: str | None = None
    """The server's Last-Modified; of a local file its time of change."""
    size: int | None = None
    """Bytes of the whole file as the server named them."""

    @property
    def validator(self) -> str | None:
        """What a request may name to get the rest of exactly this file. Weak ETags promise no equal bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def fetch_file(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str | None = None,
    refresh: bool = False,
    patience: Patience | None = None,
    progress: ProgressCallback | None = None,
) -> bool:
    """
    Fetch a file from the first address that has it.

    An interrupted transfer goes on where it stopped, if the server still has the same file. The target is replaced only
    by a file that is complete and verified. Two processes that fetch the same file take turns.

    Parameters
    ----------
    urls
        ``http(s)://``, ``file://`` or a local path, tried in turn.
    target
        Where to put it.
    sha256
        Digest it has to have.
    refresh
        Ask for a newer version of a file that is there. Without, a file that is there is left alone.
    patience, progress
        Retries; who to tell.

    Returns
    -------
    bool
        Whether bytes were fetched; False if the file was there and nothing newer was.

    Raises
    ------
    NotThere
        If no address has the file.
    PermanentFailure
        If what an address has is damaged or may not be read.
    TransientFailure
        If some address may have it but cannot be reached now.
    """
    failures: list[Exception] = []
    with _disk_faults(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(_beside(target, "lock")):
        if target.exists() and not refresh:
            return False
        for url in urls:
            try:
                return _fetch(url, target, sha256, patience or Patience(), progress)
            except (PermanentFailure, TransientFailure) as error:
                failures.append(error)
    summary = f"{target.name} cannot be fetched: " + "; ".join(str(failure) for failure in failures)
    summary += f". It can also be put into {target.parent} by hand."
    if any(isinstance(failure, TransientFailure) for failure in failures):
        raise TransientFailure(summary) from failures[-1]
    missing = all(isinstance(failure, NotThere) for failure in failures)
    raise (NotThere if missing else PermanentFailure)(summary) from failures[-1]


def was_fetched(path: Path) -> bool:
    """Tell whether a file was put there by `fetch_file`."""
    return _beside(path, _ORIGIN).exists()


@contextlib.contextmanager
def progress_bars() -> Generator[ProgressCallback]:
    """Yield a callback that draws a bar a file on the terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn()) as bars:
        tasks = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=done, total=total)

        yield show


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{suffix}")


@contextlib.contextmanager
def _lock(path: Path) -> Generator[None]:
    with _disk_faults(path):
        handle = path.open("a")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _load_origin(path: Path) -> Origin | None:
    try:
        return Origin.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _origin_of(target: Path) -> Origin | None:
    """Return where a file came from, None if it was not fetched or is no longer what was."""
    origin = _load_origin(_beside(target, _ORIGIN))
    return origin if origin is not None and target.exists() and target.stat().st_size == origin.size else None


def _save_origin(path: Path, origin: Origin) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(origin.model_dump_json() + "\n", encoding="utf-8")


def _fetch(url: str, target: Path, sha256: str | None, patience: Patience, progress: ProgressCallback | None) -> bool:
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https"):
        return _Download(url, target, sha256, patience, progress).run()
    if scheme == "file":
        return _copy(Path(unquote(urlsplit(url).path)), url, target, sha256)
    if scheme:
        raise PermanentFailure(f"{url}: expected http, https, file or a path, found {scheme}")
    return _copy(Path(url).expanduser(), url, target, sha256)


def _copy(source: Path, url: str, target: Path, sha256: str | None) -> bool:
    if not source.is_file():
        raise NotThere(f"{url}: no such file")
    status = source.stat()
    origin = Origin(url=url, last_modified=str(status.st_mtime_ns), size=status.st_size)
    if _origin_of(target) == origin:
        return False
    _check_space(target, status.st_size)
    with _disk_faults(target), atomic_file(target) as temporary:
        shutil.copyfile(source, temporary)
        _verify(temporary, target.name, url, sha256)
    _save_origin(_beside(target, _ORIGIN), origin)
    return True


@contextlib.contextmanager
def _disk_faults(target: Path) -> Generator[None]:
    """Say it in one line if the disk cannot take a file."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        raise InputError(str(target), expected="a disk that takes the file", found=str(error.strerror)) from error


def _check_space(target: Path, size: int | None) -> None:
    free = shutil.disk_usage(target.parent).free
    if size is not None and size > free:
        raise InputError(
            f"disk of {target.parent}", expected=f"{size:,} bytes free for {target.name}", found=f"{free:,}"
        )


def _verify(path: Path, name: str, url: str, sha256: str | None) -> None:
    if path.stat().st_size == 0:
        raise PermanentFailure(f"{url}: the file is empty")
    if sha256 is not None:
        with path.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        if found != sha256:
            raise PermanentFailure(f"{url}: expected sha256 {sha256}, found {found}")
    if name.endswith(".gz") and not is_gzip(path):
        with path.open("rb") as handle:
            raise PermanentFailure(f"{url}: expected a gzip file, found one that starts with {handle.read(16)!r}")
    try:
        verify_gzip(path)
    except InputError as error:
        raise PermanentFailure(f"{url}: expected {error.expected}, found {error.found}") from error


class _PassingError(Exception):
    """A fault after which the next try may succeed."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class _Download:
    """One file from one address, over as many connections as it takes."""

    def __init__(
        self, url: str, target: Path, sha256: str | None, patience: Patience, progress: ProgressCallback | None
    ) -> None:
        self.url, self.target, self.sha256 = url, target, sha256
        self.patience, self.progress = patience, progress
        self.part, self.part_origin = _beside(target, "part"), _beside(target, "part.json")
        self.fruitless = 0
        self.verified_failures = 0

    def run(self) -> bool:
        backoff = wait_exponential_jitter(
            multiplier=self.patience.first_wait, max=_LONGEST_WAIT, jitter=self.patience.first_wait
        )

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, _PassingError) else 0.0
            return max(asked, min(_LONGEST_WAIT, backoff(state)))

        retrying = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=lambda state: self.fruitless >= self.patience.attempts,
            wait=wait,
            reraise=True,
        )
        timeout = httpx.Timeout(self.patience.timeout)
        try:
            with httpx.Client(follow_redirects=True, timeout=timeout) as client:
                return retrying(self._attempt, client)
        except _PassingError as error:
            raise TransientFailure(f"{self.url}: {error}") from error

    def _attempt(self, client: httpx.Client) -> bool:
        before = self._have()
        self.fruitless += 1
        try:
            with _disk_faults(self.target):
                return self._request(client)
        except (httpx.TransportError, _PassingError) as error:
            if self._have() > before:
                self.fruitless = 0
            if isinstance(error, _PassingError):
                raise
            raise _PassingError(f"{type(error).__name__}: {error}") from error
        except (httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise PermanentFailure(f"{self.url}: {error}") from error

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _request(self, client: httpx.Client) -> bool:
        # Compression on the way would make lengths and ranges count something else than the bytes of the file.
        headers = {"Accept-Encoding": "identity"}
        part = _load_origin(self.part_origin)
        start = self._have()
        resumed = part is not None and part.url == self.url and part.validator is not None and start > 0
        if resumed and part is not None:
            headers |= {"Range": f"bytes={start}-", "If-Range": part.validator or ""}
        else:
            start = 0
            known = _origin_of(self.target)
            if known is not None and known.url == self.url:
                if known.etag:
                    headers["If-None-Match"] = known.etag
                if known.last_modified:
                    headers["If-Modified-Since"] = known.last_modified
        with client.stream("GET", self.url, headers=headers) as response:
            if response.status_code == _NOT_MODIFIED:
                return False
            if response.status_code == _RANGE_NOT_SATISFIABLE and resumed:
                if response.headers.get("Content-Range") == f"bytes */{start}":
                    return self._finish(part)
                self._discard()
                raise _PassingError("the partial file does not fit the server's")
            self._check_status(response)
            if response.status_code == _PARTIAL_CONTENT:
                total = _range_total(response.headers.get("Content-Range"), start)
                if total is None or not resumed:
                    self._discard()
                    raise _PassingError("the server sent another range than was asked for")
            else:
                start, total = 0, _length(response.headers.get("Content-Length"))
            origin = Origin(
                url=self.url,
                etag=response.headers.get("ETag"),
                last_modified=response.headers.get("Last-Modified"),
                size=total,
            )
            if self._unchanged(origin):
                return False
            self._receive(response, start, origin)
        return self._finish(origin)

    def _unchanged(self, origin: Origin) -> bool:
        """Tell whether a server that ignores conditions has the file that is there already."""
        return origin.validator is not None and origin == _origin_of(self.target)

    def _receive(self, response: httpx.Response, start: int, origin: Origin) -> None:
        _check_space(self.target, origin.size - start if origin.size is not None else None)
        _save_origin(self.part_origin, origin)
        done = start
        with self.part.open("r+b" if start else "wb") as handle:
            handle.seek(start)
            handle.truncate()
            # Chunks of a given size would be held back until they are full, and lost when the connection drops.
            for chunk in response.iter_raw():
                handle.write(chunk)
                done += len(chunk)
                if self.progress is not None:
                    self.progress(self.target.name, done, origin.size)
        if origin.size is not None and done != origin.size:
            raise _PassingError(f"{done:,} of {origin.size:,} bytes came")

    def _finish(self, origin: Origin | None) -> bool:
        try:
            _verify(self.part, self.target.name, self.url, self.sha256)
        except PermanentFailure as error:
            self._discard()
            self.verified_failures += 1
            # A transfer put together from parts may be at fault once; twice, it is the file.
            if self.verified_failures == 1:
                raise _PassingError(str(error)) from error
            raise
        with self.part.open("rb") as handle:
            os.fsync(handle.fileno())
        self.part.replace(self.target)
        self.part_origin.unlink(missing_ok=True)
        if origin is not None:
            known = origin.model_copy(update={"size": self.target.stat().st_size})
            _save_origin(_beside(self.target, _ORIGIN), known)
        return True

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.part_origin.unlink(missing_ok=True)

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in _PASSING_STATUS or status >= 500:
            wait = retry_after_seconds(response.headers.get("Retry-After")) or 0.0
            raise _PassingError(f"the server answered {status}", min(wait, _LONGEST_WAIT))
        if status in _GONE:
            raise NotThere(f"{self.url}: the server answered {status}")
        if status not in (200, _PARTIAL_CONTENT):
            raise PermanentFailure(f"{self.url}: the server answered {status}")


def _length(header: str | None) -> int | None:
    return int(header) if header and header.isdigit() else None


def _range_total(header: str | None, start: int) -> int | None:
    """Return the size of the whole file if a Content-Range begins where it should, else None."""
    unit, _, rest = (header or "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or first != str(start) or not total.isdigit():
        return None
    return int(total)
