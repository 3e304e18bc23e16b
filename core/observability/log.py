"""The log: events with fields, JSON or for a terminal, without secrets and without what people write.

Records of the standard library (aiogram, SQLAlchemy, ...) pass through the same processors, so that they look alike and
are cleaned alike.
"""

import logging
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import ProcessorFormatter
from structlog.types import EventDict, Processor, WrappedLogger

from core.observability import tracebacks

LogFormat = Literal["auto", "console", "json"]

MASK = "***"

_QUIET = (
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
"""Libraries that speak of every request, and when debugging of its body: only their warnings are of use here."""

_SECRET_KEY = re.compile(
    r"(?:^|[_.-])(?:token|api[_-]?key|secret|password|passwd|authorization|credentials?|cookie)$", re.IGNORECASE
)

_SECRETS_IN_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    # A bot's token, which Telegram puts into the path of every URL.
    (re.compile(r"(?<!\d)\d{1,20}:[A-Za-z0-9_-]{30,}"), MASK),
    # Keys of OpenAI, Anthropic, OpenRouter, DeepSeek (sk-), Groq (gsk_) and Google (AIza).
    (re.compile(r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{8,}|gsk_[A-Za-z0-9]{16,}|AIza[A-Za-z0-9_-]{30,})"), MASK),
    # The password of a URL, up to the last @ before its path.
    (re.compile(r"(://[^\s/:@'\"]*):[^\s/'\"]+@"), rf"\1:{MASK}@"),
    (re.compile(r"\b(bearer)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\b(authorization)(['\"]?\s*[:=]\s*['\"]?)(?:[a-z]+\s+)?[^\s'\",;]+", re.IGNORECASE), rf"\1\2{MASK}"),
    (
        re.compile(r"\b(api[-_]?key|password|secret)(['\"]?\s*[:=]\s*['\"]?)[^\s'\",;&]{4,}", re.IGNORECASE),
        rf"\1\2{MASK}",
    ),
)

_DEEPEST = 6
"""Levels of nested values that are looked through; what lies deeper is written as cleaned text."""

_SHORTEST_SECRET = 6
"""A known secret that is shorter would mask ordinary words, and is none."""


class Redactor:
    """Keeps secrets out of what is written.

    Args:
        secrets: values that are known to be secret, whatever they look like.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(re.escape(secret) for secret in known)) if known else None

    def __call__(self, _logger: WrappedLogger, _name: str, event_dict: EventDict) -> EventDict:
        """Clean an event's fields: a structlog processor."""
        for key, value in event_dict.items():
            # Fields that begin with _ belong to the formatter and are not written.
            if not key.startswith("_"):
                event_dict[key] = self._field(key, value, 0)
        return event_dict

    def text(self, text: str) -> str:
        """Mask what looks like a secret, or is known to be one, in a text."""
        if self._known:
            text = self._known.sub(MASK, text)
        for pattern, mask in _SECRETS_IN_TEXT:
            text = pattern.sub(mask, text)
        return text

    def _field(self, key: str, value: object, depth: int) -> object:
        # A number is no secret: first_token=0.8 is a measurement.
        if value is None or isinstance(value, bool | int | float):
            return value
        return MASK if _SECRET_KEY.search(key) else self._value(value, depth)

    def _value(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(value)
        if depth < _DEEPEST and isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            return {self.text(str(key)): self._field(str(key), item, depth + 1) for key, item in items}
        if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
            return [self._value(item, depth + 1) for item in cast("Iterable[object]", value)]
        return self.text(tracebacks.describe(value) if isinstance(value, BaseException) else repr(value))


class _Handler(logging.StreamHandler[Any]):
    """Writes to the given stream, or to what `sys.stderr` is at that moment: a prompt may have put itself before it."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._follow = stream is None

    def emit(self, record: logging.LogRecord) -> None:
        if self._follow:
            self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Tell of a fault of logging without the record itself, which nobody has cleaned."""
        kind = sys.exc_info()[0]
        if sys.stderr:
            sys.stderr.write(f"logging failed: {kind.__name__ if kind else 'unknown'} in {record.name}\n")


def configure_logging(
    level: str = "info",
    log_format: LogFormat = "auto",
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Set up structlog and the standard library's logging; calling it again replaces the former set-up.

    Args:
        level: the least important level that is written.
        log_format: `auto` is for people on a terminal and JSON elsewhere.
        secrets: values that must never be written, as `Settings.secrets` lists them.
        stream: where to; the standard error output when None.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    target = stream or sys.stderr
    on_terminal = target.isatty()
    for_people = log_format == "console" or (log_format == "auto" and on_terminal)
    redactor = Redactor(secrets)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.ExceptionRenderer(tracebacks.render),
        structlog.processors.UnicodeDecoder(),
        redactor,
    ]
    structlog.configure(
        processors=[*shared, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # Loggers are module-level names: one that cached its set-up would outlive a second configuration.
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                _renderer(for_people=for_people, colors=on_terminal),
            ],
        )
    )
    root = logging.getLogger()
    for former in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(former)
        former.close()
    root.addHandler(handler)
    root.setLevel(threshold)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    # Adding it again is no harm.
    logging.getLogger("asyncio").addFilter(_first_line)
    logging.captureWarnings(capture=True)


def log_uncaught() -> None:
    """Have what nobody catches logged, cleaned like everything else, and not printed as Python prints it."""

    def log(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and issubclass(kind, Exception):
            structlog.get_logger().critical("process.uncaught", exc_info=(kind, error, trace))

    sys.excepthook = log
    threading.excepthook = lambda thread: log(thread.exc_type, thread.exc_value, thread.exc_traceback)


def _first_line(record: logging.LogRecord) -> bool:
    """Of what asyncio says: below it stand the task and its exception as `repr`, which may quote a message."""
    record.msg, record.args = record.getMessage().partition("\n")[0], None
    return True


def _renderer(*, for_people: bool, colors: bool) -> Processor:
    if for_people:
        # The tracebacks of rich show local variables, and those hold keys.
        return ConsoleRenderer(colors=colors, exception_formatter=plain_traceback)
    return structlog.processors.JSONRenderer(ensure_ascii=False)
