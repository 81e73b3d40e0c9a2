"""Runs of the command line that are killed, or go on at once: nothing is lost, and in the end nothing differs."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from forked_runs import forking_server

from recmodels.checkpoints.store import load_checkpoint
from recmodels.raw.demo import write_demo_dump
from recmodels.reporting.report import without_measured

STAGES = (
    ("raw", "documents/raw_dumps/demo/", "before"),
    ("interactions", "tables/interactions/demo/", "after"),
    ("profiles", "tables/item_profiles/demo/", "before"),
    ("embeddings", "tables/item_text_embeddings/demo/", "after"),
    ("graphs", "tables/item_text_knn/demo/", "before"),
    ("transport", "tables/augmented_interactions/demo/", "after"),
    ("training", "checkpoints/checkpoint/bpr/demo/0/", "before"),
    ("evaluation", "tables/metrics/bpr/demo/0/", "after"),
    ("recommendations", "tables/recommendations/bpr/demo/0/", "before"),
    ("report", "documents/report/demo/", "after"),
)
"""In the order in which they are made: a run makes what the one before it had finished no more."""
OF_THE_INSTANCE = "tables/pipeline_status/"
"""Says when things were made, so no two runs write the same."""
REPORTS = "documents/report/"
"""Tell when their inputs were recorded and how long training took: equal but for that."""

Run = Callable[..., list[int]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A function that runs `recmodels run` on a data root, once or several times at once, and returns the statuses."""
    folder = tmp_path_factory.mktemp("runs")
    write_demo_dump(folder / "raw", n_users=60, n_items=40)
    (folder / "catalogue.toml").write_text("[demo.models.bpr.training]\nepochs = 2\n")
    arguments = ["run", "--raw-dir", str(folder / "raw"), "--models", "bpr", "--seeds", "0"]
    with forking_server({"RECMODELS_CATALOGUE": str(folder / "catalogue.toml"), "RECMODELS_SEEDS": "0"}) as runs:

        def execute(root: Path, *kills: dict[str, str]) -> list[int]:
            return runs(
                [
                    {"arguments": arguments, "root": str(root), "log": str(root.with_suffix(f".{number}")), **kill}
                    for number, kill in enumerate(kills or [{}])
                ]
            )

        yield execute


def _stored(root: Path) -> dict[str, bytes]:
    """Return what is in place: every table and document by its path; reports without their times, by their folder."""
    files = [file for kind in ("tables", "documents") for file in (root / kind).rglob("*") if file.is_file()]
    visible = {file.relative_to(root).as_posix(): file for file in files if not file.name.startswith(".")}
    stored = {name: file.read_bytes() for name, file in visible.items() if not name.startswith(OF_THE_INSTANCE)}
    pages = {name: page.decode() for name, page in stored.items() if name.startswith(REPORTS)}
    timeless = {name.rpartition("/")[0]: without_measured(page).encode() for name, page in pages.items()}
    return {name: content for name, content in stored.items() if name not in pages} | timeless


def _checkpoints(root: Path) -> list[Path]:
    return list(root.glob("checkpoints/checkpoint/bpr/demo/0/*"))


def _output(root: Path) -> str:
    return "\n".join(log.read_text() for log in sorted(root.parent.glob(f"{root.name}.[0-9]")))


@pytest.fixture(scope="module")
def undisturbed(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data root of a run that nothing happened to."""
    root = tmp_path_factory.mktemp("undisturbed") / "data"
    assert run(root) == [0], _output(root)
    assert len(_stored(root)) > 20
    return root


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_as_one_that_was_never_disturbed(
    run: Run, undisturbed: Path, tmp_path: Path
) -> None:
    root, expected = tmp_path / "data", _stored(undisturbed)
    present: set[str] = set()
    for stage, path, moment in STAGES:
        assert run(root, {"path": path, "moment": moment}) == [-signal.SIGKILL], f"{stage}: {_output(root)}"
        if moment == "before" and stage != "training":  # a checkpoint is whole before it is moved
            assert list((root / path).glob(".*.tmp")), stage
        stored = _stored(root)
        assert stored == {name: expected[name] for name in stored}, stage
        assert present <= stored.keys(), stage
        present = {*stored}
        for checkpoint in _checkpoints(root):
            load_checkpoint(checkpoint)

    assert run(root) == [0], _output(root)
    assert _stored(root) == expected
    assert not [left for kind in ("tables", "documents") for left in (root / kind).rglob("*.tmp")]
    (checkpoint,) = _checkpoints(root)  # a finished training is not repeated
    version = load_checkpoint(checkpoint).provenance["data_version"]
    (reference,) = _checkpoints(undisturbed)
    assert version == load_checkpoint(reference).provenance["data_version"]
    assert _statuses(root).count(dg.DagsterRunStatus.FAILURE) == len(STAGES)


@pytest.mark.slow
def test_two_runs_of_one_data_set_at_once_both_end_well(run: Run, undisturbed: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert run(root, {}, {}) == [0, 0], _output(root)
    assert _stored(root) == _stored(undisturbed)
    assert len(_checkpoints(root)) == 2
    for checkpoint in _checkpoints(root):
        load_checkpoint(checkpoint)
    assert not list(root.rglob("*.tmp"))
    assert set(_statuses(root)) == {dg.DagsterRunStatus.SUCCESS}


def _statuses(root: Path) -> list[dg.DagsterRunStatus]:
    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        statuses = [run.status for run in instance.get_runs()]
    assert {*statuses} <= {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
    return statuses
