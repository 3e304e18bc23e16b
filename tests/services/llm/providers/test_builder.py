"""ModelBuilder: lazy construction, cache, profiles by family, timeouts, facts about models."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel

from core.config.providers import ProviderKind, ProviderSettings
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.spec import accepts_images, model_family
from tests.support.clock import settle
from tests.support.fake_llm.providers import MODELS, NETWORKED_KINDS, provider_at
from tests.support.fake_llm.server import LLMServer

pytestmark = pytest.mark.integration

SDKS: dict[ProviderKind, str] = {
    ProviderKind.ANTHROPIC: "anthropic",
    ProviderKind.GOOGLE: "google.genai",
    ProviderKind.GROQ: "groq",
    ProviderKind.MISTRAL: "mistralai",
}
"""The kinds that speak through an SDK of their own; all others through OpenAI's."""
SDK_NAMES = {"openai", *SDKS.values()}
MEASURED = [*SDKS, ProviderKind.DEEPSEEK]
OPENAI_WIRE = [kind for kind in NETWORKED_KINDS if kind not in SDKS]


@pytest.fixture
async def builder() -> AsyncIterator[ModelBuilder]:
    """A builder without connections left at the end."""
    built = ModelBuilder()
    yield built
    await built.aclose()


def provider(kind: ProviderKind, **changes: object) -> ProviderSettings:
    """A provider that is never asked anything."""
    return provider_at(LLMServer(port=1), kind, **changes)


def test_no_sdk_is_imported_before_it_is_needed() -> None:
    """Importing the builder costs no SDK: the console starts without them."""
    code = f"import sys, services.llm.providers.builder; print(*({SDK_NAMES!r} & set(sys.modules)))"
    assert run(code).split() == []


@pytest.fixture(scope="module")
def imported_by_kind() -> dict[str, set[str]]:
    """The SDKs that are imported for a model of each kind, in a copy of an interpreter that has imported the rest."""
    code = f"""
import os, sys
from services.llm.providers.builder import ModelBuilder
from tests.support.fake_llm.providers import MODELS, ProviderKind, provider_at
from tests.support.fake_llm.server import LLMServer
for name in {[kind.value for kind in MEASURED]!r}:
    if os.fork() == 0:
        kind = ProviderKind(name)
        ModelBuilder().models[provider_at(LLMServer(port=1), kind), MODELS[kind]]
        print(name, *({SDK_NAMES!r} & set(sys.modules)), flush=True)
        os._exit(0)
    os.wait()
"""
    lines = run(code).splitlines()
    return {kind: set(names) for kind, *names in map(str.split, lines)}


@pytest.mark.parametrize("kind", MEASURED)
def test_only_the_sdk_of_a_configured_kind_is_imported(
    imported_by_kind: dict[str, set[str]], kind: ProviderKind
) -> None:
    """Each takes up to two seconds and 30 MB."""
    assert imported_by_kind[kind.value] == {SDKS.get(kind, "openai")}


