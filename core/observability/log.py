"""Structured logging: JSON or console output, with secrets and user content redacted, and repeated warnings dropped.

Records of the standard library's `logging` (aiogram, SQLAlchemy, ...) pass through the same processors, so they are
formatted and redacted alike.
"""

import asyncio
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Literal, TextIO, cast

import structlog
from cachetools import LRUCache
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import ProcessorFormatter
from structlog.types import EventDict, Processor, WrappedLogger

from core.observability.redaction import MASK, SecretMasker, describe_error, render_traceback

LogFormat = Literal["auto", "console", "json"]

_NOISY_LOGGERS = (
    "aiogram",
    "aiohttp",
    "aiosqlite",
    "alembic",
    "anthropic",
    "asyncio",
    "google_genai",
    "groq",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "mistralai",
    "openai",
    "psycopg",
    "pydantic_ai",
    "redis",
    "sqlalchemy",
)
"""Libraries that log every request, at debug level with its body: limited to warnings."""

_SECRET_KEY = re.compile(
    r"(?:^|[_.-])(?:token|api[_-]?key|secret|password|passwd|authorization|credentials?|cookie)$", re.IGNORECASE
)

_MAX_LINES = 1_000
"""Lines whose repetitions are known."""

_MAX_DEPTH = 6
"""Levels of nested values that are redacted field by field; deeper ones are written as redacted text."""


class Redactor(SecretMasker):
    """Masks secrets in log fields and texts."""

    def __call__(self, _logger: WrappedLogger, _name: str, event_dict: EventDict) -> EventDict:
        """Redacts the fields of an event (structlog processor)."""
        for key, value in event_dict.items():
            # Fields with a leading underscore belong to the formatter and are not written.
            if not key.startswith("_"):
                event_dict[key] = self._redact_field(key, value, 0)
        return event_dict

    def _redact_field(self, key: str, value: object, depth: int) -> object:
        # A number is never a secret: first_token=0.8 is a measurement.
        if value is None or isinstance(value, bool | int | float):
            return value
        return MASK if _SECRET_KEY.search(key) else self._redact_value(value, depth)

    def _redact_value(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return value if self.suspect.search(value.casefold()) is None else self.text(value)
        if depth < _MAX_DEPTH and isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            return {self.text(str(key)): self._redact_field(str(key), item, depth + 1) for key, item in items}
        if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
            return [self._redact_value(item, depth + 1) for item in cast("Iterable[object]", value)]
        return self.text(describe_error(value) if isinstance(value, BaseException) else repr(value))


class RepeatFilter(logging.Filter):
    """Drops a warning or error that was logged word by word a moment ago; the next one says how many were dropped.

    During an outage many tasks retry each second, and fail alike each time. Thread-safe.

    Args:
        window_s: time after a line in which its repetitions are dropped.
        now: a monotonic clock.
    """

    def __init__(self, window_s: float = 60.0, now: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._window_s = window_s
        self._now = now
        self._lock = threading.Lock()
        self._logged: LRUCache[int, tuple[float, int]] = LRUCache(_MAX_LINES)
        """The instant of each line, and the number of its repetitions since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record is written."""
        if record.levelno < logging.WARNING:
            return True
        key, now = _hash_line(record), self._now()
        with self._lock:
            logged_at, dropped = self._logged.get(key, (float("-inf"), 0))
            is_repeated = now - logged_at < self._window_s
            self._logged[key] = (logged_at, dropped + 1) if is_repeated else (now, 0)
        if not is_repeated and dropped:
            _add_count(record, dropped)
        return not is_repeated


def _hash_line(record: logging.LogRecord) -> int:
    """Returns a hash of everything but the time; no text is kept."""
    if isinstance(record.msg, dict):
        event = cast("Mapping[str, object]", record.msg)  # an event of structlog, whose exception is text by now
        return hash(tuple(sorted((name, repr(value)) for name, value in event.items() if name != "timestamp")))
    error = record.exc_info[1] if record.exc_info else None
    return hash((record.name, record.levelno, str(record.msg), repr(record.args), repr(error)))


def _add_count(record: logging.LogRecord, dropped: int) -> None:
    if isinstance(record.msg, dict):
        record.msg = {**cast("Mapping[str, object]", record.msg), "repeated": dropped}
    else:
        record.msg = f"{record.msg} (repeated: {dropped})"


class _Handler(logging.StreamHandler[Any]):
    """Writes to the given stream, or to the current `sys.stderr`, which a console prompt may replace."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._uses_stderr = stream is None

    def emit(self, record: logging.LogRecord) -> None:
        if self._uses_stderr:
            self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Reports a logging failure without the record, which is not redacted yet."""
        kind = sys.exc_info()[0]
        if sys.stderr:
            sys.stderr.write(f"logging failed: {kind.__name__ if kind else 'unknown'} in {record.name}\n")


_installed: list[Redactor] = []
"""The redactor of the configuration in effect."""


def mask_secrets_too(secrets: Iterable[str]) -> None:
    """Masks further secrets in the log, such as a key that an operator sets at run time."""
    for redactor in _installed:
        redactor.add_secrets(secrets)


def configure_logging(
    level: str = "info",
    log_format: LogFormat = "auto",
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Configures structlog and the standard library's logging. A second call replaces the first configuration.

    Args:
        level: minimum level.
        log_format: `auto` is console output on a terminal and JSON elsewhere.
        secrets: values to mask, as listed by `Settings.secrets`.
        stream: output; None follows `sys.stderr`.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    target = stream or sys.stderr
    on_terminal = target.isatty()
    for_console = log_format == "console" or (log_format == "auto" and on_terminal)
    redactor = Redactor(secrets)
    _installed[:] = [redactor]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.ExceptionRenderer(render_traceback),
        structlog.processors.UnicodeDecoder(),
        redactor,
    ]
    structlog.configure(
        processors=[*shared, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Loggers are module-level: a cached one would keep the old configuration after a second call.
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream)
    handler.addFilter(_name_dropped_connection)
    handler.addFilter(RepeatFilter())
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                _renderer(for_console=for_console, colors=on_terminal),
            ],
        )
    )
    _replace_handler(handler, threshold)


