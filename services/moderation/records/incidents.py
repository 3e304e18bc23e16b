"""Incidents: what was found, what is done about it and what a person made of it. Recorded before anything is done.

Each message, and each version of an edited one, has one incident at most over all replicas (a unique key). Whoever
carries it out holds a lease; if they die, the lease ends and somebody else goes on where the record says.
"""

import json
from datetime import timedelta

from sqlalchemy import ColumnElement, Update, or_, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.moderation_tables import ModerationIncidentRow
from services.moderation.domain.incident import Finding, Incident, Resolution, Source
from services.moderation.domain.message import Author, AuthorKind
from services.moderation.domain.policy import Plan, Sanction
from services.moderation.domain.verdict import Category

LEASE = timedelta(seconds=60)
"""How long carrying out an incident may take; flood control is waited out within it, or the next one goes on."""
READABLE = timedelta(days=7)
"""How long the text of what was found stays readable."""
ONE_CARD = timedelta(minutes=10)
"""For how long the messages of a flood share a card."""
MAX_TEXT = 4000
BATCH = 50
UNSYNCHRONISED = {"synchronize_session": False}
"""What is changed is read anew afterwards."""


class IncidentStore:
    """All incidents. Methods raise StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(self, finding: Finding) -> Incident:
        """Write down what was found, or find what is written down about this version of the message already."""
        values = _values_of(finding) | {"created_at": self._clock.now()}
        key = (
            ModerationIncidentRow.group_id == finding.group_id,
            ModerationIncidentRow.message_id == finding.message_ids[0],
            ModerationIncidentRow.version == finding.version,
        )
        statement = self._database.insert(ModerationIncidentRow).values(**values)
        async with self._database.session() as session:
            await session.execute(
                statement.on_conflict_do_nothing(index_elements=["group_id", "message_id", "version"])
            )
            return _incident_of((await session.scalars(select(ModerationIncidentRow).where(*key))).one())

    async def get(self, incident_id: int) -> Incident | None:
        """One incident."""
        async with self._database.reading() as session:
            row = await session.get(ModerationIncidentRow, incident_id)
        return None if row is None else _incident_of(row)

    async def about(self, group_id: int, message_id: int) -> list[Incident]:
        """What there is about any version of a message, newest first."""
        return await self._find(
            ModerationIncidentRow.group_id == group_id, ModerationIncidentRow.message_id == message_id
        )

    async def on_card(self, chat_id: int, message_id: int) -> Incident | None:
        """The incident whose card this message is."""
        found = await self._find(
            ModerationIncidentRow.card_chat_id == chat_id, ModerationIncidentRow.card_message_id == message_id
        )
        return found[0] if found else None

    async def recent_card(self, incident: Incident) -> tuple[int, int] | None:
        """Where the card of an incident of the same author and category stands that is minutes old."""
        finding, row = incident.finding, ModerationIncidentRow
        found = await self._find(
            row.group_id == finding.group_id,
            row.author_id == finding.author.id,
            row.category == finding.category.value,
            row.dry_run == finding.dry_run,
            row.id != incident.id,
            row.card_message_id.is_not(None),
            row.undone_by.is_(None),
            row.created_at > incident.created_at - ONE_CARD,
        )
        if not found or found[0].card_chat_id is None or found[0].card_message_id is None:
            return None
        return found[0].card_chat_id, found[0].card_message_id

    async def take(self, incident_id: int) -> Incident | None:
        """Take the lease of an incident that is not finished; None where somebody else has it, or all is done."""
        now = self._clock.now()
        row = ModerationIncidentRow
        statement = (
            update(row)
            .where(
                row.id == incident_id,
                row.finished_at.is_(None),
                or_(row.lease_until.is_(None), row.lease_until < now),
            )
            .values(lease_until=now + LEASE)
        )
        return await self._changed(incident_id, statement)

    async def note(
        self,
        incident_id: int,
        *,
        sanctioned: str | None = None,
        deleted: str | None = None,
        card: tuple[int, int] | None = None,
        finished: bool = False,
    ) -> Incident | None:
        """Write down how far an incident has come."""
        values: dict[str, object] = {}
        if sanctioned is not None:
            values["sanctioned"] = sanctioned
        if deleted is not None:
            values["deleted"] = deleted
        if card is not None:
            values |= {"card_chat_id": card[0], "card_message_id": card[1]}
        if finished:
            values |= {"finished_at": self._clock.now(), "lease_until": None}
        statement = update(ModerationIncidentRow).where(ModerationIncidentRow.id == incident_id).values(**values)
        return await self._changed(incident_id, statement)

    async def resolve(self, incident_id: int, resolution: Resolution, by: str) -> Incident | None:
        """Write down what a person made of it; None where that was done before, or it was undone.

        The incident is unfinished again until what follows is done, so that somebody does it in any case.
        """
        row = ModerationIncidentRow
        column = {
            Resolution.CONFIRM: row.confirmed_by,
            Resolution.BAN: row.banned_by,
            Resolution.UNDO: row.undone_by,
        }[resolution]
        statement = (
            update(ModerationIncidentRow)
            .where(ModerationIncidentRow.id == incident_id, column.is_(None), ModerationIncidentRow.undone_by.is_(None))
            .values({column: by, row.finished_at: None, row.lease_until: self._clock.now() + LEASE})
        )
        return await self._changed(incident_id, statement)

    async def unfinished(self) -> list[Incident]:
        """Those that somebody left unfinished: the lease has ended, or was never taken for as long."""
        now = self._clock.now()
        row = ModerationIncidentRow
        orphaned = or_(row.lease_until < now, row.lease_until.is_(None) & (row.created_at < now - LEASE))
        return await self._find(row.finished_at.is_(None), orphaned)

    async def to_erase(self) -> list[Incident]:
        """Those whose text has been readable for long enough."""
        row = ModerationIncidentRow
        return await self._find(row.text.is_not(None), row.created_at < self._clock.now() - READABLE)

    async def erase(self, incident_id: int) -> Incident | None:
        """Forget what was said; the rest stays for the statistics."""
        statement = (
            update(ModerationIncidentRow)
            .where(ModerationIncidentRow.id == incident_id, ModerationIncidentRow.text.is_not(None))
            .values(text=None, evidence=None, author_name="")
        )
        return await self._changed(incident_id, statement)

    async def _find(self, *conditions: ColumnElement[bool]) -> list[Incident]:
        statement = select(ModerationIncidentRow).where(*conditions)
        async with self._database.reading() as session:
            rows = await session.scalars(statement.order_by(ModerationIncidentRow.id.desc()).limit(BATCH))
            return [_incident_of(row) for row in rows]

    async def _changed(self, incident_id: int, statement: Update) -> Incident | None:
        async with self._database.session() as session:
            changed = statement.returning(ModerationIncidentRow.id)
            if (await session.execute(changed, execution_options=UNSYNCHRONISED)).first() is None:
                return None
            row = await session.get(ModerationIncidentRow, incident_id)
            return None if row is None else _incident_of(row)


def _values_of(finding: Finding) -> dict[str, object]:
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


def _incident_of(row: ModerationIncidentRow) -> Incident:
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
    )
