"""How long what is to be made will take, from what the same took before."""

from collections.abc import Iterable

import dagster as dg

from assets.support.dagster_internals import AssetGraph
from assets.training import TRAINED, checkpoint_key


class Durations:
    """Recorded times of an instance's steps on one data set."""

    def __init__(self, instance: dg.DagsterInstance, graph: AssetGraph, dataset: str) -> None:
        self._instance = instance
        self._graph = graph
        self._dataset = dataset
        self._runs: dict[str, dict[str, float]] = {}

    def expected(self, key: dg.AssetKey) -> float | None:
        """
        Return the seconds that an asset took last on the data set, with whichever seed.

        Of a checkpoint that was never made, what one of the same model took; None where there is nothing to go by.
        """
        return next((seconds for like in (key, *_kin(key)) if (seconds := self._last(like)) is not None), None)

    def _last(self, key: dg.AssetKey) -> float | None:
        if not self._graph.has(key):
            return None
        definition = self._graph.get(key).partitions_def
        names = [
            name
            for name in (definition.get_partition_keys() if definition else [])
            if (name.keys_by_dimension["dataset"] if isinstance(name, dg.MultiPartitionKey) else name) == self._dataset
        ]
        found = self._instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, asset_partitions=names), limit=1
        ).records
        if not found:
            return None
        entry = found[0].event_log_entry
        return self._steps(entry.run_id).get(entry.step_key or "")

    def _steps(self, run_id: str) -> dict[str, float]:
        if run_id not in self._runs:
            self._runs[run_id] = {
                stats.step_key: stats.end_time - stats.start_time
                for stats in self._instance.get_run_step_stats(run_id)
                if stats.start_time is not None and stats.end_time is not None
            }
        return self._runs[run_id]


def _kin(key: dg.AssetKey) -> Iterable[dg.AssetKey]:
    """Yield the checkpoints of the same model: of the model itself, then of its variants."""
    if key.path[0] != "checkpoint":
        return
    spec = TRAINED.get("/".join(key.path[1:]))
    for name, other in TRAINED.items():
        if spec is not None and other.model == spec.model and name != spec.name:
            yield checkpoint_key(name)
