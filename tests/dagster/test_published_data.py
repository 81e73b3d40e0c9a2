"""The published data sets pass every check with the numbers that papers report."""

from pathlib import Path

import dagster as dg
import pytest
from graph_runs import Run, failure_texts

SIZES = {
    "baby": {"users": 19_445, "items": 7_050, "train": 118_551, "valid": 20_559, "test": 21_682},
    "sports": {"users": 35_598, "items": 18_357, "train": 218_409, "valid": 37_899, "test": 40_029},
    "clothing": {"users": 39_387, "items": 23_033, "train": 197_338, "valid": 40_150, "test": 41_189},
}
READ = [dg.AssetKey(name) for name in ("raw_dumps", "items", "item_ids", "users", "reviews", "rejects", "interactions")]


@pytest.mark.slow
@pytest.mark.parametrize("dataset", SIZES)
def test_a_published_split_loads_with_the_published_numbers(run: Run, shared_data: Path, dataset: str) -> None:
    config = {"raw_dumps": {"config": {"raw_dir": str(shared_data / "mmrec" / dataset), "download": False}}}
    result = run("prepare", dataset, assets=READ, config=config)
    assert result.success, failure_texts(result)
    recorded = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert recorded["interactions"]["sizes"].value == SIZES[dataset]
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert {"published_sizes", "k_core_holds", "schema", "few_rejects"} <= checks.keys()
    assert all(checks.values()), checks
