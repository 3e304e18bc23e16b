"""Builds the operator's console. Imported where it is on, since a bot without one does without its template engine."""

from collections.abc import Sequence

from pydantic import SecretStr

from bot.composition.services import Services
from bot.operators.console_links import ConsoleLinks
from bot.operators.daemon_services import DaemonServices
from bot.web.console.audit_pages import AuditPages, UndoActs
from bot.web.console.broadcast_pages import BroadcastPages
from bot.web.console.compare_pages import ComparePages
from bot.web.console.dead_letter_pages import DeadLetterPages
from bot.web.console.frame.access import ConsoleAccess, Credentials
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.parts import ConsoleParts
from bot.web.console.moderation_pages import ModerationPages
from bot.web.console.overview import OverviewPage
from bot.web.console.provider_acts import ProviderActs
from bot.web.console.provider_pages import ProviderPages
from bot.web.console.settings_pages import SettingsPages
from bot.web.console.sign_in import SignIn
from bot.web.console.token_pages import TokenPages
from bot.web.console.usage_pages import UsagePages
from bot.web.server import HttpRoute
from services.api.tokens import TokenStore
from services.history.states import StateHistory

PAGES = (
    SignIn,
    OverviewPage,
    ProviderPages,
    UsagePages,
    ModerationPages,
    DeadLetterPages,
    TokenPages,
    BroadcastPages,
    AuditPages,
    SettingsPages,
    ComparePages,
    ProviderActs,
    UndoActs,
)


def build_console_routes(
    services: Services, states: StateHistory, tokens: TokenStore, web_token: SecretStr, daemon: DaemonServices | None
) -> Sequence[HttpRoute]:
    """Builds the routes of the console's pages and acts."""
    infra, llm, operators = services.infra, services.llm, services.operators
    parts = ConsoleParts(
        settings=infra.settings,
        clock=infra.clock,
        texts=infra.texts,
        fallback=llm.fallback,
        configuration=llm.configuration,
        admin=operators.admin,
        audit=operators.audit,
        totals=operators.totals,
        history=operators.history,
        states=states,
        tokens=tokens,
        broadcasts=operators.broadcasts,
        budgets=operators.budgets,
        votes=services.chat.votes,
        undoable=operators.undoable,
        daemon=daemon or DaemonServices(),
    )
    settings = infra.settings
    access = ConsoleAccess(
        infra.redis,
        settings.redis_prefix,
        Credentials(web_token, settings.telegram_bot_token, settings.admin_ids),
        ConsoleLinks(infra.redis, settings.redis_prefix),
        infra.clock,
    )
    frame = Frame(parts, access)
    return [*frame.routes, *(route for page in PAGES for route in page(frame).routes)]
