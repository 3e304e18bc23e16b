"""Live model lists of each kind over HTTP, and the words for why there is none."""

import pytest
from pydantic import SecretStr

from core.config.providers import ProviderKind
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import MAX_BODY_BYTES, MAX_PAGES, Catalog, CatalogError, NoModelList
from tests.support.clock import ManualClock
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import KEY, MODELS, NETWORKED_KINDS, provider_at
from tests.support.fake_llm.server import LLMServer
from tests.support.routed_requests import ask

EACH_KIND = pytest.mark.parametrize("kind", NETWORKED_KINDS)


@pytest.fixture
def catalog(builder: ModelBuilder) -> Catalog:
    """A catalog over the models' own connections."""
    return Catalog(builder.http_client)


PATHS: dict[ProviderKind, list[str]] = {
    ProviderKind.OPENAI_COMPATIBLE: ["/v1/models"],
    ProviderKind.OPENAI: ["/v1/models"],
    ProviderKind.OLLAMA: ["/v1/models"],
    # the list is public, so the key is proven first
    ProviderKind.OPENROUTER: ["/api/v1/key", "/api/v1/models"],
    ProviderKind.AZURE_OPENAI: ["/openai/models"],
    ProviderKind.ANTHROPIC: ["/v1/models"],
    ProviderKind.GOOGLE: ["/v1beta/models"],
    ProviderKind.GROQ: ["/openai/v1/models"],
    ProviderKind.MISTRAL: ["/mistral/v1/models"],
    ProviderKind.DEEPSEEK: ["/models"],
}


@EACH_KIND
async def test_live_models(server: LLMServer, catalog: Catalog, kind: ProviderKind) -> None:
    """The request uses the kind's URL and key; the models keep the order of the response."""
    server.api_key = KEY
    server.models = ["big", "small"]
    models = await catalog.live_models(provider_at(server, kind))
    # Azure names no deployments: a good key proves the configured models
    assert models == ((MODELS[kind],) if kind is ProviderKind.AZURE_OPENAI else ("big", "small"))
    assert [request.path for request in server.other_requests] == PATHS[kind]


async def test_azure_is_asked_with_its_api_version(server: LLMServer, catalog: Catalog) -> None:
    """Azure answers 404 to a request without it."""
    await catalog.live_models(provider_at(server, ProviderKind.AZURE_OPENAI))
    assert server.other_requests[0].query == {"api-version": "2024-10-21"}


@EACH_KIND
async def test_list_is_asked_with_the_credentials_of_an_answer(
    server: LLMServer, builder: ModelBuilder, catalog: Catalog, kind: ProviderKind
) -> None:
    """A list that came proves that answers will be let through: same key, same place for it, same API version."""
    provider = provider_at(server, kind)
    await ask(builder.models[provider, provider.default_model])
    await catalog.live_models(provider)
    for name in ("authorization", "api-key", "x-api-key", "x-goog-api-key", "anthropic-version"):
        assert server.requests[0].headers.get(name) == server.other_requests[0].headers.get(name)


async def test_demo_lists_its_configured_models(server: LLMServer, catalog: Catalog) -> None:
    """The demo has no server to ask."""
    assert await catalog.live_models(provider_at(server, ProviderKind.DEMO)) == ("demo",)
    assert server.connections == 0


@pytest.mark.parametrize("kind", [ProviderKind.ANTHROPIC, ProviderKind.GOOGLE])
async def test_live_models_follows_pages(server: LLMServer, catalog: Catalog, kind: ProviderKind) -> None:
    """A list that is longer than a page comes whole."""
    server.models = [f"model-{number}" for number in range(1500)]
    assert await catalog.live_models(provider_at(server, kind)) == tuple(server.models)
    assert len(server.other_requests) == 2


@pytest.mark.parametrize("kind", [ProviderKind.ANTHROPIC, ProviderKind.GOOGLE])
async def test_live_models_stops_after_the_maximum_of_pages(
    server: LLMServer, catalog: Catalog, kind: ProviderKind
) -> None:
    """A server that always says there is more is asked a bounded number of times."""
    page = {"data": [{"id": "m"}], "has_more": True, "last_id": "m", "models": [], "nextPageToken": "again"}
    server.models_behaviour = llm.Act(lambda exchange: exchange.body(page))
    await catalog.live_models(provider_at(server, kind))
    assert len(server.other_requests) == MAX_PAGES


