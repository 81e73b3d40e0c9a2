"""Amazon product metadata (2014: Python literals; 2018 and 2023: JSON lines) of the wanted items only."""

import ast
import json
import re
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recmodels.errors import InputError
from recmodels.raw.formats.base import RAW_ITEMS, RawTable
from recmodels.raw.formats.reviews import AmazonRelease
from recmodels.raw.lines import LineBlock, read_blocks, read_chunks, require_lines
from recmodels.raw.rejects import RejectLog
from recmodels.raw.text import clean_texts

_A_LOOK = 1 << 20


@dataclass(frozen=True)
class _Syntax:
    key: str
    literal: bool

    @property
    def usual(self) -> re.Pattern[bytes]:
        """The key as the release writes it: a literal prefix makes the scan fast."""
        quote = "'" if self.literal else '"'
        return re.compile(f"{quote}{self.key}{quote}: {quote}([^{quote}]*){quote}".encode())

    @property
    def any_spelling(self) -> re.Pattern[bytes]:
        """The key in any quotes."""
        return re.compile(f"[\"']{self.key}[\"']\\s*:\\s*[\"']([^\"']*)[\"']".encode())


_SYNTAX: dict[AmazonRelease, _Syntax] = {
    "amazon2014": _Syntax("asin", literal=True),
    "amazon2018": _Syntax("asin", literal=False),
    "amazon2023": _Syntax("parent_asin", literal=False),
}


def read_metadata(path: Path, release: AmazonRelease, wanted: Collection[str]) -> RawTable:
    """
    Read the metadata of some items into a table of schema `RAW_ITEMS`, by asin.

    The asin of a line is found before anything is parsed, so that the lines of other items cost next to nothing. Of
    several lines of one item the one with the most fields filled is kept, and of equals the greatest by its bytes,
    wherever they stand.
    """
    syntax = _SYNTAX[release]
    usual, any_spelling = syntax.usual, syntax.any_spelling
    wanted_bytes = {asin.encode() for asin in wanted}
    log = RejectLog(path.name)
    best: dict[str, tuple[int, bytes, tuple[Any, ...]]] = {}
    duplicates = unwanted = 0
    first = True
    with warnings.catch_warnings():
        for category in (SyntaxWarning, DeprecationWarning):  # texts hold backslashes that are no escapes
            warnings.simplefilter("ignore", category)
        for block in read_blocks(path, log):
            if first:
                _check_syntax(path, release, block)
                first = False
            candidates, n_unwanted = _candidates(block, usual, any_spelling, wanted_bytes)
            unwanted += n_unwanted
            for number, line in candidates:
                record = parsed_record(line, literal=syntax.literal)
                if isinstance(record, str):
                    log.add(number, record, line)
                    continue
                asin = record.get(syntax.key)
                if not isinstance(asin, str) or not asin:
                    log.add(number, f"{syntax.key} is missing", line)
                elif asin.encode(errors="replace") not in wanted_bytes:
                    unwanted += 1
                else:
                    fields = _FIELDS[release](record)
                    entry = (sum(1 for field in fields if field), line, fields)
                    if asin in best:
                        duplicates += 1
                    best[asin] = max(best.get(asin, entry), entry, key=lambda e: e[:2])
    rejects = log.frame()
    return RawTable(
        table=_table({asin: entry[2] for asin, entry in best.items()}),
        rejects=rejects,
        lines=len(best) + duplicates + unwanted + rejects.height,
        duplicates=duplicates,
        unwanted=unwanted,
    )


def metadata_release(path: Path) -> AmazonRelease | None:
    """Return the release that the first line of a file is metadata of; None if it is none of them."""
    line = next(read_chunks(path, _A_LOOK)).removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n")[0]
    releases: tuple[AmazonRelease, ...] = ("amazon2023", "amazon2018", "amazon2014")
    for release in releases if line.startswith((b'{"', b"{'")) else ():
        syntax = _SYNTAX[release]
        if syntax.literal == line.startswith(b"{'") and syntax.any_spelling.search(line):
            return release
    return None


def _check_syntax(path: Path, release: AmazonRelease, block: LineBlock) -> None:
    require_lines(path, block)
    start = block.data.lstrip()[:2]
    literal = _SYNTAX[release].literal
    if start == (b'{"' if literal else b"{'"):
        names = ("Python literals, one a line", "JSON lines")
        raise InputError(
            str(path),
            expected=f"metadata of the {release} format ({names[0] if literal else names[1]})",
            found=names[1] if literal else names[0],
            action="Correct the format in the catalogue entry.",
        )


