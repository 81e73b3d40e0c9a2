"""The two dimensions everything is partitioned by: the data set and, for trained things, the seed."""

import os

import dagster as dg

from recmodels.catalogue.entries import DatasetEntry, load_catalogue
from recmodels.errors import InputError
from recmodels.settings import validated_entry

SEEDS_VARIABLE = "RECMODELS_SEEDS"


def seed_keys() -> list[str]:
    """Return the seeds to offer: ``0`` to ``4``, or the comma-separated list in ``RECMODELS_SEEDS``."""
    text = os.environ.get(SEEDS_VARIABLE) or "0,1,2,3,4"
    keys = [part.strip() for part in text.split(",")]
    if not all(key.isdecimal() for key in keys) or len(set(keys)) != len(keys):
        raise InputError(
            SEEDS_VARIABLE, expected="distinct whole numbers separated by commas, such as 0,1,2", found=repr(text)
        )
    return keys


DATASETS = dg.StaticPartitionsDefinition(list(load_catalogue()))
SEEDS = dg.StaticPartitionsDefinition(seed_keys())
DATASET_SEEDS = dg.MultiPartitionsDefinition({"dataset": DATASETS, "seed": SEEDS})

ALL_SEEDS = dg.MultiToSingleDimensionPartitionMapping("dataset")
"""From an asset of one data set back to the partitions of all its seeds."""


def dataset_of(partition_key: str) -> str:
    """Return the data set of a partition key of either definition."""
    if isinstance(partition_key, dg.MultiPartitionKey):
        return partition_key.keys_by_dimension["dataset"]
    return partition_key


def entry_of(partition_key: str) -> DatasetEntry:
    """
    Return the catalogue's entry of a partition's data set.

    Raises
    ------
    InputError
        If settings of the entry are not valid, whichever stage they are for; those of other entries do not matter.
    """
    return validated_entry(load_catalogue()[dataset_of(partition_key)])


def seed_of(partition_key: str) -> int:
    """Return the seed of a ``dataset x seed`` partition key."""
    if not isinstance(partition_key, dg.MultiPartitionKey):
        raise InputError("partition key", expected="a data set and a seed", found=repr(partition_key))
    return int(partition_key.keys_by_dimension["seed"])
