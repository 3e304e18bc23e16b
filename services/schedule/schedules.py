"""Stores schedules, which users create, list, pause and cancel within limits."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, cast

import structlog
from sqlalchemy import CursorResult, delete, func, select, update

from core.clock import Clock
from core.config.timezone import find_zone
from core.db.database import Database
from core.db.job_tables import ScheduleRow, UserZoneRow
from core.errors import ScheduleRefused
from core.messages import ChatKind, ConversationKey, Speaker, Surface, UserRef, user_ref
from services.schedule.phrases import parse_when
from services.schedule.times import Recurrence, When

log = structlog.get_logger()

LONGEST_TIME = 300
"""Maximum characters of the time before the text of an entry."""


@dataclass(frozen=True, slots=True)
class ScheduleLimits:
    """Limits of schedules.

    Args:
        per_user: entries of a user over all chats.
        text: characters of an entry.
        soonest: minimum time until the first due time.
        latest: maximum time until the first due time.
    """

    per_user: int = 20
    text: int = 1000
    soonest: timedelta = timedelta(minutes=1)
    latest: timedelta = timedelta(days=3 * 366)


@dataclass(frozen=True, slots=True)
class ScheduleOwner:
    """A user, and the conversation to which their entry is delivered."""

    key: ConversationKey
    speaker: Speaker
    chat_kind: ChatKind
    chat_title: str | None = None

    @property
    def user_ref(self) -> UserRef:
        """The user."""
        return user_ref(self.key.surface, self.speaker.user_id)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A reminder, or a prompt that is answered when it is due.

    Args:
        zone: name of its time zone; empty for the bot's own.
        recurrence: None for an entry that is due once.
    """

    id: int
    owner: ScheduleOwner
    zone: str
    text: str
    is_prompt: bool
    recurrence: Recurrence | None
    next_at: datetime
    is_paused: bool = False


