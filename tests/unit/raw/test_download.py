"""Fetching over a loopback server that is slow, drops connections, lies about lengths and changes its files."""

import gzip
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from recmodels.errors import InputError, PermanentFailure, TransientFailure
from recmodels.raw.download import NotThere, Patience, fetch_file, was_fetched

QUICK = Patience(attempts=3, first_wait=0.01, timeout=5.0)
CONTENT = gzip.compress(os.urandom(300_000), mtime=0)


@dataclass
class Behaviour:
    """What the server does; tests change it."""

    content: bytes = CONTENT
    etag: str | None = '"v1"'
    last_modified: str | None = None
    ranges: bool = True
    chunked: bool = False
    send_at_most: list[int] = field(default_factory=list)
    named_length: int | None = None
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        behaviour = self.behaviour
        behaviour.requests.append(dict(self.headers.items()))
        if behaviour.statuses and (status := behaviour.statuses.pop(0)) != 200:
            self.send_response(status)
            for name, value in behaviour.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, start = behaviour.content, 0
        wanted = self.headers.get("Range")
        fresh = self.headers.get("If-Range") in (behaviour.etag, behaviour.last_modified, None)
        if wanted and behaviour.ranges and fresh:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if behaviour.etag:
            self.send_header("ETag", behaviour.etag)
        if behaviour.last_modified:
            self.send_header("Last-Modified", behaviour.last_modified)
        body = body[start:]
        if behaviour.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            return
        length = len(body) if behaviour.named_length is None else behaviour.named_length
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if behaviour.send_at_most:
            body = body[: behaviour.send_at_most.pop(0)]
        self.wfile.write(body[:length])
        self.wfile.flush()
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"behaviour": behaviour}))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/reviews.json.gz", behaviour
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".part" in path.name or path.suffix == ".tmp")


