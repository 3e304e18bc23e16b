"""Buffers albums of which no part was for the bot yet: usually only the part with the caption is."""

from dataclasses import dataclass, field

from aiogram.types import Message
from cachetools import TTLCache

from core.clock import Clock
from services.inbox.album_parts import MAX_PARTS, AlbumPart

ALBUM_LIFETIME_S = 30.0
"""Lifetime of an album after its last part."""
MAX_ALBUMS = 1000


@dataclass(slots=True)
class _Album:
    is_wanted: bool = False
    is_accepted: bool = False
    is_rejected: bool = False
    parts: dict[int, AlbumPart] = field(default_factory=dict[int, AlbumPart])
    """By message id."""


class AlbumBuffer:
    """Albums with parts that this process received recently.

    In a group usually only the part with the caption is for the bot. The parts before it are buffered here and stored
    together with it; those after it are stored as they arrive.
    """

    def __init__(self, clock: Clock) -> None:
        self._albums: TTLCache[tuple[int, str], _Album] = TTLCache(MAX_ALBUMS, ALBUM_LIFETIME_S, timer=clock.monotonic)

    def join(self, message: Message, update: str, *, is_wanted: bool) -> list[AlbumPart]:
        """Adds a part to its album and returns the parts that are to be stored now.

        Args:
            message: the part.
            update: the update that brought it, as JSON.
            is_wanted: whether the part by itself is for the bot, or is moderated.
        """
        if message.media_group_id is None:
            return []
        album = self._album(message)
        album.is_wanted = album.is_wanted or is_wanted
        if len(album.parts) < MAX_PARTS:
            # Keyed by message: a batch that could not be stored comes again.
            part = AlbumPart(message.chat.id, message.media_group_id, message.message_id, update)
            album.parts.setdefault(part.message_id, part)
        return list(album.parts.values()) if album.is_wanted else []

    def mark_accepted(self, message: Message) -> None:
        """Marks the album of a part as stored: its other parts are answered with it."""
        self._album(message).is_accepted = True

    def reject_once(self, message: Message) -> bool:
        """Marks the album of a part as rejected; returns whether its sender is to be notified, once per album."""
        if message.media_group_id is None:
            return True
        album = self._album(message)
        is_first, album.is_rejected = not (album.is_rejected or album.is_accepted), True
        return is_first

    def _album(self, message: Message) -> _Album:
        key = (message.chat.id, message.media_group_id or "")
        album = self._albums.get(key) or _Album()
        # Storing it again restarts its expiry.
        self._albums[key] = album
        return album
