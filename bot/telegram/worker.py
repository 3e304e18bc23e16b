"""Executes inbox jobs: each gets a place among those of its kind, round robin by person, and its update a handler."""

import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, cast

import structlog
from aiogram import Bot, Dispatcher
from aiogram.exceptions import ClientDecodeError, TelegramAPIError
from aiogram.types import Message, Update
from aiohttp import ClientError
from opentelemetry.trace import Tracer
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from bot.telegram.answers.answer_messages import KnownMessages
from bot.telegram.answers.responder import PendingAnswer, Responder
from bot.telegram.api.filters import is_for_bot
from bot.telegram.api.updates import find_addressed_text, parse_update, set_language, update_kind
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.replies import Replies
from bot.telegram.handlers.approvals import ApprovalHandlers
from bot.telegram.handlers.retry import RegeneratedTurns
from bot.telegram.handlers.schedules import ScheduledMessages
from bot.telegram.jobs import (
    MODERATION_LANE,
    OWN_LANE,
    CallDecided,
    JobErased,
    Payload,
    RegenerateTurn,
    ScheduleDue,
    UpdateArrived,
    UpdateRejected,
)
from bot.telegram.markdown.render import Rendered
from core.errors import ProviderError, StorageError, UnreadableUpdate
from core.i18n import Texts
from core.redis.client import REDIS_ERRORS
from services.chat.store.turns import TurnStore
from services.inbox.job import Job
from services.limits.party_limits import Quota, TurnLimits, TurnPlaces
from services.moderation.case import ModerationOutcome
from services.preferences import Languages

log = structlog.get_logger()

OUTSIDE_FAULTS = (StorageError, ProviderError, TelegramAPIError, ClientDecodeError, ClientError, *REDIS_ERRORS)
"""Failures of the database, the providers, Telegram, Redis and the network."""
SIDE_LIMITS = TurnLimits(most=500, least=16)
_PAYLOAD: TypeAdapter[Payload] = TypeAdapter(
    Annotated[Payload, Field(discriminator="kind")],
    # An error that quotes its input would put users' messages into the log.
    config=ConfigDict(hide_input_in_errors=True),
)


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
        dispatcher: routes every update that is no prompt to its handler.
        responder: answers prompts.
        regenerated: answers turns again.
        known: notes the newest message id of each chat.
        delivery: sends messages.
        parts: the stored parts of albums.
        moderation: sees messages of moderated groups before they are answered.
        scheduled: delivers schedules that are due.
        approvals: carries out calls that were allowed; None where no tool acts.
        turns: the stored turns.
        texts: on-screen texts.
        languages: the languages that people and groups chose.
        tracer: opens a span around each update; None without tracing.
    """

    def __init__(  # noqa: PLR0913 - the parts that kinds of jobs are handed to
        self,
        *,
        bot: Bot,
        dispatcher: Dispatcher,
        responder: Responder,
        regenerated: RegeneratedTurns,
        known: KnownMessages,
        delivery: Delivery,
        parts: AlbumPartSource,
        moderation: UpdateModerator,
        scheduled: ScheduledMessages,
        turns: TurnStore,
        texts: Texts,
        languages: Languages,
        approvals: ApprovalHandlers | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._regenerated = regenerated
        self._languages = languages
        self._approvals = approvals
        self._bot = bot
        self._dispatcher = dispatcher
        self._responder = responder
        self._known = known
        self._delivery = delivery
        self._replies = Replies(delivery, texts)
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
                    await self._replies.answer(update, reason, **arguments)
            case RegenerateTurn() as request:
                await self._regenerated.answer(request, job)
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
            await self._replies.answer(update, key)

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
        if self._tracer is None:
            return await self._route(arrived, update, album, job)
        with self._tracer.start_as_current_span("update", record_exception=False) as span:
            span.set_attribute("telegram.update", update_kind(update.model_fields_set))
            answer = await self._route(arrived, update, album, job)
            if answer is not None:
                await answer.produce()
            return None

    async def _route(
        self, arrived: UpdateArrived, update: Update, album: Sequence[Message], job: Job
    ) -> PendingAnswer | None:
        """Routes an update. A prompt was classified when it was stored, so no filter of a handler is asked again."""
        message = update.message
        if arrived.is_prompt and message is not None and not album:
            text = await find_addressed_text(message, self._bot)
            if text is not None:
                return await self._responder.prepare(message, text, (), job.id)
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


def parse_payload(job: Job) -> Payload:
    """Returns the payload of a job.

    Raises:
        ValidationError: an incompatible version of the bot stored it.
    """
    return _PAYLOAD.validate_python(json.loads(job.payload))


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Bounds of the jobs that run at once.

    Args:
        running_per_user: answers of a person, over all chats; 0: no limit.
        exempt: users without this limit.
        group_factor: how many times as many answers run in a group.
        moderation: bounds of the jobs that only moderate.
        quick: bounds of commands about the running answer, presses and notices.
    """

    running_per_user: int = 4
    exempt: frozenset[int] = frozenset()
    group_factor: int = 5
    moderation: TurnLimits = SIDE_LIMITS
    quick: TurnLimits = SIDE_LIMITS