# (kind, the listed entries, the models returned)
CHATTING: list[tuple[ProviderKind, dict[str, object], tuple[str, ...]]] = [
    (
        ProviderKind.GOOGLE,
        {
            "models": [
                {"name": "models/gemini-2.5-flash", "supportedGenerationMethods": ["generateContent", "countTokens"]},
                {"name": "models/gemini-embedding-001", "supportedGenerationMethods": ["embedContent"]},
                {"name": "models/gemini-3-pro"},  # nothing said against it
            ]
        },
        ("gemini-2.5-flash", "gemini-3-pro"),
    ),
    (ProviderKind.GROQ, {"data": [{"id": "llama", "active": True}, {"id": "gone", "active": False}]}, ("llama",)),
    (
        ProviderKind.MISTRAL,
        {
            "data": [
                {"id": "mistral-small-2603", "capabilities": {"completion_chat": True}},
                {"id": "mistral-small-latest", "capabilities": {"completion_chat": True}},
                {"id": "mistral-small-2603", "capabilities": {"completion_chat": True}},  # again, for its alias
                {"id": "mistral-embed", "capabilities": {"completion_chat": False}},
            ]
        },
        ("mistral-small-2603", "mistral-small-latest"),
    ),
]


@pytest.mark.parametrize(("kind", "page", "expected"), CHATTING)
async def test_live_models_skips_models_without_chat(
    server: LLMServer, catalog: Catalog, kind: ProviderKind, page: dict[str, object], expected: tuple[str, ...]
) -> None:
    """Models that a list marks as embedding only or as taken away are left out, and none comes twice."""
    server.models_behaviour = llm.Act(lambda exchange: exchange.body(page))
    assert await catalog.live_models(provider_at(server, kind)) == expected


@pytest.mark.parametrize(
    ("kind", "suffix", "path"),
    [
        (ProviderKind.GOOGLE, "/v1beta", "/v1beta/models"),
        (ProviderKind.GROQ, "/openai/v1", "/openai/v1/models"),
        (ProviderKind.MISTRAL, "/v1", "/v1/models"),
        (ProviderKind.ANTHROPIC, "/v1", "/v1/models"),
        (ProviderKind.DEEPSEEK, "/v1", "/v1/models"),
    ],
)
async def test_base_url_may_include_the_version(
    server: LLMServer, builder: ModelBuilder, catalog: Catalog, kind: ProviderKind, suffix: str, path: str
) -> None:
    """As other programs want it: neither the list nor an answer is asked for below /v1/v1."""
    provider = provider_at(server, kind, base_url=server.root + suffix)
    await ask(builder.models[provider, provider.default_model])
    server.models_behaviour = llm.Act(lambda exchange: exchange.body({"data": [], "models": []}))
    await catalog.live_models(provider)
    assert server.requests[0].path.startswith(f"{suffix}/")
    assert server.requests[0].path.count("/v1") == 1
    assert server.other_requests[0].path == path


@EACH_KIND
async def test_wrong_key(server: LLMServer, catalog: Catalog, kind: ProviderKind) -> None:
    """A refused key is reported, for OpenRouter too, whose list is public."""
    server.api_key = "another"
    with pytest.raises(CatalogError) as caught:
        await catalog.live_models(provider_at(server, kind))
    status = 400 if kind is ProviderKind.GOOGLE else 401
    assert caught.value.reason.startswith(f"HTTP {status}: the API key was refused (")


async def test_missing_key(server: LLMServer, catalog: Catalog) -> None:
    """A server that wants a key where none is set is told from a wrong one."""
    server.api_key = "secret"
    with pytest.raises(CatalogError, match=r"^HTTP 401: it wants an API key \(Incorrect API key provided\.\)$"):
        await catalog.live_models(provider_at(server, api_key=None))


FAULTS: list[tuple[llm.Behaviour, str]] = [
    (llm.status(404, {"error": {"message": "no route"}}), "HTTP 404: no route"),
    (llm.status(404, {"error": "not here"}), "HTTP 404: not here"),  # Ollama's form
    (llm.html_page(502), "HTTP 502: Just a moment..."),  # the title of the page
    (llm.status(502, {}), "HTTP 502: Scripted"),  # nothing readable: the status line's own words
    # a key that is repeated, whole or masked by the provider, does not get through
    (llm.status(403, {"error": {"message": f"key {KEY} may not"}}), "HTTP 403: key *** may not"),
    (llm.status(403, {"error": {"message": "key sk-loop****6789 may not"}}), "HTTP 403: key *** may not"),
    (llm.status(403, {"error": {"message": "key gsk_abc123XYZ may not"}}), "HTTP 403: key *** may not"),
    (llm.status(403, {"error": {"message": "key AIzaSyD-abc_1 may not"}}), "HTTP 403: key *** may not"),
    (llm.status(500, {"error": {"message": "x" * 500}}), "HTTP 500: " + "x" * 299 + "…"),
    (llm.html_page(200), "answered with something that is not JSON"),
    (llm.Act(lambda exchange: exchange.body(b"[]")), "answered with something that is not a model list"),
    (llm.Act(lambda exchange: exchange.body({"data": None})), "answered with something that is not a model list"),
    (llm.Act(lambda exchange: exchange.body(b" " * (MAX_BODY_BYTES + 1))), "answered with more than 4 MB"),
    (llm.reset(), "connection reset"),
    (llm.closed_without_answer(), "connection closed without an answer"),
    (llm.hang(), "timed out after 0.2 s"),
    (llm.hang_after_headers(), "timed out after 0.2 s"),
]


