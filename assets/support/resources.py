"""Resources: where the product keeps its files."""

from pathlib import Path

import dagster as dg

from recmodels.io.files import cache_folder, data_root, safe_join


class DataRoot(dg.ConfigurableResource[None]):
    """The one directory that holds raw files, tables, checkpoints, caches and reports."""

    path: str = ""
    """Absolute path; empty for the environment variable RECMODELS_DATA, or else ./data."""

    @property
    def root(self) -> Path:
        """The directory as an absolute path."""
        return Path(self.path).resolve() if self.path else data_root()

    def raw(self, dataset: str) -> Path:
        """Return the folder in which the raw files of a data set are kept unless a run names another."""
        return safe_join(self.root, "raw", dataset)

    def cache(self, name: str) -> Path:
        """Return the path of a cache that may be deleted at any time at the price of computing it again."""
        return safe_join(cache_folder(self.root), name)
