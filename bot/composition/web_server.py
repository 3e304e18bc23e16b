"""Builds the HTTP server with its pages and the endpoint for other programs."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from bot.composition.llm import LLMServices
from bot.composition.services import Services
from bot.web.api.battleground import Battleground
from bot.web.api.completions import ChatCompletions
from bot.web.api.gateway import ApiGateway
from bot.web.api.models import ModelDirectory
from bot.web.endpoints import Endpoints
from bot.web.readiness import Check, Readiness, check_database, check_providers, check_redis
from bot.web.server import HttpRoute, WebServer, WebTiming
from core.background import BackgroundTasks, restart_on_error
from core.observability.log import Redactor
from services.api.admission import AdmissionRules, ApiAdmission
from services.api.tokens import TokenStore
from services.history.states import StateHistory
from services.limits.party_limits import RateLimiter, TurnPlaces

if TYPE_CHECKING:
    from bot.operators.daemon_services import DaemonServices


@asynccontextmanager
async def open_server(
    services: Services,
    port: int,
    checks: Mapping[str, Check],
    routes: Sequence[HttpRoute],
    timing: WebTiming | None,
    daemon: "DaemonServices | None",
) -> AsyncGenerator[None]:
    """Serves HTTP while the context lasts; see `serve_web`.

    Raises:
        StartupError: the port cannot be listened on.
    """
    infra, llm = services.infra, services.llm
    settings = infra.settings
    readiness = Readiness(
        {
            "redis": partial(check_redis, infra.redis),
            "database": partial(check_database, infra.database),
            "providers": partial(check_providers, llm.fallback),
            **checks,
        },
        infra.clock,
    )
    redactor = Redactor((*settings.secrets, *llm.configuration.current.secrets))
    llm.configuration.on_change(lambda changed: redactor.add_secrets(changed.secrets))
    states = StateHistory(llm.fallback, services.operators.history, infra.database, infra.clock)
    endpoints = Endpoints(readiness, infra.metrics, llm.fallback, services.operators.totals, redactor)
    tokens = TokenStore(infra.database, infra.clock, settings.named_api_tokens, llm.budgets)
    console: Sequence[HttpRoute] = ()
    if settings.web_token is not None:
        from bot.composition.web_console import build_console_routes

        console = build_console_routes(services, states, tokens, settings.web_token, daemon)
    server = WebServer(
        host=settings.web_host,
        port=port,
        token=settings.web_token,
        routes=(*endpoints.routes, *build_api_routes(services, tokens), *console, *routes),
        timing=timing,
    )
    recording = BackgroundTasks()
    async with AsyncExitStack() as stack:
        await server.start()
        stack.push_async_callback(server.close)
        recording.start(restart_on_error(states.run, "history", infra.clock), "history")
        stack.push_async_callback(recording.close)
        yield


def build_api_routes(services: Services, tokens: TokenStore) -> Sequence[HttpRoute]:
    """Builds the endpoint for other programs."""
    infra, llm, chat = services.infra, services.llm, services.chat
    settings, clock = infra.settings, infra.clock
    requests = infra.metrics.counter(
        "api_requests", "Requests of other programs, by path and status", ("path", "status")
    )
    admission = ApiAdmission(
        AdmissionRules(
            settings.limit_messages_per_minute,
            settings.limit_running_per_user,
            asks_consent=settings.remote_consent == "ask",
        ),
        RateLimiter(infra.shared_redis, settings.redis_prefix),
        TurnPlaces(count_backlog=lambda: infra.database.backlog),
        chat.preferences,
        clock,
    )
    gateway = ApiGateway(
        tokens,
        admission,
        llm.fallback,
        clock,
        lambda path, status: requests.labels(path, str(status)).inc(),
    )
    directory = ModelDirectory(llm.fallback, llm.catalog, admission, clock.time(), settings.history_tokens)
    return (
        *directory.routes(gateway),
        ChatCompletions(directory, llm.models, gateway, clock).route,
        *Battleground(directory, llm.models, gateway, chat.votes).routes,
        *_build_capabilities(llm, directory, gateway),
        *gateway.unknown(["/v1{rest:(?s:/.*)?}"]),
    )


def _build_capabilities(llm: LLMServices, directory: ModelDirectory, gateway: ApiGateway) -> Sequence[HttpRoute]:
    """Builds the endpoints of embeddings and transcription; without their providers nothing of them is imported."""
    embeddings, transcriber = llm.capabilities.embeddings, llm.capabilities.transcriber
    if embeddings is None and transcriber is None:
        return ()
    from bot.web.api.capabilities import EmbeddingsApi, TranscriptionsApi

    routes: list[HttpRoute] = []
    if embeddings is not None:
        routes.append(EmbeddingsApi(directory, embeddings, gateway).route)
    if transcriber is not None:
        routes.append(TranscriptionsApi(directory, transcriber, gateway).route)
    return routes
