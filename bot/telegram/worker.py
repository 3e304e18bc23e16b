"""Executes inbox jobs; answers, moderation and quick jobs have places of their own, given round robin by person."""

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog
from aiogram import Bot, Dispatcher
from aiogram.exceptions import ClientDecodeError, TelegramAPIError
from aiogram.types import Message, TelegramObject, Update
from aiohttp import ClientError
from opentelemetry.trace import Tracer
from pydantic import ValidationError

from bot.telegram.answers.answer_messages import KnownMessages
from bot.telegram.answers.responder import PendingAnswer, Responder
from bot.telegram.api.filters import is_for_bot
from bot.telegram.api.updates import message_speaker, parse_update, set_language, update_kind
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import reply_to
from bot.telegram.handlers.approvals import ApprovalHandlers
from bot.telegram.handlers.schedules import ScheduledMessages
from bot.telegram.jobs import (
    CallDecided,
    JobErased,
    RegenerateTurn,
    ScheduleDue,
    UpdateArrived,
    UpdateRejected,
    parse_payload,
)
from bot.telegram.markdown.render import Rendered
from core.errors import ProviderError, StorageError, UnreadableUpdate
from core.i18n import Texts
from core.messages import Incoming
from core.redis.client import REDIS_ERRORS
from services.chat.store.conversation import TurnStatus
from services.chat.store.turns import TurnStore
from services.chat.turn import TurnRequest
from services.inbox.job import Job
from services.llm.request import ModelChoice
from services.moderation.case import ModerationOutcome
from services.preferences import Languages

log = structlog.get_logger()

OUTSIDE_FAULTS = (StorageError, ProviderError, TelegramAPIError, ClientDecodeError, ClientError, *REDIS_ERRORS)
"""Failures of the database, the providers, Telegram, Redis and the network."""


class AlbumPartSource(Protocol):
    """Hands out the stored parts of an album."""

    async def take(self, chat_id: int, album: str, message_id: int, job_id: str) -> list[str] | None:
        """Returns the parts once the album is complete; [] if another job has them, None if they have expired."""
        ...


class UpdateModerator(Protocol):
    """Moderates the messages of groups."""

    async def concerns(self, update: Update) -> bool:
        """Returns whether moderation handles an update."""
        ...

    async def moderate(self, update: Update, album: Sequence[Message] = ()) -> ModerationOutcome:
        """Judges and enforces; the outcome tells whether the message was deleted."""
        ...