def run(code: str) -> str:
    """Return the output of a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


async def test_model_is_built_once(builder: ModelBuilder) -> None:
    """The same name is the same object, another name another, over the same connections."""
    one = provider(ProviderKind.OPENAI_COMPATIBLE, id="one", models=("m", "n"))
    other = provider(ProviderKind.OPENAI_COMPATIBLE, id="other")
    assert builder.models[one, "m"] is builder.models[one, "m"]
    assert builder.models[one, "m"] is not builder.models[one, "n"]
    assert builder.models[one, "m"] is not builder.models[other, "m"]
    assert builder.http_client(one) is builder.http_client(one)
    assert builder.http_client(one) is not builder.http_client(other)


async def test_closing_closes_every_client() -> None:
    """No connection outlives the builder."""
    built = ModelBuilder()
    clients = [built.http_client(provider(kind)) for kind in ProviderKind]
    await built.aclose()
    assert all(client.is_closed for client in clients)
    with pytest.raises(RuntimeError, match="closed"):
        built.http_client(provider(ProviderKind.OPENAI))


async def test_cancelled_closing_closes_every_client() -> None:
    """Of the settings in use and of former ones, whichever of them is being closed when the cancellation arrives."""
    built = ModelBuilder()
    used, former = provider(ProviderKind.OPENAI), provider(ProviderKind.GROQ)
    clients = [built.http_client(each) for each in (used, former)]
    built.keep_only([used])
    pause = asyncio.Event()
    for client in clients:
        client._transport.aclose = pause.wait
    closing = asyncio.create_task(built.aclose())
    await settle()
    closing.cancel()
    await settle()
    pause.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert all(client.is_closed for client in clients)


@pytest.mark.parametrize("kind", ProviderKind)
async def test_every_kind_has_a_builder(builder: ModelBuilder, kind: ProviderKind) -> None:
    """No kind of the settings is forgotten."""
    assert isinstance(builder.models[provider(kind), MODELS.get(kind, "demo")], Model)


async def test_unusable_provider_is_not_built(builder: ModelBuilder) -> None:
    """The missing variable is named, in place of the error of an SDK."""
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        builder.models[provider(ProviderKind.OPENAI, missing="OPENAI_API_KEY is not set"), "gpt-4o"]


@pytest.mark.parametrize("kind", OPENAI_WIRE)
@pytest.mark.parametrize("family", [None, "gpt-5-mini"])
async def test_finish_reason_is_required_for_every_family(
    builder: ModelBuilder, kind: ProviderKind, family: str | None
) -> None:
    """A cut stream must not pass for a whole answer, under any merged profile."""
    name = MODELS[kind]
    families = {} if family is None else {name: f"openai/{family}" if kind is ProviderKind.OPENROUTER else family}
    model = builder.models[provider(kind, families=families), name]
    assert model.profile.get("openai_chat_streaming_requires_finish_reason") is True


async def test_model_has_the_profile_of_its_family(builder: ModelBuilder) -> None:
    """A deployment is described by its family, down to the context window; the wire still has its own name."""
    azure = provider(
        ProviderKind.AZURE_OPENAI,
        models=("chat", "gpt-5-mini"),
        deployments={"chat": "gpt-4o-prod", "gpt-5-mini": "x"},
        families={"chat": "gpt-5-mini", "x": "gpt-5-mini"},
    )
    model = builder.models[azure, "chat"]
    known = OpenAIChatModel("gpt-5-mini", provider=model.provider)
    assert model.model_name == "gpt-4o-prod"
    assert {**known.profile, "openai_chat_streaming_requires_finish_reason": True} == model.profile
    assert builder.context_window(azure, "chat") == builder.context_window(azure, "gpt-5-mini") is not None


# (kind, a model whose profile differs from that of an unknown one)
NATIVE_FAMILIES: list[tuple[ProviderKind, str]] = [
    (ProviderKind.ANTHROPIC, "claude-sonnet-4-5"),
    (ProviderKind.GOOGLE, "gemini-3-pro-preview"),
    (ProviderKind.GROQ, "openai/gpt-oss-120b"),
    (ProviderKind.MISTRAL, "mistral-small-latest"),
]


@pytest.mark.parametrize(("kind", "family"), NATIVE_FAMILIES)
async def test_model_has_the_profile_of_its_family_with_every_sdk(
    builder: ModelBuilder, kind: ProviderKind, family: str
) -> None:
    """The same for kinds with their own SDK: a fine-tuned model has the profile of its base."""
    mine = provider(kind, models=("tuned", family, "unknown"), families={"tuned": family})
    tuned = builder.models[mine, "tuned"]
    assert tuned.model_name == "tuned"
    assert tuned.profile == builder.models[mine, family].profile
    assert tuned.profile != builder.models[mine, "unknown"].profile


async def test_client_timeouts_exceed_those_of_the_provider(builder: ModelBuilder) -> None:
    """Connecting is short; reading is longer than any deadline that the fallback keeps."""
    client = builder.http_client(
        provider(ProviderKind.OPENAI, timeout_s=90, first_token_timeout_s=3, stall_timeout_s=120)
    )
    assert client.timeout.connect == 3
    assert client.timeout.read is not None
    assert client.timeout.read > 120


async def test_proxies_of_the_environment_are_for_remote_providers_only(
    builder: ModelBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model on loopback is reached directly, however the operator reaches the internet."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    assert not builder.http_client(provider(ProviderKind.OLLAMA, remote=False)).trust_env
    assert builder.http_client(provider(ProviderKind.OPENAI, remote=True)).trust_env


# (kind, model, known?)
WINDOWS: list[tuple[ProviderKind, str, bool]] = [
    (ProviderKind.OPENAI, "gpt-5-mini", True),
    (ProviderKind.OPENROUTER, "openai/gpt-4o", True),
    (ProviderKind.ANTHROPIC, "claude-sonnet-4-5", True),
    (ProviderKind.GOOGLE, "gemini-2.5-flash", True),
    (ProviderKind.GROQ, "openai/gpt-oss-120b", True),
    (ProviderKind.MISTRAL, "codestral-latest", True),
    (ProviderKind.MISTRAL, "mistral-large-latest", False),
    # Ollama's window is its configuration's, not the model's
    (ProviderKind.OLLAMA, "llama3.2", False),
    (ProviderKind.OPENAI_COMPATIBLE, "m", False),
    (ProviderKind.DEMO, "demo", False),
]


@pytest.mark.parametrize(("kind", "model", "known"), WINDOWS)
async def test_context_window(builder: ModelBuilder, kind: ProviderKind, model: str, *, known: bool) -> None:
    """The window is the library's knowledge, or nothing."""
    window = builder.context_window(provider(kind), model)
    assert (window is not None and window > 100_000) if known else window is None


