"""
Fetching of one raw file: resumed, retried, verified, and whole or absent at the end.

Which files a data set needs, and where they may be, belongs to `recmodels.data.raw_files`.
"""

import contextlib
import fcntl
import netrc
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError
from tenacity import Retrying, retry_if_exception_type, wait_exponential_jitter

from recmodels.errors import InputError, PermanentFailure, TransientFailure
from recmodels.io.files import atomic_file, disk_errors_told, file_digest
from recmodels.raw.lines import is_gzip, verify_gzip

_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416
_PASSING_STATUS, _GONE = frozenset({408, 425, 429}), frozenset({404, 410})
_LONGEST_WAIT = 60.0


ProgressCallback = Callable[[str, int, int | None], None]
"""Told, now and then: name of a file, bytes that are there, bytes there will be if that is known."""


@dataclass(frozen=True)
class Patience:
    """
    How stubbornly a file is fetched: how many tries of one address may bring nothing new before it is given up.

    The second comes after `first_wait` seconds, which are doubled, with jitter, up to a minute. A connection counts as
    broken after `timeout` seconds without a byte.
    """

    attempts: int = 5
    first_wait: float = 1.0
    timeout: float = 60.0


class NotThere(PermanentFailure):
    """None of the addresses has the file."""


class Origin(BaseModel):
    """Where a file, or a part of it, was fetched from, and what the server said of it. Kept beside the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    """Address, without a query."""
    validator: str | None = None
    """What a request may name to get the rest of exactly this file: a strong ETag, or its date of change."""
    size: int | None = None
    """Bytes of the whole file as the server named them."""
    sha256: str | None = None
    """Digest of the whole file; of a part none yet."""

    @classmethod
    def load(cls, path: Path) -> "Origin | None":
        """Return what a file says, None if it is missing or says nothing."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def save(self, path: Path) -> None:
        """Write a file."""
        with atomic_file(path) as temporary:
            temporary.write_text(self.model_dump_json(), encoding="utf-8")


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
        Digest it has to have. Default: that of the same file when it was fetched before, so that it cannot change
        unnoticed.
    refresh
        Take a newer version of a file that is there, or of one that was. Without, a file that is there is left alone.
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
    with disk_errors_told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target, "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if target.exists() and not refresh:
                return False
            if sha256 is None and not refresh and (known := Origin.load(_beside(target, "origin.json"))):
                sha256 = known.sha256
            for url in urls:
                try:
                    return _Fetch(url, target, sha256, patience or Patience(), progress).run()
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
    return _beside(path, "origin.json").exists()


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{suffix}")


