"""Reads labelled examples from JSON lines: `{"label": "spam", "text": "...", "source": "..."}`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, StringConstraints, ValidationError

from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.screening.features import extract_features, normalise_scored

STARTER = Path(__file__).parent / "data" / "starter.jsonl"
"""Written for this project, in English and Russian."""
_NO_AUTHOR = Author(0, AuthorKind.USER, "")
_EPOCH = datetime.fromtimestamp(0, UTC)


class MalformedExample(ValueError):
    """Raised for an invalid line; the message starts with its number."""


class _Line(BaseModel):
    label: Literal["spam", "ham"]
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    source: str | int | None = None
    group: str | int | None = None
    lang: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled example in the form that the score reads.

    Args:
        folded: the text, as `Normal.folded`.
        source: the group or author that it comes from; empty if unknown.
        language: of the text; empty if unknown.
    """

    is_spam: bool
    folded: str
    features: frozenset[str]
    source: str = ""
    language: str = ""


def read_examples(lines: Iterable[str]) -> Iterator[Example]:
    """Parses the lines of a file; empty ones are skipped.

    Raises:
        MalformedExample: at the first invalid line.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _parse_line(line, number)


def _parse_line(line: str, number: int) -> Example:
    try:
        found = _Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise MalformedExample(f"line {number}: {path or 'the line'}: {first['msg']}") from None
    source = found.source if found.source is not None else found.group
    return create_example(
        found.text, is_spam=found.label == "spam", source="" if source is None else str(source), language=found.lang
    )


def create_example(text: str, *, is_spam: bool, source: str = "", language: str = "") -> Example:
    """Returns an example of a text as it was posted."""
    message = GroupMessage(group_id=0, message_ids=(0,), author=_NO_AUTHOR, sent_at=_EPOCH, text=text)
    normal = normalise_scored(message)
    return Example(is_spam, normal.folded, extract_features(message, normal), source, language)
