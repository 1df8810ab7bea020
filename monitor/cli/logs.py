"""Where log events go: to stderr, through the standard library, as the libraries' own events do."""

from __future__ import annotations

import logging
import sys

LEVELS = ("debug", "info", "warning", "error")


def log_to_stderr(level: str, *, as_json: bool | None = None) -> None:
    """Log from this level on: a line of JSON an event, or readable lines where a person watches (a terminal).

    Commands that print results keep stdout for them; that is why nothing is ever logged there.
    """
    import structlog

    if as_json is None:
        as_json = not sys.stderr.isatty()
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    render: list[structlog.types.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def log_for_results(*, debug: bool) -> None:
    """Log for a command whose answer is what it prints: what went wrong is part of that, so only ``--debug`` logs."""
    log_to_stderr("debug" if debug else "critical", as_json=False)
