"""Builders of group messages for tests."""

from datetime import UTC, datetime

from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.screening.features import extract_features
from services.moderation.text.normalise import Normal, normalise

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def message(text: str = "", *, number: int = 1, author: int = 7, group: int = -100, **changes: object) -> GroupMessage:
    """Returns a user's message."""
    values: dict[str, object] = {
        "group_id": group,
        "message_ids": (number,),
        "author": Author(author, AuthorKind.USER, "Somebody"),
        "sent_at": NOON,
        "text": text,
    }
    return GroupMessage(**{**values, **changes})


def score_input(text: str, **changes: object) -> tuple[Normal, frozenset[str]]:
    """Returns the input of the local score for a message."""
    normal = normalise(text)
    return normal, extract_features(message(text, **changes), normal)
