"""Signing in and out, and the files that a page needs before that."""

from functools import partial
from http import HTTPStatus
from importlib.resources import files
from typing import Final

import structlog
from aiohttp import web
from aiohttp.hdrs import X_FORWARDED_PROTO

from bot.web.console.access import OperatorSession, SignInRefused
from bot.web.console.frame import HOME, Frame, redirect
from bot.web.server import HttpRoute
from core.redis.client import REDIS_ERRORS

log = structlog.get_logger()

STATIC: Final = {
    "tokens.css": "text/css",
    "frame.css": "text/css",
    "console.css": "text/css",
    "favicon.svg": "image/svg+xml",
}


class SignIn:
    """Opens and ends sessions."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._static = {name: (files("bot.web.console") / "static" / name).read_bytes() for name in STATIC}

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes; only the last one needs a session."""
        return (
            HttpRoute("GET", f"{HOME}/static/{{name}}", self.static, is_guarded=False),
            HttpRoute("GET", f"{HOME}/sign-in", self.sign_in_page, is_guarded=False),
            HttpRoute("POST", f"{HOME}/sign-in", self.sign_in, is_guarded=False),
            HttpRoute("POST", f"{HOME}/sign-out", partial(self._frame.posted, self.sign_out), is_guarded=False),
        )

    async def static(self, request: web.Request) -> web.Response:
        """Returns a style sheet or the icon; nothing in them is private."""
        name = request.match_info["name"]
        if name not in STATIC:
            raise web.HTTPNotFound
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "public, max-age=3600"}
        return web.Response(body=self._static[name], content_type=STATIC[name], headers=headers)

    async def sign_in_page(self, request: web.Request) -> web.Response:
        """Returns the form that asks for WEB_TOKEN."""
        return self._frame.render(request, None, "sign_in.html", title="web-sign-in")

    async def sign_in(self, request: web.Request) -> web.Response:
        """Opens a session."""
        form = await request.post()
        fault, status = "web-sign-in-unavailable", HTTPStatus.SERVICE_UNAVAILABLE
        try:
            session = await self._frame.access.sign_in(str(form.get("token", "")))
        except SignInRefused:
            fault, status = "web-sign-in-wrong", HTTPStatus.UNAUTHORIZED
        except REDIS_ERRORS:
            log.warning("console.sessions_unavailable")
        else:
            await self._frame.parts.audit.try_record(session.actor_id, "console.sign_in")
            response = redirect(HOME)
            self._frame.access.set_cookie(response, session, is_secure=_is_secure(request))
            return response
        return self._frame.render(request, None, "sign_in.html", status=status, title="web-sign-in", fault=fault)

    async def sign_out(self, _request: web.Request, session: OperatorSession) -> web.Response:
        """Ends the session."""
        await self._frame.access.end(session)
        return redirect(f"{HOME}/sign-in")


def _is_secure(request: web.Request) -> bool:
    """Returns whether the browser speaks https, to this server or to the proxy before it."""
    return request.secure or request.headers.get(X_FORWARDED_PROTO, "").lower() == "https"
