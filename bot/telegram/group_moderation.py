"""Moderation's door: every message of a moderated group, and every edit, comes in here once."""

import asyncio

import structlog
from aiogram.types import Message, Update

from bot.telegram.albums import Albums
from bot.telegram.filters import SERVICE
from bot.telegram.group_messages import group_message_of
from bot.telegram.incoming import is_group
from core.clock import Clock
from services.moderation.group import Groups
from services.moderation.pipeline import Outcome, Pipeline, Stage

log = structlog.get_logger()

PASSED = Outcome(Stage.EXEMPT)


class GroupModeration:
    """Looks at the messages of moderated groups.

    Args:
        groups: which groups are moderated, and how.
        pipeline: judges.
        clock: tells when an album is whole.
    """

    def __init__(self, groups: Groups, pipeline: Pipeline, clock: Clock) -> None:
        self._groups = groups
        self._pipeline = pipeline
        self._albums = Albums(clock)
        self._flights: dict[tuple[int, str | int], asyncio.Task[Outcome]] = {}

    async def concerns(self, update: Update) -> bool:
        """Whether an update is a message of a moderated group, or tells that such a group has another id now.

        Raises:
            StorageError: the database fails.
        """
        message = update.message or update.edited_message
        if message is None or not is_group(message):
            return False
        if message.migrate_from_chat_id is not None:
            return await self._groups.get(message.migrate_from_chat_id) is not None
        settings = await self._groups.get(message.chat.id)
        return settings is not None and (settings.is_on or message.migrate_to_chat_id is not None)

    async def moderate(self, update: Update) -> Outcome:
        """Judge the message of an update and do what follows; may be repeated, here and on other replicas.

        The parts of an album are gathered and judged as one: each part's call returns when that is done.

        Raises:
            StorageError: the database fails; nothing is lost if it is tried again.
        """
        message = update.message or update.edited_message
        if message is None:
            return PASSED
        if message.migrate_to_chat_id is not None or message.migrate_from_chat_id is not None:
            await self._follow(message)
            return PASSED
        if message.content_type in SERVICE:
            return PASSED
        # An edit comes for one part alone.
        album = self._albums.join(message) if update.edited_message is None else None
        key = (message.chat.id, (album and message.media_group_id) or update.update_id)
        flight = self._flights.get(key)
        if flight is None:

            async def handled() -> Outcome:
                parts = await album.whole() if album is not None else ()
                return await self._handled(message, parts)

            flight = self._flights[key] = asyncio.create_task(handled(), name="moderate")
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        # Whoever stops waiting, at a shutdown or for another part, does not end it for the others.
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """End what is under way: whoever handed it in does so again."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _handled(self, message: Message, parts: tuple[Message, ...]) -> Outcome:
        settings = await self._groups.get(message.chat.id)
        if settings is None or not settings.is_on:
            return PASSED
        album = message.media_group_id if parts else None
        seen = group_message_of(message, parts)
        outcome = await self._pipeline.handle(seen, settings, album=album)
        log.debug(
            "moderation.handled", group_id=message.chat.id, message_id=seen.message_id,
            stage=outcome.stage.value, removed=outcome.removed, incident=outcome.incident,
        )  # fmt: skip
        return outcome

    async def _follow(self, message: Message) -> None:
        """A group became a supergroup: what its admins chose goes with it."""
        old_id = message.migrate_from_chat_id or message.chat.id
        new_id = message.migrate_to_chat_id or message.chat.id
        if await self._groups.move(old_id, new_id):
            log.info("moderation.group_moved", group_id=old_id, new_group_id=new_id)
