"""The commands a newcomer types, as processes of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from recmodels.raw.demo import write_demo_dump

SHORT = "".join(f"[{dataset}.models.lightgcn.training]\nepochs = 5\n" for dataset in ("demo", "gift_cards"))


def _start(data_root: Path, *arguments: str, catalogue: str = "") -> subprocess.Popen[str]:
    environment = os.environ | {"RECMODELS_DATA": str(data_root), "COLUMNS": "160"}
    environment.pop("DAGSTER_HOME", None)
    if catalogue:
        path = data_root.parent / "catalogue.toml"
        path.write_text(catalogue)
        environment["RECMODELS_CATALOGUE"] = str(path)
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _recmodels(data_root: Path, *arguments: str, catalogue: str = "") -> subprocess.CompletedProcess[str]:
    process = _start(data_root, *arguments, catalogue=catalogue)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _table(root: Path, folder: str) -> pl.DataFrame:
    (path,) = (root / "tables" / folder).iterdir()
    return pl.read_parquet(path)


@pytest.fixture(scope="module")
def small_dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the raw files of a small demo."""
    folder = tmp_path_factory.mktemp("raw")
    write_demo_dump(folder, n_users=60, n_items=40)
    return folder


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
    assert _table(root, "users/gift_cards").height == 458
    assert _table(root, "items/gift_cards").height == 148
    assert _table(root, "item_image_embeddings/gift_cards").is_empty()
    assert set(_table(root, "leaderboard/gift_cards")["model"]) == {"lightgcn", "popularity", "random"}
    assert _table(root, "recommendations/lightgcn/gift_cards/0")["user_id"].n_unique() == 458
    (path,) = (root / "documents" / "report" / "gift_cards").iterdir()
    report = path.read_text()
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
    assert _made(done.stdout) & {"interactions", "item_profiles", "user_knn"} == set()  # made before the kill
    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        (lost,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert lost.job_name == "train"
        assert lost.run_id[:8] in done.stdout
        assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))


def _statuses(root: Path, catalogue: str) -> tuple[int, dict[str, tuple[str, list[str]]]]:
    """Return the exit status of `recmodels status`, and state and reasons of what exists of the demo."""
    done = _recmodels(root, "status", "--dataset", "demo", "--json", catalogue=catalogue)
    assert not done.stderr
    rows = json.loads(done.stdout)
    assert all(row.keys() == {"asset", "partition", "state", "reasons"} for row in rows)
    assert {row["state"] for row in rows} <= {"up_to_date", "stale", "missing", "failed", "running"}
    return done.returncode, {
        f"{row['asset']} {row['partition']}": (row["state"], row["reasons"])
        for row in rows
        if row["state"] != "missing"
    }


def _made(output: str) -> set[str]:
    return {line.split()[1] for line in output.splitlines() if line.startswith("  \N{CHECK MARK} ")}


