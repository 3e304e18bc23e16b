"""`python -m bot check`: checks everything that is configured."""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx2

from bot.operators.formatting import Wording
from bot.operators.provider import describe_refusals, describe_trial
from bot.web.binding import find_bind_fault, is_own_server
from core.bounded_json import parse_json
from core.clock import SystemClock
from core.config.settings import Settings
from core.config.tool_servers import ToolServer
from core.db.database import Database, resolve_url
from core.errors import ConfigurationError, StartupError
from core.i18n import Texts
from core.observability.log import Redactor
from core.redis.client import REDIS_ERRORS, describe_redis_error, open_redis
from core.shortening import shorten_line
from core.transport_errors import describe_connection_error
from services.llm.models.trial import ProviderTrial, TrialResult
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import Catalog
from services.llm.providers.probe import ProbeResult, probe_providers
from services.mcp.servers import McpServers, ServerTrial
from services.usage.prices import Prices
from services.web import SearxSearch

TIMEOUT_S = 5.0
TELEGRAM_URL = "https://api.telegram.org"
WORDS = Wording(Texts())
"""The table is for a terminal and for scripts: English, like the log."""
OK, FAILED, UNSET = "ok", "FAILED", "not set"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A row of the table.

    Args:
        verdict: OK, FAILED, or UNSET where nothing is configured.
        detail: the reason, or the finding.
        warnings: works, but looks unintended.
    """

    name: str
    verdict: str
    detail: str
    warnings: tuple[str, ...] = ()


async def run(settings: Settings) -> int:
    """Runs all checks and prints a table. Returns 0 if the bot can work, else 1."""
    rest = await asyncio.gather(
        _check_redis(settings),
        _check_database(settings),
        _check_telegram(settings),
        _check_web(settings),
    )
    # After the others: importing the SDKs holds the event loop up, which would be blamed on Redis.
    providers = await _check_providers(settings)
    tools = [*await _check_tool_servers(settings), *await _check_search(settings)]
    lines = [*providers, *await _check_beside_chat(settings), *tools, *(line for lines in rest for line in lines)]
    answered = any(line.verdict == OK for line in providers)
    broken = any(line.verdict == FAILED for lines in rest for line in lines)
    warnings = [
        *_other_warnings(settings),
        *_unpriced_warnings(settings),
        *(warning for line in lines for warning in line.warnings),
    ]
    if not answered and settings.providers:
        warnings.append("not a single provider answers")
    text = "\n".join([*_table(lines), *(f"warning: {warning}" for warning in warnings)])
    sys.stdout.write(Redactor(settings.secrets).text(text) + "\n")
    return 0 if answered and not broken else 1


def _unpriced_warnings(settings: Settings) -> list[str]:
    """Returns a warning for each model that counts as free in the budgets because its price is unknown."""
    has_budget = not {settings.budget_user_day, settings.budget_chat_day, settings.budget_day} <= {None}
    prices, now = Prices(), time.time()
    return [
        f"{provider.id}: {model} has no known price and counts as free in the budgets (<ID>_PRICES sets one)"
        for provider in (*settings.providers, *settings.beside_chat)
        if provider.missing is None and (has_budget or provider.budget_day_usd is not None)
        for model in provider.models
        if prices.bound_nanousd(provider, model, 1, 1, now) is None
    ]


def _other_warnings(settings: Settings) -> list[str]:
    """Returns the warnings of the settings that the table does not show anyway."""
    shown = {f"{provider.id} is left out: {provider.missing}" for provider in settings.providers}
    return [warning for warning in settings.warnings if warning not in shown]


async def _check_providers(settings: Settings) -> list[CheckResult]:
    builder, clock = ModelBuilder(), SystemClock()
    trial = ProviderTrial(builder, clock, settings.provider_cooldown)

    async def test(probe: ProbeResult) -> CheckResult:
        is_tested = probe.provider.missing is None and probe.may_answer
        return _to_row(probe, await trial.run(probe.provider, probe.default_model) if is_tested else None)

    try:
        probes = await probe_providers(Catalog(builder.http_client), settings.providers, TIMEOUT_S, clock)
        return list(await asyncio.gather(*map(test, probes)))
    finally:
        await builder.aclose()


async def _check_beside_chat(settings: Settings) -> list[CheckResult]:
    """Asks the providers of everything but chat for their model lists; one that fails stops nothing else."""
    builder = ModelBuilder()
    rows: list[CheckResult] = []
    try:
        for capability, providers in (
            ("transcription", settings.transcribers),
            ("speech", settings.speakers),
            ("pictures", settings.painters),
            ("embeddings", settings.embedders),
        ):
            for probe in await probe_providers(Catalog(builder.http_client), providers, TIMEOUT_S, SystemClock()):
                name, provider = f"{capability} {probe.provider.id}", probe.provider
                if provider.missing is not None:
                    rows.append(CheckResult(name, UNSET, provider.missing))
                elif probe.reason is None or probe.has_no_list:
                    models = ", ".join(provider.models)
                    rows.append(CheckResult(name, OK, f"answers in {probe.took_s * 1000:.0f} ms; listed: {models}"))
                else:
                    rows.append(CheckResult(name, FAILED, probe.reason))
    finally:
        await builder.aclose()
    return rows


async def _check_tool_servers(settings: Settings) -> list[CheckResult]:
    """Connects to each MCP server; one that fails stops nothing else."""
    if not settings.tool_servers:
        return []
    servers = McpServers((), SystemClock())
    trials = await asyncio.gather(*map(servers.try_server, settings.tool_servers))
    return [_to_tools_row(server, trial) for server, trial in zip(settings.tool_servers, trials, strict=True)]


def _to_tools_row(server: ToolServer, trial: ServerTrial) -> CheckResult:
    name = f"tools {server.name}"
    if trial.fault is not None:
        return CheckResult(name, FAILED, trial.fault)
    warnings = [f"{server.name} does not offer the tool {each} of allowedTools" for each in trial.missing]
    warnings += [f"{server.name}: the tool {tool} is left out: {reason}" for tool, reason in trial.left_out.items()]
    shown = ", ".join(shorten_line(f"{each.name}{' (asks)' if each.is_acting else ''}", 60) for each in trial.tools)
    allowed = "all are allowed" if server.allowed is None else "those of allowedTools"
    detail = f"answers in {trial.took_s * 1000:.0f} ms; {allowed}: {shown or 'none'}"
    return CheckResult(name, OK, detail, tuple(warnings))


async def _check_search(settings: Settings) -> list[CheckResult]:
    if settings.web_search_url is None:
        return []
    search = SearxSearch(settings.web_search_url)
    began = time.perf_counter()
    try:
        fault = await search.find_fault()
    finally:
        await search.aclose()
    if fault is not None:
        return [CheckResult("web search", FAILED, fault)]
    return [CheckResult("web search", OK, f"answers in {(time.perf_counter() - began) * 1000:.0f} ms")]


def _to_row(probe: ProbeResult, trial: TrialResult | None) -> CheckResult:
    provider = probe.provider
    name = f"provider {provider.id}"
    if provider.missing is not None:
        return CheckResult(name, UNSET, provider.missing)
    if trial is None:
        return CheckResult(name, FAILED, probe.reason or "")
    warnings = [f"{provider.id} does not list the model {name}" for name in probe.unlisted]
    if trial.failure is not None:
        return CheckResult(name, FAILED, f"{trial.model}: {trial.failure}", tuple(warnings))
    count = len(probe.models)
    listed = f"{count} model{'' if count == 1 else 's'} in {probe.took_s * 1000:.0f} ms"
    if probe.reason is not None:
        listed = "no model list" if probe.has_no_list else f"no model list: {probe.reason}"
    # A key may lack the right to list models, and some servers have no list. A list that breaks is a fault.
    is_broken = (
        probe.status is not None and probe.status >= httpx2.codes.INTERNAL_SERVER_ERROR and not probe.has_no_list
    )
    warnings += describe_refusals(provider.id, trial, WORDS)
    return CheckResult(name, FAILED if is_broken else OK, f"{listed}; {describe_trial(trial, WORDS)}", tuple(warnings))


async def _check_redis(settings: Settings) -> list[CheckResult]:
    if settings.redis_url is None:
        return [CheckResult("redis", OK, "embedded, REDIS_URL is not set")]
    url = settings.redis_url.get_secret_value()
    client = open_redis(url)
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await cast("Any", client.ping())  # typed as maybe not awaitable, since a pipeline's is not
    except REDIS_ERRORS as error:
        return [CheckResult("redis", FAILED, describe_redis_error(error, url))]
    finally:
        await client.aclose()
    return [CheckResult("redis", OK, f"answered in {(asyncio.get_running_loop().time() - began) * 1000:.0f} ms")]


async def _check_database(settings: Settings) -> list[CheckResult]:
    try:
        settings.require_writable_data_dir()
        database = Database(resolve_url(settings))
        try:
            state = await database.check()
        finally:
            await database.close()
    except (ConfigurationError, StartupError) as error:
        return [CheckResult("database", FAILED, " ".join(str(error).split()))]
    return [CheckResult("database", OK, database.name if state is None else f"{database.name}, {state}")]


async def _check_web(settings: Settings) -> list[CheckResult]:
    host, port = settings.web_host, settings.web_port
    if port is None:
        return [CheckResult("web", UNSET, "WEB_PORT is not set, the web side is off")]
    fault = await asyncio.to_thread(find_bind_fault, host, port)
    if fault is None:
        return [CheckResult("web", OK, f"{host}:{port} is free")]
    if await asyncio.to_thread(is_own_server, host, port):
        return [CheckResult("web", OK, f"{host}:{port} is in use by this bot, which is running")]
    return [CheckResult("web", FAILED, fault)]


async def _check_telegram(settings: Settings) -> list[CheckResult]:
    if settings.telegram_bot_token is None:
        return [CheckResult("telegram", UNSET, "TELEGRAM_BOT_TOKEN is not set, the console needs none")]
    base_url = (settings.telegram_api_base_url or TELEGRAM_URL).rstrip("/")
    url = f"{base_url}/bot{settings.telegram_bot_token.get_secret_value()}/getMe"
    try:
        async with httpx2.AsyncClient(timeout=TIMEOUT_S) as client:
            response = await client.get(url)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return [CheckResult("telegram", FAILED, describe_connection_error(error))]
    return [_to_telegram_row(response)]


def _to_telegram_row(response: httpx2.Response) -> CheckResult:
    try:
        decoded: object = parse_json(response.content)
    except ValueError:
        decoded = None
    # JSON objects have string keys and values of any kind.
    answer = cast("dict[str, Any]", decoded) if isinstance(decoded, dict) else {}
    if response.status_code in {httpx2.codes.UNAUTHORIZED, httpx2.codes.NOT_FOUND} and "ok" in answer:
        return CheckResult(
            "telegram", FAILED, f"HTTP {response.status_code}: the token of TELEGRAM_BOT_TOKEN is not accepted"
        )
    if answer.get("ok") is not True:
        reason = answer.get("description") or "not an answer of a Bot API server"
        return CheckResult("telegram", FAILED, f"HTTP {response.status_code}: {reason}")
    match answer.get("result"):
        case {"username": str(username)}:
            return CheckResult("telegram", OK, f"@{username}")
        case _:
            return CheckResult("telegram", OK, "answered without a name")


def _table(lines: Sequence[CheckResult]) -> list[str]:
    names = max(len(line.name) for line in lines)
    verdicts = max(len(line.verdict) for line in lines)
    return [f"{line.name:{names}}  {line.verdict:{verdicts}}  {line.detail}" for line in lines]
