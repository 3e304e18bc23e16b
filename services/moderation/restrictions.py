"""Mutes and bans so that an undo takes back only the bot's own acts.

Telegram keeps one restriction per member: a mute replaces the one of another admin, and lifting it would free a member
that this admin had silenced. So the restriction before the bot's own act is recorded with the incident.
"""

from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from core.clock import Clock
from services.moderation.domain.incident import Finding
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.policy import MUTE
from services.moderation.domain.ports import UNRESTRICTED, ActionResult, Restriction, Sanctions

TOLERANCE = timedelta(seconds=90)
"""Difference of two ends of a restriction that are the same: Telegram rounds them."""
_RESTRICTIONS = TypeAdapter(Restriction)


class Restrictions:
    """Restricts members, and keeps their earlier restrictions."""

    def __init__(self, sanctions: Sanctions, clock: Clock) -> None:
        self.sanctions = sanctions
        self._clock = clock

    async def read(self, group_id: int, member_id: int) -> str:
        """Returns the restriction of a member, in its stored form; unknown counts as none."""
        found = await self.sanctions.fetch_restriction(group_id, member_id)
        return _RESTRICTIONS.dump_json(found or UNRESTRICTED).decode()

    async def mute(
        self, group_id: int, member_id: int, until: datetime | None, *, before: str | None = None
    ) -> ActionResult:
        """Mutes a member, unless they are banned or muted for longer already.

        Args:
            until: None for the usual length.
            before: the earlier restriction, see `read`; None if that is not known.
        """
        held, until = _parse(before), until or self._clock.now() + MUTE
        if held.is_ban or (held.is_mute and (held.until is None or held.until >= until)):
            return ActionResult.GONE
        return await self.sanctions.mute(group_id, member_id, until)

    async def unmute(
        self,
        group_id: int,
        member_id: int,
        *,
        before: str | None = None,
        until: datetime | None = None,
    ) -> ActionResult:
        """Lifts a mute of the bot, and restores the earlier restriction; leaves one that another admin has set since.

        Args:
            before: the restriction before the mute.
            until: the end of the mute, by which it is recognised; None accepts any end that a mute of the bot can have.
        """
        now = await self.sanctions.fetch_restriction(group_id, member_id)
        if now is not None and now != UNRESTRICTED and not self._is_own_mute(now, until):
            return ActionResult.GONE
        held = _parse(before)
        is_over = held.until is not None and held.until <= self._clock.now()
        is_kept = held != UNRESTRICTED and not is_over and now != UNRESTRICTED
        return await self.sanctions.unmute(group_id, member_id, held if is_kept else None)

    async def ban(self, finding: Finding, before: str | None) -> ActionResult:
        """Bans an author, unless they are banned already."""
        if _parse(before).is_ban:
            return ActionResult.GONE
        return await self.sanctions.ban(finding.group_id, finding.author.id, finding.author.kind)

    async def unban(self, finding: Finding, before: str | None) -> ActionResult:
        """Lifts a ban of the bot, and restores the restriction that it replaced; leaves a ban that it found."""
        held, author = _parse(before), finding.author
        if held.is_ban:
            return ActionResult.GONE
        result = await self.sanctions.unban(finding.group_id, author.id, author.kind)
        is_over = held.until is not None and held.until <= self._clock.now()
        if author.kind is not AuthorKind.CHANNEL and held != UNRESTRICTED and not is_over:
            await self.sanctions.unmute(finding.group_id, author.id, held)
        return result

    def _is_own_mute(self, now: Restriction, until: datetime | None) -> bool:
        if now.is_ban or not now.is_mute or now.until is None:
            return False
        if until is not None:
            return abs(now.until - until) <= TOLERANCE
        return now.until <= self._clock.now() + MUTE + TOLERANCE


def _parse(stored: str | None) -> Restriction:
    try:
        return UNRESTRICTED if stored is None else _RESTRICTIONS.validate_json(stored)
    except ValidationError:
        return UNRESTRICTED
