"""Raw files become blocks of whole lines, whatever their size, packing or damage."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recmodels.errors import InputError
from recmodels.raw.lines import BLOCK_BYTES, LONGEST_LINE, read_blocks, verify_gzip
from recmodels.raw.rejects import RejectLog


def lines_of(path: Path, longest: int = LONGEST_LINE, chunk: int = BLOCK_BYTES) -> tuple[dict[int, bytes], RejectLog]:
    log = RejectLog(path.name)
    lines: dict[int, bytes] = {}
    for block in read_blocks(path, log, longest_line=longest, chunk_bytes=chunk):
        assert block.data.endswith(b"\n")
        for offset, line in enumerate(block.data.split(b"\n")[:-1]):
            assert block.first_line + offset not in lines
            lines[block.first_line + offset] = line
    return lines, log


@given(
    lines=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), min_size=1, max_size=30),
    newline_at_end=st.booleans(),
    packed=st.booleans(),
    chunk=st.integers(1, 50),
    longest=st.integers(5, 60),
)
def test_every_line_has_its_number_and_long_ones_are_rejected(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    newline_at_end: bool,
    packed: bool,
    chunk: int,
    longest: int,
) -> None:
    content = b"\n".join(lines) + (b"\n" if newline_at_end else b"")
    if not content or content.startswith((b"\xef\xbb\xbf", b"\x1f\x8b")):
        return
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    found, log = lines_of(path, longest, chunk)
    expected = dict(enumerate(content.removesuffix(b"\n").split(b"\n"), start=1))
    rejected = dict(zip(log.frame()["line"], log.frame()["reason"], strict=True))
    for number, line in expected.items():
        if number in rejected:
            assert len(line) + 1 > longest
            assert found.get(number, b"") == b""
        else:
            assert found[number] == line
            assert len(line) + 1 <= longest + chunk


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbf{}\n")
    assert lines_of(tmp_path / "file")[0] == {1: b"{}"}


def test_a_line_of_50_mb_is_rejected_and_the_next_one_read(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"a\n" + b"x" * 50_000_000 + b"\nb\n", compresslevel=1))
    lines, log = lines_of(path)
    assert lines == {1: b"a", 2: b"", 3: b"b"}
    assert log.frame().rows() == [("file.gz", 2, "line is longer than 16,777,216 bytes", "x" * 200)]


def test_a_gzip_of_several_members_and_padding_is_read_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"") + gzip.compress(b"b\n") + b"\0" * 512)
    assert lines_of(path)[0] == {1: b"a", 2: b"b"}


@pytest.mark.parametrize("keep", [3, 12, 500, -1, -5])
def test_a_truncated_gzip_is_an_error_with_its_place(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(gzip.compress(b"".join(b"line %d\n" % i for i in range(5000)))[:keep])
    with pytest.raises(InputError, match=r"reviews\.json\.gz: expected a complete gzip file"):
        lines_of(path)
    with pytest.raises(InputError, match="Fetch it again"):
        verify_gzip(path)


@pytest.mark.parametrize("position", [5000, -6])
def test_a_corrupt_gzip_is_an_error_with_its_place(tmp_path: Path, position: int) -> None:
    path = tmp_path / "reviews.json.gz"
    content = bytearray(gzip.compress(b"".join(b"line %d\n" % (i * 7919 % 5003) for i in range(5000))))
    content[position] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"expected an intact gzip file|expected a complete gzip file"):
        lines_of(path)


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="found an empty one"):
        lines_of(tmp_path / "file")


def test_a_plain_file_needs_no_verification(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"plain")
    verify_gzip(tmp_path / "file")
