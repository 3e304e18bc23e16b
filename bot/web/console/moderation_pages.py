"""The moderation queue with the decisions of its cards. It exists only where the Telegram daemon runs."""

from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web

from bot.operators.daemon_services import NotAnAdmin, QueuedIncident
from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.responses import done
from bot.web.server import HttpRoute
from core.errors import StorageError
from services.moderation.actions import ResolveResult
from services.moderation.domain.incident import Resolution
from services.moderation.records.counts import ModerationFigures
from services.moderation.text.links import defang

log = structlog.get_logger()

MAX_TEXT: Final = 1500
"""Characters of a message that the queue shows."""
_REFUSALS: Final = {
    ResolveResult.TOO_LATE: "moderation-too-late",
    ResolveResult.PROTECTED: "moderation-author-exempt",
    ResolveResult.UNKNOWN: "moderation-author-unknown",
}


class ModerationPages:
    """Shows the queue and decides about its cards."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session and the form themselves."""
        page, act = self._frame.page, self._frame.act
        return (page("/moderation", self.moderation), act("/moderation/{id}/{decision}", self.resolve))

    async def moderation(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the queue; texts are shown to admins of their groups only."""
        queue = self._frame.parts.daemon.moderation
        is_decided = request.query.get("show") == "done"
        rows = None if queue is None else await queue.list(session.actor_id, is_decided=is_decided)
        figures = await self._figures()
        groups = {row.incident.finding.group_id for row in rows or ()}
        groups |= {group.group_id for group in figures.groups} if figures is not None else set()
        return self._frame.render(
            request,
            session,
            "moderation.html",
            title="web-moderation",
            page="moderation",
            rows=rows,
            figures=figures,
            titles={} if queue is None else await queue.find_titles(groups),
            is_decided=is_decided,
            text_of=_format_text,
            moment=self._frame.moment,
            is_person=session.actor_id > 0,
        )

    async def _figures(self) -> ModerationFigures | None:
        """Returns the counts of all groups; None without the daemon, and while the database does not answer."""
        queue = self._frame.parts.daemon.moderation
        try:
            return None if queue is None else await queue.read_figures()
        except StorageError as error:
            log.warning("console.figures_unavailable", error=str(error))
            return None

    async def resolve(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Confirms or undoes an incident, or bans its author."""
        queue, word = self._frame.parts.daemon.moderation, request.match_info["decision"]
        if queue is None or word not in set(Resolution):
            raise web.HTTPNotFound
        number = self._frame.number(request)
        try:
            result = await queue.resolve(number, Resolution(word), session.actor_id)
        except NotAnAdmin:
            return self._frame.refuse(request, session, "moderation-admins-only", HTTPStatus.FORBIDDEN)
        if result is None:
            raise web.HTTPNotFound
        if result is not ResolveResult.DONE:
            return self._frame.refuse(request, session, _REFUSALS[result], HTTPStatus.CONFLICT)
        is_undone = word == Resolution.UNDO
        undo = None if is_undone else f"moderation/{number}/undo"
        return done("let-through" if is_undone else "decided", f"{number}", page="moderation", undo=undo)


def _format_text(row: QueuedIncident) -> str:
    text = row.incident.finding.text
    return defang(text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…")
