"""Undoes acts that change no configuration."""

from http import HTTPStatus

import structlog
from aiohttp import web

from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.responses import done
from bot.web.server import HttpRoute
from core.errors import UnknownProvider
from core.redis.client import REDIS_ERRORS
from services.admin.undo import Act, BudgetAct, RoutingAct, TokenAct, UndoResult
from services.api.tokens import UnknownToken

log = structlog.get_logger()

_REFUSALS = {
    UndoResult.CHANGED: "web-undo-late",
    UndoResult.GONE: "web-undo-gone",
    UndoResult.BUSY: "web-undo-busy",
}


class UndoActs:
    """Undoes acts that change no configuration."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The route. It checks the session and the form itself."""
        return (self._frame.act("/acts/{id}/undo", self.undo),)

    async def undo(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Undoes one act, or says that something has changed since."""
        page = ""

        async def restore(act: Act) -> bool:
            nonlocal page
            page = {"routing": "providers", "budget": "usage", "token": "tokens"}[act.kind]
            return await self._restore(act, session)

        try:
            result = await self._frame.parts.undoable.undo(request.match_info["id"], restore)
        except (*REDIS_ERRORS, TimeoutError) as error:
            log.warning("console.undo_unavailable", error=type(error).__name__)
            return self._frame.refuse(request, session, "web-undo-unavailable", HTTPStatus.SERVICE_UNAVAILABLE)
        if result is not UndoResult.DONE:
            return self._frame.refuse(request, session, _REFUSALS[result], HTTPStatus.CONFLICT)
        return done("undone", page=page)

    async def _restore(self, act: Act, session: OperatorSession) -> bool:
        try:
            match act:
                case RoutingAct():
                    return await self._frame.parts.admin.undo(act, session.actor_id)
                case BudgetAct():
                    return await self._restore_budget(act, session)
                case TokenAct():
                    return await self._restore_token(act, session)
        except (UnknownProvider, UnknownToken):
            return False

    async def _restore_budget(self, act: BudgetAct, session: OperatorSession) -> bool:
        budgets = self._frame.parts.budgets
        if await budgets.find_limit(act.owner_kind, act.owner) != act.after:
            return False
        return await budgets.set_limit(act.owner_kind, act.owner, act.before, session.actor_id) is not None

    async def _restore_token(self, act: TokenAct, session: OperatorSession) -> bool:
        tokens = self._frame.parts.tokens
        token = next((each for each in await tokens.all() if each.name == act.name), None)
        if token is None or token.limits != act.after:
            return False
        await tokens.change(act.name, act.before, session.actor_id)
        log.info("admin.acted", action="token.undo", target=act.name, actor_id=session.actor_id)
        await self._frame.parts.audit.try_record(session.actor_id, "token.undo", act.name)
        return True
