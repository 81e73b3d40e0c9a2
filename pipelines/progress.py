"""Live progress of a run on the terminal, fed by the run's own event log."""

import logging
import time
from typing import Any

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from assets.support.failures import failure_of_step, is_of_a_check, is_permanent, retry_of_step
from assets.support.lineage import CONSOLE

PROGRESS_LOGGER = "recmodels.progress"
LINE_SECONDS = 10.0
"""How often a step says how far it is where there is no terminal with a status line."""


class ProgressDisplay(logging.Handler):
    """
    Print a line for each finished step and keep the running one, with its latest message, in a status line.

    Off a terminal, which has no status line, a message is printed every `LINE_SECONDS` at most. A step that is tried
    again says why. Of the steps that failed, `failures` says why, a line for each but those of checks, told already,
    and `permanent` whether one fails again unless something is changed.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self._running = ""
        self._spoke = time.monotonic()
        self.failures: list[str] = []
        self.permanent = False
        self._status = Status("", console=console)

    def __enter__(self) -> "ProgressDisplay":
        self._status.start()
        logging.getLogger(PROGRESS_LOGGER).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger(PROGRESS_LOGGER).removeHandler(self)
        self._status.stop()

    def starting(self, job: str) -> None:
        """Say in the status line that a job is prepared: nothing of the one before runs any more."""
        self._running = ""
        self._status.update(f"[bold]{escape(job)}[/] starts")

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record of the run."""
        meta: dict[str, Any] = getattr(record, "dagster_meta", None) or {}
        event: dg.DagsterEvent | None = meta.get("dagster_event")
        step = str(meta.get("step_key") or "")
        if event is None:
            if step != self._running or record.levelno < logging.INFO:
                return
            message = str(meta.get("orig_message") or record.getMessage())
            now = time.monotonic()
            if record.levelno >= logging.WARNING:
                self.console.print(f"  [yellow]{escape(step)}[/]: {escape(message)}")
            elif not self.console.is_terminal and now - self._spoke >= LINE_SECONDS:
                self._spoke = now
                self.console.print(f"  {step}: {message}", markup=False, soft_wrap=True)
            self._status.update(f"[bold]{escape(step)}[/] {escape(message)}")
        elif event.is_step_start:
            self._running = step
            self._spoke = time.monotonic()
            self._status.update(f"[bold]{escape(step)}[/]")
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._materialized(event)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checked(event)
        elif event.is_step_up_for_retry:
            if line := retry_of_step(event):
                self.console.print(f"  {line}", markup=False, soft_wrap=True)
        elif event.is_step_failure:
            self.permanent |= is_permanent(event)
            if not is_of_a_check(event):
                self.failures.append(failure_of_step(event))

    def _checked(self, event: dg.DagsterEvent) -> None:
        check = event.asset_check_evaluation_data
        if check.passed:
            return
        name = f"{check.asset_key.to_user_string()}: {check.check_name}"
        # The table of everything is made after a run that went well: what it complains about is not of this run.
        if check.asset_key == dg.AssetKey("pipeline_status"):
            words = "elsewhere"
        else:
            warns = check.severity == dg.AssetCheckSeverity.WARN
            words = "[yellow]warning[/]" if warns else "[red]check failed[/]"
        self.console.print(f"  {words} {escape(name)} {escape(check.description or '')}".rstrip(), soft_wrap=True)

    def _materialized(self, event: dg.DagsterEvent) -> None:
        materialization = event.step_materialization_data.materialization
        rows = materialization.metadata.get("dagster/row_count")
        version = (materialization.tags or {}).get("dagster/data_version", "")
        shown = f"{int(str(rows.value)):>10,} rows" if rows is not None else " " * 15
        self.console.print(
            f"  [green]✓[/] {escape(materialization.asset_key.to_user_string()):<28}{shown}  [dim]{version[:12]}[/]"
        )
        if line := materialization.metadata.get(CONSOLE):
            self.console.print(f"    {escape(str(line.value))}", soft_wrap=True)


def _progress_logger(_context: dg.InitLoggerContext) -> logging.Logger:
    """Return the logger that `ProgressDisplay` listens to."""
    logger = logging.getLogger(PROGRESS_LOGGER)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return logger


progress_logger = dg.LoggerDefinition(
    _progress_logger, description="Feeds the progress display of a run on the terminal."
)
