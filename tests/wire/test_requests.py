"""Requests to each provider kind: path, authentication, model, messages, stream flag, tools, limits."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from core.config.providers import ProviderKind
from services.llm.providers.builder import ModelBuilder
from tests.support.fake_llm.providers import KEY, MODELS, NETWORKED_KINDS, provider_at
from tests.support.fake_llm.server import LLMServer, answer, status
from tests.support.routed_requests import TIME_TOOL, ask


@dataclass(frozen=True)
class Shape:
    """Path and credentials of a request."""

    path: str
    auth: tuple[str, str]
    model: str
    query: dict[str, str]


BEARER = ("authorization", f"Bearer {KEY}")
SHAPES = {
    ProviderKind.OPENAI_COMPATIBLE: Shape("/v1/chat/completions", BEARER, "m", {}),
    ProviderKind.OPENAI: Shape("/v1/chat/completions", BEARER, "gpt-4o", {}),
    ProviderKind.OLLAMA: Shape("/v1/chat/completions", BEARER, "llama3.2", {}),
    ProviderKind.OPENROUTER: Shape("/api/v1/chat/completions", BEARER, "openai/gpt-4o", {}),
    # Azure receives the deployment, in the path and in the body.
    ProviderKind.AZURE_OPENAI: Shape(
        "/openai/deployments/chat-prod/chat/completions", ("api-key", KEY), "chat-prod", {"api-version": "2024-10-21"}
    ),
    ProviderKind.ANTHROPIC: Shape("/v1/messages", BEARER, "claude-test", {}),
    ProviderKind.GOOGLE: Shape(
        "/v1beta/models/gemini-2.5-flash:generateContent", ("x-goog-api-key", KEY), "gemini-2.5-flash", {}
    ),
    ProviderKind.GROQ: Shape("/openai/v1/chat/completions", BEARER, "llama-3.3-70b-versatile", {}),
    ProviderKind.MISTRAL: Shape("/mistral/v1/chat/completions", BEARER, "mistral-small-latest", {}),
    ProviderKind.DEEPSEEK: Shape("/chat/completions", BEARER, "deepseek-chat", {}),
}
GEMINI_STREAM = replace(
    SHAPES[ProviderKind.GOOGLE], path="/v1beta/models/gemini-2.5-flash:streamGenerateContent", query={"alt": "sse"}
)
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
EACH_KIND = pytest.mark.parametrize("kind", NETWORKED_KINDS)


@EACH_KIND
@STREAMED
async def test_request_has_the_shape_of_its_kind(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, *, streamed: bool
) -> None:
    """Path, query, key, model, messages and stream flag are as the service expects."""
    await ask(builder.models[provider_at(server, kind), MODELS[kind]], "How are you?", streamed=streamed)

    (request,) = server.requests
    shape = GEMINI_STREAM if kind is ProviderKind.GOOGLE and streamed else SHAPES[kind]
    assert (request.path, request.query) == (shape.path, shape.query)
    assert request.headers[shape.auth[0]] == shape.auth[1]
    assert request.model == shape.model
    assert request.streamed is streamed
    (message,) = request.json["contents" if kind is ProviderKind.GOOGLE else "messages"]
    assert message["role"] == "user"
    assert "How are you?" in str(message["parts" if kind is ProviderKind.GOOGLE else "content"])


@EACH_KIND
async def test_tools_are_offered(server: LLMServer, builder: ModelBuilder, kind: ProviderKind) -> None:
    """A tool's name and schema reach the provider in its own wire format."""
    await ask(builder.models[provider_at(server, kind), MODELS[kind]], tools=(TIME_TOOL,))

    (tool,) = server.requests[0].json["tools"]
    match kind:
        case ProviderKind.ANTHROPIC:
            name, schema = tool["name"], tool["input_schema"]
        case ProviderKind.GOOGLE:
            (declared,) = tool["functionDeclarations"]
            name, schema = declared["name"], declared["parameters_json_schema"]
        case _:
            name, schema = tool["function"]["name"], tool["function"]["parameters"]
    assert name == "current_time"
    assert schema["properties"] == {"zone": {"type": "string"}}


