"""A data root, an instance and definitions of their own for every Dagster test."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets.io_managers import recorded_path
from assets.resources import DataRoot
from pipelines.definitions import build_definitions

SMALL_CATALOGUE = """
[demo.models.bpr.training]
epochs = 3
[demo.models.lightgcn.training]
epochs = 3
[demo.models.freedom.training]
epochs = 3
[demo.models.blast.training]
epochs = 3
"""


@pytest.fixture(scope="session", autouse=True)
def short_training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the demo models train for a few epochs only."""
    path = tmp_path_factory.mktemp("catalogue") / "catalogue.toml"
    path.write_text(SMALL_CATALOGUE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECMODELS_CATALOGUE", str(path))
        yield


@pytest.fixture
def data_root(tmp_path: Path) -> DataRoot:
    """An empty data root."""
    return DataRoot(path=str(tmp_path / "data"))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance that is forgotten after the test."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    with dg.DagsterInstance.local_temp(str(home)) as temporary:
        yield temporary


Run = Callable[..., dg.ExecuteInProcessResult]


def runner(data_root: DataRoot, instance: dg.DagsterInstance) -> Run:
    """Return a function that executes a job in this process and returns its result, failed or not."""
    definitions = build_definitions({"data_root": data_root})

    def execute(
        job: str,
        partition: str | Mapping[str, str] = "demo",
        *,
        assets: list[dg.AssetKey] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        return definitions.resolve_job_def(job).execute_in_process(
            run_config=dg.RunConfig(ops=dict(config or {}), loggers={"progress": {}}),
            instance=instance,
            partition_key=partition if isinstance(partition, str) else dg.MultiPartitionKey(partition),
            asset_selection=assets,
            raise_on_error=False,
        )

    return execute


@pytest.fixture
def run(data_root: DataRoot, instance: dg.DagsterInstance) -> Run:
    """Jobs over an empty data root."""
    return runner(data_root, instance)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, short_training: None) -> Path:
    """A folder with data root and instance after the job `prepare` of the demo; `prepared_run` hands out copies."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(folder / "home")) as instance:
        result = runner(DataRoot(path=str(folder / "data")), instance)("prepare")
        assert result.success, failure_texts(result)
    return folder


@pytest.fixture
def prepared_run(prepared: Path, tmp_path: Path, data_root: DataRoot, request: pytest.FixtureRequest) -> Run:
    """Jobs over a copy of the prepared demo."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return runner(data_root, request.getfixturevalue("instance"))


def stored_table(instance: dg.DagsterInstance, data_root: DataRoot, asset: str, partition: str | None) -> pl.DataFrame:
    """Return the table that the latest record of an asset names."""
    return pl.read_parquet(recorded_path(instance, data_root, dg.AssetKey(asset.split("/")), partition))


def data_versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return the data version of every asset that a run materialised."""
    return {
        event.asset_key.to_user_string(): (event.materialization.tags or {})["dagster/data_version"]
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def failure_texts(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return the descriptions of the failed steps."""
    failures = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    return [failure.description or "" for failure in failures if failure]
