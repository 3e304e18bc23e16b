"""Stores incidents: recorded before any action, so that enforcement can be resumed.

A version of a message has at most one incident over all replicas (unique key). A replica enforces it under a lease;
if the replica dies, the lease expires and another one continues from the recorded progress.
"""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Row, Table, Update, bindparam, func, or_, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationIncidentRow
from services.moderation.domain.incident import Finding, Incident, Resolution, Source
from services.moderation.domain.message import Author, AuthorKind
from services.moderation.domain.policy import Plan, Sanction
from services.moderation.domain.verdict import Category

MAX_TEXT = 4000
BATCH = 50
INCIDENTS = cast("Table", ModerationIncidentRow.__table__)
SELECT_BY_ID = select(INCIDENTS).where(INCIDENTS.c.id == bindparam("incident"))


@dataclass(frozen=True, slots=True)
class IncidentTiming:
    """Periods of incidents.

    Args:
        lease: time for enforcement, flood control included; then another replica continues.
        text_retention: age at which the text, the evidence and the author's name are erased.
        shared_card: time after the latest incident on a card in which another one of its author or campaign joins it,
            and in which a member is muted once.
    """

    lease: timedelta = timedelta(seconds=60)
    text_retention: timedelta = timedelta(days=7)
    shared_card: timedelta = timedelta(minutes=10)


class IncidentStore:
    """The incidents of all groups. Methods raise StorageError when the database fails."""

    def __init__(self, database: Database, clock: Clock, timing: IncidentTiming | None = None) -> None:
        self._database = database
        self._clock = clock
        self._timing = timing or IncidentTiming()

    async def record(self, finding: Finding) -> Incident:
        """Records a finding, or returns the incident that exists for this version of the message."""
        values = _to_values(finding) | {"created_at": self._clock.now()}
        key = (
            ModerationIncidentRow.group_id == finding.group_id,
            ModerationIncidentRow.message_id == finding.message_ids[0],
            ModerationIncidentRow.version == finding.version,
        )
        insert = self._database.insert(ModerationIncidentRow)
        statement = insert.on_conflict_do_nothing(index_elements=["group_id", "message_id", "version"])

        def work(connection: Connection) -> Incident:
            connection.execute(statement, values)
            return to_incident(connection.execute(select(INCIDENTS).where(*key)).one())

        return await self._database.run(work)

    async def get(self, incident_id: int) -> Incident | None:
        """Returns an incident by id."""
        return await self._database.run(lambda connection: read_incident(connection, incident_id), reading=True)

    async def list_for_message(self, group_id: int, message_id: int) -> list[Incident]:
        """Returns the incidents of all versions of a message, newest first."""
        return await self._find(
            ModerationIncidentRow.group_id == group_id, ModerationIncidentRow.message_id == message_id
        )

    async def find_by_card(self, chat_id: int, message_id: int) -> Incident | None:
        """Returns the incident that this message is the card of."""
        row = ModerationIncidentRow
        found = await self._find(row.card_chat_id == chat_id, row.card_message_id == message_id)
        return found[0] if found else None

    async def list_undecided(self, limit: int = BATCH) -> list[Incident]:
        """Returns the newest incidents with a card of their own that no admin has decided, and whose text is there."""
        return await self._find(*self._undecided(), limit=limit)

    async def count_undecided(self, limit: int) -> int:
        """Returns the number of incidents that `list_undecided` lists, at most `limit`."""
        some = select(INCIDENTS.c.id).where(*self._undecided()).limit(limit).subquery()
        count = select(func.count()).select_from(some)
        return await self._database.run(lambda connection: connection.scalar(count) or 0, reading=True)

    async def list_decided(self, limit: int = BATCH) -> list[Incident]:
        """Returns the newest incidents that an admin has decided, and whose text is there."""
        row = ModerationIncidentRow
        is_decided = or_(row.confirmed_by.is_not(None), row.banned_by.is_not(None), row.undone_by.is_not(None))
        return await self._find(is_decided, row.lead_id.is_(None), row.text.is_not(None), limit=limit)

    async def is_muted(self, incident: Incident) -> bool:
        """Returns whether the bot has muted the author for another recent incident, and no admin has undone that."""
        finding, row, now = incident.finding, ModerationIncidentRow, self._clock.now()
        return bool(
            await self._find(
                row.group_id == finding.group_id,
                row.author_id == finding.author.id,
                row.id != incident.id,
                or_(row.sanctioned == "done", row.sanctioned.like("muted%")),
                row.until > now,
                row.undone_by.is_(None),
                row.created_at > now - self._timing.shared_card,
                limit=1,
            )
        )

    async def take(self, incident_id: int) -> Incident | None:
        """Acquires the lease of an unfinished incident; None if it is held or the incident finished."""
        now = self._clock.now()
        row = ModerationIncidentRow
        statement = (
            update(row)
            .where(
                row.id == incident_id,
                row.finished_at.is_(None),
                or_(row.lease_until.is_(None), row.lease_until < now),
            )
            .values(lease_until=now + self._timing.lease)
        )
        return await self._update(incident_id, statement)

    async def save_progress(
        self,
        incident_id: int,
        *,
        sanctioned: str | None = None,
        deleted: str | None = None,
        restriction: str | None = None,
        card: tuple[int, int] | None = None,
        finished: bool = False,
        released: bool = False,
    ) -> Incident | None:
        """Records the results so far; `released` gives the lease back, and so does `finished`."""
        values: dict[str, object] = {}
        if sanctioned is not None:
            values["sanctioned"] = sanctioned
        if deleted is not None:
            values["deleted"] = deleted
        if restriction is not None:
            values["restriction"] = restriction
        if card is not None:
            values |= {"card_chat_id": card[0], "card_message_id": card[1]}
        if finished:
            values["finished_at"] = self._clock.now()
        if finished or released:
            values["lease_until"] = None
        statement = update(ModerationIncidentRow).where(ModerationIncidentRow.id == incident_id).values(**values)
        return await self._update(incident_id, statement)

    async def resolve(self, incident_id: int, resolution: Resolution, by: str) -> Incident | None:
        """Records an admin's decision; None if it was taken before, or the incident was undone.

        Reopens the incident under a new lease until its consequences are carried out. The decision holds for all
        incidents on its card.
        """
        row = ModerationIncidentRow
        column = {
            Resolution.CONFIRM: row.confirmed_by,
            Resolution.BAN: row.banned_by,
            Resolution.UNDO: row.undone_by,
        }[resolution]
        is_open = (column.is_(None), row.undone_by.is_(None))
        lease_until = self._clock.now() + self._timing.lease
        reopened = update(row).where(row.id == incident_id, *is_open)
        resolved = await self._update(
            incident_id, reopened.values({column: by, row.finished_at: None, row.lease_until: lease_until})
        )
        if resolved is not None:
            others = update(row).where(row.lead_id == incident_id, *is_open).values({column: by})
            await self._database.run(lambda connection: connection.execute(others) and None)
        return resolved

    async def list_orphans(self) -> list[Incident]:
        """Returns unfinished incidents with a lease that has expired, or was not acquired within its length."""
        now = self._clock.now()
        row = ModerationIncidentRow
        is_orphan = or_(row.lease_until < now, row.lease_until.is_(None) & (row.created_at < now - self._timing.lease))
        return await self._find(row.finished_at.is_(None), is_orphan)

    async def list_expired(self) -> list[Incident]:
        """Returns incidents with text that is due to be erased."""
        row = ModerationIncidentRow
        return await self._find(row.text.is_not(None), row.created_at < self._clock.now() - self._timing.text_retention)

    async def erase(self, incident_id: int) -> Incident | None:
        """Erases text, evidence and author name; the rest stays for the statistics."""
        statement = (
            update(ModerationIncidentRow)
            .where(ModerationIncidentRow.id == incident_id, ModerationIncidentRow.text.is_not(None))
            .values(text=None, evidence=None, author_name="")
        )
        return await self._update(incident_id, statement)

    def _undecided(self) -> tuple[ColumnElement[bool], ...]:
        row = ModerationIncidentRow
        is_open = (row.confirmed_by.is_(None), row.banned_by.is_(None), row.undone_by.is_(None))
        # An older one has no text any more, after the next sweep at the latest; the index of this column is used.
        is_recent = row.created_at > self._clock.now() - self._timing.text_retention
        return (*is_open, row.lead_id.is_(None), row.text.is_not(None), is_recent)

    async def _find(self, *conditions: ColumnElement[bool], limit: int = BATCH) -> list[Incident]:
        newest = select(INCIDENTS).where(*conditions).order_by(INCIDENTS.c.id.desc()).limit(limit)
        return await self._database.run(
            lambda connection: [to_incident(row) for row in connection.execute(newest)], reading=True
        )

    async def _update(self, incident_id: int, statement: Update) -> Incident | None:
        def work(connection: Connection) -> Incident | None:
            return read_incident(connection, incident_id) if connection.execute(statement).rowcount else None

        return await self._database.run(work)


