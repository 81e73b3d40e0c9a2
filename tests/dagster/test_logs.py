"""What a run logs when JSON lines are asked for."""

import json
from typing import Any

import dagster as dg
import pytest

from pipelines.definitions import defs
from pipelines.logs import LOG_VARIABLE, console_logger
from recmodels.errors import InputError

DATASETS = dg.StaticPartitionsDefinition(["a/b"])


@dg.asset(partitions_def=DATASETS)
def told(context: dg.AssetExecutionContext) -> None:
    context.log.info("two\nlines with é")


@dg.asset(partitions_def=DATASETS)
def broken() -> None:
    raise ValueError("not today")


def _run(asset: dg.AssetsDefinition) -> None:
    job = dg.Definitions(
        assets=[asset], jobs=[dg.define_asset_job("work")], loggers={"console": console_logger}
    ).resolve_job_def("work")
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(
            instance=instance,
            partition_key="a/b",
            raise_on_error=False,
            run_config=dg.RunConfig(loggers={"console": {}}),
        )


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv(LOG_VARIABLE, "json")

    def of(asset: dg.AssetsDefinition) -> list[dict[str, Any]]:
        _run(asset)
        return [json.loads(line) for line in capfd.readouterr().err.splitlines()]

    return of


def test_a_message_is_one_line_that_says_where_it_comes_from(lines: Any) -> None:
    (line,) = [line for line in lines(told) if "lines" in line["message"]]
    assert line["message"] == "two\nlines with é"
    assert (line["level"], line["job"], line["step"], line["partition"]) == ("INFO", "work", "told", "a/b")
    assert line["run_id"]
    assert line["exception"] is None


def test_events_name_their_asset(lines: Any) -> None:
    (line,) = [line for line in lines(told) if line["event"] == "ASSET_MATERIALIZATION"]
    assert line["asset"] == "told"


def test_a_failure_carries_its_exception_and_lines_come_once_in_a_second_run(lines: Any) -> None:
    lines(told)
    (line,) = [line for line in lines(broken) if line["event"] == "STEP_FAILURE"]
    assert line["level"] == "ERROR"
    assert "ValueError: not today" in line["exception"]


def test_people_get_text_by_default(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(LOG_VARIABLE, raising=False)
    _run(told)
    text = capfd.readouterr().err
    assert "lines with é" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text.splitlines()[0])


def test_an_unknown_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "xml")
    with pytest.raises((InputError, dg.DagsterInvariantViolationError), match="expected text or json"):
        _run(told)


def test_the_graph_offers_this_logger_under_its_usual_name() -> None:
    assert defs.loggers is not None
    assert defs.loggers["console"] is console_logger
