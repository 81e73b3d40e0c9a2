"""The automation on the real graph: what was prepared is up to date, and a changed file is followed step by step."""

import dagster as dg
import pytest
from graph_runs import Run

from assets.support.resources import DataRoot
from pipelines.definitions import build_definitions
from recmodels.raw.demo import write_demo_dump

READ = ("interactions", "item_ids", "items", "rejects", "reviews", "users")


@pytest.mark.slow
def test_the_real_graph_follows_a_changed_file(
    prepared_run: Run, data_root: DataRoot, instance: dg.DagsterInstance
) -> None:
    definitions = build_definitions({"data_root": data_root})
    cursor = None

    def tick() -> dict[str, set[str]]:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
        cursor = result.cursor
        keys = definitions.resolve_asset_graph().get_all_asset_keys()
        requested = {key.to_user_string(): result.get_requested_partitions(key) for key in keys}
        return {name: {str(p) for p in partitions} for name, partitions in requested.items() if partitions}

    assert tick() == {}
    folder = data_root.raw("demo")
    write_demo_dump(folder, seed=1)
    config = {"raw_dumps": {"config": {"raw_dir": str(folder)}}}
    assert prepared_run("prepare", assets=[dg.AssetKey("raw_dumps")], config=config).success
    assert tick() == {name: {"demo"} for name in READ}
    assert tick() == {}
