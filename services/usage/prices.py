"""What a request cost: by the operator's prices, else by the price library."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import structlog
from genai_prices import calc_price

from core.config.providers import Price, ProviderKind, ProviderSettings
from services.llm.providers.model_families import deployment_name, model_family
from services.llm.usage.report import RequestReport

log = structlog.get_logger()

NANO = 1_000_000_000
"""Costs are whole billionths of a dollar: a token of the cheapest models is some ten of them."""

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
"""What the price library calls the kinds; whose address another server has is told by that."""


class Prices:
    """Prices requests. A price that nobody knows is said once in the log and is never taken for nothing."""

    def __init__(self) -> None:
        self._unknown: set[tuple[str, str]] = set()

    def cost_nanousd(self, report: RequestReport) -> int | None:
        """What a request cost, in billionths of a dollar; None where the price is not known."""
        usage = report.used.usage
        if not usage.input_tokens and not usage.output_tokens:
            return 0
        provider = report.provider
        price = _own_price(provider, report.model)
        if price is not None:
            # Dollars for a million tokens are thousands of billionths for one.
            return round(1000 * (price.input_usd * usage.input_tokens + price.output_usd * usage.output_tokens))
        if not provider.remote or provider.kind in {ProviderKind.OLLAMA, ProviderKind.DEMO}:
            return 0
        cost = usage.cost if usage.cost is not None else _listed_cost(report)
        if cost is None:
            self._say_unknown(provider.id, report.model)
            return None
        return round(cost * NANO)

    def _say_unknown(self, provider: str, model: str) -> None:
        if (provider, model) not in self._unknown:
            self._unknown.add((provider, model))
            log.warning("usage.no_price", provider=provider, model=model, detail="<ID>_PRICES may name it")


def _own_price(provider: ProviderSettings, model: str) -> Price | None:
    """The operator's, by the model's name, its deployment or its family."""
    if not provider.prices:
        return None
    names = (model, deployment_name(provider, model), model_family(provider, model))
    return next((provider.prices[name] for name in names if name in provider.prices), None)


def _listed_cost(report: RequestReport) -> Decimal | None:
    provider = report.provider
    family, at = model_family(provider, report.model), datetime.fromtimestamp(report.at, UTC)
    listed = _LIBRARY.get(provider.kind)
    try:
        if listed is not None:
            found = calc_price(report.used.usage, family, provider_id=listed, genai_request_timestamp=at)
        else:
            found = calc_price(
                report.used.usage, family, provider_api_url=provider.base_url or "", genai_request_timestamp=at
            )
    except (LookupError, ValueError):
        # An unknown model or server, or counts that contradict each other.
        return None
    return found.total_price
