"""Amazon review files (2014, 2018 and 2023 releases: JSON lines, plain or gzip) as one table of ratings and texts."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl

from recmodels.errors import InputError
from recmodels.raw.formats.base import RAW_INTERACTIONS, InBlocks, RawTable
from recmodels.raw.lines import BLOCK_BYTES, LineBlock, read_blocks, require_lines
from recmodels.raw.rejects import RejectLog
from recmodels.raw.text import clean_texts

RAW_REVIEWS = pl.Schema({name: dtype for name, dtype in RAW_INTERACTIONS.items() if name != "split"})
"""One row an accepted line, in the order of the file; seconds since the epoch."""

ASIN_PATTERN = r"^[A-Za-z0-9]{10}$"
EARLIEST = 788_918_400  # 1995-01-01: before the shop opened
LATEST = 4_102_444_800  # 2100-01-01
HIGHEST_RATING = 5.0

AmazonRelease = Literal["amazon2014", "amazon2018", "amazon2023"]


@dataclass(frozen=True)
class _Keys:
    reviewer: str
    asin: str
    rating: str
    timestamp: str
    summary: str
    text: str
    ticks_per_second: int


_KEYS_2014 = _Keys("reviewerID", "asin", "overall", "unixReviewTime", "summary", "reviewText", 1)
_KEYS: dict[AmazonRelease, _Keys] = {
    "amazon2014": _KEYS_2014,
    "amazon2018": _KEYS_2014,
    "amazon2023": _Keys("user_id", "parent_asin", "rating", "timestamp", "title", "text", 1000),
}


def read_reviews(path: Path, release: AmazonRelease) -> RawTable:
    """
    Read a review file into a table of schema `RAW_REVIEWS`.

    A line is rejected, and counted, if it is no JSON object in UTF-8, lacks the reviewer, the asin or the time, or has
    an asin that is not 10 letters or digits, a rating that is no number between 0 and 5, or a time outside 1995-2100.
    """
    return reviews_in_blocks(release).read(path)


def reviews_in_blocks(release: AmazonRelease, *, block_bytes: int = BLOCK_BYTES) -> InBlocks:
    """Return how review files are read in blocks of about so many bytes (see `read_reviews`)."""
    return InBlocks(
        cut=partial(_review_lines, block_bytes), parse=partial(_reviews, release), refusal=partial(_no_reviews, release)
    )


def _review_lines(block_bytes: int, path: Path, log: RejectLog) -> Iterator[LineBlock]:
    for block in read_blocks(path, log, chunk_bytes=block_bytes):
        require_lines(path, block)
        yield block


def _reviews(release: AmazonRelease, block: LineBlock, log: RejectLog) -> pl.DataFrame:
    accepted = _read_block(block, _KEYS[release], log)
    return accepted.with_columns(clean_texts(accepted["summary"]), clean_texts(accepted["text"]))


def _no_reviews(release: AmazonRelease, path: Path, rejects: pl.DataFrame) -> InputError:
    keys = _KEYS[release]
    return InputError(
        str(path),
        expected=f"reviews of the {release} format "
        f"(JSON lines with {keys.reviewer}, {keys.asin}, {keys.rating}, {keys.timestamp})",
        found=_first_reject(rejects),
    )


def _first_reject(rejects: pl.DataFrame) -> str:
    if rejects.is_empty():
        return "only blank lines"
    first = rejects.row(0, named=True)
    return f"{rejects.height:,} unreadable lines, the first: {first['reason']}: {first['text'][:80]!r}"


def _read_block(block: LineBlock, keys: _Keys, log: RejectLog) -> pl.DataFrame:
    schema = {
        keys.reviewer: pl.String,
        keys.asin: pl.String,
        keys.rating: pl.Float64,
        keys.timestamp: pl.Int64,
        keys.summary: pl.String,
        keys.text: pl.String,
    }
    lines: list[bytes] | None = None
    numbers: list[int] = []
    try:
        table = pl.read_ndjson(io.BytesIO(block.data), schema=schema)
    except pl.exceptions.PolarsError:
        lines, numbers = _numbered(block)
        table, numbers = _read_lines(lines, numbers, schema, keys, log, block.first_line)
    table = table.select(
        reviewer=pl.col(keys.reviewer).str.strip_chars(),
        asin=pl.col(keys.asin).str.strip_chars(),
        rating=keys.rating,
        timestamp=pl.col(keys.timestamp) // keys.ticks_per_second,
        summary=keys.summary,
        text=keys.text,
    )
    reason = table.select(_reason(keys)).to_series()
    bad = reason.is_not_null()
    if bad.any():
        if lines is None:
            lines, numbers = _numbered(block)
        for row in bad.arg_true():
            log.add(numbers[row], reason[row], lines[numbers[row] - block.first_line])
        table = table.filter(~bad)
    return table.cast({"rating": pl.Float32})


def _numbered(block: LineBlock) -> tuple[list[bytes], list[int]]:
    """Return all lines of a block, and the numbers of those that are not blank."""
    lines = block.data.split(b"\n")[:-1]
    return lines, [block.first_line + offset for offset, line in enumerate(lines) if line.strip()]


def _reason(keys: _Keys) -> pl.Expr:
    """Return why a parsed row is no review, null if it is one."""
    cases = [
        (pl.col("reviewer").fill_null("") == "", f"{keys.reviewer} is missing"),
        (pl.col("asin").is_null(), f"{keys.asin} is missing"),
        (~pl.col("asin").str.contains(ASIN_PATTERN), f"{keys.asin} is not 10 letters or digits"),
        (pl.col("timestamp").is_null(), f"{keys.timestamp} is missing"),
        (~pl.col("timestamp").is_between(EARLIEST, LATEST), f"{keys.timestamp} is outside 1995-2100"),
        (pl.col("rating").is_null(), f"{keys.rating} is missing"),
        (~pl.col("rating").is_between(0.0, HIGHEST_RATING), f"{keys.rating} is outside 0-5"),
    ]
    return pl.coalesce(*(pl.when(condition).then(pl.lit(reason)) for condition, reason in cases))


def _read_lines(
    lines: list[bytes], numbers: list[int], schema: dict[str, Any], keys: _Keys, log: RejectLog, first_line: int
) -> tuple[pl.DataFrame, list[int]]:
    """Parse the good lines of a block that has bad ones; return their table and line numbers."""
    good: list[int] = []
    for number in numbers:
        if reason := _fault(lines[number - first_line], keys):
            log.add(number, reason, lines[number - first_line])
        else:
            good.append(number)
    tables: list[pl.DataFrame] = [pl.DataFrame(schema=schema)]
    kept: list[int] = []
    # What Python's parser lets pass and polars' does not (such as 1e999) is found by halving.
    pending = [good] if good else []
    while pending:
        part = pending.pop()
        try:
            table = pl.read_ndjson(io.BytesIO(b"\n".join(lines[n - first_line] for n in part)), schema=schema)
        except pl.exceptions.PolarsError:
            if len(part) == 1:
                log.add(part[0], "not a JSON object with the expected types", lines[part[0] - first_line])
            else:
                middle = len(part) // 2
                pending += [part[middle:], part[:middle]]
        else:
            tables.append(table)
            kept += part
    return pl.concat(tables), kept


def _fault(line: bytes, keys: _Keys) -> str | None:
    """Return why a line cannot be parsed, None if it seems it can."""
    if b"\0" in line:
        return "NUL byte"
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg}"
    except (RecursionError, ValueError):
        return None
    if not isinstance(record, dict):
        return "not a JSON object"
    for key in (keys.rating, keys.timestamp):
        if isinstance(record.get(key), str | bool | list | dict):
            return f"{key} is not a number"
    return None
