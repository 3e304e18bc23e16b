"""Reports to admins and members in the background, paced: incidents on shared cards, and alerts about the bot itself.

Deletions and sanctions never wait for a message to admins, which Telegram allows 20 times a minute in a group. An
incident is reported at least once: one that this process could not report is found by the maintenance.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

import structlog

from core.clock import Backoff, Clock
from core.errors import StorageError
from core.redis.notify_once import NotifyOnce
from services.moderation.domain.incident import Incident
from services.moderation.domain.ports import ActionResult, Cards
from services.moderation.domain.settings import GroupSettings
from services.moderation.records.counts import Counts, DailyCounts
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.shared_cards import SharedCards

log = structlog.get_logger()

SHORTEST_WAIT_S = 0.001
"""A shorter wait is a rounding error of the tokens."""
MAX_QUEUED = 10_000
"""Incidents and notices of a group that are queued; incidents beyond are left to the maintenance."""
DAY_S = 24 * 3600
MISSING_RIGHT = Backoff(first_s=DAY_S, longest_s=7 * DAY_S)
"""Repeated after one day, then after two and four, then weekly."""
OUTAGE = Backoff(first_s=3600, longest_s=DAY_S)
BUDGET = Backoff(first_s=20 * 3600, longest_s=20 * 3600)
"""Daily: shorter than a day, for the case that yesterday's budget lasted longer than today's."""


@dataclass(frozen=True, slots=True)
class ReportTiming:
    """Pace of messages to one group, in seconds: below Telegram's limit of 20 a minute, with room for answers.

    Args:
        burst: messages that are sent without a pause.
        pause_s: minimum interval between two reports.
        retry_s: delay after a failure.
    """

    burst: int = 5
    pause_s: float = 4.5
    retry_s: float = 5.0


@dataclass(slots=True)
class _Queue:
    """Reports due in one group.

    Args:
        incidents: ids of incidents to report.
        changed: ids of incidents with a card to edit.
        tokens: messages that may be sent at once, at the time `refilled_at`.
    """

    tokens: float
    refilled_at: float
    notices: deque[Callable[[], Awaitable[None]]] = field(default_factory=deque[Callable[[], Awaitable[None]]])
    incidents: dict[int, None] = field(default_factory=dict[int, None])
    changed: dict[int, None] = field(default_factory=dict[int, None])

    @property
    def is_empty(self) -> bool:
        return not (self.notices or self.incidents or self.changed)


class IncidentReporter:
    """Shows cards, and sends warnings and notices, for all groups side by side and in order within each."""

    def __init__(
        self,
        incidents: IncidentStore,
        shared: SharedCards,
        groups: GroupStore,
        cards: Cards,
        counts: DailyCounts,
        clock: Clock,
        timing: ReportTiming | None = None,
    ) -> None:
        self._incidents = incidents
        self._shared = shared
        self._groups = groups
        self._cards = cards
        self._counts = counts
        self._clock = clock
        self._timing = timing or ReportTiming()
        self._queues: dict[int, _Queue] = {}
        self._wakeup = asyncio.Event()

    def put(self, incident: Incident) -> None:
        """Queues an incident to show its card, or to bring it up to date."""
        queue = self._find_queue(incident.finding.group_id)
        if len(queue.incidents) < MAX_QUEUED:
            queue.incidents[incident.id] = None
        self._wakeup.set()

    def put_changed(self, incident: Incident) -> None:
        """Queues the edit of an incident's own card; retried until the chat accepts it."""
        self._find_queue(incident.finding.group_id).changed[incident.id] = None
        self._wakeup.set()

    def put_warning(self, incident: Incident, settings: GroupSettings, count: int) -> None:
        """Queues the reply that tells an author about warning number `count`."""
        self.put_notice(settings.group_id, lambda: self._cards.warn(incident, settings, count))

    def put_alert(self, settings: GroupSettings, key: str, **arguments: str | int) -> None:
        """Queues a notice to the admins by text key."""
        self.put_notice(settings.group_id, lambda: self._cards.alert(settings, key, **arguments))

    def put_notice(self, group_id: int, notice: Callable[[], Awaitable[None]]) -> None:
        """Queues any other message to a group or its admins."""
        queue = self._find_queue(group_id)
        if len(queue.notices) < MAX_QUEUED:
            queue.notices.append(notice)
        self._wakeup.set()

    async def run(self) -> None:
        """Reports until cancelled; each group at its own pace."""
        tasks: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                await self._wakeup.wait()
                self._wakeup.clear()
                self._forget_idle(tasks)
                for group_id, queue in list(self._queues.items()):
                    is_running = group_id in tasks and not tasks[group_id].done()
                    if not queue.is_empty and not is_running:
                        tasks[group_id] = asyncio.create_task(self._drain(group_id, queue), name="moderation reports")
                tasks = {group_id: task for group_id, task in tasks.items() if not task.done()}
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def flush(self) -> None:
        """Reports everything that is queued at this moment, without pauses."""
        for group_id, queue in list(self._queues.items()):
            while not queue.is_empty and await self._report_next(group_id, queue):
                pass

    async def _drain(self, group_id: int, queue: _Queue) -> None:
        while not queue.is_empty:
            try:
                await self._wait_for_turn(group_id, queue)
                is_reported = await self._report_next(group_id, queue)
            except StorageError as error:
                log.warning("moderation.report_failed", group_id=group_id, reason=str(error))
                is_reported = False
            except Exception:
                # One incident that cannot be shown must not end the reports of its group.
                log.exception("moderation.report_failed", group_id=group_id)
                is_reported = False
            if not is_reported:
                await self._clock.sleep(self._timing.retry_s)
        # Another incident may have come between the check and the end of this task.
        self._wakeup.set()

    async def _wait_for_turn(self, group_id: int, queue: _Queue) -> None:
        """Waits for the pace of the group, and until flood control lets its cards through."""
        timing = self._timing
        while True:
            now = self._clock.monotonic()
            queue.tokens = min(queue.tokens + (now - queue.refilled_at) / timing.pause_s, timing.burst)
            queue.refilled_at = now
            settings = await self._groups.get(group_id)
            held_s = 0.0 if settings is None else self._cards.held_s(settings)
            wait_s = max((1 - queue.tokens) * timing.pause_s, held_s)
            if wait_s <= SHORTEST_WAIT_S:
                return
            await self._clock.sleep(wait_s)

    async def _report_next(self, group_id: int, queue: _Queue) -> bool:
        """Sends or edits one message at most; returns whether anything could be done."""
        if queue.notices:
            queue.tokens -= 1
            await queue.notices.popleft()()
            return True
        settings = await self._groups.get(group_id)
        if settings is None:
            queue.incidents.clear()
            queue.changed.clear()
            return True
        while queue.incidents:
            incident_id = next(iter(queue.incidents))
            del queue.incidents[incident_id]
            if await self._report(incident_id, settings, queue):
                return True
        return await self._update_card(settings, queue)

    async def _report(self, incident_id: int, settings: GroupSettings, queue: _Queue) -> bool:
        """Reports one incident; returns whether that cost a message."""
        taken = await self._incidents.take(incident_id)
        if taken is None:
            # Reported, or another replica is about to.
            return False
        lead_id, is_new = await self._shared.claim(taken, await self._cards.locate(settings))
        if is_new:
            counts = Counts(acted=1) if taken.has_acted else Counts(carded=1)
            await self._counts.add(settings.group_id, counts)
        if lead_id != taken.id or taken.card_message_id is not None:
            queue.changed[lead_id] = None
            await self._incidents.save_progress(taken.id, finished=True)
            return False
        queue.tokens -= 1
        shown = await self._cards.show(await self._shared.load(taken.id) or taken, settings)
        card = None if shown is None else (shown.chat_id, shown.message_id)
        saved = await self._incidents.save_progress(taken.id, card=card, finished=True)
        if saved is not None and saved.is_resolved is not taken.is_resolved:
            queue.changed[taken.id] = None
        return True

    async def _update_card(self, settings: GroupSettings, queue: _Queue) -> bool:
        """Edits the first card that has changed; returns False if none could be edited yet."""
        for lead_id in list(queue.changed):
            del queue.changed[lead_id]
            lead = await self._shared.load(lead_id)
            if lead is None or (lead.card_message_id is None and lead.is_finished):
                continue
            queue.tokens -= 1
            if lead.card_message_id is not None and await self._cards.refresh(lead, settings):
                return True
            # Its card is being sent by another replica, or its chat is held by flood control.
            queue.changed[lead_id] = None
            return False
        return True

    def _find_queue(self, group_id: int) -> _Queue:
        queue = self._queues.get(group_id)
        if queue is None:
            queue = self._queues[group_id] = _Queue(float(self._timing.burst), self._clock.monotonic())
        return queue

    def _forget_idle(self, running: Collection[int]) -> None:
        """Drops empty queues once their pace no longer matters."""
        long_ago = self._clock.monotonic() - self._timing.burst * self._timing.pause_s
        for group_id, queue in list(self._queues.items()):
            if queue.is_empty and group_id not in running and queue.refilled_at < long_ago:
                del self._queues[group_id]


