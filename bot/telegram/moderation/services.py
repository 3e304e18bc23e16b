"""Moderation services that the group handlers use."""

from dataclasses import dataclass

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.moderation.cards import IncidentCards
from bot.telegram.moderation.gateway import ModerationGateway
from services.moderation.actions import ModerationActions
from services.moderation.judging.consent import RemoteJudgingConsent
from services.moderation.maintenance import Maintenance
from services.moderation.records.counts import DailyCounts
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore


@dataclass(frozen=True, slots=True)
class ModerationServices:
    """One bot's moderation: what its handlers, the update ingest and the daemon use."""

    groups: GroupStore
    staff: GroupAdmins
    cards: IncidentCards
    privacy: RemoteJudgingConsent
    statistics: DailyCounts
    incidents: IncidentStore
    desk: ModerationActions
    door: ModerationGateway
    caretaker: Maintenance
