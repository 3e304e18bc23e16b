"""Labelled examples, a JSON object a line: `{"label": "spam", "text": "...", "source": "..."}`."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, StringConstraints, ValidationError

from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.screening.features import features
from services.moderation.text.normalise import normalise

STARTER = Path(__file__).parent / "data" / "starter.jsonl"
"""Written for this project, in English and Russian."""
_NOBODY = Author(0, AuthorKind.USER, "")
_NEVER = datetime.fromtimestamp(0, UTC)
_BARE_LINK = re.compile(
    r"(?<![\w@.-])(?:[\w-]+\.)+(?:com|org|net|ru|su|рф|io|me|app|dev|info|biz|xyz|top|site|online|shop|club|pro|vip|win"
    r"|bet|live|link|cc|tv|uk|de|fr|eu|ua|by|kz|ly|gl|gd|co|ai|gg)\b(?:/[^\s<>\"']*)?",
    re.IGNORECASE,
)
"""What Telegram marks as a link by itself; an example's text has no marks."""


class MalformedExample(ValueError):
    """A line that is no example; the message begins with its number."""


class _Line(BaseModel):
    label: Literal["spam", "ham"]
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    source: str | int | None = None
    group: str | int | None = None
    lang: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One example as the score reads it.

    Args:
        is_spam: its label.
        folded: its text, as `Normal.folded`.
        features: its features.
        source: where it comes from: a group, or whoever wrote it. Empty where nobody said.
        language: of its text. Empty where nobody said.
    """

    is_spam: bool
    folded: str
    features: frozenset[str]
    source: str = ""
    language: str = ""


def read_examples(lines: Iterable[str]) -> Iterator[Example]:
    """The examples of a file; empty lines are none.

    Raises:
        MalformedExample: at the first line that is none.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _example(line, number)


def _example(line: str, number: int) -> Example:
    try:
        found = _Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise MalformedExample(f"line {number}: {where or 'the line'}: {first['msg']}") from None
    source = found.source if found.source is not None else found.group
    return example(
        found.text, is_spam=found.label == "spam", source="" if source is None else str(source), language=found.lang
    )


def example(text: str, *, is_spam: bool, source: str = "", language: str = "") -> Example:
    """An example from a text as it was written."""
    normal = normalise(text)
    links = tuple(link[0] for link in _BARE_LINK.finditer(normal.text))
    message = GroupMessage(group_id=0, message_ids=(0,), author=_NOBODY, sent_at=_NEVER, text=text, links=links)
    return Example(is_spam, normal.folded, features(message, normal), source, language)
