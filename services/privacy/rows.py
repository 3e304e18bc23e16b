"""Deletes personal rows: those of a person, in one transaction, and those that are older than RETENTION_DAYS."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import structlog
from sqlalchemy import ColumnElement, Connection, Table, and_, delete, or_, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.job_tables import AlbumPartRow, DeadLetterRow
from core.db.moderation_tables import ModerationIncidentRow, ModerationNewcomerRow, ModerationPendingRow
from core.db.operator_tables import AuditRow
from core.db.tables import AttachmentRow, Base, NoteRow, ThreadMemoryRow, ThreadRow, TurnRow
from core.db.usage_tables import UsageDayRow
from core.errors import StorageError
from core.messages import Surface
from services.privacy.redaction import ERASED_PAYLOAD, NameErasure, erase_json, speaker_name
from services.privacy.registry import ANYONE, TABLES, Changed, Deleted, Person

OF_EVERY_SURFACE = frozenset(
    {"threads", "notes", "preferences", "languages", "schedules", "user_zones", "usage_requests", "budget_limits"}
)
"""Tables whose rows name the surface; the others name people of Telegram."""
log = structlog.get_logger()
SWEEP_S = 24 * 3600.0
BATCH = 500
"""Turns deleted per transaction, so that answers do not wait for a long one."""


def erase_rows(connection: Connection, database: Database, person: Person) -> None:
    """Erases a person from every table, in one transaction."""
    # Before the private chat is deleted: conversations of groups are found by the author of their turns.
    names = _erase_from_groups(connection, person)
    is_telegram = person.surface is Surface.TELEGRAM
    _apply(connection, person, [table for table in TABLES if is_telegram or table in OF_EVERY_SURFACE])
    _anonymise_usage(connection, database, person)
    if is_telegram:
        _erase_reviewers(connection, person)
        _rename_newcomer(connection, person)
        _erase_pending(connection, person)
        _erase_stored_updates(connection, person)
        _erase_audit(connection, person, names)


def erase_late_rows(connection: Connection, database: Database, person: Person) -> None:
    """Erases rows that other work wrote after the first pass."""
    _apply(connection, person, ["usage_requests", *(["said"] if person.surface is Surface.TELEGRAM else [])])
    _anonymise_usage(connection, database, person)


def _apply(connection: Connection, person: Person, tables: Sequence[str]) -> None:
    """Carries out the rules of tables that delete or change rows."""
    for table in tables:
        for rule in TABLES[table]:
            if isinstance(rule, Deleted):
                connection.execute(delete(_table(table)).where(rule.where(person)))
            elif isinstance(rule, Changed):
                connection.execute(update(_table(table)).where(rule.where(person)).values(rule.values(person)))


def _table(name: str) -> Table:
    return Base.metadata.tables[name]


def _erase_from_groups(connection: Connection, person: Person) -> NameErasure:
    """Takes the name, the files and the data of tools out of the conversations of groups."""
    in_group = and_(ThreadRow.surface == person.surface, ThreadRow.chat_id != person.user_id)
    own = select(TurnRow.id, TurnRow.thread_id, TurnRow.prompt).join(ThreadRow, ThreadRow.id == TurnRow.thread_id)
    spoken = connection.execute(own.where(in_group, TurnRow.speaker_id == person.user_id)).all()
    names = NameErasure([*person.names, *(speaker_name(row.prompt) for row in spoken)])
    threads = {row.thread_id for row in spoken}
    # As `frame` in services/chat/prompts.py writes it.
    mentions = [TurnRow.prompt.contains(f"message of {name}:]", autoescape=True) for name in names.whole]
    turns = select(
        TurnRow.id, TurnRow.thread_id, TurnRow.speaker_id, TurnRow.prompt, TurnRow.messages, ThreadRow.chat_id
    ).join(ThreadRow, ThreadRow.id == TurnRow.thread_id)
    named = turns.where(in_group, or_(TurnRow.thread_id.in_(threads), *mentions))
    for row in connection.execute(named).all():
        is_own = row.speaker_id == person.user_id
        values: dict[str, Any] = {  # Any: values of several columns
            "prompt": names.in_transcript(row.prompt, is_own=is_own),
            "messages": names.in_transcript(row.messages, is_own=is_own) if row.messages else None,
            # The answered turn holds the text before the edit and after it.
            "edited_prompt": None,
        }
        if is_own:
            # The group becomes the author, as for messages sent in its name.
            values["speaker_id"] = row.chat_id
            connection.execute(delete(AttachmentRow).where(AttachmentRow.turn_id == row.id))
        connection.execute(update(TurnRow).where(TurnRow.id == row.id).values(values))
        threads.add(row.thread_id)
    for thread_id, name, summary in connection.execute(
        select(ThreadRow.id, ThreadRow.name, ThreadMemoryRow.summary)
        .outerjoin(ThreadMemoryRow, ThreadMemoryRow.thread_id == ThreadRow.id)
        .where(ThreadRow.id.in_(threads))
    ).all():
        if name is not None:
            connection.execute(update(ThreadRow).where(ThreadRow.id == thread_id).values(name=names.in_text(name)))
        if summary is not None:
            of_thread = ThreadMemoryRow.thread_id == thread_id
            connection.execute(update(ThreadMemoryRow).where(of_thread).values(summary=names.in_text(summary)))
    return names


def _anonymise_usage(connection: Connection, database: Database, person: Person) -> None:
    """Adds the sums of a person to the anonymous ones of the same day, so that the operator's totals stay correct."""
    row = UsageDayRow
    theirs = or_(row.speaker == person.user, row.chat == person.chat)
    table = _table("usage_days")
    found = connection.execute(select(table).where(theirs)).mappings().all()
    if not found:
        return
    keys = [column.name for column in table.primary_key.columns]
    connection.execute(delete(row).where(theirs))
    for each in found:
        values = dict(each)
        values["speaker"] = "" if values["speaker"] == person.user else values["speaker"]
        values["chat"] = "" if values["chat"] == person.chat else values["chat"]
        insert = database.insert(row).values(values)
        sums: dict[str, ColumnElement[int]] = {
            name: table.c[name] + insert.excluded[name] for name in values if name not in keys
        }
        connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=sums))


