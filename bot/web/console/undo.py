"""Undo of acts that change no configuration: forces, cooldowns, budgets and limits of tokens.

The values that an act replaced are kept for `KEPT_S`, and restored only if they have not been changed since.
"""

import re
import secrets
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from redis.asyncio import Redis

from core.redis.client import REDIS_ERRORS
from services.api.tokens import TokenLimits
from services.llm.routing.admission.budget_guard import BudgetKind
from services.llm.routing.state.rules import OperatorOverrides

KEPT_S: Final = 1800
"""Seconds for which an act can be undone."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")


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


class UndoStore:
    """Acts that can be undone, shared by all replicas.

    Args:
        redis: a client with `decode_responses=True`.
        prefix: of all keys.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:console:undo:"

    async def keep(self, act: Act) -> str | None:
        """Returns the path of the form that undoes an act; None if nothing changed, or if Redis does not answer."""
        if act.before == act.after:
            return None
        act_id = secrets.token_urlsafe(18)
        return f"acts/{act_id}/undo" if await self.put_back(act_id, act) else None

    async def put_back(self, act_id: str, act: Act) -> bool:
        """Keeps an act under its id, also one that was taken in vain; returns False if Redis does not answer."""
        try:
            await self._redis.set(self._prefix + act_id, act.model_dump_json(), ex=KEPT_S)
        except REDIS_ERRORS:
            return False
        return True

    async def take(self, act_id: str) -> Act | None:
        """Removes an act and returns it; None if it is unknown, taken already or expired.

        Raises:
            RedisError: Redis does not answer.
        """
        if _ID.fullmatch(act_id) is None:
            return None
        stored = await self._redis.getdel(self._prefix + act_id)
        try:
            return None if stored is None else _ACT.validate_json(stored)
        except ValidationError:
            return None
