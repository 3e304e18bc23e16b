"""The work behind the doorway: what the jobs of the inbox do."""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import structlog
from aiogram import Bot, Dispatcher
from aiogram.types import Message, Update
from pydantic import ValidationError

from bot.telegram.answers.responder import Responder
from bot.telegram.api.messages import message_speaker
from bot.telegram.api.updates import is_for_bot, parse_update
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.jobs.payloads import RegenerateTurn, UpdateArrived, UpdateRejected, parse_payload
from bot.telegram.markdown.render import Rendered
from core.errors import StorageError
from core.i18n import Texts
from core.messages import Incoming
from services.chat.store.conversation import TurnStatus
from services.chat.store.turns import TurnStore
from services.inbox.job import Job
from services.llm.request import ModelChoice
from services.moderation.pipeline import ModerationOutcome

log = structlog.get_logger()


class AlbumPartSource(Protocol):
    """Where the parts of an album are."""

    async def take(self, chat_id: int, album: str, message_id: int, job_id: str) -> list[str] | None:
        """The parts of an album when it is whole; [] where another job answers them, None where they are forgotten."""
        ...


class UpdateModerator(Protocol):
    """Sees what is said in moderated groups."""

    async def concerns(self, update: Update) -> bool:
        """Whether an update is its business."""
        ...

    async def moderate(self, update: Update, album: Sequence[Message] = ()) -> ModerationOutcome:
        """Judge it, and tell whether its message is gone."""
        ...


class JobWorker:
    """Does the jobs. Each may be done again after a crash, and then leaves alone what is done.

    Args:
        bot: whose jobs.
        dispatcher: handles updates.
        delivery: the way out.
        parts: the parts of albums.
        moderation: sees the messages of moderated groups before anybody answers them.
        texts: what users are told.
    """

    def __init__(
        self,
        *,
        bot: Bot,
        dispatcher: Dispatcher,
        responder: Responder,
        delivery: Delivery,
        parts: AlbumPartSource,
        moderation: UpdateModerator,
        turns: TurnStore,
        texts: Texts,
    ) -> None:
        self._bot = bot
        self._dispatcher = dispatcher
        self._responder = responder
        self._delivery = delivery
        self._parts = parts
        self._moderation = moderation
        self._turns = turns
        self._texts = texts

    async def handle(self, job: Job) -> None:
        """Execute a job; any exception causes a retry."""
        match parse_payload(job):
            case UpdateArrived() as arrived:
                update = parse_update(arrived.update, self._bot)
                if update is not None:
                    await self._handle(arrived, update, job)
            case UpdateRejected(update=raw, reason=reason):
                update = parse_update(raw, self._bot)
                if update is not None:
                    await self._say_to_sender(update, reason)
            case RegenerateTurn() as again:
                await self._answer_again(again, job)

    async def notify_failure(self, job: Job, error: Exception | None) -> None:
        """Tell the user that a job was given up; without an error the process died in it."""
        key = "failed-storage" if isinstance(error, StorageError) else "failed-unexpected"
        try:
            payload = parse_payload(job)
        except ValidationError:
            return
        if isinstance(payload, RegenerateTurn):
            turn = await self._turns.turn(payload.turn)
            if turn is not None:
                text = self._texts.get(key, payload.speaker.language)
                place = turn.thread.key
                await self._delivery.send(
                    place.chat_id, Rendered(text), topic_id=place.topic_id or None, reply_to=payload.reply_to
                )
        elif isinstance(payload, UpdateArrived) and not payload.is_for_bot:
            # Nobody asked for anything.
            return
        elif (update := parse_update(payload.update, self._bot)) is not None:
            await self._say_to_sender(update, key)

    async def _handle(self, arrived: UpdateArrived, update: Update, job: Job) -> None:
        album: Sequence[Message] = ()
        message = update.message
        if message is not None and message.media_group_id is not None:
            album = await self._whole_album(message, job)
            if not album:
                return
        if await self._is_removed(arrived, update, album) or not arrived.is_admitted:
            return
        if album:
            update = await self._part_for_bot(update, album)
        await self._dispatcher.feed_update(self._bot, update, album=album, job=job.id)

    async def _is_removed(self, arrived: UpdateArrived, update: Update, album: Sequence[Message]) -> bool:
        """Let moderation see an update first: what it takes away nobody answers."""
        try:
            return await self._moderation.concerns(update) and (await self._moderation.moderate(update, album)).removed
        except StorageError as error:
            if not arrived.is_for_bot:
                raise
            # Whom the database keeps from judging must not keep the bot from answering.
            log.error("moderation.failed", update_id=update.update_id, error=str(error))  # noqa: TRY400 - no bug of ours
            return False

    async def _part_for_bot(self, update: Update, album: Sequence[Message]) -> Update:
        """The update of an album's part that the bot is asked with; mostly the one with the caption."""
        for part in album:
            if await is_for_bot(part, self._bot):
                return update.model_copy(update={"message": part})
        return update

    async def _whole_album(self, message: Message, job: Job) -> Sequence[Message]:
        taken = await self._parts.take(message.chat.id, message.media_group_id or "", message.message_id, job.origin)
        if taken is None:
            # Done once more after so long that the other parts are gone.
            return [message]
        parts = [parse_update(json.loads(part), self._bot) for part in taken]
        return [part.message for part in parts if part is not None and part.message is not None]

    async def _answer_again(self, again: RegenerateTurn, job: Job) -> None:
        turn = await self._turns.turn(again.turn)
        if turn is None or turn.prompt is None:
            return
        # Now that it has its turn: a second press may have come before the buttons were gone. A job that is done again
        # finds the turn that it made itself to be the latest.
        with suppress(StorageError):
            latest = await self._turns.last_turn(turn.thread.key)
            if again.only_latest and latest is not None and latest.id != turn.id and latest.origin != job.id:
                return
            if turn.status is TurnStatus.SUPERSEDED and (latest is None or latest.origin != job.id):
                return
        incoming = Incoming(
            key=turn.thread.key,
            chat_kind=again.chat_kind,
            speaker=again.speaker,
            text="",
            sent_at=turn.created_at,
            chat_title=again.chat_title,
        )
        choice = ModelChoice(again.provider) if again.provider is not None else None
        await self._responder.answer(incoming, reply_to=again.reply_to, retry_of=turn, choice=choice, origin=job.id)

    async def _say_to_sender(self, update: Update, key: str) -> None:
        """A line to who wrote or pressed."""
        message, query = update.message, update.callback_query
        if message is not None:
            await reply_to(self._delivery, message, self._texts.get(key, message_speaker(message).language))
        elif query is not None:
            text = self._texts.get(key, query.from_user.language_code)
            await self._delivery.answer_callback(query.id, text, alert=key != "not-allowed")
