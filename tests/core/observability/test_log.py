"""Logging: both output formats, and redaction of secrets and user content."""

import asyncio
import gc
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import aiosqlite
import pytest
import structlog
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

from core.errors import StorageError
from core.observability.log import MASK, LogFormat, Redactor, RepeatFilter, _Handler, configure_logging, log_uncaught

WRITTEN = "meet me at 7"
BOT_TOKEN = "123456789:AAF-abcdefghijklmnopqrstuvwxyz_0123"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _former_logging() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    level = root.level
    levels = {
        name: logger.level for name, logger in root.manager.loggerDict.items() if isinstance(logger, logging.Logger)
    }
    yield
    for handler in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    for name, logger in root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):
            logger.setLevel(levels.get(name, logging.NOTSET))
    logging.captureWarnings(capture=False)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def configured(level: str = "info", log_format: LogFormat = "json", secrets: tuple[str, ...] = ()) -> io.StringIO:
    """Configure logging and return where it writes to."""
    stream = io.StringIO()
    configure_logging(level, log_format, secrets=secrets, stream=stream)
    return stream


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the parsed JSON lines."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def misread(text: str) -> None:
    """Raise chained errors that quote user content, as parsers do."""
    try:
        TypeAdapter(int).validate_python(text)
    except ValidationError:
        raise KeyError(text)  # noqa: B904 - as bugs do


def fetch() -> None:
    """Fail as a client does: with the address in the error."""
    raise ValueError(f"cannot open https://api.telegram.org/bot{BOT_TOKEN}/getUpdates")


def fail() -> None:
    """Fail with secrets in the error and in its cause."""
    try:
        fetch()
    except ValueError as error:
        raise RuntimeError("redis://:hunter2@h is gone") from error


class TestForm:
    """Output of an event."""

    def test_json_output_is_one_line_with_fields_and_context(self) -> None:
        stream = configured()
        structlog.contextvars.bind_contextvars(update_id=7)
        structlog.get_logger("bot.somewhere").info("provider.failed", provider="ollama", cooldown_s=300)
        (event,) = events(stream)
        assert event.pop("timestamp").endswith("Z")
        assert event == {
            "event": "provider.failed",
            "provider": "ollama",
            "cooldown_s": 300,
            "update_id": 7,
            "level": "info",
            "logger": "bot.somewhere",
        }

    def test_standard_library_records_have_the_same_format(self) -> None:
        stream = configured()
        structlog.contextvars.bind_contextvars(update_id=7)
        logging.getLogger("some.library").warning("took %d s", 3)
        (event,) = events(stream)
        assert (event["event"], event["logger"], event["level"]) == ("took 3 s", "some.library", "warning")
        assert event["update_id"] == 7

    @pytest.mark.parametrize(
        ("log_format", "stream", "is_json"),
        [
            ("auto", io.StringIO, True),  # a file, a pipe, a container
            ("auto", Terminal, False),  # a person
            ("json", Terminal, True),
            ("console", io.StringIO, False),
        ],
    )
    def test_log_format_selects_output(
        self,
        log_format: LogFormat,
        stream: type[io.StringIO],
        is_json: bool,
    ) -> None:
        target = stream()
        configure_logging("info", log_format, stream=target)
        structlog.get_logger().info("a.thing", number=1)
        assert target.getvalue().startswith("{") is is_json
        assert "a.thing" in target.getvalue()

    def test_colours_require_a_terminal(self) -> None:
        stream = configured(log_format="console")
        structlog.get_logger().info("a.thing", number=1)
        assert "\x1b" not in stream.getvalue()

    @pytest.mark.parametrize("log_format", ["json", "console"])
    def test_tracebacks_contain_no_local_variables(self, log_format: LogFormat) -> None:
        stream = configured(log_format=log_format)
        local = "a-value-of-a-local-variable".upper()
        try:
            int(local, base=len(local) + 10)
        except ValueError:
            structlog.get_logger().exception("a.fault")
        assert "ValueError" in stream.getvalue()
        assert local not in stream.getvalue()

    def test_json_output_keeps_non_ascii_text(self) -> None:
        stream = configured()
        structlog.get_logger().info("a.thing", name="Анна")
        assert "Анна" in stream.getvalue()

    def test_output_without_a_stream_follows_sys_stderr(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A prompt puts itself before it later, so that log lines do not tear the input line."""
        configure_logging("info", "json")
        later = io.StringIO()
        monkeypatch.setattr(sys, "stderr", later)
        structlog.get_logger().info("a.thing")
        assert events(later)[0]["event"] == "a.thing"


class TestLevel:
    """Levels and sources of events."""

    @pytest.mark.parametrize(
        ("level", "written"),
        [("debug", ["d", "i", "w"]), ("info", ["i", "w"]), ("WARNING", ["w"]), ("critical", [])],
    )
    def test_level_filters_events(self, level: str, written: list[str]) -> None:
        stream = configured(level)
        log = structlog.get_logger()
        log.debug("d")
        log.info("i")
        log.warning("w")
        assert [event["event"] for event in events(stream)] == written

    @pytest.mark.parametrize(
        "name", ["aiogram.event", "aiohttp.access", "httpx2", "alembic.runtime.migration", "openai"]
    )
    def test_libraries_log_warnings_only_even_at_debug_level(self, name: str) -> None:
        """At debug level some of them write the bodies of requests, which are people's messages."""
        stream = configured("debug")
        logging.getLogger(name).info("Update id=1 is handled")
        assert not events(stream)
        logging.getLogger(name).warning("something odd")
        assert events(stream)

    def test_configure_logging_replaces_the_previous_configuration(self) -> None:
        log = structlog.get_logger()
        first = configured("debug")
        log.info("one")
        second = configured("warning")
        log.info("two")
        log.warning("three")
        assert [event["event"] for event in events(first)] == ["one"]
        assert [event["event"] for event in events(second)] == ["three"]

    def test_python_warnings_are_logged(self) -> None:
        stream = configured()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=False)
            logging.captureWarnings(capture=True)
            warnings.warn("careful", UserWarning, stacklevel=1)
            logging.captureWarnings(capture=False)
        assert events(stream)[0]["logger"] == "py.warnings"