class Schedules:
    """Stores schedules. Each method raises StorageError where the database fails.

    Args:
        zone: time zone of users who have chosen none.
    """

    def __init__(
        self, database: Database, clock: Clock, zone: tzinfo = UTC, limits: ScheduleLimits | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._zone = zone
        self._limits = limits or ScheduleLimits()

    async def add(
        self,
        owner: ScheduleOwner,
        request: str,
        *,
        is_prompt: bool,
        text: str | None = None,
        origin: str | None = None,
    ) -> Schedule:
        """Stores an entry.

        Args:
            request: the time, then the text, such as `tomorrow 09:00 call Ann`.
            text: text of the entry if the request holds only the time.
            is_prompt: whether a model answers the text when it is due.
            origin: idempotency key; a repeated call returns the entry of the first.

        Raises:
            ScheduleRefused: the time cannot be read or is out of range, the text is missing, or there are too many.
        """
        now = self._clock.now()
        zone = await self.zone_name(owner.user_ref)
        if len(request) > LONGEST_TIME + self._limits.text:
            raise ScheduleRefused("schedule-too-long", limit=self._limits.text)
        when, rest = parse_when(request, now, self.resolve_zone(zone))
        if text is not None and rest.strip(".!,;"):
            # Otherwise the beginning of the text could become a part of the time.
            raise ScheduleRefused("schedule-unreadable")
        text = self._check_text(rest if text is None else text)
        if when.first < now + self._limits.soonest:
            raise ScheduleRefused("schedule-too-soon")
        if when.first > now + self._limits.latest:
            raise ScheduleRefused("schedule-too-far")
        row = _to_row(owner, when, text, zone=zone, is_prompt=is_prompt, origin=origin, now=now)
        async with self._database.session() as session:
            if origin is not None:
                existing = await session.scalar(select(ScheduleRow).where(ScheduleRow.origin == origin))
                if existing is not None:
                    return _to_schedule(existing)
            await self._database.lock(session, f"schedules:{owner.speaker.user_id}")
            count = select(func.count()).select_from(ScheduleRow).where(ScheduleRow.user_id == owner.speaker.user_id)
            if (await session.scalar(count) or 0) >= self._limits.per_user:
                raise ScheduleRefused("schedule-too-many", limit=self._limits.per_user)
            session.add(row)
            await session.flush()
            schedule = _to_schedule(row)
        log.info("schedule.added", schedule=schedule.id, user_id=owner.speaker.user_id, rule=row.rule)
        return schedule

    async def of_user(self, user_id: int, key: ConversationKey) -> list[Schedule]:
        """Returns the entries of a user in a chat, in the order of their next times."""
        query = (
            select(ScheduleRow)
            .where(
                ScheduleRow.user_id == user_id,
                ScheduleRow.surface == key.surface,
                ScheduleRow.chat_id == key.chat_id,
            )
            .order_by(ScheduleRow.next_at, ScheduleRow.id)
        )
        async with self._database.reading() as session:
            return [_to_schedule(row) for row in await session.scalars(query)]

    async def cancel(self, schedule_id: int, user_id: int) -> bool:
        """Deletes an entry of a user. Returns whether there was one."""
        is_own = (ScheduleRow.id == schedule_id, ScheduleRow.user_id == user_id)
        async with self._database.session() as session:
            is_cancelled = (
                await session.scalar(delete(ScheduleRow).where(*is_own).returning(ScheduleRow.id))
            ) is not None
        if is_cancelled:
            log.info("schedule.cancelled", schedule=schedule_id, user_id=user_id)
        return is_cancelled

    async def set_paused(self, schedule_id: int, user_id: int, *, is_paused: bool) -> bool:
        """Pauses or resumes an entry of a user. Returns whether there was one.

        A recurring entry resumes at its next time; one that was due once, and has passed, a minute from now.
        """
        now = self._clock.now()
        async with self._database.session() as session:
            is_own = (ScheduleRow.id == schedule_id, ScheduleRow.user_id == user_id)
            row = await session.scalar(select(ScheduleRow).where(*is_own))
            if row is None:
                return False
            row.is_paused = is_paused
            if not is_paused and row.next_at <= now:
                schedule = _to_schedule(row)
                row.next_at = self._next_after(schedule, now) or now + self._limits.soonest
        return True

    async def due(self, limit: int = 100) -> list[Schedule]:
        """Returns the entries whose time has come, the oldest first."""
        query = (
            select(ScheduleRow)
            .where(ScheduleRow.is_paused.is_(False), ScheduleRow.next_at <= self._clock.now())
            .order_by(ScheduleRow.next_at, ScheduleRow.id)
            .limit(limit)
        )
        async with self._database.reading() as session:
            return [_to_schedule(row) for row in await session.scalars(query)]

    async def next_at(self) -> datetime | None:
        """Returns the next time at which an entry is due."""
        query = select(func.min(ScheduleRow.next_at)).where(ScheduleRow.is_paused.is_(False))
        async with self._database.reading() as session:
            return await session.scalar(query)

    async def advance(self, schedule: Schedule) -> None:
        """Moves an entry that was enqueued on to its next time, or deletes it. Times that have passed are left out.

        An entry that another replica has moved on, or its user has changed meanwhile, stays as it is.
        """
        unchanged = (ScheduleRow.id == schedule.id, ScheduleRow.next_at == schedule.next_at)
        next_at = self._next_after(schedule, self._clock.now())
        async with self._database.session() as session:
            if next_at is None:
                await session.execute(delete(ScheduleRow).where(*unchanged))
            else:
                await session.execute(update(ScheduleRow).where(*unchanged).values(next_at=next_at))

    async def pause_undeliverable(self, schedule_id: int) -> None:
        """Pauses an entry whose chat cannot be reached."""
        change = update(ScheduleRow).where(ScheduleRow.id == schedule_id).values(is_paused=True)
        async with self._database.session() as session:
            paused = cast("CursorResult[Any]", await session.execute(change)).rowcount  # Any: no rows are returned
        if paused:
            log.info("schedule.paused_undeliverable", schedule=schedule_id)

    async def zone_name(self, user: UserRef) -> str:
        """Returns the name of the time zone that a user chose; empty for none."""
        async with self._database.reading() as session:
            return await session.scalar(select(UserZoneRow.zone).where(UserZoneRow.user == user)) or ""

    async def set_zone(self, user: UserRef, name: str) -> None:
        """Stores the time zone of a user. Entries that exist keep theirs.

        Raises:
            ScheduleRefused: there is no such time zone.
        """
        try:
            find_zone(name)
        except ValueError:
            raise ScheduleRefused("schedule-unknown-zone", zone=name[:64]) from None
        values = {"zone": name, "updated_at": self._clock.now()}
        statement = self._database.insert(UserZoneRow).values(user=user, **values)
        async with self._database.session() as session:
            await session.execute(statement.on_conflict_do_update(index_elements=["user"], set_=values))

    def resolve_zone(self, name: str) -> tzinfo:
        """Returns the time zone of a stored name; the bot's own for an empty one, and for one that is gone."""
        try:
            return find_zone(name) if name else self._zone
        except ValueError:
            return self._zone

    def describe_time(self, instant: datetime, zone: str) -> str:
        """Returns an instant for people, such as `2026-12-01 09:00 CET`."""
        return f"{instant.astimezone(self.resolve_zone(zone)):%Y-%m-%d %H:%M %Z}".strip()

    def _next_after(self, schedule: Schedule, now: datetime) -> datetime | None:
        if schedule.recurrence is None:
            return None
        return schedule.recurrence.next_after(now, schedule.next_at, self.resolve_zone(schedule.zone))

    def _check_text(self, text: str) -> str:
        text = text.replace("\x00", "").strip()
        if not text:
            raise ScheduleRefused("schedule-no-text")
        if len(text) > self._limits.text:
            raise ScheduleRefused("schedule-too-long", limit=self._limits.text)
        return text


def _to_row(
    owner: ScheduleOwner, when: When, text: str, *, zone: str, is_prompt: bool, origin: str | None, now: datetime
) -> ScheduleRow:
    return ScheduleRow(
        surface=owner.key.surface,
        chat_id=owner.key.chat_id,
        topic_id=owner.key.topic_id,
        user_id=owner.speaker.user_id,
        user_name=owner.speaker.name,
        language=owner.speaker.language,
        chat_kind=owner.chat_kind,
        chat_title=owner.chat_title,
        zone=zone,
        text=text,
        is_prompt=is_prompt,
        rule=str(when.recurrence) if when.recurrence is not None else None,
        next_at=when.first,
        is_paused=False,
        origin=origin,
        created_at=now,
    )


def _to_schedule(row: ScheduleRow) -> Schedule:
    return Schedule(
        row.id,
        ScheduleOwner(
            ConversationKey(Surface(row.surface), row.chat_id, row.topic_id),
            Speaker(row.user_id, row.user_name, row.language),
            ChatKind(row.chat_kind),
            row.chat_title,
        ),
        row.zone,
        row.text,
        row.is_prompt,
        Recurrence.parse(row.rule) if row.rule is not None else None,
        row.next_at,
        row.is_paused,
    )
