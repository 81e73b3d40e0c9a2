"""Raw text files, plain or gzip, as blocks of whole lines in bounded memory."""

import re
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from recmodels.errors import InputError
from recmodels.raw.rejects import SHOWN_BYTES, RejectLog

GZIP_MAGIC = b"\x1f\x8b"
BLOCK_BYTES = 8 << 20
LONGEST_LINE = 16 << 20
_PACKED_BYTES = 1 << 20
_GZIP_WBITS = 31
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class LineBlock:
    """Consecutive whole lines of a file, each ending in a newline, and the 1-based number of the first."""

    first_line: int
    data: bytes


_JSON_ARRAY = re.compile(rb"\s*\[\s*(\{|\Z)")


def require_lines(path: Path, block: LineBlock) -> None:
    """
    Raise InputError if a file, by its first block, is one JSON array of records instead of one record a line.

    Read as lines, all but the last of them would be rejected.
    """
    if block.first_line == 1 and _JSON_ARRAY.match(block.data):
        plain = path.name.removesuffix(".gz")
        reader = "gunzip -c" if is_gzip(path) else "cat"
        raise InputError(
            str(path),
            expected="one JSON record a line",
            found="a JSON array of records",
            action=f"Write it as lines: {reader} {path.name} | jq -c '.[]' > lines && mv lines {plain}",
        )


def is_gzip(path: Path) -> bool:
    """Tell whether a file is gzip by its first bytes, whatever its name."""
    with path.open("rb") as handle:
        return handle.read(2) == GZIP_MAGIC


def read_chunks(path: Path, size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """
    Yield the content of a plain or gzip file in chunks of at most `size` bytes, one ahead of the caller in a thread.

    Raises
    ------
    InputError
        If the file is empty, or its gzip stream is truncated or corrupt.
    """
    with path.open("rb") as raw, ThreadPoolExecutor(1, thread_name_prefix="read_chunks") as pool:
        chunks = _gunzipped(raw, size) if is_gzip(path) else iter(lambda: raw.read(size), b"")
        empty = True
        try:
            ahead = pool.submit(next, chunks, b"")
            while chunk := ahead.result():
                empty = False
                ahead = pool.submit(next, chunks, b"")
                yield chunk
        except EOFError as error:
            raise InputError(
                str(path),
                expected="a complete gzip file",
                found=f"one that ends too early after {path.stat().st_size:,} bytes",
                action="Fetch it again.",
            ) from error
        except zlib.error as error:
            raise InputError(
                str(path), expected="an intact gzip file", found=f"a corrupt one ({error})", action="Fetch it again."
            ) from error
    if empty:
        raise InputError(str(path), expected="a file with lines", found="an empty one", action="Fetch it again.")


def _gunzipped(raw: BinaryIO, size: int) -> Iterator[bytes]:
    """
    Yield the content of a gzip file of one or more members, verified by zlib as it goes.

    The standard library's reader works in steps of 8 kB, each of which has to win the interpreter lock back from the
    thread that parses; here a step is a chunk.
    """
    packed = raw.read(_PACKED_BYTES)
    while packed.rstrip(b"\0"):
        member = zlib.decompressobj(wbits=_GZIP_WBITS)
        while not member.eof:
            if not packed and not (packed := raw.read(_PACKED_BYTES)):
                raise EOFError
            if chunk := member.decompress(packed, size):
                yield chunk
            packed = member.unconsumed_tail
        # Tapes and some servers pad with zeros.
        packed = member.unused_data or raw.read(_PACKED_BYTES)


def verify_gzip(path: Path) -> None:
    """Read a gzip file through, and raise InputError if it is truncated or damaged; do nothing for any other."""
    if is_gzip(path):
        for _ in read_chunks(path):
            pass


def read_blocks(
    path: Path, rejects: RejectLog, *, longest_line: int = LONGEST_LINE, chunk_bytes: int = BLOCK_BYTES
) -> Iterator[LineBlock]:
    """
    Yield a plain or gzip file as blocks of whole lines, read in chunks of `chunk_bytes`.

    A line above `longest_line` bytes is rejected without being held and stands in its block as an empty line, so that
    line numbers stay true.
    """
    line = 1
    pending: list[bytes] = []
    pending_bytes = 0
    dropping = False
    for position, chunk in enumerate(read_chunks(path, chunk_bytes)):
        if position == 0:
            chunk = chunk.removeprefix(_BYTE_ORDER_MARK)
        if dropping:
            end = chunk.find(b"\n")
            if end < 0:
                continue
            chunk = chunk[end:]
            dropping = False
        end = chunk.rfind(b"\n") + 1
        if end:
            data = _without_long_lines(b"".join((*pending, chunk[:end])), line, rejects, longest_line)
            yield LineBlock(line, data)
            line += data.count(b"\n")
            pending, pending_bytes = [], 0
        if rest := chunk[end:]:
            pending.append(rest)
            pending_bytes += len(rest)
        if pending_bytes > longest_line:
            rejects.add(line, _too_long(longest_line), b"".join(pending)[:SHOWN_BYTES])
            pending, pending_bytes, dropping = [], 0, True
    if pending:
        yield LineBlock(line, b"".join((*pending, b"\n")))


def _without_long_lines(data: bytes, first_line: int, rejects: RejectLog, longest_line: int) -> bytes:
    if len(data) <= longest_line:
        return data
    lines = [line + b"\n" for line in data.split(b"\n")[:-1]]
    if max(map(len, lines)) <= longest_line:
        return data
    for offset, text in enumerate(lines):
        if len(text) > longest_line:
            rejects.add(first_line + offset, _too_long(longest_line), text)
            lines[offset] = b"\n"
    return b"".join(lines)


def _too_long(longest_line: int) -> str:
    return f"line is longer than {longest_line:,} bytes"
