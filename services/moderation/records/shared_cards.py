"""Decides which incidents share a card: those of one author, and those of one campaign.

A campaign is the same advert in variants, by any number of accounts. The first incident leads: its card shows the
others too, and a decision about it is one about all of them. Replicas agree because claims of a group are serialised.
"""

import re
from dataclasses import dataclass, replace
from threading import Lock

from cachetools import LRUCache
from sqlalchemy import ColumnElement, Connection, case, func, or_, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationGroupRow
from services.moderation.domain.incident import Incident, Tally
from services.moderation.domain.policy import Sanction
from services.moderation.records.incidents import INCIDENTS, SELECT_BY_ID, IncidentTiming, read_incident, to_incident
from services.moderation.text.normalise import normalise

MAX_LEADS = 20
"""Open cards of a group that an incident is compared with, the most recently joined ones."""
MAX_MEMBERS = 5000
SHOWN_TEXTS = 5
CACHED_CAMPAIGNS = 1000
SHORTEST_TEXT = 8
"""Letters of a text that identifies a campaign."""
FEWEST_WORDS, SHARED_WORDS = 5, 0.6
"""Texts of this many words are variants of each other if they share this part of all their words."""
_TARGET = re.compile(r"(?:https?://|tg://|www\.|(?:t|telegram)\.(?:me|dog)/)[^\s<>\"']{2,}|(?<![\w@])@[a-z]\w{3,31}")
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class Campaign:
    """The traits by which the variants of an advert are recognised.

    Args:
        letters: the text without digits, spaces and symbols.
        targets: links and user names.
    """

    letters: str
    words: frozenset[str]
    targets: frozenset[str]

    @classmethod
    def of_text(cls, text: str) -> "Campaign":
        """Returns the campaign of an advert."""
        folded = normalise(text).folded
        targets = frozenset(target.rstrip(".,;:!?)…") for target in _TARGET.findall(folded))
        return cls("".join(filter(str.isalpha, folded)), frozenset(_WORD.findall(folded)), targets)

    def is_same(self, other: "Campaign") -> bool:
        """Returns whether two adverts are of one campaign."""
        if self.letters == other.letters:
            return len(self.letters) >= SHORTEST_TEXT
        if not self.targets.isdisjoint(other.targets):
            return True
        if min(len(self.words), len(other.words)) < FEWEST_WORDS:
            return False
        return len(self.words & other.words) >= SHARED_WORDS * len(self.words | other.words)