Right = Literal["delete", "restrict"]


class AdminAlerts:
    """Sends alerts, each by one replica and with a growing pause.

    Args:
        reminders: once-markers with keys below `<REDIS_PREFIX>:mod`.
    """

    def __init__(self, reporter: IncidentReporter, reminders: NotifyOnce) -> None:
        self._reporter = reporter
        self._reminders = reminders

    async def report_right(self, settings: GroupSettings, right: Right, result: ActionResult) -> None:
        """Alerts if an action failed for lack of a right; a successful one resets that alert."""
        name = _name(settings.group_id, right)
        if result is ActionResult.NO_RIGHT:
            log.warning("moderation.right_missing", group_id=settings.group_id, right=right)
            if await self._reminders.is_due(name, MISSING_RIGHT):
                key = "moderation-no-right-delete" if right == "delete" else "moderation-no-right-restrict"
                self._reporter.put_alert(settings, key)
        elif result is ActionResult.DONE:
            await self._reminders.forget(name)

    async def report_outage(self, settings: GroupSettings) -> None:
        """Alerts that no provider answers."""
        if await self._reminders.is_due(_name(settings.group_id, "outage"), OUTAGE):
            self._reporter.put_alert(settings, "moderation-outage")

    async def reset_outage(self, group_id: int) -> None:
        """Resets the alert: a provider answered again."""
        await self._reminders.forget(_name(group_id, "outage"))

    async def report_spent_budget(self, settings: GroupSettings) -> None:
        """Alerts that the day's judgements are used up."""
        if await self._reminders.is_due(_name(settings.group_id, "budget"), BUDGET):
            self._reporter.put_alert(settings, "moderation-budget-spent", budget=settings.budget)


def _name(group_id: int, alert: str) -> str:
    return f"{{{group_id}}}:told:{alert}"
