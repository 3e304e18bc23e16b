"""The audit log: acts in words, by kind, in pages and as CSV."""

import re
from typing import Final

from aiohttp import web

from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import CONFIG_SAVED, Frame
from bot.web.server import HttpRoute
from services.admin.audit import AuditEntry, AuditKind

AUDIT_ROWS: Final = 50


class AuditPages:
    """Shows the log."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session themselves."""
        return (self._frame.page("/audit", self.audit),)

    async def audit(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the acts of operators, newest first, of one kind or of all, in pages."""
        word = request.query.get("kind", "")
        kind = AuditKind(word) if word in set(AuditKind) else None
        before, after = (_id_in(request, name) for name in ("before", "after"))
        page = await self._frame.parts.audit.page(kind, before=before, after=after, limit=AUDIT_ROWS)
        undoable = await self._frame.parts.configuration.list_undoable()
        rows = [(entry, self._frame.moment(entry.at), _undo_of(entry, undoable)) for entry in page.entries]
        return self._frame.render(
            request,
            session,
            "audit.html",
            title="web-audit",
            page="audit",
            rows=rows,
            kind=kind,
            kinds=[None, *AuditKind],
            newer=page.newer,
            older=page.older,
        )


def _undo_of(entry: AuditEntry, undoable: frozenset[int]) -> str | None:
    """Returns the path of the form that undoes a change of the configuration."""
    change = re.match(r"change (\d+):", entry.detail or "") if entry.action == CONFIG_SAVED else None
    return f"undo/{change[1]}" if change is not None and int(change[1]) in undoable else None


def _id_in(request: web.Request, name: str) -> int | None:
    text = request.query.get(name, "")
    return int(text) if text.isdecimal() and len(text) <= len(str(2**53)) else None