class SharedCards:
    """The cards of all groups and their incidents. Methods raise StorageError when the database fails."""

    def __init__(self, database: Database, clock: Clock, timing: IncidentTiming | None = None) -> None:
        self._database = database
        self._clock = clock
        self._timing = timing or IncidentTiming()
        self._campaigns: LRUCache[int, Campaign] = LRUCache(CACHED_CAMPAIGNS)
        self._lock = Lock()

    async def claim(self, incident: Incident, chat_id: int) -> tuple[int, bool]:
        """Returns the id of the incident with the card for this one, and whether that was decided just now.

        Args:
            chat_id: the chat that gets the cards; a card elsewhere than there and in the group is not shared.
        """
        row, now, group_id = INCIDENTS.c, self._clock.now(), incident.finding.group_id
        group = select(ModerationGroupRow.group_id).where(ModerationGroupRow.group_id == group_id)
        recent = row.joined_at > now - self._timing.shared_card
        is_seen = or_(row.card_chat_id.is_(None), row.card_chat_id.in_((chat_id, group_id)))
        leads = select(INCIDENTS).where(recent, is_seen, *_is_open(incident))
        leads = leads.order_by(row.joined_at.desc()).limit(MAX_LEADS)

        def work(connection: Connection) -> tuple[int, bool]:
            connection.execute(group.with_for_update())
            own = connection.execute(SELECT_BY_ID, {"incident": incident.id}).one()
            if own.lead_id is not None or own.joined_at is not None:
                return own.lead_id or own.id, False
            found = () if incident.is_resolved else map(to_incident, connection.execute(leads))
            lead_id = next((lead.id for lead in found if self._belong_together(incident, lead)), None)
            if lead_id is not None:
                connection.execute(update(INCIDENTS).where(row.id == own.id).values(lead_id=lead_id))
            joined = update(INCIDENTS).where(row.id == (lead_id or own.id))
            connection.execute(joined.values(joined_at=now))
            return lead_id or own.id, True

        return await self._database.run(work)

    async def load(self, lead_id: int) -> Incident | None:
        """Returns an incident with the tally of its card."""
        row = INCIDENTS.c
        is_restricted = or_(row.sanctioned == "done", row.sanctioned.like("muted%"))
        counts = select(
            func.count(),
            func.count(row.author_id.distinct()),
            func.count(case((is_restricted, row.author_id)).distinct()),
        ).where(_is_on_card(lead_id))
        texts = select(row.text).where(row.lead_id == lead_id, row.text.is_not(None)).order_by(row.id).limit(MAX_LEADS)

        def work(connection: Connection) -> Incident | None:
            lead = read_incident(connection, lead_id)
            if lead is None:
                return None
            messages, authors, restricted = connection.execute(counts).one()
            found = connection.execute(texts).scalars().all() if messages > 1 else ()
            others = _select_distinct(lead.finding.text, [text for text in found if text])
            return replace(lead, tally=Tally(messages, authors, restricted, others))

        return await self._database.run(work, reading=True)

    async def list_members(self, lead_id: int) -> list[Incident]:
        """Returns the other incidents on an incident's card."""
        row = INCIDENTS.c
        members = select(INCIDENTS).where(row.lead_id == lead_id).order_by(row.id).limit(MAX_MEMBERS)
        return await self._database.run(
            lambda connection: [to_incident(each) for each in connection.execute(members)], reading=True
        )

    def _belong_together(self, incident: Incident, lead: Incident) -> bool:
        # Each warning counts for itself, so each is decided for itself.
        is_warning = Sanction.WARN in {incident.finding.plan.sanction, lead.finding.plan.sanction}
        if is_warning or incident.is_deleted is not lead.is_deleted:
            return False
        is_same_author = incident.finding.author.id == lead.finding.author.id
        return is_same_author or self._find_campaign(incident).is_same(self._find_campaign(lead))

    def _find_campaign(self, incident: Incident) -> Campaign:
        # Several threads of the database lane may be here at once.
        with self._lock:
            campaign = self._campaigns.get(incident.id)
            if campaign is None:
                campaign = self._campaigns[incident.id] = Campaign.of_text(incident.finding.text)
        return campaign


def _is_open(incident: Incident) -> tuple[ColumnElement[bool], ...]:
    """Returns the conditions of a lead with a card that says the same about an incident and awaits a decision."""
    row, finding = INCIDENTS.c, incident.finding
    return (
        row.group_id == finding.group_id,
        row.dry_run == finding.dry_run,
        row.deletes == finding.plan.delete,
        row.id != incident.id,
        row.lead_id.is_(None),
        row.text.is_not(None),
        row.confirmed_by.is_(None),
        row.banned_by.is_(None),
        row.undone_by.is_(None),
    )


def _is_on_card(lead_id: int) -> ColumnElement[bool]:
    row = INCIDENTS.c
    return or_(row.id == lead_id, row.lead_id == lead_id)


def _select_distinct(first: str, texts: list[str]) -> tuple[str, ...]:
    """Returns texts that differ from the first and from each other in more than spelling."""
    seen, found = {normalise(first).folded}, list[str]()
    for text in texts:
        folded = normalise(text).folded
        if folded not in seen and len(found) < SHOWN_TEXTS:
            seen.add(folded)
            found.append(text)
    return tuple(found)
