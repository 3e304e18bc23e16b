"""Albums of groups: whose parts say nothing of themselves, until one of them turns out to be for the bot."""

from dataclasses import dataclass, field

from aiogram.types import Message

from core.clock import Clock
from services.inbox.album_parts import MAX_PARTS, AlbumPart

FORGOTTEN_AFTER_S = 30.0
"""So long after its last part an album's parts are remembered."""
ALBUMS_KEPT = 1000


@dataclass(slots=True)
class _Album:
    is_wanted: bool = False
    is_placed: bool = False
    is_refused: bool = False
    parts: dict[int, AlbumPart] = field(default_factory=dict[int, AlbumPart])
    """By their messages."""
    last_at: float = 0.0


class AlbumBuffer:
    """The albums whose parts came in lately, at this process.

    In a group mostly the part with the caption is for the bot. Those before it are remembered here, and stored with it
    when it comes; those after it are stored as they come.

    Args:
        clock: tells when an album is forgotten.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._albums: dict[tuple[int, str], _Album] = {}

    def join(self, message: Message, update: str, *, is_wanted: bool) -> list[AlbumPart]:
        """Put a part to its album; what is to be stored now.

        Args:
            message: the part.
            update: what brought it, as JSON.
            is_wanted: whether the part by itself is for the bot, or is to be judged.
        """
        if message.media_group_id is None:
            return []
        album = self._album(message)
        album.is_wanted = album.is_wanted or is_wanted
        if len(album.parts) < MAX_PARTS:
            # By its message, since a batch that could not be stored comes again.
            part = AlbumPart(message.chat.id, message.media_group_id, message.message_id, update)
            album.parts.setdefault(part.message_id, part)
        return list(album.parts.values()) if album.is_wanted else []

    def placed(self, message: Message) -> None:
        """The album of this part has its place in a lane: its other parts are answered with it."""
        self._album(message).is_placed = True

    def refused(self, message: Message) -> bool:
        """A part was turned away: whether somebody is to be told, which they are once an album."""
        if message.media_group_id is None:
            return True
        album = self._album(message)
        is_first, album.is_refused = not (album.is_refused or album.is_placed), True
        return is_first

    def _album(self, message: Message) -> _Album:
        now = self._clock.monotonic()
        self._forget(now)
        album = self._albums.setdefault((message.chat.id, message.media_group_id or ""), _Album())
        album.last_at = now
        return album

    def _forget(self, now: float) -> None:
        while self._albums:
            oldest = next(iter(self._albums))
            if len(self._albums) < ALBUMS_KEPT and now - self._albums[oldest].last_at < FORGOTTEN_AFTER_S:
                return
            del self._albums[oldest]
