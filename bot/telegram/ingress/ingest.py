"""Takes in batches of updates: each is classified, within the rates of its sender, and stored as a job."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog
from aiogram import Bot
from aiogram.types import Message, Update

from bot.telegram.api.session import TelegramMetrics
from bot.telegram.api.updates import (
    is_group,
    is_update_id,
    message_speaker,
    parse_update,
    update_kind,
)
from bot.telegram.ingress.classification import Classified, UpdateClassifier, arrival_job, rejection_job, unnumbered_job
from core.clock import Clock
from core.errors import StorageError
from services.inbox.album_parts import AlbumPart
from services.inbox.job import Job, JobSink
from services.limits.party_limits import RateEvent, RateLimiter

log = structlog.get_logger()

OLDEST_S = 24 * 3600.0
"""Telegram keeps updates for a day; no message can have been waiting for longer."""


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


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Rates of admitted updates, per minute.

    Args:
        messages: messages and commands of a person, over all chats; 0: no limit of any kind.
        exempt: users without a limit.
        group_factor: how many times as many messages a group may send to the bot as one person.
        press_factor: how many times as many buttons a person may press.
    """

    messages: int = 20
    exempt: frozenset[int] = frozenset()
    group_factor: int = 5
    press_factor: int = 3


@dataclass(frozen=True, slots=True)
class AdmissionRefusal:
    """An update over a limit.

    Args:
        is_told: whether its sender is to be told, once a minute.
        renewal_s: seconds until the sender is admitted again.
    """

    is_told: bool
    renewal_s: int


@dataclass(frozen=True, slots=True)
class _Origin:
    """Origin of an update: the person, the group if it is one, and the rate in which it counts."""

    person: int
    group: int | None
    event_id: str
    at: float
    kind: str
    factor: int

    def event(self, *, of_group: bool, limits: AdmissionLimits) -> RateEvent:
        """Returns the event in the window of the person, or of the group."""
        limit = limits.messages * self.factor * (limits.group_factor if of_group else 1)
        party = f"group:{self.group}" if of_group else f"user:{self.person}"
        return RateEvent(f"{self.kind}:{party}", self.event_id, self.at, limit)

    def notice(self, kind: str, now: float, *, of_group: bool) -> RateEvent:
        """Returns the event of a notice to the person, or in the chat, of which there is one a minute."""
        party = f"chat:{self.group or self.person}" if of_group else f"user:{self.person}"
        return RateEvent(f"told:{kind}:{self.kind}:{party}", self.event_id, now, 1)


