"""Takes in batches of updates: each is classified once, within the rates of its sender, and stored as a job.

The classification says whether the bot answers, whether moderation judges, the queue lane, and the album of a part.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog
from aiogram import Bot
from aiogram.types import Message, Update

from bot.command_table import CommandLane
from bot.telegram.api.filters import addresses_bot, asks_bot, find_command, find_thumb, is_typed
from bot.telegram.api.session import TelegramMetrics
from bot.telegram.api.updates import (
    conversation_key,
    is_group,
    is_update_id,
    message_speaker,
    parse_update,
    update_kind,
)
from bot.telegram.ingress.admission import AccessList, Admission, BanList, find_denial
from bot.telegram.ingress.album_buffer import AlbumBuffer
from bot.telegram.jobs import arrival_job, moderation_job, rejection_job, unnumbered_job
from core.clock import Clock
from core.errors import StorageError
from services.inbox.album_parts import AlbumPart
from services.inbox.job import Job, JobSink

log = structlog.get_logger()


class UpdateInbox(JobSink, Protocol):
    """Stores jobs; the inbox."""

    async def quarantine(self, job: Job, reason: str) -> None:
        """Keeps a job that could not be enqueued among the dead letters; idempotent."""
        ...


class AlbumPartStore(Protocol):
    """Stores the parts of albums."""

    async def put(self, parts: Sequence[AlbumPart]) -> None:
        """Stores parts; idempotent."""
        ...


class ModerationScope(Protocol):
    """Knows which groups are moderated."""

    async def concerns(self, update: Update) -> bool:
        """Returns whether moderation handles an update."""
        ...

    def is_entry_press(self, update: Update) -> bool:
        """Returns whether an update is a press at a group's gate, which is open to everyone."""
        ...


@dataclass(frozen=True, slots=True)
class Classified:
    """An update that leads to a job.

    Args:
        update: None if a bug prevented its classification.
        surplus_job: replaces the job if a limit refuses the update.
        is_limited: whether it counts in the rates of its sender.
    """

    job: Job
    raw: dict[str, Any]  # Any: as Telegram sent it
    update: Update | None
    surplus_job: Job | None = None
    is_limited: bool = False
    is_denial: bool = False
    """True if the job only tells a sender that the bot is not for them."""

    @property
    def message(self) -> Message | None:
        """The message of the update, if it has one."""
        return self.update.message if self.update is not None else None