def _to_values(finding: Finding) -> dict[str, object]:
    return {
        "group_id": finding.group_id,
        "message_id": finding.message_ids[0],
        "version": finding.version,
        "message_ids": json.dumps(finding.message_ids),
        "topic_id": finding.topic_id,
        "author_id": finding.author.id,
        "author_kind": finding.author.kind.value,
        "author_name": finding.author.name,
        "text": finding.text[:MAX_TEXT],
        "category": finding.category.value,
        "confidence": finding.confidence,
        "evidence": finding.evidence,
        "source": finding.source.value,
        "detail": finding.detail,
        "provider": finding.provider,
        "features": json.dumps(sorted(finding.features)),
        "deletes": finding.plan.delete,
        "sanction": finding.plan.sanction.value,
        "until": finding.until,
        "dry_run": finding.dry_run,
    }


def read_incident(connection: Connection, incident_id: int) -> Incident | None:
    """Returns an incident by id; None if there is none."""
    row = connection.execute(SELECT_BY_ID, {"incident": incident_id}).one_or_none()
    return None if row is None else to_incident(row)


def to_incident(row: Row[Any]) -> Incident:
    """Returns the incident of a row."""
    ids: list[int] = json.loads(row.message_ids)
    finding = Finding(
        group_id=row.group_id,
        message_ids=tuple(ids),
        version=row.version,
        topic_id=row.topic_id,
        author=Author(row.author_id, AuthorKind(row.author_kind), row.author_name),
        text=row.text or "",
        category=Category(row.category),
        confidence=row.confidence,
        source=Source(row.source),
        plan=Plan(card=True, delete=row.deletes, sanction=Sanction(row.sanction)),
        dry_run=row.dry_run,
        detail=row.detail,
        evidence=row.evidence,
        provider=row.provider,
        features=frozenset(json.loads(row.features)),
        until=row.until,
    )
    return Incident(
        row.id,
        finding,
        row.created_at,
        sanctioned=row.sanctioned,
        deleted=row.deleted,
        card_chat_id=row.card_chat_id,
        card_message_id=row.card_message_id,
        is_finished=row.finished_at is not None,
        is_erased=row.text is None,
        confirmed_by=row.confirmed_by,
        banned_by=row.banned_by,
        undone_by=row.undone_by,
        lead_id=row.lead_id,
        restriction=row.restriction,
    )
