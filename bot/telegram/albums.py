"""Albums: pictures or files that a person sent as one message and that Telegram hands over one by one."""

from aiogram.types import Message

from core.clock import Clock

LAST_PART_S = 1.0
"""Nothing tells which part is the last: an album is whole when none has come for so long."""
MOST_PARTS = 10
"""What Telegram lets people put into one album."""


class Album:
    """The parts that have come so far.

    Args:
        clock: tells when the last part has come.
    """

    def __init__(self, clock: Clock) -> None:
        self.is_placed = False
        """Whether one of its parts is in a lane already, or was turned away: the others go with it."""
        self._clock = clock
        self._parts: list[Message] = []
        self._whole_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether more parts are expected."""
        return self._clock.monotonic() < self._whole_at

    def add(self, part: Message) -> None:
        """A part has come."""
        self._parts.append(part)
        is_full = len(self._parts) == MOST_PARTS
        self._whole_at = self._clock.monotonic() + (0.0 if is_full else LAST_PART_S)

    async def whole(self) -> tuple[Message, ...]:
        """Every part, when the last one has come."""
        while self.is_open:
            await self._clock.sleep(self._whole_at - self._clock.monotonic())
        return tuple(self._parts)


class Albums:
    """The albums whose parts are coming in; those of the last second, so there are never many."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[tuple[int, str], Album] = {}

    def join(self, message: Message) -> Album | None:
        """Put a message into its album, and tell which that is; None for a message that stands by itself."""
        if message.media_group_id is None:
            return None
        self._open = {key: album for key, album in self._open.items() if album.is_open}
        album = self._open.setdefault((message.chat.id, message.media_group_id), Album(self._clock))
        album.add(message)
        return album
