"""Logs are JSON lines on stderr. Whatever is bound to the context (the request id above all) is on every line."""

import logging
import sys
from typing import Any

import structlog
from structlog.types import EventDict, Processor

from ias.kit.settings import ProcessSettings

_SECRET_NAMES = frozenset(
    {"password", "secret", "api_key", "key", "token", "access_token", "refresh_token", "authorization"}
)


def _mask_secrets(_: Any, __: str, event: EventDict) -> EventDict:
    """A second net: values under names that hold secrets never reach a sink."""
    for name in _SECRET_NAMES & event.keys():
        event[name] = "[masked]"
    return event


def configure_logging(process: str, settings: ProcessSettings) -> None:
    """Send structlog and the standard library's loggers to stderr, one line an event, marked with the process's name."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        _mask_secrets,
    ]
    final: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        ]  # the rich one shows locals
    )

    def add_process(_: Any, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, add_process, *final],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in ("httpx", "httpcore", "aiormq", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
