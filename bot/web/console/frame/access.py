"""Sign-in to the console: by WEB_TOKEN, a link from the bot, or as a Mini App; sessions in Redis."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qsl

import structlog
from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION
from pydantic import BaseModel, SecretStr, ValidationError
from redis.asyncio import Redis

from bot.operators.console_links import ConsoleLinks
from core.clock import Clock
from core.redis.client import REDIS_ERRORS

log = structlog.get_logger()

COOKIE = "understudy_console"
HEADER_SCHEME = "console"
"""Scheme of the Authorization header of a Mini App. Telegram's web client shows it in a frame, where a strict cookie is
not sent; a header is sent by the console's own script only."""
FORM_FIELD = "form"
TOKEN_ACTOR = 0
"""Actor in the audit log of an operator who signed in by WEB_TOKEN and has no Telegram id."""


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Limits of signing in.

    Args:
        session_s: lifetime of a browser's session, in seconds.
        app_session_s: lifetime of a Mini App session; a new one requires recent init data.
        init_data_s: age at which init data expires, in seconds.
        skew_s: tolerance for Telegram's clock being ahead of this one, in seconds.
        init_data_chars: maximum length of init data.
        refusal_s: delay of the response to a wrong token, in seconds. No address is locked out: behind a proxy all
            clients share one, and a stranger could lock operators out.
    """

    session_s: int = 12 * 3600
    app_session_s: int = 3600
    init_data_s: int = 3600
    skew_s: int = 60
    init_data_chars: int = 8192
    refusal_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secrets and operators that sign-ins are verified against.

    Args:
        token: WEB_TOKEN. Sessions end when it changes.
        bot_token: key of the signature of init data; None without a bot.
        admin_ids: ADMIN_IDS; a session of an operator who leaves this list ends.
    """

    token: SecretStr
    bot_token: SecretStr | None
    admin_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class OperatorSession:
    """An operator who is signed in.

    Args:
        id: the value of the cookie or of the header.
        actor_id: id recorded in the audit log.
        form: the anti-forgery value that every form of this session carries.
    """

    id: str
    actor_id: int
    form: str


class _StoredSession(BaseModel):
    actor: int
    form: str


class _TelegramUser(BaseModel):
    id: int


