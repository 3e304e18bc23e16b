"""Takes in batches of updates: each is classified once, within the rates of its sender, and stored as a job."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import structlog
from aiogram import Bot

from bot.telegram.api.session import TelegramMetrics
from bot.telegram.api.updates import is_update_id, parse_update, update_kind
from bot.telegram.ingress.admission import Admission
from bot.telegram.ingress.classification import Classified, UpdateClassifier
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
            await self._inbox.quarantine(self._classifier.arrived(raw, None, is_moderated=None), reason)

    async def _take(self, batch: Sequence[dict[str, Any]]) -> None:
        parts: list[AlbumPart] = []
        classified: list[Classified] = []
        surplus = 0
        for raw in batch:
            if not is_update_id(raw.get("update_id")):
                log.error("update.unreadable", kinds=list(raw))
                await self._inbox.quarantine(self._classifier.unnumbered(raw), "unreadable: no valid update_id")
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
                    self._classifier.rejected(each.raw, "queue-full")
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
                warning = self._classifier.rejected(each.raw, "rate-limited", refusal.renewal_s)
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
            job = self._classifier.arrived(raw, None, is_moderated=None)
            await self._inbox.quarantine(job, f"unreadable: {kinds or 'no content'}")
        except StorageError:
            raise
        except Exception:
            # A bug here must neither lose this update nor keep the rest of the batch from being stored.
            log.exception("update.classification_failed", update_id=raw["update_id"])
            return Classified(self._classifier.arrived(raw, None, is_moderated=None), raw, None)
        return None