class Admission:
    """Decides which updates are over a limit, and which refusals are told.

    Args:
        rates: the windows.
        clock: dates presses.
        limits: the rates.
    """

    def __init__(self, rates: RateLimiter, clock: Clock, limits: AdmissionLimits) -> None:
        self._rates = rates
        self._clock = clock
        self._limits = limits

    def is_known_surplus(self, raw: Mapping[str, Any]) -> bool:
        """Returns whether a raw update is certainly refused and its sender has been told: a flood costs no parsing.

        Of messages only those of private chats: in a group they may have to be moderated.
        """
        message, query = raw.get("message"), raw.get("callback_query")
        now, update_id = self._clock.time(), f"{raw['update_id']:020d}"
        match message or query:
            case {"chat": {"type": "private", "id": int(person)}, "date": int(date), **fields} if message:
                at = min(max(float(date), now - OLDEST_S), now)
                album = fields.get("media_group_id")
                event_id = f"album:{album}" if album is not None else update_id
                origin = _Origin(person, None, event_id, at, "message", 1)
            case {"from": {"id": int(person)}}:
                origin = _Origin(person, None, update_id, now, "press", self._limits.press_factor)
            case _:
                return False
        if not self._limits.messages or origin.person in self._limits.exempt:
            return False
        is_told = self._rates.is_full(origin.notice("rate", now, of_group=False))
        return is_told and self._rates.is_full(origin.event(of_group=False, limits=self._limits))

    async def judge(self, updates: Sequence[Update]) -> list[AdmissionRefusal | None]:
        """Returns for each update, in order, its refusal, or None if it is admitted. Idempotent.

        A person's surplus does not count against the group.
        """
        origins = {
            index: origin
            for index, update in enumerate(updates)
            if self._limits.messages and (origin := self._origin(update)) and origin.person not in self._limits.exempt
        }
        renewals: dict[int, int] = {}
        for of_group in (False, True):
            counted = [index for index, origin in origins.items() if not of_group or origin.group is not None]
            if not counted:
                continue
            events = [origins[index].event(of_group=of_group, limits=self._limits) for index in counted]
            for index, event, is_admitted in zip(counted, events, await self._rates.admit(events), strict=True):
                if not is_admitted:
                    renewals[index] = round(self._rates.renewal_s(event.window, event.at))
                    del origins[index]
        if not renewals:
            return [None] * len(updates)
        refused = sorted(renewals)
        told = await self.are_told([("rate", updates[index]) for index in refused])
        refusals = {
            index: AdmissionRefusal(is_told=is_told, renewal_s=renewals[index])
            for index, is_told in zip(refused, told, strict=True)
        }
        return [refusals.get(index) for index in range(len(updates))]

    async def are_told(self, notices: Sequence[tuple[str, Update]]) -> list[bool]:
        """Returns for each notice, a kind and an update, whether it is sent: one a minute to a person and in a group.

        Idempotent.
        """
        now = self._clock.time()
        told = [False] * len(notices)
        left = {
            index: (kind, origin) for index, (kind, update) in enumerate(notices) if (origin := self._origin(update))
        }
        for of_group in (False, True):
            asked = list(left)
            events = [origin.notice(kind, now, of_group=of_group) for kind, origin in left.values()]
            for index, is_first in zip(asked, await self._rates.admit(events), strict=True):
                if not is_first:
                    del left[index]
        for index in left:
            told[index] = True
        return told

    def _origin(self, update: Update) -> _Origin | None:
        now, update_id = self._clock.time(), f"{update.update_id:020d}"
        match update:
            case Update(message=Message() as message):
                # The parts of an album are one message.
                album = message.media_group_id
                return _Origin(
                    person=message_speaker(message).user_id,
                    group=message.chat.id if is_group(message) else None,
                    event_id=f"album:{album}" if album is not None else update_id,
                    at=min(max(message.date.timestamp(), now - OLDEST_S), now),
                    kind="message",
                    factor=1,
                )
            case Update(guest_message=Message() as mention):
                # Keyed by the person: the bot is not in the chat.
                return _Origin(message_speaker(mention).user_id, None, update_id, now, "message", 1)
            case Update(edited_message=Message() as edited):
                group = edited.chat.id if is_group(edited) else None
                person = message_speaker(edited).user_id
                return _Origin(person, group, update_id, now, "press", self._limits.press_factor)
            case Update(callback_query=query) if query is not None:
                chat = query.message.chat if query.message is not None else None
                group = chat.id if chat is not None and chat.id != query.from_user.id else None
                return _Origin(query.from_user.id, group, update_id, now, "press", self._limits.press_factor)
            case Update(message_reaction=changed) if changed is not None and changed.user is not None:
                group = changed.chat.id if changed.chat.id != changed.user.id else None
                return _Origin(changed.user.id, group, update_id, now, "press", self._limits.press_factor)
            case Update(stopped_message_generation=stopped) if stopped is not None:
                return _Origin(stopped.chat.id, None, update_id, now, "press", self._limits.press_factor)
            case _:
                return None


class UpdateIngest:
    """Classifies each received update once and stores its job.

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
            await self._tell_full([(each, each.update) for each in excess if each.update is not None])

    async def _tell_full(self, excess: Sequence[tuple[Classified, Update]]) -> None:
        told = await self._admission.are_told([("full", update) for _, update in excess])
        await self._inbox.put(
            [
                rejection_job(self._bot.id, each.raw, "queue-full")
                for (each, _), is_told in zip(excess, told, strict=True)
                if is_told and (each.message is None or self._albums.reject_once(each.message))
            ]
        )

    async def _within_limits(self, classified: Sequence[Classified]) -> list[Classified]:
        """Returns the updates within the rates of their senders, and replacements for the others.

        Usually that is nothing: a flood leads to one job a minute, which warns its sender.
        """
        limited = {each.job.id: each.update for each in classified if each.is_limited and each.update is not None}
        refusals = await self._admission.judge(list(limited.values()))
        refused = {job_id: refusal for job_id, refusal in zip(limited, refusals, strict=True) if refusal is not None}
        if refused:
            log.warning("update.rate_limited", updates=len(refused))
        silent = await self._find_silent(classified)
        kept: list[Classified] = []
        for each in classified:
            refusal = refused.get(each.job.id)
            if refusal is not None:
                kept += self._replace(each, refusal)
            elif each.job.id not in silent:
                kept.append(each)
        return kept

    async def _find_silent(self, classified: Sequence[Classified]) -> Collection[str]:
        """Returns the ids of the denials that are not told."""
        denials = {each.job.id: each.update for each in classified if each.is_denial and each.update is not None}
        if not denials:
            return ()
        told = await self._admission.are_told([("denied", update) for update in denials.values()])
        return {job_id for job_id, is_told in zip(denials, told, strict=True) if not is_told}

    def _replace(self, refused: Classified, refusal: AdmissionRefusal) -> Iterator[Classified]:
        """Yields the warning of a sender, if they are to be told, and the job that only moderates, if there is one."""
        surplus_job = refused.surplus_job
        if refusal.is_told and (refused.message is None or self._albums.reject_once(refused.message)):
            warning = rejection_job(self._bot.id, refused.raw, "rate-limited", refusal.renewal_s)
            if surplus_job is not None:
                # Two jobs of one update.
                warning = replace(warning, id=f"{warning.id}!")
            yield Classified(warning, refused.raw, None)
        if surplus_job is not None:
            yield Classified(surplus_job, refused.raw, refused.update)

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
