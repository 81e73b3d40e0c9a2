"""A data root, an instance and definitions of their own for every Dagster test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from graph_runs import Run, failure_texts, runner

from assets.support.resources import DataRoot

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