def test_a_file_arrives_whole_and_its_origin_is_remembered(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    target = tmp_path / "new folder" / "reviews.json.gz"
    seen: list[tuple[str, int, int | None]] = []
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert fetch_file([url], target, sha256=digest, progress=lambda *told: seen.append(told))
    assert target.read_bytes() == CONTENT
    assert was_fetched(target)
    assert seen[-1] == ("reviews.json.gz", len(CONTENT), len(CONTENT))
    assert behaviour.requests[0]["Accept-Encoding"] == "identity"
    assert leftovers(target.parent) == []


def test_a_file_that_is_there_is_left_alone(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    target = tmp_path / "reviews.json.gz"
    target.write_bytes(b"mine")
    assert not fetch_file([url], target)
    assert (target.read_bytes(), behaviour.requests) == (b"mine", [])


def test_a_dropped_connection_resumes_where_it_stopped(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.send_at_most = [100_000, 50_000, 0, 70_000]
    assert fetch_file([url], tmp_path / "reviews.json.gz", patience=QUICK)
    assert (tmp_path / "reviews.json.gz").read_bytes() == CONTENT
    ranges = [request.get("Range") for request in behaviour.requests]
    assert ranges[0] is None
    assert all(range_ is not None for range_ in ranges[1:])
    assert int(str(ranges[-1]).removeprefix("bytes=").rstrip("-")) > 0


def test_last_modified_serves_where_there_is_no_etag(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.etag, behaviour.last_modified = None, "Wed, 21 Oct 2015 07:28:00 GMT"
    behaviour.send_at_most = [100_000]
    fetch_file([url], tmp_path / "reviews.json.gz", patience=QUICK)
    assert behaviour.requests[1]["If-Range"] == behaviour.last_modified
    assert (tmp_path / "reviews.json.gz").read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_it_starts_again(
    server: tuple[str, Behaviour], tmp_path: Path, etag: str | None
) -> None:
    url, behaviour = server
    behaviour.etag, behaviour.send_at_most = etag, [100_000]
    fetch_file([url], tmp_path / "reviews.json.gz", patience=QUICK)
    assert [request.get("Range") for request in behaviour.requests] == [None, None]
    assert (tmp_path / "reviews.json.gz").read_bytes() == CONTENT


def test_an_interrupted_process_resumes(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    target = tmp_path / "reviews.json.gz"
    behaviour.send_at_most = [120_000, 0, 0, 0]
    with pytest.raises(TransientFailure):
        fetch_file([url], target, patience=QUICK)
    assert not target.exists()
    behaviour.send_at_most.clear()
    fetch_file([url], target, patience=QUICK)
    assert "Range" in behaviour.requests[-1]
    assert target.read_bytes() == CONTENT


def test_a_file_that_changes_in_between_is_fetched_anew(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    target = tmp_path / "reviews.json.gz"
    behaviour.send_at_most = [120_000, 0, 0, 0]
    with pytest.raises(TransientFailure):
        fetch_file([url], target, patience=QUICK)
    behaviour.send_at_most.clear()
    behaviour.content, behaviour.etag = gzip.compress(os.urandom(200_000)), '"v2"'
    fetch_file([url], target, patience=QUICK)
    assert target.read_bytes() == behaviour.content


def test_a_server_that_ignores_ranges_is_read_from_the_start(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.ranges, behaviour.send_at_most = False, [100_000]
    fetch_file([url], tmp_path / "reviews.json.gz", patience=QUICK)
    assert (tmp_path / "reviews.json.gz").read_bytes() == CONTENT


def test_a_length_too_long_ends_in_the_whole_file(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.named_length = len(CONTENT) + 1000
    fetch_file([url], tmp_path / "reviews.json.gz", patience=QUICK)
    assert (tmp_path / "reviews.json.gz").read_bytes() == CONTENT


def test_a_length_too_short_is_found_by_the_gzip_checksum(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.named_length = len(CONTENT) - 1000
    with pytest.raises(PermanentFailure, match="complete gzip file"):
        fetch_file([url], tmp_path / "reviews.json.gz", patience=QUICK)
    assert not (tmp_path / "reviews.json.gz").exists()
    assert leftovers(tmp_path) == []


def test_a_body_without_length_arrives(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.chunked = True
    assert fetch_file([url], tmp_path / "reviews.json.gz", patience=QUICK)
    assert (tmp_path / "reviews.json.gz").read_bytes() == CONTENT


def test_an_unchanged_remote_is_not_fetched_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, _ = server
    target = tmp_path / "reviews.json.gz"
    fetch_file([url], target)
    before = target.stat().st_mtime_ns
    assert not fetch_file([url], target, refresh=True)
    assert target.stat().st_mtime_ns == before


def test_a_date_of_change_tells_that_a_remote_is_unchanged(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.etag, behaviour.last_modified = None, "Wed, 21 Oct 2015 07:28:00 GMT"
    target = tmp_path / "reviews.json.gz"
    fetch_file([url], target)
    assert not fetch_file([url], target, refresh=True)


def test_a_changed_remote_is_fetched_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    target = tmp_path / "reviews.json.gz"
    fetch_file([url], target)
    behaviour.content, behaviour.etag = gzip.compress(b"new"), '"v2"'
    assert fetch_file([url], target, refresh=True)
    assert target.read_bytes() == behaviour.content


def test_a_failed_refresh_keeps_the_old_file(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    target = tmp_path / "reviews.json.gz"
    fetch_file([url], target)
    behaviour.content, behaviour.etag = b"<html>moved</html>", '"v2"'
    with pytest.raises(PermanentFailure, match="expected a gzip file, found one that starts with b'<html>moved"):
        fetch_file([url], target, refresh=True, patience=QUICK)
    assert target.read_bytes() == CONTENT


def test_busy_servers_are_tried_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.statuses, behaviour.headers = [503, 429], {"Retry-After": "0"}
    assert fetch_file([url], tmp_path / "reviews.json.gz", patience=QUICK)
    assert len(behaviour.requests) == 3


def test_a_missing_file_is_not_tried_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.statuses = [404]
    with pytest.raises(NotThere, match="404"):
        fetch_file([url], tmp_path / "reviews.json.gz", patience=QUICK)
    assert len(behaviour.requests) == 1


def test_the_next_address_is_asked_where_one_fails(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    behaviour.statuses = [403]
    assert fetch_file([url, url], tmp_path / "reviews.json.gz", patience=QUICK)


def test_a_server_that_is_down_is_a_passing_fault(tmp_path: Path) -> None:
    with pytest.raises(TransientFailure, match=r"reviews\.json\.gz cannot be fetched: http://127\.0\.0\.1:9/"):
        fetch_file(["http://127.0.0.1:9/reviews.json.gz"], tmp_path / "reviews.json.gz", patience=QUICK)


def test_a_wrong_digest_is_refused(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, _ = server
    with pytest.raises(PermanentFailure, match="expected sha256 00"):
        fetch_file([url], tmp_path / "reviews.json.gz", sha256="00", patience=QUICK)
    assert not (tmp_path / "reviews.json.gz").exists()


@pytest.mark.parametrize("as_url", [True, False])
def test_local_files_are_copied_once(tmp_path: Path, as_url: bool) -> None:
    source = tmp_path / "a folder" / "reviews.json.gz"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    url, target = source.as_uri() if as_url else str(source), tmp_path / "reviews.json.gz"
    assert fetch_file([url], target)
    assert target.read_bytes() == CONTENT
    assert not fetch_file([url], target, refresh=True)
    source.write_bytes(gzip.compress(b"new"))
    assert fetch_file([url], target, refresh=True)


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentFailure, match="found ftp"):
        fetch_file(["ftp://example.com/x"], tmp_path / "x")


def test_two_processes_do_not_fetch_the_same_file_twice(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch_file([url], tmp_path / "reviews.json.gz")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True]
    assert len(behaviour.requests) == 1


def test_a_full_disk_is_said_in_one_line(server: tuple[str, Behaviour], tmp_path: Path, monkeypatch) -> None:
    url, _ = server
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(PermanentFailure, match="bytes free for"):
        fetch_file([url], tmp_path / "reviews.json.gz", patience=QUICK)
    assert not (tmp_path / "reviews.json.gz").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="expected a disk that can be written"):
        fetch_file(["/nowhere"], tmp_path / "folder" / "x")


def test_a_file_that_is_fetched_again_is_the_one_of_the_first_time(
    server: tuple[str, Behaviour], tmp_path: Path
) -> None:
    url, behaviour = server
    target = tmp_path / "reviews.json.gz"
    fetch_file([url], target)
    target.unlink()
    behaviour.content, behaviour.etag = gzip.compress(b"another"), '"v2"'
    with pytest.raises(PermanentFailure, match=r"sha256 .* of what was fetched first\), found .*`refresh`"):
        fetch_file([url], target, patience=QUICK)
    assert not target.exists()
    assert fetch_file([url], target, refresh=True)
    target.unlink()
    assert fetch_file([url], target)


def test_a_transfer_that_ended_just_before_it_was_verified_is_not_repeated(
    server: tuple[str, Behaviour], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, behaviour = server
    target = tmp_path / "reviews.json.gz"

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recmodels.raw.download.verify_gzip", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch_file([url], target)
    assert fetch_file([url], target)
    assert (target.read_bytes(), behaviour.requests[1]["Range"]) == (CONTENT, f"bytes={len(CONTENT)}-")


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        there = {"/secure": "https://other.example/x.gz", "/open": "http://files.example/x.gz"}.get(request.url.path)
        if there:
            return httpx.Response(302, headers={"Location": there})
        return httpx.Response(200, stream=httpx.ByteStream(CONTENT))

    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: client(transport=httpx.MockTransport(answer), **options))
    with pytest.raises(PermanentFailure, match="expected https all the way"):
        fetch_file(["https://files.example/open"], tmp_path / "x.gz", patience=QUICK)
    assert asked == ["https://files.example/open"]
    assert fetch_file(["https://files.example/secure"], tmp_path / "x.gz", patience=QUICK)


def test_credentials_are_never_written_down(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    url, behaviour = server
    target = tmp_path / "reviews.json.gz"
    with pytest.raises(PermanentFailure, match=r"without a user name or password, found one with.*netrc") as refused:
        fetch_file([url.replace("http://", "http://me:secret@")], target)
    behaviour.statuses = [403]
    with pytest.raises(PermanentFailure, match="answered 403") as failed:
        fetch_file([f"{url}?signature=secret"], target)
    fetch_file([f"{url}?signature=secret"], target)
    written = "".join(path.read_text() for path in tmp_path.glob(".*.json"))
    assert url in written
    assert "secret" not in f"{refused.value}{failed.value}{written}"


def test_credentials_come_from_the_netrc_file(
    server: tuple[str, Behaviour], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, behaviour = server
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fetch_file([url], tmp_path / "reviews.json.gz")
    assert behaviour.requests[0]["Authorization"].startswith("Basic ")
