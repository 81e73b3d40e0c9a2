"""What a folder of raw files is: which format, which file for what, and what about it is a guess."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recmodels.catalogue.entries import Source
from recmodels.data.kcore import k_core_mask
from recmodels.data.look import AMAZON, Look, look_at, named_modality
from recmodels.errors import InputError
from recmodels.io.files import is_plain
from recmodels.raw.formats.base import PARTS, Role
from recmodels.raw.formats.registry import format_named
from recmodels.raw.formats.table import SPLIT_NAMES
from recmodels.raw.formats.table_columns import require_known
from recmodels.schemas.data import SPLITS
from recmodels.validation import validated

USUAL_CORE = 5
LARGEST_READ = 1 << 30
"""Bytes of interactions that are read through to see whether they are a k-core."""
_IN_A_SPLIT = re.compile(r"(?:^|[._-])(train|training|valid|validation|val|dev|test)(?=[._-])", re.IGNORECASE)
_CORE_IN_NAME = re.compile(r"_\d{1,2}(core)?$")


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
    parts = _parts(main, looks) if form == "table" else {}
    main = parts.get("train", main)
    role_of = {parts[split].path: role for role, split in PARTS.items() if split in parts}
    looks = [replace(look, role=role_of.get(look.path, look.role)) for look in looks]
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
                if look != best
            ]
    unsure += _guesses(form, main, looks, in_parts=bool(parts))
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
    k_core, sure, why = (1, True, "the split is kept whole") if parts else _core(form, main, columns)
    if why:
        (seen if sure else unsure).append(f"k_core = {k_core}: {why}")
    settings = {
        "files": {role: look.path.name for role, look in chosen.items()},
        "columns": dict(columns) if form == "table" else {},
        "k_core": k_core,
        "split": "published" if parts or "split" in main.columns or "x_label" in main.also else "random",
    }
    return Recognised(form, validated(Source, settings, f"raw files in {folder}"), seen, unsure)


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(str(folder), expected="a folder with raw files, or one of them", found="nothing there")
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _interactions(folder: Path, looks: Sequence[Look]) -> tuple[str, Look]:
    """Return the format of a folder and its file of interactions."""
    for form in (*AMAZON, "mmrec", "table"):
        first = format_named(form).interactions
        fitting = [look for look in looks if form in look.formats and look.role == first]
        if fitting:
            best = max(fitting, key=_rank)
            return _release(best, looks) if form in AMAZON else form, best
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


def _parts(main: Look, looks: Sequence[Look]) -> dict[str, Look]:
    """Return the files of all three splits, which differ from the main one by that word alone, by split; else none."""

    def without_word(look: Look) -> str:
        return _IN_A_SPLIT.sub("", look.path.name, count=1)

    parts = {
        SPLIT_NAMES[found[1].lower()]: look
        for look in looks
        if look.role == main.role and "table" in look.formats and without_word(look) == without_word(main)
        if (found := _IN_A_SPLIT.search(look.path.name))
    }
    return parts if parts.keys() == {*SPLITS} else {}


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


def _guesses(form: str, main: Look, looks: Sequence[Look], *, in_parts: bool) -> Iterator[str]:
    if len(main.formats) > 1 and not any(look.role == Role.METADATA and form in look.formats for look in looks):
        others = " or ".join(name for name in main.formats if name != form)
        yield f"{main.path.name}: could be of {others}, too; reviews alone are read the same"
    reviewed = {"summary", "text"} & set(main.columns)
    if form == "table" and reviewed and not {"rating", "timestamp"} <= set(main.columns):
        yield f"{main.path.name}: its texts are not read, for reviews need a rating and a time"
    if form in ("table", "mmrec") and not in_parts and not {"timestamp", "split"} & set(main.columns):
        yield f"{main.path.name}: no column of times, so that it can only be split at random or by a column `split`"
    if form == "table" and _IN_A_SPLIT.search(main.path.name) and not in_parts:
        yield f"{main.path.name}: a part by its name; to keep a split, have its train, valid and test files here"
    for look in looks:
        if look.path.suffix == ".npy" and look.role and not named_modality(look.path):
            yield f"{look.path.name}: taken for {look.role}; name it text*.npy if it is of texts"


def _without_order(form: str, chosen: dict[Role, Look], columns: Mapping[str, str]) -> list[str]:
    """Leave out feature arrays whose rows cannot be those of the items, and say so."""
    read_order = format_named(form).with_columns(columns if form == "table" else {}).read_order
    arrays = [role for role in (Role.IMAGE_FEATURES, Role.TEXT_FEATURES) if role in chosen]
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
    if form in AMAZON and _CORE_IN_NAME.search(stem):
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


def _shown(columns: Mapping[str, str]) -> str:
    return f" ({', '.join(f'{kind} = {name}' for kind, name in columns.items())})" if columns else ""


def _size(look: Look) -> int:
    return look.path.stat().st_size
