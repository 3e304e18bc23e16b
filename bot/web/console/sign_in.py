"""Signing in and out, and the files that a page needs before that."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.hdrs import X_FORWARDED_PROTO

from bot.web.console.frame.access import OperatorSession, SignInRefused
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.responses import HEADERS, HOME, STATIC, read_form, redirect, static_file
from bot.web.server import HttpRoute
from core.redis.client import REDIS_ERRORS

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _SignInFault:
    """The text for an operator who is not signed in."""

    key: str
    status: HTTPStatus


class SignIn:
    """Opens and ends sessions."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes; only the last one needs a session."""
        return (
            HttpRoute("GET", f"{HOME}/static/{{name}}", self.static, is_guarded=False),
            HttpRoute("GET", f"{HOME}/sign-in", self.sign_in_page, is_guarded=False),
            HttpRoute("GET", f"{HOME}/app", self.app_page, is_guarded=False),
            HttpRoute("POST", f"{HOME}/sign-in", self.sign_in, is_guarded=False),
            HttpRoute("POST", f"{HOME}/sign-in/telegram", self.sign_in_app, is_guarded=False),
            HttpRoute("GET", f"{HOME}/link/{{code}}", self.link_page, is_guarded=False),
            HttpRoute("POST", f"{HOME}/link/{{code}}", self.sign_in_by_link, is_guarded=False),
            self._frame.act("/sign-out", self.sign_out),
        )

    async def static(self, request: web.Request) -> web.Response:
        """Returns a style sheet, a script or the icon; nothing in them is private."""
        name = request.match_info["name"]
        if name not in STATIC:
            raise web.HTTPNotFound
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "public, max-age=31536000, immutable"}
        return web.Response(body=static_file(name), content_type=STATIC[name], charset="utf-8", headers=headers)

    async def sign_in_page(self, request: web.Request) -> web.Response:
        """Returns the form that asks for WEB_TOKEN."""
        return self._frame.render(request, None, "sign_in.html", title="web-sign-in")

    async def app_page(self, request: web.Request) -> web.Response:
        """Returns the first page of the Mini App, whose script signs in by Telegram's init data."""
        return self._frame.render(request, None, "sign_in.html", title="web-sign-in", is_app=True)

    async def sign_in(self, request: web.Request) -> web.Response:
        """Opens a session by WEB_TOKEN."""
        form = await read_form(request)
        opened = await self._open(request, lambda: self._frame.access.sign_in(str(form.get("token", ""))), "token")
        return self._enter(request, opened)

    async def link_page(self, request: web.Request) -> web.Response:
        """Returns a page with a sign-in button, so that link previews do not use the link up."""
        code = request.match_info["code"]
        return self._frame.render(request, None, "sign_in.html", title="web-sign-in", code=code)

    async def sign_in_by_link(self, request: web.Request) -> web.Response:
        """Opens a session by a link of `/console`."""
        code = request.match_info["code"]
        return self._enter(request, await self._open(request, lambda: self._frame.access.sign_in_by_link(code), "link"))

    async def sign_in_app(self, request: web.Request) -> web.Response:
        """Exchanges a Mini App's init data for a session, whose id its script sends in a header."""
        data = str((await read_form(request)).get("init_data", ""))
        opened = await self._open(request, lambda: self._frame.access.sign_in_by_init_data(data), "mini app")
        if isinstance(opened, OperatorSession):
            return web.json_response({"session": opened.id}, headers=HEADERS)
        fault = self._frame.text(request, opened.key)
        return web.json_response({"fault": fault}, status=opened.status, headers=HEADERS)

    async def sign_out(self, _request: web.Request, session: OperatorSession) -> web.Response:
        """Ends the session."""
        await self._frame.access.end(session)
        return redirect(f"{HOME}/sign-in")

    async def _open(
        self, request: web.Request, sign_in: Callable[[], Awaitable[OperatorSession]], way: str
    ) -> OperatorSession | _SignInFault:
        if self._frame.is_of_another_site(request):
            log.info("console.sign_in_refused", reason="another site")
            return _SignInFault("web-sign-in-foreign", HTTPStatus.FORBIDDEN)
        try:
            session = await sign_in()
        except SignInRefused as refused:
            return _SignInFault(refused.key, HTTPStatus.UNAUTHORIZED)
        except REDIS_ERRORS:
            log.warning("console.sessions_unavailable")
            return _SignInFault("web-sign-in-unavailable", HTTPStatus.SERVICE_UNAVAILABLE)
        await self._frame.parts.audit.try_record(session.actor_id, "console.sign_in", way)
        return session

    def _enter(self, request: web.Request, opened: OperatorSession | _SignInFault) -> web.Response:
        """Hands a session to the browser, or shows why there is none."""
        if isinstance(opened, OperatorSession):
            response = redirect(HOME)
            self._frame.access.set_cookie(response, opened, is_secure=self._is_secure(request))
            return response
        return self._frame.render(
            request, None, "sign_in.html", status=opened.status, title="web-sign-in", fault=opened.key
        )

    def _is_secure(self, request: web.Request) -> bool:
        """Returns whether the browser speaks https, to this server or to the proxy before it."""
        public = self._frame.parts.settings.web_public_url or ""
        is_proxied = request.headers.get(X_FORWARDED_PROTO, "").lower() == "https"
        return request.secure or is_proxied or public.startswith("https://")
