"""What became of the rows of a data set on their way from the raw file into the splits, step by step."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from recmodels.data.checks import kinds_of_files
from recmodels.schemas.data import SPLITS

_NAMED_CORE = re.compile(r"_(\d+)\.[a-z]+(\.gz)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Funnel:
    """
    Rows by what became of them: those read are rejected, repeated, below the k-core or kept; those kept are split.

    Examples
    --------
    >>> funnel = Funnel("All_Beauty_5.json.gz", 5, 5_269, 0, 1_177, 3_406, 686, 854, 61, 488, 90, 108)
    >>> print(funnel.text)
    5,269 rows read: 0 rejected, 1,177 repeated, 3,406 below the 5-core; 686 kept: 488 train, 90 valid, 108 test
    >>> funnel.core_by_name
    5
    """

    file: str
    """Name of the raw file that they were read from."""
    k_core: int
    """Fewest rows of a kept user or item."""
    read: int
    rejected: int
    repeated: int
    below_core: int
    kept: int
    """Five counts of rows. Repeated are further rows of a pair that is kept already."""
    users_below_core: int = 0
    items_below_core: int = 0
    """Users and items whom the k-core leaves without a row."""
    train: int = 0
    valid: int = 0
    test: int = 0
    """Rows of those kept."""

    @classmethod
    def of(cls, counts: Mapping[str, int], interactions: pl.DataFrame, *, file: str, k_core: int) -> "Funnel":
        """
        Return the funnel of a `recmodels.data.dump.Dump`, by its counts, of which the first file has the interactions.

        Those that are not split yet are kept all the same.
        """
        kind = kinds_of_files(counts)[0]
        rows = dict(interactions.group_by("split").len().iter_rows())
        return cls(
            file=file,
            k_core=k_core,
            read=counts[f"{kind}_lines"],
            rejected=counts[f"{kind}_rejects"],
            repeated=counts.get("repeated_rows", 0) + counts["repeated_pairs"],
            below_core=counts.get("below_core", 0),
            kept=interactions.height,
            users_below_core=counts.get("users_below_core", 0),
            items_below_core=counts.get("items_below_core", 0),
            **{split: rows.get(split, 0) for split in SPLITS},
        )

    @property
    def steps(self) -> dict[str, int]:
        """Rows by the name of the step, in order."""
        return {
            "read": self.read,
            "rejected": self.rejected,
            "repeated pairs": self.repeated,
            "below the k-core": self.below_core,
            "kept": self.kept,
            **{split: getattr(self, split) for split in SPLITS},
        }

    @property
    def text(self) -> str:
        """All of it in one line."""
        core = f", {self.below_core:,} below the {self.k_core}-core" if self.below_core else ""
        splits = ", ".join(f"{getattr(self, split):,} {split}" for split in SPLITS)
        return (
            f"{self.read:,} rows read: {self.rejected:,} rejected, {self.repeated:,} repeated{core}; "
            f"{self.kept:,} kept: {splits}"
        )

    @property
    def core_by_name(self) -> int | None:
        """The k of which the file is a k-core already by its name, as in ``reviews_Baby_5.json.gz``; None of others."""
        found = _NAMED_CORE.search(self.file)
        return int(found[1]) if found and 1 < int(found[1]) < _LARGEST_NAMED_CORE else None

    @property
    def cuts_a_core(self) -> bool:
        """Whether rows were lost below a k that the file has kept already by its name: it counts repeated rows."""
        return self.below_core > 0 and self.core_by_name is not None and self.k_core <= self.core_by_name

    @property
    def cut_core(self) -> dict[str, int | str]:
        """What such a file has lost, by name; empty for any other."""
        if not self.cuts_a_core:
            return {}
        return {
            "file": self.file,
            "core_by_name": self.core_by_name or 0,
            "k_core": self.k_core,
            "pairs": self.kept + self.below_core,
            "pairs_lost": self.below_core,
            "users_lost": self.users_below_core,
            "items_lost": self.items_below_core,
        }

    @property
    def advice(self) -> str:
        """What to change where too little is left."""
        if self.cuts_a_core:
            return (
                f"{self.file} is a {self.core_by_name}-core already by its name, which counts repeated rows: "
                "set k_core = 1 in the catalogue entry."
            )
        if self.below_core:
            return "Lower k_core in the catalogue entry."
        return "Use raw files with more rows."


_LARGEST_NAMED_CORE = 100
"""Numbers from here on are no k of a core but a year or a count."""
