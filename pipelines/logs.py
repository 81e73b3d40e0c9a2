"""How the messages of a run are written: for a person, or as JSON lines for what collects logs."""

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from recmodels.errors import InputError

LOG_VARIABLE = "RECMODELS_LOG"
"""Environment variable that chooses the format: ``text``, which is the default, or ``json``."""


class JsonLines(logging.Formatter):
    """One JSON object a line: what happened, when, and in which run, step, asset and partition."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; fields that a message does not have are null."""
        meta: dict[str, Any] = getattr(record, "dagster_meta", None) or {}
        event = _event(record)
        asset = event.asset_key if event else None
        failure = event.step_failure_data.error if event and event.is_step_failure else None
        raised = self.formatException(record.exc_info) if record.exc_info else None
        return json.dumps(
            {
                "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
                "level": record.levelname,
                "run_id": meta.get("run_id"),
                "job": meta.get("job_name"),
                "step": meta.get("step_key"),
                "asset": asset.to_user_string() if asset else None,
                "partition": (meta.get("job_tags") or {}).get("dagster/partition"),
                "event": event.event_type_value if event else None,
                "message": meta.get("orig_message") or record.getMessage(),
                "exception": failure.to_string() if failure else raised,
            },
            ensure_ascii=False,
        )


def _event(record: logging.LogRecord) -> dg.DagsterEvent | None:
    return (getattr(record, "dagster_meta", None) or {}).get("dagster_event")


def wants_json() -> bool:
    """Tell whether the environment asks for JSON lines; raises InputError if the variable names no format."""
    asked = os.environ.get(LOG_VARIABLE) or "text"
    if asked not in {"text", "json"}:
        raise InputError(LOG_VARIABLE, expected="text or json", found=repr(asked))
    return asked == "json"


def _console_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """Return Dagster's coloured logger, or one that writes JSON lines to standard error."""
    if not wants_json():
        return dg.colored_console_logger.logger_fn(context)
    level = logging.getLevelNamesMapping()[context.logger_config["log_level"].upper()]
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    # Dagster calls most of its events debugging, materialisations among them.
    handler.addFilter(lambda record: record.levelno >= level or _event(record) is not None)
    # Not a registered logger: one that is kept by name would collect a handler with every run of the process.
    logger = logging.Logger(context.logger_config["name"], logging.DEBUG)
    logger.addHandler(handler)
    return logger


console_logger = dg.LoggerDefinition(
    _console_logger,
    config_schema=dg.colored_console_logger.config_schema,
    description=f"Writes to standard error; JSON lines if {LOG_VARIABLE} is json.",
)
