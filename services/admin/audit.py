"""Audit log of operator acts, kept permanently."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import structlog
from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, not_, or_, select

from core.clock import Clock
from core.db.database import Database
from core.db.operator_tables import AuditRow
from core.db.tables import storable
from core.errors import StorageError
from core.shortening import shorten

log = structlog.get_logger()

MAX_DETAIL = 1000
"""Characters of a detail in words, and of each value of another one; longer ones are cut."""
_KEY = "detail"
_STORED = TypeAdapter(dict[str, str | int | float | None])


class AuditKind(StrEnum):
    """A group of acts that are shown together."""

    PROVIDERS = "providers"
    MODERATION = "moderation"
    SETTINGS = "settings"
    OPERATION = "operation"
    """Every other act: bans, broadcasts, dead letters, sign-ins."""


_PREFIXES = {
    AuditKind.PROVIDERS: ("provider.",),
    AuditKind.MODERATION: ("moderation.",),
    AuditKind.SETTINGS: ("config.", "budget.", "token."),
}


@dataclass(frozen=True, slots=True)
class AuditDetail:
    """The change that an act made to its target, for surfaces to word in their reader's language.

    Args:
        key: names the kind of detail, and with it the text.
        values: what the text names; None for the absence of something, such as a forced provider.
    """

    key: str
    values: Mapping[str, str | float | None]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act: `actor_id` did `action` (`provider.force`) to `target`.

    Args:
        detail: a string where it is in words already: those of an operator or of an error, and of older entries.
    """

    at: datetime
    actor_id: int
    action: str
    target: str | None
    detail: AuditDetail | str | None
    id: int = field(default=0, compare=False)
    """Its number, which grows with each entry."""


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A page of the log, newest entries first.

    Args:
        newer: entries after this id are on newer pages; None on the newest page.
        older: entries before this id are on older pages; None on the oldest page.
    """

    entries: Sequence[AuditEntry]
    newer: int | None
    older: int | None


class Audit:
    """Appends and reads entries; they never change. Methods raise StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(
        self, actor_id: int, action: str, target: str | None = None, detail: AuditDetail | str | None = None
    ) -> int:
        """Appends an entry and returns its id. The detail must not contain secrets."""
        stored = encode_detail(detail)
        row = AuditRow(at=self._clock.now(), actor_id=actor_id, action=action, target=target, detail=stored)
        async with self._database.session() as session:
            session.add(row)
            await session.flush()
            return row.id

    async def try_record(
        self, actor_id: int, action: str, target: str | None = None, detail: AuditDetail | str | None = None
    ) -> int | None:
        """Appends an entry about an act that stands either way; returns its id, and None if the database fails."""
        try:
            return await self.record(actor_id, action, target, detail)
        except StorageError as error:
            log.error("audit.not_recorded", action=action, target=target, error=str(error))
            return None

    async def recent(self, limit: int = 20) -> list[AuditEntry]:
        """Returns the newest entries, newest first."""
        return await self._read([], limit)

    async def page(
        self, kind: AuditKind | None = None, *, before: int | None = None, after: int | None = None, limit: int = 10
    ) -> AuditPage:
        """Returns a page of the entries of a kind, or of all kinds.

        Args:
            before: the page of the newest entries before this id.
            after: the page of the oldest entries after this id.
        """
        wanted = _of_kind(kind)
        if after is not None:
            found = await self._read([*wanted, AuditRow.id > after], limit + 1, ascending=True)
            entries = found[:limit][::-1]
            has_newer, has_older = len(found) > limit, True
        else:
            bounds = [AuditRow.id < before] if before is not None else []
            found = await self._read([*wanted, *bounds], limit + 1)
            entries = found[:limit]
            has_newer, has_older = before is not None, len(found) > limit
        if not entries:
            return AuditPage((), None, None)
        return AuditPage(entries, entries[0].id if has_newer else None, entries[-1].id if has_older else None)

    async def _read(
        self, where: Sequence[ColumnElement[bool]], limit: int, *, ascending: bool = False
    ) -> list[AuditEntry]:
        order = AuditRow.id.asc() if ascending else AuditRow.id.desc()
        async with self._database.reading() as session:
            rows = await session.scalars(select(AuditRow).where(*where).order_by(order).limit(limit))
            return [
                AuditEntry(row.at, row.actor_id, row.action, row.target, _decode_detail(row.detail), row.id)
                for row in rows
            ]


def encode_detail(detail: AuditDetail | str | None) -> str | None:
    """Returns a detail as it is stored: words as they are, another one as a JSON object."""
    match detail:
        case AuditDetail(key, values):
            cut = {name: _cut(each) if isinstance(each, str) else each for name, each in values.items()}
            return json.dumps({_KEY: key, **cut}, ensure_ascii=False)
        case str():
            return _cut(detail)
        case None:
            return None


def _cut(text: str) -> str:
    return shorten(storable(text), MAX_DETAIL)


def _decode_detail(stored: str | None) -> AuditDetail | str | None:
    if stored is None or not stored.startswith(f'{{"{_KEY}": '):
        return stored
    try:
        values: dict[str, Any] = _STORED.validate_json(stored)
    except ValueError:
        # An operator's own words.
        return stored
    return AuditDetail(str(values.pop(_KEY)), values)


def _of_kind(kind: AuditKind | None) -> list[ColumnElement[bool]]:
    if kind is None:
        return []
    if kind is AuditKind.OPERATION:
        return [not_(_starts_with(*(prefix for prefixes in _PREFIXES.values() for prefix in prefixes)))]
    return [_starts_with(*_PREFIXES[kind])]


def _starts_with(*prefixes: str) -> ColumnElement[bool]:
    return or_(*(AuditRow.action.startswith(prefix, autoescape=True) for prefix in prefixes))