# (kind, model, families, the field that carries the limit of an answer)
LIMITS: list[tuple[ProviderKind, str, dict[str, str], str]] = [
    (ProviderKind.OPENAI, "gpt-4o", {}, "max_completion_tokens"),
    (ProviderKind.AZURE_OPENAI, "gpt-4o", {}, "max_completion_tokens"),
    (ProviderKind.ANTHROPIC, "claude-test", {}, "max_tokens"),
    # OpenRouter, Ollama and most local servers know the old field only
    (ProviderKind.OPENROUTER, "openai/gpt-4o", {}, "max_tokens"),
    (ProviderKind.OLLAMA, "llama3.2", {}, "max_tokens"),
    (ProviderKind.OPENAI_COMPATIBLE, "m", {}, "max_tokens"),
    (ProviderKind.GROQ, "llama-3.3-70b-versatile", {}, "max_tokens"),
    (ProviderKind.GROQ, "openai/gpt-oss-120b", {}, "max_tokens"),
    (ProviderKind.MISTRAL, "mistral-small-latest", {}, "max_tokens"),
    (ProviderKind.DEEPSEEK, "deepseek-chat", {}, "max_tokens"),
    # ... unless a gateway passes on a family that refuses it
    (ProviderKind.OPENAI_COMPATIBLE, "gpt-5-mini", {}, "max_completion_tokens"),
    (ProviderKind.OPENAI_COMPATIBLE, "smart", {"smart": "o3"}, "max_completion_tokens"),
]


@pytest.mark.parametrize(("kind", "model", "families", "field"), LIMITS)
async def test_limit_of_an_answer_goes_into_the_field_that_the_service_knows(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, model: str, families: dict[str, str], field: str
) -> None:
    """`max_tokens` of the settings is sent once, under the right name."""
    provider = provider_at(server, kind, models=(model,), families=families)
    await ask(builder.models[provider, model], settings={"max_tokens": 9})

    sent = server.requests[0].json
    assert {name: sent[name] for name in ("max_tokens", "max_completion_tokens") if name in sent} == {field: 9}


async def test_limit_of_an_answer_on_googles_wire(server: LLMServer, builder: ModelBuilder) -> None:
    """There the limit has a place and a name of its own."""
    await ask(builder.models[provider_at(server, ProviderKind.GOOGLE), "gemini-2.5-flash"], settings={"max_tokens": 9})
    assert server.requests[0].json["generationConfig"]["maxOutputTokens"] == 9


async def test_anthropic_always_gets_a_limit(server: LLMServer, builder: ModelBuilder) -> None:
    """The messages API refuses a request without `max_tokens`."""
    await ask(builder.models[provider_at(server, ProviderKind.ANTHROPIC), "claude-test"])
    assert server.requests[0].json["max_tokens"] > 0


@pytest.mark.parametrize(
    ("kind", "model", "families"),
    [
        (ProviderKind.OPENAI, "gpt-5-mini", {}),
        # the deployment's name hides the family: the settings tell it
        (ProviderKind.AZURE_OPENAI, "chat", {"chat": "gpt-5-mini"}),
        (ProviderKind.AZURE_OPENAI, "chat", {"chat-prod": "gpt-5-mini"}),
    ],
)
@pytest.mark.filterwarnings("ignore:Sampling parameters:UserWarning")
async def test_reasoning_family_gets_no_sampling_parameters(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, model: str, families: dict[str, str]
) -> None:
    """gpt-5 and the o-series answer 400 to a temperature: it is left out for them."""
    changes: dict[str, Any] = {"models": (model,), "families": families}
    if kind is ProviderKind.AZURE_OPENAI:
        changes["deployments"] = {model: "chat-prod"}
    await ask(builder.models[provider_at(server, kind, **changes), model], settings={"temperature": 0.2})
    assert "temperature" not in server.requests[0].json


