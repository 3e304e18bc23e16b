"""Provider settings that point at a loopback LLM server, one for each kind."""

from typing import Any

from pydantic import SecretStr

from core.config.providers import ProviderKind, ProviderSettings
from tests.support.fake_llm.server import LLMServer

KEY = "sk-loopback-0123456789"
NETWORKED_KINDS = tuple(kind for kind in ProviderKind if kind is not ProviderKind.DEMO)

MODELS: dict[ProviderKind, str] = {
    ProviderKind.OPENAI_COMPATIBLE: "m",
    ProviderKind.OPENAI: "gpt-4o",
    ProviderKind.OLLAMA: "llama3.2",
    ProviderKind.OPENROUTER: "openai/gpt-4o",
    ProviderKind.AZURE_OPENAI: "gpt-4o",
    ProviderKind.ANTHROPIC: "claude-test",
    ProviderKind.GOOGLE: "gemini-2.5-flash",
    ProviderKind.GROQ: "llama-3.3-70b-versatile",
    ProviderKind.MISTRAL: "mistral-small-latest",
    ProviderKind.DEEPSEEK: "deepseek-chat",
}


def provider_at(
    server: LLMServer, kind: ProviderKind = ProviderKind.OPENAI_COMPATIBLE, **changes: object
) -> ProviderSettings:
    """A provider of that kind whose base URL, key and default model fit the server."""
    base_urls = {
        ProviderKind.OPENROUTER: server.openrouter_url,
        ProviderKind.AZURE_OPENAI: server.root,
        ProviderKind.ANTHROPIC: server.root,
        ProviderKind.GOOGLE: server.root,
        ProviderKind.GROQ: server.root,
        ProviderKind.MISTRAL: server.mistral_url,
        ProviderKind.DEEPSEEK: server.root,
    }
    model = MODELS.get(kind, "demo")
    settings: dict[str, Any] = {
        "id": str(kind),
        "kind": kind,
        "models": (model,),
        "base_url": base_urls.get(kind, server.url),
        "api_key": SecretStr(KEY),
        "remote": False,
    }
    if kind is ProviderKind.AZURE_OPENAI:
        settings |= {"api_version": "2024-10-21", "deployments": {model: "chat-prod"}}
    return ProviderSettings(**(settings | changes))