class UpdateClassifier:
    """Finds the job of an update: access, relevance, moderation and queue lane.

    Args:
        bot: the bot that received the updates.
        moderation: knows which groups are moderated.
        access: the users and chats that the bot answers.
        clock: expires buffered albums.
        bans: the people and chats that operators banned.
    """

    def __init__(
        self, bot: Bot, moderation: ModerationScope, access: AccessList, clock: Clock, bans: BanList | None = None
    ) -> None:
        self._bot = bot
        self._moderation = moderation
        self._access = access
        self._bans = bans
        self.albums = AlbumBuffer(clock)
        """The parts that arrived a moment ago."""

    async def classify(self, update: Update, raw: dict[str, Any], parts: list[AlbumPart]) -> Classified | None:
        """Returns the update with its job; None for an irrelevant one, such as most messages of a group."""
        is_private = update.message is not None and not is_group(update.message)
        is_moderated = not is_private and await self._moderation.concerns(update)
        denial = find_denial(update, self._access, self._bans)
        if denial is not None and not self._moderation.is_entry_press(update):
            log.info("update.denied", update_id=update.update_id, reason=denial)
            if self._gets_denial(update):
                return Classified(rejection_job(self._bot.id, raw, denial), raw, update, is_denial=True)
            # A moderated group's messages are judged even if the bot does not answer their authors.
            judged = self._judged(update, raw, parts, is_admitted=False) if is_moderated else None
            return Classified(judged, raw, update) if judged is not None else None
        lane, is_for_bot = await self._find_lane(update)
        if is_for_bot:
            message = update.message
            if message is not None and lane is not None:
                parts += self._join_album(message, raw, is_wanted=True)
            surplus = self._judged(update, raw, parts) if is_moderated else None
            job = arrival_job(self._bot.id, raw, lane, is_moderated=is_moderated)
            return Classified(job, raw, update, surplus, is_limited=True)
        judged = self._judged(update, raw, parts) if is_moderated else None
        if judged is None and update.message is not None:
            parts += self._join_album(update.message, raw, is_wanted=False)
        return Classified(judged, raw, update) if judged is not None else None

    async def _find_lane(self, update: Update) -> tuple[str | None, bool]:
        """Returns the lane of an update, None for one of its own, and whether the update is for the bot."""
        message = update.message
        if (mention := update.guest_message) is not None:
            return f"guest:{message_speaker(mention).user_id}", True
        if (edited := update.edited_message) is not None:
            is_for_bot = edited.media_group_id is None and is_typed(edited) and await asks_bot(edited, self._bot)
            return (str(conversation_key(edited)), True) if is_for_bot else (None, False)
        if message is None:
            reaction = update.message_reaction
            is_vote = reaction is not None and find_thumb(reaction) is not None
            is_press = update.callback_query is not None or update.stopped_message_generation is not None
            return None, is_press or is_vote
        command = await find_command(message, self._bot)
        if command is not None and command.lane is CommandLane.IMMEDIATE:
            return None, True
        if command is not None or await addresses_bot(message, self._bot):
            return str(conversation_key(message)), True
        return None, False

    def _judged(
        self, update: Update, raw: dict[str, Any], parts: list[AlbumPart], *, is_admitted: bool = True
    ) -> Job | None:
        """Returns the job of a moderated update that is not for the bot."""
        if update.message is not None:
            parts += self._join_album(update.message, raw, is_wanted=True)
        return moderation_job(self._bot.id, update, raw, is_admitted=is_admitted)

    def _join_album(self, message: Message, raw: dict[str, Any], *, is_wanted: bool) -> list[AlbumPart]:
        """Returns the parts of the message's album that are to be stored now."""
        if message.media_group_id is None:
            return []
        return self.albums.join(message, json.dumps(raw), is_wanted=is_wanted)

    def _gets_denial(self, update: Update) -> bool:
        """Returns whether a denied user gets a reply: not in groups, as it would disturb others, and once per album."""
        message = update.message
        if message is None:
            return update.callback_query is not None
        return not is_group(message) and self.albums.reject_once(message)


