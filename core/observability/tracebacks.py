"""Tracebacks for the log: where it happened and of what kind, without what an exception's message may quote.

A parser's error shows the text that it could not parse, a validator's the value, a database's the row; and what passes
through this program is what people write to each other.
"""

import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import cast

from pydantic import ValidationError

from core.errors import ConfigurationError, StartupError, StorageError

_SPEAK_OF_CODE = (
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    TypeError,
    # Ours, made of words of ours.
    ConfigurationError,
    StartupError,
    StorageError,
)
"""Kinds of exceptions whose messages name what stands in a program, and no values."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def render(exc_info: ExcInfo) -> str:
    """The traceback of an exception and of what led to it, outermost cause first, as Python prints it."""
    return "\n".join(_lines(exc_info[1], set()))


def describe(error: BaseException) -> str:
    """An exception in a line: its kind, and its message where that quotes nothing."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    words = _words(error)
    return f"{name}: {words}" if words else name


def _words(error: BaseException) -> str:
    match error:
        case ValidationError():
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            return f"{error.title}: " + ", ".join(fault["type"] for fault in faults)
        case OSError(strerror=str(words)):
            return words
        case _ if isinstance(error, _SPEAK_OF_CODE):
            return str(error)
        case _:
            return ""


def _lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and id(cause) not in seen:
        yield from _lines(cause, seen)
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
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            if id(each) not in seen:
                yield from (f"  | {line}" for part in _lines(each, seen) for line in part.split("\n"))