@pytest.mark.parametrize("kind", [ProviderKind.OLLAMA, ProviderKind.OPENAI])
async def test_context_window_of_the_operator_counts(builder: ModelBuilder, kind: ProviderKind) -> None:
    assert builder.context_window(provider(kind, contexts={"gpt-5-mini": 8192}), "gpt-5-mini") == 8192


def test_family_by_model_or_by_deployment() -> None:
    """FAMILIES may name either; the name itself is the last resort."""
    azure = provider(
        ProviderKind.AZURE_OPENAI,
        deployments={"a": "prod-a", "b": "prod-b", "c": "prod-c"},
        families={"a": "gpt-4o", "prod-b": "gpt-5"},
    )
    assert [model_family(azure, name) for name in "abc"] == ["gpt-4o", "gpt-5", "c"]


OLLAMA, LOCAL, OPENAI = ProviderKind.OLLAMA, ProviderKind.OPENAI_COMPATIBLE, ProviderKind.OPENAI
GOOGLE, GROQ, MISTRAL, DEEPSEEK = (
    ProviderKind.GOOGLE,
    ProviderKind.GROQ,
    ProviderKind.MISTRAL,
    ProviderKind.DEEPSEEK,
)
ROUTER, CLAUDE, AZURE = ProviderKind.OPENROUTER, ProviderKind.ANTHROPIC, ProviderKind.AZURE_OPENAI
EYES: list[tuple[ProviderKind, str, bool]] = [
    # first-party: newer models accept images, known exceptions do not
    (OPENAI, "gpt-4o", True),
    (OPENAI, "gpt-4.1-mini", True),
    (OPENAI, "gpt-5-mini", True),
    (OPENAI, "o3", True),
    (OPENAI, "o4-mini", True),
    (OPENAI, "gpt-9-something", True),
    (OPENAI, "gpt-3.5-turbo", False),
    (OPENAI, "gpt-4", False),
    (OPENAI, "gpt-4-0613", False),
    (OPENAI, "o1-mini", False),
    (OPENAI, "o3-mini", False),
    (OPENAI, "gpt-4o-audio-preview", False),
    (CLAUDE, "claude-sonnet-4-5", True),
    (CLAUDE, "claude-3-5-haiku-latest", True),
    (CLAUDE, "claude-2.1", False),
    (CLAUDE, "claude-instant-1.2", False),
    # elsewhere: known families, in every spelling
    (ROUTER, "openai/gpt-5-mini", True),
    (ROUTER, "anthropic/claude-sonnet-4.5", True),
    (ROUTER, "google/gemini-2.5-flash", True),
    (ROUTER, "meta-llama/llama-4-maverick", True),
    (ROUTER, "qwen/qwen2.5-vl-72b-instruct", True),
    (ROUTER, "mistralai/pixtral-12b", True),
    (ROUTER, "mistralai/mistral-medium-3.1", True),
    (ROUTER, "deepseek/deepseek-chat", False),
    (OLLAMA, "llava", True),
    (OLLAMA, "gemma3:27b", True),
    (OLLAMA, "gemma3:1b", False),
    (OLLAMA, "gemma3n:e4b", False),
    (OLLAMA, "llama3.2-vision:11b", True),
    (OLLAMA, "llama3.2", False),
    (OLLAMA, "llama3.2:3b", False),
    (OLLAMA, "llama4", True),
    (OLLAMA, "qwen2.5vl:7b", True),
    (OLLAMA, "qwen3-vl", True),
    (OLLAMA, "qwen3:8b", False),
    (OLLAMA, "mistral-small3.2", True),
    (OLLAMA, "gpt-oss", False),
    (LOCAL, "my-finetune", False),
    (LOCAL, "Qwen/Qwen2-VL-7B-Instruct", True),
    (GOOGLE, "gemini-2.5-flash", True),
    (GOOGLE, "gemini-3-pro-preview", True),
    (GOOGLE, "models/gemini-flash-latest", True),
    (GOOGLE, "gemini-1.0-pro", False),
    (GOOGLE, "gemini-2.5-flash-preview-tts", False),
    (GOOGLE, "gemma-3-27b-it", True),
    (GOOGLE, "gemma-3-1b-it", False),
    (GROQ, "meta-llama/llama-4-scout-17b-16e-instruct", True),
    (GROQ, "llama-3.3-70b-versatile", False),
    (GROQ, "openai/gpt-oss-120b", False),
    (MISTRAL, "mistral-small-latest", True),
    (MISTRAL, "mistral-small-2603", True),
    (MISTRAL, "mistral-small-2402", False),
    (MISTRAL, "mistral-medium-latest", True),
    (MISTRAL, "mistral-large-2411", False),
    (MISTRAL, "mistral-large-latest", True),
    (MISTRAL, "mistral-large-4-0", True),
    (MISTRAL, "ministral-8b-latest", True),
    (MISTRAL, "ministral-3b-2410", False),
    (MISTRAL, "ministral-14b-2512", True),
    (MISTRAL, "codestral-latest", False),
    (OLLAMA, "ministral-3:8b", True),
    (DEEPSEEK, "deepseek-chat", False),
    (DEEPSEEK, "deepseek-reasoner", False),
    (AZURE, "chat-prod", False),
    (ProviderKind.DEMO, "demo", False),
]


@pytest.mark.parametrize(("kind", "model", "sees"), EYES)
def test_accepts_images_judges_by_the_family(kind: ProviderKind, model: str, *, sees: bool) -> None:
    """Models that get pictures, and models that do not."""
    assert accepts_images(provider(kind, deployments={}), model) is sees


def test_accepts_images_uses_the_family_of_a_deployment() -> None:
    """A deployment accepts images if its family does."""
    assert accepts_images(provider(AZURE, families={"chat-prod": "gpt-4o"}), "gpt-4o")
    assert accepts_images(provider(AZURE, deployments={"x": "y"}, families={"x": "gpt-5-mini"}), "x")