class UpdateIngest:
    """Classifies each received update once and stores its job.

    The facts of the classification travel in the job: the worker does not classify again.

    Args:
        bot: the bot that received the updates.
        inbox: stores jobs.
        parts: stores album parts.
        classifier: finds the job of an update.
        admission: the rates of senders.
        metrics: counts the updates that are stored.
    """

    def __init__(
        self,
        *,
        bot: Bot,
        inbox: UpdateInbox,
        parts: AlbumPartStore,
        classifier: UpdateClassifier,
        admission: Admission,
        metrics: TelegramMetrics | None = None,
    ) -> None:
        self._metrics = metrics
        self._bot = bot
        self._inbox = inbox
        self._parts = parts
        self._admission = admission
        self._classifier = classifier
        self._albums = classifier.albums

    async def take(self, batch: Sequence[dict[str, Any]]) -> None:
        """Stores the jobs of a batch of raw updates; idempotent.

        An update that cannot be read, or over which a bug prevents that, is quarantined; the rest is stored.

        Raises:
            StorageError: the batch is not stored and must not be confirmed to Telegram.
        """
        try:
            await self._take(batch)
        except StorageError:
            raise
        except Exception:
            log.exception("update.batch_failed", updates=len(batch))
            for raw in batch:
                await self._take_alone(raw)
        if self._metrics is not None:
            # Now, since a batch that was not stored comes again.
            self._metrics.count_updates(map(update_kind, batch))

    async def _take_alone(self, raw: dict[str, Any]) -> None:
        """Stores an update of a batch that could not be stored as a whole, or quarantines it."""
        try:
            await self._take([raw])
        except StorageError:
            raise
        except Exception as error:
            reason = f"taking it in failed: {type(error).__name__}"
            log.exception("update.quarantined", update_id=raw.get("update_id"))
            await self._inbox.quarantine(arrival_job(self._bot.id, raw, None), reason)

    async def _take(self, batch: Sequence[dict[str, Any]]) -> None:
        parts: list[AlbumPart] = []
        classified: list[Classified] = []
        surplus = 0
        for raw in batch:
            if not is_update_id(raw.get("update_id")):
                log.error("update.unreadable", kinds=list(raw))
                await self._inbox.quarantine(unnumbered_job(self._bot.id, raw), "unreadable: no valid update_id")
                continue
            if self._admission.is_known_surplus(raw):
                surplus += 1
                continue
            update = await self._classify(raw, parts)
            if update is not None:
                classified.append(update)
        if surplus:
            log.info("update.surplus_dropped", updates=surplus)
        if parts:
            await self._parts.put(parts)
        await self._put(await self._within_limits(classified))

    async def _put(self, admitted: Sequence[Classified]) -> None:
        """Stores jobs; where a lane is full, the sender is told, once a minute."""
        refused = {job.id for job in await self._inbox.put([each.job for each in admitted])}
        excess: list[Classified] = []
        for each in admitted:
            message = each.message
            if each.job.id in refused:
                excess.append(each)
            elif message is not None and message.media_group_id is not None:
                self._albums.mark_accepted(message)
        if excess:
            log.warning("update.queue_full", updates=len(excess))
            told = await self._admission.are_told([("full", each.update) for each in excess if each.update])
            await self._inbox.put(
                [
                    rejection_job(self._bot.id, each.raw, "queue-full")
                    for each, is_told in zip((each for each in excess if each.update), told, strict=True)
                    if is_told and (each.message is None or self._albums.reject_once(each.message))
                ]
            )

    async def _within_limits(self, classified: Sequence[Classified]) -> list[Classified]:
        """Returns the updates within the rates of their senders, and replacements for the others.

        Usually that is nothing: a flood leads to one job a minute, which warns its sender.
        """
        limited = [each for each in classified if each.is_limited and each.update is not None]
        refusals = await self._admission.judge([each.update for each in limited if each.update is not None])
        refused = {each.job.id: refusal for each, refusal in zip(limited, refusals, strict=True) if refusal is not None}
        denials = [each for each in classified if each.is_denial and each.update is not None]
        told = await self._admission.are_told([("denied", each.update) for each in denials if each.update is not None])
        silent = {each.job.id for each, is_told in zip(denials, told, strict=True) if not is_told}
        if refused:
            log.warning("update.rate_limited", updates=len(refused))
        kept: list[Classified] = []
        for each in classified:
            refusal = refused.get(each.job.id)
            if refusal is None:
                if each.job.id not in silent:
                    kept.append(each)
                continue
            if refusal.is_told and (each.message is None or self._albums.reject_once(each.message)):
                warning = rejection_job(self._bot.id, each.raw, "rate-limited", refusal.renewal_s)
                if each.surplus_job is not None:
                    # Two jobs of one update.
                    warning = replace(warning, id=f"{warning.id}!")
                kept.append(Classified(warning, each.raw, None))
            if each.surplus_job is not None:
                kept.append(Classified(each.surplus_job, each.raw, each.update))
        return kept

    async def _classify(self, raw: dict[str, Any], parts: list[AlbumPart]) -> Classified | None:
        """Returns the update with its job, or None if it leads to none; adds the album parts to store to `parts`."""
        try:
            if (update := parse_update(raw, self._bot)) is not None:
                return await self._classifier.classify(update, raw, parts)
            # A later version may read it: an operator can replay it then.
            kinds = ", ".join(sorted(kind[:40] for kind in raw if kind != "update_id")[:5])
            job = arrival_job(self._bot.id, raw, None)
            await self._inbox.quarantine(job, f"unreadable: {kinds or 'no content'}")
        except StorageError:
            raise
        except Exception:
            # A bug here must neither lose this update nor keep the rest of the batch from being stored.
            log.exception("update.classification_failed", update_id=raw["update_id"])
            return Classified(arrival_job(self._bot.id, raw, None), raw, None)
        return None
