"""The page of broadcasts: a message to everyone, counted before it is sent, with its progress."""

from http import HTTPStatus
from typing import Final

from aiohttp import web

from bot.operators.broadcasts import is_too_long
from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.responses import done
from bot.web.server import HttpRoute
from services.admin.broadcasts import BroadcastState

SHOWN: Final = 20


class BroadcastPages:
    """Shows, drafts, starts, stops and discards broadcasts. The Telegram daemon that shares the database sends them."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session and the form themselves."""
        page, act = self._frame.page, self._frame.act
        return (
            page("/broadcasts", self.broadcasts),
            page("/broadcasts/{id}/send", self.confirm_sending),
            act("/broadcasts", self.draft),
            act("/broadcasts/{id}/{act}", self.act),
        )

    async def draft(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Stores a message and counts its chats; nothing is sent before that is confirmed."""
        text = str((await request.post()).get("text", "")).replace("\r\n", "\n").strip()
        if not text or is_too_long(text):
            return await self.broadcasts(request, session, text=text)
        await self._frame.parts.broadcasts.draft(session.actor_id, text, formatting=None, language=None)
        return done("broadcast-drafted", page="broadcasts")

    async def confirm_sending(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the confirmation of a draft, since delivered messages cannot be recalled."""
        draft = await self._frame.parts.broadcasts.get(self._frame.number(request))
        if draft is None or draft.state is not BroadcastState.DRAFT:
            return self._frame.refuse(request, session, "web-broadcast-changed", HTTPStatus.CONFLICT)
        return self._frame.render(
            request,
            session,
            "confirm.html",
            title="web-broadcasts",
            page="broadcasts",
            question=self._frame.text(request, "web-broadcast-question", total=draft.total),
            words=draft.text,
            help=self._frame.text(request, "web-broadcast-question-help"),
            action=f"broadcasts/{draft.id}/send",
            label=self._frame.text(request, "web-broadcast-act-send", total=draft.total),
            mark="i-broadcast",
            keep="web-not-yet",
            back="broadcasts",
        )

    async def act(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Starts, stops or discards a broadcast."""
        number, broadcasts = self._frame.number(request), self._frame.parts.broadcasts
        match request.match_info["act"]:
            case "send":
                is_done = await broadcasts.start(number, session.actor_id) is not None
            case "stop":
                is_done = await broadcasts.stop(number, session.actor_id) is not None
            case "discard":
                is_done = await broadcasts.discard(number)
            case _:
                raise web.HTTPNotFound
        if not is_done:
            return self._frame.refuse(request, session, "web-broadcast-changed", HTTPStatus.CONFLICT)
        return done(f"broadcast-{request.match_info['act']}", page="broadcasts")

    async def broadcasts(
        self, request: web.Request, session: OperatorSession, *, text: str | None = None
    ) -> web.Response:
        """Returns the newest broadcasts and the form of a new one; `text` is one that cannot be sent."""
        rows = await self._frame.parts.broadcasts.newest(SHOWN)
        return self._frame.render(
            request,
            session,
            "broadcasts.html",
            status=HTTPStatus.OK if text is None else HTTPStatus.UNPROCESSABLE_ENTITY,
            title="web-broadcasts",
            page="broadcasts",
            rows=rows,
            text=text,
            moment=self._frame.moment,
        )
