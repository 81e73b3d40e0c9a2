"""What a folder of raw files is: which format, which file for what, and what about it is a guess."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from recmodels.catalogue.entries import Source
from recmodels.data.kcore import k_core_mask
from recmodels.errors import InputError
from recmodels.io.files import is_plain
from recmodels.raw.formats.base import Role
from recmodels.raw.formats.image_features import ASIN_BYTES, RECORD_BYTES
from recmodels.raw.formats.registry import format_named
from recmodels.raw.formats.table_columns import INTERACTION_COLUMNS, ITEM_COLUMNS, found_columns, require_known
from recmodels.raw.formats.table_rows import PARQUET_MAGIC, header_of, parquet_header
from recmodels.raw.lines import read_chunks
from recmodels.validation import validated

USUAL_CORE = 5
LARGEST_READ = 1 << 30
"""Bytes of interactions that are read through to see whether they are a k-core."""
_A_LOOK = 1 << 16
_PACKED = {
    b"PK\x03\x04": "a zip archive or spreadsheet: unpack it, or save it as CSV",
    b"BZh": "packed by bzip2: unpack it",
    b"\xfd7zXZ": "packed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
}
_IN_A_SPLIT = re.compile(r"(^|[._-])(train|valid|validation|val|dev|test)[._-]")
_AMAZON = ("amazon2014", "amazon2018", "amazon2023")
_CORE_IN_NAME = re.compile(r"_\d{1,2}(core)?$")
_MODALITIES = {
    Role.IMAGE_FEATURES: ("image", "img", "visual", "vis_", "picture", "clip"),
    Role.TEXT_FEATURES: ("text", "txt", "title", "bert", "sentence"),
}


@dataclass(frozen=True)
class Look:
    """
    What the beginning of a file says of it: formats it may belong to, none if none is known, and what it is for there.

    Of a table the `columns` by what they hold; `also` has all names of columns, or the keys of the first record.
    """

    path: Path
    formats: tuple[str, ...] = ()
    role: Role | None = None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    also: Sequence[str] = ()


@dataclass(frozen=True)
class Recognised:
    """A folder of raw files as a source of the catalogue, with the name of its format."""

    format: str
    source: Source
    seen: list[str]
    """What was recognised, a line each."""
    unsure: list[str]
    """What is a guess or was left out, a line each."""


def recognise(folder: Path, columns: Mapping[str, str] | None = None) -> Recognised:
    r"""
    Look at the files of a folder and say what they are. Folders within are not looked into.

    Parameters
    ----------
    folder
        The folder, or a single file.
    columns
        Columns of plain tables by what they hold, where their names are not usual ones.

    Raises
    ------
    InputError
        If there is no such folder, or no file of interactions in it.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> folder = Path(mkdtemp())
    >>> _ = (folder / "ratings.csv").write_text("userId,movieId,rating\nann,1,5\nbob,1,4\n")
    >>> found = recognise(folder)
    >>> found.format, found.source.files, found.source.k_core
    ('table', {<Role.INTERACTIONS: 'interactions'>: 'ratings.csv'}, 1)
    """
    columns = columns or {}
    require_known(columns)
    looks = [look_at(path, columns) for path in _files(folder)]
    form, main = _interactions(folder, looks)
    if form == "table":  # of which a release's metadata can be the items
        also_items = {"formats": (form,), "role": Role.ITEMS}
        looks = [replace(look, **also_items) if look.role == Role.METADATA else look for look in looks]
    seen, unsure = [], []
    chosen: dict[Role, Look] = {}
    for role in format_named(form).roles:
        fitting = [look for look in looks if role == look.role and form in look.formats]
        if fitting:
            best = main if main in fitting else max(fitting, key=_rank)
            chosen[role] = best
            seen.append(f"{best.path.name}: {role}{_shown(best.columns)}")
            unsure += [
                f"{look.path.name}: could be {role}, too{_shown(look.columns)}; it is left out"
                for look in fitting
                if look is not best
            ]
    unsure += _guesses(form, main, looks)
    unsure += _without_order(form, chosen, columns)
    if columns and form != "table":
        unsure.append(f"columns: files of the format {form} have fixed names; {', '.join(columns)} is left out")
    unsure += [
        f"{look.path.name}: no file of the format {form}; it is left out"
        for look in looks
        if look.role is None or form not in look.formats
    ]
    for look in chosen.values():
        _require_plain(look.path)
    k_core, sure, why = _core(form, main, columns)
    if why:
        (seen if sure else unsure).append(f"k_core = {k_core}: {why}")
    settings = {
        "files": {role: look.path.name for role, look in chosen.items()},
        "columns": dict(columns) if form == "table" else {},
        "k_core": k_core,
        "split": "published" if "split" in main.columns or "x_label" in main.also else "random",
    }
    return Recognised(form, validated(Source, settings, f"raw files in {folder}"), seen, unsure)


def look_at(path: Path, columns: Mapping[str, str]) -> Look:
    """Return what a file seems to be, by its first bytes and lines; of what cannot be read, that it is nothing."""
    try:
        with path.open("rb") as handle:
            start = handle.read(8)
        if packed := next((kind for mark, kind in _PACKED.items() if start.startswith(mark)), None):
            return Look(path, also=[packed])
        if start.startswith(b"\x93NUMPY"):
            return _array(path)
        if start.startswith(PARQUET_MAGIC):
            return _table(path, parquet_header(path), columns)
        if _is_image_records(path):
            return Look(path, _AMAZON, Role.IMAGE_FEATURES)
        text = next(read_chunks(path, _A_LOOK)).removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")
    except (OSError, InputError) as error:
        return Look(path, also=[error.found if isinstance(error, InputError) else error.strerror or str(error)])
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    if line.startswith("{"):
        return _record(path, line, columns)
    if line.startswith("["):
        return Look(path, also=["a JSON array: one record a line is needed"])
    if "\ufffd" in line:
        return Look(path, also=["no UTF-8: save it as that"])
    separator, header = header_of(line)
    if "::" in line and len(header) == 1:
        return Look(path, also=["separated by '::': write tabs instead", *line.split("::")])
    if separator == "\t" and {"userID", "itemID"} <= set(header):
        numbers = all(re.match(r"\d+\t", row) for row in text.splitlines()[1:-1])
        if numbers and header.index("userID") == 0:
            return Look(path, ("mmrec",), Role.INTERACTIONS, found_columns(header, INTERACTION_COLUMNS, {}), header)
    look = _table(path, header, columns)
    if separator == "\t" and look.role == Role.ITEMS and "itemID" in header:
        return Look(path, ("mmrec", "table"), Role.ITEMS, look.columns, header)
    return look


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(str(folder), expected="a folder with raw files, or one of them", found="nothing there")
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _interactions(folder: Path, looks: Sequence[Look]) -> tuple[str, Look]:
    """Return the format of a folder and its file of interactions."""
    for form in (*_AMAZON, "mmrec", "table"):
        first = format_named(form).interactions
        fitting = [look for look in looks if form in look.formats and look.role == first]
        if fitting:
            best = max(fitting, key=_rank)
            return _release(best, looks) if form in _AMAZON else form, best
    found = "; ".join(f"{look.path.name} ({', '.join(look.also)[:80] or 'unknown'})" for look in looks)
    action = "If a table is there, name its columns: --column user=NAME --column item=NAME."
    if any(re.fullmatch(r"[\d.]+", name) for look in looks for name in look.also):
        action = "If the first line of a table is a row already, put the names of its columns before it: user, item ..."
    raise InputError(
        str(folder),
        expected="a file of interactions: Amazon reviews, an .inter table, or a table (CSV, TSV, JSON lines, Parquet) "
        "that names the columns of user and item",
        found=found or "no files",
        action=action if looks else "Name the folder that the files themselves are in.",
    )


def _rank(look: Look) -> tuple[int, int, bool]:
    return len(look.columns), _size(look), is_plain(look.path.name)


def _require_plain(path: Path) -> None:
    if not is_plain(path.name):
        raise InputError(
            str(path),
            expected="a plain name of letters a to z, digits, '.', '_' and '-'",
            found=repr(path.name),
            action="Rename the file.",
        )


def _release(reviews: Look, looks: Sequence[Look]) -> str:
    """Return the release of Amazon reviews: 2014 and 2018 differ in their metadata, and in what a review also has."""
    metadata = next((look.formats[0] for look in looks if look.role == Role.METADATA), None)
    if len(reviews.formats) == 1 or metadata not in reviews.formats:
        return reviews.formats[0]
    return metadata


def _guesses(form: str, main: Look, looks: Sequence[Look]) -> Iterator[str]:
    if len(main.formats) > 1 and not any(look.role == Role.METADATA and form in look.formats for look in looks):
        others = " or ".join(name for name in main.formats if name != form)
        yield f"{main.path.name}: could be of {others}, too; reviews alone are read the same"
    reviewed = {"summary", "text"} & set(main.columns)
    if form == "table" and reviewed and not {"rating", "timestamp"} <= set(main.columns):
        yield f"{main.path.name}: its texts are not read, for reviews need a rating and a time"
    if form in ("table", "mmrec") and not {"timestamp", "split"} & set(main.columns):
        yield f"{main.path.name}: no column of times, so that it can only be split at random or by a column `split`"
    if form == "table" and _IN_A_SPLIT.search(main.path.name):
        yield f"{main.path.name}: a part by its name; to keep a split, make one table of it with a column `split`"
    for look in looks:
        if look.path.suffix == ".npy" and look.role and not _named_modality(look.path):
            yield f"{look.path.name}: taken for {look.role}; name it text*.npy if it is of texts"


def _without_order(form: str, chosen: dict[Role, Look], columns: Mapping[str, str]) -> list[str]:
    """Leave out feature arrays whose rows cannot be those of the items, and say so."""
    read_order = format_named(form).with_columns(columns if form == "table" else {}).read_order
    arrays = [role for role in _MODALITIES if role in chosen]
    if read_order is None or not arrays:
        return []
    items = chosen.get(Role.ITEMS)
    order = chosen.get(Role.FEATURE_IDS) or (items if items and items.columns else None)
    told: list[str] = []
    n_rows = len(read_order(order.path)) if order else 0
    for role in arrays:
        shape = np.load(chosen[role].path, mmap_mode="r").shape
        if shape[0] != n_rows:
            of = f"{order.path.name} has {n_rows:,} rows" if order else "no table says whose they are"
            told.append(f"{chosen.pop(role).path.name}: {shape[0]:,} rows, but {of}; it is left out")
    return told


def _core(form: str, main: Look, columns: Mapping[str, str]) -> tuple[int, bool, str]:
    """Return the k of the k-core to take, whether that is sure, and why."""
    stem = main.path.name.partition(".")[0]
    if format_named(form).numbered:
        return 1, True, ""
    if form in _AMAZON and _CORE_IN_NAME.search(stem):
        return 1, False, f"{main.path.name} is a k-core already by its name"
    if main.path.stat().st_size > LARGEST_READ:
        return USUAL_CORE, False, f"as is usual; {main.path.name} is too large to be read through for this"
    source = format_named(form).with_columns(columns if form == "table" else {})
    pairs = source.read_interactions(main.path).table.select("reviewer", "asin").unique()
    users, items = (pairs[name].rank("dense").to_numpy() - 1 for name in pairs.columns)
    kept = int(k_core_mask(users, items, USUAL_CORE).sum())
    if kept == pairs.height:
        return 1, True, f"every user and item has {USUAL_CORE} interactions already"
    if kept < pairs.height / 2:
        return 1, False, f"a {USUAL_CORE}-core, which is usual, would keep {kept:,} of {pairs.height:,} pairs"
    return USUAL_CORE, False, f"as is usual, which keeps {kept:,} of {pairs.height:,} pairs"


def _record(path: Path, line: str, columns: Mapping[str, str]) -> Look:
    """Return what a file is whose first line is a record of keys and values."""
    if line.startswith("{'"):
        return Look(path, ("amazon2014",), Role.METADATA) if "'asin':" in line else Look(path)
    keys = list(dict.fromkeys(re.findall(r'"(\w+)"\s*:', line)))
    with contextlib.suppress(ValueError):  # a line may be longer than the look
        keys = list(json.loads(line))
    reviews_2018 = ("amazon2018",) if {"verified", "vote", "style"} & {*keys} else ("amazon2018", "amazon2014")
    known: list[tuple[set[str], tuple[str, ...], Role]] = [
        ({"user_id", "parent_asin"}, ("amazon2023",), Role.REVIEWS),
        ({"reviewerID", "asin"}, ("amazon2014",) if "helpful" in keys else reviews_2018, Role.REVIEWS),
        ({"parent_asin"}, ("amazon2023",), Role.METADATA),
        ({"asin"}, ("amazon2018",), Role.METADATA),
    ]
    formats, role = next(((formats, role) for needed, formats, role in known if needed <= {*keys}), ((), None))
    return Look(path, formats, role, also=keys) if role else _table(path, keys, columns)


def _table(path: Path, header: Sequence[str], columns: Mapping[str, str]) -> Look:
    if {"src", "dst"} <= set(header):
        role = Role.IMAGE_KNN if _named_modality(path) == Role.IMAGE_FEATURES else Role.TEXT_KNN
        return Look(path, ("mmrec",), role, also=header)
    rows = found_columns(header, INTERACTION_COLUMNS, columns)
    if {"user", "item"} <= rows.keys():
        return Look(path, ("table",), Role.INTERACTIONS, rows, header)
    items = found_columns(header, ITEM_COLUMNS, columns)
    if "item" in items and len(items) > 1:
        return Look(path, ("table",), Role.ITEMS, items, header)
    if "item" in items and len(header) == 1:
        return Look(path, ("table",), Role.FEATURE_IDS, items, header)
    return Look(path, also=header)


def _array(path: Path) -> Look:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError):
        return Look(path)
    if array.ndim != 2 or array.dtype.kind != "f":
        return Look(path, also=[f"{array.dtype} of shape {array.shape}"])
    return Look(path, ("mmrec", "table"), _named_modality(path) or Role.IMAGE_FEATURES)


def _named_modality(path: Path) -> Role | None:
    name = path.name.lower()
    return next((role for role, marks in _MODALITIES.items() if any(mark in name for mark in marks)), None)


def _is_image_records(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as handle:
        return size > 0 and size % RECORD_BYTES == 0 and handle.read(ASIN_BYTES).isalnum()


def _shown(columns: Mapping[str, str]) -> str:
    return f" ({', '.join(f'{kind} = {name}' for kind, name in columns.items())})" if columns else ""


def _size(look: Look) -> int:
    return look.path.stat().st_size