class JobWorker:
    """Executes jobs. Idempotent: a job that is repeated after a crash skips the steps that are done.

    Args:
        dispatcher: routes updates to the handlers.
        responder: answers turns again.
        known: notes the newest message id of each chat.
        delivery: sends messages.
        parts: the stored parts of albums.
        moderation: sees messages of moderated groups before they are answered.
        scheduled: delivers schedules that are due.
        approvals: carries out calls that were allowed; None where no tool acts.
        turns: the stored turns.
        texts: on-screen texts.
        languages: the languages that people and groups chose.
    """

    def __init__(  # noqa: PLR0913 - the parts that kinds of jobs are handed to
        self,
        *,
        bot: Bot,
        dispatcher: Dispatcher,
        responder: Responder,
        known: KnownMessages,
        delivery: Delivery,
        parts: AlbumPartSource,
        moderation: UpdateModerator,
        scheduled: ScheduledMessages,
        turns: TurnStore,
        texts: Texts,
        languages: Languages,
        approvals: ApprovalHandlers | None = None,
    ) -> None:
        self._languages = languages
        self._approvals = approvals
        self._bot = bot
        self._dispatcher = dispatcher
        self._responder = responder
        self._known = known
        self._delivery = delivery
        self._parts = parts
        self._moderation = moderation
        self._scheduled = scheduled
        self._turns = turns
        self._texts = texts

    async def handle(self, job: Job) -> None:
        """Executes a job; for an exception the inbox retries it or gives it up, see `is_outside_fault`."""
        answer = await self._execute(job)
        if answer is not None:
            await answer.produce()

    async def _execute(self, job: Job) -> PendingAnswer | None:
        """Executes a job up to the answer of a message, which is left to the caller."""
        match parse_payload(job):
            case UpdateArrived() as arrived:
                update = self._parse(arrived.update)
                if update is None:
                    # Given up again: without that a replayed dead letter would be lost.
                    raise UnreadableUpdate("the update cannot be read")
                return await self._handle(arrived, update, job)
            case UpdateRejected(update=raw, reason=reason, renewal_s=renewal_s):
                update = self._parse(raw)
                if update is not None:
                    arguments = {"seconds": renewal_s} if renewal_s is not None else {}
                    await self._reply_to_sender(update, reason, **arguments)
            case RegenerateTurn() as request:
                await self._regenerate(request, job)
            case ScheduleDue() as due:
                await self._scheduled.deliver(due, job)
            case CallDecided() as decided if self._approvals is not None:
                await self._approvals.resume(decided, job)
            case CallDecided(call=call):
                log.warning("tool.call_dropped", call=call, reason="MCP_SERVERS is not set any more")
            case JobErased():
                log.info("job.erased")
        return None

    def is_outside_fault(self, error: Exception) -> bool:
        """Returns whether a failed job may succeed later; a bug, such as a TypeError, fails each time."""
        return isinstance(error, OUTSIDE_FAULTS)

    async def notify_failure(self, job: Job, error: Exception | None) -> None:
        """Tells the sender that a job was given up; `error` is None if the process died over it."""
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
        elif isinstance(payload, CallDecided):
            # Its message keeps no buttons; the log has the details of the call.
            log.error("tool.call_given_up", call=payload.call)
        elif isinstance(payload, ScheduleDue):
            text = self._texts.get(key, payload.speaker.language)
            await self._delivery.send(payload.chat_id, Rendered(text), topic_id=payload.topic_id or None)
        elif isinstance(payload, UpdateArrived) and not payload.is_for_bot:
            # The message was only moderated: its author expects no reply.
            return
        elif not isinstance(payload, JobErased) and (update := self._parse(payload.update)) is not None:
            await self._reply_to_sender(update, key)

    def _parse(self, raw: dict[str, Any]) -> Update | None:  # Any: as Telegram sent it
        return parse_update(set_language(raw, self._languages), self._bot)

    async def _handle(self, arrived: UpdateArrived, update: Update, job: Job) -> PendingAnswer | None:
        album: Sequence[Message] = ()
        message = update.message
        if message is not None:
            self._known.observe(message.chat.id, message.message_id)
        if message is not None and message.media_group_id is not None:
            album = await self._take_album(message, job)
            if not album:
                return None
        if await self._moderate(arrived, update, album) or not arrived.is_admitted:
            return None
        if album:
            update = await self._select_part(update, album)
        result = await self._dispatcher.feed_update(self._bot, update, album=album, job=job.id)
        return result if isinstance(result, PendingAnswer) else None

    async def _moderate(self, arrived: UpdateArrived, update: Update, album: Sequence[Message]) -> bool:
        """Moderates an update before it is answered; returns whether its message was deleted."""
        try:
            is_moderated = arrived.is_moderated
            if is_moderated is None:
                is_moderated = await self._moderation.concerns(update)
            return is_moderated and (await self._moderation.moderate(update, album)).removed
        except StorageError as error:
            if not arrived.is_for_bot:
                raise
            # A database failure that prevents moderation must not prevent the answer.
            log.error("moderation.failed", update_id=update.update_id, error=str(error))
            return False

    async def _select_part(self, update: Update, album: Sequence[Message]) -> Update:
        """Returns the update with the album's part that is for the bot, usually the one with the caption."""
        for part in album:
            if await is_for_bot(part, self._bot):
                return update.model_copy(update={"message": part})
        return update

    async def _take_album(self, message: Message, job: Job) -> Sequence[Message]:
        """Returns the parts of an album; empty if another job handles them."""
        taken = await self._parts.take(message.chat.id, message.media_group_id or "", message.message_id, job.origin)
        if taken is None:
            # The job was repeated after the other parts had expired.
            return [message]
        parts = [self._parse(json.loads(part)) for part in taken]
        return [part.message for part in parts if part is not None and part.message is not None]

    async def _regenerate(self, request: RegenerateTurn, job: Job) -> None:
        turn = await self._turns.turn(request.turn, edited=request.edited)
        if turn is None or turn.prompt is None:
            return
        # Checked now that the job runs: the button may have been pressed twice before it disappeared. A job that is
        # repeated finds the turn that it created itself as the latest.
        with suppress(StorageError):
            latest = await self._turns.last_turn(turn.thread.key)
            if request.only_latest and latest is not None and latest.id != turn.id and latest.origin != job.id:
                return
            if turn.status is TurnStatus.SUPERSEDED and (latest is None or latest.origin != job.id):
                return
        incoming = Incoming(
            key=turn.thread.key,
            chat_kind=request.chat_kind,
            speaker=request.speaker,
            text=self._texts.get("continue-prompt", request.speaker.language) if request.continues else "",
            sent_at=turn.created_at,
            chat_title=request.chat_title,
        )
        choice = ModelChoice(request.provider) if request.provider is not None else None
        retry_of = None if request.continues else turn
        again = TurnRequest(incoming, retry_of, choice, origin=job.id)
        await self._responder.answer(again, reply_to=request.reply_to)

    async def _reply_to_sender(self, update: Update, key: str, **arguments: int) -> None:
        """Sends a text to the author of a message, or answers a button press with it."""
        message, query = update.message, update.callback_query
        if message is not None:
            await reply_to(
                self._delivery, message, self._texts.get(key, message_speaker(message).language, **arguments)
            )
        elif query is not None:
            text = self._texts.get(key, query.from_user.language_code, **arguments)
            await self._delivery.answer_callback(query.id, text, alert=key not in {"not-allowed", "banned"})


class UpdateSpans:
    """Opens a span around each update: an outer middleware of the dispatcher."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[object]],
        update: TelegramObject,
        data: dict[str, Any],
    ) -> object:
        """Handles an update within a span, and produces its answer there."""
        with self._tracer.start_as_current_span("update", record_exception=False) as span:
            if isinstance(update, Update):
                span.set_attribute("telegram.update", update_kind(update.model_fields_set))
            result = await handler(update, data)
            if isinstance(result, PendingAnswer):
                await result.produce()
                return None
            return result
