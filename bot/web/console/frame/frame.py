"""The frame of every page and act: session, anti-forgery field, language, faults, and the template."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.hdrs import ACCEPT_LANGUAGE, ETAG, IF_NONE_MATCH, ORIGIN

from bot.operators.formatting import format_cost
from bot.web.console.frame.access import FORM_FIELD, ConsoleAccess, OperatorSession, is_own_form
from bot.web.console.frame.navigation import MAIN, MORE, PendingCounter, PendingWork
from bot.web.console.frame.parts import ConsoleParts
from bot.web.console.frame.provider_views import ProviderView, clock_time, read_strip
from bot.web.console.frame.responses import (
    DONE,
    HEADERS,
    HOME,
    POLICY,
    UNDO_PATHS,
    asset,
    digest,
    done,
    environment,
    file_name,
    icons,
    read_form,
    read_number,
    redirect,
    undo_path,
)
from bot.web.server import HttpRoute
from core.config.providers import ProviderSettings
from core.errors import ConfigurationError, StorageError
from core.i18n import DEFAULT_LANGUAGE, Texts
from services.admin.audit import AuditDetail
from services.admin.config_store import ConfigConflict, is_secret

log = structlog.get_logger()

FILE_TIMEOUT_S: Final = 30.0
"""Timeout for sending a file to Telegram."""
SEC_FETCH_SITE: Final = "Sec-Fetch-Site"
TELEGRAM_WEB: Final = "https://web.telegram.org"
"""Embeds Mini Apps in a frame. There only the script has a session, since the cookie is strict."""
CONFIG_SAVED: Final = "config.save"
"""Audit action whose detail begins with the revision of the configuration."""
LIVE_S: Final = {
    "overview.html": 3,
    "providers.html": 5,
    "broadcasts.html": 3,
    "dead.html": 10,
    "usage.html": 30,
    "audit.html": 30,
    "moderation.html": 60,
}
"""Refresh interval of a page by the script, in seconds; without the script it is static."""

FRAME_LIVE_S: Final = 5
"""Refresh interval of the navigation and the strip of every page, in seconds."""
PENDING: Final = web.RequestKey("pending", PendingWork)

Page = Callable[[web.Request, OperatorSession], Awaitable[web.Response]]


class Frame:
    """Guards and renders the pages of the console."""

    def __init__(self, parts: ConsoleParts, access: ConsoleAccess) -> None:
        self.parts = parts
        self.access = access
        self._pending = PendingCounter(parts.daemon, parts.clock)
        is_mini_app = parts.settings.telegram_bot_token is not None and parts.settings.web_public_url is not None
        self._headers = HEADERS | ({"Content-Security-Policy": POLICY + TELEGRAM_WEB} if is_mini_app else {})

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The route of the parts that every page has. It checks the session itself."""
        return (self.page("/frame", self.live),)

    def page(self, path: str, handler: Page) -> HttpRoute:
        """Returns the route of a page below `HOME`, which checks the session."""
        return HttpRoute("GET", HOME + path, partial(self.signed_in, handler), is_guarded=False)

    def act(self, path: str, handler: Page) -> HttpRoute:
        """Returns the route of an act below `HOME`, which checks the session and the form."""
        return HttpRoute("POST", HOME + path, partial(self.posted, handler), is_guarded=False)

    def file(self, path: str, handler: Page, page: str) -> tuple[HttpRoute, HttpRoute]:
        """Returns the routes of a file that is downloaded, or sent to the operator in Telegram.

        Args:
            page: that has the link, and reports that the file was sent.
        """
        return self.page(path, handler), self.act(f"{path}/send", partial(self._send_file, handler, page))

    async def _send_file(
        self, handler: Page, page: str, request: web.Request, session: OperatorSession
    ) -> web.Response:
        """Sends a file to the operator in Telegram, whose Mini Apps cannot download."""
        send, response = self.parts.daemon.send_file, await handler(request, session)
        name, body = file_name(response), response.body
        if send is None or session.actor_id <= 0 or not isinstance(body, bytes):
            raise web.HTTPConflict(text=self.text(request, "web-file-no-telegram"))
        try:
            async with asyncio.timeout(FILE_TIMEOUT_S):
                is_sent = await send(session.actor_id, name, body)
        except TimeoutError:
            is_sent = False
        if not is_sent:
            raise web.HTTPConflict(text=self.text(request, "web-file-not-sent"))
        await self.parts.audit.try_record(session.actor_id, "console.file", name)
        return done("file-sent", name, page=page)

    async def signed_in(self, handler: Page, request: web.Request) -> web.Response:
        """Answers a request of an operator who is signed in; other requests are redirected to the form to sign in."""
        session = await self.access.find(request)
        if session is None:
            return redirect(f"{HOME}/sign-in")
        request[PENDING] = await self._pending.read()
        try:
            return await handler(request, session)
        except StorageError as error:
            log.warning("console.storage_failed", path=request.path, error=str(error))
            status, key = HTTPStatus.SERVICE_UNAVAILABLE, "web-database-unavailable"
        except ConfigConflict:
            status, key = HTTPStatus.CONFLICT, "web-conflict"
        except web.HTTPNotFound:
            status, key = HTTPStatus.NOT_FOUND, "web-not-found"
        except web.HTTPConflict as error:
            return self.render(request, session, "fault.html", status=HTTPStatus.CONFLICT, faults=[error.text])
        except ConfigurationError as error:
            return self.render(
                request, session, "fault.html", status=HTTPStatus.UNPROCESSABLE_ENTITY, faults=error.mistakes
            )
        return self.render(request, session, "fault.html", status=status, faults=[self.text(request, key)])

    async def posted(self, handler: Page, request: web.Request) -> web.Response:
        """Answers a form that was submitted from a page of the same session."""

        async def guarded(request: web.Request, session: OperatorSession) -> web.Response:
            form = await read_form(request)
            if self.is_of_another_site(request) or not is_own_form(session, str(form.get(FORM_FIELD, ""))):
                faults = [self.text(request, "web-foreign-form")]
                return self.render(request, session, "fault.html", status=HTTPStatus.FORBIDDEN, faults=faults)
            try:
                return await handler(request, session)
            finally:
                self._pending.expire()

        return await self.signed_in(guarded, request)

    async def live(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the navigation with its counts, and the strip, which pages refresh on their own."""
        return self.render(request, session, "live.html", page=request.query.get("page", "")[:32])

    def is_of_another_site(self, request: web.Request) -> bool:
        """Returns whether a browser says that a page of another origin submitted this form.

        A proxy may rewrite the name of the host: `Sec-Fetch-Site`, which browsers send over https, is looked at first.
        """
        site, origin = request.headers.get(SEC_FETCH_SITE), request.headers.get(ORIGIN)
        if site is not None:
            return site not in {"same-origin", "none"}
        if origin is None:
            return False
        public = self.parts.settings.web_public_url
        return urlsplit(origin).netloc not in {request.host, urlsplit(public or "").netloc} - {""}

    def known(self, request: web.Request) -> ProviderSettings:
        """Returns the provider in the path.

        Raises:
            HTTPNotFound: it is not configured.
        """
        name = request.match_info["id"]
        found = next((each for each in self.parts.configuration.current.providers if each.id == name), None)
        if found is None:
            raise web.HTTPNotFound
        return found

    def number(self, request: web.Request) -> int:
        """Returns the number in the path.

        Raises:
            HTTPNotFound: it is none.
        """
        number = read_number(request.match_info["id"])
        if number is None:
            raise web.HTTPNotFound
        return number

    def usable(self, request: web.Request) -> ProviderSettings:
        """Returns the provider in the path, if it can be asked.

        Raises:
            HTTPConflict: it lacks a setting.
        """
        provider = self.known(request)
        if provider.missing is not None:
            raise web.HTTPConflict(text=provider.missing, headers=HEADERS)
        return provider

    async def find_force_undo(self, views: Iterable[ProviderView]) -> str | None:
        """Returns the path that undoes the force that is shown; None if there is none, or if it is not kept."""
        forced = next((view.id for view in views if view.is_forced), None)
        return None if forced is None else undo_path(await self.parts.undoable.find_force(forced))

    async def save(
        self, changes: Mapping[str, str | None], session: OperatorSession, form: Mapping[str, Any], *, note: str
    ) -> None:
        """Saves changes to the configuration that the submitted form was made from, and audits them.

        Raises:
            ConfigConflict: it has changed since.
            ConfigurationError: the changes are invalid.
            SecretsKeyMissing: a key cannot be stored.
            StorageError: the database failed.
        """
        shown = read_number(str(form.get("revision", "")))
        if shown is None:
            raise ConfigConflict
        configuration = self.parts.configuration
        variables = configuration.variables()
        before = {name: variables.get(name) for name in changes if not is_secret(name)}
        revision = await configuration.save(changes, session.actor_id, note=note, revision=shown)
        detail = AuditDetail(
            "config", {"revision": revision, **{name: before[name] or None for name in sorted(before)}}
        )
        await self.parts.audit.try_record(session.actor_id, CONFIG_SAVED, note, detail)

    def config_undo_path(self) -> str:
        """Returns the path that undoes the newest change of the configuration."""
        return f"undo/{self.parts.configuration.current.revision}"

    def moment(self, at: datetime) -> str:
        """Returns an instant as the pages show it."""
        return clock_time(at.timestamp(), self.parts.clock.time(), self.parts.settings.zone)

    def text(self, request: web.Request, key: str, **values: str | float) -> str:
        """Returns a text in the browser's language."""
        return self.parts.texts.get(key, self.language(request), **values)

    def refuse(self, request: web.Request, session: OperatorSession, key: str, status: HTTPStatus) -> web.Response:
        """Returns a page that says why an act was not done."""
        return self.render(request, session, "fault.html", status=status, faults=[self.text(request, key)])

    def render(
        self,
        request: web.Request,
        session: OperatorSession | None,
        template: str,
        *,
        status: HTTPStatus = HTTPStatus.OK,
        **values: object,
    ) -> web.Response:
        """Returns a page."""
        language = self.language(request)
        did, undo = request.query.get("did", ""), request.query.get("undo", "")
        is_answer = request.method == "GET" and status is HTTPStatus.OK
        shared: dict[str, object] = {
            "icons": icons(),
            "t": partial(_translate, self.parts.texts, language),
            "language": language,
            "form_value": session.form if session is not None else "",
            "is_signed_in": session is not None,
            "actor": session.actor_id if session is not None else 0,
            "main_pages": MAIN,
            "more_pages": MORE,
            "pending": request.get(PENDING, PendingWork()),
            "strip": read_strip(self.parts) if session is not None and template != "overview.html" else (),
            "did": did if did in DONE else None,
            "about": request.query.get("about", "")[:64],
            "places": {
                each.id: place for place, each in enumerate(self.parts.configuration.current.providers, start=1)
            },
            "undo": undo if UNDO_PATHS.fullmatch(undo) else None,
            "usd": format_cost,
            "asset": asset,
            "template": template,
            "live_s": LIVE_S.get(template) if is_answer else None,
            "frame_live_s": FRAME_LIVE_S,
            "title": "web-overview",
            "page": "",
        }
        body = environment().get_template(template).render({**shared, **values})
        if not is_answer:
            return web.Response(text=body, content_type="text/html", status=status, headers=self._headers)
        headers = {**self._headers, ETAG: f'"{digest(body.encode())}"'}
        # Only the script sends If-None-Match: browsers do not, since they must not store pages.
        if request.headers.get(IF_NONE_MATCH) == headers[ETAG]:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return web.Response(text=body, content_type="text/html", headers=headers)

    def language(self, request: web.Request) -> str:
        """Returns the first language of the browser that has texts."""
        for tag in request.headers.get(ACCEPT_LANGUAGE, "")[:200].split(","):
            primary = tag.partition(";")[0].partition("-")[0].strip().lower()
            if primary in self.parts.texts.languages:
                return primary
        return DEFAULT_LANGUAGE


def _translate(texts: Texts, language: str, key: str, /, **values: str | float) -> str:
    return texts.get(key, language, **values)