async def test_deployment_without_a_family_uses_its_own_name(server: LLMServer, builder: ModelBuilder) -> None:
    """Without a family nothing is known against a temperature, so it is sent."""
    provider = provider_at(server, ProviderKind.AZURE_OPENAI, models=("chat",), deployments={"chat": "chat-prod"})
    await ask(builder.models[provider, "chat"], settings={"temperature": 0.2})
    assert server.requests[0].json["temperature"] == 0.2


async def test_server_without_authentication_needs_no_key(server: LLMServer, builder: ModelBuilder) -> None:
    """A compatible server needs no key; no key of another program is sent to it either."""
    response = await ask(builder.models[provider_at(server, api_key=None), "m"])
    assert response.text == "Hello"
    assert server.requests[0].headers["authorization"] == "Bearer no-key"


@EACH_KIND
async def test_environment_of_the_sdks_does_not_leak(
    server: LLMServer,
    builder: ModelBuilder,
    kind: ProviderKind,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """Variables that were set for other programs change neither address, nor key, nor headers, nor the log."""
    for name in (
        "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "AZURE_OPENAI_ENDPOINT", "OLLAMA_BASE_URL", "HTTP_PROXY",
        "GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL", "GROQ_BASE_URL",
    ):  # fmt: skip
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE", "MISTRAL_DEBUG"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("GOOGLE_GENAI_CLIENT_MODE", "replay")
    monkeypatch.setenv("GOOGLE_GENAI_REPLAYS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("GOOGLE_GENAI_REPLAY_ID", "leaked")
    monkeypatch.setenv("MISTRAL_SDK_TELEMETRY", "dedicated")
    (tmp_path / "token").write_text("leaked")
    monkeypatch.setenv("MISTRAL_SA_TOKEN_PATH", str(tmp_path / "token"))
    for name in (
        "OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_VERSION",
        "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN",
        "OLLAMA_API_KEY", "OPENROUTER_API_KEY", "OPENROUTER_APP_URL", "OPENROUTER_APP_TITLE", "GOOGLE_API_KEY",
        "GEMINI_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GROQ_API_KEY", "MISTRAL_API_KEY",
        "DEEPSEEK_API_KEY",
    ):  # fmt: skip
        monkeypatch.setenv(name, "leaked")
    for name in ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS", "GROQ_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, "X-Other: leaked\nAuthorization: Bearer leaked")

    with caplog.at_level("DEBUG", "mistralai"):
        await ask(builder.models[provider_at(server, kind), MODELS[kind]], "my secret")

    (request,) = server.requests
    assert "leaked" not in str(request)
    assert (request.path, request.bearer) == (SHAPES[kind].path, KEY)
    # Mistral's SDK logs bodies once its own debug variable is set; others are held by our log set-up.
    assert not [record for record in caplog.records if record.name.startswith("mistralai")]


@EACH_KIND
@pytest.mark.parametrize("code", [408, 429, 500, 503])
async def test_sdk_does_not_retry(server: LLMServer, builder: ModelBuilder, kind: ProviderKind, code: int) -> None:
    """Retries are up to the fallback: one call is one request."""
    server.default = status(code, headers={"retry-after": "1"})
    with pytest.raises(RuntimeError):
        await ask(builder.models[provider_at(server, kind), MODELS[kind]])
    assert len(server.requests) == 1


@EACH_KIND
async def test_connection_is_kept_and_shared_by_models_of_a_provider(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind
) -> None:
    """Requests that follow each other go through one connection, whichever model they are for."""
    first = MODELS[kind]
    deployments = {first: "one", f"{first}-2": "two"} if kind is ProviderKind.AZURE_OPENAI else {}
    provider = provider_at(server, kind, deployments=deployments)
    for model in (first, f"{first}-2", first):
        for streamed in (False, True):
            server.script(answer("Yes"))
            await ask(builder.models[provider, model], streamed=streamed)
    assert (len(server.requests), server.connections) == (6, 1)
