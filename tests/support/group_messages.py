"""Messages for tests, and what the parts before the judge make of them."""

from datetime import UTC, datetime

from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.screening.features import features
from services.moderation.text.normalise import Normal, normalise

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def message(text: str = "", *, number: int = 1, author: int = 7, group: int = -100, **changes: object) -> GroupMessage:
    """A message of a user."""
    values: dict[str, object] = {
        "group_id": group,
        "message_ids": (number,),
        "author": Author(author, AuthorKind.USER, "Somebody"),
        "sent_at": NOON,
        "text": text,
    }
    return GroupMessage(**{**values, **changes})


def heard(text: str, **changes: object) -> tuple[Normal, frozenset[str]]:
    """What the score reads of a message."""
    normal = normalise(text)
    return normal, features(message(text, **changes), normal)
