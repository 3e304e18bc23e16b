"""Pages of API tokens and their limits; a new token is shown once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web

from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.responses import done, undo_path
from bot.web.server import HttpRoute
from core.errors import StorageError
from services.admin.audit import AuditDetail
from services.admin.undo import TokenAct
from services.api.tokens import ApiToken, TokenExists, TokenLimits, UnknownToken
from services.usage.totals import UsageTotal

log = structlog.get_logger()

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
LARGEST: Final = 10**6
"""Largest number accepted in the form."""
LONGEST_PATTERN: Final = 200
"""Maximum characters of a pattern, far more than any model name has."""
_CONSENT: Final = {"": None, "yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token with its usage of today; None while the database does not answer."""

    token: ApiToken
    today: UsageTotal | None


class TokenPages:
    """Shows, makes, changes and revokes tokens."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session and the form themselves."""
        page, act = self._frame.page, self._frame.act
        return (
            page("/tokens", self.tokens),
            act("/tokens", self.create),
            page("/tokens/{name}", self.edit),
            act("/tokens/{name}", self.change),
            page("/tokens/{name}/revoke", self.confirm_revoking),
            act("/tokens/{name}/revoke", self.revoke),
        )

    async def create(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Makes a token and shows it, only on this page."""
        form = await self._form(request)
        name = form.get("name", "")
        if NAME.fullmatch(name) is None:
            return await self.tokens(request, session, form=form, fault="web-token-name-invalid")
        limits = _limits(form)
        if limits is None:
            return await self.tokens(request, session, form=form, fault="web-token-limits-invalid")
        try:
            made = await self._frame.parts.tokens.create(name, limits, session.actor_id)
        except TokenExists:
            return await self.tokens(request, session, form=form, fault="web-token-exists")
        await self._audit(session, "create", name, limits)
        return await self.tokens(request, session, made=(name, made))

    async def edit(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the form of a token's limits."""
        token = await self._find(request)
        return self._form_page(request, session, token, _fields(token.limits))

    async def change(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Sets the limits of a token; they hold for its next request."""
        token = await self._find(request)
        form = await self._form(request)
        limits = _limits(form)
        if limits is None:
            return self._form_page(request, session, token, form, fault="web-token-limits-invalid")
        await self._frame.parts.tokens.change(token.name, limits, session.actor_id)
        audit_id = await self._audit(session, "change", token.name, limits, before=token.limits)
        kept = TokenAct(name=token.name, before=token.limits, after=limits)
        undo = undo_path(await self._frame.parts.undoable.keep(kept, audit_id))
        return done("token-changed", token.name, page="tokens", undo=undo)

    async def confirm_revoking(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Asks before a program loses its access."""
        token = await self._find(request)
        if token.is_configured:
            raise web.HTTPNotFound
        return self._frame.render(
            request,
            session,
            "confirm.html",
            title="web-revoke",
            page="tokens",
            question=self._frame.text(request, "web-revoke-question", name=token.name),
            help=self._frame.text(request, "web-revoke-help"),
            action=f"tokens/{token.name}/revoke",
            label=self._frame.text(request, "web-revoke"),
            back="tokens",
        )

    async def revoke(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Removes a token that was made here."""
        token = await self._find(request)
        try:
            await self._frame.parts.tokens.revoke(token.name)
        except UnknownToken:
            raise web.HTTPNotFound from None
        await self._audit(session, "revoke", token.name, None, before=token.limits)
        return done("token-revoked", token.name, page="tokens")

    async def _form(self, request: web.Request) -> Mapping[str, str]:
        return {name: str(value).strip() for name, value in (await request.post()).items()}

    async def _find(self, request: web.Request) -> ApiToken:
        name = request.match_info["name"]
        found = next((token for token in await self._frame.parts.tokens.all() if token.name == name), None)
        if found is None:
            raise web.HTTPNotFound
        return found

    async def tokens(
        self,
        request: web.Request,
        session: OperatorSession,
        *,
        form: Mapping[str, str] | None = None,
        fault: str | None = None,
        made: tuple[str, str] | None = None,
    ) -> web.Response:
        """Returns the tokens and the form of a new one.

        Args:
            form: one that cannot be read.
            fault: the text that says why.
            made: name and secret of a new token, which is shown once.
        """
        rows = [TokenRow(token, await self._used(token)) for token in await self._frame.parts.tokens.all()]
        return self._frame.render(
            request,
            session,
            "tokens.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if fault else HTTPStatus.OK,
            title="web-tokens",
            page="tokens",
            rows=rows,
            fields=form or {},
            fault=fault,
            made=made,
        )

    def _form_page(
        self,
        request: web.Request,
        session: OperatorSession,
        token: ApiToken,
        fields: Mapping[str, str],
        *,
        fault: str | None = None,
    ) -> web.Response:
        return self._frame.render(
            request,
            session,
            "token.html",
            status=HTTPStatus.UNPROCESSABLE_ENTITY if fault else HTTPStatus.OK,
            title="web-tokens",
            page="tokens",
            token=token,
            fields=fields,
            fault=fault,
        )

    async def _used(self, token: ApiToken) -> UsageTotal | None:
        totals = self._frame.parts.totals
        try:
            return await totals.of_speaker(token.user, totals.today)
        except StorageError as error:
            log.warning("console.usage_unavailable", error=str(error))
            return None

    async def _audit(
        self,
        session: OperatorSession,
        act: str,
        name: str,
        now: TokenLimits | None,
        before: TokenLimits | None = None,
    ) -> int | None:
        limits = {"now": now, "before": before}
        detail = AuditDetail("limits", {name: _describe(each) for name, each in limits.items() if each is not None})
        log.info("admin.acted", action=f"token.{act}", target=name, actor_id=session.actor_id)
        return await self._frame.parts.audit.try_record(session.actor_id, f"token.{act}", name, detail)


def _limits(form: Mapping[str, str]) -> TokenLimits | None:
    """Returns the limits of a submitted form; None if one of them is no number, or no pattern of models."""
    try:
        rate, running = (_whole(form.get(name, "")) for name in ("requests_per_minute", "running"))
        budget = _amount(form.get("budget_day", ""))
    except ValueError:
        return None
    models = tuple(dict.fromkeys(form.get("models", "").split()))
    if any("/" not in pattern or len(pattern) > LONGEST_PATTERN for pattern in models):
        return None
    return TokenLimits(models, rate, running, budget, _CONSENT.get(form.get("remote_consent", "")))


def _whole(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > len(str(LARGEST)) or int(text) > LARGEST:
        raise ValueError(text)
    return int(text)


def _amount(text: str) -> float | None:
    if not text:
        return None
    usd = float(text.lstrip("$").replace(",", "."))
    if not 0 <= usd <= LARGEST:
        raise ValueError(text)
    return usd


def _fields(limits: TokenLimits) -> dict[str, str]:
    consent = next(word for word, value in _CONSENT.items() if value is limits.remote_consent)
    return {
        "models": "\n".join(limits.models),
        "requests_per_minute": "" if limits.requests_per_minute is None else str(limits.requests_per_minute),
        "running": "" if limits.running is None else str(limits.running),
        "budget_day": "" if limits.budget_day_usd is None else f"{limits.budget_day_usd:g}",
        "remote_consent": consent,
    }


def _describe(limits: TokenLimits) -> str | None:
    named = {name: " ".join(value.split()) for name, value in _fields(limits).items() if value}
    return ", ".join(f"{name} {value}" for name, value in named.items()) or None
