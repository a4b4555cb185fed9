"""Structured logs on standard error: one event a line, named in the past tense, with fields.

`get().info("batch_sent", node=name, changes=12)`. Durations are seconds, sizes bytes. Records of
the standard library's logging (grpc, uvicorn) come out in the same form.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Makes importing a package fail for a block, unless it is loaded already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment] # how Python says: do not import it
    try:
        yield
    finally:
        del sys.modules[package]


# structlog takes rich where it is installed, for tracebacks in colour. That is a tenth of what the
# start of a process costs.
with _hidden("rich"):
    import structlog

Format = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]


def configure(format: Format, level: Level, process: str) -> None:  # noqa: A002 - the option's name
    """Sets up logging for this process; every event carries its name.

    Args:
        format: "json" for machines, "console" for people.
        level: least level that is written.
        process: short name, for example "ipam".
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(process),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries tell at INFO what our own events already say.
    root.setLevel(max(_number(level), logging.WARNING))


def get() -> structlog.typing.FilteringBoundLogger:
    """The logger; bind fields with `.bind(node=name)`."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger())


def _number(level: Level) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _named(process: str) -> structlog.typing.Processor:
    def add(
        _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["process"] = process
        return event

    return add