@dataclass
class _Fetch:
    """One file from one address, over as many connections as it takes."""

    url: str
    target: Path
    sha256: str | None
    patience: Patience
    progress: ProgressCallback | None
    fruitless: int = 0
    distrusted: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self.scheme, self.shown = parts.scheme, self.url
        if parts.netloc:
            # Neither credentials nor a signature in the query get into a message.
            host = parts.netloc.rpartition("@")[2]
            self.shown = f"{parts.scheme}://{host}{parts.path}"
            if host != parts.netloc:
                raise InputError(
                    self.shown,
                    expected="an address without a user name or password",
                    found="one with",
                    action="Put them into ~/.netrc (or what NETRC names): the settings of a run are stored and shown.",
                )
        self.part, self.part_origin = _beside(self.target, "part"), _beside(self.target, "part.json")

    def run(self) -> bool:
        if self.scheme in ("", "file"):
            return self._copy(Path(unquote(urlsplit(self.url).path) if self.scheme else self.url).expanduser())
        if self.scheme not in ("http", "https"):
            raise PermanentFailure(f"{self.shown}: expected http, https, file or a path, found {self.scheme}")
        first, timeout = self.patience.first_wait, self.patience.timeout
        hooks = {"request": [self._require_https]}
        with httpx.Client(auth=_netrc(), follow_redirects=True, timeout=timeout, event_hooks=hooks) as client:
            return Retrying(
                retry=retry_if_exception_type(TransientFailure),
                stop=lambda state: self.fruitless >= self.patience.attempts,
                wait=wait_exponential_jitter(multiplier=first, max=_LONGEST_WAIT, jitter=first),
                reraise=True,
            )(self._attempt, client)

    def _copy(self, source: Path) -> bool:
        if not source.is_file():
            raise NotThere(f"{self.shown}: no such file")
        stats = [path.stat() for path in (source, self.target) if path.exists()]
        if len({(status.st_size, status.st_mtime_ns) for status in stats}) < len(stats):
            return False
        with atomic_file(self.target) as temporary:
            shutil.copy2(source, temporary)
            if fault := self._fault(temporary):
                raise PermanentFailure(f"{self.shown}: {fault}")
        self._remember(Origin(url=self.shown))
        return True

    def _remember(self, origin: Origin) -> None:
        origin.model_copy(update={"sha256": file_digest(self.target)}).save(_beside(self.target, "origin.json"))

    def _require_https(self, request: httpx.Request) -> None:
        if self.scheme == "https" and request.url.scheme != "https":
            raise PermanentFailure(f"{self.shown}: expected https all the way, found a redirect to plain http")

    def _attempt(self, client: httpx.Client) -> bool:
        before = self._have()
        self.fruitless += 1
        try:
            return self._request(client)
        except (httpx.TransportError, TransientFailure) as error:
            if self._have() > before:
                self.fruitless = 0
            if isinstance(error, TransientFailure):
                raise
            raise self._passing(str(error) or type(error).__name__) from error
        except (httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise PermanentFailure(f"{self.shown}: {error}") from error

    def _passing(self, fault: str) -> TransientFailure:
        return TransientFailure(f"{self.shown}: {fault}")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _request(self, client: httpx.Client) -> bool:
        # Compression on the way would make lengths and ranges count something else than the bytes of the file.
        headers = {"Accept-Encoding": "identity"}
        part, start = Origin.load(self.part_origin), self._have()
        if start and part is not None and part.url == self.shown and part.validator is not None:
            headers |= {"Range": f"bytes={start}-", "If-Range": part.validator}
        with client.stream("GET", self.url, headers=headers) as response:
            if response.status_code == _RANGE_NOT_SATISFIABLE and part is not None:
                if response.headers.get("Content-Range") == f"bytes */{start}":
                    return self._finish(part)
                self._start_again("the partial file does not fit the server's")
            status = response.status_code
            if status in _PASSING_STATUS or status >= 500:
                raise self._passing(f"the server answered {status}")
            if status not in (200, _PARTIAL_CONTENT):
                raise (NotThere if status in _GONE else PermanentFailure)(f"{self.shown}: the server answered {status}")
            total = response.headers.get("Content-Length", "")
            if status == _PARTIAL_CONTENT:
                found = re.fullmatch(rf"bytes {start}-\d+/(\d+)", response.headers.get("Content-Range", ""))
                if found is None or "Range" not in headers:
                    self._start_again("the server sent another range than was asked for")
                total = found[1]
            else:
                start = 0
            etag = response.headers.get("ETag", "W/")  # weak ones promise no equal bytes
            validator = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
            origin = Origin(url=self.shown, validator=validator, size=int(total) if total.isdigit() else None)
            if self._is_there(origin):
                return False
            self._receive(response, start, origin)
        return self._finish(origin)

    def _is_there(self, origin: Origin) -> bool:
        """Tell whether the file that is there already is the server's."""
        known = Origin.load(_beside(self.target, "origin.json"))
        if known is None or origin.validator is None or not self.target.exists():
            return False
        return origin == known.model_copy(update={"sha256": None}) and self.target.stat().st_size == origin.size

    def _receive(self, response: httpx.Response, start: int, origin: Origin) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if origin.size is not None and origin.size - start > free:
            raise InputError(
                f"disk of {self.target.parent}",
                expected=f"{origin.size - start:,} bytes free for {self.target.name}",
                found=f"{free:,}",
            )
        origin.save(self.part_origin)
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
            raise self._passing(f"{done:,} of {origin.size:,} bytes came")

    def _finish(self, origin: Origin) -> bool:
        if fault := self._fault(self.part):
            self._start_again(fault)
        with self.part.open("rb") as handle:
            os.fsync(handle.fileno())
        self.part.replace(self.target)
        self.part_origin.unlink(missing_ok=True)
        self._remember(origin)
        return True

    def _start_again(self, fault: str) -> NoReturn:
        """Drop what came. A transfer put together from parts may be at fault once; twice, it is the server's file."""
        self.part.unlink(missing_ok=True)
        self.part_origin.unlink(missing_ok=True)
        if self.distrusted:
            raise PermanentFailure(f"{self.shown}: {fault}")
        self.distrusted = True
        raise self._passing(fault)

    def _fault(self, path: Path) -> str:
        """Return what is wrong with a file that came, empty if nothing is."""
        if path.stat().st_size == 0:
            return "the file is empty"
        if self.sha256 is not None and (found := file_digest(path)) != self.sha256:
            expected = f"sha256 {self.sha256} (of the catalogue, or of what was fetched first)"
            return f"expected {expected}, found {found}; `refresh` takes a newer version that no catalogue forbids"
        if self.target.suffix == ".gz" and not is_gzip(path):
            with path.open("rb") as handle:
                return f"expected a gzip file, found one that starts with {handle.read(16)!r}"
        try:
            verify_gzip(path)
        except InputError as error:
            return f"expected {error.expected}, found {error.found}"
        return ""


def _netrc() -> httpx.NetRCAuth | None:
    """Return the credentials of hosts that the user's netrc file has, None if there is no such file."""
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return httpx.NetRCAuth(os.environ.get("NETRC"))
