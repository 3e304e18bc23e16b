"""Dead letters: messages that were given up, without their content. They exist only where the Telegram daemon runs."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bot.operators.dead_letters import DeadLetterCommands
from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.responses import done
from bot.web.server import HttpRoute

LETTERS: Final = 100


class DeadLetterPages:
    """Shows the letters, retries and discards them."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session and the form themselves."""
        page, act = self._frame.page, self._frame.act
        return (
            page("/dead", self.dead),
            page("/dead/{id}/drop", self.confirm_drop),
            act("/dead/retry", self.retry_all),
            act("/dead/{id}/retry", partial(self._on_letter, "retried", DeadLetterCommands.replay)),
            act("/dead/{id}/drop", partial(self._on_letter, "dropped", DeadLetterCommands.drop)),
        )

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
        number = self._frame.number(request)
        return self._frame.render(
            request,
            session,
            "confirm.html",
            title="web-drop",
            page="dead",
            question=self._frame.text(request, "web-drop-question", id=f"{number}"),
            help=self._frame.text(request, "web-drop-help"),
            action=f"dead/{number}/drop",
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
        number = self._frame.number(request)
        if not await act(self._letters(), number, session.actor_id):
            return self._frame.refuse(request, session, "web-letter-gone", HTTPStatus.CONFLICT)
        return done(did, f"{number}", page="dead")

    def _letters(self) -> DeadLetterCommands:
        letters = self._frame.parts.daemon.dead_letters
        if letters is None:
            raise web.HTTPNotFound
        return letters


def _name_lane(lane: str) -> tuple[str, str]:
    """Returns the text key of a lane's kind, and the id of its chat; the lane's name if it is not a chat's."""
    chat = re.fullmatch(r"telegram:(-?\d+):\d+", lane)
    if chat is None:
        return "web-letter-other", lane
    return ("web-letter-group" if chat[1].startswith("-") else "web-letter-private"), chat[1]
