"""The commands a newcomer types, as processes of their own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

SHORT = "".join(f"[{dataset}.models.lightgcn.training]\nepochs = 5\n" for dataset in ("demo", "gift_cards"))


def _start(data_root: Path, *arguments: str, catalogue: str = "") -> subprocess.Popen[str]:
    environment = os.environ | {"RECMODELS_DATA": str(data_root), "COLUMNS": "160"}
    environment.pop("DAGSTER_HOME", None)
    if catalogue:
        path = data_root.parent / "catalogue.toml"
        path.write_text(catalogue)
        environment["RECMODELS_CATALOGUE"] = str(path)
    command = [sys.executable, "-m", "pipelines.run", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _recmodels(data_root: Path, *arguments: str, catalogue: str = "") -> subprocess.CompletedProcess[str]:
    process = _start(data_root, *arguments, catalogue=catalogue)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.mark.slow
def test_one_command_goes_from_a_real_dump_to_recommendations_and_a_report(shared_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    done = _recmodels(
        root,
        *("run", "--dataset", "gift_cards", "--raw-dir", str(shared_data / "raw" / "gift_cards")),
        *("--models", "lightgcn", "--seeds", "0"),
        catalogue=SHORT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tables = root / "tables"
    assert pl.read_parquet(tables / "users" / "gift_cards.parquet").height == 458
    assert pl.read_parquet(tables / "items" / "gift_cards.parquet").height == 148
    assert pl.read_parquet(tables / "item_image_embeddings" / "gift_cards.parquet").is_empty()
    board = pl.read_parquet(tables / "leaderboard" / "gift_cards.parquet")
    assert set(board["model"]) == {"lightgcn", "popularity", "random"}
    recommended = pl.read_parquet(tables / "recommendations" / "lightgcn" / "gift_cards" / "0.parquet")
    assert recommended["user_id"].n_unique() == 458
    report = (root / "documents" / "report" / "gift_cards.html").read_text()
    assert "Amazon.com" in report
    assert "not a language model" in report
    for word in ("lightgcn", "popularity", "recall@20", "report", "recommendations", "make dev"):
        assert word in done.stdout

    # The run is on record in the instance that the user interface opens.
    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        jobs = [run.job_name for run in instance.get_runs()]
    assert sorted(jobs) == ["evaluate", "prepare", "status", "train"]


@pytest.mark.slow
def test_a_run_after_a_killed_one_waits_for_nothing_and_closes_its_record(tmp_path: Path) -> None:
    root = tmp_path / "data"
    endless = "[demo.models.lightgcn.training]\nepochs = 100000\npatience = 100000\n"
    killed = _start(root, "run", "--models", "lightgcn", "--seeds", "0", catalogue=endless)
    try:
        while not list(root.glob("training_state/**/*.safetensors")):
            assert killed.poll() is None, killed.communicate()
            time.sleep(0.1)
    finally:
        killed.kill()
        killed.communicate()

    done = _recmodels(root, "run", "--models", "lightgcn", "--seeds", "1", catalogue=SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        (lost,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert lost.job_name == "train"
        assert lost.run_id[:8] in done.stdout
        assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--dataset", "gift_card"), ("--dataset", "gift_cards", "'gift_card'")),
        (("run", "--dataset", "../demo"), ("--dataset", "'../demo'")),
        (("run", "--models", "lightgnc"), ("--models", "lightgcn", "'lightgnc'")),
        (("run", "--seeds", "99"), ("--seeds", "'99'")),
        (("run", "--dataset", "baby", "--no-download"), ("reviews_Baby_5.json.gz", "expected", "found")),
    ],
)
def test_a_mistake_on_the_command_line_is_one_clear_line(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = _recmodels(tmp_path / "data", *arguments)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("error")]
    assert done.returncode == 1
    assert all(word in line for word in words)
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("catalogue", "words"),
    [
        ("['../evil']\ntitle = 'x'", ("'../evil'", "expected a plain name")),
        ("['a;rm -rf']\ntitle = 'x'", ("'a;rm -rf'", "expected a plain name")),
        ("[demo.sources.amazon2014.files]\nreviews = '../x.json'", ("demo", "'../x.json'", "expected a plain name")),
        ("[demo", ("expected a readable TOML file",)),
    ],
)
def test_a_mistake_in_the_catalogue_is_one_clear_line_with_the_name_of_its_file(
    tmp_path: Path, catalogue: str, words: tuple[str, ...]
) -> None:
    done = _recmodels(tmp_path / "data", "run", catalogue=catalogue)
    (line,) = done.stdout.splitlines()
    assert done.returncode == 1
    assert line.startswith(f"error: catalogue {tmp_path / 'catalogue.toml'}")
    assert all(word in line for word in words)
    assert not done.stderr


def test_seeds_that_are_none_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECMODELS_SEEDS", "0,$(id)")
    done = _recmodels(tmp_path / "data", "run")
    assert done.returncode == 1
    assert done.stdout.startswith("error: RECMODELS_SEEDS: expected distinct whole numbers")
    assert not done.stderr


def test_the_code_location_says_which_catalogue_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text("['../evil']\ntitle = 'x'")
    command = [sys.executable, "-c", "import pipelines.definitions"]
    environment = os.environ | {"RECMODELS_CATALOGUE": str(path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith(f"recmodels.errors.InputError: catalogue {path}, ['../evil']: expected a plain name")


def test_a_data_root_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    done = _recmodels(blocker / "data", "run")
    assert done.returncode == 1
    assert "data root" in done.stdout
    assert "RECMODELS_DATA" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
