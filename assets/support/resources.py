"""Resources: where the product keeps its files, and where it computes large stages."""

from pathlib import Path
from typing import Any

import dagster as dg

from recmodels.compute.base import Compute
from recmodels.compute.engines import compute_from
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

    @property
    def staging(self) -> Path:
        """What runs write before it is stored."""
        return self.root / "staging"

    def cache(self, name: str) -> Path:
        """Return the path of a cache that may be deleted at any time at the price of computing it again."""
        return safe_join(cache_folder(self.root), name)


class ComputeResource(dg.ConfigurableResource[None]):
    """Where the blocks of large stages are computed: in the process of the run or on a Ray cluster."""

    engine: str = ""
    """``local`` or ``ray``; empty for the environment variable RECMODELS_COMPUTE, or else local."""

    address: str = ""
    """Of the cluster's head, host:port; empty for RAY_ADDRESS, or else Ray is started in this machine."""

    def open(self) -> Compute:
        """Return it for one stage, whose work alone it records; processes connect to a cluster once."""
        return compute_from(self.engine, self.address)


def compute_metadata(compute: Compute) -> dict[str, Any]:
    """Return what a materialisation says of where it was computed: nothing of the process of the run itself."""
    return {} if compute.engine == "local" else {"compute": compute.record()}
