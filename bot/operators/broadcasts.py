"""`/broadcast`: words broadcasts and their progress in the operator's language."""

from datetime import tzinfo

from core.i18n import Texts
from core.shortening import shorten_line
from services.admin.broadcasts import Broadcast, Broadcasts, BroadcastState

SHOWN = 5
EXCERPT = 60
"""Characters shown of a message in lists."""
MAX_UNITS = 4096
"""Telegram's limit of a message, in UTF-16 code units."""


class BroadcastReports:
    """Texts of `/broadcast`.

    Args:
        zone: time zone of displayed times.
    """

    def __init__(self, broadcasts: Broadcasts, texts: Texts, zone: tzinfo) -> None:
        self._broadcasts = broadcasts
        self._texts = texts
        self._zone = zone

    async def overview(self, language: str | None) -> str:
        """Returns the newest broadcasts, and the syntax of the command.

        Raises:
            StorageError: the database fails.
        """
        lines = [
            f"{each.created_at.astimezone(self._zone):%Y-%m-%d %H:%M}, {excerpt(each.text)}\n"
            f"{self.progress(each, language)}"
            for each in await self._broadcasts.newest(SHOWN)
        ]
        return "\n\n".join([*lines, self._texts.get("broadcast-usage", language)])

    def progress(self, broadcast: Broadcast, language: str | None) -> str:
        """Returns the state and progress of a broadcast."""
        if broadcast.state is BroadcastState.DRAFT:
            return self._texts.get("broadcast-draft", language, total=broadcast.total)
        key = f"broadcast-{broadcast.state.value}"
        return self._texts.get(
            key, language, sent=broadcast.sent, blocked=broadcast.blocked,
            failed=broadcast.failed, served=broadcast.served, total=max(broadcast.total, broadcast.served),
        )  # fmt: skip


def is_too_long(text: str) -> bool:
    """Returns whether Telegram refuses a text for its length."""
    return len(text.encode("utf-16-le", errors="replace")) > 2 * MAX_UNITS


def excerpt(text: str) -> str:
    """Returns the beginning of a text in one line."""
    return f"“{shorten_line(text, EXCERPT)}”"