class TestSecrets:
    """Secrets."""

    @pytest.mark.parametrize(
        ("text", "cleaned"),
        [
            (f"https://api.telegram.org/bot{BOT_TOKEN}/getMe", f"https://api.telegram.org/bot{MASK}/getMe"),
            ("Incorrect API key provided: sk-proj-abc_DEF-123456.", f"Incorrect API key provided: {MASK}."),
            ("key sk-ant-api03-abcdefgh", f"key {MASK}"),
            ("redis://:hunter2@localhost:6379/0", f"redis://:{MASK}@localhost:6379/0"),
            ("postgresql+psycopg://bot:p@ss:w@db/x", f"postgresql+psycopg://bot:{MASK}@db/x"),  # an @ inside
            ("Authorization: Bearer abc.def-ghi", f"Authorization: {MASK}"),
            ("{'Authorization': 'Basic dXNlcjpwYXNz'}", f"{{'Authorization': '{MASK}'}}"),
            ("sent bearer abcdef123", f"sent bearer {MASK}"),
            ("?api_key=hunter22&x=1", f"?api_key={MASK}&x=1"),
            ("host=h password=hunter22", f"host=h password={MASK}"),  # a driver's connection string
            ("AIza" + "a" * 35, MASK),  # Google
            # Text that only resembles a secret is kept.
            ("task-manager of the disk-usage", "task-manager of the disk-usage"),
            ("http://localhost:11434/v1 at 12:30", "http://localhost:11434/v1 at 12:30"),
            ("mail to a@b.example: fine", "mail to a@b.example: fine"),
            ("2026-01-01T10:00:00.123456Z", "2026-01-01T10:00:00.123456Z"),
        ],
    )
    def test_redactor_masks_text_in_the_form_of_a_secret(self, text: str, cleaned: str) -> None:
        assert Redactor().text(text) == cleaned

    @pytest.mark.parametrize(
        "key",
        [
            "token",
            "bot_token",
            "api_key",
            "apikey",
            "X-Api-Key",
            "secret",
            "webhook_secret",
            "password",
            "Authorization",
        ],
    )
    def test_redactor_masks_fields_by_name_at_any_depth(self, key: str) -> None:
        stream = configured()
        structlog.get_logger().info("a.thing", **{key: "hunter2"}, deep={"list": [{key: ("hunter2",)}]})
        assert "hunter2" not in stream.getvalue()
        assert events(stream)[0]["deep"] == {"list": [{key: MASK}]}

    @pytest.mark.parametrize(
        "field",
        [{"first_token": 0.8}, {"tokens": 12}, {"history_tokens": 8000}, {"key": "start"}, {"token": None}],
    )
    def test_redactor_keeps_numbers_and_plain_fields(self, field: dict[str, object]) -> None:
        stream = configured()
        structlog.get_logger().info("a.thing", **field)
        assert field.items() <= events(stream)[0].items()

    @pytest.mark.parametrize("log_format", ["json", "console"])
    @pytest.mark.parametrize("by", ["structlog", "standard library"])
    def test_redactor_masks_exceptions_and_their_causes(self, log_format: LogFormat, by: str) -> None:
        stream = configured(log_format=log_format)
        try:
            fail()
        except RuntimeError as error:
            if by == "structlog":
                structlog.get_logger().exception("a.fault", error=error)
            else:
                logging.getLogger("aiogram").error("failed: %s", error, exc_info=True)  # noqa: G201 - libraries do
        assert "RuntimeError" in stream.getvalue()
        assert "ValueError" in stream.getvalue()
        assert BOT_TOKEN not in stream.getvalue()
        assert "hunter2" not in stream.getvalue()

    @pytest.mark.parametrize("log_format", ["json", "console"])
    def test_tracebacks_quote_no_user_content(self, log_format: LogFormat) -> None:
        """A validator's message shows the value, a parser's the text; the kinds, the causes and the places remain."""
        stream = configured(log_format=log_format)
        try:
            misread(WRITTEN)
        except KeyError as error:
            structlog.get_logger().exception("a.fault", error=error)
            several = ExceptionGroup(WRITTEN, [error, LookupError(WRITTEN)])
            logging.getLogger("aiogram").error("failed", exc_info=several)
        written = stream.getvalue()
        assert "meet me" not in written
        assert "ValidationError: int: int_parsing" in written
        assert "LookupError" in written
        assert "During handling of the above exception" in written
        assert "test_log.py" in written

    def test_tracebacks_keep_messages_about_code(self) -> None:
        """They are needed to diagnose a failure."""
        stream = configured()
        for fault in (AttributeError("'X' has no 'y'"), FileNotFoundError(2, "No such file"), StorageError("full")):
            structlog.get_logger().error("a.fault", exc_info=fault)
        assert [event["exception"] for event in events(stream)] == [
            "AttributeError: 'X' has no 'y'",
            "FileNotFoundError: No such file",
            "core.errors.StorageError: full",
        ]

    def test_uncaught_exceptions_are_logged_without_user_content(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of the main thread and of others."""
        stream = configured()
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.setattr(threading, "excepthook", threading.excepthook)
        log_uncaught()
        try:
            misread(WRITTEN)
        except KeyError as error:
            sys.excepthook(type(error), error, error.__traceback__)
        thread = threading.Thread(target=misread, args=[WRITTEN])
        thread.start()
        thread.join()
        assert [event["event"] for event in events(stream)] == ["process.uncaught"] * 2
        assert stream.getvalue().count("in misread") == 4
        assert "meet me" not in stream.getvalue()

    async def test_unretrieved_task_exceptions_are_logged_without_user_content(self) -> None:
        """Asyncio appends the task's repr to its message, which is cut."""
        stream = configured()

        async def fails() -> None:
            raise ValueError(WRITTEN)

        task = asyncio.create_task(fails())
        await asyncio.sleep(0)
        del task
        gc.collect()
        (event,) = events(stream)
        assert event["event"] == "Task exception was never retrieved"
        assert "in fails" in event["exception"]
        assert "meet me" not in stream.getvalue()

    async def test_connection_that_a_cancelled_task_drops_is_an_event_without_traceback(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stream = configured()

        async def cancelled(_connection: aiosqlite.Connection) -> None:
            raise asyncio.CancelledError

        engine = create_async_engine("sqlite+aiosqlite://", poolclass=AsyncAdaptedQueuePool)
        connection = await engine.raw_connection()
        monkeypatch.setattr(aiosqlite.Connection, "rollback", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await greenlet_spawn(connection.close)
        await engine.dispose()
        assert [(event["event"], event["level"]) for event in events(stream)] == [
            ("database.connection_dropped", "info")
        ]
        assert "exception" not in stream.getvalue()

    def test_redactor_masks_the_repr_of_objects(self) -> None:
        class Client:
            def __repr__(self) -> str:
                return f"Client({BOT_TOKEN})"

        stream = configured()
        structlog.get_logger().info("a.thing", client=Client(), several=[Client()], raw=BOT_TOKEN.encode())
        assert BOT_TOKEN not in stream.getvalue()
        assert events(stream)[0]["client"] == f"Client({MASK})"

    def test_redactor_masks_known_secrets_of_any_form(self) -> None:
        stream = configured(secrets=("correct horse", 'quo"te\\d', "ab"))
        structlog.get_logger().info("correct horse in the event", quoted='x quo"te\\d y', short="about")
        (event,) = events(stream)
        assert event["event"] == f"{MASK} in the event"
        assert event["quoted"] == f"x {MASK} y"
        assert event["short"] == "about"

    def test_redactor_masks_the_longest_known_secret_first(self) -> None:
        assert Redactor(("redis", "secret-1", "secret-1-long")).text("secret-1-long") == MASK

    def test_redactor_ends_on_recursive_structures(self) -> None:
        endless: dict[str, object] = {"raw": BOT_TOKEN}
        endless["again"] = endless
        stream = configured()
        structlog.get_logger().info("a.thing", endless=endless)
        assert BOT_TOKEN not in stream.getvalue()

    def test_logging_failures_do_not_print_the_record(self, capsys: pytest.CaptureFixture[str]) -> None:
        stream = configured()
        (ours,) = [handler for handler in logging.getLogger().handlers if isinstance(handler, _Handler)]
        ours.handle(logging.LogRecord("some.library", logging.ERROR, "x.py", 1, "%s %s", (BOT_TOKEN,), None))
        assert not stream.getvalue()
        assert capsys.readouterr().err == "logging failed: TypeError in some.library\n"


class TestRepeats:
    """Lines that repeat."""

    def written(self, stream: io.StringIO) -> list[dict[str, Any]]:
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    def test_a_warning_that_repeats_is_written_once(self) -> None:
        """Of our own and of a library, also from another thread; another field, or another level, is another line."""
        stream = configured()
        log = structlog.get_logger("a")
        for _ in range(3):
            log.warning("replicas.connection_lost", error="OperationalError")
            logging.getLogger("dbos").warning("Exception polling: %s\nTraceback", "refused")
        log.warning("replicas.connection_lost", error="AdminShutdown")
        log.error("replicas.connection_lost", error="OperationalError")
        assert [(entry["event"], entry.get("error")) for entry in self.written(stream)] == [
            ("replicas.connection_lost", "OperationalError"),
            ("Exception polling: refused", None),
            ("replicas.connection_lost", "AdminShutdown"),
            ("replicas.connection_lost", "OperationalError"),
        ]

    def test_news_are_all_written(self) -> None:
        stream = configured()
        for _ in range(3):
            structlog.get_logger("a").info("turn.ended", seconds=1)
        assert len(self.written(stream)) == 3

    def test_a_later_line_counts_those_that_were_dropped(self) -> None:
        now = [0.0]
        repeats = RepeatFilter(60, lambda: now[0])

        def line(msg: object) -> logging.LogRecord:
            return logging.LogRecord("a", logging.WARNING, "", 0, msg, None, None)

        assert repeats.filter(line({"event": "x", "timestamp": 1}))
        assert not repeats.filter(line({"event": "x", "timestamp": 2}))
        now[0] = 59
        assert not repeats.filter(line({"event": "x", "timestamp": 3}))
        now[0] = 60
        later = line({"event": "x", "timestamp": 4})
        assert repeats.filter(later)
        assert later.msg == {"event": "x", "timestamp": 4, "repeated": 2}
        now[0] = 120
        last = line({"event": "x", "timestamp": 5})
        assert repeats.filter(last)
        assert "repeated" not in last.msg
