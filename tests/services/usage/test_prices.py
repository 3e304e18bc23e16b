"""Prices: cost of a request, unknown prices."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic_ai.usage import RequestUsage
from structlog.testing import capture_logs

from core.config.providers import Price, ProviderKind, ProviderSettings
from services.llm.request import RequestSpec
from services.llm.usage import RequestEnd, RequestReport, TokenUse
from services.usage.prices import Prices

AT = 1_800_000_000.0


def report(model: str, usage: RequestUsage | None = None, **provider: Any) -> RequestReport:
    used = usage if usage is not None else RequestUsage(input_tokens=1000, output_tokens=100)
    settings: dict[str, Any] = {"id": "p", "kind": ProviderKind.OPENAI, "models": (model,), **provider}
    return RequestReport(
        at=AT,
        provider=ProviderSettings(**settings),
        model=model,
        spec=RequestSpec("chat"),
        end=RequestEnd.ANSWERED,
        is_failure=False,
        used=TokenUse(used),
    )


AZURE = {"kind": ProviderKind.AZURE_OPENAI, "deployments": {"ours": "chat-prod"}}
MINI = 450_000
"""1,000 tokens at $0.25 and 100 at $2 a million, in billionths of a dollar."""


@pytest.mark.parametrize(
    ("model", "provider", "nanousd"),
    [
        ("gpt-5-mini", {}, MINI),
        ("gpt-5-mini-2025-08-07", {}, MINI),  # a dated name of the same model
        # A deployment's name hides the model; the family, by either name, does not.
        ("ours", {**AZURE, "families": {"ours": "gpt-5-mini"}}, MINI),
        ("ours", {**AZURE, "families": {"chat-prod": "gpt-5-mini"}}, MINI),
        ("ours", AZURE, None),
        ("openai/gpt-4o", {"kind": ProviderKind.OPENROUTER}, 3_500_000),
        ("llama-3.3-70b-versatile", {"kind": ProviderKind.GROQ}, 669_000),
        # The operator's price has precedence, by each of the names, also for a local provider.
        ("gpt-5-mini", {"prices": {"gpt-5-mini": Price(1.0, 2.0)}}, 1_200_000),
        ("ours", {**AZURE, "prices": {"chat-prod": Price(1.0, 2.0)}}, 1_200_000),
        ("m", {"kind": ProviderKind.OLLAMA, "remote": False, "prices": {"m": Price(1.0, 0.0)}}, 1_000_000),
        # Local providers cost nothing.
        ("m", {"kind": ProviderKind.OLLAMA, "remote": False}, 0),
        ("m", {"kind": ProviderKind.OLLAMA, "remote": True}, 0),
        ("m", {"kind": ProviderKind.OPENAI_COMPATIBLE, "remote": False}, 0),
        ("demo", {"kind": ProviderKind.DEMO}, 0),
        # A server that the library knows by its URL; elsewhere the price of the same model is unknown.
        ("grok-3", {"kind": ProviderKind.OPENAI_COMPATIBLE, "base_url": "https://api.x.ai/v1"}, 4_500_000),
        ("grok-3", {"kind": ProviderKind.OPENAI_COMPATIBLE, "base_url": "https://llm.example.org/v1"}, None),
        ("no-such-model", {}, None),
    ],
)
def test_cost_by_provider_and_model(model: str, provider: dict[str, Any], nanousd: int | None) -> None:
    """None for an unknown price."""
    assert Prices().cost_nanousd(report(model, **provider)) == nanousd


def test_cost_of_cached_tokens_is_lower() -> None:
    usage = RequestUsage(input_tokens=1000, output_tokens=100, cache_read_tokens=1000)
    cost = Prices().cost_nanousd(report("gpt-5-mini", usage))
    assert cost is not None
    assert cost < MINI


def test_cost_reported_by_a_gateway_has_precedence() -> None:
    usage = RequestUsage(input_tokens=1000, output_tokens=100, cost=Decimal("0.001"))
    assert Prices().cost_nanousd(report("no-such-model", usage)) == 1_000_000


@pytest.mark.parametrize("usage", [RequestUsage(), RequestUsage(input_tokens=10, cache_read_tokens=500)])
def test_cost_is_zero_without_tokens_and_unknown_for_inconsistent_counts(usage: RequestUsage) -> None:
    """A failure used no tokens; more cached tokens than tokens are a server's mistake."""
    assert Prices().cost_nanousd(report("gpt-5-mini", usage)) == (0 if not usage.input_tokens else None)


def test_unknown_price_is_logged_once_per_model() -> None:
    prices = Prices()
    with capture_logs() as logs:
        for model in ("one", "one", "two", "one"):
            assert prices.cost_nanousd(report(model)) is None
    assert [(entry["event"], entry["model"]) for entry in logs] == [
        ("usage.price_unknown", "one"),
        ("usage.price_unknown", "two"),
    ]