@pytest.mark.parametrize(("behaviour", "reason"), FAULTS, ids=[reason[:40] for _, reason in FAULTS])
async def test_live_models_raises_with_a_short_reason(
    server: LLMServer, catalog: Catalog, behaviour: llm.Behaviour, reason: str
) -> None:
    """Each failure has a short reason."""
    server.models_behaviour = behaviour
    timeout_s = 0.2 if reason.startswith("timed out") else 5
    with pytest.raises(CatalogError) as caught:
        await catalog.live_models(provider_at(server), timeout_s=timeout_s)
    assert caught.value.reason == reason


async def test_live_models_raises_with_the_reason_of_a_failed_connection(server: LLMServer, catalog: Catalog) -> None:
    """Refused, unknown host, no TLS, invalid URL: each has its reason."""
    tls = server.url.replace("http://", "https://")
    with llm.refusing_url() as refusing:
        expected = {
            refusing: "connection refused",
            llm.NO_SUCH_HOST_URL: "host not found",
            tls: "TLS failed",
            "ftp://127.0.0.1": "the base URL is not a web address",
        }
        for url, reason in expected.items():
            with pytest.raises(CatalogError) as caught:
                await catalog.live_models(provider_at(server, base_url=url))
            assert caught.value.reason == reason


async def test_unusable_provider_is_not_requested(server: LLMServer, catalog: Catalog) -> None:
    """The missing variable is the reason."""
    with pytest.raises(CatalogError, match=r"^OPENAI_API_KEY is not set$"):
        await catalog.live_models(provider_at(server, missing="OPENAI_API_KEY is not set", api_key=None))
    assert server.connections == 0


async def test_key_stays_out_of_the_error(server: LLMServer, catalog: Catalog) -> None:
    """Neither the message nor the representation of an error shows the key."""
    server.models_behaviour = llm.status(400, {"error": {"message": "bad key plainsecret"}})
    with pytest.raises(CatalogError) as caught:
        await catalog.live_models(provider_at(server, api_key=SecretStr("plainsecret")))
    assert "plainsecret" not in f"{caught.value} {caught.value!r}"


async def test_reason_holds_the_servers_words_without_the_key(server: LLMServer, catalog: Catalog) -> None:
    """A server repeats the key in another field, or in part."""
    for body in ({"error": {"message": "no", "code": KEY}}, {"error": f"wrong: {KEY[:9]}***{KEY[-3:]}"}):
        server.models_behaviour = llm.status(401, body)
        with pytest.raises(CatalogError) as caught:
            await catalog.live_models(provider_at(server))
        assert caught.value.reason in {
            "HTTP 401: the API key was refused (no)",
            "HTTP 401: the API key was refused (wrong: ***)",
        }


NO_ROUTE = llm.status(404, {"detail": "Not Found"})
UNEXPECTED = llm.Act(lambda exchange: exchange.body({"error": "Unexpected endpoint or method. (GET /models)"}))
"""LM Studio's answer to a path that it does not know, with a 200."""


@pytest.mark.parametrize("behaviour", [NO_ROUTE, UNEXPECTED, llm.html_page(200)])
async def test_base_url_without_the_version_is_named_where_it_gives_no_list(
    server: LLMServer, catalog: Catalog, behaviour: llm.Behaviour
) -> None:
    """With it, and for kinds whose SDK appends it, nothing is suggested."""
    server.models_behaviour = behaviour
    hint = f"MY_LAB_BASE_URL has no /v1 at its end, try MY_LAB_BASE_URL={server.root}/v1"
    for provider, expected in (
        (provider_at(server, id="my-lab", base_url=server.root), True),
        (provider_at(server, id="my-lab", base_url=f"{server.root}/v1"), False),
        (provider_at(server, id="my-lab", base_url=f"{server.root}/api/v4/x"), False),
        (provider_at(server, ProviderKind.GROQ, id="my-lab"), False),
    ):
        with pytest.raises(NoModelList) as caught:
            await catalog.live_models(provider)
        assert (hint in caught.value.reason) is expected


async def test_recent_models_are_cached_for_a_minute(server: LLMServer, builder: ModelBuilder) -> None:
    """A failure is not, and neither is the list of the provider before its settings changed."""
    clock = ManualClock()
    catalog = Catalog(builder.http_client, clock)
    provider = provider_at(server)
    server.models_behaviour = llm.status(500)
    with pytest.raises(CatalogError):
        await catalog.recent_models(provider)
    server.models_behaviour = None
    assert await catalog.recent_models(provider) == ("m", "n")
    server.models = ["other"]
    await clock.advance(59)
    assert await catalog.recent_models(provider) == ("m", "n")
    assert await catalog.recent_models(provider_at(server, timeout_s=5)) == ("other",)
    await clock.advance(2)
    assert await catalog.recent_models(provider) == ("other",)
    server.models = ["newest"]
    assert await catalog.live_models(provider) == ("newest",)
    assert await catalog.recent_models(provider) == ("newest",)
