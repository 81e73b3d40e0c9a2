"""What the command line prints, and to whom."""

import io
import logging
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from rich.console import Console

from pipelines.cli.main import main
from pipelines.cli.output import CONSOLE, print_error
from pipelines.instance import open_instance
from pipelines.progress import LINE_SECONDS, PROGRESS_LOGGER, ProgressDisplay, progress_logger
from recmodels.errors import InputError, TransientFailure


def test_texts_are_printed_as_they_are() -> None:
    with CONSOLE.capture() as printed:
        CONSOLE.print("error: root:x:0:0", markup=False)
    assert printed.get() == "error: root:x:0:0\n"


def test_what_a_file_holds_cannot_steer_the_terminal_through_an_error() -> None:
    with CONSOLE.capture() as printed:
        print_error("r.csv has \x1b[2J and \x9b31m\nand a second line")
    assert printed.get() == "error: r.csv has  [2J and  31m\nand a second line\n"


def test_an_error_never_stands_where_json_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--dataset", "dem", "--user", "x", "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: --dataset: ")
    assert main(["recommend", "--dataset", "dem", "--user", "x"]) == 1
    assert capsys.readouterr().out.startswith("error: --dataset: ")


def test_the_version_and_the_environment_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("recmodels 0.")
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for name in ("DATA", "CATALOGUE", "SEEDS", "CACHE", "LOG"):
        assert f"RECMODELS_{name} " in told


def test_an_unknown_seed_names_the_variable_that_makes_it_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--seeds", "99"]) == 1
    assert "RECMODELS_SEEDS" in capsys.readouterr().out


def _message(step: str, text: str) -> logging.LogRecord:
    record = logging.LogRecord(PROGRESS_LOGGER, logging.INFO, "", 0, text, None, None)
    record.dagster_meta = {"step_key": step, "orig_message": text}
    return record


def test_off_a_terminal_a_long_step_says_how_far_it_is_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    output, clock = io.StringIO(), [0.0]
    monkeypatch.setattr("pipelines.progress.time.monotonic", lambda: clock[0])
    display = ProgressDisplay(Console(file=output, width=40))
    for second in range(25):
        clock[0] = second
        display.emit(_message("", f"epoch [{second}] of a training with a long line of text"))
    assert LINE_SECONDS == 10
    lines = output.getvalue().splitlines()
    assert [line.split("epoch ")[1][:4] for line in lines] == ["[10]", "[20]"]


def _display_of(failing: Exception | None, retries: dg.RetryPolicy | None = None) -> ProgressDisplay:
    """Return the display after a job whose only step raises."""

    @dg.op(retry_policy=retries)
    def work() -> None:
        if failing:
            raise failing

    @dg.job(logger_defs={"progress": progress_logger})
    def job() -> None:
        work()

    with ProgressDisplay(Console(file=io.StringIO(), width=40)) as display:
        job.execute_in_process(run_config={"loggers": {"progress": {}}}, raise_on_error=False)
    return display


@pytest.mark.parametrize(
    ("error", "permanent"),
    [(dg.Failure("empty file", allow_retries=False), True), (TransientFailure("busy server"), False)],
)
def test_a_permanent_failure_is_told_from_a_passing_one(error: Exception, permanent: bool) -> None:
    display = _display_of(error)
    assert len(display.failures) == 1
    assert display.permanent is permanent


def test_a_passing_failure_is_told_in_its_own_words_while_it_is_tried_again() -> None:
    # As httpx raises what httpcore has raised.
    error = TransientFailure("reviews.json.gz cannot be fetched: http://a.org/x: no such name. Put it there by hand.")
    error.__cause__ = ConnectionError("of a library")
    error.__cause__.__cause__ = OSError("of the system")
    display = _display_of(error, dg.RetryPolicy(max_retries=1))
    assert display.failures == [f"work: {error}"]
    assert f"  work: is tried again: {error}\n" in display.console.file.getvalue()  # type: ignore[attr-defined]
    meanwhile = ValueError("of a library")
    meanwhile.__context__ = DagsterExecutionInterruptedError()
    for ended in (DagsterExecutionInterruptedError(), meanwhile):
        display = _display_of(ended, dg.RetryPolicy(max_retries=1))
        assert "is tried again" not in display.console.file.getvalue()  # type: ignore[attr-defined]
    foreign = ValueError("of a library")
    foreign.__cause__ = OSError("of the system")
    assert _display_of(foreign).failures == ["work: OSError: of the system"]


@pytest.mark.parametrize(("name", "words"), [("pipeline_status", "elsewhere"), ("items", "check failed")])
def test_what_failed_in_another_run_is_told_apart_from_a_failed_check_of_this_one(name: str, words: str) -> None:
    @dg.asset(name=name)
    def made() -> None: ...

    @dg.asset_check(asset=made)
    def well() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, description="1 partition failed, expected none: report of baby")

    output = io.StringIO()
    job = dg.Definitions(
        [made], jobs=[dg.define_asset_job("job")], asset_checks=[well], loggers={"progress": progress_logger}
    ).resolve_job_def("job")
    with ProgressDisplay(Console(file=output, width=200)):
        assert job.execute_in_process(run_config={"loggers": {"progress": {}}}).success
    told = f"  {words} {name}: well 1 partition failed, expected none: report of baby"
    assert told in output.getvalue().splitlines()


def test_a_blocking_check_that_failed_is_told_once_and_by_what_it_found() -> None:
    @dg.asset
    def items() -> None: ...

    @dg.asset_check(asset=items, blocking=True)
    def well() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, description="52 of 2,375 lines, expected at most 1%")

    output = io.StringIO()
    job = dg.Definitions(
        [items], jobs=[dg.define_asset_job("job")], asset_checks=[well], loggers={"progress": progress_logger}
    ).resolve_job_def("job")
    with ProgressDisplay(Console(file=output, width=200)) as display:
        job.execute_in_process(run_config={"loggers": {"progress": {}}}, raise_on_error=False)
    assert "  check failed items: well 52 of 2,375 lines, expected at most 1%" in output.getvalue().splitlines()
    assert display.failures == []
    assert display.permanent


def test_a_damaged_database_of_dagster_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with open_instance() as instance:
        assert instance.get_runs_count() == 0
    database = tmp_path / "dagster" / "history" / "runs.db"
    database.write_bytes(database.read_bytes()[:5000])
    told_at_once = pytest.raises(
        InputError, match=r"expected a database that can be read and written.*recmodels doctor"
    )
    with told_at_once as told, open_instance() as instance:
        instance.get_runs_count()
    assert "\n" not in str(told.value)


def test_a_full_disk_under_the_database_of_dagster_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECMODELS_DATA", str(tmp_path))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr("pipelines.instance.shutil.disk_usage", lambda _: SimpleNamespace(free=512))
    unrecorded = RuntimeError("a step could not be recorded")
    unrecorded.__cause__ = sqlite3.OperationalError("disk I/O error")
    with pytest.raises(InputError, match=r"found disk I/O error. Make room, 512 bytes are free"), open_instance():
        raise unrecorded
