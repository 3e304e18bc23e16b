"""Cost of a request: by the operator's prices, else by the price library."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import structlog
from genai_prices import calc_price
from pydantic_ai.usage import RequestUsage

from core.config.providers import Price, ProviderKind, ProviderSettings
from services.llm.providers.spec import deployment_name, model_family
from services.llm.usage import RequestReport

log = structlog.get_logger()

NANO = 1_000_000_000
"""Costs are whole billionths of a dollar: a token of the cheapest models costs about ten of them."""

_LIBRARY: Mapping[ProviderKind, str] = {
    ProviderKind.OPENAI: "openai",
    ProviderKind.AZURE_OPENAI: "azure",
    ProviderKind.ANTHROPIC: "anthropic",
    ProviderKind.GOOGLE: "google",
    ProviderKind.GROQ: "groq",
    ProviderKind.MISTRAL: "mistral",
    ProviderKind.DEEPSEEK: "deepseek",
    ProviderKind.OPENROUTER: "openrouter",
}
"""Provider ids of the price library by kind; other servers are recognised by their URL."""


class Prices:
    """Prices requests. An unknown price is logged once and never counted as zero."""

    def __init__(self) -> None:
        self._unknown: set[tuple[str, str]] = set()

    def cost_nanousd(self, report: RequestReport) -> int | None:
        """Returns the cost of a request in billionths of a dollar, or None if the price is unknown."""
        return self._cost(report.provider, report.model, report.used.usage, report.at)

    def bound_nanousd(
        self, provider: ProviderSettings, model: str, input_tokens: int, max_tokens: int, at: float
    ) -> int | None:
        """Returns the highest cost of a request that is not made yet, or None if the price is unknown."""
        return self._cost(provider, model, RequestUsage(input_tokens=input_tokens, output_tokens=max_tokens), at)

    def _cost(self, provider: ProviderSettings, model: str, usage: RequestUsage, at: float) -> int | None:
        if not usage.input_tokens and not usage.output_tokens:
            return 0
        price = _operator_price(provider, model)
        if price is not None:
            # Dollars per million tokens are thousands of billionths per token.
            return round(1000 * (price.input_usd * usage.input_tokens + price.output_usd * usage.output_tokens))
        if not provider.remote or provider.kind in {ProviderKind.OLLAMA, ProviderKind.DEMO}:
            return 0
        cost = usage.cost if usage.cost is not None else _library_cost(provider, model, usage, at)
        if cost is None:
            self._warn_unknown(provider.id, model)
            return None
        return round(cost * NANO)

    def _warn_unknown(self, provider: str, model: str) -> None:
        if (provider, model) not in self._unknown:
            self._unknown.add((provider, model))
            log.warning("usage.price_unknown", provider=provider, model=model, detail="<ID>_PRICES may name it")


def _operator_price(provider: ProviderSettings, model: str) -> Price | None:
    """Returns the operator's price by the model's name, its deployment or its family."""
    if not provider.prices:
        return None
    names = (model, deployment_name(provider, model), model_family(provider, model))
    return next((provider.prices[name] for name in names if name in provider.prices), None)


def _library_cost(provider: ProviderSettings, model: str, usage: RequestUsage, at: float) -> Decimal | None:
    family, instant = model_family(provider, model), datetime.fromtimestamp(at, UTC)
    listed = _LIBRARY.get(provider.kind)
    try:
        if listed is not None:
            found = calc_price(usage, family, provider_id=listed, genai_request_timestamp=instant)
        else:
            found = calc_price(usage, family, provider_api_url=provider.base_url or "", genai_request_timestamp=instant)
    except (LookupError, ValueError):
        # An unknown model or server, or inconsistent counts.
        return None
    return found.total_price
