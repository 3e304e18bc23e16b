"""The checks of a provider before it is saved, and the search for servers on this machine, over HTTP."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from core.clock import SystemClock
from core.config.providers import ProviderKind, ProviderSettings
from services.llm.models.inspection import Aspect, Grade, ProviderInspector
from services.llm.models.trial import ProviderTrial
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import Catalog
from services.llm.providers.local_servers import find_local_servers
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer

pytestmark = pytest.mark.integration

OK, NOTE, FAILED = Grade.OK, Grade.NOTE, Grade.FAILED


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    """A server that answers."""
    async with LLMServer() as server:
        server.default = llm.answer("OK")
        yield server


async def inspect(url: str, models: tuple[str, ...] = ("m",), key: str | None = "kx-secret") -> dict[Aspect, Grade]:
    """Return the grade of each aspect; no report contains the key."""
    provider = ProviderSettings(
        id="new",
        kind=ProviderKind.OPENAI_COMPATIBLE,
        models=models,
        base_url=url,
        api_key=SecretStr(key) if key else None,
    )
    async with aclosing(ModelBuilder()) as builder:
        trial = ProviderTrial(builder, SystemClock(), 300)
        reports = await ProviderInspector(Catalog(builder.http_client), trial, SystemClock()).inspect(provider)
    assert "kx-secret" not in str(reports)
    return {report.aspect: report.grade for report in reports}


def refuse(part: str) -> llm.Behaviour:
    """Refuse requests whose body contains a text, and answer the others."""

    async def play(exchange: llm.Exchange) -> None:
        is_refused = part in str(exchange.request.json)
        await (llm.status(400, {"error": {"message": f"{part} unsupported"}}) if is_refused else llm.answer("OK")).play(
            exchange
        )

    return llm.Act(play)


async def test_every_aspect_of_a_good_provider_is_ok(server: LLMServer) -> None:
    assert await inspect(server.url) == dict.fromkeys(Aspect, OK)
    assert "image_url" in str(server.requests[-1].json)


async def test_provider_without_vision_or_tools_works_without_them(server: LLMServer) -> None:
    server.default = refuse("image_url")
    grades = await inspect(server.url)
    assert grades == {**dict.fromkeys(Aspect, OK), Aspect.VISION: NOTE}
    server.default = refuse("current_time")
    grades = await inspect(server.url)
    assert (grades[Aspect.ANSWER], grades[Aspect.TOOLS], grades[Aspect.STREAMING]) == (OK, NOTE, OK)


async def test_rejected_key_ends_the_inspection(server: LLMServer) -> None:
    server.models_behaviour = llm.status(401, {"error": {"message": "Incorrect API key provided: kx-secret"}})
    assert await inspect(server.url) == {Aspect.SERVER: OK, Aspect.KEY: FAILED}


async def test_model_that_the_server_lacks_is_named_and_the_next_one_asked(server: LLMServer) -> None:
    grades = await inspect(server.url, models=("absent", "n"))
    assert (grades[Aspect.MODELS], grades[Aspect.ANSWER]) == (FAILED, OK)
    assert server.requests[-1].json is not None
    assert server.requests[-1].json["model"] == "n"


async def test_server_without_a_list_is_asked_all_the_same(server: LLMServer) -> None:
    server.models_behaviour = llm.status(404)
    grades = await inspect(server.url)
    assert (grades[Aspect.MODELS], grades[Aspect.ANSWER]) == (NOTE, OK)


async def test_server_that_is_not_there_is_the_only_report() -> None:
    with llm.refusing_url() as url:
        assert await inspect(url) == {Aspect.SERVER: FAILED}


async def test_local_servers_are_found_with_their_models(server: LLMServer) -> None:
    async with LLMServer(api_key="secret") as guarded, LLMServer() as own, aclosing(ModelBuilder()) as builder:
        urls = {"a": server.url, "b": guarded.url, "c": own.url}
        with llm.refusing_url() as refusing:
            ports = {urlsplit(url).port or 0: name for name, url in {**urls, "d": refusing}.items()}
            found = await find_local_servers(Catalog(builder.http_client), ports, own_port=urlsplit(own.url).port)
    assert [(each.name, tuple(each.models), each.wants_key) for each in found] == [
        ("a", ("m", "n"), False),
        ("b", (), True),
    ]