class SignInRefused(Exception):
    """The token, the link or the init data is wrong.

    Args:
        key: key of the text shown to the operator.
        reason: cause for the log.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class ConsoleAccess:
    """Opens, finds and ends sessions.

    Args:
        redis: a client with `decode_responses=True`; all replicas share the sessions.
        prefix: prefix of all Redis keys.
        links: codes that `/console` has handed out.
    """

    def __init__(
        self,
        redis: Redis,
        prefix: str,
        credentials: Credentials,
        links: ConsoleLinks,
        clock: Clock,
        rules: AccessRules | None = None,
    ) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:console:session:"
        self._credentials = credentials
        self._token = credentials.token.get_secret_value().encode()
        self._links = links
        self._rules = rules or AccessRules()
        self._clock = clock

    async def sign_in(self, token: str) -> OperatorSession:
        """Opens a session for the holder of WEB_TOKEN.

        Raises:
            SignInRefused: the token is wrong.
            RedisError: sessions cannot be stored now.
        """
        if not hmac.compare_digest(token.strip().encode(errors="surrogateescape"), self._token):
            await self._clock.sleep(self._rules.refusal_s)
            raise _refuse("web-sign-in-wrong", "token")
        return await self._open(TOKEN_ACTOR, self._rules.session_s)

    async def sign_in_by_link(self, code: str) -> OperatorSession:
        """Opens a session for the operator of a sign-in link, and invalidates the link.

        Raises:
            SignInRefused: the link is unknown, used or expired, or its operator is not one any more.
            RedisError: sessions cannot be stored now.
        """
        actor_id = await self._links.redeem(code)
        if actor_id not in self._credentials.admin_ids:
            raise _refuse("web-link-refused", "link")
        return await self._open(actor_id, self._rules.session_s)

    async def sign_in_by_init_data(self, init_data: str) -> OperatorSession:
        """Opens a session for the operator named in the init data of a Mini App.

        Raises:
            SignInRefused: the init data is forged or old, or its user is no operator.
            RedisError: sessions cannot be stored now.
        """
        signed = self._read_signed(init_data)
        try:
            made_at = int(signed["auth_date"])
            user = _TelegramUser.model_validate_json(signed["user"])
        except (KeyError, ValueError):  # ValidationError is a ValueError
            raise _refuse("web-app-refused", "incomplete") from None
        if not -self._rules.skew_s <= self._clock.time() - made_at <= self._rules.init_data_s:
            raise _refuse("web-app-expired", "age")
        if user.id not in self._credentials.admin_ids:
            raise _refuse("web-app-refused", "not an operator")
        return await self._open(user.id, self._rules.app_session_s)

    async def find(self, request: web.Request) -> OperatorSession | None:
        """Returns the session of a request; None if there is none, or if Redis does not answer."""
        scheme, _, shown = request.headers.get(AUTHORIZATION, "").partition(" ")
        session_id = shown.strip() if scheme.lower() == HEADER_SCHEME else request.cookies.get(COOKIE, "")
        if not session_id:
            return None
        try:
            stored = await self._redis.get(self._key(session_id))
        except REDIS_ERRORS:
            return None
        if stored is None:
            return None
        try:
            known = _StoredSession.model_validate_json(stored)
        except ValidationError:
            return None
        if known.actor != TOKEN_ACTOR and known.actor not in self._credentials.admin_ids:
            return None
        return OperatorSession(session_id, known.actor, known.form)

    async def end(self, session: OperatorSession) -> None:
        """Ends a session."""
        await self._redis.delete(self._key(session.id))

    def set_cookie(self, response: web.StreamResponse, session: OperatorSession, *, is_secure: bool) -> None:
        """Sets the session cookie: same-site and not readable by scripts."""
        response.set_cookie(
            COOKIE,
            session.id,
            max_age=self._rules.session_s,
            path="/console",
            httponly=True,
            samesite="Strict",
            secure=is_secure,
        )

    async def _open(self, actor_id: int, lifetime_s: int) -> OperatorSession:
        session = OperatorSession(secrets.token_urlsafe(32), actor_id, secrets.token_urlsafe(24))
        stored = _StoredSession(actor=session.actor_id, form=session.form).model_dump_json()
        await self._redis.set(self._key(session.id), stored, ex=lifetime_s)
        return session

    def _read_signed(self, init_data: str) -> dict[str, str]:
        """Returns the fields of init data that Telegram has signed for this bot."""
        if self._credentials.bot_token is None:
            raise _refuse("web-app-refused", "no bot")
        if len(init_data) > self._rules.init_data_chars:
            raise _refuse("web-app-refused", "malformed")
        try:
            pairs = parse_qsl(init_data, keep_blank_values=True, strict_parsing=True, max_num_fields=50)
        except ValueError:
            raise _refuse("web-app-refused", "malformed") from None
        fields = dict(pairs)
        shown = fields.pop("hash", "")
        signed = "\n".join(f"{name}={value}" for name, value in sorted(fields.items()))
        key = hmac.digest(b"WebAppData", self._credentials.bot_token.get_secret_value().encode(), "sha256")
        expected = hmac.new(key, signed.encode(errors="replace"), hashlib.sha256).hexdigest()
        # A repeated field could be read by one reader and signed by the other.
        if len(pairs) != len(fields) + 1 or not hmac.compare_digest(shown.encode(errors="replace"), expected.encode()):
            raise _refuse("web-app-refused", "signature")
        return fields

    def _key(self, session_id: str) -> str:
        # Hashed, so that a reader of Redis cannot take over a session; by the token, so that a new one ends them all.
        return self._prefix + hmac.new(self._token, session_id.encode(errors="surrogateescape"), "sha256").hexdigest()


def is_own_form(session: OperatorSession, sent: str) -> bool:
    """Returns whether a form carries the anti-forgery value of its session."""
    return hmac.compare_digest(sent.encode(errors="surrogateescape"), session.form.encode())


def _refuse(key: str, reason: str) -> SignInRefused:
    log.info("console.sign_in_refused", reason=reason)
    return SignInRefused(key, reason)