def _candidates(
    block: LineBlock, usual: re.Pattern[bytes], any_spelling: re.Pattern[bytes], wanted: set[bytes]
) -> tuple[list[tuple[int, bytes]], int]:
    """Return the lines (number, bytes) to parse, and how many others belong to items that are not wanted."""
    data = block.data
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
    found = list(usual.finditer(data))
    rows = np.searchsorted(ends, np.fromiter((match.start() for match in found), np.int64, len(found)))
    once = np.bincount(rows, minlength=len(ends)) == 1
    chosen: list[int] = np.flatnonzero(~once).tolist()
    n_unwanted = 0
    for match, row in zip(found, rows.tolist(), strict=True):
        if once[row]:
            if match.group(1) in wanted:
                chosen.append(row)
            else:
                n_unwanted += 1
    candidates: list[tuple[int, bytes]] = []
    for row in sorted(chosen):
        line = data[ends[row - 1] + 1 if row else 0 : ends[row]]
        if not line.strip():
            continue
        if not once[row]:
            asins = any_spelling.findall(line)
            if len(asins) == 1 and asins[0] not in wanted:
                n_unwanted += 1
                continue
        candidates.append((block.first_line + row, line))
    return candidates, n_unwanted


def parsed_record(line: bytes, *, literal: bool) -> dict[str, Any] | str:
    """Return the record of a line, or why it has none."""
    if b"\0" in line:
        return "NUL byte"
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    try:
        record = ast.literal_eval(text.strip()) if literal else json.loads(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return "not a Python literal" if literal else "not JSON"
    return record if isinstance(record, dict) else "not a record of keys and values"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return encodable(value)
    return " ".join(_texts(value))


def _texts(value: Any) -> list[str]:
    return [encodable(part) for part in value if isinstance(part, str)] if isinstance(value, list) else []


def encodable(text: str) -> str:
    """Return a text in which halves of a surrogate pair are joined, and dropped where the other half is missing."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return text


_PRICE = re.compile(r"\s*\$?\s*(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)")


def parse_price(value: Any) -> float | None:
    """Return a price in dollars; of a range its lower end."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        match = _PRICE.match(value)
        value = float(match.group(1).replace(",", "")) if match else None
    if isinstance(value, int | float) and 0 < value < 1e7:
        return float(value)
    return None


def _first(values: Iterable[Any]) -> str:
    return next((text for value in values if (text := _text(value))), "")


def _fields_2014(record: dict[str, Any]) -> tuple[Any, ...]:
    paths = record.get("categories")
    return (
        _text(record.get("title")),
        _text(record.get("description")),
        _text(record.get("brand")),
        _texts(paths[0]) if isinstance(paths, list) and paths else [],
        parse_price(record.get("price")),
        _text(record.get("imUrl")),
    )


def _fields_2018(record: dict[str, Any]) -> tuple[Any, ...]:
    return (
        _text(record.get("title")),
        _text(record.get("description")),
        _text(record.get("brand")),
        _texts(record.get("category")),
        parse_price(record.get("price")),
        _first([*_texts(record.get("imageURLHighRes")), *_texts(record.get("imageURL"))]),
    )


def _fields_2023(record: dict[str, Any]) -> tuple[Any, ...]:
    details = record.get("details")
    brand = details.get("Brand") if isinstance(details, dict) else None
    images = record.get("images")
    first = next((image for image in images if isinstance(image, dict)), {}) if isinstance(images, list) else {}
    return (
        _text(record.get("title")),
        _text(record.get("description")),
        _text(brand) or _text(record.get("store")),
        _texts(record.get("categories")) or [text for text in [_text(record.get("main_category"))] if text],
        parse_price(record.get("price")),
        _first([first.get("hi_res"), first.get("large"), first.get("thumb")]),
    )


_FIELDS = {"amazon2014": _fields_2014, "amazon2018": _fields_2018, "amazon2023": _fields_2023}


def _table(fields: dict[str, tuple[Any, ...]]) -> pl.DataFrame:
    rows = [(asin, *fields[asin]) for asin in sorted(fields)]
    return clean_items(pl.DataFrame(rows, schema=RAW_ITEMS, orient="row"))


def clean_items(items: pl.DataFrame) -> pl.DataFrame:
    """Return items (schema `RAW_ITEMS`) with clean texts and categories."""
    texts = [clean_texts(items[name], without_code=True) for name in ("title", "description", "brand")]
    return items.with_columns(*texts, clean_categories(items["categories"]), pl.col("image_url").str.strip_chars())


def clean_categories(categories: pl.Series) -> pl.Series:
    """Return category paths with clean texts, without empty ones and repetitions of the one before."""
    flat = pl.DataFrame({"row": range(len(categories)), "name": categories}).explode("name")
    flat = flat.with_columns(clean_texts(flat["name"])).filter(pl.col("name") != "")
    flat = flat.filter(pl.struct("row", "name").ne_missing(pl.struct("row", "name").shift()))
    paths = flat.group_by("row", maintain_order=True).agg("name")
    joined = pl.DataFrame({"row": range(len(categories))}, schema={"row": pl.Int64}).join(paths, on="row", how="left")
    return joined["name"].fill_null([]).rename(categories.name)
