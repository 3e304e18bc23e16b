"""The audit log: acts in words, by kind, in pages and as CSV; undoes acts that change no configuration."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web

from bot.operators.audit import describe_act, describe_detail
from bot.operators.formatting import Wording
from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import CONFIG_SAVED, Frame
from bot.web.console.frame.responses import done, download, read_number, to_csv, undo_path
from bot.web.server import HttpRoute
from core.errors import UnknownProvider
from core.redis.client import REDIS_ERRORS
from services.admin.audit import AuditDetail, AuditEntry, AuditKind, encode_detail
from services.admin.undo import KEPT_S, Act, BudgetAct, RoutingAct, TokenAct, UndoResult
from services.api.tokens import UnknownToken

AUDIT_ROWS: Final = 50
FILE_ROWS: Final = 5000
"""Number of entries in the CSV file, newest first."""
_STORED_CHANGE: Final = re.compile(r"change (\d+):")
"""Detail of an entry as written by an earlier version."""
log = structlog.get_logger()
_REFUSALS = {
    UndoResult.CHANGED: "web-undo-late",
    UndoResult.GONE: "web-undo-gone",
    UndoResult.BUSY: "web-undo-busy",
}


class AuditPages:
    """Shows the log."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session themselves."""
        return (self._frame.page("/audit", self.audit), *self._frame.file("/audit.csv", self.audit_csv, "audit"))

    async def audit(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the acts of operators, newest first, of one kind or of all, in pages."""
        kind = _kind_in(request)
        before, after = (_id_in(request, name) for name in ("before", "after"))
        page = await self._frame.parts.audit.page(kind, before=before, after=after, limit=AUDIT_ROWS)
        undo = await self._find_undo(page.entries)
        language = self._frame.language(request)
        say = Wording(self._frame.parts.texts, language)
        return self._frame.render(
            request,
            session,
            "audit.html",
            title="web-audit",
            page="audit",
            rows=[
                (entry, describe_detail(entry.detail, say), self._frame.moment(entry.at), undo.get(entry.id))
                for entry in page.entries
            ],
            describe=partial(describe_act, texts=self._frame.parts.texts, language=language),
            kind=kind,
            kinds=[None, *AuditKind],
            newer=page.newer,
            older=page.older,
        )

    async def audit_csv(self, request: web.Request, _session: OperatorSession) -> web.Response:
        """Returns the newest acts of the same kind as CSV, with their actions and details as they are stored."""
        kind = _kind_in(request)
        page = await self._frame.parts.audit.page(kind, limit=FILE_ROWS)
        names = ("at", "actor_id", "action", "target", "detail")
        lines = [
            (each.at.isoformat(), each.actor_id, each.action, each.target or "", encode_detail(each.detail) or "")
            for each in page.entries
        ]
        return download(to_csv(names, lines), "text/csv", f"audit-{kind.value if kind else 'all'}.csv")

    async def _find_undo(self, entries: Sequence[AuditEntry]) -> Mapping[int, str]:
        """Returns the path that undoes each act that can be undone, by its entry."""
        parts = self._frame.parts
        since = parts.clock.now() - timedelta(seconds=KEPT_S)
        kept = await parts.undoable.find_kept(str(entry.id) for entry in entries if entry.at > since)
        paths = {int(act_id): undo_path(act_id) or "" for act_id in kept}
        revisions = await parts.configuration.store.list_undoable()
        for entry in entries:
            revision = _find_revision(entry)
            if revision in revisions:
                paths[entry.id] = f"undo/{revision}"
        return paths


def _find_revision(entry: AuditEntry) -> int | None:
    """Returns the revision of the configuration that an entry reports."""
    if entry.action != CONFIG_SAVED:
        return None
    if isinstance(entry.detail, AuditDetail):
        revision = entry.detail.values.get("revision")
        return revision if isinstance(revision, int) else None
    stored = _STORED_CHANGE.match(entry.detail or "")
    return int(stored[1]) if stored is not None else None


def _kind_in(request: web.Request) -> AuditKind | None:
    word = request.query.get("kind", "")
    return AuditKind(word) if word in set(AuditKind) else None


def _id_in(request: web.Request, name: str) -> int | None:
    return read_number(request.query.get(name, ""))


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
