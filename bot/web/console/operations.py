"""Pages of the daemon's work: the moderation queue with the decisions of its cards, and dead letters."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bot.operators.daemon_services import NotAnAdmin, QueuedIncident
from bot.operators.dead_letters import DeadLetterCommands
from bot.web.console.access import OperatorSession
from bot.web.console.frame import Frame
from bot.web.console.responses import done
from bot.web.server import HttpRoute
from services.moderation.actions import ResolveResult
from services.moderation.domain.incident import Resolution
from services.moderation.text.links import defang

LETTERS: Final = 100
MAX_TEXT: Final = 1500
"""Characters of a message that the queue shows."""
_REFUSALS: Final = {
    ResolveResult.TOO_LATE: "moderation-too-late",
    ResolveResult.PROTECTED: "moderation-author-exempt",
    ResolveResult.UNKNOWN: "moderation-author-unknown",
}


class OperationPages:
    """Shows the queue and the letters, and acts on them. Both exist only where the Telegram daemon runs."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session and the form themselves."""
        page, act = self._frame.page, self._frame.act
        return (
            page("/moderation", self.moderation),
            act("/moderation/{id}/{decision}", self.resolve),
            page("/dead", self.dead),
            page("/dead/{id}/drop", self.confirm_drop),
            act("/dead/retry", self.retry_all),
            act("/dead/{id}/retry", partial(self._on_letter, "retried", DeadLetterCommands.replay)),
            act("/dead/{id}/drop", partial(self._on_letter, "dropped", DeadLetterCommands.drop)),
        )

    async def moderation(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the queue; texts are shown to admins of their groups only."""
        queue = self._frame.parts.daemon.moderation
        is_decided = request.query.get("show") == "done"
        rows = None if queue is None else await queue.list(session.actor_id, is_decided=is_decided)
        return self._frame.render(
            request,
            session,
            "moderation.html",
            title="web-moderation",
            page="moderation",
            rows=rows,
            is_decided=is_decided,
            text_of=_format_text,
            moment=self._frame.moment,
            is_person=session.actor_id > 0,
        )

    async def resolve(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Confirms or undoes an incident, or bans its author."""
        queue, word = self._frame.parts.daemon.moderation, request.match_info["decision"]
        if queue is None or word not in set(Resolution):
            raise web.HTTPNotFound
        number = _number(request)
        try:
            result = await queue.resolve(number, Resolution(word), session.actor_id)
        except NotAnAdmin:
            return self._refuse(request, session, "moderation-admins-only", HTTPStatus.FORBIDDEN)
        if result is None:
            raise web.HTTPNotFound
        if result is not ResolveResult.DONE:
            return self._refuse(request, session, _REFUSALS[result], HTTPStatus.CONFLICT)
        is_undone = word == Resolution.UNDO
        undo = None if is_undone else f"moderation/{number}/undo"
        return done("let-through" if is_undone else "decided", f"{number}", page="moderation", undo=undo)

    async def dead(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the newest dead letters, with their reasons and without their content."""
        letters = self._frame.parts.daemon.dead_letters
        rows = None if letters is None else await letters.newest(LETTERS)
        return self._frame.render(
            request,
            session,
            "dead.html",
            title="web-dead",
            page="dead",
            rows=None if rows is None else [(letter, *_name_lane(letter.job.lane)) for letter in rows],
            moment=self._frame.moment,
            most=LETTERS,
        )

    async def confirm_drop(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Asks before a message is deleted for good."""
        return self._frame.render(
            request,
            session,
            "confirm.html",
            title="web-drop",
            page="dead",
            question=self._frame.text(request, "web-drop-question", id=f"{_number(request)}"),
            help=self._frame.text(request, "web-drop-help"),
            action=f"dead/{_number(request)}/drop",
            label=self._frame.text(request, "web-drop"),
            back="dead",
        )

    async def retry_all(self, _request: web.Request, session: OperatorSession) -> web.Response:
        """Queues all letters of the page again, the oldest first."""
        letters = self._letters()
        for letter in reversed(await letters.newest(LETTERS)):
            await letters.replay(letter.id, session.actor_id)
        return done("retried-all", page="dead")

    async def _on_letter(
        self,
        did: str,
        act: Callable[[DeadLetterCommands, int, int], Awaitable[bool]],
        request: web.Request,
        session: OperatorSession,
    ) -> web.Response:
        number = _number(request)
        if not await act(self._letters(), number, session.actor_id):
            return self._refuse(request, session, "web-letter-gone", HTTPStatus.CONFLICT)
        return done(did, f"{number}", page="dead")

    def _letters(self) -> DeadLetterCommands:
        letters = self._frame.parts.daemon.dead_letters
        if letters is None:
            raise web.HTTPNotFound
        return letters

    def _refuse(self, request: web.Request, session: OperatorSession, key: str, status: HTTPStatus) -> web.Response:
        return self._frame.render(
            request, session, "fault.html", status=status, faults=[self._frame.text(request, key)]
        )


def _name_lane(lane: str) -> tuple[str, str]:
    """Returns the text key of a lane's kind, and the id of its chat; the lane's name if it is not a chat's."""
    chat = re.fullmatch(r"telegram:(-?\d+):\d+", lane)
    if chat is None:
        return "web-letter-other", lane
    return ("web-letter-group" if chat[1].startswith("-") else "web-letter-private"), chat[1]


def _number(request: web.Request) -> int:
    text = request.match_info["id"]
    if not text.isdecimal() or len(text) > len(str(2**53)):
        raise web.HTTPNotFound
    return int(text)


def _format_text(row: QueuedIncident) -> str:
    text = row.incident.finding.text
    return defang(text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…")
