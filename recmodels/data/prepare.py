"""From the raw files of a data set to tables that models can learn from and be measured by, or a refusal."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recmodels.catalogue.entries import DatasetEntry, SplitStrategy
from recmodels.compute.base import Compute
from recmodels.compute.local import LOCAL
from recmodels.data.by_user import Limits
from recmodels.data.dump import Dump, load_dump
from recmodels.data.funnel import Funnel
from recmodels.data.split import FEWEST_TO_SPLIT, split_interactions
from recmodels.errors import InputError
from recmodels.raw.formats.registry import format_named
from recmodels.raw.manifest import RawManifest

FEWEST_ITEMS = 2
"""A ranking of one item says nothing."""


@dataclass(frozen=True)
class Prepared:
    """A data set as `load_dump` returns it, its interactions with their split, and what became of the rows."""

    dump: Dump
    interactions: pl.DataFrame
    funnel: Funnel


def prepare_tables(
    manifest: RawManifest, entry: DatasetEntry, *, compute: Compute = LOCAL, limits: Limits | None = None
) -> Prepared:
    """
    Read the raw files of a data set, keep the k-core, split the rows, and make sure that models can learn from them.

    Where that is computed, and what is held in memory meanwhile, is told as to `load_dump`.

    Raises
    ------
    InputError
        As `load_dump` and `split_interactions`; if fewer than two items are left, if there is no row to train on, to
        choose the epoch by or to test with, or if every user has every item of the training rows, so that there is
        nothing to set a positive against.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from recmodels.catalogue.entries import load_catalogue
    >>> from recmodels.data.raw_files import prepare_raw_files
    >>> demo = load_catalogue()["demo"]
    >>> print(prepare_tables(prepare_raw_files(demo, Path(mkdtemp())), demo).funnel.text)
    4,107 rows read: 0 rejected, 85 repeated, 58 below the 5-core; 3,964 kept: 2,761 train, 600 valid, 603 test
    """
    source = entry.sources[manifest.format]
    dump = load_dump(manifest, entry, compute=compute, limits=limits)
    interactions = split_interactions(dump.interactions, source.split, seed=source.split_seed)
    file = manifest.files[format_named(manifest.format).interactions].path.name
    funnel = Funnel.of(dump.counts, interactions, file=file, k_core=source.k_core)
    _require_enough(entry.key, interactions, dump.items.height, funnel, source.split)
    return Prepared(dump, interactions, funnel)


def _require_enough(
    dataset: str, interactions: pl.DataFrame, n_items: int, funnel: Funnel, split: SplitStrategy
) -> None:
    def refusal(expected: str, found: str, action: str = "") -> InputError:
        return InputError(
            f"data set {dataset}",
            expected=expected,
            found=f"{found} ({funnel.text})",
            action=f"{action} {funnel.advice}".strip(),
        )

    if n_items < FEWEST_ITEMS:
        before = n_items + funnel.items_below_core
        core = f" of {before:,} after k_core = {funnel.k_core}" if funnel.items_below_core else ""
        raise refusal(f"at least {FEWEST_ITEMS} items to rank", f"{n_items}{core}")
    if not funnel.train:
        raise refusal("rows to train on", "none", "Choose another split.")
    if not (funnel.valid and funnel.test):
        raise refusal(
            "rows held out for validation and test",
            f"{funnel.valid:,} and {funnel.test:,}",
            "Hold out rows for both in the published split, or choose another."
            if split == "published"
            else f"Of a user with fewer than {FEWEST_TO_SPLIT} rows none is held out.",
        )
    train = interactions.filter(pl.col("split") == "train")
    n_in_training = train["item_id"].n_unique()
    most_lacking = n_in_training - int(np.bincount(train["user_id"].to_numpy())[train["user_id"].unique()].min())
    if not most_lacking:
        raise refusal(
            "a user who lacks one of the items that occur in training",
            f"none, as every user has all {n_in_training:,} of them",
        )
