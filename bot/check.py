"""`python -m bot check`: checks everything that is configured."""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx2
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import RedisClusterException, RedisError

from core.clock import SystemClock
from core.config.settings import Settings
from core.db.database import Database, resolve_url
from core.errors import ConfigurationError, StartupError
from core.observability.log import Redactor
from core.redis.client import open_redis
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import Catalog
from services.llm.providers.probe import ProbeResult, probe_providers
from services.llm.transport_errors import describe_connection_error

TIMEOUT_S = 5.0
TELEGRAM_URL = "https://api.telegram.org"
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
    """Run all checks concurrently and print a table. Returns 0 if the bot can work, else 1."""
    providers, *rest = await asyncio.gather(
        _check_providers(settings), _check_redis(settings), _check_database(settings), _check_telegram(settings)
    )
    lines = [*providers, *(line for lines in rest for line in lines)]
    answered = any(line.verdict == OK for line in providers)
    broken = any(line.verdict == FAILED for lines in rest for line in lines)
    warnings = [*_other_warnings(settings), *(warning for line in lines for warning in line.warnings)]
    if not answered:
        warnings.append("not a single provider answers")
    text = "\n".join([*_table(lines), *(f"warning: {warning}" for warning in warnings)])
    sys.stdout.write(Redactor(settings.secrets).text(text) + "\n")
    return 0 if answered and not broken else 1


def _other_warnings(settings: Settings) -> list[str]:
    """Return the warnings of the settings that the table does not show anyway."""
    shown = {f"{provider.id} is left out: {provider.missing}" for provider in settings.providers}
    return [warning for warning in settings.warnings if warning not in shown]


async def _check_providers(settings: Settings) -> list[CheckResult]:
    builder = ModelBuilder()
    try:
        catalog = Catalog(builder.http_client)
        probes = await probe_providers(catalog, settings.providers, TIMEOUT_S, SystemClock())
    finally:
        await builder.aclose()
    return [_to_row(probe) for probe in probes]


def _to_row(probe: ProbeResult) -> CheckResult:
    provider = probe.provider
    name = f"provider {provider.id}"
    if provider.missing is not None:
        return CheckResult(name, UNSET, provider.missing)
    if probe.reason is not None:
        return CheckResult(name, FAILED, probe.reason)
    count = len(probe.models)
    found = f"{count} model{'' if count == 1 else 's'} in {probe.took_s * 1000:.0f} ms"
    unlisted = tuple(f"{provider.id} does not list the model {name}" for name in probe.unlisted)
    return CheckResult(name, OK, found, unlisted)


async def _check_redis(settings: Settings) -> list[CheckResult]:
    if settings.redis_url is None:
        return [CheckResult("redis", OK, "embedded, REDIS_URL is not set")]
    client = open_redis(settings.redis_url.get_secret_value())
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await cast("Any", client.ping())  # typed as maybe not awaitable, since a pipeline's is not
    except MasterNotFoundError:
        # The library's message prints its connections with all their parameters.
        return [CheckResult("redis", FAILED, "no sentinel that answers knows the master")]
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        refused = isinstance(error.__cause__, ConnectionRefusedError)
        reason = "connection refused" if refused else " ".join(str(error).split())
        return [CheckResult("redis", FAILED, reason or type(error).__name__)]
    finally:
        await client.aclose()
    return [CheckResult("redis", OK, f"answered in {(asyncio.get_running_loop().time() - began) * 1000:.0f} ms")]


async def _check_database(settings: Settings) -> list[CheckResult]:
    try:
        settings.prepare_data_dir()
        database = Database(resolve_url(settings))
        await database.start()
        await database.close()
    except (ConfigurationError, StartupError) as error:
        return [CheckResult("database", FAILED, " ".join(str(error).split()))]
    return [CheckResult("database", OK, database.name)]


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
        decoded: object = json.loads(response.content)
    except ValueError:
        decoded = None
    # JSON objects have string keys and values of any kind.
    answer = cast("dict[str, Any]", decoded) if isinstance(decoded, dict) else {}
    if response.status_code in {httpx2.codes.UNAUTHORIZED, httpx2.codes.NOT_FOUND}:
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