@pytest.mark.slow
def test_a_run_makes_what_is_not_up_to_date_and_the_status_says_what_that_is(small_dump: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    arguments = ("run", "--raw-dir", str(small_dump), "--models", "bpr,lightgcn", "--seeds", "0")
    short = SHORT + "[demo.models.bpr.training]\nepochs = 2\n"
    assert _statuses(root, short) == (0, {})
    first = _recmodels(root, *arguments, catalogue=short)
    assert first.returncode == 0, first.stdout + first.stderr
    status, found = _statuses(root, short)
    assert status == 0
    assert {state for state, _ in found.values()} == {"up_to_date"}
    assert {"raw_dumps demo", "checkpoint/bpr demo|0", "report demo"} <= found.keys()

    again = _recmodels(root, *arguments, catalogue=short)
    assert again.returncode == 0, again.stdout + again.stderr
    assert _made(again.stdout) == set()
    assert "  - checkpoint/bpr                   up to date\n" in again.stdout
    assert _boards(again.stdout) == _boards(first.stdout)
    assert len(list(root.glob("checkpoints/checkpoint/bpr/demo/0/*"))) == 1

    longer = short.replace("epochs = 2", "epochs = 3")
    status, found = _statuses(root, longer)
    assert status == 1
    assert {name: reasons for name, (state, reasons) in found.items() if state == "stale"} == {
        "checkpoint/bpr demo|0": ["training.epochs 2 -> 3"],
        "metrics/bpr demo|0": ["checkpoint/bpr of seed 0 is stale"],
        "user_metrics/bpr demo|0": ["checkpoint/bpr of seed 0 is stale"],
        "recommendations/bpr demo|0": ["checkpoint/bpr of seed 0 is stale"],
        "leaderboard demo": ["metrics/bpr of seed 0 is stale"],
        "report demo": [
            "checkpoint/bpr of seed 0 is stale",
            "leaderboard is stale",
            "metrics/bpr of seed 0 is stale",
            "recommendations/bpr of seed 0 is stale",
            "user_metrics/bpr of seed 0 is stale",
        ],
    }
    changed = _recmodels(root, *arguments, catalogue=longer)
    assert changed.returncode == 0, changed.stdout + changed.stderr
    stale = {name.split()[0] for name, (state, _) in found.items() if state == "stale"}
    assert _made(changed.stdout) == stale | {"pipeline_status"}
    assert _statuses(root, longer)[0] == 0

    forced = _recmodels(root, *arguments, "--force", catalogue=longer)
    assert forced.returncode == 0, forced.stdout + forced.stderr
    assert _made(forced.stdout) >= {name.split()[0] for name in found}


def _boards(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(("bpr ", "lightgcn ", "popularity ", "random "))]


@pytest.mark.slow
def test_settings_of_one_run_are_shown_and_are_no_reason_to_make_anything_again(
    small_dump: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    arguments = ("run", "--raw-dir", str(small_dump), "--models", "lightgcn", "--seeds", "0")
    setting = ("--profile-setting", "item_reviews=always")
    assert _recmodels(root, *arguments, *setting, catalogue=SHORT).returncode == 0
    status, found = _statuses(root, SHORT)
    assert status == 0
    assert found["item_profiles demo"] == ("up_to_date", ["made with item_reviews = 'always' of its run"])
    for further, made in (((), set[str]()), (setting, set[str]())):
        assert _made(_recmodels(root, *arguments, *further, catalogue=SHORT).stdout) == made
    other = _recmodels(root, *arguments, "--profile-setting", "item_reviews=never", catalogue=SHORT)
    assert {"item_profiles", "user_profiles"} <= _made(other.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--dataset", "gift_card"), ("--dataset", "gift_cards", "'gift_card'")),
        (("run", "--dataset", "../demo"), ("--dataset", "'../demo'")),
        (("run", "--dataset", "demo,gift_cards"), ("--dataset", "'demo,gift_cards'", "one data set")),
        (("doctor", "--dataset", ""), ("--dataset", "''")),
        (("status", "--dataset", "gift_card"), ("--dataset", "'gift_card'")),
        (("run", "--models", "lightgnc"), ("--models", "Did you mean lightgcn?", "'lightgnc'")),
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
    assert "run the same command again to go on" not in done.stdout  # it would fail in the same way


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


def test_an_unknown_option_is_refused_without_a_traceback(tmp_path: Path) -> None:
    done = _recmodels(tmp_path / "data", "run", "--datasett", "demo")
    assert done.returncode == 2
    assert "--datasett" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_explains_itself_without_loading_what_it_runs() -> None:
    code = (
        "import sys; from pipelines.cli.main import app, main; "
        "names = [command.callback.__name__.replace('_', '-') for command in app.registered_commands]; "
        "assert not any([main([name, '--help']) for name in names]); "
        "print([name for name in ('dagster', 'torch', 'polars') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--dataset" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


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
