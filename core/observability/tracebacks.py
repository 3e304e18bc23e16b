"""Renders tracebacks for the log without exception messages that may quote user data.

A parser's error quotes the text, a validator's the value, a database's the row, all of which may hold private messages.
Only messages of known harmless kinds are kept.
"""

import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import cast

from pydantic import ValidationError

from core.errors import ConfigurationError, StartupError, StorageError

_SAFE_MESSAGES = (
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    TypeError,
    # Errors of this program never quote user data.
    ConfigurationError,
    StartupError,
    StorageError,
)
"""Exceptions with messages that name identifiers of the program, never values."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def render(exc_info: ExcInfo) -> str:
    """Returns the traceback of an exception and its causes in the order and format of Python."""
    return "\n".join(_format_chain(exc_info[1], set()))


def describe(error: BaseException) -> str:
    """Returns the qualified type of an exception, with its message if that is safe."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = _safe_message(error)
    return f"{name}: {message}" if message else name


def _safe_message(error: BaseException) -> str:
    match error:
        case ValidationError():
            details = error.errors(include_url=False, include_context=False, include_input=False)
            return f"{error.title}: " + ", ".join(detail["type"] for detail in details)
        case OSError(strerror=str(message)):
            return message
        case _ if isinstance(error, _SAFE_MESSAGES):
            return str(error)
        case _:
            return ""


def _format_chain(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and id(cause) not in seen:
        yield from _format_chain(cause, seen)
        yield ""
        yield (
            "The above exception was the direct cause of the following exception:"
            if error.__cause__ is not None
            else "During handling of the above exception, another exception occurred:"
        )
        yield ""
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):"
        for entry in traceback.format_tb(error.__traceback__):
            yield entry.rstrip("\n")
    yield describe(error)
    if isinstance(error, BaseExceptionGroup):
        for member in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            if id(member) not in seen:
                yield from (f"  | {line}" for part in _format_chain(member, seen) for line in part.split("\n"))
