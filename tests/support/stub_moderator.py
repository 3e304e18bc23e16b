"""A moderator for the tests of what lies before and behind it."""

from collections.abc import Sequence

from aiogram.types import Message, Update

from core.errors import StorageError
from services.moderation.pipeline import ModerationOutcome, Stage


class Moderator:
    """Takes away what is called spam, in the groups that a test names."""

    def __init__(self, *groups: int) -> None:
        self.groups = set(groups)
        self.seen: list[tuple[int, int]] = []
        """The message of each update that was judged, and how many parts its album has."""
        self.is_broken = False

    async def concerns(self, update: Update) -> bool:
        message = update.message or update.edited_message
        return message is not None and message.chat.id in self.groups

    async def moderate(self, update: Update, album: Sequence[Message] = ()) -> ModerationOutcome:
        if self.is_broken:
            raise StorageError("the database failed: it is locked")
        message = update.message or update.edited_message
        assert message is not None
        self.seen.append((message.message_id, len(album)))
        words = [part.text or part.caption or "" for part in (message, *album)]
        return ModerationOutcome(Stage.FOUND, removed=any("spam" in text for text in words))