def _erase_reviewers(connection: Connection, person: Person) -> None:
    row = ModerationIncidentRow
    for column in (row.confirmed_by, row.banned_by, row.undone_by, row.detail):
        connection.execute(update(row).where(column.in_(person.names)).values({column: ANYONE}))


def _rename_newcomer(connection: Connection, person: Person) -> None:
    row = ModerationNewcomerRow
    of_alias = row.member_id == person.alias
    groups = select(row.group_id).where(row.member_id == person.user_id).scalar_subquery()
    connection.execute(delete(row).where(of_alias, row.group_id.in_(groups)))
    connection.execute(update(row).where(row.member_id == person.user_id).values(member_id=person.alias))


def _erase_pending(connection: Connection, person: Person) -> None:
    """Takes the name out of messages that wait for a verdict; the number stays, as it may have to be carried out."""
    row = ModerationPendingRow
    keys = (row.group_id, row.message_id, row.version)
    theirs = select(*keys, row.payload).where(row.payload.contains(str(person.user_id)))
    for group_id, message_id, version, payload in connection.execute(theirs).all():
        message = cast("dict[str, Any]", json.loads(payload))  # Any: JSON
        author = message.get("author")
        if isinstance(author, dict) and author.get("id") == person.user_id:
            author["name"] = ANYONE
            own = (row.group_id == group_id, row.message_id == message_id, row.version == version)
            connection.execute(update(row).where(*own).values(payload=json.dumps(message)))