def _replace_handler(handler: _Handler, threshold: int) -> None:
    """Installs a handler of the standard library's logging, in place of that of an earlier call."""
    root = logging.getLogger()
    for previous in [existing for existing in root.handlers if isinstance(existing, _Handler)]:
        root.removeHandler(previous)
        previous.close()
    root.addHandler(handler)
    root.setLevel(threshold)
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    # addFilter ignores a filter that is already there.
    for name in ("asyncio", "dbos"):
        logging.getLogger(name).addFilter(_keep_first_line)
    logging.captureWarnings(capture=True)


def log_uncaught() -> None:
    """Logs uncaught exceptions of all threads, redacted, in place of Python's own traceback on stderr."""

    def log(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and issubclass(kind, Exception):
            structlog.get_logger().critical("process.uncaught", exc_info=(kind, error, trace))

    sys.excepthook = log
    threading.excepthook = lambda thread: log(thread.exc_type, thread.exc_value, thread.exc_traceback)


def _keep_first_line(record: logging.LogRecord) -> bool:
    """Cuts a message to its first line.

    The rest is the `repr` of a task, which may quote user content, or in messages of DBOS a traceback of the driver.
    """
    record.msg, record.args = record.getMessage().partition("\n")[0], None
    return True


def _name_dropped_connection(record: logging.LogRecord) -> bool:
    """Replaces SQLAlchemy's traceback of a cancelled rollback by an event.

    A task that is cancelled while it gives a connection back ends that connection; the next session opens another one.
    The loggers are named by the class of the pool, hence a filter of the handler.
    """
    error = record.exc_info[1] if record.exc_info else None
    if record.name.startswith("sqlalchemy.pool") and isinstance(error, asyncio.CancelledError):
        record.msg, record.args, record.exc_info = "database.connection_dropped", None, None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


def _renderer(*, for_console: bool, colors: bool) -> Processor:
    if for_console:
        # The tracebacks of rich show local variables, which may hold keys.
        return ConsoleRenderer(colors=colors, exception_formatter=plain_traceback)
    return structlog.processors.JSONRenderer(ensure_ascii=False)
