"""Undo of acts that change no configuration: forces, cooldowns, budgets and limits of tokens.

The values that an act replaced are kept for `KEPT_S`, and restored only if they have not been changed since.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum, auto
from typing import Annotated, Final, Literal

import structlog
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from redis.asyncio import Redis

from core.redis.client import REDIS_ERRORS
from services.api.tokens import TokenLimits
from services.llm.routing.admission.budget_guard import BudgetKind
from services.llm.routing.state.rules import OperatorOverrides

log = structlog.get_logger()

KEPT_S: Final = 1800
"""Time in seconds within which an act can be undone."""
CLAIM_S: Final = 30
"""Lifetime in seconds of the lock of an undo."""
RESTORE_S: Final = 20.0
"""Timeout of restoring in seconds, shorter than the lock."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class RoutingAct(BaseModel):
    """A force, its end, or a cooldown; `provider` is empty where the act was on the force alone."""

    kind: Literal["routing"] = "routing"
    provider: str
    before: OperatorOverrides
    after: OperatorOverrides


class BudgetAct(BaseModel):
    """A budget that was set, as it is written in the form."""

    kind: Literal["budget"] = "budget"
    owner_kind: BudgetKind
    owner: str
    before: str
    after: str


class TokenAct(BaseModel):
    """Limits of a token that were changed."""

    kind: Literal["token"] = "token"
    name: str
    before: TokenLimits
    after: TokenLimits


Act = RoutingAct | BudgetAct | TokenAct
_ACT: Final[TypeAdapter[Act]] = TypeAdapter(Annotated[Act, Field(discriminator="kind")])


class UndoResult(Enum):
    """The result of undoing an act."""

    DONE = auto()
    CHANGED = auto()
    """Something has changed since the act; nothing was restored."""
    GONE = auto()
    """It is unknown, undone already, or expired."""
    BUSY = auto()
    """Another request is undoing it."""


class UndoStore:
    """Acts that can be undone, shared by all replicas.

    Args:
        redis: a client with `decode_responses=True`.
        prefix: prefix of all Redis keys.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:console:undo:"

    async def keep(self, act: Act, audit_id: int | None) -> str | None:
        """Returns the id under which an act is kept; None if nothing changed, or if Redis does not answer.

        Args:
            audit_id: of its entry in the audit log, which is its id; None if there is no entry.
        """
        if act.before == act.after:
            return None
        act_id = secrets.token_urlsafe(18) if audit_id is None else str(audit_id)
        try:
            await self._redis.set(self._prefix + act_id, act.model_dump_json(), ex=KEPT_S)
            if isinstance(act, RoutingAct) and act.after.force is not None and act.after.force != act.before.force:
                await self._redis.set(self._force_key(act.after.force.provider), act_id, ex=KEPT_S)
        except REDIS_ERRORS:
            return None
        return act_id

    async def find_kept(self, act_ids: Iterable[str]) -> frozenset[str]:
        """Returns those of the ids whose acts can be undone; none if Redis does not answer."""
        wanted = list(act_ids)
        try:
            found = await asyncio.gather(*(self._redis.exists(self._prefix + act_id) for act_id in wanted))
        except REDIS_ERRORS:
            return frozenset()
        return frozenset(act_id for act_id, is_kept in zip(wanted, found, strict=True) if is_kept)

    async def find_force(self, provider: str) -> str | None:
        """Returns the id of the newest act that forced a provider, if it can be undone."""
        try:
            stored = await self._redis.get(self._force_key(provider))
        except REDIS_ERRORS:
            return None
        act_id = "" if stored is None else str(stored)
        return act_id if act_id and await self.find_kept([act_id]) else None

    async def undo(self, act_id: str, restore: Callable[[Act], Awaitable[bool]]) -> UndoResult:
        """Undoes an act once: claims it, restores what was before, then removes it.

        After a failure it can be undone again. A crash after the restoring loses nothing and restores nothing twice:
        what the act left is no longer there then, and the next undo says so.

        Args:
            restore: returns False if something has changed since the act.

        Raises:
            RedisError: Redis does not answer.
            TimeoutError: restoring took too long.
        """
        if _ID.fullmatch(act_id) is None:
            return UndoResult.GONE
        key, holder = self._prefix + act_id, secrets.token_urlsafe(18)
        if not await self._redis.set(f"{key}:claim", holder, nx=True, ex=CLAIM_S):
            return UndoResult.BUSY
        try:
            act = _read(await self._redis.get(key))
            if act is None:
                return UndoResult.GONE
            async with asyncio.timeout(RESTORE_S):
                if not await restore(act):
                    return UndoResult.CHANGED
            await self._forget(key)
            return UndoResult.DONE
        finally:
            await self._release(f"{key}:claim", holder)

    async def _forget(self, key: str) -> None:
        """Removes an act that is undone. If it stays, the next undo finds that something has changed."""
        try:
            await self._redis.delete(key)
        except REDIS_ERRORS as error:
            log.warning("undo.act_not_removed", error=type(error).__name__, expires_s=KEPT_S)

    async def _release(self, claim: str, holder: str) -> None:
        """Gives a claim back, unless it has expired and another request holds it."""
        try:
            if await self._redis.get(claim) == holder:
                await self._redis.delete(claim)
        except REDIS_ERRORS as error:
            log.warning("undo.claim_not_released", error=type(error).__name__, expires_s=CLAIM_S)

    def _force_key(self, provider: str) -> str:
        return f"{self._prefix}force:{provider}"


def _read(stored: str | bytes | None) -> Act | None:
    try:
        return None if stored is None else _ACT.validate_json(stored)
    except ValidationError:
        return None