def _erase_stored_updates(connection: Connection, person: Person) -> None:
    needle = str(person.user_id)
    parts = select(AlbumPartRow.chat_id, AlbumPartRow.album, AlbumPartRow.message_id, AlbumPartRow.update)
    for chat_id, album, message_id, stored in connection.execute(
        parts.where(AlbumPartRow.update.contains(needle))
    ).all():
        erased = erase_json(stored, person)
        own = and_(AlbumPartRow.chat_id == chat_id, AlbumPartRow.album == album, AlbumPartRow.message_id == message_id)
        if erased == ERASED_PAYLOAD:
            connection.execute(delete(AlbumPartRow).where(own))
        elif erased is not None:
            connection.execute(update(AlbumPartRow).where(own).values(update=erased))
    letters = select(DeadLetterRow.id, DeadLetterRow.payload)
    for letter_id, stored in connection.execute(letters.where(DeadLetterRow.payload.contains(needle))).all():
        erased = erase_json(stored, person)
        own = DeadLetterRow.id == letter_id
        if erased == ERASED_PAYLOAD:
            connection.execute(delete(DeadLetterRow).where(own))
        elif erased is not None:
            connection.execute(update(DeadLetterRow).where(own).values(payload=erased))


def _erase_audit(connection: Connection, person: Person, names: NameErasure) -> None:
    row, number = AuditRow, re.compile(rf"(?<![\w-]){person.user_id}(?!\w)")
    connection.execute(update(row).where(row.actor_id == person.user_id).values(actor_id=person.alias))
    needles = [str(person.user_id), *names.whole]
    texts = [column.contains(needle, autoescape=True) for needle in needles for column in (row.target, row.detail)]

    def clean(text: str | None) -> str | None:
        return None if text is None else names.in_text(number.sub(str(person.alias), text), is_own=False)

    for each in connection.execute(select(row.id, row.target, row.detail).where(or_(*texts))).all():
        values = {"target": clean(each.target), "detail": clean(each.detail)}
        connection.execute(update(row).where(row.id == each.id).values(values))


class RetentionSweep:
    """Deletes expired conversations and notes.

    Args:
        days: age of a turn or a note at which it is deleted; None keeps everything.
        sweep_s: pause between two sweeps.
    """

    def __init__(self, database: Database, clock: Clock, days: int | None, sweep_s: float = SWEEP_S) -> None:
        self._database = database
        self._clock = clock
        self._days = days
        self._sweep_s = sweep_s

    async def run(self) -> None:
        """Sweeps until cancelled; returns at once where everything is kept."""
        while self._days is not None:
            try:
                if turns := await self.sweep():
                    log.info("retention.swept", turns=turns)
            except StorageError as error:
                log.warning("retention.sweep_failed", error=str(error))
            await self._clock.sleep(self._sweep_s)

    async def sweep(self) -> int:
        """Deletes old turns with their files, old summaries and notes, and empty threads. Returns the number of turns.

        Raises:
            StorageError: the database fails.
        """
        if self._days is None:
            return 0
        before = self._clock.now() - timedelta(days=self._days)
        old_turns = select(TurnRow.id).where(TurnRow.created_at < before).limit(BATCH)

        def delete_turns(connection: Connection) -> int:
            ids = list(connection.scalars(old_turns))
            connection.execute(delete(TurnRow).where(TurnRow.id.in_(ids)))
            return len(ids)

        def delete_rest(connection: Connection) -> None:
            # A summary contains older messages.
            connection.execute(delete(ThreadMemoryRow).where(ThreadMemoryRow.updated_at < before))
            connection.execute(delete(NoteRow).where(NoteRow.created_at < before))
            is_empty: ColumnElement[bool] = ~select(TurnRow.id).where(TurnRow.thread_id == ThreadRow.id).exists()
            connection.execute(delete(ThreadRow).where(is_empty, ThreadRow.created_at < before))

        turns = 0
        while deleted := await self._database.run(delete_turns):
            turns += deleted
        await self._database.run(delete_rest)
        return turns
