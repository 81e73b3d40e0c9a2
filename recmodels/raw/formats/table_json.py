"""Rows of tables with a JSON record a line, each with its line; what is no record is logged with its line."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recmodels.raw.formats.metadata import encodable, parsed_record
from recmodels.raw.lines import read_blocks, read_chunks, require_lines
from recmodels.raw.rejects import RejectLog

_A_LOOK = 1 << 16
_RECORDS = re.compile(rb'(\xef\xbb\xbf)?\s*(\{\s*["}]|\[\s*(\{|\Z))')


def is_json_lines(path: Path) -> bool:
    """Tell whether a plain or gzip file begins as a JSON record, or as an array of them."""
    return _RECORDS.match(next(read_chunks(path, _A_LOOK))) is not None


def record_rows(path: Path, choose: Callable[[list[str]], Mapping[str, str]], log: RejectLog) -> Iterator[pl.DataFrame]:
    """
    Yield the rows of a file of JSON lines in parts: `line` (Int64), and the chosen keys as texts, null where absent.

    Of a list the texts stand between ``|``, of a record within the record its JSON.

    Parameters
    ----------
    path
        The file. InputError if it is an array of records.
    choose
        Returns, of the keys in the first block of lines, those that are wanted by what to call them.
    log
        Told of lines that are no record.
    """
    chosen: Mapping[str, str] = {}
    for block in read_blocks(path, log):
        require_lines(path, block)
        rows: list[tuple[int, dict[str, Any]]] = []
        for number, line in enumerate(block.data.split(b"\n")[:-1], start=block.first_line):
            if line.strip():
                record = parsed_record(line, literal=False)
                if isinstance(record, str):
                    log.add(number, record, line)
                else:
                    rows.append((number, record))
        if rows:
            chosen = chosen or choose(list(dict.fromkeys(key for _, record in rows for key in record)))
            values = {kind: [_text(record.get(key)) for _, record in rows] for kind, key in chosen.items()}
            numbers = pl.Series("line", [number for number, _ in rows], dtype=pl.Int64)
            yield pl.DataFrame(values, schema=dict.fromkeys(values, pl.String)).insert_column(0, numbers)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, list):
        return "|".join(_text(each) or "" for each in value)
    return json.dumps(value)
