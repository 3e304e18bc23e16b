"""Alerts to a group's admins about the bot itself: a missing right, an outage, a spent budget. Rate limited."""

from typing import Literal

import structlog

from core.clock import Backoff
from core.redis.notify_once import NotifyOnce
from services.moderation.domain.ports import ActionResult
from services.moderation.domain.settings import GroupSettings
from services.moderation.reporting import IncidentReporter

log = structlog.get_logger()

Right = Literal["delete", "restrict"]

DAY_S = 24 * 3600
MISSING_RIGHT = Backoff(first_s=DAY_S, longest_s=7 * DAY_S)
"""Repeated after one day, then after two and four, then weekly."""
OUTAGE = Backoff(first_s=3600, longest_s=DAY_S)
BUDGET = Backoff(first_s=20 * 3600, longest_s=20 * 3600)
"""Daily: shorter than a day, for the case that yesterday's budget lasted longer than today's."""


class AdminAlerts:
    """Sends alerts, each by one replica and with a growing pause.

    Args:
        reminders: its keys start with `<REDIS_PREFIX>:mod`.
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