@dataclass(frozen=True, slots=True)
class _Sender:
    person: int
    group: int | None


class FairJobPlaces:
    """Gives each job a place among those of its kind.

    Args:
        answers: the places of answers.
        limits: bounds of the others, and quotas.
    """

    def __init__(self, answers: TurnPlaces, limits: JobLimits) -> None:
        self._answers = answers
        self._moderation = TurnPlaces(limits.moderation)
        self._quick = TurnPlaces(limits.quick)
        self._limits = limits

    def place(self, job: Job) -> AbstractAsyncContextManager[None]:
        """Holds a place for a job while the context lasts, once it is its turn."""
        sender = _find_sender(job)
        # A group is one party: its members share its turns.
        party = f"group:{sender.group}" if sender.group is not None else f"user:{sender.person}"
        if job.lane.startswith(OWN_LANE):
            # By person in groups too: the one who presses Stop must not wait behind others.
            return self._quick.place(f"user:{sender.person}")
        if job.lane.startswith(MODERATION_LANE):
            return self._moderation.place(party)
        return self._answers.place(party, self._quotas(sender))

    def close(self) -> None:
        """Cancels the jobs that wait; they are handed back."""
        for places in (self._answers, self._moderation, self._quick):
            places.close()

    def _quotas(self, sender: _Sender) -> tuple[Quota, ...]:
        limit = self._limits.running_per_user
        if not limit or sender.person in self._limits.exempt:
            return ()
        own = Quota(f"user:{sender.person}", limit)
        return (
            (own,) if sender.group is None else (own, Quota(f"group:{sender.group}", limit * self._limits.group_factor))
        )


def _find_sender(job: Job) -> _Sender:
    """Returns the sender of a job's update, as far as it can be read; the job itself checks the rest."""
    payload: object = json.loads(job.payload)
    update = _field(payload, "update")
    if (mention := _field(update, "guest_message")) is not None:
        return _Sender(_number(_field(_field(mention, "from"), "id")), None)
    query = _field(update, "callback_query")
    message = _field(query, "message") or _field(update, "message") or _field(update, "edited_message")
    entry = _field(update, "chat_member") or _field(update, "my_chat_member") or _field(update, "chat_join_request")
    reaction = _field(update, "message_reaction")
    chat = _field(message or entry or reaction or _field(update, "stopped_message_generation"), "chat")
    chat_id = _number(_field(chat, "id"))
    author = (
        _field(query, "from") or _field(message, "sender_chat") or _field(message, "from") or _field(reaction, "user")
    )
    person = _number(_field(author, "id")) or _number(_field(_field(payload, "speaker"), "user_id")) or chat_id
    return _Sender(person, chat_id if chat_id and _field(chat, "type") != "private" else None)


def _field(value: object, name: str) -> object:
    return cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None  # Any: JSON


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
