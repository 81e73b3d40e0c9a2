"""Rows of tables in files of any usual form in bounded memory, each with its line; what is no row is logged with it."""

import csv
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from recmodels.errors import InputError
from recmodels.raw.formats.table_columns import USUAL_NAMES, found_columns
from recmodels.raw.formats.table_json import is_json_lines, record_rows
from recmodels.raw.lines import read_blocks
from recmodels.raw.rejects import RejectLog

PARQUET_MAGIC = b"PAR1"
SEPARATORS = "\t,;|"
ROWS_A_READ = 65_536
_QUOTE = b'"'


def read_rows(
    path: Path,
    wanted: Sequence[str],
    needed: Sequence[str],
    named: Mapping[str, str],
    log: RejectLog,
    *,
    rows_a_block: int = ROWS_A_READ,
) -> Iterator[pl.DataFrame]:
    """
    Yield the rows of a table in parts: `line` (Int64), and what was found of the wanted columns by what they hold.

    A CSV or TSV file, plain or gzip, starts with a line of names; its columns are texts. Fields may be in double
    quotes, with separators and line ends within. A file whose lines are JSON records has the keys of the first of them
    as names; its values are texts, too. The columns of a Parquet file keep their types, and its rows count as lines.

    Parameters
    ----------
    path
        The file.
    wanted, needed
        What columns are looked for, and which of them have to be there: keys of `USUAL_NAMES`.
    named
        As `found_columns`.
    log
        Told of lines with too many or too few fields, an open quote, or no UTF-8.
    rows_a_block
        Most rows of a part of a Parquet file.
    """
    with path.open("rb") as handle:
        parquet = handle.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    if parquet:
        yield from _parquet_rows(path, wanted, needed, named, rows_a_block)
    else:
        read = record_rows if is_json_lines(path) else text_rows
        yield from read(path, lambda header: _chosen(path, header, wanted, needed, named), log)


def header_of(line: str) -> tuple[str, list[str]]:
    """
    Return the separator of a first line, the one that is in it most often, and its fields.

    Of a name such as ``user_id:token`` the part before the colon is the name.
    """
    separator = max(SEPARATORS, key=line.count)
    fields = next(csv.reader([line], delimiter=separator), [])
    return separator, [name.strip().partition(":")[0] for name in fields]


