"""A stub of the moderation gateway for tests of ingress and the job worker."""

from collections.abc import Sequence

from aiogram.types import Message, Update

from core.errors import StorageError
from services.moderation.case import ModerationOutcome, Stage


class StubModerator:
    """Removes messages that contain "spam", in the given groups."""

    def __init__(self, *groups: int) -> None:
        self.groups = set(groups)
        self.moderated: list[tuple[int, int]] = []
        """Message id and number of album parts of each update."""
        self.is_broken = False

    def is_entry_press(self, _update: Update) -> bool:
        return False

    async def concerns(self, update: Update) -> bool:
        message = update.message or update.edited_message
        return message is not None and message.chat.id in self.groups

    async def moderate(self, update: Update, album: Sequence[Message] = ()) -> ModerationOutcome:
        if self.is_broken:
            raise StorageError("the database failed: it is locked")
        message = update.message or update.edited_message
        assert message is not None
        self.moderated.append((message.message_id, len(album)))
        texts = [part.text or part.caption or "" for part in (message, *album)]
        return ModerationOutcome(Stage.FOUND, removed=any("spam" in text for text in texts))
