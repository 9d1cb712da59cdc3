"""How every process of forepath logs: to standard error, a line each, as text or as JSON."""

import logging
import os
import sys
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Any

import structlog

FORMAT_VARIABLE, LEVEL_VARIABLE = "FOREPATH_LOG_FORMAT", "FOREPATH_LOG_LEVEL"


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _plain(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # What a switch or a guest is called must not move the cursor of who reads the log.
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = repr(value)
    return event


def set_up_logs() -> None:
    """As the environment says; what it says wrongly is taken for the default."""
    level = os.environ.get(LEVEL_VARIABLE, LogLevel.INFO).upper()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping().get(level, logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    *before, last = structlog.get_config()["processors"]
    # Without what variables held: that may be a password, and of a plan thousands of lines.
    if isinstance(last, structlog.dev.ConsoleRenderer):
        last.exception_formatter = structlog.dev.plain_traceback
    structlog.configure(processors=[*(one for one in before if one is not _plain), _plain, last])
    if os.environ.get(FORMAT_VARIABLE) == LogFormat.JSON:
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        exceptions, line = structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)
        structlog.configure(processors=[structlog.stdlib.add_log_level, stamp, exceptions, line])