def parquet_header(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file; raises InputError if it is none."""
    try:
        return list(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _no_parquet(path, error) from error


def _no_parquet(path: Path, error: Exception) -> InputError:
    return InputError(str(path), expected="an intact Parquet file", found=str(error).splitlines()[0])


def _chosen(
    path: Path, header: Sequence[str], wanted: Sequence[str], needed: Sequence[str], named: Mapping[str, str]
) -> dict[str, str]:
    columns = found_columns(header, wanted, named)
    for kind in wanted:
        if kind not in columns and (kind in needed or kind in named):
            usual = named[kind] if kind in named else f"{kind} (or {', '.join(USUAL_NAMES[kind][1:6])} ...)"
            raise InputError(
                str(path),
                expected=f"a column {usual}",
                found=f"the columns {', '.join(header)[:200]}",
                action=f'Say in the catalogue entry which it is: columns = {{ {kind} = "..." }}.',
            )
    return columns


def _parquet_rows(
    path: Path, wanted: Sequence[str], needed: Sequence[str], named: Mapping[str, str], rows_a_block: int
) -> Iterator[pl.DataFrame]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = _chosen(path, parquet_header(path), wanted, needed, named)
    line = 1
    try:
        with pq.ParquetFile(path) as stored:
            for batch in stored.iter_batches(rows_a_block, columns=list(columns.values())):
                rows = pl.DataFrame(pa.Table.from_batches([batch]))
                yield rows.select(
                    pl.int_range(line, line + rows.height, dtype=pl.Int64).alias("line"),
                    *(pl.col(name).alias(kind) for kind, name in columns.items()),
                )
                line += rows.height
    except (pa.ArrowException, OSError) as error:
        raise _no_parquet(path, error) from error


def text_rows(
    path: Path, choose: Callable[[list[str]], Mapping[str, str]], log: RejectLog, *, quotes: bool = True
) -> Iterator[pl.DataFrame]:
    """
    Yield the rows of a CSV or TSV file in parts: `line` (Int64), and the chosen columns, which are texts.

    Parameters
    ----------
    path, log
        As for `read_rows`.
    choose
        Returns, of the names in the first line, those that are wanted by what to call them.
    quotes
        Whether a field may be in double quotes; if not, they are characters like any.
    """
    lines = _Lines(path, log)
    separator, header = header_of(lines.first())
    places = {kind: header.index(name) for kind, name in choose(header).items()}
    while lines.fill():
        quoted = quotes and lines.quoted
        numbers, fields = _quoted(lines, separator, len(header), log) if quoted else _plain(lines, separator)
        width = fields.list.len() == len(header)
        for row in (~width).arg_true():
            found = f"{len(fields[row])} fields instead of {len(header)}"
            log.add(numbers[row], found, separator.join(fields[row]).encode())
        fields = fields.filter(width)
        yield pl.DataFrame(
            {
                "line": pl.Series(numbers, dtype=pl.Int64).filter(width),
                **{kind: fields.list.get(place) for kind, place in places.items()},
            }
        )


def _no_utf8(path: Path) -> InputError:
    return InputError(
        str(path), expected="a first line of names in UTF-8", found="another encoding", action="Save the file as UTF-8."
    )


class _Lines:
    """The lines of a file that wait to be read, filled block by block."""

    def __init__(self, path: Path, log: RejectLog) -> None:
        self.path = path
        self.blocks = read_blocks(path, log)
        self.begun = False
        self.log = log
        self.waiting: deque[tuple[int, str]] = deque()
        self.quoted = False

    def first(self) -> str:
        """Return the first line that is not blank, empty if there is none."""
        return self.waiting.popleft()[1] if self.fill() else ""

    def fill(self) -> bool:
        """
        Make sure that a line waits, of the next block if need be; tell whether there is one.

        Raises InputError if the first line of the file, which has the names, is no UTF-8.
        """
        while not self.waiting:
            block = next(self.blocks, None)
            if block is None:
                return False
            self.quoted = _QUOTE in block.data
            for number, line in enumerate(block.data.split(b"\n")[:-1], start=block.first_line):
                if line.strip():
                    try:
                        self.waiting.append((number, line.decode("utf-8").removesuffix("\r")))
                    except UnicodeDecodeError:
                        if not self.begun:
                            raise _no_utf8(self.path) from None
                        self.log.add(number, "not UTF-8", line)
                    self.begun = True
        return True

    def put_back(self, lines: Sequence[tuple[int, str]]) -> None:
        """Have lines read again, next."""
        self.waiting.extendleft(reversed(lines))
        self.quoted = True


def _plain(lines: _Lines, separator: str) -> tuple[list[int], pl.Series]:
    """Return numbers and fields of the waiting lines, none of which has a quote."""
    numbers, texts = zip(*lines.waiting, strict=True)
    lines.waiting.clear()
    return list(numbers), pl.Series(texts, dtype=pl.String).str.split(separator)


def _quoted(lines: _Lines, separator: str, width: int, log: RejectLog) -> tuple[list[int], pl.Series]:
    """
    Return numbers and fields of the waiting rows, which go on in the next block where a quote does.

    Where a quote that nobody closes has swallowed lines, only the first of them is rejected. In a tab-separated file it
    is an inch sign.
    """
    numbers: list[int] = []
    rows: list[list[str]] = []
    taken: list[tuple[int, str]] = []

    def supply() -> Iterator[str]:
        while lines.fill():
            taken.append(lines.waiting.popleft())
            yield taken[-1][1] + "\n"

    reader = csv.reader(supply(), delimiter=separator, strict=True)
    while lines.waiting and len(rows) < ROWS_A_READ:
        taken.clear()
        try:
            fields = next(reader, None)
            reason = "" if fields is not None and len(fields) == width else "a quote that is not closed"
        except csv.Error as error:
            fields, reason = None, f"no row of fields: {error}"
        if not taken:
            break
        number, text = taken[0]
        if reason and (fields is None or len(taken) > 1):
            lines.put_back(taken[1:])
            reader = csv.reader(supply(), delimiter=separator, strict=True)
            if separator != "\t" or text.count(separator) != width - 1:
                log.add(number, reason, text.encode())
                continue
            fields = text.split(separator)
        numbers.append(number)
        rows.append(fields or [])
    return numbers, pl.Series(rows, dtype=pl.List(pl.String))
